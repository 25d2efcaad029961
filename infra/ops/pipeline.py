"""make pipeline: the whole line in one command: videos, manifest, clips, training, monitor, download. What is done is
not done again, so after Ctrl-C, or whatever else ended it, the same command goes on where it stood."""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.ops import arrival, chore, data, download, ending, launch, manifest, monitor, prepare, record, train
from infra.ops.command import agrees, outputs_of, parser, print_json, run, said, say
from infra.ops.corpus import Survey
from infra.ops.errors import EXIT_INTERRUPTED, UserError
from infra.outputs import Outputs

EXAMPLES = """
make pipeline SRC=/videos
make pipeline SRC=/videos DRY=1
make pipeline SRC=/videos CONFIG=my/recipe.yaml SET="optim.lr=3e-4" CAP=10 YES=1
python -m infra.ops.pipeline /videos --config demo --yes
"""


@dataclass(frozen=True)
class Line:
    """What the operator asked for, as far as it can be known before anything is sent."""

    outputs: Outputs
    given: argparse.Namespace
    found: Survey
    where: dict[str, str]
    request: dict[str, Any]  # of the training
    recipe: bytes | None

    @property
    def what(self) -> str:
        return " ".join([self.request["config"], *self.request["settings"]])

    def errand(self, **changes: Any) -> argparse.Namespace:
        """The options as a step takes them; the operator has agreed to all of them already."""
        return argparse.Namespace(**{**vars(self.given), "yes": True, "no_wait": False, "json": False, **changes})

    def chore(self) -> argparse.Namespace:
        return self.errand(nodes=None, cap=None, hours=None)


def main(arguments: list[str] | None = None) -> int:
    made = parser("pipeline", __doc__ or "", EXAMPLES)
    made.add_argument("folder", nargs="?", default=said("SRC") or "", help="the videos, at any depth (SRC=)")
    made.add_argument("--config", default=said("CONFIG") or "slowfast_face", help="the recipe, as make train has it")
    made.add_argument("--set", default=said("SET") or "", help='what differs from it: "key=value key=value" (SET=)')
    made.add_argument("--out", default=said("OUT") or "runs", help="folder that runs are fetched to (OUT=; runs)")
    made.add_argument(
        "--no-open",
        dest="open",
        action="store_false",
        default=said("OPEN") != "0",
        help="leave the report shut (OPEN=0)",
    )
    made.add_argument("--name", default=said("NAME"), help="what the run's id ends with (NAME=; the recipe's name)")
    chore.add_data_options(made)
    launch.add_options(made, cap=f"the stack's, for training and for data, whose own is at most ${chore.CAP:.0f}")
    given = made.parse_args(arguments)
    return run(lambda: pipeline(given))


def pipeline(given: argparse.Namespace) -> int:
    if given.no_wait:
        raise UserError("the line waits for each step; `make data`, `make manifest`, ... take them one by one")
    line = lay(given)
    steps = plan(line)
    told = described(steps)
    if given.dry_run:
        print_json(steps) if given.json else print(told)
        return 0
    say(told)
    if any(not step["done"] for step in steps) and not agreed(given):
        return 0
    return walk(line, steps)


def lay(given: argparse.Namespace) -> Line:
    """Look at videos and recipe, before AWS is asked for anything. Raises UserError for what could not work."""
    launch.check(given)
    where = chore.keys_of(given.manifest, given.clips)
    settings = train.words(given.set)
    recipe, content = train.read_recipe(given.config, settings)
    found = data.look_at(given.folder)
    if found.broken and not given.force:
        raise UserError(
            f"{len(found.broken)} videos are broken, as told above; mend them, or FORCE=1 goes on without them"
        )
    check_names(found)
    request = train.what_is_asked(recipe, settings, given.manifest, given.clips or given.manifest)
    return Line(outputs_of(given.stack), given, found, where, request, content)


def check_names(found: Survey) -> None:
    """Build the manifest of the names alone, to learn now and not on a machine that no split can be made of them."""
    folders = {name: found.folder / name for name in ("ravdess", "crema")}
    if not all(folder.is_dir() for folder in folders.values()):
        folders = dict.fromkeys(folders, found.folder)
    words = [word for name, folder in folders.items() for word in (f"--{name}", str(folder))]
    with tempfile.TemporaryDirectory() as scratch:
        out = ["--root", str(found.folder), "--no-verify", "--out", f"{scratch}/manifest.csv"]
        built = subprocess.run(
            [sys.executable, "-m", "manifests", "build", *words, *out],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if built.returncode:
            raise UserError(f"no manifest can be made of these videos: {built.stderr.strip().removeprefix('error: ')}")
        facts = json.loads(Path(scratch, "manifest.json").read_text())
    say(manifest.described("by their names", facts))


def plan(line: Line) -> list[dict[str, Any]]:
    """The steps, each done or not, and the most dollars that it may cost. Raises UserError if the stack is not free."""
    outputs, given, where = line.outputs, line.given, line.where
    tally = data.plan(outputs, line.found)
    is_sent = not tally.counts["sent"] and not tally.counts["replaced"]
    is_made = is_sent and manifest.is_made(outputs, where, videos := chore.digest_of(chore.list_videos(outputs)))
    sources = prepare.made_of(outputs, where, videos) if is_made else {}
    is_prepared = is_made and prepare.is_made(outputs, where, sources) and not given.force
    trained = trained_run(line, sources) if is_prepared else None
    require_free(line, trained)
    is_trained = trained is not None and trained.state == "finished"
    is_here = is_trained and trained is not None and (Path(given.out) / trained.run_id / "outcome.json").is_file()
    small = 0.0 if is_prepared else launch.settle(outputs, line.chore(), min(chore.CAP, outputs.cap_dollars))[0].most
    large = 0.0 if trained else launch.settle(outputs, given)[0].most
    rows = [
        ("data", is_sent, data.sentence(outputs, tally, dry_run=True), 0.0),
        ("manifest", is_made and not given.force, f"s3://{outputs.bucket}/{where['manifest']}", small),
        ("prepare", is_prepared, f"s3://{outputs.bucket}/{where['clips']}", small),
        ("train", is_trained, trained.run_id if trained else line.what, large),
        ("download", is_here, f"to {given.out}", 0.0),
    ]
    return [
        {"step": step, "done": done, "what": what, "at_most_dollars": 0 if done else round(most, 2)}
        for step, done, what, most in rows
    ]


def require_free(line: Line, trained: record.Record | None) -> None:
    """Raise UserError if no machine could work for us now."""
    busy = trained.run_id if trained and trained.active else record.active_run(line.outputs)
    if not line.outputs.image_digest:
        raise UserError("the stack has no image yet, and machines work in it; `make image`")
    if busy and not (trained and trained.run_id == busy):
        asked = record.read_json(line.outputs, record.key(busy, "request.json")) or {}
        if asked.get("task") not in ("manifest", "prepare") or asked.get("manifest") != line.where["manifest"]:
            raise UserError(record.taken(line.outputs, busy))


def described(steps: list[dict[str, Any]]) -> str:
    rows = [(s["step"], "done" if s["done"] else "to do", s["what"], s["at_most_dollars"]) for s in steps]
    lines = [
        f"{name:<9} {state:<6} {what}" + (f"; at most ${most:.2f}" if most else "") for name, state, what, most in rows
    ]
    total = sum(step["at_most_dollars"] for step in steps)
    return "\n".join(
        [*lines, f"{'in all':<9} {'':<6} at most ${total:.2f}, on machines; a run ends at its cap by itself"]
    )


def agreed(given: argparse.Namespace) -> bool:
    if given.yes:
        return True
    if not sys.stdin.isatty():
        raise UserError("there is no terminal to ask on; say YES=1, or DRY=1 to see the plan only")
    return agrees("begin?")


def walk(line: Line, steps: list[dict[str, Any]]) -> int:
    """Take the steps. What the plan found done is done still if all videos were there, byte by byte."""
    outputs, done = line.outputs, {step["step"] for step in steps if step["done"]}
    tally = data.send(outputs, line.found)
    say(data.sentence(outputs, tally, dry_run=False))
    data.tell_broken(tally.unfit)
    if tally.unfit and not line.given.force:
        raise UserError("not all videos could be sent, as told above; run it again, or FORCE=1 goes on without them")
    if tally.counts["sent"] or tally.counts["replaced"]:
        done = set()
    if "manifest" not in done:
        manifest.make(outputs, line.chore(), line.where)
    if "prepare" not in done:
        prepare.make(outputs, line.chore(), line.where)
    if "train" in done:
        (run_id,) = (step["what"] for step in steps if step["step"] == "train")
        found = record.read_record(outputs, run_id)
    else:
        found = follow(outputs, train_run(line))
    fetched = download.fetch_run(outputs, found, Path(line.given.out).expanduser(), everything=False)
    download.tell(fetched, line.given.open, line.given.json)
    return 0


def train_run(line: Line) -> str:
    """The run that was begun of exactly this by an earlier call; else a new one."""
    outputs, given, request = line.outputs, line.errand(), dict(line.request)
    sources = prepare.made_of(outputs, line.where)
    if not given.force and (known := trained_run(line, sources)):
        say(f"run {known.run_id} was begun with this recipe on these clips")
        return known.run_id
    image = launch.require_free(outputs)
    train.require(outputs, request)
    terms, group = launch.settle(outputs, given)
    run_id = record.new_run_id(given.name or Path(request["config"]).stem)
    rows = (("data", train.data_of(request)), ("image", image.described()))
    if line.recipe is not None:
        request["config"] = record.key(run_id, "config.yaml")
    launch.agreed(run_id, f"train {line.what}", terms, given, rows)
    record.write_json(outputs, note_of(line, sources), {"run": run_id})
    launch.begin(outputs, run_id, request, terms, group, line.recipe)
    if arrival.follow(outputs, run_id, terms) == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    return run_id


def trained_run(line: Line, sources: dict[str, str]) -> record.Record | None:
    """The run that an earlier call began with this recipe on these clips; none that failed or never began."""
    note = record.read_json(line.outputs, note_of(line, sources))
    if note is None:
        return None
    try:
        found = record.read_record(line.outputs, note["run"])
    except UserError:  # it was noted and then not begun
        return None
    return None if found.state == "failed" else found


def note_of(line: Line, sources: dict[str, str]) -> str:
    """Where it is noted which run was begun; its name is made of all that decides what is learned."""
    recipe = hashlib.sha256(line.recipe).hexdigest() if line.recipe else line.request["config"]
    asked = [recipe, line.request["settings"], line.where["clips"], sources, line.given.nodes or "1"]
    return f"manifests/{line.given.manifest}/runs/{hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32]}.json"


def follow(outputs: Outputs, run_id: str) -> record.Record:
    """Show the run to its end, full-screen on a terminal, else as what it prints. Leaving it ends the line too."""
    found = record.read_record(outputs, run_id)
    if not ending.is_over(found):
        if not (sys.stdout.isatty() and sys.stdin.isatty()):
            return chore.watch(outputs, run_id)
        monitor.monitor(outputs.stack, run_id, replay=False, once=False, svg=None)
        found = record.read_record(outputs, run_id)
        if not ending.is_over(found):
            raise KeyboardInterrupt
    return chore.demand_finished(found)


if __name__ == "__main__":
    sys.exit(main())

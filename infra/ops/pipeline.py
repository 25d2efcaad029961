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
from infra.ops.command import outputs_of, parser, print_json, run, said, say
from infra.ops.corpus import Survey
from infra.ops.errors import EXIT_INTERRUPTED, UserError
from infra.outputs import Outputs

EXAMPLES = """
make pipeline SRC=/videos
make pipeline SRC=/videos DRY=1
make pipeline SRC=/videos CONFIG=my/recipe.yaml SET="optim.lr=3e-4" CAP=10 YES=1
python -m infra.ops.pipeline /videos --config demo --yes
"""
DONE = "done"


@dataclass(frozen=True)
class Line:
    """What the operator asked for, as far as it can be known before anything is sent."""

    outputs: Outputs
    given: argparse.Namespace
    found: Survey
    where: dict[str, str]
    request: dict[str, Any]  # of the training
    recipe: bytes | None

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
    chore.add_options(made, "manifest and the clips")
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
    if any(step["state"] != DONE for step in steps) and not agreed(given):
        return 0
    return walk(line)


def lay(given: argparse.Namespace) -> Line:
    """Look at videos and recipe, before AWS is asked for anything. Raises UserError for what could not work."""
    where = chore.keys_of(given.name)
    settings = train.words(given.set)
    recipe, content = train.read_recipe(given.config, settings)
    found = data.look_at(given.folder)
    if found.broken and not given.force:
        raise UserError(
            f"{len(found.broken)} videos are broken, as told above; mend them, or FORCE=1 goes on without them"
        )
    check_names(found)
    request = train.what_is_asked(recipe, settings, given.name, given.name)
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
    """The steps, each done or not, with the most dollars that it may cost."""
    outputs, given, where = line.outputs, line.given, line.where
    tally = data.plan(outputs, line.found)
    is_sent = not tally.counts["sent"] and not tally.counts["replaced"]
    is_made = is_sent and manifest.is_made(outputs, where, chore.digest_of_videos(outputs))
    is_prepared = is_made and prepare.is_made(outputs, where, prepare.made_of(outputs, where))
    trained = trained_run(line) if is_prepared else None
    busy = record.active_run(outputs)
    if busy and not (is_made and busy == trained) and not is_ours(line, busy):
        raise UserError(record.taken(outputs, busy))
    if not outputs.image_digest:
        raise UserError("the stack has no image yet, and machines work in it; `make image`")
    ended = trained is not None and record.read_record(outputs, trained, busy).state == "finished"
    small = launch.settle(outputs, line.chore(), min(chore.CAP, outputs.cap_dollars))[0].most if not is_prepared else 0
    large = 0.0 if trained else launch.settle(outputs, given)[0].most
    rows = [
        ("data", is_sent, data.sentence(outputs, tally, dry_run=True), 0.0),
        ("manifest", is_made, f"s3://{outputs.bucket}/{where['manifest']}", small),
        ("prepare", is_prepared, f"s3://{outputs.bucket}/{where['clips']}", small),
        ("train", ended, " ".join([line.request["config"], *line.request["settings"]]), large),
        ("download", False, f"to {given.out}", 0.0),
    ]
    return [
        {
            "step": step,
            "state": DONE if done else "to do",
            "what": what,
            "at_most_dollars": 0 if done else round(most, 2),
        }
        for step, done, what, most in rows
        if not (step == "download" and ended and (Path(given.out) / str(trained) / "report.html").is_file())
    ]


def described(steps: list[dict[str, Any]]) -> str:
    lines = []
    for step in steps:
        most = f"; at most ${step['at_most_dollars']:.2f}" if step["at_most_dollars"] else ""
        lines.append(f"{step['step']:<9} {step['state']:<6} {step['what']}{most}")
    total = sum(step["at_most_dollars"] for step in steps)
    return "\n".join(
        [*lines, f"{'in all':<9} {'':<6} at most ${total:.2f}, on machines; a run ends at its cap by itself"]
    )


def agreed(given: argparse.Namespace) -> bool:
    if given.yes:
        return True
    if not sys.stdin.isatty():
        raise UserError("there is no terminal to ask on; say YES=1, or DRY=1 to see the plan only")
    print("begin? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def walk(line: Line) -> int:
    """Take the steps, each of which finds out by itself whether there is anything to do."""
    outputs = line.outputs
    tally = data.send(outputs, line.found)
    say(data.sentence(outputs, tally, dry_run=False))
    data.tell_broken(tally.unfit)
    if tally.unfit and not line.given.force:
        raise UserError("not all videos could be sent, as told above; run it again, or FORCE=1 goes on without them")
    manifest.make(outputs, line.chore(), line.where)
    prepare.make(outputs, line.chore(), line.where)
    run_id = train_run(line)
    fetched = download.fetch_run(outputs, follow(outputs, run_id), Path(line.given.out).expanduser(), everything=False)
    download.tell(fetched, line.given.open, line.given.json)
    return 0


def train_run(line: Line) -> str:
    """The run that was trained, or is being trained, of exactly this; else a new one."""
    outputs, request = line.outputs, dict(line.request)
    known = None if line.given.force else trained_run(line)
    if known:
        say(f"run {known} was begun with this recipe on these clips")
        return known
    given = line.errand()
    launch.require_free(outputs)
    train.require(outputs, request)
    terms, group = launch.settle(outputs, given)
    run_id = record.new_run_id(Path(request["config"]).stem)
    what = " ".join(["train", request["config"], *request["settings"]])
    if line.recipe is not None:
        request["config"] = record.key(run_id, "config.yaml")
    launch.agreed(run_id, what, terms, given)
    record.write_json(outputs, note_of(line), {"run": run_id})
    launch.begin(outputs, run_id, request, terms, group, line.recipe)
    if arrival.follow(outputs, run_id, terms) == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    return run_id


def trained_run(line: Line) -> str | None:
    """The run that an earlier call began with this recipe, these settings and clips; none that has never started."""
    note = record.read_json(line.outputs, note_of(line))
    if note is None or record.read(line.outputs, record.key(note["run"], "request.json")) is None:
        return None
    found = record.read_record(line.outputs, note["run"])
    return None if found.state == "failed" else found.run_id


def note_of(line: Line) -> str:
    """Where it is noted which run was begun; its name is made of all that decides what is learned."""
    made_of = prepare.made_of(line.outputs, line.where)
    recipe = hashlib.sha256(line.recipe).hexdigest() if line.recipe else line.request["config"]
    asked = [recipe, line.request["settings"], line.where["clips"], made_of, line.given.nodes or "1"]
    return f"manifests/{line.given.name}/runs/{hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32]}.json"


def is_ours(line: Line, run_id: str) -> bool:
    """Whether an active run is one of the steps, begun by an earlier call."""
    asked = record.read_json(line.outputs, record.key(run_id, "request.json")) or {}
    return asked.get("task") in ("manifest", "prepare") and asked.get("manifest") == line.where["manifest"]


def follow(outputs: Outputs, run_id: str) -> record.Record:
    """Show the run to its end, full-screen on a terminal, else as what it prints. Leaving it ends the line too."""
    if sys.stdout.isatty() and sys.stdin.isatty() and not ending.is_over(record.read_record(outputs, run_id)):
        monitor.monitor(outputs.stack, run_id, replay=False, once=False, svg=None)
        if not ending.is_over(record.read_record(outputs, run_id)):
            raise KeyboardInterrupt
    return chore.watch(outputs, run_id)


if __name__ == "__main__":
    sys.exit(main())

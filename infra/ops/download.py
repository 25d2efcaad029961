"""make download: fetch a run that has ended, held against its checksums, and open its report. Brings only what is not
here and goes on where it was stopped; a file is here whole or not at all."""

import json
import os
import shutil
import sys
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.ops import ending, record
from infra.ops.command import is_yes, outputs_of, parser, print_json, run, said, say
from infra.ops.errors import UserError
from infra.ops.moving import Wire, shown, side_by_side
from infra.ops.record import Record
from infra.outputs import Outputs

if TYPE_CHECKING:
    from infra.box.transfer import Bucket, Remote

EXAMPLES = """
make download
make download RUN=2026-01-31-184502-slowfast-face OUT=/results OPEN=0
make download ALL=1 PARTIAL=1
python -m infra.ops.download --run 2026-01-31-184502-slowfast-face --json
"""
THREADS = 16
KEPT_FREE = 2**28  # bytes that the disk shall have left
# The files that are told of, by what they are.
NAMES = {"report": "report.html", "model": "model.safetensors", "card": "model_card.md", "log": "output.txt"}


def main(arguments: list[str] | None = None) -> int:
    options = parser("download", __doc__ or "", EXAMPLES)
    options.add_argument(
        "--run", default=said("RUN"), help="which run (RUN=; default: the active one, else the newest that trained)"
    )
    options.add_argument("--out", default=said("OUT") or "runs", help="folder of runs (OUT=; default: runs)")
    options.add_argument(
        "--all", action="store_true", default=is_yes("ALL"), help="checkpoints to go on from too (ALL=1)"
    )
    options.add_argument(
        "--partial",
        action="store_true",
        default=is_yes("PARTIAL"),
        help="what there is of a run that goes on (PARTIAL=1)",
    )
    options.add_argument(
        "--no-open",
        dest="open",
        action="store_false",
        default=said("OPEN") != "0",
        help="leave the report shut (OPEN=0)",
    )
    options.add_argument("--json", action="store_true", help="print what was fetched, and the result, as JSON")
    given = options.parse_args(arguments)
    return run(lambda: download(given.stack, given.run, given.out, given.all, given.partial, given.open, given.json))


def download(
    stack: str, run_id: str | None, out: str, everything: bool, partial: bool, may_open: bool, as_json: bool
) -> None:
    outputs = outputs_of(stack)
    found = record.read_record(outputs, run_id or newest(outputs))
    if not partial:
        demand_end(found)
    fetched = fetch_run(outputs, found, Path(out).expanduser(), everything)
    tell(fetched, may_open, as_json)


def newest(outputs: Outputs) -> str:
    """The active run, else the newest; not one that made a manifest or clips. Raises UserError if there is none."""
    active = record.active_run(outputs)
    for run_id in ([active] if active else []) + record.run_ids(outputs):
        request = record.read_json(outputs, record.key(run_id, "request.json"))
        if request is not None and request.get("task", "fit") == "fit":
            return run_id
    raise UserError(f"s3://{outputs.bucket}/runs/ holds no trained run yet; `make train` starts one")


def tell(fetched: dict[str, Any], may_open: bool, as_json: bool) -> None:
    """Say what came and where it is, and open the report."""
    if as_json:
        print_json(fetched)
        return
    print(described(fetched))
    if may_open and "report" in fetched:
        show(Path(fetched["report"]))


def demand_end(found: Record) -> None:
    """Raise UserError unless the run has said how it ended, and goes on no more."""
    if (found.outcome or {}).get("outcome") in ("finished", "failed", "stopped"):
        return
    anyway = "PARTIAL=1 fetches what there is"
    if not ending.is_over(found):
        raise UserError(f"run {found.run_id} goes on ({how_far(found)}); `make logs` tells its end, {anyway}")
    again = f"`make resume RUN={found.run_id}` goes on with it"
    raise UserError(f"run {found.run_id} was interrupted, and no machine works on it; {again}, {anyway}")


def how_far(found: Record) -> str:
    step = found.status or {}
    return f"{found.state}, epoch {step['epoch']} of {step['epochs']}" if step.get("epochs") else found.state


def fetch_run(outputs: Outputs, found: Record, out: Path, everything: bool) -> dict[str, Any]:
    """Bring the run to `out`/RUN_ID; return where things are and what came. Raises UserError."""
    from infra.box.transfer import is_there

    folder = out / found.run_id
    wire = Wire(outputs.bucket, outputs.region)
    wanted = [(remote, folder / name) for name, remote in choose(wire.bucket, found, everything)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        missing = [(remote, path) for remote, path in wanted if not is_there(remote, path)]
        total = sum(remote.size for remote, _ in missing)
        demand_room(folder, total)
        bring(wire, missing, folder, total)
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        raise UserError(f"cannot write to {folder} ({error.strerror}); make room there, or say OUT=DIR") from None
    say(f"brought {len(missing)} files, {total / 1e6:.1f} MB; {len(wanted) - len(missing)} were here")
    return summary(found, folder, len(missing), total, len(wanted))


def choose(bucket: "Bucket", found: Record, everything: bool) -> "list[tuple[str, Remote]]":
    """Names and objects to bring: all but checkpoints, or with `everything` those too from which one can go on."""
    from infra.box.transfer import Remote

    prefix = record.key(found.run_id, "")
    last = bucket.read(prefix + "checkpoints/last.json") if everything else None
    named = {entry["file"] for entry in json.loads(last or b"[]")}

    def is_wanted(name: str) -> bool:
        inside = name.removeprefix("checkpoints/")
        return inside == name or (everything and (not inside.startswith("step-") or inside in named))

    def is_sound(name: str) -> bool:
        # Keys are somebody's text, and paths of ours.
        return bool(name) and not name.endswith("/") and not {"", ".", ".."} & set(name.split("/"))

    listed: list[tuple[str, Remote]] = [(remote.key.removeprefix(prefix), remote) for remote in bucket.list(prefix)]
    for name, _ in listed:
        if not is_sound(name) and not name.endswith("/") and name:
            say(f"left out: {name!r} is no name of a file")
    return [(name, remote) for name, remote in listed if is_sound(name) and is_wanted(name)]


def demand_room(folder: Path, total: int) -> None:
    free = shutil.disk_usage(folder).free
    if total + KEPT_FREE > free:
        raise UserError(
            f"{folder} has {free / 1e9:.1f} GB free, and {(total + KEPT_FREE) / 1e9:.1f} GB are needed; "
            "make room there, or say OUT=DIR"
        )


def bring(wire: Wire, missing: "list[tuple[Remote, Path]]", folder: Path, total: int) -> None:
    from infra.box.transfer import fetch

    arrived = 0

    def here() -> int:
        # What has come of files that are not whole yet lies in hidden ones beside them.
        size = arrived
        for path in folder.rglob(".part-*"):
            with suppress(FileNotFoundError):  # whole by now
                size += path.stat().st_size
        return min(size, total)

    def carry(item: "tuple[Remote, Path]") -> int:
        return fetch(wire.bucket, *item, wire.check)

    def note(size: int) -> None:
        nonlocal arrived
        arrived += size

    with shown("fetching", total) as show_bytes:
        side_by_side(wire, carry, missing, THREADS, note, lambda: show_bytes(here()))


def summary(found: Record, folder: Path, files: int, size: int, known: int) -> dict[str, Any]:
    """What was fetched, where it is, and the run's result."""
    places = {kind: str(folder / name) for kind, name in NAMES.items() if (folder / name).is_file()}
    scores = folder / "evaluation.json"
    overall = json.loads(scores.read_text()).get("overall", {}) if scores.is_file() else {}
    return {
        "run": found.run_id,
        "state": found.state,
        "reason": (found.outcome or {}).get("reason"),
        "folder": str(folder),
        **places,
        "files": known,
        "files_fetched": files,
        "bytes_fetched": size,
        **{name: overall[name] for name in ("uar", "uar_interval", "war") if name in overall},
    }


def described(fetched: dict[str, Any]) -> str:
    """Where things are, a line each, and the result."""
    reason = f": {fetched['reason']}" if fetched["state"] in ("failed", "stopped", "interrupted") else ""
    lines = [("run", f"{fetched['run']}, {fetched['state']}{reason}"), ("folder", fetched["folder"])]
    lines += [(kind, fetched[kind]) for kind in NAMES if kind in fetched]
    if "uar" in fetched:
        between = fetched.get("uar_interval")
        interval = f" (95 % interval {between[0]:.1%} to {between[1]:.1%})" if between else ""
        lines.append(("result", f"UAR {fetched['uar']:.1%}{interval}, WAR {fetched['war']:.1%}"))
    return "\n".join(f"{name:<7} {text}" for name, text in lines)


def is_terminal() -> bool:
    return sys.stdout.isatty()


def show(report: Path) -> None:
    """Open the report where there is a screen and somebody before it."""
    has_screen = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if has_screen and is_terminal() and "SSH_CONNECTION" not in os.environ:
        webbrowser.open(report.resolve().as_uri())


if __name__ == "__main__":
    sys.exit(main())

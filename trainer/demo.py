"""`make demo`: the whole line at its smallest, from raw videos to a report and a prediction, each stage a real command.

Each command is shown as it could be typed. A stage that is done is not done again, so a stopped demo goes on.
"""

import shlex
from collections.abc import Iterator
from pathlib import Path

import manifests.__main__
import trainer.__main__
from manifests.console import stderr_console
from manifests.errors import UserError
from manifests.table import read_manifest
from trainer.metrics import points_above
from trainer.run import read_json

ACTORS = 12  # per corpus
CLIP_SIZE = 96  # px; augmentation and the network's input size take it from there
COMMANDS = {"manifests": manifests.__main__.main, "trainer": trainer.__main__.main}

Stage = tuple[str, str, tuple[object, ...]]


def demo(out: Path, data: Path | None) -> int:
    """Run every stage into `out`, on `data` or a synthetic corpus; print how SlowFast compares with a single frame.

    Returns the exit code of the first stage that fails, which has said why, or 0.
    """
    if data is not None and not data.is_dir():
        raise UserError(f"there is no folder {data}; give the folder that holds your RAVDESS and CREMA-D videos")
    console = stderr_console()
    for title, package, words in stages(out, data):
        line = [str(word) for word in words]
        console.print(f"\n[bold]{title}[/bold]")
        print(f"$ python -m {package} {shlex.join(line)}", flush=True)
        code = COMMANDS[package](line)
        if code:
            return code
    console.print("\n[bold]result[/bold]")
    ours, theirs = (read_json(out / run / "evaluation.json")["overall"]["uar"] for run in ("slowfast", "single_frame"))
    print(
        f"SlowFast {ours:.1%} UAR, single frame {theirs:.1%}: {points_above(ours, theirs):+.1f} points, "
        "on actors that neither has seen"
    )
    print(f"report: {out / 'slowfast' / 'report.html'}")
    return 0


def stages(out: Path, data: Path | None) -> Iterator[Stage]:
    """(title, package, command line), one by one: a later stage may look at what an earlier one has made."""
    videos = data or out / "data"
    manifest, clips, baseline, run = (out / name for name in ("manifest.csv", "clips", "single_frame", "slowfast"))
    fit = ("fit", "--config", "demo.yaml", "--manifest", manifest, "--clips", clips)

    if data is None:
        yield (
            "a corpus of drawn faces that act",
            "manifests",
            ("synth", "--out", videos, "--actors", ACTORS, "--seed", 1),
        )
    yield (
        "manifest: labels from names, every file decoded, split by actor", "manifests",
        ("build", "--ravdess", videos, "--crema", videos, "--root", videos, "--out", manifest),
    )  # fmt: skip
    yield (
        "prepared clips: one face crop per video", "manifests",
        ("prepare", manifest, "--root", videos, "--out", clips, "--size", CLIP_SIZE),
    )  # fmt: skip
    yield (
        "the baseline: one frame per clip; same clips, steps and recipe", "trainer",
        (*fit, "--run", baseline, "model.arch=single_frame"),
    )  # fmt: skip
    yield "SlowFast with Squeeze-and-Excitation", "trainer", (*fit, "--run", run, "evaluation.robustness=true")
    yield (
        "the report, beside the baseline",
        "trainer",
        ("report", "--run", run, "--clips", clips, "--baseline", baseline),
    )
    rows = read_manifest(manifest).rows
    unseen = videos / rows[rows["split"] == "test"].iloc[0]["path"]
    yield (
        "prediction on a video of an actor it has not seen", "trainer",
        ("predict", unseen, "--model", run / "model.safetensors", "--out", out / "predictions"),
    )  # fmt: skip

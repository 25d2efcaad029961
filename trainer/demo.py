"""`make demo`: the whole line at its smallest, from raw videos to a report and a prediction, each stage a real command.

Each command is shown as it can be typed. A stage that is done is not done again, so a stopped demo goes on.
"""

import os
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

import manifests.__main__
import trainer.__main__
from manifests.console import stderr_console
from manifests.errors import UserError
from manifests.files import replacing
from manifests.table import read_manifest
from manifests.video import read_frames
from trainer.film import Picture, write_video
from trainer.metrics import points_above
from trainer.run import read_json

ACTORS = 12  # per corpus
CLIP_SIZE = 96  # px; augmentation and the network's input size take it from there
TAKES = 3  # of an unseen actor, shown one after the other
COMMANDS = {"manifests": manifests.__main__.main, "trainer": trainer.__main__.main}

Stage = tuple[str, str, tuple[object, ...]]


def demo(out: Path, data: Path | None, settings: list[str]) -> int:
    """Run every stage into `out`, on `data` or a synthetic corpus; print how SlowFast compares with a single frame.

    `settings` change the recipe of both trainings, demo.yaml. Returns the exit code of the first stage that fails,
    which has said why, or 0.
    """
    if data is not None and not data.is_dir():
        raise UserError(f"there is no folder {data}; give the folder that holds your RAVDESS and CREMA-D videos")
    console, count = stderr_console(), 6 if data else 7
    for number, (title, package, words) in enumerate(stages(out, data, settings), start=1):
        line, began = [str(word) for word in words], time.monotonic()
        console.print(f"\n[bold]{number}/{count}  {title}[/bold]", soft_wrap=True)
        print(f"$ {this_python()} -m {package} {shlex.join(line)}", flush=True)
        code = COMMANDS[package](line)
        if code:
            console.print(
                f"stopped in stage {number} of {count}; `make demo` goes on, `make demo OUT=DIR` begins anew",
                soft_wrap=True,
            )
            return code
        console.print(f"[dim]{time.monotonic() - began:.0f} s[/dim]")
    console.print("\n[bold]result[/bold]")
    print(closing(out), flush=True)
    return 0


def stages(out: Path, data: Path | None, settings: list[str]) -> Iterator[Stage]:
    """(title, package, command line), one by one: a later stage may look at what an earlier one has made."""
    videos = data or out / "data"
    manifest, clips, baseline, run = (out / name for name in ("manifest.csv", "clips", "single_frame", "slowfast"))
    fit = ("fit", "--config", "demo.yaml", "--manifest", manifest, "--clips", clips)

    if data is None:
        yield (
            "a corpus of drawn faces that act: videos named like those of RAVDESS and CREMA-D", "manifests",
            ("synth", "--out", videos, "--actors", ACTORS, "--seed", 1),
        )  # fmt: skip
    yield (
        "the manifest: labels from file names, every file decoded, actors dealt to training, validation and test",
        "manifests",
        ("build", "--ravdess", videos, "--crema", videos, "--root", videos, "--out", manifest),
    )
    yield (
        "prepared clips: the face of each video, cropped once", "manifests",
        ("prepare", manifest, "--root", videos, "--out", clips, "--size", CLIP_SIZE),
    )  # fmt: skip
    yield (
        "the baseline to beat, which sees one frame of a video: a minute or two", "trainer",
        (*fit, "--run", baseline, "model.arch=single_frame", *settings),
    )  # fmt: skip
    yield (
        "SlowFast with Squeeze-and-Excitation, on the same clips: the longest stage, two to four minutes", "trainer",
        (*fit, "--run", run, "evaluation.robustness=true", *settings),
    )  # fmt: skip
    yield (
        "the report, with the baseline beside it",
        "trainer",
        ("report", "--run", run, "--clips", clips, "--baseline", baseline),
    )
    takes = unseen_takes(manifest)
    film = join_takes(videos, takes, out)
    yield (
        f"emotions over time, in a film of an actor it has not seen who plays {', '.join(takes['emotion'])}", "trainer",
        ("predict", film, "--model", run / "model.safetensors", "--out", out / "predictions"),
    )  # fmt: skip


def unseen_takes(manifest: Path) -> pd.DataFrame:
    """Rows of the manifest: takes of one test actor, each of another emotion."""
    rows = read_manifest(manifest).rows
    unseen = rows[rows["split"] == "test"]
    return unseen[unseen["actor"] == unseen.iloc[0]["actor"]].drop_duplicates("emotion").head(TAKES)


def join_takes(videos: Path, takes: pd.DataFrame, out: Path) -> Path:
    """One silent film of the takes, one after the other, if it is not there; returns its path in `out`."""
    film = out / f"{takes.iloc[0]['actor']}.mp4"

    def frames() -> Iterator[tuple[float, Picture]]:
        begins = 0.0
        for path, fps in zip(takes["path"], takes["fps"], strict=True):
            for seconds, picture in read_frames(videos / path):
                yield (ends := begins + seconds), picture
            begins = ends + 1 / fps

    if not film.is_file():
        with replacing(film) as temporary:
            write_video(temporary, frames(), float(takes.iloc[0]["fps"]))
    return film


def closing(out: Path) -> str:
    """What came out, where to look, and what to try next."""
    run, python = out / "slowfast", this_python()
    tests = (read_json(out / name / "evaluation.json") for name in ("slowfast", "single_frame"))
    ours, theirs = (test["overall"]["uar"] for test in tests)
    guessing = 1 / len(read_json(run / "run.json")["labels"])
    fit = f"{python} -m trainer fit --config demo.yaml --manifest {out / 'manifest.csv'} --clips {out / 'clips'}"
    pages = sorted((out / "predictions").glob("*.html"))
    return "\n".join([
        f"SlowFast {ours:.1%} UAR, single frame {theirs:.1%}: {points_above(ours, theirs):+.1f} points, "
        "on actors that neither has seen",
        f"(UAR: of each emotion the share that was read right, and the mean of these; guessing gets {guessing:.1%})",
        "",
        "open in a browser",
        *(f"  {page.resolve().as_uri()}" for page in (run / "report.html", *pages)),
        "try next",
        f"  {python} -m manifests sheet {out / 'clips'} --out sheet.html    # look at every face clip",
        f"  {python} -m trainer predict YOUR.mp4 --model {run / 'model.safetensors'} --out predictions",
        f"  {fit} --run runs/mine seed=2    # train again, with another seed or setting",
    ])  # fmt: skip


def this_python() -> str:
    """How this Python is called from here: `python` where its virtualenv is active."""
    here = Path(sys.executable)
    if os.environ.get("VIRTUAL_ENV"):
        return "python"
    return str(here.relative_to(Path.cwd())) if here.is_relative_to(Path.cwd()) else str(here)

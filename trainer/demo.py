"""`make demo`: the whole line at its smallest, from raw videos to a report and a prediction, each stage a real command.

Stages that are done are not done again, so the demo goes on where it was stopped.
"""

from pathlib import Path

from manifests.prepare import prepare

from manifests.build import Request, build
from manifests.console import stderr_console
from manifests.errors import UserError
from manifests.synth import synthesize
from manifests.table import read_manifest
from trainer.__main__ import run_line
from trainer.config import read_config
from trainer.metrics import points_above
from trainer.predict import predict
from trainer.run import read_json

ACTORS = 12  # per corpus
SEED = 1
CLIP_SIZE = 96  # px; the demo's network sees 72 after augmentation
CONFIG = Path("demo.yaml")


def demo(out: Path, data: Path | None) -> None:
    """Run every stage into `out`, on `data` or a synthetic corpus; print how SlowFast compares with a single frame."""
    if data is None:
        heading("1/7  synthetic corpus (drawn faces, no people)")
        data = out / "data"
        synthesize(data, actors=ACTORS, seed=SEED)
    elif not data.is_dir():
        raise UserError(f"there is no folder {data}; give the folder that holds your RAVDESS and CREMA-D videos")

    heading("2/7  manifest: labels from names, every file decoded, splits by actor")
    manifest = out / "manifest.csv"
    build(Request(out=manifest, ravdess=str(data), crema=str(data), root=str(data), labels="common6", seed=SEED))

    heading("3/7  prepared clips: one face crop per video")
    clips = out / "clips"
    prepare(manifest, data, clips, size=CLIP_SIZE)

    heading("4/7  the baseline: a single-frame model, same clips, steps and recipe")
    frame_run, run = out / "single_frame", out / "slowfast"
    run_line(read_config(CONFIG, ["model.arch=single_frame"]), manifest, clips, frame_run)

    heading("5/7  SlowFast with Squeeze-and-Excitation")
    run_line(read_config(CONFIG, []), manifest, clips, run, baseline=frame_run)

    heading("6/7  prediction on a video of an actor it has not seen")
    rows = read_manifest(manifest).rows
    unseen = rows[rows["split"] == "test"].iloc[0]
    print(f"acted emotion: {unseen['emotion']}")
    print(predict(data / unseen["path"], run / "model.safetensors", out / "predictions", stride=0.2, device="cpu"))

    heading("7/7  result")
    ours, theirs = (read_json(path / "evaluation.json")["overall"]["uar"] for path in (run, frame_run))
    print(
        f"SlowFast {ours:.1%} UAR against {theirs:.1%} of the single-frame model on unseen actors: "
        f"{points_above(ours, theirs):+.1f} points"
    )
    print(f"report: {run / 'report.html'}")


def heading(text: str) -> None:
    stderr_console().print(f"\n[bold]{text}[/bold]")

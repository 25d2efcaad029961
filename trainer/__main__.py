"""Command line of the trainer: `python -m trainer fit|evaluate|predict|report|demo`.

    python -m trainer fit --config demo.yaml --manifest manifest.csv --clips clips/ --run runs/first
    python -m trainer predict interview.mp4 --model runs/first/model.safetensors --out predictions/

Each command composes; the work is in the modules it names. torch is imported only by the commands that need it, so
that `--help` and a mistyped setting answer at once.
"""

import argparse
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manifests.errors import UserError, run_command
from trainer.config import Config, change_config, read_config
from trainer.run import Interrupted, Run, describe_surroundings, is_finished, read_json

if TYPE_CHECKING:
    from manifests.clips import ClipStore
    from manifests.table import Manifest
    from trainer.dataset import Clips

EXAMPLES = {
    "fit": """examples:
  python -m trainer fit --config demo.yaml --manifest manifest.csv --clips clips/ --run runs/first
  python -m trainer fit --config slowfast_face.yaml --manifest manifest.csv --clips clips/ --run runs/r50 optim.lr=3e-4
  python -m trainer fit ... model.arch=single_frame      the same recipe for the single-frame baseline""",
    "evaluate": """examples:
  python -m trainer evaluate --run runs/first --manifest manifest.csv --clips clips/
  python -m trainer evaluate --run runs/first --manifest manifest.csv --clips clips/ evaluation.clips=5""",
    "predict": """examples:
  python -m trainer predict interview.mp4 --model runs/first/model.safetensors --out predictions/
  python -m trainer predict *.mp4 --model runs/first/model.safetensors --out predictions/ --stride 0.25""",
    "report": """examples:
  python -m trainer report --run runs/first --clips clips/
  python -m trainer report --run runs/first --clips clips/ --baseline runs/frame""",
    "demo": """examples:
  python -m trainer demo --out runs/demo
  python -m trainer demo --out runs/real --data /videos      RAVDESS and CREMA-D folders somewhere below /videos""",
}


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    # Read when torch is first loaded. By default its threads wait for each other spinning, which costs a CPU step five
    # times its time as soon as one other process wants a core; sleeping costs nothing that can be measured.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        return run_command(lambda: arguments.command(arguments))
    except Interrupted as stop:
        print(f"{stop}; run the same command again to go on", file=sys.stderr)
        return stop.exit_code


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m trainer", description="Train, judge and use a facial-emotion model."
    )
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    fit = add_verb(
        verbs, "fit", "train, test on unseen actors and write the report; goes on where it was stopped", fit_command
    )
    add_inputs(fit)
    fit.add_argument(
        "--config", type=Path, required=True, help="recipe: a YAML file or the name of one that comes along"
    )
    fit.add_argument("settings", nargs="*", metavar="key=value", help="settings that differ from the recipe's")

    evaluate = add_verb(verbs, "evaluate", "test a trained run on the actors it has not seen", evaluate_command)
    add_inputs(evaluate)
    evaluate.add_argument(
        "settings", nargs="*", metavar="key=value", help="evaluation settings that differ from the run's"
    )

    predict = add_verb(
        verbs, "predict", "emotions over time in any video: JSON, plot and annotated video", predict_command
    )
    predict.add_argument("videos", nargs="+", type=Path, metavar="VIDEO")
    predict.add_argument("--model", type=Path, required=True, help="a run's model.safetensors")
    predict.add_argument("--out", type=Path, default=Path("predictions"), help="folder for the results (%(default)s)")
    predict.add_argument("--stride", type=float, default=0.5, help="seconds between predictions (%(default)s)")
    predict.add_argument("--device", choices=("cpu", "cuda"), default="cpu")

    report = add_verb(verbs, "report", "write report.html from what the run directory holds", report_command)
    report.add_argument("--run", type=Path, required=True)
    report.add_argument("--clips", type=Path, help="prepared clips, for thumbnails of the hardest videos")
    report.add_argument("--baseline", type=Path, help="another run to stand beside this one")

    demo = add_verb(verbs, "demo", "the whole line on a synthetic corpus, or on your videos", demo_command)
    demo.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder for everything (%(default)s)")
    demo.add_argument("--data", type=Path, help="folder with real RAVDESS and/or CREMA-D videos")
    return parser.parse_args(argv)


def add_verb(verbs: Any, name: str, help: str, command: Any) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=help,
        description=help[0].upper() + help[1:] + ".",
        epilog=EXAMPLES[name],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.set_defaults(command=command)
    return verb


def add_inputs(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--manifest", type=Path, required=True, help="manifest.csv from `python -m manifests build`")
    verb.add_argument("--clips", type=Path, required=True, help="folder from `python -m manifests prepare`")
    verb.add_argument("--run", type=Path, required=True, help="run directory, made if absent")


def fit_command(arguments: argparse.Namespace) -> None:
    """Train, test and report one run directory; nothing to do if it is finished."""
    from manifests.clips import ClipStore
    from manifests.table import read_manifest
    from trainer.evaluate import evaluate, result_line
    from trainer.report import write_report
    from trainer.train import fit

    config, run_path = read_config(arguments.config, arguments.settings), arguments.run
    manifest, store = read_manifest(arguments.manifest), ClipStore(arguments.clips)
    splits, rows, skipped = choose_clips(manifest, store)
    facts = describe_run(config, manifest, store, splits, run_path)
    if is_finished(run_path, facts):
        print(f"nothing to do: {run_path} is finished; {result_line(read_json(run_path / 'evaluation.json'))}")
        return
    announce(manifest, splits, skipped)
    with Run(run_path, facts) as run:
        fit(config, splits, manifest.labels, run)
        result = evaluate(
            run, splits["test"], rows, skipped, views=config.evaluation.clips, flip=config.evaluation.flip,
            batch=config.data.batch, workers=config.data.workers, device=config.device, seed=config.seed,
        )  # fmt: skip
        report = write_report(run_path, store)
    print(f"{config.model.arch}: {result_line(result)}")
    print(f"report: {report}")


def choose_clips(manifest: "Manifest", store: "ClipStore") -> tuple[dict[str, "Clips"], Any, list[dict[str, str]]]:
    """(clips per split, manifest rows of the test clips, clips without a prepared face and why).

    Raises UserError when a class or a split has nobody to learn from or to judge.
    """
    from manifests.clips import read_rejected
    from trainer.dataset import Clips

    rejected = {row["clip_id"]: row["reason"] for row in read_rejected(store.root)}
    rows = manifest.rows
    there = rows["clip_id"].map(lambda clip_id: clip_id in store).astype(bool)
    skipped = [
        {"clip_id": clip_id, "reason": rejected.get(clip_id, "not prepared")} for clip_id in rows["clip_id"][~there]
    ]
    unprepared = [clip["clip_id"] for clip in skipped if clip["reason"] == "not prepared"]
    if unprepared:
        raise UserError(
            f"{len(unprepared)} clips of the manifest are not in {store.root}, the first is {unprepared[0]}; "
            f"run python -m manifests prepare {manifest.path} --root DATA --out {store.root}"
        )
    rows = rows[there].reset_index(drop=True)
    index = {label: number for number, label in enumerate(manifest.labels)}
    parts = {split: rows[rows["split"] == split].reset_index(drop=True) for split in ("train", "val", "test")}
    for split, part in parts.items():
        absent = sorted(set(manifest.labels) - set(part["emotion"]))
        if part.empty or (split == "train" and absent):
            what = f"no clip of {', '.join(absent)}" if len(part) else "no clip at all"
            raise UserError(f"the {split} split has {what} ({manifest.path}); use more actors or another --labels")
    splits = {
        split: Clips(store, part["clip_id"].tolist(), part["emotion"].map(index).tolist())
        for split, part in parts.items()
    }
    return splits, parts["test"], skipped


def describe_run(
    config: Config, manifest: "Manifest", store: "ClipStore", splits: dict[str, "Clips"], run: Path
) -> dict[str, Any]:
    """What run.json holds."""
    from dataclasses import asdict

    actors = manifest.rows.groupby("split")["actor"].nunique()
    return {
        "run_id": run.resolve().name,
        "config": config.model_dump(mode="json"),
        "labels": list(manifest.labels),
        "manifest": {
            "path": str(manifest.path),
            "sha256": manifest.sha256,
            "leaky": manifest.leaky,
            "synthetic": manifest.synthetic,
            "counts": {split: {"clips": len(clips), "actors": int(actors[split])} for split, clips in splits.items()},
        },
        "clips": asdict(store.rule),
        "seed": config.seed,
        **describe_surroundings(config.device),
    }


def announce(manifest: "Manifest", splits: dict[str, "Clips"], skipped: list[dict[str, str]]) -> None:
    sizes = ", ".join(f"{len(clips)} {split}" for split, clips in splits.items())
    print(f"{manifest.path}: {sizes} videos of {len(manifest.labels)} classes", file=sys.stderr)
    if manifest.synthetic:
        print("drawn faces, a test corpus: results say nothing about people", file=sys.stderr)
    if manifest.leaky:
        print("LEAKY SPLIT: actors are on both sides; results are inflated on purpose", file=sys.stderr)
    if skipped:
        print(f"{len(skipped)} videos without a prepared face are left out, named in evaluation.json", file=sys.stderr)


def evaluate_command(arguments: argparse.Namespace) -> None:
    from manifests.clips import ClipStore
    from manifests.table import read_manifest
    from trainer.evaluate import evaluate, result_line

    facts = read_json(arguments.run / "run.json")
    if facts is None:
        raise UserError(f"{arguments.run} is no run directory; train first: python -m trainer fit --help")
    config = change_config(facts["config"], arguments.settings)
    manifest, store = read_manifest(arguments.manifest), ClipStore(arguments.clips)
    if manifest.sha256 != facts["manifest"]["sha256"]:
        raise UserError(f"{arguments.manifest} is not the manifest that {arguments.run} was trained on; give that one")
    splits, rows, skipped = choose_clips(manifest, store)
    if not (arguments.run / "model.safetensors").is_file():
        raise UserError(f"{arguments.run} has no weights yet; finish its training: python -m trainer fit --help")
    known = read_json(arguments.run / "evaluation.json")
    with Run(arguments.run, facts) as run:
        result = evaluate(
            run, splits["test"], rows, skipped, views=config.evaluation.clips, flip=config.evaluation.flip,
            batch=config.data.batch, workers=config.data.workers, device=config.device, seed=config.seed,
        )  # fmt: skip
    print(("nothing to do: " if result == known else "") + result_line(result))


def predict_command(arguments: argparse.Namespace) -> None:
    from manifests.files import writing_to
    from trainer.predict import predict

    twice = [name for name, count in Counter(video.stem for video in arguments.videos).items() if count > 1]
    if twice:
        raise UserError(
            f"more than one video is called {twice[0]}, so one result would hide the other; give each its own --out"
        )
    failed = []
    for video in arguments.videos:
        try:
            with writing_to(arguments.out):
                print(predict(video, arguments.model, arguments.out, arguments.stride, arguments.device))
        except UserError as error:
            # One bad video of many costs only itself.
            failed.append(error)
            if len(arguments.videos) > 1:
                print(f"error: {error}", file=sys.stderr)
    if len(failed) > 1 or (failed and len(arguments.videos) > 1):
        raise UserError(f"{len(failed)} of {len(arguments.videos)} videos gave no prediction, for the reasons above")
    if failed:
        raise failed[0]


def report_command(arguments: argparse.Namespace) -> None:
    from manifests.clips import ClipStore
    from trainer.report import write_report

    if read_json(arguments.run / "run.json") is None:
        raise UserError(f"{arguments.run} is no run directory; train first: python -m trainer fit --help")
    page = arguments.run / "report.html"
    before = page.read_bytes() if page.is_file() else None
    write_report(arguments.run, ClipStore(arguments.clips) if arguments.clips else None, arguments.baseline)
    print(f"unchanged: {page}" if page.read_bytes() == before else page)


def demo_command(arguments: argparse.Namespace) -> int:
    from trainer.demo import demo

    return demo(arguments.out, arguments.data)


if __name__ == "__main__":
    sys.exit(main())

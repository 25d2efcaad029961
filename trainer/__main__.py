"""Command line of the trainer: `python -m trainer fit|preflight|evaluate|predict|export|report|compare|crossval|demo`.

    python -m trainer fit --config demo.yaml --manifest manifest.csv --clips clips/ --run runs/first
    python -m trainer predict interview.mp4 --model runs/first/model.safetensors --out predictions/

Each command composes; the work is in the modules it names. torch is imported only by the commands that need it, so
that `--help` and a mistyped setting answer at once.
"""

import argparse
import json
import math
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from manifests.errors import UserError, run_command
from trainer.config import read_config
from trainer.run import Interrupted, read_json

EXAMPLES = {
    "fit": """examples:
  python -m trainer fit --config demo.yaml --manifest manifest.csv --clips clips/ --run runs/first
  python -m trainer fit --config slowfast_face.yaml --manifest manifest.csv --clips clips/ --run runs/r50 optim.lr=3e-4
  python -m trainer fit ... model.arch=single_frame      the same recipe for the single-frame baseline""",
    "preflight": """examples:
  python -m trainer preflight --config demo.yaml --manifest manifest.csv --clips clips/
  python -m trainer preflight --config slowfast_face.yaml --manifest manifest.csv --clips clips/ --processes 4""",
    "evaluate": """examples:
  python -m trainer evaluate --run runs/first --manifest manifest.csv --clips clips/
  python -m trainer evaluate --run runs/first --manifest manifest.csv --clips clips/ evaluation.clips=5
  python -m trainer evaluate ... evaluation.robustness=true       also blurred, dark, noisy, covered faces
  python -m trainer evaluate ... --twins twins/       RAVDESS: the same takes from their files with sound""",
    "predict": """examples:
  python -m trainer predict interview.mp4 --model runs/first/model.safetensors --out predictions/
  python -m trainer predict *.mp4 --model runs/first/model.safetensors --out predictions/ --stride 0.25""",
    "export": """examples:
  python -m trainer export --run runs/first --clips clips/           model.pt2 and model.onnx, beside the weights
  python -m trainer export --run runs/first --out models/ --format onnx
  python -m trainer predict interview.mp4 --model models/model.onnx""",
    "report": """examples:
  python -m trainer report --run runs/first --clips clips/
  python -m trainer report --run runs/first --clips clips/ --baseline runs/frame""",
    "compare": """examples:
  python -m trainer compare runs/r3d18 runs/slowfast
  python -m trainer compare runs/r3d18-* runs/slowfast-* --out compare.html      several seeds of each
  python -m trainer compare runs/cv-r3d18 runs/cv-slowfast --json      two cross-validations""",
    "crossval": """examples:
  python -m trainer crossval --protocol ravdess6 --config slowfast_face.yaml --manifest all.csv --clips clips/ --out cv
  python -m trainer crossval --protocol joint --folds 4 --config demo.yaml --manifest all.csv --clips clips/ --out cv
  python -m trainer crossval ... --leaky      also what a split by video would have claimed
  python -m trainer crossval ... --fold 3      one fold only, to share folds between machines

protocols: ravdess6, crema5 (published folds), joint, actors (folds dealt by actor), ravdess->crema, crema->ravdess;
a manifest of both corpora built with --labels ravdess8 serves them all""",
    "demo": """examples:
  python -m trainer demo --out runs/demo
  python -m trainer demo --out runs/short optim.epochs=3 seed=2
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
    for add in (add_fit, add_preflight, add_evaluate, add_predict, add_export, add_report, add_compare, add_crossval):
        add(verbs)
    add_demo(verbs)
    return parser.parse_args(argv)


def add_fit(verbs: Any) -> None:
    fit = add_verb(
        verbs, "fit", "train, test on unseen actors and write the report; goes on where it was stopped", fit_command
    )
    add_inputs(fit)
    fit.add_argument(
        "--config", type=Path, required=True, help="recipe: a YAML file or the name of one that comes along"
    )
    add_settings(fit)


def add_preflight(verbs: Any) -> None:
    preflight = add_verb(
        verbs, "preflight", "one step on trial: does the batch fit, does the GPU answer? nothing is kept",
        preflight_command,
    )  # fmt: skip
    add_clips(preflight)
    preflight.add_argument("--config", type=Path, required=True, help="recipe, as for fit")
    preflight.add_argument("--processes", type=read_count, default=1, help="that will share the batch (%(default)s)")
    preflight.add_argument(
        "--weights", type=Path, metavar="DIR", help="folder that may hold the pretrained weights, to fetch them from"
    )
    preflight.add_argument("--run", type=Path, help="run directory that will follow, to want shards there")
    add_settings(preflight)


def add_evaluate(verbs: Any) -> None:
    evaluate = add_verb(verbs, "evaluate", "test a trained run on the actors it has not seen", evaluate_command)
    add_inputs(evaluate)
    evaluate.add_argument(
        "--twins",
        type=Path,
        metavar="CLIPS",
        help="clips prepared from the takes' other files: same take, same answer?",
    )
    add_settings(evaluate, "evaluation settings that differ from the run's")


def add_predict(verbs: Any) -> None:
    predict = add_verb(
        verbs,
        "predict",
        "emotions over time in any video: JSON, plot, annotated video, and a page that plays it",
        predict_command,
    )
    predict.add_argument("videos", nargs="+", type=Path, metavar="VIDEO")
    predict.add_argument("--model", type=Path, required=True, help="a run's model.safetensors, .pt2 or .onnx")
    predict.add_argument("--out", type=Path, default=Path("predictions"), help="folder for the results (%(default)s)")
    predict.add_argument("--stride", type=read_seconds, default=0.5, help="seconds between predictions (%(default)s)")
    predict.add_argument("--device", choices=("cpu", "cuda"), default="cpu")


def add_export(verbs: Any) -> None:
    export = add_verb(
        verbs, "export", "the network for other programs: PyTorch's .pt2 and .onnx, checked and timed", export_command
    )
    export.add_argument("--run", type=Path, required=True)
    export.add_argument("--out", type=Path, help="folder for the files and export.json (the run directory)")
    export.add_argument("--format", choices=("export", "onnx"), help="only this one: torch.export's .pt2, or ONNX")
    export.add_argument("--clips", type=Path, help="prepared clips, to check on faces too and not on noise alone")


def add_report(verbs: Any) -> None:
    report = add_verb(verbs, "report", "write report.html from what the run directory holds", report_command)
    report.add_argument("--run", type=Path, required=True)
    report.add_argument("--clips", type=Path, help="prepared clips, for thumbnails of the hardest videos")
    report.add_argument("--baseline", type=Path, help="another run to stand beside this one")


def add_compare(verbs: Any) -> None:
    compare = add_verb(verbs, "compare", "hold tested runs against each other, on the same actors", compare_command)
    compare.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories, or those of crossval")
    compare.add_argument("--json", action="store_true", help="print all figures as JSON instead of tables")
    compare.add_argument("--out", type=Path, metavar="FILE.html", help="write a page as well")


def add_crossval(verbs: Any) -> None:
    crossval = add_verb(
        verbs, "crossval", "train and test by a protocol, fold by fold, and pool; goes on where it stopped",
        crossval_command,
    )  # fmt: skip
    crossval.add_argument("--protocol", required=True, help="ravdess6, crema5, joint, ..., listed below")
    crossval.add_argument("--config", type=Path, required=True, help="recipe, as for fit")
    crossval.add_argument("--manifest", type=Path, required=True, help="each fold's is made from its rows")
    crossval.add_argument("--clips", type=Path, required=True, help="folder from `python -m manifests prepare`")
    crossval.add_argument("--out", type=Path, required=True, help="folder of the folds' run directories")
    crossval.add_argument("--folds", type=int, metavar="K", help="how many, for joint and actors (default: 5)")
    crossval.add_argument("--fold", metavar="N", help="run only this fold, or `leaky`; pools once all are there")
    crossval.add_argument("--leaky", action="store_true", help="also measure how much a split by video inflates")
    add_settings(crossval)


def add_demo(verbs: Any) -> None:
    demo = add_verb(verbs, "demo", "the whole line on a synthetic corpus, or on your videos", demo_command)
    demo.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder for everything (%(default)s)")
    demo.add_argument("--data", type=Path, help="folder with real RAVDESS and/or CREMA-D videos")
    demo.add_argument("settings", nargs="*", metavar="key=value", help="changes to demo.yaml, for both trainings")


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


def add_clips(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--manifest", type=Path, required=True, help="manifest.csv from `python -m manifests build`")
    verb.add_argument("--clips", type=Path, required=True, help="folder from `python -m manifests prepare`")


def add_inputs(verb: argparse.ArgumentParser) -> None:
    add_clips(verb)
    verb.add_argument("--run", type=Path, required=True, help="run directory, made if absent")


def add_settings(verb: argparse.ArgumentParser, help: str = "settings that differ from the recipe's") -> None:
    verb.add_argument("settings", nargs="*", metavar="key=value", help=help)


def read_count(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of them; say 1 or more")
    return int(text)


def read_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no length of time; say for example 0.5, in seconds")
    return seconds


def fit_command(arguments: argparse.Namespace) -> None:
    config = read_config(arguments.config, arguments.settings)
    from manifests.clips import ClipStore
    from manifests.table import read_manifest
    from trainer.workflow import run_recipe

    run_recipe(config, read_manifest(arguments.manifest), ClipStore(arguments.clips), arguments.run)


def preflight_command(arguments: argparse.Namespace) -> None:
    config = read_config(arguments.config, arguments.settings)
    from manifests.clips import ClipStore
    from manifests.table import read_manifest
    from trainer.preflight import preflight, take_weights

    if arguments.weights:
        take_weights(config, arguments.weights)
    manifest, store = read_manifest(arguments.manifest), ClipStore(arguments.clips)
    print(preflight(config, manifest, store, arguments.processes, arguments.run))


def evaluate_command(arguments: argparse.Namespace) -> None:
    from manifests.clips import ClipStore
    from manifests.table import read_manifest
    from trainer.workflow import evaluate_run

    twins = ClipStore(arguments.twins) if arguments.twins else None
    manifest, store = read_manifest(arguments.manifest), ClipStore(arguments.clips)
    evaluate_run(arguments.run, arguments.settings, manifest, store, twins)


def predict_command(arguments: argparse.Namespace) -> None:
    from manifests.files import writing_to
    from trainer.predict import load, predict

    twice = [name for name, count in Counter(video.stem for video in arguments.videos).items() if count > 1]
    if twice:
        raise UserError(
            f"more than one video is called {twice[0]}, so one result would hide the other; give each its own --out"
        )
    model, videos, failed = load(arguments.model, arguments.device), arguments.videos, 0
    for video in videos:
        try:
            with writing_to(arguments.out):
                print(predict(video, model, arguments.out, arguments.stride))
        except UserError as error:
            if len(videos) == 1:
                raise
            # One bad video of many costs only itself.
            failed += 1
            print(f"error: {error}", file=sys.stderr)
    if failed:
        raise UserError(f"{failed} of {len(videos)} videos gave no prediction, for the reasons above")


def export_command(arguments: argparse.Namespace) -> None:
    from manifests.clips import ClipStore
    from manifests.files import writing_to
    from trainer.export import FILES, export_run, table

    out = arguments.out or arguments.run
    formats = [arguments.format] if arguments.format else list(FILES)
    with writing_to(out):
        result, new = export_run(arguments.run, out, formats, ClipStore(arguments.clips) if arguments.clips else None)
    print(f"{'' if new else 'nothing to do: '}{out / 'export.json'}")
    print(table(result))


def report_command(arguments: argparse.Namespace) -> None:
    from manifests.clips import ClipStore
    from trainer.modelcard import write_card
    from trainer.report import write_report

    if read_json(arguments.run / "run.json") is None:
        raise UserError(f"{arguments.run} is no run directory; train first: python -m trainer fit --help")
    page = arguments.run / "report.html"
    before = page.read_bytes() if page.is_file() else None
    write_report(arguments.run, ClipStore(arguments.clips) if arguments.clips else None, arguments.baseline)
    write_card(arguments.run)
    print(f"unchanged: {page}" if page.read_bytes() == before else page)
    absent = ["--clips (no films of the hardest videos)"] if arguments.clips is None else []
    absent += ["--baseline (no run beside it)"] if arguments.baseline is None else []
    if absent:
        print(f"made without {' and '.join(absent)}", file=sys.stderr)


def compare_command(arguments: argparse.Namespace) -> None:
    from manifests.files import writing_to
    from trainer.compare import compare
    from trainer.standings import comparison_page
    from trainer.tables import print_page, write_page

    told = compare(arguments.runs)
    if arguments.json:
        print(json.dumps(told, indent=2))
    else:
        print_page(comparison_page(told))
    if arguments.out:
        with writing_to(arguments.out):
            write_page(arguments.out, comparison_page(told))
        print(f"page: {arguments.out}", file=sys.stderr)


def crossval_command(arguments: argparse.Namespace) -> None:
    config = read_config(arguments.config, arguments.settings)
    from manifests.clips import ClipStore
    from manifests.table import read_manifest
    from trainer.crossval import crossval
    from trainer.standings import crossval_page
    from trainer.tables import print_page, write_page

    result = crossval(
        arguments.protocol, config, read_manifest(arguments.manifest), ClipStore(arguments.clips), arguments.out,
        folds=arguments.folds, only=arguments.fold, leaky=arguments.leaky,
    )  # fmt: skip
    if result is not None:
        print_page(crossval_page(result))
        write_page(arguments.out / "crossval.html", crossval_page(result))
        print(f"page: {arguments.out / 'crossval.html'}")


def demo_command(arguments: argparse.Namespace) -> int:
    from trainer.demo import demo

    return demo(arguments.out, arguments.data, arguments.settings)


if __name__ == "__main__":
    sys.exit(main())

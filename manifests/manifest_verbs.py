"""The verbs about manifests: build, check, show, diff. What they run is imported when it runs: --help is quick."""

import argparse
from pathlib import Path
from typing import Any

from manifests.verb import PROGRAM, add_verb, one_or_more


def add_build(subparsers: Any) -> None:
    parser = add_verb(
        subparsers,
        "build",
        run_build,
        "make a manifest: which takes there are, what they show, and which split each actor is in",
        f"""\
          {PROGRAM} build --ravdess data/ravdess --crema data/crema-d --out manifest.csv
          {PROGRAM} build --ravdess data/ravdess --labels ravdess8 --folds ravdess6 --fold 1 --out fold1.csv
          {PROGRAM} build --ravdess data/ravdess --crema data/crema-d --test-on crema --out cross.csv
        """,
    )
    _add_places(parser.add_argument_group("where the videos are"))
    _add_classes(parser.add_argument_group("what counts as a take, and its class"))
    _add_splits(parser.add_argument_group("which split each actor is in"))
    how = parser.add_argument_group("how")
    how.add_argument(
        "--no-verify",
        dest="verify",
        action="store_false",
        help="decode nothing and trust the file names; the manifest says so",
    )
    how.add_argument("--workers", type=one_or_more, metavar="N", help="processes that decode (default: one per core)")


def _add_places(where: Any) -> None:
    where.add_argument(
        "--ravdess", metavar="DIR", help="folder (or s3://bucket/prefix) of RAVDESS, searched to any depth"
    )
    where.add_argument(
        "--crema", metavar="DIR", help="folder (or s3://bucket/prefix) of CREMA-D; may be the same folder"
    )
    where.add_argument("--csv", metavar="FILE", help="your own recordings: a CSV of path, emotion, actor (and more)")
    where.add_argument(
        "--root", metavar="DIR", help="what paths are relative to (default: the deepest folder that holds all)"
    )
    where.add_argument(
        "--out",
        metavar="FILE.csv",
        type=Path,
        required=True,
        help="the manifest; its companion files go beside it, and verified.jsonl, which remembers what was decoded",
    )


def _add_classes(what: Any) -> None:
    what.add_argument(
        "--labels", default="common6", help="common6, ravdess8, crema6, ravdess7, or a,b,c (default: %(default)s)"
    )
    what.add_argument(
        "--calm",
        choices=("drop", "neutral"),
        default="drop",
        help="what to do with calm where it is not a class (default: %(default)s)",
    )
    what.add_argument("--channel", choices=("speech", "song", "both"), default="speech", help="(default: %(default)s)")
    what.add_argument(
        "--twins",
        choices=("video-only", "audio-video"),
        default="video-only",
        help="which of two files of one RAVDESS take is kept (default: %(default)s)",
    )


def _add_splits(who: Any) -> None:
    who.add_argument(
        "--split", default="70/15/15", metavar="T/V/T", help="shares of train/val/test (default: %(default)s)"
    )
    who.add_argument(
        "--folds",
        metavar="NAME|K",
        help="ravdess6, crema5, ravdess5, or a number of folds: one of them is the test, the next one validates",
    )
    who.add_argument("--fold", type=int, metavar="I", help="with --folds: the fold to test on (default: 1)")
    who.add_argument("--test-on", metavar="CORPUS", help="test on all of this corpus, train and validate on the others")
    who.add_argument(
        "--leaky",
        action="store_true",
        help="split takes, not actors: only to show how much leakage inflates the scores",
    )
    who.add_argument(
        "--seed", type=int, default=0, help="another seed deals the actors to other splits (default: %(default)s)"
    )


def run_build(options: argparse.Namespace) -> None:
    from manifests.build import Request, build
    from manifests.summary import print_build

    fields = {name: value for name, value in vars(options).items() if name != "run"}
    built = build(Request(**fields))
    print_build(options.out, built.rows, built.facts, built.decoded, built.changed)


def add_check(subparsers: Any) -> None:
    parser = add_verb(
        subparsers,
        "check",
        run_check,
        "check whether a manifest is still true; exit 1 and name what is not",
        f"""\
          {PROGRAM} check manifest.csv
          {PROGRAM} check manifest.csv --root data
          {PROGRAM} check manifest.csv --root data --decode
        """,
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument(
        "--root", metavar="DIR", help="also check that the files below DIR are there, with the same size and sha256"
    )
    parser.add_argument("--decode", action="store_true", help="with --root: also decode every file again")


def run_check(options: argparse.Namespace) -> int:
    from manifests.check import check

    problems = 0
    for problem in check(options.manifest, options.root, options.decode):
        print(f"problem: {problem}")
        problems += 1
    held = ["itself", *(["the files"] if options.root else []), *(["their pictures"] if options.decode else [])]
    print(f"{options.manifest}: " + (f"{problems} problems" if problems else f"sound, held against {', '.join(held)}"))
    return 1 if problems else 0


def add_show(subparsers: Any) -> None:
    parser = add_verb(
        subparsers,
        "show",
        run_show,
        "print a manifest's tables: takes by split, corpus, sex and emotion; actors; what was left out",
        f"""\
          {PROGRAM} show manifest.csv
        """,
    )
    parser.add_argument("manifest", type=Path)


def run_show(options: argparse.Namespace) -> None:
    from manifests.summary import print_manifest
    from manifests.table import read_manifest

    print_manifest(read_manifest(options.manifest))


def add_diff(subparsers: Any) -> None:
    parser = add_verb(
        subparsers,
        "diff",
        run_diff,
        "say what differs between two manifests; exit 1 if anything does",
        f"""\
          {PROGRAM} diff fold1.csv fold2.csv
        """,
    )
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)


def run_diff(options: argparse.Namespace) -> int:
    from manifests.compare import differences
    from manifests.table import read_manifest

    lines = list(differences(read_manifest(options.first), read_manifest(options.second)))
    print("\n".join(lines) or f"{options.first} and {options.second} say the same of the same takes")
    return 1 if lines else 0

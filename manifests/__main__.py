"""The command line of the data, `python -m manifests VERB`: it only composes, the work is in the modules it calls."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

from manifests.errors import run_command

PROGRAM = "python -m manifests"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Describe, verify, split and prepare facial-emotion videos."
    )
    subparsers = parser.add_subparsers(metavar="VERB", required=True)
    for add in (add_build, add_check, add_show, add_diff, add_synth, add_prepare, add_sheet, add_pack):
        add(subparsers)
    options = parser.parse_args(arguments)
    return run_command(lambda: options.run(options))


def add_verb(
    subparsers: Any, name: str, run: Callable[[argparse.Namespace], int | None], about: str, examples: str
) -> Any:
    """A verb's parser: one line about it, and examples that can be typed."""
    parser = subparsers.add_parser(
        name,
        help=about,
        description=about,
        epilog="examples:\n" + indent(dedent(examples), "  "),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_build(subparsers: Any) -> None:
    parser = add_verb(
        subparsers,
        "build",
        run_build,
        "make a manifest: which takes there are, what they show, who trains and who tests",
        f"""\
          {PROGRAM} build --ravdess data/ravdess --crema data/crema-d --out manifest.csv
          {PROGRAM} build --ravdess data/ravdess --labels ravdess8 --folds ravdess6 --fold 1 --out fold1.csv
          {PROGRAM} build --ravdess data/ravdess --crema data/crema-d --test-on crema --out cross.csv
        """,
    )
    where = parser.add_argument_group("where the videos are")
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
        help="the manifest; beside it go its companions and verified.jsonl, the memory of what was decoded",
    )
    what = parser.add_argument_group("what counts as a take, and its class")
    what.add_argument(
        "--labels", default="common6", help="common6, ravdess8, crema6, ravdess7, or a,b,c (default: %(default)s)"
    )
    what.add_argument(
        "--calm", choices=("drop", "neutral"), default="drop", help="calm, where it is no class (default: %(default)s)"
    )
    what.add_argument("--channel", choices=("speech", "song", "both"), default="speech", help="(default: %(default)s)")
    what.add_argument(
        "--twins",
        choices=("video-only", "audio-video"),
        default="video-only",
        help="which RAVDESS twin is kept (default: %(default)s)",
    )
    who = parser.add_argument_group("who trains and who tests (by actor)")
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
        "--leaky", action="store_true", help="split takes, not actors: only to show how much leakage inflates"
    )
    who.add_argument(
        "--seed", type=int, default=0, help="another seed, another dealing of actors (default: %(default)s)"
    )
    how = parser.add_argument_group("how")
    how.add_argument("--no-verify", dest="verify", action="store_false", help="trust names: decode nothing, and say so")
    how.add_argument("--workers", type=int, metavar="N", help="processes that decode (default: one per core)")


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
        "say whether a manifest still tells the truth; exit 1 and name what does not",
        f"""\
          {PROGRAM} check manifest.csv
          {PROGRAM} check manifest.csv --root data
          {PROGRAM} check manifest.csv --root data --decode
        """,
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument(
        "--root", metavar="DIR", help="also hold presence, size and sha256 of the files below DIR against it"
    )
    parser.add_argument("--decode", action="store_true", help="with --root: also decode every file anew")


def run_check(options: argparse.Namespace) -> int:
    from manifests.check import check
    from manifests.errors import UserError

    if options.decode and not options.root:
        raise UserError("--decode needs the files: add --root DIR")
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


def add_synth(subparsers: Any) -> None:
    parser = add_verb(
        subparsers,
        "synth",
        run_synth,
        "draw a small test corpus: faces that act emotions, in files named as RAVDESS and CREMA-D name theirs",
        f"""\
          {PROGRAM} synth --out data/synthetic --actors 12 --seed 1
          {PROGRAM} synth --out data/hard --actors 24 --seed 2 --takes 8 --difficulty 0.8 --every-emotion
        """,
    )
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="a new folder, or one to go on with")
    parser.add_argument("--actors", metavar="N", type=int, required=True, help="actors per corpus, 1 to 24")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other people (default: %(default)s)")
    parser.add_argument(
        "--takes", metavar="N", type=int, default=2, help="per actor and emotion, 1 to 8 (default: %(default)s)"
    )
    parser.add_argument(
        "--difficulty", metavar="D", type=float, default=0.3, help="0 clear, 1 faint and noisy (default: %(default)s)"
    )
    parser.add_argument("--every-emotion", action="store_true", help="calm and surprised too, which only RAVDESS has")
    parser.add_argument("--full-size", action="store_true", help="RAVDESS in its real 1280x720, not 640x360")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that draw (default: one per core)")


def run_synth(options: argparse.Namespace) -> None:
    from manifests.synth import synthesize

    summary = synthesize(
        options.out,
        options.actors,
        options.seed,
        difficulty=options.difficulty,
        takes=options.takes,
        every_emotion=options.every_emotion,
        full_size=options.full_size,
        workers=options.workers,
    )
    if not summary.drawn:
        print(f"nothing to do: all {summary.takes} takes ({summary.files} files) are in {options.out}")
        return
    kept = f", kept {summary.takes - summary.drawn}" if summary.drawn < summary.takes else ""
    print(f"drew {summary.drawn} takes{kept}: {summary.files} files in {options.out}; drawn faces, no person is shown")


def add_prepare(subparsers: Any) -> None:
    parser = add_verb(
        subparsers,
        "prepare",
        run_prepare,
        "decode each take once, find its face, and store one square crop of it per clip, quick to read at random",
        f"""\
          {PROGRAM} prepare manifest.csv --root data --out clips
          {PROGRAM} prepare manifest.csv --root data --out clips160 --size 160 --workers 8
          {PROGRAM} prepare manifest.csv --root data --out upright --roll
          {PROGRAM} prepare manifest.csv --root data --out /shared/clips --part 2/4    # on the second of four machines
          torchrun --nproc-per-node 1 --nnodes 4 -m -- manifests prepare ...  # its part by itself
        """,
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument(
        "--root", metavar="DIR", type=Path, required=True, help="the folder that the manifest's paths start from"
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, required=True, help="a new folder, or one of the same rule to go on with"
    )
    parser.add_argument("--size", metavar="PIXELS", type=int, default=256, help="of the crop (default: %(default)s)")
    parser.add_argument(
        "--margin", type=float, default=0.3, help="round the face, as a share of its size (default: %(default)s)"
    )
    parser.add_argument(
        "--no-face",
        choices=("reject", "crop"),
        default="reject",
        help="a clip without a face is rejected, or the middle of its picture kept (default: %(default)s)",
    )
    parser.add_argument(
        "--roll", action="store_true", help="turn each frame so that the head is upright, by one smooth angle over time"
    )
    parser.add_argument("--workers", metavar="N", type=int, help="processes (default: one per core)")
    parser.add_argument(
        "--part",
        metavar="K/N",
        type=read_part,
        default=(int(os.environ.get("RANK", 0)) + 1, int(os.environ.get("WORLD_SIZE", 1))),
        help="only the K-th of N shares of the takes; under torchrun each process has its own (default: all)",
    )


def read_part(text: str) -> tuple[int, int]:
    number, _, parts = text.partition("/")
    if not (number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r} is no part; say 2/4 for the second of four")
    return int(number), int(parts)


def run_prepare(options: argparse.Namespace) -> int:
    from manifests.prepare import prepare

    summary = prepare(
        options.manifest,
        options.root,
        options.out,
        options.size,
        options.margin,
        options.no_face,
        options.roll,
        options.workers,
        options.part,
    )
    print(summary.sentence(options.out))
    return 1 if summary.rejected and not summary.prepared else 0


def add_sheet(subparsers: Any) -> None:
    parser = add_verb(
        subparsers,
        "sheet",
        run_sheet,
        "one page of thumbnails, by actor, and what was rejected: see in a minute whether the crops are right",
        f"""\
          {PROGRAM} sheet clips --out sheet.html
          {PROGRAM} sheet clips --out all.html --per-actor 1000
        """,
    )
    parser.add_argument("clips", type=Path, help="the folder that `prepare` made")
    parser.add_argument("--out", metavar="FILE.html", type=Path, required=True)
    parser.add_argument(
        "--per-actor",
        metavar="N",
        type=int,
        default=12,
        help="clips shown of each, the doubtful first (%(default)s)",
    )


def run_sheet(options: argparse.Namespace) -> None:
    from manifests.sheet import write_sheet

    print(write_sheet(options.clips, options.out, options.per_actor))


def add_pack(subparsers: Any) -> None:
    parser = add_verb(
        subparsers,
        "pack",
        run_pack,
        "pack prepared clips into a few large tar files, for an object store; they are read at random as before",
        f"""\
          {PROGRAM} pack clips --out packed
        """,
    )
    parser.add_argument("clips", type=Path, help="the folder that `prepare` made")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="a new folder, or one to add to")
    parser.add_argument(
        "--shard-mb", metavar="MB", type=int, default=256, help="size of a shard (default: %(default)s)"
    )


def run_pack(options: argparse.Namespace) -> None:
    from manifests.shards import pack

    print(pack(options.clips, options.out, options.shard_mb * 2**20))


if __name__ == "__main__":
    sys.exit(main())

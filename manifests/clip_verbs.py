"""The verbs about videos and clips: synth, prepare, sheet, pack. What they run is imported when it runs."""

import argparse
import os
from pathlib import Path
from typing import Any

from manifests.verb import PROGRAM, add_verb, one_or_more


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
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        required=True,
        help="a new folder, or one that synth began with the same settings",
    )
    parser.add_argument("--actors", metavar="N", type=int, required=True, help="actors per corpus, 1 to 24")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other people (default: %(default)s)")
    parser.add_argument(
        "--takes", metavar="N", type=int, default=2, help="per actor and emotion, 1 to 8 (default: %(default)s)"
    )
    parser.add_argument(
        "--difficulty", metavar="D", type=float, default=0.3, help="0 clear, 1 faint and noisy (default: %(default)s)"
    )
    parser.add_argument(
        "--every-emotion", action="store_true", help="also draw calm and surprised, which only RAVDESS has"
    )
    parser.add_argument("--full-size", action="store_true", help="RAVDESS in its real 1280x720, not 640x360")
    parser.add_argument("--workers", type=one_or_more, metavar="N", help="processes that draw (default: one per core)")


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
        "--out",
        metavar="DIR",
        type=Path,
        required=True,
        help="a new folder, or one that was prepared with the same settings",
    )
    parser.add_argument("--size", metavar="PIXELS", type=int, default=256, help="of the crop (default: %(default)s)")
    parser.add_argument(
        "--margin", type=float, default=0.3, help="around the face, as a share of its size (default: %(default)s)"
    )
    parser.add_argument(
        "--no-face",
        choices=("reject", "crop"),
        default="reject",
        help="reject a clip without a face, or crop the middle of its picture (default: %(default)s)",
    )
    parser.add_argument(
        "--roll",
        action="store_true",
        help="turn each frame so that the head is upright; the angle changes smoothly over time",
    )
    parser.add_argument("--workers", metavar="N", type=one_or_more, help="processes (default: one per core)")
    parser.add_argument(
        "--part",
        metavar="K/N",
        type=read_part,
        default=f"{int(os.environ.get('RANK', 0)) + 1}/{os.environ.get('WORLD_SIZE', 1)}",
        help="only the K-th of N equal shares of the takes; under torchrun each process does its own (default: all)",
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
        size=options.size,
        margin=options.margin,
        no_face=options.no_face,
        roll=options.roll,
        workers=options.workers,
        part=options.part,
    )
    print(summary.sentence(options.out))
    return 1 if summary.rejected and not summary.prepared else 0


def add_sheet(subparsers: Any) -> None:
    parser = add_verb(
        subparsers,
        "sheet",
        run_sheet,
        "write one page of thumbnails, by actor, and of rejected clips, to see in a minute whether the crops are right",
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
        type=one_or_more,
        default=12,
        help="clips shown per actor, doubtful ones first (default: %(default)s)",
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
        "--shard-mb", metavar="MB", type=one_or_more, default=256, help="size of a shard (default: %(default)s)"
    )


def run_pack(options: argparse.Namespace) -> None:
    from manifests.shards import pack

    print(pack(options.clips, options.out, options.shard_mb * 2**20))

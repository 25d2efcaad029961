"""How manifests scale: seconds and peak memory at 10,000, 100,000 and 1,000,000 rows.

Run: python tests/bench_manifests.py [ROWS ...]. Each step has a process, and so a peak, of its own. The rows
are a synthetic listing (a CSV of own recordings, one actor per 100 takes): no real corpus is as large.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

EMOTIONS = ("angry", "disgust", "fear", "happy", "neutral", "sad")
TAKES_PER_ACTOR = 100
STEPS = ("build", "split", "folds", "check")
LIMITS = {"build": 90, "split": 30, "folds": 30, "check": 30}  # seconds at a million rows
GIB = 2**30


def main() -> int:
    sizes = [int(text) for text in sys.argv[1:]] or [10_000, 100_000, 1_000_000]
    table = Table(title="manifests: seconds (peak MiB)")
    for heading in ("rows", *STEPS):
        table.add_column(heading, justify="right")
    within = True
    for rows in sizes:
        with tempfile.TemporaryDirectory() as folder:
            write_listing(Path(folder) / "own.csv", rows)
            cells = []
            for step in STEPS:
                seconds, peak = measured(step, Path(folder))
                cells.append(f"{seconds:.1f} ({peak // 2**20})")
                within &= rows > 1_000_000 or (seconds <= LIMITS[step] and peak < GIB)
            table.add_row(f"{rows:,}", *cells)
    Console().print(table)
    print("within" if within else "NOT within", f"{LIMITS} seconds and 1 GiB")
    return 0 if within else 1


def write_listing(path: Path, rows: int) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.write("path,emotion,actor,sex,age\n")
        for number in range(rows):
            actor, emotion = number // TAKES_PER_ACTOR, EMOTIONS[number % len(EMOTIONS)]
            sex, age = "fm"[actor % 2], 20 + actor % 50
            video = f"actor_{actor:05d}/session_{number % 7}/take_{number:07d}_{emotion}.mp4"
            stream.write(f"{video},{emotion},{actor},{sex},{age}\n")


def measured(step: str, folder: Path) -> tuple[float, int]:
    """Run one step in a fresh process; return its own seconds (imports left out) and its peak memory in bytes."""
    command = [sys.executable, __file__, "--step", step, str(folder)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, peak = json.loads(said.splitlines()[-1])
    return seconds, peak


def run_step(step: str, folder: Path) -> None:
    from manifests import splits
    from manifests.build import Request, build
    from manifests.check import check
    from manifests.table import read_manifest

    manifest = folder / "m.csv"
    work: Callable[[], object]
    if step == "build":
        request = Request(out=manifest, csv=folder / "own.csv", verify=False)
        work = lambda: build(request)  # noqa: E731
    elif step == "check":
        work = lambda: list(check(manifest, None, False))  # noqa: E731
    else:
        rows = read_manifest(manifest).rows[["actor", "dataset", "sex", "emotion"]]
        if step == "split":
            work = lambda: splits.split_by_actor(rows, (0.7, 0.15, 0.15), 1)  # noqa: E731
        else:
            work = lambda: splits.fold_by_actor(rows, 5, 1)  # noqa: E731
    started = time.perf_counter()
    problems = work()
    seconds = time.perf_counter() - started
    assert step != "check" or problems == [], problems
    # Linux tells the peak in KiB.
    print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        run_step(sys.argv[2], Path(sys.argv[3]))
    else:
        sys.exit(main())

"""Does motion help, do the gates? SlowFast with and without SE, R3D-18 and single frames on drawn faces, three seeds.

Run: python tests/bench_models.py --work runs/demo      (a finished `make demo`, or an empty folder that becomes one)

Equal budget: the same clips, augmentation, steps and epochs for every network, those of configs/demo.yaml; only the
network and the seed differ. Stopped, it goes on where it was. With --folds K each network and seed is cross-validated
(protocol joint), which takes K times as long and tests every actor of the corpus instead of the few of one test split.

Two pairs of emotions differ in nothing but their rhythm (manifests/acting.py), so that no single frame can tell them
apart: pair accuracy is the share of a pair's videos in which the right one of the two has the higher probability.
"""

import argparse
import itertools
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from manifests.acting import PAIRS
from trainer import wording
from trainer.compare import compare, deviation, read_run
from trainer.demo import COMMANDS, stages
from trainer.metrics import accuracies, interval95, per_actor, redrawn
from trainer.standings import comparison_page
from trainer.tables import Page, Table, print_page

NETWORKS = {
    "slowfast-se": ["model.arch=slowfast"],
    "slowfast": ["model.arch=slowfast", "model.se_ratio=null"],
    "r3d18-small": ["model.arch=r3d18", "model.width=16"],
    "single-frame": ["model.arch=single_frame"],
}
OURS, FRAME = "slowfast-se", "single-frame"
CHANCE, SEPARATED = 0.5, 0.9
SEED = 0  # of drawing actors


def main() -> int:
    parser = argparse.ArgumentParser(description="SlowFast with SE against what it has to beat, on drawn faces.")
    parser.add_argument("--work", type=Path, default=Path("runs/demo"), help="(default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="how many of each network (default: %(default)s)")
    parser.add_argument("--folds", type=int, help="cross-validate over K folds instead of one test split")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="for all networks, e.g. optim.epochs=1")
    given = parser.parse_args()
    make_corpus(given.work)
    place = given.work / "_".join(["trials", *([f"{given.folds}folds"] if given.folds else []), *given.settings])
    seeds = range(1, given.seeds + 1)
    runs = {name: [place / f"{name}-{seed}" for seed in seeds] for name in NETWORKS}
    for seed, name in itertools.product(seeds, NETWORKS):
        train(given.work, place / f"{name}-{seed}", given.folds, [*NETWORKS[name], f"seed={seed}", *given.settings])
    told = compare([path for paths in runs.values() for path in paths])
    print_page(comparison_page(told))
    shares = {name: pair_shares([read_run(path).predictions for path in paths]) for name, paths in runs.items()}
    claims = judge(told, shares)
    print_page(Page("", "", [], [pairs_table(shares), claims_table(claims)]))
    return 0 if all(holds for _, holds, _ in claims) else 1


def make_corpus(work: Path) -> None:
    """The corpus, manifest and clips of `make demo`; each stage does nothing where it is done."""
    for title, package, words in itertools.takewhile(lambda stage: stage[1] == "manifests", stages(work, None, [])):
        print(title, file=sys.stderr)
        if code := COMMANDS[package]([str(word) for word in words]):
            sys.exit(code)


def train(work: Path, run: Path, folds: int | None, settings: Sequence[str]) -> None:
    """One network with one seed, in a process of its own."""
    where = ["crossval", "--protocol", "joint", "--folds", str(folds), "--out"] if folds else ["fit", "--run"]
    inputs = ["--config", "demo.yaml", "--manifest", work / "manifest.csv", "--clips", work / "clips"]
    line = [sys.executable, "-m", "trainer", *where, run, *inputs, *settings]
    code = subprocess.run([str(word) for word in line], stdout=sys.stderr).returncode
    if code:
        sys.exit(code)


def pair_shares(frames: Sequence[pd.DataFrame]) -> dict[str, dict[str, Any]]:
    """Pair accuracy of each pair and of both together, from the predictions of runs that differ in their seed.

    The mean over the runs, their deviation, and its 95 % interval over actors.
    """
    found = {}
    for name, pairs in [("both pairs", PAIRS), *((f"{one} or {other}", ((one, other),)) for one, other in PAIRS)]:
        counts = [np.sum([pair_counts(frame, pair) for pair in pairs], axis=0) for frame in frames]
        shares = [float(accuracies(each.sum(axis=0))[0]) for each in counts]
        drawn = np.mean([accuracies(redrawn(each, SEED))[0] for each in counts], axis=0)
        found[name] = {"share": float(np.mean(shares)), "sd": deviation(shares), "interval": interval95(drawn)}
    return found


def pair_counts(frame: pd.DataFrame, pair: tuple[str, str]) -> np.ndarray:
    """Per actor `(actors, 2, 2)`: which of the pair was played (rows), and which of the two is held likelier."""
    actor_of = pd.factorize(frame["actor"], sort=True)[0]
    of_pair = frame["label"].isin(pair).to_numpy()
    played = (frame["label"] == pair[1]).to_numpy()[of_pair].astype(np.int64)
    likelier = (frame[f"p_{pair[1]}"] > frame[f"p_{pair[0]}"]).to_numpy()[of_pair].astype(np.int64)
    counts = per_actor(likelier, played, actor_of[of_pair], 2)
    return np.pad(counts, ((0, actor_of.max() + 1 - len(counts)), (0, 0), (0, 0)))


def judge(told: Mapping[str, Any], shares: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, bool, str]]:
    """(claim, whether it holds, the figures); a difference holds if its interval over actors leaves 0 out."""
    first = told["contenders"][0]["name"]
    claims = []
    for pair in told["pairs"]:
        if pair["first"] == first and pair["corpus"] is None:
            low, high = pair["uar_interval"]
            figures = f"{wording.signed(pair['uar'])} points, {wording.signed(low)} to {wording.signed(high)}"
            claims.append((f"{first} above {pair['second']} in UAR", low > 0, figures))
    for name, (wanted, test) in {
        OURS: (f"{SEPARATED:.0%} or better", lambda both: both["share"] >= SEPARATED),
        FRAME: ("at chance", lambda both: both["interval"][0] <= CHANCE <= both["interval"][1]),
    }.items():
        both = shares[name]["both pairs"]
        figures = f"{wording.percent(both['share'])}, {wording.interval(both['interval'])}"
        claims.append((f"{name} tells the rhythms of the pairs apart: {wanted}", test(both), figures))
    return claims


def pairs_table(shares: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = []
    for name, found in shares.items():
        cells = [
            wording.percent(each["share"])
            + (f" ± {wording.in_hundred(each['sd'])}" if each["sd"] is not None else "")
            + f"\n{wording.interval(each['interval'])}"
            for each in found.values()
        ]
        rows.append([name, *cells])
    columns = ["network", *next(iter(shares.values()))]
    return Table("Pairs that differ in rhythm alone: the likelier of the two is right (guessing 50 %)", columns, rows)


def claims_table(claims: Sequence[tuple[str, bool, str]]) -> Table:
    rows = [[claim, "holds" if holds else "NOT shown", figures] for claim, holds, figures in claims]
    return Table("What was claimed", ("claim", "result", "figures"), rows)


if __name__ == "__main__":
    sys.exit(main())

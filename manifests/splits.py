"""Who is trained on and who is tested: splits that keep every actor on one side, even in emotion, corpus and sex.

`rows` is always a frame with the columns actor, dataset, sex and emotion, a row per take; answers are aligned with it.
"""

import hashlib
from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np
import pandas as pd

from manifests.errors import UserError
from manifests.table import SPLITS

FOLDS_FOLDER = Path(__file__).parent / "folds"
# Evenness is asked for at each of these levels; the coarser ones keep totals right where the finest is too thin.
LEVELS = (("dataset", "sex", "emotion"), ("dataset", "sex"), ("emotion",), ())


def parse_shares(text: str) -> tuple[float, float, float]:
    """Read "70/15/15" or "0.7/0.15/0.15" as the shares of train, val and test; 0.7+0.2+0.1 is 1 here."""
    try:
        parts = [Decimal(part) for part in text.split("/")]
        total = sum(parts)
        if len(parts) != 3 or not all(part.is_finite() and part >= 0 for part in parts):
            raise InvalidOperation
    except InvalidOperation:
        raise UserError(f"--split {text} is not three shares: write train/val/test as 70/15/15") from None
    if total not in (1, 100):
        raise UserError(
            f"the shares --split {text} sum to {total}, not to 100 (or 1): write train/val/test as 70/15/15"
        )
    train, val, test = (float(part / total) for part in parts)
    return train, val, test


def split_by_actor(rows: pd.DataFrame, shares: tuple[float, float, float], seed: int) -> np.ndarray:
    """Give each actor, whole, to train, val or test; return the split of each row, (rows,) of str."""
    used = [index for index, share in enumerate(shares) if share > 0]
    asked = f"a split into {', '.join(SPLITS[part] for part in used)}"
    part = _deal_actors(rows, np.array([shares[index] for index in used]), seed, asked)
    return np.array(SPLITS)[np.array(used)[part]]


def fold_by_actor(rows: pd.DataFrame, folds: int, seed: int) -> np.ndarray:
    """Number each row's fold, 1..folds: (rows,) int; an actor is in one fold, and folds are as even as actors allow."""
    if folds < 2:
        raise UserError(f"--folds {folds} is no division: use 2 or more, or a named one: {', '.join(named_folds())}")
    return _deal_actors(rows, np.full(folds, 1 / folds), seed, f"--folds {folds}") + 1


def _deal_actors(rows: pd.DataFrame, shares: np.ndarray, seed: int, asked: str) -> np.ndarray:
    """Deal actors to len(shares) parts; return the part of each row, (rows,) int.

    scikit-learn's group splitters either stratify (equal folds only, and StratifiedGroupKFold may leave one empty) or
    take shares (unstratified), and their choices may change with its version. So the dealing is ours: actors come one
    at a time, the largest first and ties in an order drawn from the seed, and each goes where it brings the counts
    nearest to the shares: the least increase in chi-square, summed over LEVELS.
    """
    actor_of_row, names = pd.factorize(rows["actor"], sort=True)
    actors = [str(name) for name in names]
    if len(actors) < len(shares):
        raise UserError(_too_few(actors, asked, len(shares)))
    counts = _class_counts(rows, actor_of_row, len(actors))
    first_rows = np.unique(actor_of_row, return_index=True)[1]
    dataset = pd.factorize(rows["dataset"].to_numpy()[first_rows], sort=True)[0]
    order = sorted(range(len(actors)), key=lambda index: (-counts[index, -1], drawn(seed, actors[index])))
    return _deal(counts, dataset, order, shares)[actor_of_row]


def split_by_dataset(rows: pd.DataFrame, test_on: str, shares: tuple[float, float, float], seed: int) -> np.ndarray:
    """All of one corpus is the test; the actors of the others train and validate in the proportion of those shares."""
    tested = (rows["dataset"] == test_on).to_numpy()
    if not tested.any() or tested.all():
        raise UserError(
            f"--test-on {test_on} needs takes of that corpus and of another (there are: "
            f"{', '.join(sorted(rows['dataset'].unique()))}): give both, or leave it out"
        )
    train, val, _ = shares
    if train + val == 0:
        raise UserError("--test-on with no share for train and val: give --split as 85/15/0")
    split = np.full(len(rows), "test", dtype="<U5")
    split[~tested] = split_by_actor(rows[~tested], (train / (train + val), val / (train + val), 0.0), seed)
    return split


def _deal(counts: np.ndarray, dataset: np.ndarray, order: list[int], shares: np.ndarray) -> np.ndarray:
    """Deal actors with class counts (A, C) to len(shares) parts; each part gets each corpus while actors suffice."""
    wanted = shares[:, None] * counts.sum(axis=0)
    held = np.zeros_like(wanted)
    actors_of = np.bincount(dataset)
    left = actors_of.copy()
    holds = np.zeros((len(shares), len(left)), dtype=bool)
    part_of_actor = np.zeros(len(order), dtype=int)
    anywhere = np.ones(len(shares), dtype=bool)
    for dealt, actor in enumerate(order):
        own = dataset[actor]
        columns = np.flatnonzero(counts[actor])
        has, target = counts[actor, columns], wanted[:, columns]
        cost = (has * (has + 2 * (held[:, columns] - target)) / target).sum(axis=1)
        allowed = anywhere
        if not holds.all():
            lacking, empty = np.logical_not(holds[:, own]), np.logical_not(holds.any(axis=1))
            if actors_of[own] >= len(shares) and left[own] <= lacking.sum():
                allowed = lacking
            if len(order) - dealt <= empty.sum():
                allowed = empty
        # Rounded, so that no processor's order of summing breaks a tie in its own way.
        part = int(np.where(allowed, cost.round(9), np.inf).argmin())
        held[part] += counts[actor]
        holds[part, own] = True
        left[own] -= 1
        part_of_actor[actor] = part
    return part_of_actor


def _class_counts(rows: pd.DataFrame, actor_of_row: np.ndarray, actors: int) -> np.ndarray:
    """Takes of each actor in each class of each of LEVELS: (actors, classes); the last column is the actor's total."""
    blocks = []
    for level in LEVELS:
        codes = _codes(rows, level)
        block = np.zeros((actors, codes.max(initial=0) + 1))
        np.add.at(block, (actor_of_row, codes), 1)
        blocks.append(block)
    return np.hstack(blocks)


def _codes(rows: pd.DataFrame, columns: tuple[str, ...]) -> np.ndarray:
    """A number for each row's combination of values in `columns`, sorted by value; all 0 for no columns."""
    codes = np.zeros(len(rows), dtype=np.int64)
    for column in columns:
        values, names = pd.factorize(rows[column], sort=True)
        codes = codes * len(names) + values
    return np.unique(codes, return_inverse=True)[1]


def split_takes(rows: pd.DataFrame, shares: tuple[float, float, float], seed: int) -> np.ndarray:
    """LEAKY: deal takes, not actors, evenly by corpus and emotion. Only to measure how much leakage inflates."""
    order = np.argsort(np.array([drawn(seed, name) for name in rows["clip_id"]]), kind="stable")
    groups = pd.Series(_codes(rows, ("dataset", "emotion"))[order]).groupby(_codes(rows, ("dataset", "emotion"))[order])
    middle = (groups.cumcount() + 0.5) / groups.transform("size")
    split = np.empty(len(rows), dtype="<U5")
    split[order] = np.array(SPLITS)[np.searchsorted(np.cumsum(shares)[:2], middle.to_numpy(), side="right")]
    return split


def named_folds() -> dict[str, Path]:
    """The published folds that are committed as data: name -> CSV of (actor, fold)."""
    return {path.stem: path for path in sorted(FOLDS_FOLDER.glob("*.csv"))}


def published_folds(rows: pd.DataFrame, name: str) -> np.ndarray:
    """Number each row's fold, 1..K, by a published list of actors: (rows,) int."""
    fold_of = pd.read_csv(named_folds()[name]).set_index("actor")["fold"]
    unlisted = sorted(set(rows["actor"].unique()) - set(fold_of.index))
    if unlisted:
        raise UserError(
            f"the folds {name} do not list {unlisted[0]}"
            + (f" and {len(unlisted) - 1} more actors" if unlisted[1:] else "")
            + ": build from that corpus alone, or let `--folds K` divide all actors"
        )
    return rows["actor"].map(fold_of).to_numpy(dtype=int)


def split_of_fold(number: np.ndarray, fold: int, validate: bool) -> np.ndarray:
    """Fold `fold` is the test; with `validate` the next one (after the last, the first) validates; the rest train.

    Without it the whole remainder is "train", and the caller says who of it validates.
    """
    folds = sorted(set(number.tolist()))
    if fold not in folds:
        raise UserError(
            f"--fold {fold} is not among the folds {folds[0]} to {folds[-1]} that have actors: choose one of them"
        )
    split = np.full(len(number), "train", dtype="<U5")
    if validate and len(folds) > 2:
        split[number == folds[(folds.index(fold) + 1) % len(folds)]] = "val"
    elif validate:
        raise UserError("two folds leave no actors to validate on: use --folds 3 or more")
    split[number == fold] = "test"
    return split


def drawn(seed: int, name: str) -> bytes:
    """A sort key that shuffles names by seed, the same in every version of every library."""
    return hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()


def _too_few(actors: list[str], what: str, needed: int) -> str:
    named = "actor" if len(actors) == 1 else "actors"
    listed = ", ".join(actors)
    return f"only {len(actors)} {named} ({listed}): {what} by actor needs {needed}; add actors, or ask for fewer parts"

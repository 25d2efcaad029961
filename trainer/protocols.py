"""Protocols by name: which takes of a manifest count, under which classes, and who is tested in which fold.

Pure functions from one manifest's rows to the rows of each fold: only splits are dealt anew, nothing is decoded again.
The published folds are those of MAE-DFER, SVFAP and HiCMAE (lists in manifests/folds).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from manifests import splits
from manifests.corpora import COMMON6, LABEL_SETS
from manifests.errors import UserError

DEALT_FOLDS = 5  # where no published list says it, and nobody asks for another number
# Share of the actors outside the test fold who validate. The published protocols have none and let the test fold choose
# the epoch instead; with these, nothing about a model is decided by whom it is tested on.
VALIDATION_SHARE = 0.15
SEED = 0  # of dealing actors; a recipe's own seed may vary while its folds stay


@dataclass(frozen=True)
class Reference:
    """A published result to stand beside ours; shares of 1."""

    who: str
    war: float
    uar: float


@dataclass(frozen=True)
class Protocol:
    """`labels` None: the manifest's own; `corpora` (): all; `folds` names a published list; `videos` when complete."""

    about: str
    labels: tuple[str, ...] | None = COMMON6
    corpora: tuple[str, ...] = ("ravdess", "crema")
    folds: str | None = None
    test_on: str | None = None
    videos: int | None = None
    references: tuple[Reference, ...] = ()


PROTOCOLS = {
    "ravdess6": Protocol(
        "RAVDESS speech, 8 classes, the 6 published folds of 4 actors",
        LABEL_SETS["ravdess8"], ("ravdess",), folds="ravdess6", videos=1440,
        # From the comparison in AVF-MAE++'s repository (XuecWu/AVF-MAE, figs/CEA-DEA.jpg); video only.
        references=(Reference("MAE-DFER", 0.7556, 0.7591), Reference("SVFAP", 0.7501, 0.7515)),
    ),
    "crema5": Protocol(
        "CREMA-D, 6 classes, the 5 published folds of 18 and 19 actors",
        LABEL_SETS["crema6"], ("crema",), folds="crema5", videos=7438,
        # The crowd: plurality of the face-only votes in CREMA-D's tabulatedVotes.csv, ties counted as wrong.
        references=(
            Reference("MAE-DFER", 0.7738, 0.7733), Reference("SVFAP", 0.7737, 0.7731),
            Reference("human plurality, face only", 0.663, 0.669),
        ),
    ),
    "joint": Protocol("both corpora, their 6 common classes, folds dealt by actor"),
    "ravdess->crema": Protocol("trained on RAVDESS, tested on all of CREMA-D, 6 common classes", test_on="crema"),
    "crema->ravdess": Protocol("trained on CREMA-D, tested on all of RAVDESS, 6 common classes", test_on="ravdess"),
    "actors": Protocol("all of the manifest under its own classes, folds dealt by actor", labels=None, corpora=()),
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """A protocol on one manifest: the rows that count, and the fold (1..folds) that tests each; 0: none does.

    `left_out` counts the manifest's takes that the protocol has no place for, by why; `notes` are for the reader.
    """

    protocol: str
    rows: pd.DataFrame
    labels: tuple[str, ...]
    number: np.ndarray
    left_out: dict[str, int]
    notes: list[str]

    @property
    def folds(self) -> list[int]:
        return sorted(set(self.number.tolist()) - {0})


def plan_folds(name: str, rows: pd.DataFrame, labels: tuple[str, ...], folds: int | None = None) -> Plan:
    """Apply the protocol `name` to a manifest's rows and classes; `folds` is how many, where no list says it.

    Raises UserError when the protocol is unknown, or the manifest lacks the corpora, classes or actors that it tests.
    """
    if name not in PROTOCOLS:
        raise UserError(f"there is no protocol {name}; choose one of {', '.join(PROTOCOLS)}")
    protocol = PROTOCOLS[name]
    if folds is not None and (protocol.folds or protocol.test_on):
        raise UserError(f"--folds {folds} contradicts {name}, whose folds are given; use it with joint or actors")
    kept, classes, left_out = _choose(name, protocol, rows, labels)
    if protocol.folds:
        _demand_actors(name, protocol, kept)
        number = splits.published_folds(kept, protocol.folds)
    elif protocol.test_on:
        number = (kept["dataset"] == protocol.test_on).to_numpy(dtype=int)
    else:
        number = splits.fold_by_actor(kept, DEALT_FOLDS if folds is None else folds, SEED)
    return Plan(name, kept, classes, number, left_out, _notes(protocol, kept))


def fold_rows(plan: Plan, fold: int) -> tuple[pd.DataFrame, str]:
    """(rows, rule) of one fold: its actors test, some of the other actors validate, the rest train."""
    if fold not in plan.folds:
        raise UserError(f"--fold {fold} is none of the folds {', '.join(map(str, plan.folds))} of {plan.protocol}")
    split = splits.split_of_fold(plan.number, fold, validate=False)
    others = split == "train"
    split[others] = splits.split_by_actor(plan.rows[others], (1 - VALIDATION_SHARE, VALIDATION_SHARE, 0.0), SEED)
    rule = (
        f"protocol {plan.protocol}, fold {fold} of {len(plan.folds)}; "
        f"{VALIDATION_SHARE:.0%} of its other actors validate, seed {SEED}"
    )
    number = pd.array(plan.number, dtype="Int64")
    number[plan.number == 0] = pd.NA
    return plan.rows.assign(fold=number, split=split, split_rule=rule), rule


def leaky_rows(plan: Plan) -> tuple[pd.DataFrame, str]:
    """(rows, rule) of the leakage probe: takes dealt at random into parts as large as a fold's; actors cross them."""
    if PROTOCOLS[plan.protocol].test_on:
        raise UserError(f"--leaky has no meaning in {plan.protocol}, where train and test are different corpora")
    test = 1 / len(plan.folds)
    val = (1 - test) * VALIDATION_SHARE
    split = splits.split_takes(plan.rows, (1 - test - val, val, test), SEED)
    rule = f"LEAKY: protocol {plan.protocol} with takes dealt at random, actors cross splits, seed {SEED}"
    return plan.rows.assign(fold=None, split=split, split_rule=rule), rule


def _choose(
    name: str, protocol: Protocol, rows: pd.DataFrame, labels: tuple[str, ...]
) -> tuple[pd.DataFrame, tuple[str, ...], dict[str, int]]:
    """(rows, classes, left out) of the protocol; nothing is relabelled, what has no place is counted."""
    classes = protocol.labels or labels
    absent = [corpus for corpus in protocol.corpora if corpus not in set(rows["dataset"])]
    if absent:
        raise UserError(
            f"{name} needs {' and '.join(protocol.corpora)}, and the manifest has no take of {' or '.join(absent)}; "
            "build one with both --ravdess and --crema, or use --protocol actors"
        )
    reasons = pd.Series("", index=rows.index)
    if protocol.corpora:
        reasons[~rows["emotion"].isin(classes)] = "emotion " + rows["emotion"]
        reasons[rows["channel"] == "song"] = "channel song"
        reasons[~rows["dataset"].isin(protocol.corpora)] = "corpus " + rows["dataset"]
    kept = rows[reasons == ""].reset_index(drop=True)
    lacking = [label for label in classes if label not in set(kept["emotion"])]
    if lacking:
        raise UserError(
            f"{name} has the classes {', '.join(classes)}, and the manifest has no take of {', '.join(lacking)}; "
            "build one with --labels ravdess8, which serves all protocols, or use --protocol actors"
        )
    counts = reasons[reasons != ""].value_counts().sort_index()
    return kept, classes, {str(reason): int(takes) for reason, takes in counts.items()}


def _demand_actors(name: str, protocol: Protocol, rows: pd.DataFrame) -> None:
    listed = pd.read_csv(splits.named_folds()[str(protocol.folds)])["actor"]
    absent = sorted(set(listed) - set(rows["actor"]))
    if absent:
        raise UserError(
            f"{name} tests {len(listed)} actors, and the manifest lacks {len(absent)} of them, the first is "
            f"{absent[0]}; add them, or deal folds over whom you have with --protocol actors --folds K"
        )


def _notes(protocol: Protocol, rows: pd.DataFrame) -> list[str]:
    notes = []
    if protocol.videos and len(rows) != protocol.videos:
        notes.append(f"{len(rows)} takes, where the complete corpus has {protocol.videos}")
    merged = rows[(rows["acted_emotion"] != "") & (rows["acted_emotion"] != rows["emotion"])]
    for pair, takes in (merged["acted_emotion"] + " count as " + merged["emotion"]).value_counts().items():
        notes.append(f"{takes} takes acted as {pair}, as the manifest has it")
    return notes

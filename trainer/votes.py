"""Soft labels: what CREMA-D's raters saw in the face alone, mixed into the emotion that the actor was asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from manifests.errors import UserError
from manifests.table import VOTES


@dataclass(frozen=True)
class SoftTargets:
    """`targets` `(N, classes)` float32; how many rows votes softened, and how many votes were for no class of ours."""

    targets: NDArray[np.float32]
    softened: int
    dropped: int


def soft_targets(rows: pd.DataFrame, labels: Sequence[str], share: float) -> SoftTargets:
    """(1 - share) of the intended emotion and `share` of the votes; a row without votes keeps the intended one.

    `rows` are manifest rows of training takes: raters have seen the test takes too, and no model may learn from that.
    Votes for an emotion that is not in `labels` are dropped, and the others count for the whole. Raises UserError when
    votes are asked for and no row has any.
    """
    classes = list(labels)
    intended = np.eye(len(classes))[[classes.index(emotion) for emotion in rows["emotion"]]]
    named = [name for name in VOTES if name.removeprefix("votes_") in classes]
    known = rows[named].to_numpy(dtype=np.float64, na_value=0.0)
    votes = np.zeros_like(intended)
    votes[:, [classes.index(name.removeprefix("votes_")) for name in named]] = known
    cast = rows[list(VOTES)].to_numpy(dtype=np.float64, na_value=0.0).sum()
    totals = votes.sum(axis=1, keepdims=True)
    if share > 0 and not totals.any():
        raise UserError(
            f"optim.human_votes={share:g} asks for votes and the manifest has none; put CREMA-D's tabulatedVotes.csv "
            "beside the videos and run `python -m manifests build` again, or say optim.human_votes=0"
        )
    heard = np.where(totals > 0, votes / np.maximum(totals, 1), intended)
    mixed = (1 - share) * intended + share * heard
    return SoftTargets(mixed.astype(np.float32), int((totals > 0).sum()), int(cast - known.sum()))

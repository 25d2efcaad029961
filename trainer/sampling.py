"""Which moments of a video a clip shows, and in which order videos are met: all a function of seeds, never of workers.

Moments are chosen by time, not by frame number, so that 25, 29.97 and 30 fps videos look alike to the network.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]
Key = tuple[int, int, int]  # epoch, row, repeat: all that decides a sample, besides the run's seed

# Seconds by which a frame's time may be too late: some containers keep whole milliseconds. Of moments that fall on
# frames none may show the frame before.
ROUNDED = 0.002


def frames_shown(times: Floats, wanted: Floats) -> Integers:
    """Index of the frame shown at each wanted second: `(..., T)`, from frame times `(N,)`, ascending.

    A frame is shown from its own time until the next one's. Were the nearest taken, moments that lie in the middle
    between two frames would go to either, and a face would move in jerks.
    """
    return np.clip(np.searchsorted(times, wanted + ROUNDED, side="right") - 1, 0, len(times) - 1)


def spread_frames(
    times: Floats, start: float | Floats, window: float | Floats, frames: int, phase: float = 0.5
) -> Integers:
    """`(..., frames)` indices of what is shown at even distances over windows that begin at `start`, in seconds.

    Each moment stands for one of `frames` equal parts of its window, and lies at `phase` 0..1 of it.
    """
    offsets = np.multiply.outer(window, (np.arange(frames) + phase) / frames)
    return frames_shown(times, np.asarray(start)[..., None] + offsets)


def duration_of(times: Floats) -> float:
    """Seconds from the first frame to the end of the last one, which lasts as long as the frames do on average."""
    if len(times) < 2:
        return 0.0
    return float(times[-1] - times[0]) * len(times) / (len(times) - 1)


def training_frames(times: Floats, frames: int, span: float, rng: np.random.Generator) -> Integers:
    """`(frames,)` indices of one training clip: a window of about `span` seconds at a random place and phase.

    A video shorter than the span is covered nearly whole (at least 85 % of it), so that its time course is seen.
    """
    length = duration_of(times)
    window = min(span, length) * rng.uniform(0.85, 1.0)
    start = times[0] + rng.uniform(0, max(length - window, 0.0))
    return spread_frames(times, start, window, frames, phase=rng.uniform())


def view_frames(times: Floats, frames: int, span: float, views: int) -> Integers:
    """`(views, frames)` indices of fixed test views, spread evenly from the video's start to its end."""
    length = duration_of(times)
    window = min(span, length)
    slack = length - window
    starts = times[0] + (np.linspace(0, slack, views) if views > 1 else np.array([slack / 2]))
    return spread_frames(times, starts, window, frames)


def sampling_weights(
    labels: Integers, corpora: NDArray[np.str_], balance_classes: float, balance_corpora: float
) -> Floats:
    """How often each video is drawn: `(N,)`, summing to 1; from its class and corpus, both `(N,)`.

    A group of n videos gets a share proportional to n ** (1 - power): 0 leaves groups as large as they are, 1 makes
    them equal. First the classes share out the draws, then, within each class, the corpora that have it: a corpus is
    then as large in one class as in another, and says nothing about the class.
    """
    classes, labels = np.unique(labels, return_inverse=True)
    names, corpus = np.unique(corpora, return_inverse=True)
    sizes = np.zeros((len(classes), len(names)))
    np.add.at(sizes, (labels, corpus), 1)
    # A power of 0 would make an absent corpus a group.
    corpus_shares = np.where(sizes > 0, np.maximum(sizes, 1) ** (1 - balance_corpora), 0)
    corpus_shares /= corpus_shares.sum(axis=1, keepdims=True)
    shares = sizes.sum(axis=1, keepdims=True) ** (1 - balance_classes) * corpus_shares
    weights = shares[labels, corpus] / sizes[labels, corpus]
    # Weights that are equal but for the last bit must be equal: rows of one weight are dealt as one deck.
    weights = np.round(weights / weights.mean(), 12)
    return weights / weights.sum()


class TrainingOrder(Sampler[list[Key]]):
    """Batches of (epoch, row, repeat) for a whole run, from any step on; the same for any number of processes.

    Without `weights` each epoch is a fresh permutation of all rows. The rows that do not fill a batch wait for another
    epoch's permutation; a batch of one would break BatchNorm.

    `weights` `(rows,)` change how often a row comes up, not how long an epoch is. Rows of equal weight are a deck of
    cards, shuffled once: each epoch deals on from where the last one ended, so that no row comes up again before all
    the others of its deck have, and nothing is left to luck but the order. `repeat` counts a row's returns within an
    epoch, so that each return can be another view of it.

    `shards` says in which shard each row lies; then rows are shuffled among a few shards at a time (`ShardedRows`), and
    otherwise drawn as without.

    `batch` counts the rows of all `world` processes together; the one of number `rank` gets its share of each batch.
    """

    def __init__(
        self, rows: int, batch: int, epochs: int, seed: int, first_step: int, weights: Floats | None = None,
        rank: int = 0, world: int = 1, shards: "ShardedRows | None" = None,
    ) -> None:  # fmt: skip
        self.shards = shards
        self.rows, self.batch, self.epochs, self.seed, self.first_step = rows, batch, epochs, seed, first_step
        self.rank, self.world = rank, world
        self.steps_per_epoch = rows // batch
        self._uses = lru_cache(maxsize=2)(self._find_uses)
        self.decks = None if weights is None or np.ptp(weights) == 0 else Decks(weights, seed)

    def __len__(self) -> int:
        return self.epochs * self.steps_per_epoch - self.first_step

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, skip = divmod(self.first_step, self.steps_per_epoch)
        while epoch < self.epochs:
            rows, repeats = self._epoch(epoch)
            for step in range(skip, self.steps_per_epoch):
                mine = slice(step * self.batch + self.rank, (step + 1) * self.batch, self.world)
                yield [(epoch, *key) for key in zip(rows[mine].tolist(), repeats[mine].tolist(), strict=True)]
            epoch, skip = epoch + 1, 0

    def _epoch(self, epoch: int) -> tuple[Integers, Integers]:
        """(row, repeat) of every draw of an epoch, in order."""
        rng = np.random.default_rng((self.seed, epoch))
        all_once = np.arange(self.rows), np.zeros(self.rows, np.int64)
        rows, repeats = self.decks.deal(epoch, self.steps_per_epoch * self.batch) if self.decks else all_once
        order = rng.permutation(len(rows)) if self.shards is None else self.shards.shuffle(rows, rng)
        return rows[order], repeats[order]

    def shards_needed(self, step: int, ahead: int) -> tuple[list[int], int]:
        """Shards in the order in which the steps from `step` on meet them, to the end of the next epoch.

        And how many of them, the first ones of the list, the next `ahead` steps read from.
        """
        epoch, within = divmod(step, self.steps_per_epoch)
        met: dict[int, int] = {}  # shard: the first of the steps from now on that reads it
        for later in range(epoch, min(epoch + 2, self.epochs)):
            start = (later - epoch) * self.steps_per_epoch - within
            for shard, first, last in self._uses(later):
                if start + last >= 0:
                    met.setdefault(shard, max(start + first, 0))
        return list(met), sum(first < ahead for first in met.values())

    def _find_uses(self, epoch: int) -> list[tuple[int, int, int]]:
        """(shard, first step, last step) within an epoch, in the order of the first steps."""
        assert self.shards is not None
        shards = self.shards.of_row[self._epoch(epoch)[0][: self.steps_per_epoch * self.batch]]
        met, first = np.unique(shards, return_index=True)
        last = len(shards) - 1 - np.unique(shards[::-1], return_index=True)[1]
        order = np.argsort(first)
        steps = np.stack([met, first // self.batch, last // self.batch], axis=1)[order]
        return [(shard, begin, end) for shard, begin, end in steps.tolist()]


@dataclass(frozen=True)
class ShardedRows:
    """Where rows lie, and how many shards they may be drawn from at a time.

    An epoch meets the shards in a random order, and the rows of the one at place p at random moments between p and
    p + `window`. So at most `window` shards are half read at any moment, and each is mixed with all of its neighbours.
    """

    of_row: Integers  # (rows,) number of the shard
    window: int

    def shuffle(self, rows: Integers, rng: np.random.Generator) -> Integers:
        """An order of these `(draws,)` rows, as indices into them."""
        place = rng.permutation(int(self.of_row.max()) + 1)
        return np.argsort(place[self.of_row[rows]] + self.window * rng.uniform(size=len(rows)), kind="stable")


class Decks:
    """Rows of equal weight as decks that are dealt from round and round, each in an order of its own."""

    def __init__(self, weights: Floats, seed: int) -> None:
        self.seed = seed
        shares, deck_of = np.unique(weights, return_inverse=True)
        rng = np.random.default_rng(seed)
        self.decks = [rng.permutation(np.flatnonzero(deck_of == deck)) for deck in range(len(shares))]
        self.bounds = np.cumsum(shares * [len(deck) for deck in self.decks] / np.sum(weights))

    def sizes(self, epoch: int, draws: int) -> Integers:
        """`(decks,)` cards that each deck gives to an epoch: its share, rounded up or down, `draws` in all."""
        # Systematic sampling: one random offset, by which all shares are rounded (Madow 1949).
        offset = np.random.default_rng((self.seed, epoch, 1)).uniform()
        ends = np.floor(self.bounds * draws + offset).astype(np.int64)
        ends[-1] = draws
        return np.diff(ends, prepend=0)

    def deal(self, epoch: int, draws: int) -> tuple[Integers, Integers]:
        """(rows, repeats), `(draws,)` each, deck by deck."""
        dealt = sum((self.sizes(before, draws) for before in range(epoch)), np.zeros(len(self.decks), np.int64))
        rows, repeats = [], []
        for deck, start, count in zip(self.decks, dealt, self.sizes(epoch, draws), strict=True):
            cards = np.arange(count)
            rows.append(deck[(start + cards) % len(deck)])
            repeats.append(cards // len(deck))
        return np.concatenate(rows), np.concatenate(repeats)

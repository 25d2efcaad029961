"""What differs between two manifests: takes, columns, splits."""

from collections.abc import Iterator

import pandas as pd

from manifests.table import COLUMNS, Manifest

EXAMPLES = 5


def differences(old: Manifest, new: Manifest) -> Iterator[str]:
    """Yield what differs, one line each, coarse before fine; nothing if both say the same of the same takes."""
    for name in ("labels", "leaky", "synthetic"):
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            yield f"{name}: {before} became {after}"
    one, two = old.rows.set_index("clip_id"), new.rows.set_index("clip_id")
    yield from _named("only in the first", one.index.difference(two.index))
    yield from _named("only in the second", two.index.difference(one.index))
    both = one.index.intersection(two.index).sort_values()
    one, two = one.loc[both], two.loc[both]
    yield from _moved_actors(one, two)
    for column in COLUMNS[1:]:
        before, after = one[column], two[column]
        differs = ~((before == after) | (before.isna() & after.isna())).fillna(False).astype(bool)
        if differs.any():
            first = differs.index[differs][0]
            example = f"{first}: {before[first]} became {after[first]}"
            yield f"{column} differs in {int(differs.sum())} of {len(both)} takes, e.g. {example}"


def _moved_actors(one: pd.DataFrame, two: pd.DataFrame) -> Iterator[str]:
    before, after = (
        rows.groupby("actor")["split"].agg(lambda split: "/".join(sorted(set(split)))) for rows in (one, two)
    )
    shared = before.index.intersection(after.index)
    moved = [actor for actor in shared if before[actor] != after[actor]]
    if moved:
        shown = ", ".join(f"{actor} {before[actor]} to {after[actor]}" for actor in moved[:EXAMPLES])
        yield f"{len(moved)} of {len(shared)} actors changed their split: {shown}" + (
            ", ..." if moved[EXAMPLES:] else ""
        )


def _named(what: str, clips: pd.Index) -> Iterator[str]:
    if len(clips):
        shown = ", ".join(sorted(clips)[:EXAMPLES])
        yield f"{len(clips)} takes {what}: {shown}" + (", ..." if len(clips) > EXAMPLES else "")

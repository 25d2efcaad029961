"""From files to takes: reads names, chooses classes, keeps one good file per take, and names whatever is left out."""

from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from manifests.corpora import ORIGINAL_SUFFIX, NotATake, read_name, suffix_of
from manifests.errors import UserError
from manifests.sources import Found, Listing

Rejected = list[tuple[str, str]]


def read_takes(listings: dict[str, Listing]) -> tuple[pd.DataFrame, Rejected]:
    """Read every video's name by the grammar of the corpus (key of `listings`) in whose folder it lies.

    Returns a row per file that names a take, and the files that do not, with reasons.
    """
    allowed: dict[Found, set[str]] = {}
    rejected: set[tuple[str, str]] = set()
    for corpus, listing in listings.items():
        rejected.update(listing.rejected)
        for found in listing.videos:
            allowed.setdefault(found, set()).add(corpus)
    rows = []
    for found, corpora in allowed.items():
        try:
            take = read_name(found.path, frozenset(corpora))
        except NotATake as reason:
            rejected.add((found.path, str(reason)))
        else:
            rows.append({**asdict(take), "path": found.path, "bytes": found.bytes, "etag": found.etag})
    return pd.DataFrame(rows), list(rejected)


def choose_classes(
    takes: pd.DataFrame, labels: tuple[str, ...], calm: str, channel: str
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Keep what the label set and the channel ask for; return also how many files were not asked for, by why."""
    if calm == "neutral" and "calm" in labels:
        raise UserError("--calm neutral contradicts a label set that has calm: leave it out, or use --labels ravdess7")
    takes = takes.assign(acted_emotion=takes["emotion"])
    if calm == "neutral":
        takes["emotion"] = takes["emotion"].replace("calm", "neutral")
    dropped: Counter[str] = Counter()
    if channel != "both":
        other = takes["channel"] != channel
        dropped.update(f"channel {name}" for name in takes.loc[other, "channel"])
        takes = takes[~other]
    outside = ~takes["emotion"].isin(labels)
    dropped.update(f"emotion {name}" for name in takes.loc[outside, "emotion"])
    return takes[~outside], dict(sorted(dropped.items()))


def keep_one_file(takes: pd.DataFrame, prefer: str) -> tuple[pd.DataFrame, Rejected]:
    """Of a take's files (RAVDESS twins with and without sound, re-encoded copies) keep one; name the others.

    First the preferred modality, then the suffix that the corpus was published with, then the first path.
    """
    suffixes = takes["path"].map(suffix_of)
    ranked = takes.assign(
        _other=takes["modality"] != prefer, _encoded=suffixes != takes["dataset"].map(ORIGINAL_SUFFIX).fillna("")
    ).sort_values(["clip_id", "_other", "_encoded", "path"], kind="stable")
    ranked = ranked.drop(columns=["_other", "_encoded"])
    spare = ranked["clip_id"].duplicated()
    kept = ranked[~spare]
    chosen = kept.set_index("clip_id")
    others = ranked[spare]
    of_kept = chosen.loc[others["clip_id"], ["path", "modality"]]
    kinds = np.where(others["modality"].to_numpy() == of_kept["modality"].to_numpy(), "copy", "twin")
    reasons = [f"{kind} of a kept take: {path} is used" for kind, path in zip(kinds, of_kept["path"], strict=True)]
    rejected = list(zip(others["path"], reasons, strict=True))
    return kept, rejected


def compare_twins(takes: pd.DataFrame) -> dict[str, Any]:
    """Hold the verified files of each RAVDESS take's two modalities against each other: they are one performance."""
    twins = takes[takes.groupby("clip_id")["modality"].transform("nunique") > 1]
    differ = []
    compared = 0
    for clip_id, files in twins.sort_values(["modality", "path"]).groupby("clip_id"):
        one, two = (files[files["modality"] == name].iloc[0] for name in sorted(files["modality"].unique()))
        compared += 1
        said = [
            f"{name} {one[name]} with sound, {two[name]} without"
            for name in ("frames", "width", "height")
            if one[name] != two[name]
        ]
        if said:
            differ.append(f"{clip_id}: {'; '.join(said)}")
    return {"compared": compared, "differ": differ}


def reject_same_bytes(takes: pd.DataFrame) -> tuple[pd.DataFrame, Rejected]:
    """One content under the names of several takes: keep the first if they agree on actor and emotion, else trust none.

    The same pixels on both sides of a split would be a leak that no actor's name shows.
    """
    hashed = takes[takes["sha256"] != ""]
    groups = hashed.groupby("sha256")
    sharing = hashed[groups["clip_id"].transform("nunique") > 1].sort_values("path")
    rejected = []
    for _, files in sharing.groupby("sha256"):
        paths = files["path"].tolist()
        agree = files["actor"].nunique() == 1 and files["emotion"].nunique() == 1
        for path in paths[1:] if agree else paths:
            other = paths[0] if path != paths[0] else paths[1]
            why = "copy of a kept take" if agree else "contradiction"
            detail = "the same bytes" if agree else "the same bytes under another actor or emotion"
            rejected.append((path, f"{why}: {detail} as {other}"))
    gone = {path for path, _ in rejected}
    return takes[~takes["path"].isin(gone)], rejected

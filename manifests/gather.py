"""What lies in the places that were given: candidate takes, files that are not takes, and who acts in them."""

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from manifests.demographics import DEMOGRAPHICS, VOTES_TABLE, join_demographics, join_votes
from manifests.errors import UserError
from manifests.recordings import read_recordings
from manifests.sources import below, common_root, is_s3, list_place, read_place
from manifests.takes import Rejected, read_takes

SYNTHETIC_MARKER = "synthetic-corpus.json"
Place = str | Path | None


@dataclass
class Gathered:
    """What is known besides the candidate takes; `places` maps each option to its folder or s3:// prefix."""

    root: str
    places: dict[str, str]
    rejected: Rejected
    others: dict[str, list[str]]  # by corpus: files that are no videos, relative to the root
    notes: list[str] = field(default_factory=list)

    def inside_root(self) -> dict[str, str]:
        """Each place below the root, so that a copied tree gives the same manifest."""
        return {name: below(place, self.root) for name, place in self.places.items()}

    def is_synthetic(self) -> bool:
        """Whether a marker of a drawn corpus lies in one of the places or between it and the data root."""
        if is_s3(self.root):
            return False
        inside = [Path(place) for place in self.inside_root().values()]
        folders = {folder for place in inside for folder in (place, *place.parents)}
        return any((Path(self.root) / folder / SYNTHETIC_MARKER).is_file() for folder in folders)


def gather(
    ravdess: Place, crema: Place, csv: Place, root: Place, labels: tuple[str, ...]
) -> tuple[pd.DataFrame, Gathered]:
    """List the places and read what names and tables say: candidate takes, a row per file, and all else.

    Raises UserError for a place without a usable video.
    """
    places = {name: str(place) for name, place in (("ravdess", ravdess), ("crema", crema)) if place}
    folders = [*places.values(), *([str(Path(csv).parent)] if csv else [])]
    if not folders:
        raise UserError("nothing to build from: give --ravdess DIR, --crema DIR or --csv FILE")
    base = str(root) if root else common_root(folders)
    listings = {name: list_place(place, base) for name, place in places.items()}
    for name, listing in listings.items():
        if not listing.videos:
            raise UserError(f"there is no video in {places[name]}: give --{name} the folder that holds the videos")
    takes, rejected = read_takes(listings)
    notes = []
    if csv:
        inside = below(str(Path(csv).parent), base)
        recorded, refused, repeated = read_recordings(Path(csv), "" if inside == "." else f"{inside}/", labels)
        if len(takes) and len(twice := recorded.loc[recorded["path"].isin(takes["path"]), "path"]):
            more = f" and {len(twice) - 1} more" if len(twice) > 1 else ""
            raise UserError(
                f"{Path(csv).name} names {min(twice)}, which --ravdess or --crema holds too{more}: "
                "take it out of the table, or give only one of them"
            )
        takes = pd.concat([takes, recorded], ignore_index=True) if len(takes) else recorded
        rejected += sorted(set(refused))
        places["csv"] = str(csv)
        if repeated:
            notes.append(f"{repeated} rows of {Path(csv).name} name a file again, with the same label: counted once")
    if takes.empty:
        path, reason = min(rejected, default=("the table", "it has no rows"))
        raise UserError(
            f"none of the {len(rejected)} videos can be used, e.g. {path}: {reason}; "
            "give the folders of RAVDESS or CREMA-D, or describe your own recordings with --csv"
        )
    others = {name: listing.others for name, listing in listings.items()}
    return takes, Gathered(base, places, rejected, others, notes)


def describe_actors(takes: pd.DataFrame, gathered: Gathered) -> pd.DataFrame:
    """Join what CREMA-D publishes about its actors and raters, where it lies beside the videos."""
    if "crema" not in set(takes["dataset"]):
        return takes
    if people := _table_beside(gathered, DEMOGRAPHICS):
        takes = join_demographics(takes, people)
    else:
        gathered.notes.append(f"no {DEMOGRAPHICS} beside the CREMA-D videos: sex and age of its actors stay unknown")
    if votes := _table_beside(gathered, VOTES_TABLE):
        takes = join_votes(takes, votes)
    return takes


def _table_beside(gathered: Gathered, name: str) -> bytes:
    """The table `name` in the CREMA-D folder, or next to it as in the published tree; empty if there is none."""
    inside = sorted(path for path in gathered.others["crema"] if path.rpartition("/")[2] == name)
    if inside:
        return read_place(gathered.root, inside[0])
    if is_s3(gathered.root):
        return b""
    parent = Path(gathered.places["crema"]).absolute().parent
    beside = (parent / name, parent / "processedResults" / name)
    return next((path.read_bytes() for path in beside if path.is_file()), b"")

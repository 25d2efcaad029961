"""What CREMA-D says of its actors and what its raters saw, joined to the takes when the files lie beside the videos."""

from collections.abc import Callable
from io import BytesIO

import pandas as pd

from manifests.errors import UserError
from manifests.table import VOTES

DEMOGRAPHICS = "VideoDemographics.csv"
VOTES_TABLE = "tabulatedVotes.csv"
# Column of the tabulated votes -> emotion, in the order of VOTES.
VOTE_LETTERS = ("A", "D", "F", "H", "N", "S")
# The row index starts with what raters were shown: 1 voice, 2 face, 3 both. The model sees faces.
FACE_ONLY = "2"


def join_demographics(takes: pd.DataFrame, table: bytes) -> pd.DataFrame:
    """Fill sex, age, race and ethnicity of CREMA-D actors; an actor that the table lacks keeps them empty."""
    people = _read(DEMOGRAPHICS, table, ("ActorID", "Age", "Sex", "Race", "Ethnicity"))
    people["ActorID"] = "crema_" + people["ActorID"]
    people = people.drop_duplicates("ActorID").set_index("ActorID")
    known = takes["actor"].isin(people.index)
    actor = takes.loc[known, "actor"]
    joined = takes.assign(**{name: takes.get(name, "") for name in ("race", "ethnicity")})
    for column, source, tidy in _PERSON:
        values = tidy(people[source])
        joined[column] = joined.get(column, pd.Series(pd.NA, index=takes.index, dtype="object"))
        joined.loc[known, column] = actor.map(values)
    return joined


def _age(text: pd.Series) -> pd.Series:
    return pd.to_numeric(text, errors="coerce").astype("Int64")


_PERSON: tuple[tuple[str, str, Callable[[pd.Series], pd.Series]], ...] = (
    ("sex", "Sex", lambda text: text.str.lower()),
    ("age", "Age", _age),
    ("race", "Race", lambda text: text),
    ("ethnicity", "Ethnicity", lambda text: text),
)


def join_votes(takes: pd.DataFrame, table: bytes) -> pd.DataFrame:
    """Add the columns VOTES: how many raters, shown the face alone, chose each emotion; NA for a take without votes."""
    votes = _read(VOTES_TABLE, table, ("Unnamed: 0", "fileName", *VOTE_LETTERS))
    votes = votes[votes["Unnamed: 0"].str.startswith(FACE_ONLY)].drop_duplicates("fileName")
    votes = votes.set_index("crema_" + votes["fileName"])
    return takes.assign(
        **{
            name: takes["clip_id"].map(pd.to_numeric(votes[letter])).astype("Int64")
            for name, letter in zip(VOTES, VOTE_LETTERS, strict=True)
        }
    )


def _read(name: str, table: bytes, columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        return pd.read_csv(BytesIO(table), dtype=str, keep_default_na=False, usecols=list(columns))
    except ValueError as error:
        raise UserError(f"{name} cannot be read as CREMA-D's table ({error}): mend it or move it away") from None

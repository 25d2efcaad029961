"""The data card: what a manifest is made of, in Markdown, for people and papers."""

from pathlib import Path
from typing import Any

import pandas as pd

from manifests.files import write_text
from manifests.table import SPLITS, card_path

LICENCES = {
    "ravdess": (
        "RAVDESS (Livingstone & Russo 2018, doi:10.1371/journal.pone.0196391)",
        "CC BY-NC-SA 4.0: no commercial use without a licence from its authors",
    ),
    "crema": (
        "CREMA-D (Cao et al. 2014, doi:10.1109/TAFFC.2014.2336244)",
        "Open Database License 1.0, contents under the Database Contents License 1.0",
    ),
}
EXAMPLES_PER_REASON = 5


def write_card(manifest: Path, rows: pd.DataFrame, facts: dict[str, Any], rejected: pd.DataFrame) -> bool:
    """Write the card beside the manifest; return whether it is new. The same facts give the same bytes."""
    path, text = card_path(manifest), card_text(manifest.name, rows, facts, rejected)
    if path.is_file() and path.read_bytes() == text.encode():
        return False
    write_text(path, text)
    return True


def card_text(name: str, rows: pd.DataFrame, facts: dict[str, Any], rejected: pd.DataFrame) -> str:
    sections = [
        f"# Data card of {name}",
        *_warnings(facts),
        _sources(rows, facts["synthetic"]),
        _how(facts),
        _counts(rows, facts),
    ]
    sections += [_actors(rows), _left_out(facts, rejected)]
    return "\n\n".join(sections) + "\n"


def _warnings(facts: dict[str, Any]) -> list[str]:
    warnings = []
    if facts["leaky"]:
        warnings.append(
            "> **LEAKY ON PURPOSE.** Actors are in several splits. Scores on this manifest say how much leakage "
            "inflates, and nothing about unseen people."
        )
    if facts["synthetic"]:
        warnings.append("> **Synthetic.** The clips are drawn to test the software. No score on them is about people.")
    if facts["verification"] != "decoded":
        warnings.append(f"> **Not decoded.** Verification: {facts['verification']}.")
    return warnings


def _sources(rows: pd.DataFrame, synthetic: bool) -> str:
    lines = ["## Sources and licences", "", *_row("corpus", "takes", "actors", "licence"), *_rule(4)]
    for dataset, part in rows.groupby("dataset"):
        title, licence = LICENCES.get(str(dataset), (str(dataset), "own recordings: as their owner says"))
        if synthetic:
            title, licence = f"{title}, drawn", "none: drawn in its form, without anything of it"
        lines += _row(title, len(part), part["actor"].nunique(), licence)
    return "\n".join(lines)


def _how(facts: dict[str, Any]) -> str:
    arguments = ", ".join(f"`{key}={value}`" for key, value in facts["arguments"].items() if value is not None)
    lines = [
        "## How it was made",
        "",
        f"- Classes, in this order: {', '.join(facts['labels'])}",
        f"- Split: {facts['split_rule']}",
        f"- Verification: {facts['verification']}",
        f"- Arguments: {arguments}",
        *(f"- Note: {note}" for note in facts["notes"]),
        "",
        "The label of a take is the emotion that its actor was asked to show, not what viewers see in it.",
    ]
    return "\n".join(lines)


def _counts(rows: pd.DataFrame, facts: dict[str, Any]) -> str:
    labels = facts["labels"]
    lines = ["## Takes", "", *_row("split", "corpus", *labels, "all"), *_rule(len(labels) + 3)]
    for split in SPLITS:
        for dataset, part in rows[rows["split"] == split].groupby("dataset"):
            counts = part["emotion"].value_counts()
            lines += _row(split, dataset, *(int(counts.get(label, 0)) for label in labels), len(part))
    return "\n".join(lines)


def _actors(rows: pd.DataFrame) -> str:
    lines = ["## Actors", "", *_row("split", "corpus", "actors", "female", "male", "sex unknown"), *_rule(6)]
    people = rows.drop_duplicates(["split", "actor"])
    for split in SPLITS:
        for dataset, part in people[people["split"] == split].groupby("dataset"):
            sexes = part["sex"].value_counts()
            known = (int(sexes.get("female", 0)), int(sexes.get("male", 0)))
            lines += _row(split, dataset, len(part), *known, len(part) - sum(known))
    if rows["fold"].notna().any():
        lines += ["", *_row("fold", "takes", "actors"), *_rule(3)]
        for fold, part in rows.groupby("fold"):
            lines += _row(fold, len(part), part["actor"].nunique())
    return "\n".join(lines)


def _left_out(facts: dict[str, Any], rejected: pd.DataFrame) -> str:
    lines = ["## Left out", ""]
    for why, number in facts["dropped"].items():
        lines.append(f"- {number} files not asked for: {why}")
    kinds = rejected["reason"].str.partition(":")[0] if len(rejected) else pd.Series(dtype=str)
    for kind, part in rejected.groupby(kinds):
        lines.append(f"- {len(part)} files: {kind}")
        lines += [f"  - `{path}`: {reason}" for path, reason in part.head(EXAMPLES_PER_REASON).itertuples(index=False)]
        if len(part) > EXAMPLES_PER_REASON:
            lines.append(f"  - and {len(part) - EXAMPLES_PER_REASON} more, all named in the rejected CSV")
    return "\n".join(lines if len(lines) > 2 else [*lines, "Nothing."])


def _row(*cells: object) -> list[str]:
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"]


def _rule(columns: int) -> list[str]:
    return ["|" + " --- |" * columns]

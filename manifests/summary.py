"""What a manifest says, as tables for people, on stdout."""

import sys
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from manifests.table import SPLITS, Manifest, card_path, facts_path, rejected_path

LEAKY = (
    "LEAKY ON PURPOSE: actors are in several splits; scores say how much leakage inflates, nothing about unseen people"
)
SYNTHETIC = "synthetic: the clips are drawn, no score on them is about people"
# A pipe has no width; tables go there whole.
WIDTH_OF_A_PIPE = 160


def stdout_console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH_OF_A_PIPE)


def print_build(out: Path, rows: pd.DataFrame, facts: dict[str, Any], decoded: int, changed: bool) -> None:
    """The short form after a build: who went where, what was left out, which files were written."""
    console = stdout_console()
    _warn(console, facts)
    console.print(_split_table(rows))
    _print_left_out(console, facts)
    for note in facts["notes"]:
        console.print(f"note: {note}", markup=False)
    if facts["verification"] == "decoded":
        known = "" if decoded else ", all were known from before"
        console.print(f"verified: {decoded} files decoded now{known}")
    else:
        console.print(f"verification: {facts['verification']}")
    files = " ".join(str(path) for path in (out, facts_path(out), rejected_path(out), card_path(out)))
    console.print(f"{'written' if changed else 'unchanged'}: {files}", markup=False, soft_wrap=True)


def print_manifest(manifest: Manifest) -> None:
    """All that `show` shows: takes by split, corpus, sex and emotion; actors per split; what was left out and why."""
    console, facts, rows = stdout_console(), manifest.facts, manifest.rows
    console.print(f"{manifest.path}: {len(rows)} takes, {rows['actor'].nunique()} actors", markup=False)
    console.print(f"split: {facts['split_rule']}; verification: {facts['verification']}", markup=False)
    _warn(console, facts)
    console.print(_emotion_table(rows, manifest.labels))
    for split in SPLITS:
        actors = sorted(rows.loc[rows["split"] == split, "actor"].unique())
        console.print(f"{split}, {len(actors)} actors: {' '.join(actors)}", markup=False, soft_wrap=True)
    _print_left_out(console, facts)
    for note in facts["notes"]:
        console.print(f"note: {note}", markup=False)


def _split_table(rows: pd.DataFrame) -> Table:
    table = Table(title="takes (actors)", box=box.SIMPLE)
    table.add_column("corpus")
    for split in (*SPLITS, "all"):
        table.add_column(split, justify="right")
    for dataset, part in rows.groupby("dataset"):
        parts = [*(part[part["split"] == split] for split in SPLITS), part]
        table.add_row(str(dataset), *(f"{len(each)} ({each['actor'].nunique()})" for each in parts))
    return table


def _emotion_table(rows: pd.DataFrame, labels: tuple[str, ...]) -> Table:
    table = Table(box=box.SIMPLE)
    for name in ("split", "corpus", "sex"):
        table.add_column(name)
    for name in (*labels, "all", "actors"):
        table.add_column(name, justify="right")
    for split in SPLITS:
        for key, part in rows[rows["split"] == split].groupby(["dataset", "sex"]):
            dataset, sex = key
            counts = part["emotion"].value_counts()
            numbers = [*(int(counts.get(label, 0)) for label in labels), len(part), part["actor"].nunique()]
            table.add_row(split, str(dataset), str(sex) or "unknown", *map(str, numbers))
    return table


def _print_left_out(console: Console, facts: dict[str, Any]) -> None:
    for why, counts in (("left out", facts["rejected"]), ("not asked for", facts["dropped"])):
        listed = ", ".join(f"{kind} ({number})" for kind, number in counts.items())
        console.print(f"{why}: {listed or 'nothing'}", markup=False, soft_wrap=True)
    if any(kind.startswith("twin") for kind in facts["rejected"]):
        console.print("RAVDESS has each take with sound and without: twins, of which one counts (--twins says which)")


def _warn(console: Console, facts: dict[str, Any]) -> None:
    for warning, applies in ((LEAKY, facts["leaky"]), (SYNTHETIC, facts["synthetic"])):
        if applies:
            console.print(warning, style="bold red" if warning is LEAKY else "yellow")

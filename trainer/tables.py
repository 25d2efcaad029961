"""What is said twice, on the terminal and in a file: banners, sentences and tables, the same in both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from manifests.summary import stdout_console
from trainer import page as pages


@dataclass(frozen=True)
class Table:
    """A cell is a figure and, after a line feed, its note; or a drawing, in a column that only the page shows.

    The first column names the rows. A drawing's column has the heading "".
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Markup]]


@dataclass(frozen=True)
class Section:
    """A part of a page: its name for addresses, its title, and what it holds.

    Only the page shows `drawings`, each with a title, and `matrices`, (title, class names, rows of cells); and all of a
    section that is `long`.
    """

    id: str
    title: str
    tables: Sequence[Table] = ()
    drawings: Sequence[tuple[str, Markup]] = ()
    matrices: Sequence[tuple[str, Sequence[str], Sequence[Sequence[Mapping[str, Any]]]]] = ()
    says: Sequence[str] = ()
    long: bool = False


@dataclass(frozen=True)
class Page:
    """`kicker` says what this is, `heading` what came out, `leads` how sure that is; `banners` are (short, full)."""

    kicker: str
    heading: str
    leads: Sequence[str]
    tables: Sequence[Table]
    sections: Sequence[Section] = ()
    banners: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    leaky: bool = False


def print_page(page: Page) -> None:
    """Print all of a page but its drawings on stdout."""
    console = stdout_console()
    for short, full in page.banners:
        console.print(f"{short} {full}", style="bold red" if page.leaky else "yellow", markup=False)
    for sentence in filter(None, (page.kicker, page.heading, *page.leads)):
        console.print(sentence, markup=False, soft_wrap=True)
    brief = [section for section in page.sections if not section.long]
    for table in (*page.tables, *(table for section in brief for table in section.tables)):
        console.print(_drawn(table))
    for note in page.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)


def _drawn(table: Table) -> RichTable:
    shown = [place for place, name in enumerate(table.columns) if name]
    drawn = RichTable(title=table.caption, title_justify="left", title_style="bold", box=box.SIMPLE)
    for place in shown:
        drawn.add_column(Text(table.columns[place]), justify="right" if place else "left", overflow="fold")
    for row in table.rows:
        drawn.add_row(*(Text(row[place]) for place in shown))
    return drawn


def write_page(path: Path, page: Page) -> None:
    """Write a page as one HTML file."""
    contents = [("verdict", "Verdict"), *((section.id, section.title) for section in page.sections)]
    pages.write_page(
        path, "compare", page=page, title=page.kicker, leaky=page.leaky, contents=[*contents, ("words", "Words")]
    )

"""What is said twice, on the terminal and in a file: banners, sentences and tables, the same in both."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup
from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from manifests.files import write_text
from manifests.summary import stdout_console

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Table:
    """A cell is a figure and, after a line feed, its note; or a drawing, in a column that only the page shows.

    The first column names the rows. A drawing's column has the heading "".
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Markup]]


@dataclass(frozen=True)
class Page:
    """`kicker` says what this is, `heading` what came out, `leads` how sure that is; `banners` are (short, full)."""

    kicker: str
    heading: str
    leads: Sequence[str]
    tables: Sequence[Table]
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
    for table in page.tables:
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
    """Write one HTML file without network, script or outside file; the same page gives the same bytes."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    write_text(path, environment.get_template("compare.html.j2").render(page=page))

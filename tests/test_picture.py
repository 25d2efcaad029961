"""The README's pictures: what they are made of. Run: pytest tests/test_picture.py"""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from infra.ops.monitor import without_fonts

PICTURES = sorted((Path(__file__).parents[1] / ".github").glob("*.svg"))
NAMED_NOT_FETCHED = {"http://www.w3.org/2000/svg", "https://www.textualize.io"}


def addresses(svg: str) -> set[str]:
    return set(re.findall(r"https?://[^\s\"')]+", svg))


def test_a_terminal_s_picture_loses_its_fonts_and_nothing_else() -> None:
    console = Console(record=True, width=40, file=io.StringIO())
    console.print("[bold]run[/bold] 1")
    drawn = console.export_svg(title="t")
    assert "cdnjs" in drawn
    kept = without_fonts(drawn)
    assert addresses(kept) <= NAMED_NOT_FETCHED
    assert "@font-face" not in kept
    assert kept[kept.index("-matrix {") :] == drawn[drawn.index("-matrix {") :]


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_a_picture_asks_no_other_machine(path: Path) -> None:
    assert addresses(path.read_text(encoding="utf-8")) <= NAMED_NOT_FETCHED

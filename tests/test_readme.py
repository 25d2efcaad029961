"""The README says what is there. Run: pytest tests/test_readme.py"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_every_file_in_the_tree_is_there():
    folder, seen = ROOT, 0
    for line in README.partition("## The tree")[2].partition("\nA run directory")[0].splitlines():
        if top := re.match(r" {4}(\S+)", line):
            folder = ROOT / top[1]
            assert folder.exists(), line
        for name in re.findall(r"\b[\w/]+\.(?:py|yaml)\b|\bconfigs/", line):
            seen += 1
            assert list(folder.rglob(name.rstrip("/"))), f"{folder} has no {name}"
    assert seen > 10


def test_every_make_verb_that_is_shown_is_there():
    verbs = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = set(re.findall(r"make ([a-z]+)", README))
    assert shown
    assert shown <= verbs


@pytest.mark.parametrize("package", ["manifests", "trainer"])
def test_every_command_that_is_shown_is_there_and_help_is_quick_and_has_examples(package):
    shown = set(re.findall(rf"python -m {package} (\w+)", README))
    assert shown
    for verb in shown:
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", package, verb, "--help"], capture_output=True, text=True
        )
        assert done.returncode == 0
        assert f"python -m {package} {verb}" in done.stdout.partition("examples:")[2]
        assert "| torch" not in done.stderr


def test_every_picture_is_there():
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / picture).is_file()

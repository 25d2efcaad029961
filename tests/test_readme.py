"""The README says what is there, and its commands run. Most of a minute, for one of them trains.

Run: pytest tests/test_readme.py
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from toys import TINY

import manifests.__main__
import trainer.__main__

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
TREE = README.partition("## The tree")[2].partition("\nA run directory")[0]
# Commands stand in indented blocks, often with a remark behind them, or between backticks.
PROSE = re.sub(r"^```.*?^```$", "", README, flags=re.M | re.S)
COMMANDS = re.findall(r"^    ((?:make|python) .*)", PROSE, re.M) + re.findall(r"`((?:make|python -m) [^`]+)`", PROSE)
PARSERS: dict[str, Callable[[list[str]], object]] = {
    "manifests": manifests.__main__.main,
    "trainer": trainer.__main__.main,
}
# Where one has to choose, and what is chosen here.
PLACEHOLDERS = {"VERB": "help"}


def words(command: str) -> list[str]:
    return [PLACEHOLDERS.get(word, word) for word in shlex.split(command, comments=True)]


def with_words(first: str) -> list[list[str]]:
    return [words(command) for command in COMMANDS if command.startswith(first)]


def test_every_file_in_the_tree_is_there():
    folder, seen = ROOT, 0
    for line in TREE.splitlines():
        if top := re.match(r" {4}(\S+)", line):
            folder = ROOT / top[1]
            assert folder.exists(), line
        for name in re.findall(r"\b[\w/]+\.(?:py|sh|yaml)\b|\b\w+/(?=:|,| |$)", line):
            seen += 1
            assert list(folder.rglob(name.rstrip("/"))) or folder.name == name.rstrip("/"), f"{folder} has no {name}"
    assert seen > 100


@pytest.mark.parametrize("package", ["manifests", "trainer", "infra", "infra/box"])
def test_every_module_is_in_the_tree(package: str):
    named = set(re.findall(r"\w+\.py\b", TREE.partition(f"    {package.partition('/')[0]}/")[2]))
    there = {path.name for path in (ROOT / package).glob("[!_]*.py")}
    assert there <= named, f"README.md, The tree: say what {', '.join(sorted(there - named))} is for"


def test_every_make_command_is_one_that_make_knows():
    commands = with_words("make ")
    assert len(commands) > 6
    for command in commands:
        done = subprocess.run(
            [command[0], "--dry-run", "--assume-old=.venv/ready", *command[1:]],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{shlex.join(command)}: {done.stderr}"


@pytest.mark.parametrize("package", PARSERS)
def test_every_command_is_one_that_the_program_understands(package: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(f"{package}.__main__.run_command", lambda work: 0)
    commands = [command for command in with_words(f"python -m {package} ") if "..." not in command]
    assert len(commands) >= 3
    for command in commands:
        assert PARSERS[package](command[3:]) == 0, shlex.join(command)


@pytest.mark.parametrize("package", PARSERS)
def test_every_verb_that_is_shown_has_examples_and_its_help_is_quick(package: str):
    shown = {command[3] for command in with_words(f"python -m {package} ")}
    assert shown
    for verb in shown:
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", package, verb, "--help"], capture_output=True, text=True
        )
        assert done.returncode == 0
        assert f"python -m {package} {verb}" in done.stdout.partition("examples:")[2]
        assert "| torch" not in done.stderr


def test_the_way_from_real_videos_to_a_prediction_runs_as_it_stands(tmp_path: Path):
    """On drawn videos, and the recipe made small; the words of each command are the README's."""
    env = os.environ | {"OMP_NUM_THREADS": "1"}

    def run(*line: str) -> None:
        done = subprocess.run(
            [sys.executable, *line[1:]], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{shlex.join(line)}\n{done.stderr}"

    run("python", "-m", "manifests", "synth", "--out", "videos", "--actors", "3", "--takes", "1")
    section = README.partition("## On real videos")[2].partition("\n## ")[0]
    block = re.search(r"(?:^    python -m .*\n)+", section, re.M)[0]
    lines = [words(line.replace("/videos", "videos")) for line in block.splitlines()]
    assert [line[3] for line in lines] == ["build", "prepare", "sheet", "fit", "predict"]
    min((tmp_path / "videos/ravdess/Actor_01").glob("02-*.mp4")).rename(tmp_path / "interview.mp4")
    small = ["device=cpu", "model.depth=18", "optim.epochs=1", "optim.frozen_epochs=0", "evaluation.robustness=false"]
    small += ["model.pretrained=null", "optim.batchnorm=train"]
    for line in lines:
        run(*line, *([*TINY, *small, "optim.amp=none"] if line[3] == "fit" else []))
    assert (tmp_path / "runs/r50/report.html").is_file()
    assert (tmp_path / "runs/r50/model_card.md").is_file()
    assert (tmp_path / "sheet.html").is_file()
    assert list((tmp_path / "predictions").glob("interview*"))


def test_every_picture_and_every_link_is_there():
    for name in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / name).is_file(), name


def test_every_file_in_the_picture_is_there():
    (picture,) = re.findall(r"^```mermaid\n(.*?)^```$", README, re.M | re.S)
    shown = re.findall(r"\b(infra/[\w/.]+)", picture)
    assert len(shown) >= 4
    assert all((ROOT / name).exists() for name in shown)

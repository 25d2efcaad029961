"""What contributors are told is so: functions are there, diffs apply, commands run, tables are the program's own.

Run: pytest tests/test_docs.py
"""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from docs import COMMANDS, pages, remarks
from toys import make_corpus
from videos import encode

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / ".github" / "CONTRIBUTING.md").read_text()
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", TEXT, re.M | re.S))
RUFF = Path(sys.executable).with_name("ruff")


def fenced(section: str, language: str) -> str:
    return "".join(re.findall(rf"^```{language}\n(.*?)^```$", SECTIONS[section], re.M | re.S))


def definitions(path: Path) -> set[str]:
    """Names of a module's functions and classes, and `Class.method`."""
    tree = ast.parse(path.read_text())
    outer = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    inner = {f"{o.name}.{i.name}" for o in outer for i in ast.walk(o) if isinstance(i, ast.FunctionDef) and i is not o}
    return {node.name for node in outer} | inner


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what git knows, with the changes that are not committed yet, and no history."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git here that could tell our files from others")
    listed = ("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / "tree" / name)
    return tmp_path / "tree"


def changed(tree: Path, section: str) -> list[list[str]]:
    """Apply a section's diff to the copy; return its commands, ready to be run there."""
    env = os.environ | {"GIT_CEILING_DIRECTORIES": str(tree.parent)}
    done = subprocess.run(
        ["git", "apply", "--verbose", "-"], cwd=tree, env=env, input=fenced(section, "diff"), capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    touched = re.findall(r"^\+\+\+ b/(\S+\.py)$", fenced(section, "diff"), re.M)
    for check in (["check"], ["format", "--check"]):
        subprocess.run([RUFF, *check, *touched], cwd=tree, check=True)
    commands = [shlex.split(line) for line in fenced(section, "sh").splitlines()]
    assert commands
    return [[sys.executable, *words[1:]] if words[0] == "python" else words for words in commands]


def run(words: list[str], tree: Path) -> str:
    # The copy comes before the repository that is installed editable.
    env = os.environ | {"PYTHONPATH": str(tree)}
    done = subprocess.run(words, cwd=tree, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("section", ["How a clip flows", "How a command flows"])
def test_every_station_of_a_flow_is_where_the_table_says(section: str):
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in SECTIONS[section].splitlines() if "|" in line]
    assert len(rows) > 6
    for _, _, file, function in rows[2:]:
        assert function.strip("`") in definitions(ROOT / file.strip("`")), f"{file} has no {function}"


def test_every_file_that_is_named_is_there():
    prose = re.sub(r"^```diff\n.*?^```$", "", TEXT, flags=re.M | re.S)
    for name in re.findall(r"`((?:tests|trainer|manifests|infra)/[\w/.]+|\.ci/\w+)`", prose):
        assert (ROOT / name).exists(), name
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    for name in re.findall(r"`(test_\w+)`", prose):
        assert f"def {name}(" in tests
    for link in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / ".github" / link).is_file(), link


def test_a_corpus_is_added_by_the_diff_and_its_names_are_read(tree: Path):
    build, check = changed(tree, "How to add a corpus")
    folders = {"an": "anger", "di": "disgust", "fe": "fear", "ha": "happiness", "sa": "sadness", "su": "surprise"}
    for subject in range(1, 5):
        for seed, (code, folder) in enumerate(folders.items(), start=6 * subject):
            take = tree / "data/enterface" / f"subject {subject}" / folder / "sentence 1" / f"s{subject}_{code}_1.avi"
            # H.264 in an AVI would have its frames out of order.
            encode(take.with_suffix(".flv"), frames=8, seed=seed).rename(take)
    run(build, tree)
    assert "sound, held against itself, the files" in run(check, tree)
    facts = json.loads((tree / "manifest.json").read_text())
    assert (facts["rows"], facts["rejected"]) == (24, {})
    actors = sorted(actor for part in facts["actors"].values() for actor in part)
    assert actors == [f"enterface_{number:02}" for number in range(1, 5)]


def test_a_model_is_added_by_the_diff_and_trained_by_its_name(tree: Path):
    (fit,) = changed(tree, "How to add a model")
    make_corpus(tree, actors=4, takes=1)
    # As small as can be; what is shown is what is run.
    small = ["data.size=32", "data.frames=8", "data.batch=4", "data.workers=0", "evaluation.clips=1"]
    assert "mc3: UAR" in run([*fit, *small, "evaluation.flip=false"], tree)
    assert "MC3-18" in (tree / "runs/mc3/report.html").read_text()


def test_a_verb_is_added_by_the_diff_and_prints_its_help(tree: Path):
    (tree / ".venv").mkdir()
    (tree / ".venv" / "ready").touch()
    help, dry = changed(tree, "How to add a verb")
    assert "make zones" in run(help, tree).partition("examples:")[2]
    assert run(dry, tree).strip() == ".venv/bin/python -m infra.ops.zones"


def test_what_is_made_from_the_program_is_what_would_be_made_now():
    for path, text in pages().items():
        assert path.read_text() == text, "run `python tests/docs.py`"


def test_every_example_of_the_help_is_understood_by_the_command_that_shows_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    blocks = "".join(re.findall(r"^```\n(.*?)^```$", COMMANDS.read_text(), re.M | re.S))
    seen = 0
    for example in re.findall(r"^(?:python -m|make) .*", blocks, re.M):
        # Two spaces begin a remark, and what becomes of the output is the shell's affair.
        line = re.split(r"\s{2,}| [#|>] ", example)[0]
        if "..." in line:
            continue
        words, seen = shlex.split(line), seen + 1
        if words[0] == "make":
            subprocess.run([*words, "--dry-run", "--assume-old=.venv/ready"], check=True, capture_output=True)
            continue
        module = import_module(words[2] if words[2].startswith("infra.ops.") else f"{words[2]}.__main__")
        monkeypatch.setattr(module, "run" if "infra" in words[2] else "run_command", lambda work: 0)
        assert module.main(words[3:]) == 0, line
    assert seen > 60


def test_the_reason_behind_a_value_is_found_by_its_setting(tmp_path: Path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("# head\nseed: 1  # any\nmodel:\n  arch: slowfast\n  alpha: 4   # 8x8: frames\nlast: 2\n")
    assert remarks(recipe) == {"seed": "any", "model.alpha": "8x8: frames"}


def test_make_lists_every_verb_under_a_heading_and_fits_a_terminal():
    shown = subprocess.run(["make"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    phony = re.search(r"^\.PHONY: ((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text(), re.M)
    assert phony is not None
    verbs = [line.split()[1] for line in shown if line.startswith("  make ")]
    assert sorted(verbs) == sorted(set(phony[1].replace("\\\n", " ").split()) - {"help"})
    assert shown[0] == "On this machine, without an account"
    assert max(map(len, shown)) <= 110
    assert not any("\033" in line for line in shown)  # no colour in a pipe


def test_make_tells_what_a_verb_takes():
    words = ["make", "--assume-old=.venv/ready", f"BIN={Path(sys.executable).parent}", "train", "HELP=1"]
    told = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert "(NODES=; default: 1)" in told


def planned(*words: str) -> str:
    """What make would run."""
    done = subprocess.run(
        ["make", "--dry-run", "--assume-old=.venv/ready", *words], cwd=ROOT, capture_output=True, text=True
    )
    return done.stdout if done.returncode == 0 else done.stderr


def test_a_yes_is_one_and_a_no_is_zero():
    assert "--yes" in planned("train", "YES=1")
    assert "--yes" not in planned("train", "YES=0", "DRY=1")
    assert "--force" not in planned("destroy", "FORCE=0")


def test_a_word_that_no_verb_reads_is_refused_for_it_might_cost_money():
    assert "nothing reads cap=" in planned("train", "cap=5")
    assert "nothing reads NODE=" in planned("train", "YES=1", "NODE=2")

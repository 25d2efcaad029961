"""What `pip install` puts elsewhere works there: all files come along, no command needs the repository. A few seconds.

Run: pytest tests/test_wheel.py
"""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("manifests", "trainer", "infra")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
# Read from beside Pulumi.yaml, which no wheel has: the stack is declared, drawn and made from a clone.
NEEDS_A_CLONE = {"infra/README.md"}


def run(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=120)


def checked(*words: str, cwd: Path, **environment: str) -> str:
    done = run(*words, cwd=cwd, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def ours() -> list[str]:
    """The files of the packages as git knows them, new ones included."""
    listed = checked("git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES, cwd=ROOT)
    return [name for name in listed.splitlines() if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools would otherwise take what an earlier build left in the tree."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git here that could tell our files from others")
    for tool, least in (("setuptools", 77), ("wheel", 0)):
        try:
            found = version(tool)
        except PackageNotFoundError:
            pytest.skip(f"{tool} is not installed, and no wheel is built without it")
        if int(found.partition(".")[0]) < least:
            pytest.skip(f"{tool} {found} is older than pyproject.toml asks for")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in (*ours(), "pyproject.toml", "README.md", "LICENSE"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    checked(*PIP, "wheel", ".", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), cwd=source)
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def target(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elsewhere") / "site"
    checked(*PIP, "install", "--no-deps", "--target", str(folder), str(wheel), cwd=folder.parent)
    return folder


def python(target: Path, *words: str) -> str:
    """Standing in an empty folder; what is installed there comes before the repository that is installed editable."""
    return checked(sys.executable, *words, cwd=target.parent, PYTHONPATH=str(target))


def test_every_file_of_the_packages_comes_along_and_nothing_else(wheel: Path):
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == set(ours()) - NEEDS_A_CLONE


def test_it_is_what_is_imported_there(target: Path):
    said = python(target, "-c", "import infra, manifests, trainer; print(infra.__file__, manifests.__file__)")
    assert [Path(path).parents[1] for path in said.split()] == [target, target]


@pytest.mark.parametrize("package", ["manifests", "trainer"])
def test_a_package_answers_with_its_verbs(target: Path, package: str):
    assert f"usage: python -m {package}" in python(target, "-m", package, "--help")


def test_every_verb_of_the_operator_prints_its_help(target: Path):
    verbs = [path.stem for path in (target / "infra/ops").glob("*.py") if "__main__" in path.read_text()]
    assert {"doctor", "up", "preview", "destroy"} <= set(verbs)
    for verb in verbs:
        assert "examples:" in python(target, "-m", f"infra.ops.{verb}", "--help")


def test_a_verb_that_needs_a_clone_says_so_in_a_sentence(target: Path):
    done = run(sys.executable, "-m", "infra.ops.doctor", cwd=target.parent, PYTHONPATH=str(target))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "no clone of this project" in done.stderr


def test_recipes_and_folds_are_found_by_the_code_that_reads_them(target: Path):
    recipe = "from trainer.config import read_config; print(read_config(__import__('pathlib').Path("
    assert "kinetics400" in python(target, "-c", f"{recipe}'slowfast_face.yaml'), []).model.pretrained)")
    assert "ravdess6" in python(target, "-c", "from manifests.splits import named_folds; print(*named_folds())")


def test_the_version_stands_in_one_place_and_the_code_asks_for_it(target: Path, wheel: Path):
    number = PROJECT["project"]["version"]
    assert wheel.name.split("-")[1] == number
    asked = "from importlib.metadata import version; print(version('slowfast-emotion'))"
    assert python(target, "-c", asked).strip() == number
    elsewhere = [name for name in ours() if re.search(rf"[\"']{re.escape(number)}[\"']", (ROOT / name).read_text())]
    assert elsewhere == []

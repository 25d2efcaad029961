"""Imports run one way, and an operator's command does not wait for torch. Run: pytest tests/test_imports.py"""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Who may import whom, among our own packages; infra's two sides never meet.
MAY_IMPORT = {
    "manifests": {"manifests"},
    "trainer": {"trainer", "manifests"},
    "infra": {"infra"},
    "infra/ops": {
        "infra.ops",
        "infra.outputs",
        "infra.settings",
        "infra.costs",
        "infra.box.transfer",
        "infra.box.request",
        "trainer.config",
        "manifests.errors",
    },
    "infra/box": {"infra.box"},
}
NEVER = {
    "manifests": {"torch", "torchvision", "pytorchvideo", "pulumi"},
    "trainer": {"boto3", "botocore", "pulumi", "docker"},
    "infra/ops": {"torch", "pulumi"},
    "infra/box": {"torch", "pulumi"},
}
OURS = ("manifests", "trainer", "infra")


def sources(folder):
    """A package's own files; a sub-package with rules of its own is another package."""
    nested = [ROOT / other for other in MAY_IMPORT if other.startswith(folder + "/")]
    return [p for p in sorted((ROOT / folder).rglob("*.py")) if not any(p.is_relative_to(n) for n in nested)]


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively, which fails when Pulumi runs infra/"
            yield node.module


@pytest.mark.parametrize("folder", [folder for folder in MAY_IMPORT if (ROOT / folder).is_dir()])
def test_a_package_imports_only_what_it_may(folder):
    files = sources(folder)
    assert files
    for path in files:
        for name in imported(path):
            top = name.partition(".")[0]
            assert top not in NEVER.get(folder, set()), f"{path} imports {name}"
            if top in OURS:
                allowed = MAY_IMPORT[folder]
                assert any(name == a or name.startswith(a + ".") for a in allowed), f"{path} imports {name}"


def test_no_file_of_infra_hides_a_module_of_the_standard_library():
    names = {path.stem for path in (ROOT / "infra").glob("*.py")}
    assert not names & sys.stdlib_module_names


def test_nothing_hides_the_packages_docker_and_infra():
    assert not (ROOT / "docker" / "__init__.py").exists()
    assert not (ROOT / "tests" / "infra").exists()
    assert not (ROOT / "tests" / "__init__.py").exists()

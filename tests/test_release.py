"""Every place that checks the code checks the same, and the changelog knows the version.

Run: pytest tests/test_release.py
"""

import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CI = (ROOT / ".ci" / "run").read_text()
# What Keep a Changelog 1.1.0 allows as headings of a version.
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def read(name: str) -> Any:
    # PyYAML reads YAML 1.1, in which the bare key `on` is the truth; GitHub reads it as a word.
    return {("on" if key is True else key): value for key, value in yaml.safe_load((ROOT / name).read_text()).items()}


def make_targets(script: str) -> set[str]:
    return set(re.findall(r"^make ([a-z-]+)$", script, re.M))


def test_a_commit_and_a_push_check_what_ci_checks():
    hooks = [hook for repo in read(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    assert make_targets("\n".join(hook["entry"] for hook in hooks)) == make_targets(CI) == {"test", "lint"}
    assert {stage for hook in hooks for stage in hook["stages"]} == {"pre-commit", "pre-push"}
    for hook in hooks:
        assert {"id", "name", "entry", "language"} <= set(hook)
        assert hook["language"] == "system"
        assert not hook["pass_filenames"], "a make target takes no files"


def test_lint_is_ruff_its_layout_and_mypy():
    dry = subprocess.run(["make", "--dry-run", "lint"], cwd=ROOT, capture_output=True, text=True, check=True)
    commands = [shlex.split(part) for part in dry.stdout.splitlines()[-1].split("&&")]
    assert [(Path(words[0]).name, *words[1:]) for words in commands] == [
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("mypy",),
    ]


def test_github_runs_the_same_script_on_the_python_that_the_project_asks_for():
    workflow = read(".github/workflows/ci.yml")
    assert set(workflow["on"]) == {"push", "pull_request"}
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    least = re.fullmatch(r">=(\d+\.\d+)", PROJECT["requires-python"])[1]
    assert job["container"]["image"].startswith(f"python:{least}-")
    uses = [step["uses"].partition("@")[0] for step in job["steps"] if "uses" in step]
    runs = [step["run"] for step in job["steps"] if "run" in step]
    assert uses == ["actions/checkout", "actions/cache"]
    assert runs[-1] == ".ci/run"
    assert not any(make_targets(run) for run in runs), "what is checked is said in .ci/run only"
    (cache,) = [step["with"] for step in job["steps"] if step.get("uses", "").startswith("actions/cache")]
    assert cache["path"] == job["env"]["PIP_CACHE_DIR"]
    for name in re.findall(r"'([\w./-]+)'", cache["key"]):
        assert (ROOT / name).is_file()


def test_the_changelog_opens_with_the_version_and_keeps_to_its_form():
    text = (ROOT / ".github" / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d|not released yet)$", text, re.M)
    assert versions[0][0] == PROJECT["version"]
    assert len(versions) == text.count("\n## [")
    numbers = [tuple(map(int, number.split("."))) for number, _ in versions]
    assert numbers == sorted(set(numbers), reverse=True)
    assert set(re.findall(r"^### (.+)$", text, re.M)) <= KINDS

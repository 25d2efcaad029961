"""make set: names and values are held against the settings, the CLI writes them, and what follows is said.

Run: pytest tests/test_ops_set.py
"""

import subprocess
from pathlib import Path

import pytest
import yaml
from cloud import REGION, Cloud
from test_ops_verbs import ROOT, Desk, desk

from infra.ops.set import main

__all__ = ["desk"]  # a fixture


def settings(desk: Desk, stack: str = "dev") -> dict[str, str]:
    return dict(yaml.safe_load((desk.folder / f"Pulumi.{stack}.yaml").read_text())["config"])


def test_settings_are_written_by_the_cli_and_told_old_and_new(desk: Desk) -> None:
    done = desk.make("set", SET="nodes=2 email=me@example.org aws:region=eu-central-1")
    assert done.returncode == 0, done.stderr
    assert settings(desk) == {
        "slowfast-emotion:nodes": "2",
        "slowfast-emotion:email": "me@example.org",
        "aws:region": "eu-central-1",
    }
    assert [line.split(maxsplit=1) for line in done.stdout.splitlines()] == [
        ["nodes", "1 -> 2"],
        ["email", "(empty) -> me@example.org"],
        ["aws:region", "(empty) -> eu-central-1"],
    ]
    assert done.stderr.splitlines()[-1] == "next: make up, with which it takes effect"
    # The stack is made first where the CLI has none, for it sets nothing of one that it does not know.
    assert desk.asked()[0] == ["stack", "select", "--create", "dev", "--stack", "dev"]


def test_what_is_set_already_is_left_alone_and_an_empty_value_goes_back_to_the_default(desk: Desk) -> None:
    desk.make("set", "email=me@example.org", "nodes=2")
    before = len(desk.asked())
    done = desk.make("set", "email=me@example.org")
    assert (done.stdout, done.stderr) == ("", "it is so already; nothing is changed\n")
    assert len(desk.asked()) == before
    done = desk.make("set", "email=")
    assert done.stdout.split() == ["email", "me@example.org", "->", "(empty)"]
    assert settings(desk) == {"slowfast-emotion:nodes": "2"}


def test_another_stack_is_named_in_what_follows(desk: Desk) -> None:
    done = desk.make("set", "nodes=2", STACK="team")
    assert done.stderr.splitlines()[-1] == "next: make up STACK=team, with which it takes effect"
    assert settings(desk, "team") == {"slowfast-emotion:nodes": "2"}
    assert "`make set SET=nodes=VALUE STACK=team` changes it" in desk.make("set", "nodes=99", STACK="team").stderr


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("nods=2", "there is no setting nods; did you mean nodes?"),
        ("nods=", "there is no setting nods; did you mean nodes?"),
        ("aws:profile=mine", "there is no setting aws:profile; "),
        ("nodes", "'nodes' is no NAME=VALUE; for example `make set SET=nodes=2`"),
        ("nodes=many", "nodes is 'many', but input should be a valid integer"),
        ("nodes=17", "less than or equal to 16; `make set SET=nodes=VALUE` changes it"),
        ("cluster_placement=true", "`make set SET=cluster_placement=false`, or nodes of 2 or more"),
        ("email=$(reboot)", "empty or an e-mail address"),
        ("aws:region=Frankfurt", "aws:region is 'Frankfurt', no region's name"),
    ],
)
def test_what_cannot_be_is_a_sentence_and_changes_nothing(
    change: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", forbidden)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Pulumi.yaml").write_text((ROOT / "Pulumi.yaml").read_text())
    assert main(["--stack", "dev", change]) == 2
    assert told in capsys.readouterr().err


def test_two_settings_that_need_each_other_are_judged_together(desk: Desk) -> None:
    assert desk.make("set", "nodes=2", "cluster_placement=true").returncode == 0


def test_a_setting_that_is_wrong_in_the_file_can_be_mended_or_taken_away(desk: Desk) -> None:
    wrong = "config:\n  slowfast-emotion:market: sometimes\n  slowfast-emotion:nods: 3\n"
    (desk.folder / "Pulumi.dev.yaml").write_text(wrong)
    assert "make set SET=market=spot" in desk.make("doctor").stderr
    assert desk.make("set", "market=spot", "nods=").returncode == 0
    assert settings(desk) == {"slowfast-emotion:market": "spot"}


def test_a_stack_that_is_up_does_not_move(desk: Desk, aws: Cloud) -> None:
    desk.publish()
    (desk.folder / "Pulumi.dev.yaml").write_text(f"config:\n  aws:region: {REGION}\n")
    done = desk.make("set", "aws:region=eu-central-1")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: the stack dev is up in {REGION}; `make destroy` goes before, or STACK=NAME")
    assert desk.asked() == []


def test_without_words_it_shows_every_setting_and_which_are_the_defaults(desk: Desk) -> None:
    (desk.folder / "Pulumi.dev.yaml").write_text("config:\n  slowfast-emotion:nodes: 2\n")
    done = desk.make("set")
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    declared = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["config"]
    assert set(rows) == {"aws:region", *declared}
    assert (rows["nodes"], rows["market"]) == (["2"], ["spot-then-on-demand", "(default)"])
    assert rows["aws:region"] == [REGION, "(default)"]
    assert desk.asked() == []

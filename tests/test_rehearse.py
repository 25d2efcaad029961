"""The rehearsal is the end-to-end test: from `make up` to `make destroy`, over three machines, with real training.

A few minutes. Run: pytest tests/test_rehearse.py
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cloud import ROOT, Cloud
from rich.console import Console
from stage import Refuted, Stage, claim
from standin import can_stand_in

STEPS = (
    "up",
    "image",
    "data",
    "manifest",
    "prepare",
    "train",
    "status",
    "stop",
    "resume",
    "logs",
    "download",
    "destroy",
)


def test_the_whole_story_holds(tmp_path: Path) -> None:
    if reason := can_stand_in(tmp_path / "probe"):
        pytest.skip(reason)
    told = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "rehearse.py"), "--keep", str(tmp_path / "rehearsal")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1500,
    )
    log = tmp_path / "rehearsal" / "log"
    assert told.returncode == 0, told.stdout + told.stderr + (log.read_text()[-5000:] if log.exists() else "")
    ticked = [line.split("make ")[1] for line in told.stdout.splitlines() if line.startswith("✓") and "make " in line]
    assert [verb.split(",")[0] for verb in ticked] == list(STEPS)
    assert "a spot machine is taken" in told.stdout


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """A stage whose cloud is not there."""
    return Stage(tmp_path / "stage", Cloud("http://127.0.0.1:9", tmp_path), Console(quiet=True))


def test_a_verb_that_fails_refutes_its_step_in_its_own_words(stage: Stage) -> None:
    with pytest.raises(Refuted, match=r"`make train` ended with 2: error: AWS cannot be reached"):
        stage.make("train")
    with pytest.raises(Refuted, match=r"`make help` ended with 0"):
        stage.make("help", fails=True)


def test_a_step_is_told_as_proved_only_if_all_its_claims_hold(stage: Stage) -> None:
    with stage.step("good") as proofs:
        proofs += ["it holds"]
    with pytest.raises(Refuted, match="it does not"), stage.step("bad"):
        claim(False, "it does not")
    assert [(title, proof) for title, _, proof in stage.steps] == [("good", "it holds")]


def test_the_rehearsal_knows_no_account_of_the_person_who_runs_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "mine")
    told = Stage(stage.folder / "second", stage.cloud, stage.console).environment
    assert "AWS_PROFILE" not in told
    assert (told["AWS_ACCESS_KEY_ID"], told["AWS_ENDPOINT_URL"]) == ("test", "http://127.0.0.1:9")
    assert not (stage.project / "Pulumi.dev.yaml").exists()


def test_the_stand_in_for_pulumi_refuses_an_aws_that_is_not_local(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    for endpoint in ({}, {"AWS_ENDPOINT_URL": "https://s3.us-east-1.amazonaws.com"}):
        done = subprocess.run(
            [sys.executable, str(ROOT / "tests" / "declared.py"), "up", "--stack", "dev"],
            cwd=tmp_path,
            env=environment | endpoint,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert "on a local AWS endpoint only" in done.stderr

"""make runs: the table of runs, from what machines leave in the bucket. Run: pytest tests/test_ops_runs.py"""

import json
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from calls import calls
from cloud import Cloud
from watching import Stage, forbidden, machine, request, stage, status

from infra.ops import runs
from infra.ops.runs import Row

FINISHED, ACTIVE, FAILED = "2026-01-29-120000-r50", "2026-01-31-120000-r3d", "2026-01-30-120000-r50"
EVALUATION = {"overall": {"uar": 0.7125, "uar_interval": [0.66, 0.76], "war": 0.72}}


@pytest.fixture
def desk(aws: Cloud, tmp_path: Path) -> Iterator[Stage]:
    with stage(aws, tmp_path) as made:
        yield made


@pytest.fixture
def three(desk: Stage) -> Stage:
    """A finished run on two machines, one that failed while it prepared clips, and an active one."""
    outcome = {"outcome": "finished", "reason": "all stages are done"}
    told = status(phase="finished", epoch=10)
    desk.put_run(FINISHED, outcome=outcome, status=told, machine=machine(phase="ended"), evaluation=EVALUATION)
    for number, (hours, dollars) in enumerate([(1.5, 1.51), (0.25, 0.26)]):
        desk.put(f"ledger/{FINISHED}/i-{number}.json", {"run": FINISHED, "hours": hours, "dollars": dollars})
    asked = request(task="prepare")
    desk.put_run(FAILED, request=asked, outcome={"outcome": "failed", "reason": "the disk is full"})
    desk.put_run(ACTIVE, status=status(), machine=machine())
    desk.activate(ACTIVE)
    return desk


def test_runs_are_told_newest_first_with_what_they_cost(three: Stage) -> None:
    done = three.make("runs", "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["run"]: row for row in json.loads(done.stdout)}
    assert list(rows) == [ACTIVE, FAILED, FINISHED]
    assert rows[FINISHED] == {
        "run": FINISHED, "task": "fit", "active": False, "outcome": "finished", "reason": "all stages are done",
        "uar": 0.7125, "uar_interval": [0.66, 0.76], "epochs": 10, "epochs_asked": 10, "hours": 1.75, "dollars": 1.77,
    }  # fmt: skip
    assert rows[ACTIVE] | {"active": True, "outcome": "training", "epochs": 3, "dollars": 1.25} == rows[ACTIVE]
    assert rows[FAILED] | {"task": "prepare", "outcome": "failed", "reason": "the disk is full"} == rows[FAILED]


def test_the_table_is_one_line_for_each_run(three: Stage) -> None:
    done = three.make("runs")
    head, *lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert head == "run outcome test UAR epochs hours cost why"
    assert lines == [
        f"{ACTIVE} training 3/10 $1.25",
        f"{FAILED} failed prepare the disk is full",
        f"{FINISHED} finished 71.2% (66%-76%) 10/10 1.75 $1.77",
    ]
    assert "\x1b" not in done.stdout


def test_at_eighty_columns_no_money_is_cut_and_the_reason_stands_below(
    three: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "PLAIN_WIDTH", 80)
    known = Row(
        FINISHED + "-with-a-long-name-of-its-own", "fit", False, "finished", None, 0.7, [0.6, 0.8], 9, 10, 1.5, 123.45
    )
    failed = replace(known, run=FAILED, outcome="failed", reason="the disk is full")
    with redirect_stdout(StringIO()) as told:
        runs.show([known, failed])
    assert all(len(line) <= 80 for line in told.getvalue().splitlines())
    assert told.getvalue().count("$123.45") == 2
    assert "70.0%" in told.getvalue()
    assert "(60%" not in told.getvalue()
    assert told.getvalue().endswith(f"{FAILED}: the disk is full\n")


def test_each_object_is_asked_for_once_and_within_the_operators_policy(three: Stage, aws: Cloud) -> None:
    with calls(aws.url) as seen:
        assert replace(three, endpoint=seen.url).make("runs").returncode == 0
        # the note, five objects of each run, two pages of the ledger; the runs and the ledger's keys
        assert seen.names == {"ssm:GetParameter": 1, "s3:GetObject": 1 + 3 * 5 + 2, "s3:ListBucket": 2}
        assert forbidden(three, seen.made) == []


def test_more_runs_than_fit_are_cut_to_the_newest_unless_asked(desk: Stage) -> None:
    for number in range(55):
        desk.put(f"runs/2026-01-01-{number:06}/request.json", request())
    done = desk.make("runs", "--json")
    rows = json.loads(done.stdout)
    assert (len(rows), rows[0]["run"]) == (50, "2026-01-01-000054")
    assert done.stderr == "5 older ones are not shown; `make runs ALL=1` shows them\n"
    assert len(json.loads(desk.make("runs", "--all", "--json").stdout)) == 55


def test_a_bucket_without_runs_is_no_mistake(desk: Stage) -> None:
    done = desk.make("runs", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, [])
    assert "holds no run yet; `make train` starts one" in done.stderr

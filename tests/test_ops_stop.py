"""stop and clean: what is saved before anything ends, and no machine left behind. Run: pytest tests/test_ops_stop.py"""

import json
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from operators import NUMBERS, Desk, Office, client, instances

from infra.ops import agent, fleet, record, stop


@pytest.fixture
def desk(office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(stop, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(stop, "GIVE_BACK_SECONDS", 0.3)
    monkeypatch.setattr(stop, "WORD_SECONDS", 0.3)
    monkeypatch.setattr(agent, "FIRST_PAUSE", 0.01)
    return office.desk(monkeypatch, tmp_path)


def at_work(desk: Desk) -> str:
    """A run that trains on its machine, which saves it when told to; its id."""
    run_id = f"run-{next(NUMBERS)}"
    desk.put(f"active/{desk.outputs.stack}", run_id)
    desk.put(f"runs/{run_id}/request.json", {"config": "demo.yaml"})
    client(desk.aws, "autoscaling").put_scheduled_update_group_action(
        AutoScalingGroupName=desk.outputs.asg,
        ScheduledActionName=fleet.DEADLINE,
        StartTime=datetime.now(UTC) + timedelta(hours=1),
        DesiredCapacity=0,
    )
    desk.set_capacity(1)
    desk.online = desk.machines()
    desk.tells(run_id, "machine.json", {"phase": "training", "dollars": 1.5})
    saves(desk, run_id)
    desk.seen.made.clear()
    return run_id


def saves(desk: Desk, run_id: str, *end: str) -> None:
    def obeys(call: Any) -> None:
        if call.parameters["DocumentName"] == desk.outputs.document_stop and desk.machines():
            desk.hands_in(run_id, *end)

    desk.seen.before["ssm:SendCommand"] = obeys


def test_a_run_is_saved_ended_and_its_machine_given_back(desk: Desk) -> None:
    run_id = at_work(desk)
    code, out, err = desk.do("stop", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["run"], told["outcome"], told["dollars"]) == (run_id, "stopped", 1.5)
    assert desk.is_at_rest()
    assert desk.deadlines() == []
    (sent,) = desk.seen.of("ssm:SendCommand")
    assert sent.parameters["Parameters"] == {"run_id": [run_id], "mode": ["drain"]}
    # The note first: a courier that is ended while it stands would leave the run to the next machine.
    names = [call.name for call in desk.seen.made]
    assert names.index("s3:DeleteObject") < names.index("ssm:SendCommand")
    # The courier has given the machine back by itself.
    assert "autoscaling:SetDesiredCapacity" not in names


def test_it_says_how_it_ended_what_is_next_and_what_is_still_billed(desk: Desk) -> None:
    run_id = at_work(desk)
    code, out, err = desk.do("stop")
    assert (code, out) == (0, "")
    assert err.splitlines()[-3:] == [
        f"run {run_id} has stopped: stopped by the operator; it has cost $1.50",
        f"next: make resume RUN={run_id}",
        f"still billed: s3://{desk.outputs.bucket}, 0.0 GiB, about $0.00 a month; nothing by the hour",
    ]


def test_a_second_stop_changes_nothing_and_is_no_mistake(desk: Desk) -> None:
    run_id = at_work(desk)
    assert desk.do("stop")[0] == 0
    before = desk.get(f"runs/{run_id}/outcome.json")
    for arguments in ([], ["--run", run_id]):
        code, _, err = desk.do("stop", *arguments)
        assert code == 0, err
        assert "still billed" in err
    assert desk.get(f"runs/{run_id}/outcome.json") == before
    assert desk.is_at_rest()


def test_a_courier_that_does_not_give_its_machine_back_has_it_taken(desk: Desk) -> None:
    run_id = at_work(desk)

    def only_tells(_: Any) -> None:
        desk.tells(run_id, "outcome.json", {"outcome": "stopped", "reason": "saved"})

    desk.seen.before["ssm:SendCommand"] = only_tells
    assert desk.do("stop")[0] == 0
    assert desk.is_at_rest()


def test_a_machine_that_still_boots_is_taken_back_and_the_run_has_a_last_word(desk: Desk) -> None:
    _, out, _ = desk.do("train", "--yes", "--no-wait")
    assert desk.do("stop")[0] == 0
    assert desk.is_at_rest()
    outcome = desk.tree(f"runs/{out.strip()}/outcome.json")
    assert (outcome["outcome"], outcome["reason"]) == (
        "stopped",
        "stopped by the operator before a machine worked on it",
    )


def test_a_machine_that_never_came_is_asked_for_no_longer(desk: Desk) -> None:
    _, out, _ = desk.do("train", "--yes", "--no-wait")
    desk.seen.answers["ec2:DescribeInstances"] = instances()
    assert desk.do("stop")[0] == 0
    assert desk.capacity() == 0
    assert desk.active() is None
    assert record.read_record(desk.outputs, out.strip()).state == "stopped"


def test_a_machine_that_has_died_leaves_a_run_that_can_be_stopped(desk: Desk) -> None:
    """It was reclaimed; its last word is that it was interrupted, and the note still stands."""
    run_id = at_work(desk)
    desk.tells(run_id, "outcome.json", {"outcome": "interrupted", "reason": "spot machine taken back"})
    desk.set_capacity(0)
    assert desk.do("stop")[0] == 0
    assert desk.is_at_rest()
    assert desk.tree(f"runs/{run_id}/outcome.json")["outcome"] == "interrupted"


def test_a_machine_that_takes_no_commands_saves_while_it_is_ended(desk: Desk) -> None:
    run_id = at_work(desk)
    desk.online = []
    words = {"outcome": "stopped", "reason": "stopped by the operator"}
    desk.seen.before["autoscaling:SetDesiredCapacity"] = lambda _: desk.tells(run_id, "outcome.json", words)
    assert desk.do("stop")[0] == 0
    assert desk.is_at_rest()
    assert desk.tree(f"runs/{run_id}/outcome.json") == words


def test_what_was_cut_off_is_uploaded_before_the_machine_goes(desk: Desk) -> None:
    """The trainer took longer than Docker waits: no last word, and a checkpoint on the disk that S3 lacks."""
    run_id = at_work(desk)
    del desk.seen.before["ssm:SendCommand"]
    assert desk.do("stop")[0] == 0
    documents = [call.parameters["DocumentName"] for call in desk.seen.of("ssm:SendCommand")]
    assert documents == [desk.outputs.document_stop, desk.outputs.document_clean]
    assert desk.is_at_rest()
    assert desk.tree(f"runs/{run_id}/outcome.json")["outcome"] == "stopped"


def test_a_machine_that_holds_what_s3_lacks_is_kept_unless_given_up(desk: Desk) -> None:
    run_id = at_work(desk)
    desk.seen.before.clear()
    desk.answers["clean"] = (3, "not everything is in S3, so nothing is removed: last.pt\n")
    code, _, err = desk.do("stop")
    assert code == 2
    assert "not everything is in S3, so nothing is removed: last.pt" in err
    assert err.splitlines()[-1].startswith(f"error: the machine holds what S3 lacks of run {run_id}, so it is kept")
    assert desk.capacity() == 1
    assert desk.do("stop", "--run", run_id, "--now")[0] == 0
    assert desk.is_at_rest()


def test_an_upload_that_was_incomplete_is_completed(desk: Desk) -> None:
    run_id = at_work(desk)
    desk.tells(run_id, "outcome.json", {"outcome": "finished", "reason": "60 epochs", "incomplete": "S3 lacks a part"})
    desk.seen.before.clear()
    assert desk.do("stop")[0] == 0
    assert desk.is_at_rest()
    assert desk.tree(f"runs/{run_id}/outcome.json") == {"outcome": "finished", "reason": "60 epochs"}


def test_now_saves_nothing(desk: Desk) -> None:
    run_id = at_work(desk)
    desk.seen.before.clear()
    assert desk.do("stop", "--now")[0] == 0
    (sent,) = desk.seen.of("ssm:SendCommand")
    assert sent.parameters["Parameters"]["mode"] == ["now"]
    assert desk.tree(f"runs/{run_id}/outcome.json")["reason"] == "stopped by the operator at once, without saving"
    assert desk.is_at_rest()


def test_the_run_of_another_is_not_stopped_by_mistake(desk: Desk) -> None:
    run_id = at_work(desk)
    code, _, err = desk.do("stop", "--run", "another-run")
    assert (code, err) == (
        2,
        f"error: run another-run is not active, {run_id} is; `make stop RUN={run_id}` stops that one\n",
    )
    assert (desk.active(), desk.capacity()) == (run_id, 1)


def test_a_run_that_never_was_is_named(desk: Desk) -> None:
    code, _, err = desk.do("stop", "--run", "no-such-run")
    assert (code, err.startswith("error: there is no run no-such-run in s3://")) == (2, True)


def test_the_machine_of_whoever_starts_meanwhile_is_left_to_them(desk: Desk) -> None:
    run_id = at_work(desk)

    def other_operator(_: Any) -> None:
        desk.tells(run_id, "outcome.json", {"outcome": "stopped", "reason": "saved"})
        desk.put(f"active/{desk.outputs.stack}", "the-next-run")

    desk.seen.before["ssm:SendCommand"] = other_operator
    assert desk.do("stop")[0] == 0
    assert (desk.active(), desk.capacity(), len(desk.deadlines())) == ("the-next-run", 1, 1)


def test_a_stop_that_was_cut_off_is_finished_by_the_next(desk: Desk) -> None:
    """The note is gone, and the run still trains: the machine is asked what it does."""
    run_id = at_work(desk)
    assert record.release(desk.outputs, run_id)
    desk.answers["status"] = (0, json.dumps({"containers": [{"run_id": run_id, "state": "running"}]}))
    assert desk.do("stop")[0] == 0
    assert desk.tree(f"runs/{run_id}/outcome.json")["outcome"] == "stopped"
    assert desk.is_at_rest()


def test_a_machine_that_only_idles_is_given_back(desk: Desk) -> None:
    desk.set_capacity(1)
    desk.online = desk.machines()
    desk.answers["status"] = (0, json.dumps({"containers": []}))
    code, _, err = desk.do("stop")
    assert code == 0
    assert "no run is active, and no machine is kept" in err
    assert desk.is_at_rest()


def test_a_claim_without_a_request_is_taken_away(desk: Desk) -> None:
    desk.put(f"active/{desk.outputs.stack}", "half-a-run")
    assert desk.do("stop")[0] == 0
    assert desk.is_at_rest()
    assert desk.runs() == []  # and nothing is made of it


def test_ctrl_c_at_every_other_call_and_the_same_command_again_end_at_rest(desk: Desk) -> None:
    for number in range(1, 100, 2):
        run_id = at_work(desk)
        obeys = desk.seen.before["ssm:SendCommand"]
        desk.answers["status"] = (0, json.dumps({"containers": [{"run_id": run_id, "state": "running"}]}))

        def press(call: Any, number: int = number, obeys: Any = obeys) -> None:
            if call.name == "ssm:SendCommand":
                obeys(call)
            if len(desk.seen.made) == number:
                os.kill(os.getpid(), signal.SIGINT)

        desk.seen.before["*"] = press
        del desk.seen.before["ssm:SendCommand"]
        code = desk.do("stop")[0]
        pressed = len(desk.seen.made) >= number
        assert code == (130 if pressed else 0)
        desk.seen.before.clear()
        saves(desk, run_id)
        code, _, err = desk.do("stop")
        assert code == 0, err
        assert desk.is_at_rest(), number
        assert record.read_record(desk.outputs, run_id).state == "stopped"
        if not pressed:
            break
    assert number > 10


@pytest.mark.parametrize("kind", ["throttle", "503", "drop", "cut"])
def test_what_passes_is_waited_for(desk: Desk, hasty: None, kind: str) -> None:
    run_id = at_work(desk)
    obeys, upset = desk.seen.before.pop("ssm:SendCommand"), set()

    def once(call: Any) -> None:
        if call.name == "ssm:SendCommand":
            obeys(call)
        if call.name not in upset:
            upset.add(call.name)
            desk.seen.upset("*", kind)

    desk.seen.before["*"] = once
    code, _, err = desk.do("stop")
    assert code == 0, err
    assert desk.is_at_rest()
    assert record.read_record(desk.outputs, run_id).state == "stopped"


@pytest.mark.parametrize("kind", ["denied", "expired", "skew"])
@pytest.mark.parametrize("place", ["s3:DeleteObject", "ssm:SendCommand", "autoscaling:DescribeAutoScalingGroups"])
def test_what_does_not_pass_is_a_sentence_and_the_next_stop_goes_on(
    desk: Desk, hasty: None, place: str, kind: str
) -> None:
    run_id = at_work(desk)
    desk.answers["status"] = (0, json.dumps({"containers": [{"run_id": run_id, "state": "running"}]}))
    desk.seen.upset(place, kind)
    code, out, err = desk.do("stop")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in err
    code, _, err = desk.do("stop")
    assert code == 0, err
    assert desk.is_at_rest()


# Clean.


def idling(desk: Desk, *runs: str) -> None:
    """A machine that is kept, with what these runs have left."""
    desk.set_capacity(1)
    desk.online = desk.machines()
    left = [{"run_id": name, "state": "exited"} for name in runs]
    desk.answers |= {"status": (0, json.dumps({"containers": left})), "clean": (0, "removed /scratch/runs\nclean\n")}


def test_clean_removes_what_ended_runs_have_left_on_machines_of_ours(desk: Desk) -> None:
    idling(desk, "run-b", "run-a")
    code, out, err = desk.do("clean", "--json")
    assert code == 0, err
    told = [(item["run"], item["machine"], item["clean"]) for item in json.loads(out)]
    assert told == [(name, desk.online[0], True) for name in ("run-a", "run-b")]
    sent = [c for c in desk.seen.of("ssm:SendCommand") if c.parameters["DocumentName"] == desk.outputs.document_clean]
    assert [call.parameters["Parameters"] for call in sent] == [{"run_id": ["run-a"]}, {"run_id": ["run-b"]}]
    (asked,) = desk.seen.of("ec2:DescribeInstances")
    labels = {value for name, value in asked.parameters.items() if name.startswith("Filter")}
    assert {"tag:project", "slowfast-emotion", "tag:stack", desk.outputs.stack} <= labels


def test_clean_refuses_an_active_run(desk: Desk) -> None:
    run_id = at_work(desk)
    for arguments in ([], ["--run", run_id]):
        code, _, err = desk.do("clean", *arguments)
        assert (code, err.startswith(f"error: run {run_id} is active; `make stop`")) == (2, True)
    assert desk.seen.of("ssm:SendCommand") == []


def test_clean_tells_what_a_machine_refuses(desk: Desk) -> None:
    idling(desk)
    desk.answers["clean"] = (3, "not everything is in S3, so nothing is removed: last.pt\n")
    code, _, err = desk.do("clean", "--run", "run-a")
    assert (code, err) == (
        1,
        f"✗ {desk.online[0]}, run run-a: not everything is in S3, so nothing is removed: last.pt\n",
    )


def test_clean_without_a_machine_or_without_anything_on_it_has_nothing_to_do(desk: Desk) -> None:
    assert desk.do("clean") == (0, "", "no machine of the stack is up\n")
    idling(desk)
    assert desk.do("clean") == (0, "", "no machine of the stack holds anything of an ended run\n")


@pytest.mark.parametrize("verb", ["stop", "clean", "resume"])
def test_no_text_but_a_run_id_gets_to_a_machine(desk: Desk, verb: str) -> None:
    for text in ("$(touch pwned)", "a b", "a\nb", "../../x", "-rf", "A", "é", "'; ls"):
        code, _, err = desk.do(verb, f"--run={text}")
        assert code == 2
        assert "is no run: 3 to 63 of a-z, 0-9 and -" in err
        assert err.count("\n") == 1
    assert not desk.seen.of("ssm:SendCommand")

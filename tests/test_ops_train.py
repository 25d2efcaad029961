"""train and resume: what is checked and told before money is spent, and that nothing half-started is ever left.

Run: pytest tests/test_ops_train.py
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from operators import DIGEST, ROOT, Desk, Office, activities, client, environment, instances

from infra.box.request import read_request
from infra.costs import REGION_AND_DATE
from infra.ops import agent, arrival, prices, record, train
from infra.ops.context import read_context
from infra.ops.errors import UserError
from infra.ops.lastword import last_word

# The calls by which `train` begins, in their order; a claim, and only then what costs.
BEGINNING = [
    "s3:PutObject active/",
    "autoscaling:PutScheduledUpdateGroupAction",
    "autoscaling:UpdateAutoScalingGroup",
    "s3:PutObject request.json",
    "autoscaling:SetDesiredCapacity",
]
ATTEMPTS = 7  # of botocore at each call
WRITES = {name.partition(" ")[0] for name in BEGINNING} | {"s3:DeleteObject", "ssm:SendCommand"}


@pytest.fixture
def desk(office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(arrival, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(agent, "FIRST_PAUSE", 0.01)
    return office.desk(monkeypatch, tmp_path)


def begun(desk: Desk, *arguments: str) -> str:
    """A run on its way; its id."""
    code, out, err = desk.do("train", "--yes", "--no-wait", *arguments)
    assert code == 0, err
    return out.strip()


def written(desk: Desk) -> dict[str, int]:
    return {name: count for name, count in desk.seen.names.items() if name in WRITES}


# Before money is spent.


def test_a_dry_run_tells_types_zones_price_and_deadline_and_changes_nothing(desk: Desk) -> None:
    code, out, err = desk.do("train", "--dry-run", "--set", "optim.lr=3e-4")
    assert (code, err) == (0, "")
    told = dict(line.split(None, 1) for line in out.replace("or else", "else").replace("at most", "most").splitlines())
    assert told["run"].endswith("-slowfast-face: train slowfast_face.yaml optim.lr=3e-4")
    assert told["machine"] == "1 x g6.xlarge or g5.xlarge, spot, in us-east-1a, us-east-1b"
    assert told["data"] == "manifests/all, clips/all"
    assert told["image"].startswith("0123456789ab, pushed Sat 2026-01-31 ")
    words = "an hour each, machine, disk and address; lowest for g6.xlarge in us-east-1a"
    assert told["price"] == f"$0.3314 to $0.4214 {words}"  # 150 GB and an address are 2.14 cents
    assert told["else"].startswith("on demand at up to $1.0274")
    # 24 hours on demand would cost more than the cap.
    assert told["most"] == "$10.11 on spot, $20.00 on demand (then 19.5 hours) if it lasts until its deadline"
    assert told["deadline"].endswith("in 24.0 hours, which is where HOURS ends it")
    assert written(desk) == {}
    assert desk.is_at_rest()


def test_the_cap_of_the_dearest_machine_that_may_come_sets_the_deadline(desk: Desk) -> None:
    code, out, _ = desk.do("train", "--dry-run", "--json", "--cap", "4", "--nodes", "2", "--spot", "1")
    told = json.loads(out)
    assert (code, told["price_per_hour"], told["nodes"], told["cap_dollars"]) == (0, 0.4214, 2, 4.0)
    assert told["hours"] == 4.75  # 2 machines at 42 cents
    assert told["most_dollars"] == 4.0
    left = datetime.fromisoformat(told["deadline"]) - datetime.now(UTC)
    assert timedelta(hours=4.7) < left <= timedelta(hours=4.75)


def test_a_silent_price_list_leaves_the_table_which_is_said(desk: Desk) -> None:
    desk.seen.answers["pricing:GetProducts"] = {"FormatVersion": "aws_v1", "PriceList": []}
    code, out, _ = desk.do("train", "--dry-run", "--spot", "0")
    assert code == 0
    assert (
        f"$0.8262 to $1.0274 an hour each, machine, disk and address; lowest for g6.xlarge ({REGION_AND_DATE})" in out
    )


def test_it_asks_and_where_it_cannot_ask_it_says_how_to_agree(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = desk.do("train")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == ("error: there is no terminal to ask on; say YES=1, or DRY=1 to see the price only")

    class Terminal:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return "no\n"

    monkeypatch.setattr("sys.stdin", Terminal())
    code, out, err = desk.do("train")
    assert (code, out, err.splitlines()[-1]) == (0, "", "start it? [y/N] nothing is started")
    assert written(desk) == {}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--set", "optim.lrr=1"], "there is no setting optim.lrr; did you mean optim.lr?"),
        (["--set", "nope=1"], "there is no setting nope; .github/SETTINGS.md lists those of "),
        (["--set", "optim.lr=fast"], "optim.lr is 'fast'"),
        (["--set", "lr"], "'lr' in SET is no setting"),
        (["--set=--run=/tmp/x"], "'--run=/tmp/x' in SET is no setting"),
        (["--set", "optim.lr='1"], "SET has no closing quotation"),
        (["--set", "optim.lr=["], "a value in SET is not YAML"),
        (["--config", "nothing"], "no config at nothing.yaml"),
        (["--config", "not/here.yaml"], "there is no file 'not/here.yaml'"),
        (["--nodes", "3"], "NODES=3 is more than the 2 that the stack may have; `make set SET=nodes=3 STACK="),
        (["--nodes", "1.5"], "NODES is '1.5', not a whole number above zero"),
        (["--cap", "nan"], "CAP is 'nan', not a number above zero"),
        (["--cap", "-1"], "CAP is '-1', not a number"),
        (["--hours", "1e9"], "HOURS is '1e9'"),
        (["--spot", "yes"], "SPOT is 'yes'; say SPOT=1"),
        (["--cap", "0.05"], "$0.05 are 7 minutes of 1 x $0.42 an hour (spot)"),
        (["--manifest", "other"], "manifests/other/manifest.csv is not there; `make manifest` makes it"),
        (["--clips", "other"], "clips/other/ holds no clips; `make prepare` makes them"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_begun(desk: Desk, arguments: list[str], told: str) -> None:
    code, out, err = desk.do("train", "--yes", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert told in err
    assert err.count("\n") == 1
    assert written(desk) == {}


def test_a_stack_without_an_image_sends_to_make_image(
    office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = office.desk(monkeypatch, tmp_path, image_digest="")
    code, _, err = desk.do("train", "--yes")
    assert (code, err.strip().rpartition("; ")[2]) == (2, "`make image`")
    assert written(desk) == {}


def test_an_image_that_the_registry_has_lost_is_told_before_a_machine_looks_for_it(desk: Desk) -> None:
    del desk.seen.answers["ecr:DescribeImages"]
    code, _, err = desk.do("train", "--yes")
    assert (code, err) == (2, f"error: the registry no longer has the image {DIGEST[:19]}; `make image`\n")
    assert written(desk) == {}


def test_a_quota_of_nothing_is_told_before_a_machine_is_waited_for(desk: Desk) -> None:
    desk.seen.answers["servicequotas:GetServiceQuota"] = {"Quota": {"Value": 0.0}}
    code, _, err = desk.do("train", "--yes")
    assert code == 2
    assert err.startswith("error: AWS would start no machine (vCPU quota, spot: 0 vCPUs allowed, 4 needed")
    assert written(desk) == {}


def test_files_that_the_image_was_not_built_of_are_told_in_the_terms(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = desk.folder / "clone"
    shutil.copytree(ROOT / "docker", folder / "docker")
    for name in ("infra", "manifests", "trainer"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("")
    for name in ("Pulumi.yaml", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    monkeypatch.chdir(folder)

    def row(*tags: str) -> str:
        pushed = {"imageDigest": DIGEST, "imageTags": list(tags), "imagePushedAt": 1769880000}
        desk.seen.answers["ecr:DescribeImages"] = {"imageDetails": [pushed]}
        (line,) = [line for line in desk.do("train", "--dry-run")[1].splitlines() if line.startswith("image")]
        return line.partition("; ")[2]

    behind = "your files, or BASE=, differ from it: `make image` builds them"
    tag = read_context(folder).tag  # outside of git: of the files alone
    assert row(tag) == ""
    (folder / "trainer" / "__init__.py").write_text("import this\n")
    assert row(tag) == behind
    assert row("0123456789ab") == ""  # who has no git cannot tell

    def git(*words: str) -> str:
        line = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", *words]
        return subprocess.run(line, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "one")
    first = git("rev-parse", "HEAD")[:12]
    (folder / "README.md").write_text("no part of the image\n")
    git("add", ".")
    git("commit", "--quiet", "-m", "two")
    assert row(first) == ""
    (folder / "trainer" / "__init__.py").write_text("import that\n")
    assert row(first) == behind


def test_clips_bear_the_manifests_name_unless_they_have_one_of_their_own(desk: Desk) -> None:
    for key in ("manifests/fold1/manifest.csv", "manifests/fold1/manifest.json", "clips/fold1/a.npz"):
        desk.put(key, b"x")
    told = desk.do("train", "--dry-run", "--manifest", "fold1", "--name", "wider")[1].splitlines()
    assert told[0].split()[1].endswith("-wider:")
    assert told[1] == "data      manifests/fold1, clips/fold1"
    run_id = begun(desk, "--manifest", "fold1", "--clips", "all")
    assert desk.tree(f"runs/{run_id}/request.json")["clips"] == "clips/all/"


# A start.


def test_a_run_is_claimed_bounded_asked_for_and_only_then_given_a_machine(desk: Desk) -> None:
    code, out, err = desk.do("train", "--yes", "--no-wait", "--set", "optim.lr=3e-4 data.batch=16", "--cap", "8")
    run_id = out.strip()
    assert code == 0, err
    assert f"`make stop RUN={run_id}`" in err
    order = [call for call in desk.seen.made if call.name in WRITES]
    assert [call.name for call in order] == [name.partition(" ")[0] for name in BEGINNING]
    assert desk.active() == run_id
    request = read_request(desk.get(f"runs/{run_id}/request.json") or b"")
    assert (request.config, request.manifest, request.clips) == (
        "slowfast_face.yaml",
        "manifests/all/manifest.csv",
        "clips/all/",
    )
    assert request.settings == ("optim.lr=3e-4", "data.batch=16")
    assert request.image == f"{desk.outputs.repository_url}@{desk.outputs.image_digest}"
    assert (request.cap_dollars, request.price_per_hour, request.nodes) == (8.0, 0.4214, 1)
    assert request.prices == {"g6.xlarge us-east-1a": 0.3314, "g5.xlarge us-east-1b": 0.4214}
    (deadline,) = desk.deadlines()
    assert abs(deadline - datetime.now(UTC) - timedelta(hours=8 / 0.4214)) < timedelta(minutes=2)
    # What the run has made is in S3 before AWS takes the machine.
    assert request.deadline == deadline - prices.TO_SAVE
    assert desk.capacity() == 1


def test_a_recipe_of_ones_own_is_uploaded_and_names_the_run(desk: Desk) -> None:
    folder = desk.folder / "it's my $(touch pwned) folder"
    folder.mkdir()
    shutil.copy(ROOT / "trainer" / "configs" / "demo.yaml", folder / "My Recipe.yaml")
    run_id = begun(desk, "--config", str(folder / "My Recipe.yaml"))
    assert run_id.endswith("-my-recipe")
    request = desk.tree(f"runs/{run_id}/request.json")
    assert request["config"] == f"runs/{run_id}/config.yaml"
    assert desk.get(request["config"]) == (ROOT / "trainer" / "configs" / "demo.yaml").read_bytes()


@pytest.mark.parametrize(("spot", "share"), [("1", 0), ("0", 100)])
def test_spot_chooses_the_market_of_this_run(desk: Desk, spot: str, share: int) -> None:
    begun(desk, "--spot", spot)
    distribution = desk.group()["MixedInstancesPolicy"]["InstancesDistribution"]
    assert int(distribution["OnDemandPercentageAboveBaseCapacity"]) == share


def test_an_active_run_is_not_trampled(desk: Desk) -> None:
    run_id = begun(desk)
    code, out, err = desk.do("train", "--yes")
    assert (code, out) == (2, "")
    assert err == (
        f"error: run {run_id} has the stack {desk.outputs.stack}; `make monitor` shows it, "
        "`make stop` saves and ends it\n"
    )
    assert desk.runs() == [run_id]


def test_of_two_at_the_same_second_one_wins_and_the_other_is_told(desk: Desk) -> None:
    """Two processes that both wait, at the door of S3, until both have seen that the stack is free."""
    waiting: list[Any] = []

    def meet(call: Any) -> None:
        if call.parameters["Key"].startswith("active/"):
            waiting.append(call)
            end = time.monotonic() + 30
            while len(waiting) < 2 and time.monotonic() < end:
                time.sleep(0.01)

    desk.seen.before["s3:PutObject"] = meet
    line = [sys.executable, "-m", "infra.ops.train", "--yes", "--no-wait"]
    both = [
        subprocess.Popen(
            line, cwd=desk.folder, env=environment(desk), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    ends = [(*process.communicate(timeout=60), process.returncode) for process in both]
    assert sorted(code for *_, code in ends) == [0, 2], ends
    winner = next(out.strip() for out, _, code in ends if code == 0)
    loser = next(err for _, err, code in ends if code == 2)
    assert f"error: run {winner} has the stack" in loser
    assert (desk.active(), desk.runs(), desk.capacity()) == (winner, [winner], 1)


def test_a_claim_whose_answer_is_lost_is_still_ones_own(desk: Desk, hasty: None) -> None:
    desk.seen.upset("s3:PutObject active/", "cut")
    run_id = begun(desk)
    assert desk.active() == run_id
    assert desk.seen.names["s3:PutObject"] == 3  # the claim twice, and the request


# What goes wrong between claim and machine.


@pytest.mark.parametrize(
    ("place", "kind"),
    [(place, kind) for place in BEGINNING for kind in ("denied", "503", "cut")]
    + [(BEGINNING[2], kind) for kind in ("expired", "skew", "throttle", "drop")],
)
def test_a_start_that_fails_is_undone(desk: Desk, hasty: None, place: str, kind: str) -> None:
    once = kind in ("denied", "expired", "skew")
    desk.seen.upset(place, *[kind] * (1 if once else ATTEMPTS))
    code, out, err = desk.do("train", "--yes", "--no-wait")
    assert (code, out) == (2, ""), err
    assert err.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in err
    assert desk.is_at_rest()
    assert desk.deadlines() == []
    desk.seen.troubles.clear()
    # Of a request that was written remains a run that says why it never began.
    for run_id in desk.runs():
        assert desk.tree(f"runs/{run_id}/outcome.json")["reason"].startswith("no machine was started: ")


@pytest.mark.parametrize("kind", ["throttle", "503", "drop", "cut"])
def test_what_passes_is_waited_for(desk: Desk, hasty: None, kind: str) -> None:
    """Every call of a start fails once, some after the cloud has done what was asked."""
    upset: set[str] = set()

    def once(call: Any) -> None:
        name = f"{call.name} {call.parameters.get('Key', '')}"
        if name not in upset:
            upset.add(name)
            desk.seen.upset("*", kind)

    # Before the call after it: this one is already past.
    desk.seen.before["*"] = once
    run_id = begun(desk)
    assert len(upset) > 8
    assert (desk.active(), desk.runs(), desk.capacity()) == (run_id, [run_id], 1)


def test_what_aws_does_not_let_be_undone_is_told_with_the_next_command(desk: Desk, hasty: None) -> None:
    desk.seen.upset("autoscaling:SetDesiredCapacity", "denied")
    desk.seen.upset("s3:DeleteObject", *["503"] * ATTEMPTS)
    code, _, err = desk.do("train", "--yes", "--no-wait")
    assert code == 2
    run_id = desk.active()
    assert f"say `make stop RUN={run_id}` as soon as it answers" in err
    assert desk.capacity() == 0  # the note alone is left, and the next command removes it
    assert desk.do("stop", "--run", str(run_id))[0] == 0
    assert desk.is_at_rest()


def test_ctrl_c_at_any_call_leaves_all_or_nothing(desk: Desk) -> None:
    """The signal comes while the verb waits for the answer to its n-th call, for every n."""
    for number in range(1, 100):
        desk.seen.made.clear()

        def press(call: Any, number: int = number) -> None:
            if len(desk.seen.made) == number:
                os.kill(os.getpid(), signal.SIGINT)

        desk.seen.before["*"] = press
        code, out, err = desk.do("train", "--yes", "--no-wait")
        desk.seen.before.clear()
        if len(desk.seen.made) < number:
            break
        assert code == 130, err
        if out:  # pressed at the very last call's answer
            assert (desk.active(), desk.capacity()) == (out.strip(), 1)
            assert desk.do("stop")[0] == 0
        assert desk.is_at_rest(), number
    assert number > len(BEGINNING) + 8
    assert code == 0


@pytest.mark.parametrize("place", BEGINNING)
def test_whoever_is_killed_in_the_middle_leaves_what_make_stop_puts_right(desk: Desk, place: str) -> None:
    name, _, part = place.partition(" ")
    line = [sys.executable, "-m", "infra.ops.train", "--yes", "--no-wait"]
    at_work = subprocess.Popen(line, cwd=desk.folder, env=environment(desk), stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip

    def kill(call: Any) -> None:
        if part in json.dumps(call.parameters):
            at_work.kill()

    desk.seen.before[name] = kill
    assert at_work.wait(timeout=60) == -signal.SIGKILL
    desk.seen.before.clear()
    # No machine without an hour at which it is taken away.
    assert desk.capacity() == 0 or desk.deadlines()
    code, _, err = desk.do("stop")
    assert code == 0, err
    assert desk.is_at_rest()
    assert begun(desk)


# The way to the machine.


def coming(desk: Desk, *steps: Any) -> None:
    """One step of the story at each look at EC2; the last one lasts."""
    left = list(steps)

    def look(_: Any) -> None:
        if left:
            left.pop(0)()

    desk.seen.before["ec2:DescribeInstances"] = look


def test_the_wait_tells_each_phase_once_and_ends_when_the_run_works(desk: Desk) -> None:
    desk.answers["run"] = (4, "Docker does not answer\n")
    nothing, run_id = lambda: None, lambda: str(desk.active())

    def boots() -> None:
        desk.online = desk.machines()

    coming(
        desk,
        nothing,
        boots,
        nothing,
        lambda: desk.tells(run_id(), "machine.json", {"phase": "bringing"}),
        nothing,
        lambda: desk.tells(run_id(), "machine.json", {"phase": "training"}),
    )
    code, out, err = desk.do("train", "--yes")
    assert code == 0, err
    (machine,) = desk.machines()
    told = err.splitlines()[8:]
    assert told == [
        f"g6.xlarge {machine} (spot, us-east-1a) boots",
        "the machine is up: Docker does not answer",
        "the machine brings clips and manifest",
        f"run {out.strip()} works on g6.xlarge {machine} (spot, us-east-1a)",
        f"`make monitor` and `make logs` show it, `make stop RUN={out.strip()}` saves and ends it",
    ]


def test_a_run_that_fails_at_once_is_told_with_its_reason(desk: Desk) -> None:
    coming(desk, lambda: desk.hands_in(str(desk.active()), "failed", "the driver does not answer"))
    desk.seen.answers["ec2:DescribeInstances"] = instances("i-1")
    desk.online = ["i-1"]
    code, out, err = desk.do("train", "--yes")
    assert code == 1
    assert err.splitlines()[-1] == f"run {out.strip()} has failed: the driver does not answer"


def test_a_container_that_never_lives_to_speak_is_not_waited_for_until_the_deadline(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrival, "TELL_EVERY", 0.5)
    desk.seen.answers["ec2:DescribeInstances"] = instances("i-1")
    desk.online = ["i-1"]
    words = (
        '{"Status":"exited","ExitCode":1}\nTraceback (most recent call last):\nImportError: no module of that name\n'
    )
    desk.seen.before["ssm:SendCommand"] = lambda _: desk.put(f"runs/{desk.active()}/machine-i-1.txt", words)
    code, out, err = desk.do("train", "--yes")
    assert code == 1
    why = "its container ends as soon as it starts: ImportError: no module of that name"
    why += "; `make image` builds its image anew"
    assert err.splitlines()[-1] == f"run {out.strip()} has failed: {why}"
    assert desk.tree(f"runs/{out.strip()}/outcome.json")["reason"] == why
    assert desk.is_at_rest()


@pytest.mark.parametrize(
    ("left", "word"),
    [
        ('{"Status":"exited","ExitCode":1}\nwarming up\nKeyError: 3\n\n', "KeyError: 3"),
        ('{"Status":"created","ExitCode":128,"Error":"no driver"}\n', "no driver"),
        ('{"Status":"exited","ExitCode":139,"Error":""}\n', "exit code 139, without a word"),
        ("Error: No such object: slowfast-r50\n", "Error: No such object: slowfast-r50"),
        ("", "without a word"),
    ],
)
def test_the_last_word_of_a_container_is_its_own_or_dockers(left: str, word: str) -> None:
    assert last_word(left) == word


@pytest.mark.parametrize(("outcome", "code"), [("finished", 0), ("failed", 1)])
def test_a_run_that_is_over_before_it_was_first_looked_at_is_told_as_it_ended(
    desk: Desk, outcome: str, code: int
) -> None:
    """A task with nothing to do is done within seconds, and its machine gone."""
    coming(desk, lambda: desk.hands_in(str(desk.active()), outcome, "it was so"))
    ended, out, err = desk.do("train", "--yes")
    assert (ended, err.splitlines()[8]) == (code, f"run {out.strip()} has {outcome}: it was so")


def silent_machines(desk: Desk, leave: Callable[[str], None]) -> None:
    """Each machine that is asked for comes, is seen once, leaves something behind, and gives itself back."""
    seen: list[str] = []

    def look(_: Any) -> None:
        (machine,) = desk.machines() or [""]
        if machine in seen:
            desk.set_capacity(0)
        elif machine:
            leave(machine)
            seen.append(machine)

    desk.seen.before["ec2:DescribeInstances"] = look


def test_machines_that_never_say_a_word_are_not_replaced_for_ever(desk: Desk) -> None:
    silent_machines(desk, lambda _: None)
    code, out, err = desk.do("train", "--yes")
    assert code == 1
    why = "2 machines came and went without a word of the run (not even of their boot); `make doctor` looks for why"
    assert err.splitlines()[-1] == f"run {out.strip()} has failed: {why}"
    assert desk.tree(f"runs/{out.strip()}/outcome.json")["reason"] == why
    assert desk.is_at_rest()


def test_the_last_word_of_silent_machines_is_their_containers_or_their_boots(desk: Desk) -> None:
    logs = client(desk.aws, "logs")
    logs.create_log_group(logGroupName=desk.outputs.log_group)

    def boots(machine: str) -> None:
        where = {"logGroupName": desk.outputs.log_group, "logStreamName": f"boot-{machine}"}
        logs.create_log_stream(**where)
        event = {"timestamp": int(time.time() * 1000), "message": "boot: GPU does not answer"}
        logs.put_log_events(**where, logEvents=[event])

    silent_machines(desk, boots)
    assert "(the last said: boot: GPU does not answer)" in desk.do("train", "--yes")[2]
    silent_machines(desk, lambda machine: desk.put(f"runs/{desk.active()}/machine-{machine}.txt", "manifest unknown"))
    assert "(the last said: manifest unknown)" in desk.do("train", "--yes")[2]


def test_ctrl_c_while_waiting_leaves_the_run_to_its_machine(desk: Desk) -> None:
    coming(desk, lambda: None, lambda: os.kill(os.getpid(), signal.SIGINT))
    code, out, err = desk.do("train", "--yes")
    assert code == 130
    assert f"left run {out.strip()} alone: its machine starts it by itself" in err
    assert f"`make stop RUN={out.strip()}`" in err
    assert "only spot machines are asked for from here on" in err
    assert (desk.active(), desk.capacity()) == (out.strip(), 1)


def test_an_aws_that_is_away_for_a_while_does_not_end_the_wait(desk: Desk, hasty: None) -> None:
    def away() -> None:
        desk.seen.upset("ec2:DescribeInstances", *["503"] * ATTEMPTS)

    def works() -> None:
        desk.online = desk.machines()
        desk.tells(str(desk.active()), "machine.json", {"phase": "training"})

    coming(desk, away, *[lambda: None] * (ATTEMPTS - 1), works)
    code, _, err = desk.do("train", "--yes")
    assert code == 0, err
    assert "AWS does not answer; asking again" in err


def test_a_sign_in_that_ends_while_waiting_leaves_the_run_and_says_so(desk: Desk) -> None:
    coming(desk, lambda: None, lambda: desk.seen.upset("ssm:DescribeInstanceInformation", "expired"))
    code, out, err = desk.do("train", "--yes")
    assert code == 2
    assert f"run {out.strip()} goes on without us" in err
    assert err.splitlines()[-1].startswith("error: your AWS credentials have expired")
    assert desk.active() == out.strip()


def test_without_spot_capacity_it_goes_on_demand_within_the_same_cap(desk: Desk) -> None:
    desk.seen.answers["ec2:DescribeInstances"] = instances()
    desk.seen.answers["autoscaling:DescribeScalingActivities"] = activities(*["no Spot capacity in us-east-1a"] * 3)

    def comes(_: Any) -> None:
        desk.seen.answers["ec2:DescribeInstances"] = instances("i-1")
        desk.online = ["i-1"]
        desk.tells(str(desk.active()), "machine.json", {"phase": "training"})

    def market(call: Any) -> None:
        if len(desk.seen.of("autoscaling:UpdateAutoScalingGroup")) == 2:
            comes(call)

    desk.seen.before["autoscaling:UpdateAutoScalingGroup"] = market
    code, out, err = desk.do("train", "--yes", "--cap", "10")
    assert code == 0, err
    assert "there is no spot machine; asked for one on demand, $1.0274 an hour" in err
    distribution = desk.group()["MixedInstancesPolicy"]["InstancesDistribution"]
    assert int(distribution["OnDemandPercentageAboveBaseCapacity"]) == 100
    request = read_request(desk.get(f"runs/{out.strip()}/request.json") or b"")
    assert request.price_per_hour == 1.0274
    assert request.prices == {"g6.xlarge": 0.8262, "g5.xlarge": 1.0274}
    assert request.cap_dollars == 10
    (deadline,) = desk.deadlines()
    hours = (deadline - datetime.now(UTC)).total_seconds() / 3600
    assert 9.6 < hours < 9.8  # and not the 24 that spot prices allowed
    assert request.deadline == deadline - prices.TO_SAVE


def test_spot_only_says_that_there_is_none_and_keeps_waiting(desk: Desk) -> None:
    desk.seen.answers["ec2:DescribeInstances"] = instances()
    desk.seen.answers["autoscaling:DescribeScalingActivities"] = activities(*["no Spot capacity"] * 5)
    coming(desk, *[lambda: None] * 4, lambda: os.kill(os.getpid(), signal.SIGINT))
    code, _, err = desk.do("train", "--yes", "--spot", "1")
    assert code == 130
    assert "asked AWS for 1 x g6.xlarge or g5.xlarge, spot; AWS says: no Spot capacity" in err
    assert len(desk.seen.of("autoscaling:UpdateAutoScalingGroup")) == 1
    assert desk.capacity() == 1


def test_a_run_for_which_no_machine_comes_ends_at_its_deadline(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.seen.answers["ec2:DescribeInstances"] = instances()
    monkeypatch.setattr(arrival.Terms, "deadline", lambda self, now: now + timedelta(seconds=2))
    code, out, err = desk.do("train", "--yes")
    assert code == 1
    assert "no machine came until the deadline" in err
    assert desk.tree(f"runs/{out.strip()}/outcome.json")["outcome"] == "failed"
    assert desk.is_at_rest()


def test_whoever_stops_it_meanwhile_ends_the_wait(desk: Desk) -> None:
    coming(desk, lambda: None, lambda: desk.hands_in(str(desk.active())))
    code, out, err = desk.do("train", "--yes")
    assert code == 1
    assert err.splitlines()[-1] == f"run {out.strip()} has stopped: stopped by the operator"


def test_a_machine_that_idles_is_used_again(desk: Desk) -> None:
    desk.set_capacity(1)
    desk.online = desk.machines()
    run_id = begun(desk)
    (sent,) = desk.seen.of("ssm:SendCommand")
    assert sent.parameters["DocumentName"] == desk.outputs.document_run
    assert sent.parameters["Parameters"] == {"run_id": [run_id]}
    assert desk.seen.names["autoscaling:SetDesiredCapacity"] == 0
    assert desk.machines() == desk.online


def test_a_machine_that_left_with_its_place_is_asked_for_again(desk: Desk) -> None:
    """The courier of the run before gives its machine back just after we have counted on it."""
    desk.set_capacity(1)
    desk.online = []
    coming(desk, lambda: desk.set_capacity(0), lambda: None, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert desk.do("train", "--yes")[0] == 130
    assert desk.capacity() == 1


# Taking a run up again.


def ended(desk: Desk, outcome: str = "stopped", dollars: float = 4.0) -> str:
    """A run of yesterday; S3's clock tells in seconds."""
    run_id = begun(desk, "--cap", "8", "--set", "optim.lr=3e-4")
    desk.hands_in(run_id, outcome, "because")
    desk.tells(run_id, "machine.json", {"phase": "ended", "dollars": dollars})
    time.sleep(1.1)
    desk.seen.made.clear()
    return run_id


def test_a_run_is_taken_up_under_its_own_id_with_what_it_asked_for(desk: Desk) -> None:
    run_id = ended(desk)
    code, out, err = desk.do("resume", "--run", run_id, "--yes", "--no-wait")
    assert (code, out.strip()) == (0, run_id), err
    assert "besides $4.00 spent before; the cap is $8.00" in err
    request = read_request(desk.get(f"runs/{run_id}/request.json") or b"")
    assert request.settings == ("optim.lr=3e-4",)
    assert request.cap_dollars == 8
    hours = (request.deadline + prices.TO_SAVE - datetime.now(UTC)).total_seconds() / 3600
    assert 9.4 < hours <= 9.5  # the four dollars that are left, at 42 cents
    assert (desk.active(), desk.capacity()) == (run_id, 1)


def test_a_resumed_run_takes_the_stacks_image_and_the_terms_say_so(desk: Desk) -> None:
    run_id = ended(desk)
    path = f"runs/{run_id}/request.json"
    now, other = f"{desk.outputs.repository_url}@{DIGEST}", f"{desk.outputs.repository_url}@sha256:{'0' * 64}"
    another = "; the run was begun in another, and goes on in this one"
    desk.put(path, desk.tree(path) | {"image": now})
    assert another not in desk.do("resume", "--dry-run")[1]
    desk.put(path, desk.tree(path) | {"image": other})
    code, _, err = desk.do("resume", "--yes", "--no-wait")
    assert (code, another in err) == (0, True)
    assert desk.tree(path)["image"] == now


def test_how_it_ended_before_is_not_taken_for_how_it_ends_now(desk: Desk) -> None:
    run_id = ended(desk)
    before = record.read_record(desk.outputs, run_id)
    assert (before.state, before.active) == ("stopped", False)
    assert desk.do("resume", "--yes", "--no-wait")[0] == 0
    now = record.read_record(desk.outputs, run_id)
    assert (now.state, now.outcome, now.active) == ("waiting", None, True)
    assert (now.machine or {})["dollars"] == 4.0
    desk.tells(run_id, "machine.json", {"phase": "bringing", "dollars": 4.1})
    assert record.read_record(desk.outputs, run_id).state == "bringing"


def test_a_resumed_run_is_waited_for_though_its_machine_json_is_there(desk: Desk) -> None:
    run_id = ended(desk)
    coming(
        desk,
        lambda: desk.online.extend(desk.machines()),
        lambda: None,
        lambda: desk.tells(run_id, "machine.json", {"phase": "training"}),
    )
    code, _, err = desk.do("resume", "--yes")
    assert code == 0, err
    assert "the machine is up" in err
    assert f"run {run_id} works on" in err


def test_a_finished_run_is_refused_with_the_reason(desk: Desk) -> None:
    run_id = ended(desk, "finished")
    code, out, err = desk.do("resume", "--yes")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: run {run_id} has finished: because; `make download RUN={run_id}` fetches it")
    assert written(desk) == {}


def test_a_cap_that_is_spent_asks_for_more(desk: Desk) -> None:
    ended(desk, dollars=8.5)
    code, _, err = desk.do("resume", "--yes")
    assert (code, err) == (2, "error: the run has cost $8.50, and its cap is $8.00; allow more with CAP=\n")
    assert desk.do("resume", "--yes", "--no-wait", "--cap", "12")[0] == 0


def test_a_resume_that_fails_leaves_the_run_as_it_ended(desk: Desk, hasty: None) -> None:
    run_id = ended(desk)
    desk.seen.upset("autoscaling:SetDesiredCapacity", *["503"] * ATTEMPTS)
    assert desk.do("resume", "--yes")[0] == 2
    assert desk.is_at_rest()
    found = record.read_record(desk.outputs, run_id)
    assert (found.state, (found.outcome or {}).get("reason")) == ("stopped", "because")


def test_a_run_that_never_was_is_named(desk: Desk) -> None:
    code, _, err = desk.do("resume", "--run", "no-such-run", "--yes")
    assert (code, err.startswith("error: there is no run no-such-run in s3://")) == (2, True)


# Arithmetic.

MONEY = st.floats(0.01, 1000)


@given(hours=st.floats(0.1, 168), dollars=MONEY, price=MONEY, nodes=st.integers(1, 16))
def test_no_deadline_lets_the_cap_or_the_hours_be_passed(
    hours: float, dollars: float, price: float, nodes: int
) -> None:
    now = datetime(2026, 1, 31, 18, tzinfo=UTC)
    until = prices.deadline(now, hours, dollars, price, nodes)
    lasted = (until - now).total_seconds() / 3600
    assert lasted <= hours + 1e-6
    assert prices.cost_of(lasted, price, nodes) <= dollars * (1 + 1e-6)
    # And no earlier than needed: a second more would pass one of them.
    assert lasted + 1.001 / 3600 >= min(hours, prices.hours_for(dollars, price, nodes))


# Nothing that is said reaches a shell.

NASTY = [
    "$(touch pwned)",
    "`touch pwned`",
    "a b; touch pwned",
    "'; touch pwned; '",
    '"; touch pwned; "',
    "a\ntouch pwned",
    "$(shell touch pwned)",
    "${HOME}",
    "$$HOME # not a comment",
    "-rf",
    "\\",
    "é",
]


@given(text=st.one_of(st.text(), st.sampled_from(NASTY)))
@limits(max_examples=300)
def test_any_text_is_settings_word_for_word_or_a_mistake(text: str) -> None:
    try:
        found = train.words(text)
    except UserError:
        return
    assert all("=" in word and not word.startswith("-") for word in found)
    request: dict[str, Any] = {
        **train.what_is_asked("demo.yaml", found, "all", "all"),
        "deadline": "2026-01-31T18:00:00+00:00",
        "cap_dollars": 1,
        "price_per_hour": 1,
    }
    assert list(read_request(json.dumps(request)).settings) == found


@given(text=st.one_of(st.text(), st.sampled_from(NASTY)))
def test_any_text_is_a_run_id_without_meaning_to_a_shell_or_a_mistake(text: str) -> None:
    with suppress(UserError):
        assert set(record.check_run_id(text)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    made = record.new_run_id(text)
    assert record.check_run_id(made) == made


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
@pytest.mark.parametrize("text", NASTY)
def test_make_passes_what_is_said_letter_by_letter(tmp_path: Path, text: str) -> None:
    """On its command line and by environment; the verb is a program that notes its environment."""
    said = ["CONFIG", "SET", "NODES", "SPOT", "CAP", "HOURS", "MANIFEST", "CLIPS", "NAME", "WAIT", "RUN", "NOW"]
    program = tmp_path / "bin" / "python"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        f"json.dump([sys.argv[1:], {{name: os.environ.get(name) for name in {said}}}], open('noted', 'w'))\n"
    )
    program.chmod(0o755)
    bare = {key: value for key, value in os.environ.items() if key not in said and not key.startswith("MAKE")}
    line = ["make", "-f", str(ROOT / "Makefile"), "-o", ".venv/ready", f"BIN={program.parent}", "train"]
    for arguments, more in (
        ([f"{name}={text}" for name in said], {}),
        ([], dict.fromkeys(said, text)),
    ):
        subprocess.run([*line, *arguments], cwd=tmp_path, env=bare | more, check=True, capture_output=True)
        noted = json.loads((tmp_path / "noted").read_text())
        assert noted == [["-m", "infra.ops.train"], dict.fromkeys(said, text)]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "noted"]

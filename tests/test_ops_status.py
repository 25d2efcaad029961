"""make status: what it shows, what it calls stray, and what it asks for that. Run: pytest tests/test_ops_status.py"""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from calls import Call, calls
from cloud import Cloud
from operators import activities, instances
from watching import ROOT, Stage, forbidden, iso, machine, stage, status

from infra.ops import figures
from infra.ops.fleet import Group, Machine
from infra.ops.strays import Site, find_strays
from infra.outputs import tags

RUN = "2026-01-31-184502-r50"
NOW = datetime(2026, 1, 31, 19, 0, tzinfo=UTC)


@pytest.fixture
def desk(aws: Cloud, tmp_path: Path) -> Iterator[Stage]:
    with stage(aws, tmp_path) as made:
        yield made


def answer_of_this_machine(idle_seconds: float | None = None) -> dict[str, Any]:
    """What the document's own script says, run here, with the idle time that it would find on a machine."""
    script = ROOT / "infra" / "box" / "documents" / "status.sh"
    told = json.loads(subprocess.run(["sh", str(script)], capture_output=True, text=True, check=True).stdout)
    told["idle"] = {"timer": "active", "limit_minutes": 20, "idle_seconds": idle_seconds}
    return told


def answering(seen: Any, told: dict[str, Any]) -> None:
    """Have SSM say what a machine with that answer would."""

    def information(call: Call) -> dict[str, Any]:
        wanted = call.parameters["Filters"][0]["Values"]
        return {"InstanceInformationList": [{"InstanceId": name, "PingStatus": "Online"} for name in wanted]}

    seen.answers["ssm:DescribeInstanceInformation"] = information
    seen.answers["ssm:SendCommand"] = {"Command": {"CommandId": "11111111-2222-3333-4444-555555555555"}}
    ended = {"Status": "Success", "ResponseCode": 0, "StandardOutputContent": json.dumps(told)}
    seen.answers["ssm:GetCommandInvocation"] = ended


def test_a_run_under_way_is_shown_whole_and_nothing_is_stray(desk: Stage, aws: Cloud) -> None:
    desk.make_group(desired=1)
    instance = desk.instances()[0]
    desk.put_run(RUN, machine=machine(instance=instance), status=status())
    desk.put_run("2026-01-30-000000-left", outcome={"outcome": "interrupted", "reason": "x"})
    desk.put_run("2026-01-29-000000-done", outcome={"outcome": "finished", "reason": "x"})
    desk.activate(RUN)
    told = answer_of_this_machine()
    told["gpus"] = machine()["gpus"]
    with calls(aws.url) as seen:
        answering(seen, told)
        done = replace(desk, endpoint=seen.url).make("status")
        assert done.returncode == 0, done.stdout + done.stderr
        assert seen.names == {
            "ssm:GetParameter": 1, "s3:GetObject": 7, "s3:ListBucket": 1, "ec2:DescribeInstances": 1,
            "autoscaling:DescribeAutoScalingGroups": 1, "autoscaling:DescribeScheduledActions": 1,
            "ssm:DescribeInstanceInformation": 1, "ssm:SendCommand": 1, "ssm:GetCommandInvocation": 1,
        }  # fmt: skip
        assert forbidden(desk, seen.made) == []
    for words in (
        f"{instance}  g6.xlarge", "SSM online", "87% busy, 11.6 of 24.2 GB", "NVIDIA L4", "/scratch" if
        Path("/scratch").is_dir() else "/", f"{RUN}  training", "25%  epoch 3 of 10, step 250 of 1000", "1 h 23 min",
        "loss 0.812, validation UAR 61.2%, 31.4 clips/s", "$1.25 so far, $4.50 at its finish, cap $20.00",
        "asks for 1 of 4 machines", "2026-01-30-000000-left (`make resume", "none in us-east-1",
    ):  # fmt: skip
        assert words in done.stdout, (words, done.stdout)
    assert "\x1b" not in done.stdout


def test_where_no_machine_answers_its_last_word_in_s3_is_shown(desk: Stage, aws: Cloud) -> None:
    desk.make_group(desired=1)
    desk.put_run(RUN, machine=machine(instance=desk.instances()[0], time=iso(minutes=-3)), status=status())
    desk.activate(RUN)
    with calls(aws.url) as seen:
        seen.answers["ssm:DescribeInstanceInformation"] = {"InstanceInformationList": []}
        asking = replace(desk, endpoint=seen.url)
        done, shown = asking.make("status", "--json"), asking.make("status").stdout
    assert done.returncode == 0, done.stderr
    tree = json.loads(done.stdout)
    assert tree["machines"][0] | {"ssm_online": False, "answer": None} == tree["machines"][0]
    assert tree["run"]["state"] == "training"
    assert tree["run"]["machine"]["dollars"] == 1.25
    assert tree["strays"] == tree["waiting"] == []
    assert "SSM silent" in shown
    assert "(as told 3 min ago)" in shown
    assert "no other run waits" in shown


def test_a_stack_at_rest_costs_nothing_and_says_so(desk: Stage) -> None:
    desk.make_group()
    done = desk.make("status")
    assert done.returncode == 0, done.stderr
    assert "none, so none costs anything" in done.stdout
    assert "none is active" in done.stdout


@pytest.mark.parametrize(
    ("outcome", "days", "told"),
    [
        ("failed", 0.125, f"{RUN} failed 3 h 00 min ago: the disk is full; `make resume RUN={RUN}`"),
        ("finished", 2, f"{RUN} finished 2 d 0 h ago: the disk is full; `make download RUN={RUN}`"),
        ("finished", 8, None),
    ],
)
def test_how_the_newest_run_ended_is_told_while_none_is_active(
    desk: Stage, outcome: str, days: float, told: str | None
) -> None:
    desk.make_group()
    ended = machine(phase="ended", time=iso(days=-days))
    desk.put_run("2026-01-30-000000-older", outcome={"outcome": "failed", "reason": "x"})
    desk.put_run(RUN, machine=ended, outcome={"outcome": outcome, "reason": "the disk is full"})
    shown = " ".join(desk.make("status").stdout.split())
    assert (f"last {told}" in shown) if told else ("last" not in shown)


def test_a_group_that_waits_in_vain_says_what_aws_says(desk: Stage, aws: Cloud) -> None:
    desk.make_group(desired=1)
    desk.put_run(RUN)
    desk.activate(RUN)
    with calls(aws.url) as seen:
        seen.answers["ec2:DescribeInstances"] = instances()
        seen.answers["autoscaling:DescribeScalingActivities"] = activities("no Spot capacity", "no Spot capacity")
        done = replace(desk, endpoint=seen.url).make("status")
        assert forbidden(desk, seen.made) == []
    words = f"AWS says: no Spot capacity, 2 times within the hour; `make stop`, then `make resume RUN={RUN} SPOT=0`"
    assert words in " ".join(done.stdout.split())


def test_a_labelled_machine_in_no_group_is_stray_in_any_region_asked(desk: Stage, aws: Cloud) -> None:
    import boto3

    desk.make_group()
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    ec2 = boto3.client("ec2", endpoint_url=aws.url, region_name="eu-west-1", **keys)
    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    labels = [{"Key": key, "Value": value} for key, value in tags(desk.outputs.stack).items()]
    launched = ec2.run_instances(
        ImageId=image, MinCount=1, MaxCount=1, InstanceType="g5.xlarge",
        TagSpecifications=[{"ResourceType": "instance", "Tags": labels}],
    )["Instances"][0]["InstanceId"]  # fmt: skip
    try:
        assert desk.make("status").returncode == 0
        for regions in ("eu-west-1", "all"):
            with calls(aws.url) as seen:
                done = replace(desk, endpoint=seen.url).make("status", "--regions", regions, "--json")
                assert forbidden(desk, [call for call in seen.made if call.name != "ssm:GetParameter"]) == []
            assert done.returncode == 1
            (told,) = json.loads(done.stdout)["strays"]
            assert told.startswith(f"machine {launched} (g5.xlarge, eu-west-1, running) bears our label and is in no")
            assert f"`aws ec2 terminate-instances --region eu-west-1 --instance-ids {launched}`" in told
        assert "✗ machine" in desk.make("status", "--regions", "eu-west-1").stdout
    finally:
        ec2.terminate_instances(InstanceIds=[launched])


def test_an_active_run_without_machine_and_a_group_without_run_are_stray(desk: Stage) -> None:
    desk.make_group()
    desk.put_run(RUN, status=status())
    desk.activate(RUN)
    done = desk.make("status")
    assert done.returncode == 1
    assert f"✗ run {RUN} has the stack {desk.outputs.stack}, but no machine" in done.stdout
    assert f"`make resume RUN={RUN}` goes on with it, `make stop` lets it go" in done.stdout


@pytest.mark.parametrize(("seconds", "code"), [(60, 0), (21 * 60, 1)])
def test_a_machine_without_a_run_is_stray_beyond_its_idle_minutes(
    desk: Stage, aws: Cloud, seconds: float, code: int
) -> None:
    desk.make_group(desired=1)
    with calls(aws.url) as seen:
        answering(seen, answer_of_this_machine(idle_seconds=seconds))
        done = replace(desk, endpoint=seen.url).make("status")
    assert done.returncode == code, done.stdout
    assert ("has had no run for 21 min" in done.stdout) == bool(code)


@pytest.mark.parametrize("name", ["us-east", "$(reboot)", "us-east-1;ls", "-x"])
def test_what_is_no_region_is_refused(desk: Stage, name: str) -> None:
    done = desk.make("status", f"--regions={name}")
    assert done.returncode == 2
    assert done.stderr == f"error: {name!r} is no AWS region; say REGIONS=all, or REGIONS=us-east-1,eu-west-1\n"


def of(stack: str, **changes: Any) -> Machine:
    launched = NOW - timedelta(hours=2)
    known = Machine("i-1", "g6.xlarge", "us-east-1a", "spot", "running", launched, stack, f"group-{stack}")
    return replace(known, **changes)


def judged(machine: Machine | None, site: Site, **idle: float) -> list[str]:
    here = {site.region: [machine] if machine else []}
    return find_strays(here, {(site.region, site.stack): site}, {k.replace("_", "-"): v for k, v in idle.items()}, NOW)


EMPTY, ONE = Group(0, 1, (), None), Group(1, 1, ("i-1",), None)


@pytest.mark.parametrize(
    ("found", "site", "told"),
    [
        (None, Site("us-east-1", "dev", 20, EMPTY), None),
        (None, Site("us-east-1", "dev", 20, EMPTY, active="r50"), "run r50 has the stack dev, but no machine"),
        (None, Site("us-east-1", "dev", 20, ONE, active="r50"), None),  # AWS is asked for one
        (None, Site("us-east-1", "dev", 20, ONE), "asks for 1 machine(s) without a run; `make stop STACK=dev`"),
        (of("dev"), Site("us-east-1", "dev", 20, ONE, active="r50"), None),
        (of("dev"), Site("us-east-1", "dev", 20, ONE), "has had no run for 2 h 00 min; `make stop STACK=dev`"),
        (of("dev", state="shutting-down"), Site("us-east-1", "dev", 20, EMPTY), None),
        (of("dev", group=None), Site("us-east-1", "dev", 20, ONE, active="r50"), "is in no group"),
        (of("old"), Site("us-east-1", "old", exists=False, trouble="none"), "a stack old that us-east-1 does not have"),
        (of("b"), Site("us-east-1", "b", trouble="you may not"), None),  # another's; nobody knows
    ],
)
def test_what_is_stray(found: Machine | None, site: Site, told: str | None) -> None:
    strays = judged(found, site)
    assert len(strays) == (told is not None)
    assert told is None or told in strays[0]


def test_a_machine_that_says_how_long_it_rests_is_believed() -> None:
    assert judged(of("dev"), Site("us-east-1", "dev", 20, ONE), i_1=30.0) == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "?"), (-5, "0 s"), (45, "45 s"), (99.6, "2 min"), (750, "12 min"), (3599, "1 h 00 min"),
     (11_100, "3 h 05 min"), (187_200, "2 d 4 h")],
)  # fmt: skip
def test_durations_are_worded(seconds: float | None, words: str) -> None:
    assert figures.duration(seconds) == words

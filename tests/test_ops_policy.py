"""No verb asks AWS for what the operator policy does not allow, nor for more than it needs; counted over real HTTP.

Run: pytest tests/test_ops_policy.py
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from calls import PLACE, Call
from operators import Desk, Office

from infra import policies
from infra.ops import agent, arrival, stop
from infra.outputs import parameter_name, tags

RUN = "2026-01-31-184502-slowfast-face"


@pytest.fixture
def desk(office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(arrival, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(stop, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(agent, "FIRST_PAUSE", 0.01)
    return office.desk(monkeypatch, tmp_path)


# The policy, judged as IAM does: by action, resource and condition.


def exported(desk: Desk) -> policies.Policy:
    """The operator policy of the desk's stack."""
    region, account = PLACE.split(":")
    place, outputs = policies.Place("aws", region, account), desk.outputs
    names = policies.Names(
        bucket=f"arn:aws:s3:::{outputs.bucket}",
        repository=place.arn("ecr", f"repository/{outputs.asg}"),
        log_group=place.arn("logs", f"log-group:{outputs.log_group}"),
        topic=outputs.topic,
        group=place.arn("autoscaling", f"autoScalingGroup:*:autoScalingGroupName/{outputs.asg}"),
        parameter=place.arn("ssm", f"parameter{parameter_name(outputs.stack)}"),
        builder=place.arn("codebuild", f"project/{outputs.builder}"),
    )
    documents = [
        place.arn("ssm", f"document/{name}")
        for name in (outputs.document_run, outputs.document_stop, outputs.document_status, outputs.document_clean)
    ]
    template = place.arn("ec2", f"launch-template/{outputs.launch_template}")
    return policies.operator(place, names, documents, outputs.role, template, tags(outputs.stack))


def listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def allows(policy: policies.Policy, action: str, resource: str, context: dict[str, str]) -> bool:
    """Whether some statement allows it. `context` holds the condition keys that are known; what is not, is not met."""
    for statement in policy["Statement"]:
        wanted = statement.get("Condition", {})
        met = all(
            fnmatchcase(context.get(key, ""), value)
            for operator in wanted.values()
            for key, values in operator.items()
            for value in listed(values)
        )
        named = any(fnmatchcase(action, pattern) for pattern in listed(statement["Action"]))
        if met and named and any(fnmatchcase(resource, pattern) for pattern in listed(statement["Resource"])):
            assert statement["Effect"] == "Allow"
            return True
    return False


def refused(desk: Desk, made: list[Call]) -> list[str]:
    """The calls that the policy does not allow. A machine of the stack bears its label, a stranger's does not."""
    policy = exported(desk)
    made = [call for call in made if call.name != "sts:GetCallerIdentity"]  # anybody may ask who they are
    label = {f"ssm:resourceTag/{key}": value for key, value in tags(desk.outputs.stack).items()}
    return [
        f"{call.name} on {resource}"
        for call in made
        for resource in call.resources
        if not allows(policy, call.name, resource, label)
    ]


def test_the_judge_refuses_what_it_should(desk: Desk) -> None:
    """Or the test below would pass whatever the verbs do."""
    bucket = f"arn:aws:s3:::{desk.outputs.bucket}"
    assert refused(desk, [Call("s3:GetObject", (f"{bucket}/runs/r/status.json",), {})]) == []
    for name, resource in (
        ("s3:DeleteObject", f"{bucket}/runs/r/status.json"),
        ("s3:GetObject", "arn:aws:s3:::another/x"),
        ("s3:GetObject", bucket),
        ("ec2:TerminateInstances", "*"),
        ("ssm:SendCommand", f"arn:aws:ssm:{PLACE}:document/AWS-RunShellScript"),
        ("autoscaling:SetDesiredCapacity", f"arn:aws:autoscaling:{PLACE}:autoScalingGroup:1:autoScalingGroupName/x"),
    ):
        assert refused(desk, [Call(name, (resource,), {})]) == [f"{name} on {resource}"]
    machine = f"arn:aws:ec2:{PLACE}:instance/i-1"
    assert allows(exported(desk), "ssm:SendCommand", machine, {}) is False


# What each verb does in an ordinary case, and the calls that it may make then.


def resting(desk: Desk) -> None:
    """Nothing has happened yet."""


def ended(desk: Desk) -> None:
    """A run that was stopped."""
    desk.put(f"runs/{RUN}/request.json", request(desk))
    desk.tells(RUN, "status.json", {"phase": "training", "epoch": 3, "epochs": 60, "heartbeat": "2026-01-31T19:00:00Z"})
    desk.tells(RUN, "machine.json", {"phase": "ended", "dollars": 0.5, "time": "2026-01-31T19:00:00+00:00"})
    desk.put(f"runs/{RUN}/metrics.jsonl", "")
    desk.put(f"runs/{RUN}/output.txt", "line 1\nline 2\n")
    told = {"outcome": "stopped", "reason": "stopped by the operator", "exit_code": 143, "last_lines": []}
    desk.tells(RUN, "outcome.json", told)
    desk.put(f"ledger/{RUN}/i-1.json", {"run": RUN, "dollars": 0.5, "hours": 1.0})


def at_work(desk: Desk) -> None:
    """A run that trains, on a machine that obeys."""
    ended(desk)
    client = desk.aws.client("s3")
    client.delete_object(Bucket=desk.outputs.bucket, Key=f"runs/{RUN}/outcome.json")
    desk.tells(RUN, "machine.json", {"phase": "training", "dollars": 0.5, "time": "2026-01-31T19:00:00+00:00"})
    desk.put(f"active/{desk.outputs.stack}", RUN)
    desk.set_capacity(1)
    desk.online = desk.machines()
    desk.answers["status"] = (0, json.dumps({"containers": []}))
    desk.seen.before["ssm:SendCommand"] = lambda call: (
        desk.hands_in(RUN) if call.parameters["DocumentName"] == desk.outputs.document_stop else None
    )


def idling(desk: Desk) -> None:
    """A machine that is kept after its run."""
    ended(desk)
    desk.set_capacity(1)
    desk.online = desk.machines()
    desk.answers["status"] = (0, json.dumps({"containers": [{"run_id": RUN, "state": "exited"}]}))


def with_videos(desk: Desk) -> None:
    """Raw videos in the bucket and on this machine, which its owner has not brought yet."""
    desk.put("data/ravdess/01-01-01-01-01-01-01.mp4", b"film" * 1000)
    (desk.folder / "videos" / "crema").mkdir(parents=True)
    (desk.folder / "videos" / "crema" / "1001_DFA_ANG_XX.flv").write_bytes(b"film" * 1000)


def comes_at_once(desk: Desk) -> None:
    """A machine that trains as soon as it is looked for."""

    def works(_: Any) -> None:
        desk.online = desk.machines()
        desk.tells(str(desk.active()), "machine.json", {"phase": "training"})

    desk.seen.before["ec2:DescribeInstances"] = works


def request(desk: Desk) -> dict[str, Any]:
    return {
        "config": "demo.yaml",
        "manifest": "manifests/all/manifest.csv",
        "clips": "clips/all/",
        "deadline": "2026-01-31T23:00:00+00:00",
        "cap_dollars": 10,
        "price_per_hour": 0.5,
    }


@dataclass(frozen=True)
class Case:
    line: str  # the verb and its arguments
    before: Callable[[Desk], None]
    most: int  # calls
    code: int = 0


CASES = [
    Case("train --dry-run", resting, 15),
    Case("train --dry-run --spot 1", resting, 12),
    Case("train --yes --no-wait", resting, 21),
    Case("train --yes", comes_at_once, 28),
    Case("train --yes --no-wait", idling, 23),
    Case(f"resume --run {RUN} --yes --no-wait", ended, 22),
    Case("stop", at_work, 22),
    Case("stop --now", at_work, 22),
    Case("stop", resting, 8),
    Case("clean", idling, 8),
    Case(f"clean --run {RUN}", idling, 6),
    Case("doctor --json", resting, 13, code=1),
    Case("status --json", at_work, 14),
    Case("runs --json", ended, 10),
    Case(f"logs --run {RUN}", ended, 12, code=3),
    Case(f"monitor --run {RUN} --once", ended, 10),
    Case(f"download --run {RUN} --no-open", ended, 14),
    Case("data videos", with_videos, 3),
    Case("manifest --yes --no-wait", with_videos, 22),
    Case("prepare --yes --no-wait", with_videos, 22),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.line}, {case.before.__name__}")
def test_a_verb_makes_the_calls_it_needs_and_the_policy_allows_them(desk: Desk, case: Case) -> None:
    case.before(desk)
    desk.seen.made.clear()
    code, out, err = desk.do(*case.line.split())
    assert code == case.code, out + err
    assert refused(desk, desk.seen.made) == []
    assert 0 < len(desk.seen.made) <= case.most, desk.seen.names

"""What the verbs ask of AWS before they begin, with no more than the operator policy allows.

Run: pytest tests/test_ops_checks.py
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from operators import Desk, Office

from infra import policies
from infra.ops import checks
from infra.ops.errors import UserError

MANIFEST = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": {}, "layers": []}
NONE, ROOM = 0.0, 8.0


@pytest.fixture
def desk(office: Office, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Desk]:
    checks._vcpus.cache_clear()
    made = office.desk(monkeypatch, tmp_path)
    made.seen.answers.pop("ecr:DescribeImages", None)  # the cloud's own registry is asked
    yield made
    office.aws.set_quotas({"L-DB2E81BA": ROOM, "L-3819A6DF": ROOM})


def test_an_image_is_there_until_its_registry_goes(desk: Desk) -> None:
    assert not checks.image_is_there(desk.outputs)  # no registry at all
    ecr, name = desk.aws.client("ecr"), desk.outputs.asg
    ecr.create_repository(repositoryName=name)
    assert not checks.image_is_there(desk.outputs)
    pushed = ecr.put_image(repositoryName=name, imageTag="1", imageManifest=json.dumps(MANIFEST))["image"]["imageId"]
    desk.seen.made.clear()
    assert checks.image_is_there(replace(desk.outputs, image_digest=pushed["imageDigest"]))
    assert list(desk.seen.names.elements()) == ["ecr:DescribeImages"]


@pytest.mark.parametrize(
    ("market", "on_demand", "spot", "refused"),
    [
        ("spot-then-on-demand", NONE, NONE, True),
        ("spot-then-on-demand", NONE, ROOM, False),
        ("spot", ROOM, NONE, True),
        ("on-demand", NONE, ROOM, True),
    ],
)
def test_a_run_is_refused_where_no_quota_has_room(
    desk: Desk, market: str, on_demand: float, spot: float, refused: bool
) -> None:
    desk.aws.set_quotas({"L-DB2E81BA": on_demand, "L-3819A6DF": spot})
    if not refused:
        return checks.require_room(desk.outputs, market, 1)
    with pytest.raises(
        UserError, match=r"0 vCPUs allowed, 4 needed for 1 x g6\.xlarge.* request-service-quota-increase"
    ):
        checks.require_room(desk.outputs, market, 1)
    return None


def test_a_run_of_more_machines_wants_more(desk: Desk) -> None:
    checks.require_room(desk.outputs, "spot", 2)
    with pytest.raises(UserError, match="8 vCPUs allowed, 16 needed for 4 x"):
        checks.require_room(desk.outputs, "spot", 4)


def test_a_family_whose_quota_is_not_known_is_left_to_aws(desk: Desk) -> None:
    checks.require_room(replace(desk.outputs, instance_types=("p5.48xlarge",)), "spot", 1)


def test_operators_may_ask(desk: Desk) -> None:
    checks.image_is_there(desk.outputs)
    checks.require_room(desk.outputs, "spot", 1)
    names = policies.Names(**{name: f"arn:{name}" for name in policies.Names.__dataclass_fields__})
    policy = policies.operator(policies.Place("aws", "us-east-1", "1"), names, [], "role", "template", {})
    allowed = {action for statement in policy["Statement"] for action in statement["Action"]}
    assert set(desk.seen.names) <= allowed

"""What moto lacks for us: each repair says what it does without it. `repair` is called in the process of its server."""

import copy
import json
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from moto.autoscaling.models import FakeAutoScalingGroup, FakeScalingPolicy
from moto.budgets.responses import BudgetsResponse
from moto.core import DEFAULT_ACCOUNT_ID
from moto.core.types import Base64EncodedString
from moto.ec2.models import ec2_backends
from moto.ec2.models.launch_templates import LaunchTemplate, LaunchTemplateVersion
from moto.ec2.responses.spot_instances import SpotInstances
from moto.s3.models import FakeBucket, FakeDeleteMarker
from moto.servicequotas.exceptions import NoSuchResource
from moto.servicequotas.models import ServiceQuotasBackend
from moto.ssm.models import Parameter, ssm_backends

BUDGET_TAGS: dict[tuple[str, str], list[dict[str, str]]] = {}  # by account and name
SPOT_PRICE = "0.350000"  # dollars an hour, of any type
plain_update = FakeAutoScalingGroup.update
plain_type = FakeAutoScalingGroup.instance_type
plain_launch = FakeAutoScalingGroup.replace_autoscaling_group_instances
plain_version = LaunchTemplate.create_version
plain_budget = BudgetsResponse.create_budget
plain_prices = SpotInstances.describe_spot_price_history
plain_user_data = LaunchTemplateVersion.user_data
plain_policy = FakeScalingPolicy.__init__
plain_permission = FakeBucket.get_permission


def repair(quotas: Path) -> None:
    _know_quotas(quotas)
    FakeAutoScalingGroup.update = update_group  # type: ignore[method-assign]
    FakeAutoScalingGroup.instance_type = property(first_type)  # type: ignore[assignment]
    FakeAutoScalingGroup.replace_autoscaling_group_instances = launch  # type: ignore[method-assign]
    SpotInstances.describe_spot_price_history = spot_prices  # type: ignore[method-assign]
    LaunchTemplateVersion.user_data = property(user_data)  # type: ignore[assignment]
    FakeBucket.get_permission = get_permission  # type: ignore[method-assign]
    # Deleting a marker that something is deleted fails without it.
    FakeDeleteMarker.dispose = lambda self, *_, **__: None  # type: ignore[attr-defined]
    BudgetsResponse.describe_subscribers_for_notification = subscribers  # type: ignore[attr-defined]
    BudgetsResponse.create_budget = create_budget  # type: ignore[method-assign]
    BudgetsResponse.list_tags_for_resource = tags_of_budget  # type: ignore[attr-defined]
    LaunchTemplate.create_version = create_version  # type: ignore[method-assign]
    FakeScalingPolicy.__init__ = make_policy  # type: ignore[method-assign]


def _know_quotas(path: Path) -> None:
    """moto knows the quotas of VPC only. Those of EC2 stand in a file that a test may rewrite."""

    def get_service_quota(self: Any, service_code: str, quota_code: str) -> dict[str, Any]:
        limits = json.loads(path.read_text())
        if service_code != "ec2" or quota_code not in limits:
            raise NoSuchResource
        return {"ServiceCode": "ec2", "QuotaCode": quota_code, "Value": limits[quota_code]}

    ServiceQuotasBackend.get_service_quota = get_service_quota  # type: ignore[method-assign]


def update_group(self: Any, *arguments: Any, mixed_instances_policy: Any = None, **rest: Any) -> None:
    """moto forgets a group's policy at an update that says nothing of it, or fails at one that names a part of it."""
    old, new = copy.deepcopy(self.mixed_instances_policy or {}), mixed_instances_policy or {}
    # It tells a template by id and by name, and takes it by one of them only.
    old.get("LaunchTemplate", {}).get("LaunchTemplateSpecification", {}).pop("LaunchTemplateName", None)
    both = {key: {**old.get(key, {}), **new.get(key, {})} for key in {*old, *new}} or None
    plain_update(self, *arguments, mixed_instances_policy=both, **rest)


def first_type(self: Any) -> str:
    """moto launches the template's own type, whatever the group's policy lists."""
    listed = ((self.mixed_instances_policy or {}).get("LaunchTemplate") or {}).get("Overrides") or []
    return listed[0]["InstanceType"] if listed else plain_type.fget(self)  # type: ignore[attr-defined]


def launch(self: Any, count_needed: int, propagated_tags: dict[str, str]) -> None:
    """moto's groups launch on demand only."""
    before = {state.instance.id for state in self.instance_states}
    plain_launch(self, count_needed, propagated_tags)
    policy = (self.mixed_instances_policy or {}).get("InstancesDistribution", {})
    for state in self.instance_states:
        if state.instance.id not in before and policy.get("OnDemandPercentageAboveBaseCapacity") in (0, "0"):
            state.instance.lifecycle = "spot"


def spot_prices(self: Any) -> Any:
    """moto's spot machines cost a thousandth of a cent an hour, all their life together nothing."""
    answer = plain_prices(self)
    for row in answer.result["SpotPriceHistory"]:
        row["SpotPrice"] = SPOT_PRICE
    return answer


def user_data(self: Any) -> Any:
    """moto launches nothing from a template's second version: its user data is of another type there."""
    text = self.data.get("UserData")
    return Base64EncodedString(text) if isinstance(text, str) else plain_user_data.fget(self)  # type: ignore[attr-defined]


def get_permission(self: Any, action: str, resource: str) -> Any:
    """moto obeys a refusal without looking at its condition: a bucket that wants TLS would refuse everything."""
    return plain_permission(SimpleNamespace(policy=_unconditional(self.policy)), action, resource)  # type: ignore[arg-type]


def _unconditional(policy: bytes | None) -> bytes | None:
    if not policy:
        return policy
    tree = json.loads(policy)
    left = [statement for statement in tree["Statement"] if not statement.get("Condition")]
    return json.dumps({**tree, "Statement": left}).encode() if left else None


def subscribers(self: Any) -> str:
    """moto keeps who hears of a budget and does not tell."""
    budget = self.backend.budgets[self._get_param("AccountId")][self._get_param("BudgetName")]
    wanted = self._get_param("Notification")
    found = (notice.subscribers for notice in budget.notifications if notice.details == wanted)
    return json.dumps({"Subscribers": next(found, [])})


def create_budget(self: Any) -> str:
    """moto keeps no tags of budgets."""
    tags = self._get_param("ResourceTags", [])
    BUDGET_TAGS[self._get_param("AccountId"), self._get_param("Budget")["BudgetName"]] = tags
    return plain_budget(self)


def tags_of_budget(self: Any) -> str:
    _, _, _, _, account, name = self._get_param("ResourceARN").split(":", 5)
    return json.dumps({"ResourceTags": BUDGET_TAGS.get((account, name.removeprefix("budget/")), [])})


def create_version(self: Any, data: dict[str, Any], description: str) -> Any:
    """moto puts a template's own tags among those of the machines that it launches."""
    rows = [row for row in data.get("TagSpecifications", []) if row["ResourceType"] != "launch-template"]
    plain = {key: value for key, value in data.items() if key != "TagSpecifications"}
    return plain_version(self, plain | ({"TagSpecifications": rows} if rows else {}), description)


def make_policy(self: Any, *arguments: Any, **given: Any) -> None:
    """moto does not tell that a policy is enabled, and tells of parts that it has not."""
    plain_policy(self, *arguments, **given)
    self.enabled, self.cooldown = True, given.get("cooldown")
    self.predictive_scaling_configuration = given.get("predictive_scaling_configuration") or None


def publish_image(name: str, parameter: str, region: str) -> None:
    """PutParameter refuses names under /aws, so the machine image and its parameter are put in from the inside."""
    image: Any = ec2_backends[DEFAULT_ACCOUNT_ID][region].register_image(name, name)
    image.owner_alias, image.owner_id = "amazon", "898082745236"
    image.launch_permissions = [{"Group": "all"}]
    image.root_device_type, image.root_device_name = "ebs", "/dev/sda1"
    image.virtualization_type, image.architecture = "hvm", "x86_64"
    ssm_backends[DEFAULT_ACCOUNT_ID][region]._parameters[parameter].append(
        Parameter(
            account_id=DEFAULT_ACCOUNT_ID,
            name=parameter,
            value=image.id,
            parameter_type="String",
            description=None,
            allowed_pattern=None,
            keyid=None,
            last_modified_date=datetime.now(),
            version=1,
            data_type="text",
        )
    )

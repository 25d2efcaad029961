"""The stack, top to bottom: what `make up` makes in your AWS account. It costs next to nothing until `make train`."""

from typing import Any

import pulumi
import pulumi_aws as aws

from infra.account import look_up
from infra.bucket import make_bucket
from infra.builder import make_builder
from infra.config import read_settings
from infra.documents import make_documents
from infra.guards import make_budget, make_idle_alarm, make_log_group, make_notices, make_topic
from infra.machine import image_of, make_group, make_template
from infra.network import make_network
from infra.outputs import NAMES, parameter_name, tags
from infra.policies import Place
from infra.registry import make_repository
from infra.role import make_machine_profile, make_operator_policy
from infra.tagging import tag_everything

stack = pulumi.get_stack()
name = f"{pulumi.get_project()}-{stack}"
label = tags(stack)
settings = read_settings(pulumi.get_project(), stack)
account = look_up(settings, stack)
place = Place(account.partition, account.region, account.id)
tag_everything(label)

# Where data, images, logs and warnings go.
bucket = make_bucket(name, taken_up=account.bucket, keep=settings.keep_data)
repository = make_repository(name)
log_group = make_log_group(name)
topic = make_topic(name, account.id, settings.email)

# The machines: who they are, where they stand, what they are made of, and how many there may be.
network = make_network(name, account.region, account.zones, settings.private_subnets, settings.nodes)
arns: dict[str, pulumi.Input[str]] = {
    "bucket": bucket.arn,
    "repository": repository.arn,
    "log_group": log_group.arn,
    "topic": topic.arn,
    # By name: the group's ARN holds a number that AWS deals, and the group needs the role first.
    "group": place.arn("autoscaling", f"autoScalingGroup:*:autoScalingGroupName/{name}"),
    "parameter": place.arn("ssm", f"parameter{parameter_name(stack)}"),
    "builder": place.arn("codebuild", f"project/{name}"),
}
role, profile = make_machine_profile(name, account.partition, arns)
builder = make_builder(name, repository.repository_url, bucket.bucket, log_group.name, arns)
boot: dict[str, pulumi.Input[str]] = {
    "STACK": stack,
    "REGION": account.region,
    "BUCKET": bucket.bucket,
    "IMAGE": repository.repository_url.apply(lambda url: image_of(url, settings.image_digest)),
    "IDLE_MINUTES": str(settings.idle_minutes),
    "ASG": name,
    "LOG_GROUP": log_group.name,
    "TOPIC": topic.arn,
}
template = make_template(
    name,
    settings.machine_image,
    account.root_device,
    settings.volume_gb,
    profile,
    network.security_group,
    boot,
    label,
)
group = make_group(
    name,
    template,
    settings.instance_types,
    settings.market,
    settings.nodes,
    network.subnets,
    settings.cluster_placement,
    label,
)

# What machines are told, who may tell them, and what ends them when nobody does.
documents = make_documents(name)
operator = make_operator_policy(name, place, arns, documents, role, template, label, settings.operators)
make_budget(name, topic, settings.budget_dollars)
make_idle_alarm(name, group, topic, settings.idle_minutes)
make_notices(name, name, topic)

# What the operator's commands read: exported for `pulumi stack output`, and published where no Pulumi is needed.
known: dict[str, pulumi.Input[Any]] = {
    "stack": stack,
    "region": account.region,
    "bucket": bucket.bucket,
    "repository_url": repository.repository_url,
    "builder": builder.name,
    "asg": group.name,
    "launch_template": template.id,
    "log_group": log_group.name,
    "topic": topic.arn,
    "role": role.arn,
    "operator_policy": operator.arn,
    **{f"document_{command}": document.name for command, document in documents.items()},
    **settings.model_dump(),
}
outputs = {output: known[output] for output in NAMES}
for output, value in outputs.items():
    pulumi.export(output, value)
aws.ssm.Parameter(
    name, name=parameter_name(stack), type="String", insecure_value=pulumi.Output.json_dumps(outputs, sort_keys=True)
)

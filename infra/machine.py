"""The GPU machines: a template of one, and a group of none to N of them that costs nothing while it is empty.

`make train` raises the group's capacity and a run's end lowers it, so `up` leaves both capacity and market alone.
"""

import base64
import shlex
from pathlib import Path

import pulumi
import pulumi_aws as aws

BOOT_SCRIPT = Path(__file__).parent / "box" / "boot.sh"
# What AWS takes as user data, before it is encoded.
USER_DATA_BYTES = 16 * 1024


def render_boot(script: str, values: dict[str, str]) -> str:
    """The boot script with `export KEY='value'` lines after its first, the interpreter's."""
    first, _, rest = script.partition("\n")
    exports = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in values.items())
    return f"{first}\n{exports}{rest}"


def image_of(repository_url: str, digest: str) -> str:
    """The trainer's image by digest, which can never come to mean another; "" before there is one."""
    return f"{repository_url}@{digest}" if digest else ""


def make_template(
    name: str,
    machine_image: str,
    root_device: str,
    volume_gb: int,
    profile: aws.iam.InstanceProfile,
    security_group: pulumi.Input[str],
    boot: dict[str, pulumi.Input[str]],
    tags: dict[str, str],
) -> aws.ec2.LaunchTemplate:
    """The template of every machine; `boot` are the values that the boot script is told, by name."""
    labels = {**tags, "Name": name}
    script = BOOT_SCRIPT.read_text(encoding="utf-8")
    user_data = pulumi.Output.all(**boot).apply(
        lambda values: base64.b64encode(render_boot(script, values).encode()).decode()
    )
    return aws.ec2.LaunchTemplate(
        name,
        name=name,
        image_id=machine_image,
        user_data=user_data,
        iam_instance_profile={"arn": profile.arn},
        vpc_security_group_ids=[security_group],
        # A machine that shuts itself down is gone, its disk too, and bills nothing more.
        instance_initiated_shutdown_behavior="terminate",
        # Version 2 of the metadata service only; two hops, for the courier asks from inside a container.
        metadata_options={"http_endpoint": "enabled", "http_tokens": "required", "http_put_response_hop_limit": 2},
        block_device_mappings=[
            {
                "device_name": root_device,
                "ebs": {
                    "volume_type": "gp3",
                    "volume_size": volume_gb,
                    "encrypted": "true",
                    "delete_on_termination": "true",
                },
            }
        ],
        # What a launch makes is labelled here, for the template's own tags do not reach it.
        tag_specifications=[
            {"resource_type": kind, "tags": labels} for kind in ("instance", "volume", "network-interface")
        ],
    )


def make_group(
    name: str,
    template: aws.ec2.LaunchTemplate,
    instance_types: tuple[str, ...],
    market: str,
    nodes: int,
    subnets: list[pulumi.Output[str]],
    together: bool,
    tags: dict[str, str],
) -> aws.autoscaling.Group:
    """The group of 0 to `nodes` machines; `together` places them close to each other in one zone."""
    placement = aws.ec2.PlacementGroup(name, name=name, strategy="cluster") if together else None
    labels = {**tags, "Name": name}
    distribution = "mixedInstancesPolicy.instancesDistribution.onDemandPercentageAboveBaseCapacity"
    return aws.autoscaling.Group(
        name,
        name=name,
        min_size=0,
        max_size=nodes,
        desired_capacity=0,
        vpc_zone_identifiers=subnets,
        placement_group=placement.name if placement else None,
        mixed_instances_policy={
            "instances_distribution": {
                "on_demand_base_capacity": 0,
                "on_demand_percentage_above_base_capacity": 100 if market == "on-demand" else 0,
                "on_demand_allocation_strategy": "prioritized",
                "spot_allocation_strategy": "price-capacity-optimized",
            },
            "launch_template": {
                "launch_template_specification": {"launch_template_id": template.id, "version": "$Latest"},
                "overrides": [{"instance_type": instance_type} for instance_type in instance_types],
            },
        },
        health_check_type="EC2",
        # Evening out the zones would end a machine in the middle of its run.
        suspended_processes=["AZRebalance"],
        tags=[{"key": key, "value": value, "propagate_at_launch": True} for key, value in labels.items()],
        opts=pulumi.ResourceOptions(ignore_changes=["desiredCapacity", distribution]),
    )

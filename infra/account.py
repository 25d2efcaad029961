"""What the account and the region have already: looked up first, so a mistake is a sentence and nothing is made."""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.outputs import tags, to_set
from infra.settings import Settings


@dataclass(frozen=True)
class Account:
    id: str
    partition: str  # aws, aws-cn, aws-us-gov: the second part of every ARN
    region: str
    zones: tuple[str, ...]  # those that offer at least one of the instance types
    root_device: str  # the machine image's, which the launch template must name
    bucket: str | None  # a bucket that an earlier stack of this name has left


def look_up(settings: Settings, stack: str) -> Account:
    """Look at the account; raises pulumi.RunError where a setting names what is not there, or somebody else's."""
    region = aws.get_region().region
    partition = aws.get_partition().partition
    account = aws.get_caller_identity().account_id
    offers = aws.ec2.get_instance_type_offerings(
        location_type="availability-zone",
        filters=[{"name": "instance-type", "values": list(settings.instance_types)}],
    )
    # Local zones sell some GPU types too, but take no subnet before the account has opted in.
    plain = aws.get_availability_zones(
        state="available", filters=[{"name": "opt-in-status", "values": ["opt-in-not-required"]}]
    )
    root_device = _root_device(settings.machine_image, region)
    ours = aws.resourcegroupstaggingapi.get_resources(
        resource_type_filters=["s3"],
        tag_filters=[{"key": key, "values": [value]} for key, value in tags(stack).items()],
    )
    _check_types(settings.instance_types, offers.instance_types, region, stack)
    _check_operators(settings.operators, account)
    found = [mapping.resource_arn.rpartition(":")[2] for mapping in ours.resource_tag_mapping_lists]
    return Account(
        id=account,
        partition=partition,
        region=region,
        zones=tuple(sorted(set(offers.locations) & set(plain.names))),
        root_device=root_device,
        bucket=_bucket(settings.bucket_name, found, stack, region),
    )


def _root_device(machine_image: str, region: str) -> str:
    """The root device of the pinned image. Never "the newest": AWS publishes one a month, each a change to machines."""
    owners = ["amazon", "self"]
    # AWS deprecates its images after a while; a pinned one goes on.
    found = aws.ec2.get_ami_ids(
        owners=owners, include_deprecated=True, filters=[{"name": "image-id", "values": [machine_image]}]
    )
    if not found.ids:
        raise pulumi.RunError(
            f"machine_image is {machine_image!r}, which {region} does not have: an AMI id is good in one region only; "
            "`make doctor` finds yours"
        )
    return aws.ec2.get_ami(
        owners=owners, include_deprecated=True, filters=[{"name": "image-id", "values": [machine_image]}]
    ).root_device_name


def _check_types(wanted: tuple[str, ...], offered: Sequence[str], region: str, stack: str) -> None:
    missing = [name for name in wanted if name not in offered]
    if missing:
        raise pulumi.RunError(
            f"instance_types has {', '.join(missing)}, which no zone of {region} offers; "
            f"`make doctor` lists what the zones have, `{to_set(stack, 'instance_types=TYPE,TYPE')}` changes it"
        )


def _check_operators(operators: tuple[str, ...], account: str) -> None:
    for arn in operators:
        if arn.split(":")[4] != account:
            raise pulumi.RunError(
                f"operators has {arn}, not of this account ({account}); let them take on a role of this account"
            )


def _bucket(wanted: str, found: list[str], stack: str, region: str) -> str | None:
    """The bucket to take up, by name or because it is the only one; None to make one."""
    label = ", ".join(f"{key}={value}" for key, value in tags(stack).items())
    if wanted and wanted not in found:
        raise pulumi.RunError(
            f"bucket_name is {wanted!r}, but this account has no such bucket in {region} that bears the stack's tags "
            f"({label}), and its policy and lifecycle would be replaced; leave the setting empty to make a bucket, "
            "or tag yours"
        )
    if not wanted and len(found) > 1:
        raise pulumi.RunError(
            f"bucket_name is empty, but {' and '.join(sorted(found))} all bear the stack's tags ({label}); "
            f"`{to_set(stack, 'bucket_name=NAME')}` says which one to take up"
        )
    return wanted or (found[0] if found else None)

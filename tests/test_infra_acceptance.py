"""The stack's whole life against a loopback AWS, through AWS's own Terraform provider: up, destroy, up again.

Run: pytest tests/test_infra_acceptance.py (about two minutes, most of it the provider's own waits)
"""

import json
import re
import shutil
from urllib.parse import urlsplit

import boto3
import pytest
from stack import TOOLS, Cli, kind, loopback_aws

from infra.outputs import parameter_name, read_outputs, tags

pytestmark = [
    pytest.mark.skipif(not shutil.which("terraform"), reason="terraform is not on the PATH"),
    pytest.mark.skipif(
        not (TOOLS / "pulumi_tf.py").is_file(), reason="the shared tools (SLOWFAST_TEST_TOOLS) are absent"
    ),
]
# What the loopback AWS gives back otherwise than it was given, and so seems to change for ever.
FAULTS = {
    "aws:autoscaling/policy:Policy slowfast-emotion-dev-empty": "moto reports no `enabled`",
    "aws:budgets/budget:Budget slowfast-emotion-dev": "moto keeps no tags of budgets",
    "aws:ec2/launchTemplate:LaunchTemplate slowfast-emotion-dev": "moto puts the template's own tags into its content",
}
TOLERATE = " ".join(f"--tolerate-drift {name.replace(' ', '.')}" for name in FAULTS)
# The second time the stack is set otherwise in all that the first left at its default. Placement groups are planned
# only, for moto has none; the lifecycle rules too, for the provider waits a minute until S3 has spread them.
OTHERWISE = {
    "market": "on-demand",
    "nodes": "4",
    "cluster_placement": "true",
    "private_subnets": "true",
    "email": "someone@example.org",
    "operators": "arn:aws:iam::123456789012:user/eve,arn:aws:iam::123456789012:role/team/trainer",
    "image_digest": "sha256:" + "ab" * 32,
}
PLANNED_ONLY = {"aws_placement_group", "aws_s3_bucket_lifecycle_configuration"}
RULES = "aws:vpc/securityGroup(In|E)gressRule.*"  # moto keeps no description of a rule between groups


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("aws")
    with loopback_aws(folder) as environment:
        yield folder, environment


def client(world, service):
    _, environment = world
    assert urlsplit(environment["AWS_ENDPOINT_URL"]).hostname == "127.0.0.1"
    return boto3.client(
        service,
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


def machine_image(world):
    images = client(world, "ec2").describe_images(Owners=["amazon"])["Images"]
    return next(image["ImageId"] for image in images if image["Name"].startswith("Deep Learning Base"))


def changes(planned):
    """What a preview would do: {resource: actions}."""
    return {name: action for action, name in re.findall(r"^  ([a-z/]+): (aws:.*)$", planned, re.M)}


def test_the_stack_goes_up_is_left_alone_goes_down_and_comes_back_to_its_data(world):
    folder, _ = world
    pulumi = Cli(folder / "default", world[1])
    said = pulumi("preview", fails=True)
    assert "machine_image is empty" in said
    assert "`make up` pins" in said
    pulumi("config", "set", "machine_image", machine_image(world))

    # Up: all of it is made, and a second plan is empty, both with guessed values and with the real ones.
    said = pulumi("up", "--yes", tools=TOLERATE)
    assert f"{len(kind('default').resources) + 4} resources" in said, (
        "six zones offer the types, two more than recorded"
    )
    assert "settled plan (the program given the real values): no changes" in said
    assert set(re.findall(r"drift tolerated: (.*)", said)) == set(FAULTS)
    text = client(world, "ssm").get_parameter(Name=parameter_name("dev"))["Parameter"]["Value"]
    outputs = read_outputs(text)
    assert json.loads(text) == pulumi.outputs()
    check_what_is_there(world, outputs)

    # Left alone: a run is on, on demand, and a newer machine image has come out.
    group = client(world, "autoscaling")
    group.set_desired_capacity(AutoScalingGroupName=outputs.asg, DesiredCapacity=1)
    newer = "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 22.04) 20991231"
    (instance,) = group.describe_auto_scaling_groups()["AutoScalingGroups"][0]["Instances"]
    client(world, "ec2").create_image(InstanceId=instance["InstanceId"], Name=newer)
    planned = changes(pulumi("preview"))
    assert set(planned) <= set(FAULTS)
    assert set(planned.values()) <= {"update"}

    # Down: only the bucket stays, with what is in it and with its protection.
    group.set_desired_capacity(AutoScalingGroupName=outputs.asg, DesiredCapacity=0)
    s3 = client(world, "s3")
    s3.put_object(Bucket=outputs.bucket, Key="data/film.mp4", Body=b"frames")
    pulumi("destroy", "--yes")
    # moto knows a project to delete by its name only, and the provider tells its ARN, which AWS takes as well.
    client(world, "codebuild").delete_project(name=outputs.builder)
    check_what_is_left(world, outputs.bucket)

    # Up again, set otherwise in everything, to the same data.
    client(world, "iam").create_user(UserName="eve")
    trust = json.dumps({"Version": "2012-10-17", "Statement": []})
    client(world, "iam").create_role(RoleName="trainer", Path="/team/", AssumeRolePolicyDocument=trust)
    for name, value in OTHERWISE.items():
        pulumi("config", "set", name, value)
    said = pulumi("up", "--yes", tools=f"{TOLERATE} --tolerate-drift {RULES} --plan-only {','.join(PLANNED_ONLY)}")
    assert re.search(r"plan: \d+ to add, 1 to import$", said, re.M)
    assert "settled plan (the program given the real values): no changes" in said
    assert len(re.findall(r"plan-only, not applied: .*", said)) == len(PLANNED_ONLY)
    assert pulumi.outputs()["bucket"] == outputs.bucket
    assert s3.get_object(Bucket=outputs.bucket, Key="data/film.mp4")["Body"].read() == b"frames"
    check_that_no_address_is_let_in(world)


def check_what_is_there(world, outputs):
    check_that_no_address_is_let_in(world)
    (group,) = client(world, "autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    assert (group["MinSize"], group["DesiredCapacity"], group["MaxSize"]) == (0, 0, 1)
    assert not group["Instances"], "an idle stack has no machine"
    for document in (outputs.document_run, outputs.document_stop, outputs.document_status, outputs.document_clean):
        assert client(world, "ssm").describe_document(Name=document)["Document"]["SchemaVersion"] == "2.2"


def check_that_no_address_is_let_in(world):
    mine = [{"Name": f"tag:{key}", "Values": [value]} for key, value in tags("dev").items()]
    groups = client(world, "ec2").describe_security_groups(Filters=mine)["SecurityGroups"]
    assert groups
    for rule in [rule for group in groups for rule in group["IpPermissions"]]:
        assert not rule["IpRanges"] + rule["Ipv6Ranges"] + rule["PrefixListIds"]
        assert {pair["GroupId"] for pair in rule["UserIdGroupPairs"]} <= {group["GroupId"] for group in groups}


def check_what_is_left(world, bucket):
    s3 = client(world, "s3")
    assert [b["Name"] for b in s3.list_buckets()["Buckets"]] == [bucket]
    assert s3.get_object(Bucket=bucket, Key="data/film.mp4")["Body"].read() == b"frames"
    assert all(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values())
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    assert "aws:SecureTransport" in s3.get_bucket_policy(Bucket=bucket)["Policy"]
    assert len(s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]) == 3
    found = client(world, "resourcegroupstaggingapi").get_resources(
        TagFilters=[{"Key": key, "Values": [value]} for key, value in tags("dev").items()]
    )["ResourceTagMappingList"]
    # moto lists what is deleted in EC2 no more, and terminated machines for a while, as AWS does.
    assert {r["ResourceARN"] for r in found if ":instance/" not in r["ResourceARN"]} == {f"arn:aws:s3:::{bucket}"}
    assert client(world, "autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"] == []
    roles = client(world, "iam").list_roles()["Roles"]
    assert all(role["Path"].startswith("/aws-service-role/") for role in roles)

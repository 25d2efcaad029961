"""Who may do what, read from the policies themselves. Run: pytest tests/test_infra_policies.py"""

import json
import re
from fnmatch import fnmatchcase

import pytest
from stack import KINDS, kind, of_type

from infra import policies

PLACE = policies.Place("aws", "us-east-1", "123456789012")
BUCKET = "arn:aws:s3:::data"
NAMES = policies.Names(
    bucket=BUCKET,
    repository=PLACE.arn("ecr", "repository/ours"),
    log_group=PLACE.arn("logs", "log-group:/ours"),
    topic=PLACE.arn("sns", "ours"),
    group=PLACE.arn("autoscaling", "autoScalingGroup:*:autoScalingGroupName/ours"),
    parameter=PLACE.arn("ssm", "parameter/ours"),
    builder=PLACE.arn("codebuild", "project/ours"),
)
MACHINE = policies.machine(NAMES)
TAGS = {"project": "slowfast-emotion", "stack": "dev"}
OPERATOR = policies.operator(
    PLACE,
    NAMES,
    documents=[PLACE.arn("ssm", "document/ours-run")],
    role="arn:aws:iam::123456789012:role/ours",
    template=PLACE.arn("ec2", "launch-template/lt-1"),
    tags=TAGS,
)
BOTH = pytest.mark.parametrize("policy", [MACHINE, OPERATOR], ids=["machine", "operator"])


def listed(value):
    return value if isinstance(value, list) else [value]


def allowed(policy, action, resource):
    """Whether a policy lets an action be done to a resource; conditions are taken as met."""

    def speaks(statement):
        if not any(fnmatchcase(action, pattern) for pattern in listed(statement["Action"])):
            return False
        if "NotResource" in statement:
            return not any(fnmatchcase(resource, pattern) for pattern in listed(statement["NotResource"]))
        return any(fnmatchcase(resource, pattern) for pattern in listed(statement["Resource"]))

    effects = {statement["Effect"] for statement in policy["Statement"] if speaks(statement)}
    return effects == {"Allow"}


@BOTH
def test_nothing_is_allowed_everywhere_but_what_the_api_knows_no_resource_for(policy):
    for statement in policy["Statement"]:
        if "*" in listed(statement.get("Resource", [])):
            assert statement["Sid"] in policies.UNSCOPED
        assert "*" not in listed(statement["Action"])
        for action in listed(statement["Action"]):
            assert "*" not in action, f"{statement['Sid']} allows {action}"


def test_every_exception_is_used_and_has_its_reason():
    everywhere = {s["Sid"] for p in (MACHINE, OPERATOR) for s in p["Statement"] if s.get("Resource") == ["*"]}
    assert everywhere == set(policies.UNSCOPED)
    assert all(len(reason.split()) > 5 for reason in policies.UNSCOPED.values())


@BOTH
def test_what_is_allowed_everywhere_changes_nothing(policy):
    for statement in policy["Statement"]:
        if statement.get("Resource") == ["*"]:
            for action in statement["Action"]:
                # CancelCommand names a command by its secret id, and knows no resource.
                assert re.search(r":(Get|List|Describe)", action) or action == "ssm:CancelCommand"


@pytest.mark.parametrize("prefix", ["data", "clips", "manifests", "weights", "runs", "active"])
def test_a_machine_reads_its_own_prefixes(prefix):
    assert allowed(MACHINE, "s3:GetObject", f"{BUCKET}/{prefix}/x")


def test_a_machine_writes_what_it_makes_and_deletes_no_data():
    assert allowed(MACHINE, "s3:PutObject", f"{BUCKET}/runs/r1/log.txt")
    assert allowed(MACHINE, "s3:PutObject", f"{BUCKET}/clips/a")
    for prefix in ("data", "weights"):
        assert not allowed(MACHINE, "s3:PutObject", f"{BUCKET}/{prefix}/x")
    for prefix in ("data", "clips", "manifests", "weights", "runs"):
        assert not allowed(MACHINE, "s3:DeleteObject", f"{BUCKET}/{prefix}/x")
    assert allowed(MACHINE, "s3:DeleteObject", f"{BUCKET}/active/dev")
    assert not allowed(MACHINE, "s3:GetObject", "arn:aws:s3:::another/data/x")
    assert not allowed(MACHINE, "s3:DeleteBucket", BUCKET)


def test_a_machine_gives_itself_back_and_touches_no_other_group():
    ours = NAMES.group.replace("*", "1a2b")
    assert allowed(MACHINE, "autoscaling:TerminateInstanceInAutoScalingGroup", ours)
    assert not allowed(MACHINE, "autoscaling:TerminateInstanceInAutoScalingGroup", ours.replace("/ours", "/theirs"))
    for action in ("ec2:RunInstances", "ec2:TerminateInstances", "iam:PassRole", "autoscaling:UpdateAutoScalingGroup"):
        assert not allowed(MACHINE, action, ours)


def test_a_machine_reads_no_parameter_but_its_own_whatever_amazons_policy_says():
    core = {"Effect": "Allow", "Action": ["ssm:GetParameter", "ssm:GetParameters"], "Resource": "*"}
    with_core = {"Statement": [*MACHINE["Statement"], core]}
    assert allowed(with_core, "ssm:GetParameter", NAMES.parameter)
    assert not allowed(with_core, "ssm:GetParameters", PLACE.arn("ssm", "parameter/production/password"))


def test_a_machine_pulls_images_and_pushes_none():
    assert allowed(MACHINE, "ecr:BatchGetImage", NAMES.repository)
    assert not allowed(MACHINE, "ecr:PutImage", NAMES.repository)


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("ssm:GetParameter", NAMES.parameter),
        ("s3:PutObject", f"{BUCKET}/data/ravdess.zip"),
        ("s3:GetObject", f"{BUCKET}/runs/r1/model.safetensors"),
        ("ecr:PutImage", NAMES.repository),
        ("autoscaling:SetDesiredCapacity", NAMES.group),
        ("autoscaling:PutScheduledUpdateGroupAction", NAMES.group),
        ("autoscaling:UpdateAutoScalingGroup", NAMES.group),
        ("ssm:SendCommand", PLACE.arn("ssm", "document/ours-run")),
        ("ssm:SendCommand", PLACE.arn("ec2", "instance/i-1")),
        ("ssm:GetCommandInvocation", "anything"),
        ("logs:GetLogEvents", f"{NAMES.log_group}:log-stream:x"),
        ("iam:PassRole", "arn:aws:iam::123456789012:role/ours"),
        ("ssm:GetParameters", "arn:aws:ssm:us-east-1::parameter/aws/service/deeplearning/ami/x86_64/x/ami-id"),
    ],
)
def test_an_operator_can_train(action, resource):
    assert allowed(OPERATOR, action, resource)


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("s3:DeleteObject", f"{BUCKET}/data/ravdess.zip"),
        ("s3:PutBucketPolicy", BUCKET),
        ("s3:GetObject", "arn:aws:s3:::another/x"),
        ("autoscaling:DeleteAutoScalingGroup", NAMES.group),
        ("ssm:SendCommand", "arn:aws:ssm:us-east-1::document/AWS-RunShellScript"),
        ("ssm:PutParameter", NAMES.parameter),
        ("ecr:DeleteRepository", NAMES.repository),
        ("iam:PassRole", "arn:aws:iam::123456789012:role/admin"),
        ("iam:CreateRole", "arn:aws:iam::123456789012:role/new"),
        ("ec2:CreateLaunchTemplateVersion", PLACE.arn("ec2", "launch-template/lt-1")),
    ],
)
def test_an_operator_can_do_no_more(action, resource):
    assert not allowed(OPERATOR, action, resource)


def test_an_operator_commands_machines_with_our_label_only():
    statements = {statement["Sid"]: statement for statement in OPERATOR["Statement"]}
    wanted = {f"ssm:resourceTag/{key}": value for key, value in TAGS.items()}
    assert statements["CommandMachines"]["Condition"] == {"StringEquals": wanted}
    assert statements["LaunchTemplate"]["Condition"]["ArnEquals"]["ec2:LaunchTemplate"].endswith("lt-1")
    assert statements["HandRole"]["Condition"] == {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}


def test_the_topic_hears_the_account_s_own_services_only():
    (statement,) = policies.publishers(NAMES.topic, "123456789012")["Statement"]
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}
    assert set(statement["Principal"]["Service"]) == {f"{s}.amazonaws.com" for s in ("budgets", "cloudwatch", "events")}


@pytest.mark.parametrize("name", KINDS)
def test_the_stack_uses_these_policies_and_they_fit_what_iam_takes(name):
    texts = {}
    for resource in of_type(kind(name), "iam/policy:Policy") + of_type(kind(name), ":RolePolicy"):
        texts[resource.type] = re.sub(r"\s", "", resource.inputs["policy"])
    assert len(texts["aws:iam/policy:Policy"]) <= 6144
    assert len(texts["aws:iam/rolePolicy:RolePolicy"]) <= 10240
    sids = [statement["Sid"] for statement in json.loads(texts["aws:iam/policy:Policy"])["Statement"]]
    assert sids == [statement["Sid"] for statement in OPERATOR["Statement"]]
    (core,) = [a for a in of_type(kind(name), ":RolePolicyAttachment") if a.inputs["policyArn"].endswith("Core")]
    assert core.inputs["policyArn"] == "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"

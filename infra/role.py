"""What machines may do, and what a colleague who trains may do. The policies themselves are in infra/policies.py."""

import json

import pulumi
import pulumi_aws as aws

from infra import policies

# What a policy is made of: known when the resources that it names are.
Arns = dict[str, pulumi.Input[str]]


def make_machine_profile(name: str, partition: str, arns: Arns) -> tuple[aws.iam.Role, aws.iam.InstanceProfile]:
    role = aws.iam.Role(f"{name}-machine", assume_role_policy=json.dumps(policies.assumed_by("ec2.amazonaws.com")))
    core = aws.iam.RolePolicyAttachment(
        f"{name}-machine-ssm",
        role=role.name,
        policy_arn=f"arn:{partition}:iam::aws:policy/AmazonSSMManagedInstanceCore",
    )
    own = aws.iam.RolePolicy(
        f"{name}-machine",
        role=role.name,
        policy=pulumi.Output.all(**arns).apply(lambda known: json.dumps(policies.machine(policies.Names(**known)))),
    )
    # A machine that boots before its permissions are there would fail in ways that nobody could explain.
    profile = aws.iam.InstanceProfile(
        f"{name}-machine", role=role.name, opts=pulumi.ResourceOptions(depends_on=[core, own])
    )
    return role, profile


def make_operator_policy(
    name: str,
    place: policies.Place,
    arns: Arns,
    documents: dict[str, aws.ssm.Document],
    role: aws.iam.Role,
    template: aws.ec2.LaunchTemplate,
    tags: dict[str, str],
    operators: tuple[str, ...],
) -> aws.iam.Policy:
    """The operator policy, given to each of `operators`, ARNs of users and roles of this account."""

    def text(known: dict[str, str], documents: list[str], role: str, template: str) -> str:
        return json.dumps(policies.operator(place, policies.Names(**known), documents, role, template, tags))

    parts = pulumi.Output.all(
        known=pulumi.Output.all(**arns),
        documents=pulumi.Output.all(*(document.arn for document in documents.values())),
        role=role.arn,
        template=template.arn,
    )
    operator = aws.iam.Policy(
        f"{name}-operator",
        description=f"Train with the stack {name}: what its commands need, and no more",
        policy=parts.apply(lambda parts: text(**parts)),
    )
    for arn in operators:
        kind, _, path = arn.rpartition(":")[2].partition("/")
        who = path.rpartition("/")[2]
        if kind == "role":
            aws.iam.RolePolicyAttachment(f"{name}-operator-{who}", role=who, policy_arn=operator.arn)
        else:
            aws.iam.UserPolicyAttachment(f"{name}-operator-{who}", user=who, policy_arn=operator.arn)
    return operator

"""Builds the image in AWS, for whoever has no Docker: `make image WHERE=aws`. It costs by the minute it builds.

The source is images/context.zip of the bucket; each build is told which version of it to take, and the image's tag.
"""

import json
from pathlib import Path

import pulumi
import pulumi_aws as aws

from infra import policies
from infra.role import Arns

BUILDSPEC = Path(__file__).parents[1] / "docker" / "buildspec.yml"
# Docker and BuildKit come along; 4 cores, 8 GB of memory and room for a dozen images.
COMPUTE = "BUILD_GENERAL1_MEDIUM"
SYSTEM = "aws/codebuild/amazonlinux-x86_64-standard:5.0"
# A build takes about ten minutes; one that hangs is ended here.
MINUTES = 60


def make_builder(
    name: str, repository_url: pulumi.Input[str], bucket: pulumi.Input[str], log_group: pulumi.Input[str], arns: Arns
) -> aws.codebuild.Project:
    """The CodeBuild project, named as the stack, with a role that may do nothing but build and push."""
    trust = json.dumps(policies.assumed_by("codebuild.amazonaws.com"))
    role = aws.iam.Role(f"{name}-builder", assume_role_policy=trust)
    aws.iam.RolePolicy(
        f"{name}-builder",
        role=role.name,
        policy=pulumi.Output.all(**arns).apply(lambda known: json.dumps(policies.builder(policies.Names(**known)))),
    )
    return aws.codebuild.Project(
        name,
        name=name,
        description=f"Builds the image of {name} and pushes it",
        service_role=role.arn,
        build_timeout=MINUTES,
        source={
            "type": "S3",
            "location": pulumi.Output.concat(bucket, "/images/context.zip"),
            "buildspec": BUILDSPEC.read_text(encoding="utf-8"),
        },
        artifacts={"type": "NO_ARTIFACTS"},
        environment={
            "type": "LINUX_CONTAINER",
            "compute_type": COMPUTE,
            "image": SYSTEM,
            "privileged_mode": True,  # Docker inside of a container
            "environment_variables": [{"name": "REPOSITORY", "value": repository_url}],
        },
        logs_config={"cloudwatch_logs": {"group_name": log_group, "stream_name": "image"}},
    )

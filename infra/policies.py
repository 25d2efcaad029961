"""Who may do what: every policy of the stack as a pure function from names to a dictionary."""

from dataclasses import dataclass
from typing import Any

Statement = dict[str, Any]
Policy = dict[str, Any]

# Statements that name no resource, and why: a test finds any other.
UNSCOPED = {
    "RegistryLogin": "ecr:GetAuthorizationToken is given for the registry as a whole",
    "SeeGroups": "autoscaling:Describe* and ec2:Describe* know no resource",
    "SeeCommands": "ssm:GetCommandInvocation, List*, CancelCommand and DescribeInstanceInformation know no resource",
    "SeePrices": "pricing, service quotas, and CloudWatch's metrics know no resource",
}
READ_BY_MACHINES = ("data", "clips", "manifests", "weights", "runs", "active", "ledger")
WRITTEN_BY_MACHINES = ("clips", "manifests", "runs", "active", "ledger")


@dataclass(frozen=True)
class Place:
    """Where the stack lives: the first parts of its ARNs."""

    partition: str
    region: str
    account: str

    def arn(self, service: str, resource: str) -> str:
        """ARN of something in the account."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{resource}"

    def public(self, service: str, resource: str) -> str:
        """ARN of something that AWS itself owns in the region, such as an image or a document."""
        return f"arn:{self.partition}:{service}:{self.region}::{resource}"


@dataclass(frozen=True)
class Names:
    """ARNs of the stack's own parts, as the policies speak of them."""

    bucket: str
    repository: str
    log_group: str
    topic: str
    group: str
    parameter: str
    builder: str


def policy(*statements: Statement) -> Policy:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def assumed_by(service: str) -> Policy:
    """Trust policy of a role that an AWS service takes on, such as ec2.amazonaws.com."""
    return policy({"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"})


def tls_only(bucket: str) -> Policy:
    """Bucket policy: nobody, the owner included, speaks to the bucket in the clear."""
    return policy(
        {
            "Sid": "TlsOnly",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [bucket, f"{bucket}/*"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }
    )


def publishers(topic: str, account: str) -> Policy:
    """Topic policy: the account's own budgets, alarms and event rules may speak."""
    services = ["budgets.amazonaws.com", "cloudwatch.amazonaws.com", "events.amazonaws.com"]
    return policy(
        {
            "Sid": "OwnWarnings",
            "Effect": "Allow",
            "Principal": {"Service": services},
            "Action": "sns:Publish",
            "Resource": topic,
            "Condition": {"StringEquals": {"aws:SourceAccount": account}},
        }
    )


def machine(names: Names) -> Policy:
    """What a machine may do besides AmazonSSMManagedInstanceCore: its data, image and log, and giving itself back."""
    return policy(
        _allow("ListBucket", "s3:ListBucket s3:GetBucketLocation", names.bucket),
        _allow("ReadData", "s3:GetObject", *(f"{names.bucket}/{prefix}/*" for prefix in READ_BY_MACHINES)),
        _allow("WriteData", _PUT, *(f"{names.bucket}/{prefix}/*" for prefix in WRITTEN_BY_MACHINES)),
        # Of runs a machine deletes nothing but the note that one is active, and checkpoints that newer ones replace.
        _allow("EndRun", "s3:DeleteObject", f"{names.bucket}/active/*", f"{names.bucket}/runs/*/checkpoints/step-*.pt"),
        _allow("RegistryLogin", "ecr:GetAuthorizationToken", "*"),
        _allow("PullImage", _PULL, names.repository),
        _allow("WriteLog", "logs:CreateLogStream logs:PutLogEvents", f"{names.log_group}:*"),
        _allow("Tell", "sns:Publish", names.topic),
        _allow("GiveBack", "autoscaling:TerminateInstanceInAutoScalingGroup", names.group),
        _allow(
            "SeeGroups",
            "autoscaling:DescribeAutoScalingGroups autoscaling:DescribeAutoScalingInstances ec2:DescribeInstances",
            "*",
        ),
        # AmazonSSMManagedInstanceCore lets a machine read every parameter of the account; take all but its own back.
        {
            "Sid": "NoForeignParameters",
            "Effect": "Deny",
            "Action": ["ssm:GetParameter", "ssm:GetParameters"],
            "NotResource": names.parameter,
        },
    )


def builder(names: Names) -> Policy:
    """What the image's builder may do: read its source, push to the registry, write its log."""
    return policy(
        _allow("ReadSource", "s3:GetObject s3:GetObjectVersion", f"{names.bucket}/images/*"),
        _allow("FindBucket", "s3:GetBucketLocation", names.bucket),
        _allow("RegistryLogin", "ecr:GetAuthorizationToken", "*"),
        _allow("PushImage", f"{_PULL} {_PUSH}", names.repository),
        _allow("WriteLog", "logs:CreateLogStream logs:PutLogEvents", f"{names.log_group}:*"),
    )


def operator(
    place: Place, names: Names, documents: list[str], role: str, template: str, tags: dict[str, str]
) -> Policy:
    """What a colleague needs to train, watch, stop and fetch; making and destroying the stack is not in it.

    `documents` are the ARNs of the stack's SSM documents, `tags` the label that its machines bear.
    """
    ours = {"StringEquals": {f"ssm:resourceTag/{key}": value for key, value in tags.items()}}
    return policy(
        _allow("ReadStack", "ssm:GetParameter", names.parameter),
        # Versions are listed to say what is billed while CloudWatch does not know the bucket's size yet.
        _allow(
            "ListBucket",
            "s3:ListBucket s3:ListBucketVersions s3:GetBucketLocation s3:ListBucketMultipartUploads",
            names.bucket,
        ),
        _allow("MoveData", f"s3:GetObject {_PUT}", f"{names.bucket}/*"),
        _allow("EndRun", "s3:DeleteObject", f"{names.bucket}/active/*"),
        _allow("SeeWhoHears", "sns:ListSubscriptionsByTopic", names.topic),
        _allow("RegistryLogin", "ecr:GetAuthorizationToken", "*"),
        _allow("PushImage", f"{_PULL} {_PUSH}", names.repository),
        _allow("BuildImage", "codebuild:StartBuild codebuild:StopBuild codebuild:BatchGetBuilds", names.builder),
        _allow("ReadLog", "logs:DescribeLogStreams logs:FilterLogEvents logs:GetLogEvents", f"{names.log_group}:*"),
        _allow("RunMachines", _RUN_MACHINES, names.group),
        # UpdateAutoScalingGroup (spot or on demand, run by run) makes AWS ask whether its caller could launch the
        # group's template by hand: yes, but only that template, and only with the group's own role.
        _allow("LaunchTemplate", "ec2:RunInstances", place.arn("ec2", "*"), place.public("ec2", "image/*"))
        | {"Condition": {"ArnEquals": {"ec2:LaunchTemplate": template}}},
        _allow("LabelMachines", "ec2:CreateTags", place.arn("ec2", "*"))
        | {"Condition": {"StringEquals": {"ec2:CreateAction": "RunInstances"}}},
        _allow("HandRole", "iam:PassRole", role)
        | {"Condition": {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}},
        _allow("UseDocuments", "ssm:SendCommand ssm:StartSession", *documents),
        _allow("CommandMachines", "ssm:SendCommand ssm:StartSession", place.arn("ec2", "instance/*"))
        | {"Condition": ours},
        _allow("OpenSessions", "ssm:StartSession", *_sessions(place)),
        _allow("OwnSessions", "ssm:TerminateSession ssm:ResumeSession", place.arn("ssm", "session/${aws:userid}-*")),
        # What `make doctor` looks at: the newest machine image, and the role without which there are no spot machines.
        _allow("SeeImages", "ssm:GetParameters", place.public("ssm", "parameter/aws/service/deeplearning/*")),
        _allow("SeeSpotRole", "iam:GetRole", f"arn:{place.partition}:iam::{place.account}:role/{_SPOT_ROLE}"),
        _allow("SeeCommands", _SEE_COMMANDS, "*"),
        _allow("SeeGroups", _SEE_GROUPS, "*"),
        _allow("SeePrices", "pricing:GetProducts servicequotas:GetServiceQuota cloudwatch:GetMetricData", "*"),
    )


_PUT = "s3:PutObject s3:AbortMultipartUpload s3:ListMultipartUploadParts"
_PULL = "ecr:BatchGetImage ecr:BatchCheckLayerAvailability ecr:GetDownloadUrlForLayer ecr:DescribeImages"
_PUSH = "ecr:InitiateLayerUpload ecr:UploadLayerPart ecr:CompleteLayerUpload ecr:PutImage"
_RUN_MACHINES = (
    "autoscaling:SetDesiredCapacity autoscaling:UpdateAutoScalingGroup autoscaling:PutScheduledUpdateGroupAction "
    "autoscaling:DeleteScheduledAction autoscaling:TerminateInstanceInAutoScalingGroup"
)
_SPOT_ROLE = "aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"
_SEE_COMMANDS = (
    "ssm:GetCommandInvocation ssm:ListCommandInvocations ssm:ListCommands ssm:CancelCommand "
    "ssm:DescribeInstanceInformation ssm:GetConnectionStatus"
)
_SEE_GROUPS = (
    "autoscaling:DescribeAutoScalingGroups autoscaling:DescribeAutoScalingInstances "
    "autoscaling:DescribeScalingActivities autoscaling:DescribeScheduledActions ec2:DescribeInstances "
    "ec2:DescribeInstanceStatus ec2:DescribeInstanceTypes ec2:DescribeInstanceTypeOfferings "
    "ec2:DescribeSpotPriceHistory ec2:DescribeLaunchTemplateVersions ec2:DescribeImages ec2:DescribeRegions"
)


def _allow(sid: str, actions: str, *resources: str) -> Statement:
    """A statement from actions separated by blanks."""
    return {"Sid": sid, "Effect": "Allow", "Action": actions.split(), "Resource": list(resources)}


def _sessions(place: Place) -> list[str]:
    """Documents of a shell, an interactive command and a forwarded port; the last two are AWS's own."""
    names = ("AWS-StartInteractiveCommand", "AWS-StartPortForwardingSession")
    shell = place.arn("ssm", "document/SSM-SessionManagerRunShell")
    return [shell, *(place.public("ssm", f"document/{name}") for name in names)]

"""What stands in for the Pulumi CLI where there is none: makes what verbs and machines need of the declared resources.

    python tests/declared.py up --stack rehearsal           (installed by rehearse.py as `pulumi` on its PATH)

The program itself is run, settings and all (infra/recording.py); bucket, registry, log group, topic, launch template,
group, documents and the published outputs are then made with boto3, from the very properties that it declares. Network,
permissions and alarms are not: a local AWS obeys none of them. An `up` may follow another, and `destroy` leaves what
the program keeps. It speaks to the endpoint of the environment and to no other.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import yaml

from infra.outputs import PROJECT
from infra.recording import ZONES, Declared, Recording, record


def pascal(tree: Any) -> Any:
    """The provider's names as AWS's: `imageId` is ImageId."""
    if isinstance(tree, dict):
        return {key[0].upper() + key[1:]: pascal(value) for key, value in tree.items()}
    return [pascal(value) for value in tree] if isinstance(tree, list) else tree


def client(service: str) -> Any:
    if "127.0.0.1" not in os.environ.get("AWS_ENDPOINT_URL", ""):
        sys.exit("error: this stands in for Pulumi on a local AWS endpoint only, and AWS_ENDPOINT_URL names none")
    return boto3.client(service, region_name=os.environ["AWS_REGION"])  # as Pulumi reads it; boto3 would not


def make_bucket(declared: Declared) -> str:
    s3, name = client("s3"), declared.inputs.get("bucket", declared.name)
    if name not in [row["Name"] for row in s3.list_buckets()["Buckets"]]:
        s3.create_bucket(Bucket=name)
        tags = [{"Key": key, "Value": value} for key, value in declared.inputs["tags"].items()]
        s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": tags})
    return name


def make_versioning(declared: Declared) -> str:
    status = declared.inputs["versioningConfiguration"]
    client("s3").put_bucket_versioning(Bucket=declared.inputs["bucket"], VersioningConfiguration=pascal(status))
    return declared.name


def make_policy(declared: Declared) -> str:
    client("s3").put_bucket_policy(Bucket=declared.inputs["bucket"], Policy=declared.inputs["policy"])
    return declared.name


def make_repository(declared: Declared) -> str:
    ecr = client("ecr")
    if declared.name not in [row["repositoryName"] for row in ecr.describe_repositories()["repositories"]]:
        ecr.create_repository(repositoryName=declared.name)
    return declared.name


def make_log_group(declared: Declared) -> str:
    logs, name = client("logs"), declared.inputs["name"]
    if not logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"]:
        logs.create_log_group(logGroupName=name)
    return name


def make_topic(declared: Declared) -> str:
    return client("sns").create_topic(Name=declared.inputs["name"])["TopicArn"]


def make_subscription(declared: Declared) -> str:
    inputs = declared.inputs
    return client("sns").subscribe(TopicArn=inputs["topic"], Protocol=inputs["protocol"], Endpoint=inputs["endpoint"])[
        "SubscriptionArn"
    ]


def make_template(declared: Declared) -> str:
    """A new version of it if it is there: the group takes the newest for its next machine."""
    ec2, name = client("ec2"), declared.inputs["name"]
    known = ("imageId", "userData", "metadataOptions", "instanceInitiatedShutdownBehavior", "tagSpecifications")
    data = {key: declared.inputs[key] for key in known}
    found = [row for row in ec2.describe_launch_templates()["LaunchTemplates"] if row["LaunchTemplateName"] == name]
    # Tags' names are the user's own and stay as they are.
    labels = [
        {"ResourceType": row["resourceType"], "Tags": [{"Key": k, "Value": v} for k, v in row["tags"].items()]}
        for row in data.pop("tagSpecifications")
        if row["resourceType"] == "instance"
    ]
    content = pascal(data) | {"TagSpecifications": labels}
    content["MetadataOptions"]["HttpPutResponseHopLimit"] = 2
    if found:
        ec2.create_launch_template_version(LaunchTemplateId=found[0]["LaunchTemplateId"], LaunchTemplateData=content)
        return found[0]["LaunchTemplateId"]
    made = ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData=content)
    return made["LaunchTemplate"]["LaunchTemplateId"]


def make_group(declared: Declared) -> str:
    groups, inputs = client("autoscaling"), declared.inputs
    if not groups.describe_auto_scaling_groups(AutoScalingGroupNames=[inputs["name"]])["AutoScalingGroups"]:
        policy = pascal(inputs["mixedInstancesPolicy"])
        policy["InstancesDistribution"] = {
            key: int(value) if isinstance(value, float) else value
            for key, value in policy["InstancesDistribution"].items()
        }
        groups.create_auto_scaling_group(
            AutoScalingGroupName=inputs["name"],
            MinSize=int(inputs["minSize"]),
            MaxSize=int(inputs["maxSize"]),
            DesiredCapacity=int(inputs["desiredCapacity"]),
            AvailabilityZones=ZONES,
            MixedInstancesPolicy=policy,
            Tags=pascal(inputs["tags"]),
        )
    return inputs["name"]


def make_document(declared: Declared) -> str:
    ssm, name, content = client("ssm"), declared.inputs["name"], declared.inputs["content"]
    known = [row["Name"] for row in ssm.list_documents()["DocumentIdentifiers"]]
    if name not in known:
        ssm.create_document(Name=name, Content=content, DocumentType="Command", DocumentFormat="JSON")
    elif json.loads(ssm.get_document(Name=name)["Content"]) != json.loads(content):
        ssm.update_document(Name=name, Content=content, DocumentVersion="$LATEST")
    return name


def make_parameter(declared: Declared) -> str:
    name, value = declared.inputs["name"], declared.inputs["insecureValue"]
    client("ssm").put_parameter(Name=name, Value=value, Type="String", Overwrite=True)
    return name


MAKERS: dict[str, Callable[[Declared], str]] = {
    "aws:s3/bucket:Bucket": make_bucket,
    "aws:s3/bucketVersioning:BucketVersioning": make_versioning,
    "aws:s3/bucketPolicy:BucketPolicy": make_policy,
    "aws:ecr/repository:Repository": make_repository,
    "aws:cloudwatch/logGroup:LogGroup": make_log_group,
    "aws:sns/topic:Topic": make_topic,
    "aws:sns/topicSubscription:TopicSubscription": make_subscription,
    "aws:ec2/launchTemplate:LaunchTemplate": make_template,
    "aws:autoscaling/group:Group": make_group,
    "aws:ssm/document:Document": make_document,
    "aws:ssm/parameter:Parameter": make_parameter,
}
REMOVERS: dict[str, Callable[[str], Any]] = {
    "aws:ecr/repository:Repository": lambda name: client("ecr").delete_repository(repositoryName=name, force=True),
    "aws:cloudwatch/logGroup:LogGroup": lambda name: client("logs").delete_log_group(logGroupName=name),
    "aws:sns/topic:Topic": lambda arn: client("sns").delete_topic(TopicArn=arn),
    "aws:ec2/launchTemplate:LaunchTemplate": lambda i: client("ec2").delete_launch_template(LaunchTemplateId=i),
    "aws:autoscaling/group:Group": lambda name: client("autoscaling").delete_auto_scaling_group(
        AutoScalingGroupName=name, ForceDelete=True
    ),
    "aws:ssm/document:Document": lambda name: client("ssm").delete_document(Name=name),
    "aws:ssm/parameter:Parameter": lambda name: client("ssm").delete_parameter(Name=name),
}


class Stack:
    """A stack's settings, where the Pulumi CLI keeps them, and its state beside them: what is made, and the outputs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.settings = Path(f"Pulumi.{name}.yaml")
        self.state = Path(f"declared.{name}.json")

    def set(self, key: str, value: str) -> None:
        tree = self._tree()
        tree.setdefault("config", {})[key if ":" in key else f"{PROJECT}:{key}"] = value
        self.settings.write_text(yaml.safe_dump(tree))

    def create(self) -> None:
        """As with the real CLI a new stack has no settings of ours, the region neither."""
        if not self.state.exists():
            self._write([], {})

    def remove(self, key: str) -> None:
        tree = self._tree()
        del tree["config"][key if ":" in key else f"{PROJECT}:{key}"]
        self.settings.write_text(yaml.safe_dump(tree))

    def outputs(self) -> dict[str, Any]:
        if not self.state.exists():
            sys.exit(f"error: no stack named '{self.name}' found")
        return dict(json.loads(self.state.read_text())["outputs"])

    def _write(self, made: list[list[Any]], outputs: dict[str, Any]) -> None:
        self.state.write_text(json.dumps({"made": made, "outputs": outputs}))

    def _tree(self) -> dict[str, Any]:
        return (yaml.safe_load(self.settings.read_text()) or {}) if self.settings.exists() else {}

    def recording(self) -> Recording:
        own = self._tree().get("config", {})
        values = {key.removeprefix(f"{PROJECT}:"): value for key, value in own.items() if key.startswith(PROJECT)}
        return record(values, self.name)

    def up(self) -> None:
        """Make what is declared, in its order, each name that AWS deals put in where the program was told another."""
        recording, made, dealt = self.recording(), list[list[Any]](), dict[str, str]()
        for declared in recording.resources:
            if maker := MAKERS.get(declared.type):
                name = maker(with_names(declared, dealt))
                dealt[f"{declared.type.rpartition(':')[2]}-{declared.name}"] = name
                made.append([declared.type, name, declared.kept])
        self._write(made, recording.outputs)
        of = len(recording.resources)
        print(f"made {len(made)} of the {of} resources that the program declares, on a local AWS endpoint")

    def destroy(self) -> None:
        made = json.loads(self.state.read_text())["made"] if self.state.exists() else []
        for kind, name, kept in reversed(made):
            if kind in REMOVERS and not kept:
                REMOVERS[kind](name)
        self._write([], {})
        print(f"destroyed {sum(not kept for *_, kept in made)} resources; {sum(kept for *_, kept in made)} are kept")


def with_names(declared: Declared, dealt: dict[str, str]) -> Declared:
    text = json.dumps(declared.inputs)
    for told, name in dealt.items():
        text = text.replace(told, name)
    return Declared(**{**vars(declared), "inputs": json.loads(text)})


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("words", nargs="+")
    made.add_argument("--stack", "-s", default="")
    for option in ("--yes", "--skip-preview", "--create", "--json"):
        made.add_argument(option, action="store_true")
    given = made.parse_intermixed_args()
    match given.words:
        case ["version"]:
            print("no Pulumi, but the project's own stand-in for rehearsals")
        case ["stack", "select", *name]:
            Stack(given.stack or name[0]).create()
        case ["stack", "output"]:
            print(json.dumps(Stack(given.stack).outputs()))
        case ["config", "set", key, value]:
            Stack(given.stack).set(key, value)
        case ["config", "rm", key]:
            Stack(given.stack).remove(key)
        case ["up"]:
            Stack(given.stack).up()
        case ["destroy"]:
            Stack(given.stack).destroy()
        case words:
            sys.exit(f"error: the stand-in for Pulumi does not know `{' '.join(words)}`")


if __name__ == "__main__":
    main()

"""This machine within its stack: which run it shall work on, and how it is given back."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from infra.box.transfer import Bucket, insist, open_bucket

MINUTES_TO_TELL = 5.0  # that an end may wait for S3 or EC2 to hear of it
VARIABLES = ("STACK", "REGION", "BUCKET", "ASG", "INSTANCE", "IMAGE")  # of /etc/slowfast.env
PATIENCE = Config(connect_timeout=5, read_timeout=15, retries={"total_max_attempts": 2})


@dataclass(frozen=True)
class Station:
    bucket: Bucket
    scratch: Path
    stack: str
    region: str
    group: str
    instance: str
    image: str
    topic: str = ""  # ARN of what hears of a run's end; a machine that booted before there was one knows none

    @property
    def active(self) -> str:
        """Key of the note which run this stack's machines shall work on."""
        return f"active/{self.stack}"

    def is_active(self, run_id: str) -> bool:
        named = insist(lambda: self.bucket.read(self.active), minutes=MINUTES_TO_TELL)
        return named is not None and named.decode().strip() == run_id

    def close(self, run_id: str) -> None:
        """Take the note away, if it names this run and not the next one already."""
        if self.is_active(run_id):
            bucket = self.bucket
            insist(lambda: bucket.client.delete_object(Bucket=bucket.name, Key=self.active), minutes=MINUTES_TO_TELL)

    def give_back(self) -> None:
        """Leave the group and be terminated; without the decrement the group would start another machine."""
        client = boto3.client("autoscaling", region_name=self.region, config=PATIENCE)

        def leave() -> None:
            client.terminate_instance_in_auto_scaling_group(
                InstanceId=self.instance, ShouldDecrementDesiredCapacity=True
            )

        insist(leave, minutes=MINUTES_TO_TELL)

    def publish(self, subject: str, text: str) -> None:
        """Tell the topic, once: a run's end waits for nobody's mail. The subject is ASCII, of up to 100 characters."""
        topic = boto3.client("sns", region_name=self.region, config=PATIENCE)
        topic.publish(TopicArn=self.topic, Subject=subject, Message=text)


def find_station(environment: Mapping[str, str], scratch: Path) -> Station:
    """The station that /etc/slowfast.env describes. Raises KeyError naming the variable that is absent."""
    stack, region, bucket, group, instance, image = (environment[name] for name in VARIABLES)
    topic = environment.get("TOPIC", "")
    return Station(open_bucket(bucket, region), scratch, stack, region, group, instance, image, topic)


def put_beside(path: Path, data: bytes) -> None:
    """Write a file whole, under another name first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{path.name}")
    with temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def as_json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


Say = Callable[[str], None]

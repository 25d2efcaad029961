"""Builds the image in AWS: hands the source to CodeBuild, shows its log, and waits for its end."""

import time
from collections.abc import Iterator
from typing import Any

from infra.costs import BUILD_MINUTE
from infra.ops import door
from infra.ops.command import say
from infra.ops.context import Context
from infra.ops.errors import UserError
from infra.outputs import Outputs

KEY = "images/context.zip"
LOOK_EVERY = 3.0  # seconds


def plan(outputs: Outputs, context: Context, name: str) -> str:
    return (
        f"aws s3 cp context.zip s3://{outputs.bucket}/{KEY} ({len(context.files)} files)\n"
        f"aws codebuild start-build --project-name {outputs.builder} for {name}, "
        f"${BUILD_MINUTE:.2f} a minute, about ten minutes the first time"
    )


def build(outputs: Outputs, context: Context) -> None:
    """Build and push the context's image. Raises UserError if that fails; a Ctrl-C ends the build in AWS, too."""
    s3, codebuild = door.client("s3", outputs.region), door.client("codebuild", outputs.region)
    version = s3.put_object(Bucket=outputs.bucket, Key=KEY, Body=context.zip())["VersionId"]
    told = context.arguments | {"TAG": context.tag, "LAST": outputs.image_digest}
    started = codebuild.start_build(
        projectName=outputs.builder,
        sourceVersion=version,
        environmentVariablesOverride=[{"name": name, "value": value} for name, value in told.items() if value],
    )["build"]["id"]
    say(f"AWS is building {context.tag}, for ${BUILD_MINUTE:.2f} a minute")
    try:
        ended = follow(outputs.region, started)
    except BaseException:
        codebuild.stop_build(id=started)
        raise
    if ended["buildStatus"] != "SUCCEEDED":
        raise UserError(f"the build {started} ended as {ended['buildStatus']}{reason(ended)}; its log is above")


def follow(region: str, build: str) -> dict[str, Any]:
    """Show the build's log until it has ended; return what CodeBuild tells of it then."""
    codebuild = door.client("codebuild", region)
    lines: Iterator[str] | None = None
    ended = False
    while True:
        known: dict[str, Any] = codebuild.batch_get_builds(ids=[build])["builds"][0]
        place = known.get("logs", {})
        if lines is None and place.get("streamName"):
            lines = log_lines(region, place["groupName"], place["streamName"])
        for line in lines or ():
            if not line:
                break
            say(line)
        if ended:
            return known
        ended = known["buildComplete"]  # its last lines may come a moment later, so there is one more look
        time.sleep(LOOK_EVERY)


def log_lines(region: str, group: str, stream: str) -> Iterator[str]:
    """The lines of a log, without end: "" each time that there are no more for now."""
    logs = door.client("logs", region)
    place: dict[str, Any] = {"logGroupName": group, "logStreamName": stream, "startFromHead": True}
    while True:
        try:
            answer = logs.get_log_events(**place)
        except logs.exceptions.ResourceNotFoundException:  # its first line is still to come
            yield ""
            continue
        for event in answer["events"]:
            if line := event["message"].rstrip("\n"):
                yield line
        if not answer["events"]:
            yield ""
        place["nextToken"] = answer["nextForwardToken"]


def reason(ended: dict[str, Any]) -> str:
    """Where it failed, as CodeBuild tells it."""
    for phase in ended.get("phases", []):
        if phase.get("phaseStatus") not in (None, "SUCCEEDED"):
            words = " ".join(context.get("message", "") for context in phase.get("contexts", []))
            return f" in {phase['phaseType']} ({' '.join(words.split())[:200]})"
    return ""

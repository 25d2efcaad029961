"""CodeBuild on this machine: builds that are started really run their project's script, with Docker.

    builds = CodeBuild(aws, buildspec, repository_url, folder, docker)
    builds.answer(seen)       # has the calls that come by (calls.py) answered from here

The source comes from the bucket in the version that is asked for; the log goes to CloudWatch's, line by line.
"""

import io
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from calls import Call, Calls
from cloud import Cloud

from infra.ops.builder import KEY
from infra.outputs import Outputs


@dataclass
class CodeBuild:
    aws: Cloud
    outputs: Outputs
    buildspec: str
    folder: Path
    environment: dict[str, str]  # of the machine that builds
    builds: dict[str, dict[str, Any]] = field(default_factory=dict)
    stopped: list[str] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)  # the variables that each build was given

    def answer(self, seen: Calls) -> None:
        seen.answers["codebuild:StartBuild"] = self.start
        seen.answers["codebuild:BatchGetBuilds"] = lambda call: {"builds": [self.builds[call.parameters["ids"][0]]]}
        seen.answers["codebuild:StopBuild"] = self.stop

    def start(self, call: Call) -> dict[str, Any]:
        assert call.parameters["projectName"] == self.outputs.builder
        name = f"{self.outputs.builder}:{len(self.builds)}"
        given = {item["name"]: item["value"] for item in call.parameters["environmentVariablesOverride"]}
        self.asked.append(given)
        self.builds[name] = {"id": name, "buildStatus": "IN_PROGRESS", "buildComplete": False, "phases": []}
        source = self.folder / f"source-{len(self.builds)}"
        job = (name, call.parameters["sourceVersion"], source, given)
        threading.Thread(target=self.try_to_run, args=job, daemon=True).start()
        return {"build": self.builds[name]}

    def stop(self, call: Call) -> dict[str, Any]:
        self.stopped.append(call.parameters["id"])
        return {"build": self.builds[call.parameters["id"]]}

    def try_to_run(self, name: str, version: str, source: Path, given: dict[str, str]) -> None:
        try:
            self.run(name, version, source, given)
        except Exception:
            self.builds[name] |= {"buildStatus": "FAULT", "buildComplete": True}
            raise

    def run(self, name: str, version: str, source: Path, given: dict[str, str]) -> None:
        s3, logs = self.aws.client("s3"), self.aws.client("logs")
        body = s3.get_object(Bucket=self.outputs.bucket, Key=KEY, VersionId=version)["Body"].read()
        zipfile.ZipFile(io.BytesIO(body)).extractall(source)
        place = {"logGroupName": self.outputs.log_group, "logStreamName": f"image/{name.rpartition(':')[2]}"}
        # As there: the stream is named at once, and comes to be with its first line.
        self.builds[name]["logs"] = {"groupName": place["logGroupName"], "streamName": place["logStreamName"]}
        time.sleep(0.5)
        logs.create_log_stream(**place)

        def say(line: str) -> None:
            now = int(time.time() * 1000)
            logs.put_log_events(**place, logEvents=[{"timestamp": now, "message": f"{line}\n"}])

        environment = self.environment | {"REPOSITORY": self.outputs.repository_url} | given
        failed = run_script(yaml.safe_load(self.buildspec), source, environment, say)
        status = "FAILED" if failed else "SUCCEEDED"
        self.builds[name] |= {"buildStatus": status, "buildComplete": True, "phases": failed}
        # Its last words come when it has ended.
        say(f"[Container] Phase complete: {status}")


def run_script(
    spec: dict[str, Any], folder: Path, environment: dict[str, str], say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Run a script's commands up to the first that fails; return the phase in which that was, as CodeBuild tells it."""
    for phase, told in spec["phases"].items():
        for command in told["commands"]:
            say(f"[Container] Running command {command}")
            process = subprocess.Popen(
                [spec["env"]["shell"], "-c", command], cwd=folder, env=environment, text=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            assert process.stdout
            for line in process.stdout:
                say(line.rstrip("\n") or " ")
            if code := process.wait():
                message = f"Error while executing command: {command}. Reason: exit status {code}"
                return [{"phaseType": phase.upper(), "phaseStatus": "FAILED", "contexts": [{"message": message}]}]
    return []


def machine(folder: Path, docker: str, endpoint: str) -> dict[str, str]:
    """The environment of a machine that builds: the AWS CLI, and the docker client that is named."""
    programs = folder / "programs"
    programs.mkdir(parents=True)
    (programs / "docker").symlink_to(docker)
    known = {name: value for name, value in os.environ.items() if name.startswith("DOCKER_HOST")}
    return known | {
        "PATH": f"{programs}:{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(folder),
        "DOCKER_CONFIG": str(folder / "docker"),
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }

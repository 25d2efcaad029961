"""Runs the program without Pulumi's CLI and without AWS, and lists what it declares: for the picture and the tests."""

import asyncio
import json
import os
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pulumi
import yaml
from pulumi.runtime import mocks, rpc
from pulumi.runtime.settings import configure
from pulumi.runtime.stack import run_in_stack

from infra.outputs import PROJECT

PROGRAM = Path(__file__).parent
PULUMI_YAML = PROGRAM.parent / "Pulumi.yaml"
ACCOUNT, REGION, IMAGE = "123456789012", "us-east-1", "ami-0123456789abcdef0"
ZONES = ["us-east-1a", "us-east-1b", "us-east-1c"]
# What AWS answers to the program's look-ups, in an account where nothing is yet.
ANSWERS: dict[str, dict[str, Any]] = {
    "aws:index/getRegion:getRegion": {"region": REGION},
    "aws:index/getCallerIdentity:getCallerIdentity": {"accountId": ACCOUNT},
    "aws:index/getPartition:getPartition": {"partition": "aws"},
    "aws:index/getAvailabilityZones:getAvailabilityZones": {"names": ZONES},
    "aws:ec2/getInstanceTypeOfferings:getInstanceTypeOfferings": {
        "instanceTypes": [name for name in ("g6.xlarge", "g5.xlarge", "g4dn.xlarge") for _ in ZONES],
        "locations": ZONES * 3,
    },
    "aws:ec2/getAmiIds:getAmiIds": {"ids": [IMAGE]},
    "aws:ec2/getAmi:getAmi": {"id": IMAGE, "rootDeviceName": "/dev/sda1"},
    "aws:resourcegroupstaggingapi/getResources:getResources": {"resourceTagMappingLists": []},
}


@dataclass(frozen=True)
class Declared:
    """One resource as the program hands it to Pulumi."""

    urn: str
    type: str  # aws:s3/bucket:Bucket
    name: str
    module: str  # the file of infra/ that declares it
    inputs: dict[str, Any]
    needs: frozenset[str]  # URNs
    kept: bool  # left in AWS by destroy
    imported: str
    ignored: tuple[str, ...]  # inputs whose changes outside are left alone


@dataclass(frozen=True)
class Recording:
    resources: list[Declared]
    outputs: dict[str, Any]
    calls: list[tuple[str, dict[str, Any]]]  # look-ups, with their arguments


def defaults() -> dict[str, Any]:
    """The settings' defaults as Pulumi.yaml has them."""
    declared = yaml.safe_load(PULUMI_YAML.read_text(encoding="utf-8"))["config"]
    return {name: entry["default"] for name, entry in declared.items()}


def record(
    settings: dict[str, Any] | None = None, stack: str = "dev", answers: dict[str, dict[str, Any]] | None = None
) -> Recording:
    """Run the program with `settings` over the defaults, in an account that gives `answers` over ANSWERS.

    Raises what the program raises: pulumi.RunError for a mistake of the user's.
    """
    values = {**defaults(), "machine_image": IMAGE, **(settings or {})}
    world = _World({**ANSWERS, **(answers or {})})
    monitor = _Monitor(world)

    def program() -> None:
        pulumi.runtime.register_stack_transformation(monitor.note_module)
        runpy.run_path(str(PROGRAM), run_name="__main__")

    with patch.dict(os.environ, PULUMI_CONFIG=json.dumps({f"{PROJECT}:{key}": _text(values[key]) for key in values})):
        # Not set_mocks: that makes a root resource of its own, in no event loop, besides run_in_stack's.
        configure(
            mocks.MockSettings(
                monitor=monitor,
                monitor_features=set(monitor.GetDeploymentInfo(None).supportedFeatures),
                engine=mocks.MockEngine(None),
                project=PROJECT,
                stack=stack,
                dry_run=False,
                organization="organization",
                callbacks=None,
            )
        )
        asyncio.run(run_in_stack(program))
    return Recording(monitor.declared, monitor.outputs, world.calls)


def _text(value: Any) -> str:
    """A setting as the CLI hands it over."""
    return value if isinstance(value, str) else json.dumps(value)


class _World(mocks.Mocks):
    """An AWS that answers look-ups from a table and makes everything at once."""

    def __init__(self, answers: dict[str, dict[str, Any]]) -> None:
        self.answers = answers
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def call(self, args: mocks.MockCallArgs) -> Any:
        self.calls.append((args.token, args.args))
        return self.answers[args.token]

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        kind = args.typ.rpartition(":")[2]
        name = args.inputs.get("name") or args.inputs.get("bucket") or args.name
        made = {"name": name, "bucket": name, "arn": f"arn:aws:mock:{REGION}:{ACCOUNT}:{kind}/{name}"}
        if kind == "Topic":  # as AWS composes it, so that a rehearsal's machines speak to the one that there is
            made["arn"] = f"arn:aws:sns:{REGION}:{ACCOUNT}:{name}"
        made |= {"repositoryUrl": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{name}", "prefixListId": "pl-s3"}
        return f"{kind}-{args.name}", {**made, **args.inputs}


class _Monitor(mocks.MockMonitor):
    """The mock monitor, with what its mocks are not told: dependencies and options."""

    def __init__(self, world: _World) -> None:
        super().__init__(world)
        self.declared: list[Declared] = []
        self.outputs: dict[str, Any] = {}
        self.modules: dict[tuple[str, str], str] = {}

    def note_module(self, args: pulumi.ResourceTransformationArgs) -> None:
        """A transformation that changes nothing: it runs while the declaring function is on the stack."""
        frame = sys._getframe()
        while Path(frame.f_code.co_filename).parent != PROGRAM or frame.f_code.co_filename == __file__:
            assert frame.f_back, "a resource that no file of infra/ declares"
            frame = frame.f_back
        self.modules[args.type_, args.name] = Path(frame.f_code.co_filename).stem

    def RegisterResource(self, request: Any) -> Any:
        response = super().RegisterResource(request)
        if request.custom:
            needs = {*request.dependencies, *(u for p in request.propertyDependencies.values() for u in p.urns)}
            self.declared.append(
                Declared(
                    urn=response.urn,
                    type=request.type,
                    name=request.name,
                    module=self.modules[request.type, request.name],
                    inputs=rpc.deserialize_properties(request.object),
                    needs=frozenset(needs),
                    kept=request.retainOnDelete,
                    imported=request.importId,
                    ignored=tuple(request.ignoreChanges),
                )
            )
        return response

    def RegisterResourceOutputs(self, request: Any) -> Any:
        if "pulumi:pulumi:Stack" in request.urn:
            self.outputs = rpc.deserialize_properties(request.outputs)
        return super().RegisterResourceOutputs(request)

"""What the stack tells the operator's commands: the names of its outputs, written here once.

The program exports every field of `Outputs` and publishes them as one JSON object in the SSM parameter that
`parameter_name` gives; the commands read that parameter, so they need neither Pulumi nor its state. This module
imports neither pulumi nor boto3.
"""

import json
from dataclasses import dataclass, fields

PROJECT = "slowfast-emotion"


@dataclass(frozen=True)
class Outputs:
    """The stack as the commands see it; the fields' names are the outputs' names."""

    stack: str
    region: str
    bucket: str
    repository_url: str
    builder: str  # the CodeBuild project of `make image WHERE=aws`
    image_digest: str  # sha256:..., or "" until `make image` has pushed one
    asg: str
    launch_template: str
    log_group: str
    topic: str  # ARN
    role: str  # ARN of the machines' role
    operator_policy: str  # ARN
    document_run: str
    document_stop: str
    document_status: str
    document_clean: str
    document_attach: str
    instance_types: tuple[str, ...]  # in order of preference
    market: str  # spot, on-demand or spot-then-on-demand
    nodes: int
    cap_dollars: int
    deadline_hours: int
    idle_minutes: int
    volume_gb: int
    private_subnets: bool
    keep_data: bool


NAMES = tuple(field.name for field in fields(Outputs))


def tags(stack: str) -> dict[str, str]:
    """The label that everything of a stack bears, machines and volumes included."""
    return {"project": PROJECT, "stack": stack}


def parameter_name(stack: str) -> str:
    """Name of the SSM parameter that holds a stack's outputs."""
    return f"/{PROJECT}/{stack}/outputs"


def to_make(stack: str, words: str) -> str:
    """`make up` or another command for a stack, as sentences name it."""
    return f"make {words}" + ("" if stack == "dev" else f" STACK={stack}")


def to_set(stack: str, change: str) -> str:
    """The command that changes a setting of a stack, such as `nodes=2`."""
    return to_make(stack, f"set SET={change}")


def read_outputs(text: str) -> Outputs:
    """The outputs from the parameter's JSON text; raises ValueError when names are missing or unknown."""
    values = json.loads(text)
    if set(values) != set(NAMES):
        wrong = ", ".join(sorted(set(values) ^ set(NAMES)))
        raise ValueError(f"the stack's published outputs are of another version of this project: {wrong}")
    return Outputs(**{**values, "instance_types": tuple(values["instance_types"])})

"""The stack's settings, as Pulumi.yaml declares them, read into one frozen model that refuses what cannot be.

Defaults stand in Pulumi.yaml alone; the Pulumi CLI hands over every value as text. The program reads them through
infra/config.py, and `make set` checks here what it writes, so this module imports no pulumi.
"""

import difflib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from infra.outputs import to_set


def _matching(pattern: str, what: str) -> AfterValidator:
    """Accept text of a form, `what` being the form in words."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"must be {what}")
        return text

    return AfterValidator(check)


def _parts(text: object) -> object:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if isinstance(text, str) else text


InstanceType = Annotated[str, _matching(r"[a-z][a-z0-9-]*\.[a-z0-9-]+", "instance types such as g6.xlarge")]
Operator = Annotated[
    str,
    _matching(r"arn:[a-z-]+:iam::\d{12}:(user|role)/\S+", "ARNs of IAM users or roles, arn:aws:iam::ACCOUNT:role/NAME"),
]


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    instance_types: Annotated[tuple[InstanceType, ...], BeforeValidator(_parts), Field(min_length=1)]
    market: Literal["spot", "on-demand", "spot-then-on-demand"]
    nodes: Annotated[int, Field(ge=1, le=16)]
    cluster_placement: bool
    volume_gb: Annotated[int, Field(ge=100, le=16384)]
    machine_image: Annotated[str, _matching(r"(ami-[0-9a-f]{8,17})?", "an AMI id such as ami-0123456789abcdef0")]
    image_digest: Annotated[str, _matching(r"(sha256:[0-9a-f]{64})?", "empty or sha256: and 64 hexadecimal digits")]
    cap_dollars: Annotated[int, Field(ge=1)]
    deadline_hours: Annotated[int, Field(ge=1, le=168)]
    idle_minutes: Annotated[int, Field(ge=10, le=240)]
    budget_dollars: Annotated[int, Field(ge=0)]
    email: Annotated[str, _matching(r"(\S+@\S+\.\S+)?", "empty or an e-mail address")]
    bucket_name: Annotated[str, _matching(r"([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])?", "empty or the name of a bucket")]
    keep_data: bool
    private_subnets: bool
    operators: Annotated[tuple[Operator, ...], BeforeValidator(_parts)]


def check_settings(values: Mapping[str, Any], stack: str) -> Settings:
    """The settings, whole and consistent. Raises ValueError: the first thing wrong and its cure, as one sentence."""
    try:
        settings = Settings.model_validate(dict(values))
    except ValidationError as error:
        raise ValueError(_explain(error, stack)) from None
    if settings.cluster_placement and settings.nodes == 1:
        raise ValueError(
            "cluster_placement is true, but nodes is 1 and there is nothing to put it close to; "
            f"`{to_set(stack, 'cluster_placement=false')}`, or nodes of 2 or more"
        )
    return settings


def _explain(error: ValidationError, stack: str) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, Settings.model_fields, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the settings are {', '.join(Settings.model_fields)}"
        return f"there is no setting {name}; {hint}"
    if first["type"] == "missing":
        return f"{name} is not set and Pulumi.yaml has no default for it; `{to_set(stack, f'{name}=VALUE')}`"
    message = first["msg"].removeprefix("Value error, ")
    wrong = f"{name} is {first['input']!r}, but {message[0].lower()}{message[1:]}"
    return f"{wrong}; `{to_set(stack, f'{name}=VALUE')}` changes it"

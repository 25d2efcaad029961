"""The Docker engine of this machine: builds the image, tells what it weighs, and pushes it, a bar for each layer."""

import io
import os
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from infra.ops.context import DOCKERFILE, Context
from infra.ops.errors import UserError

PATIENCE = 3600  # seconds without a word from the engine
# What the person's own machine needs to reach a package index is what the build needs, too.
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
NETWORK = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", *PROXIES)
LAYERS_SHOWN = 10
LINES_OF_A_FAILURE = 15


def connect() -> Any:
    """A client of the engine that answers. Raises UserError if none does."""
    from docker.context import ContextAPI

    import docker

    try:
        # The SDK itself knows DOCKER_HOST only; Docker Desktop and others say in a context where they listen.
        chosen = None if os.environ.get("DOCKER_HOST") else ContextAPI.get_current_context()
        if chosen and chosen.Host:
            client = docker.DockerClient(base_url=chosen.Host, timeout=PATIENCE)
        else:
            client = docker.from_env(timeout=PATIENCE)
        client.ping()
    except (docker.errors.DockerException, OSError) as error:
        raise UserError(
            f"Docker does not answer ({one_line(error)}); start it, or let AWS build: `make image WHERE=aws`"
        ) from None
    return client


def build(client: Any, context: Context, name: str, console: Console) -> None:
    """Build the context as `name`, repository:tag. Raises UserError, after the last lines of what failed."""
    arguments = context.arguments | reach(dict(os.environ))
    said = client.api.build(
        fileobj=io.BytesIO(context.tar()),
        custom_context=True,
        dockerfile=DOCKERFILE,
        tag=name,
        buildargs=arguments,
        platform="linux/amd64",
        network_mode="host",  # as a run has it; so an index, a VPN or a proxy of this machine is the build's as well
        rm=True,
        forcerm=True,
        decode=True,
    )
    lines: list[str] = []
    bars = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*bars, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("building", total=None)
        for event in said:
            if "error" in event:
                console.print("\n".join(lines[-LINES_OF_A_FAILURE:]), markup=False)
                raise UserError(f"the image cannot be built, its last lines are above: {one_line(event['error'])}")
            for line in event.get("stream", "").splitlines():
                show(line, progress, task)
                lines += [line] if line.strip() else []


def reach(environment: dict[str, str]) -> dict[str, str]:
    """Those variables by which this machine reaches a package index. Raises UserError for one that holds a password."""
    found = {name: environment[name] for name in NETWORK if environment.get(name)}
    for name in (name for name in found if name.startswith("PIP_")):
        if any(urlsplit(url).password for url in found[name].split()):
            raise UserError(f"{name} holds a password, which the image would keep for ever; unset {name} and try again")
    return found


def show(line: str, progress: Progress, task: TaskID) -> None:
    """A step of the build: onto the bar on a terminal, else as a line."""
    if step := re.match(r"Step (\d+)/(\d+) : (.*)", line):
        done, total, words = int(step[1]), int(step[2]), " ".join(step[3].split())
        progress.update(task, completed=done - 1, total=total, description=escape(f"{words[:70]:<70}"))
        if not progress.console.is_terminal:
            progress.console.print(f"{done}/{total} {escape(words[:110])}")


def weigh(client: Any, name: str) -> tuple[int, list[dict[str, Any]]]:
    """Bytes of the image, and its ten largest layers: {"bytes", "made_by"}."""
    layers = [
        {"bytes": layer["Size"], "made_by": instruction(layer["CreatedBy"])}
        for layer in client.api.history(name)
        if layer["Size"]
    ]
    largest = sorted(layers, key=lambda layer: -layer["bytes"])[:LAYERS_SHOWN]
    return client.api.inspect_image(name)["Size"], largest


def instruction(created_by: str) -> str:
    """What made a layer, without the shell and the arguments that the engine puts before it."""
    words = re.sub(r"^(RUN )?(\|\d+ .*?)?/bin/sh -c (#\(nop\) )?| # buildkit$", "", created_by)
    return " ".join(words.split()) or "the base"


def push(client: Any, repository: str, tag: str, login: dict[str, str], console: Console) -> int:
    """Push repository:tag; return how many bytes of layers were new to the registry. Raises UserError."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    bars: dict[str, TaskID] = {}
    sizes: dict[str, int] = {}
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        for event in pushing(client, repository, tag, login):
            layer, status, detail = event.get("id", ""), event.get("status", ""), event.get("progressDetail") or {}
            if status == "Pushing" and detail.get("total"):
                sizes[layer] = detail["total"]
                bars.setdefault(layer, progress.add_task(layer, total=detail["total"]))
                progress.update(bars[layer], completed=detail["current"])
            elif status == "Pushed" and layer in bars:
                progress.update(bars[layer], completed=sizes[layer])
    return sum(sizes.values())


def pushing(client: Any, repository: str, tag: str, login: dict[str, str]) -> Iterator[dict[str, Any]]:
    for event in client.api.push(repository, tag=tag, auth_config=login, stream=True, decode=True):
        if "error" in event:
            reason = one_line(event["error"])
            raise UserError(f"the registry does not take the image ({reason}); `make image` tries again")
        yield event


def one_line(said: object) -> str:
    return " ".join(str(said).split())[:200]

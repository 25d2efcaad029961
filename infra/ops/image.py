"""make image: build the image, push it to the stack's registry, and have the next run work in it.

Here with Docker, or with WHERE=aws in AWS. A commit that the registry has is not built again. It asks once, at the
beginning, and then goes through to the end.
"""

import argparse
import base64
import sys
from typing import Any

from rich.console import Console

from infra.ops import builder, door, engine, record
from infra.ops.command import agrees, outputs_of, parser, print_json, run, said, say
from infra.ops.context import Context, read_context
from infra.ops.errors import UserError
from infra.ops.stack import Settings, cli, project_folder, pulumi, read_settings, require_one_region
from infra.ops.up import require_state
from infra.outputs import Outputs, to_make

EXAMPLES = """
make image
make image WHERE=aws YES=1
make image DRY=1
python -m infra.ops.image --base registry.example.org/python:3.11 --yes --json
"""
PLACES = ("here", "aws")


def main(arguments: list[str] | None = None) -> int:
    made = parser("image", __doc__, EXAMPLES)
    made.add_argument(
        "--where",
        choices=PLACES,
        default=said("WHERE") or "here",
        help="build with this machine's Docker, or in AWS (WHERE=; default: here)",
    )
    made.add_argument("--base", default=said("BASE") or "", help="an image with Python 3.11 to build upon (BASE=)")
    made.add_argument("--yes", action="store_true", help="do not ask (YES=1)")
    made.add_argument("--dry-run", action="store_true", help="look, and only say what would be done (DRY=1)")
    made.add_argument("--json", action="store_true", help="print the image as JSON")
    given = made.parse_args(arguments)
    return run(lambda: image(given))


def image(given: argparse.Namespace) -> None:
    # A default, which the environment gives, is not held to `choices`.
    if given.where not in PLACES:
        raise UserError(f"WHERE is {given.where!r}, not {' or '.join(PLACES)}; `make image WHERE=aws`")
    cli()
    if not (given.yes or given.dry_run or sys.stdin.isatty()):
        raise UserError("there is no terminal to ask on; say `make image YES=1`, or DRY=1 to see what would be done")
    outputs = outputs_of(given.stack)
    settings = read_settings(given.stack)
    require_one_region(settings)
    require_state(settings)  # without it the stack could not be told of what was built
    context = read_context(project_folder(), given.base)
    there = digest_of(outputs, context.tag)
    if given.dry_run:
        return show_plan(outputs, context, given.where, there)
    if not (given.yes or (there and there == outputs.image_digest) or agreed(outputs, context, there)):
        return say("nothing is built")
    made: dict[str, Any] = {}
    if there:
        say(f"the registry has {context.tag} already; nothing to build")
    elif given.where == "aws":
        builder.build(outputs, context)
    else:
        made = build_here(outputs, context)
    digest = there or digest_of(outputs, context.tag)
    if digest is None:
        raise UserError(f"the registry has no image {context.tag} although it was pushed; `make image` tries again")
    use(settings, outputs, digest)
    told = {"repository": outputs.repository_url, "tag": context.tag, "digest": digest, "built": not there, **made}
    if given.json:
        print_json(told)
    else:
        print(f"{outputs.repository_url}@{digest}")


def agreed(outputs: Outputs, context: Context, there: str | None) -> bool:
    """Ask, before the minutes that a build takes: nobody need sit by until the stack is brought up to date."""
    what = "have" if there else f"build and push {outputs.repository_url}:{context.tag}, and have"
    say(
        f"{what} the stack use {context.tag}: a `make up` without a question, with whatever else was set since the last"
    )
    return agrees("go on?")


def digest_of(outputs: Outputs, tag: str) -> str | None:
    """The digest of a tag in the stack's registry, or None. Raises UserError if the registry is gone."""
    ecr = door.client("ecr", outputs.region)
    try:
        found = ecr.describe_images(repositoryName=repository(outputs), imageIds=[{"imageTag": tag}])
    except ecr.exceptions.ImageNotFoundException:
        return None
    except ecr.exceptions.RepositoryNotFoundException:
        raise UserError(f"the registry {outputs.repository_url} is gone; `make up` makes it again") from None
    return str(found["imageDetails"][0]["imageDigest"])


def repository(outputs: Outputs) -> str:
    return outputs.repository_url.partition("/")[2]


def build_here(outputs: Outputs, context: Context) -> dict[str, Any]:
    """Build and push with this machine's Docker; return what the image weighs."""
    docker, console = engine.connect(), Console(stderr=True, highlight=False)
    name = f"{outputs.repository_url}:{context.tag}"
    say(f"building {name}")
    engine.build(docker, context, name, console)
    size, layers = engine.weigh(docker, name)
    say(f"the image has {size / 1e9:.2f} GB; its largest layers:")
    for layer in layers:
        say(f"{layer['bytes'] / 1e6:10.1f} MB  {layer['made_by'][:100]}")
    try:
        new = engine.push(docker, outputs.repository_url, context.tag, login(outputs), console)
    except UserError:
        # A tag is never given twice: somebody else may have pushed the same commit meanwhile.
        if digest_of(outputs, context.tag) is None:
            raise
        new = 0
    say(f"pushed; {new / 1e6:.1f} MB of layers were new to the registry")
    return {"bytes": size, "bytes_pushed": new, "largest_layers": layers}


def login(outputs: Outputs) -> dict[str, str]:
    """User and password of the registry for the next twelve hours; they are written nowhere."""
    token = door.client("ecr", outputs.region).get_authorization_token()["authorizationData"][0]["authorizationToken"]
    user, _, password = base64.b64decode(token).decode().partition(":")
    return {"username": user, "password": password}


def use(settings: Settings, outputs: Outputs, digest: str) -> None:
    """Have the stack's next run work in the image; one that is active keeps its own, on every machine."""
    if outputs.image_digest == digest:
        return say("the stack uses it already")
    pulumi(settings, "config", "set", "image_digest", digest)
    pulumi(settings, "up", "--yes", "--skip-preview")
    if run_id := record.active_run(outputs):
        say(f"run {run_id} goes on in the image that it was begun in")
    then = to_make(outputs.stack, "data SRC=DIR"), to_make(outputs.stack, "train")
    say(f"the next run works in it; next: {then[0]}, or {then[1]}")


def show_plan(outputs: Outputs, context: Context, where: str, there: str | None) -> None:
    name = f"{outputs.repository_url}:{context.tag}"
    if there is None and where == "aws":
        print(builder.plan(outputs, context, name))
    elif there is None:
        print(f"docker build {name} ({len(context.files)} files)\ndocker push {name}")
    if there is None or there != outputs.image_digest:
        print(f"pulumi config set image_digest {there or 'sha256:...'} --stack {outputs.stack}")
        print(f"pulumi up --stack {outputs.stack}")
    else:
        say(f"the stack uses {context.tag} already; nothing to do")


if __name__ == "__main__":
    sys.exit(main())

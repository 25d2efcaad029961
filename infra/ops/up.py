"""make up: make the stack in your AWS account, or bring it up to date. No machine starts; it costs next to nothing."""

import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial

from infra.ops import checks
from infra.ops.checks import Check, guarded
from infra.ops.command import parser, print_json, run, say
from infra.ops.door import stack_outputs
from infra.ops.errors import UserError
from infra.ops.stack import Settings, cli, create_if_missing, pulumi, read_settings

EXAMPLES = """
make up
make up YES=1 STACK=team
python -m infra.ops.up --dry-run
"""


def main(arguments: list[str] | None = None) -> int:
    options = parser("up", __doc__, EXAMPLES)
    options.add_argument("--yes", action="store_true", help="do not ask (make up YES=1)")
    options.add_argument("--dry-run", action="store_true", help="check, and only print what would be run (DRY=1)")
    options.add_argument("--json", action="store_true", help="print the stack's outputs as JSON")
    given = options.parse_args(arguments)
    return run(lambda: up(given.stack, given.yes, given.dry_run, given.json))


def up(stack: str, yes: bool, dry_run: bool, as_json: bool) -> None:
    settings = read_settings(stack)
    if not (yes or dry_run or sys.stdin.isatty()):
        raise UserError("there is no terminal to ask on; say `make up YES=1`, or `make preview` to look first")
    require(settings)
    if dry_run:
        return show_plan(settings)
    create_if_missing(settings)
    settings = pinned(settings)
    # On a terminal Pulumi itself shows the plan and asks.
    pulumi(settings, "up", *(("--yes", "--skip-preview") if yes else ()))
    assert settings.region
    outputs = stack_outputs(stack, settings.region)
    if as_json:
        print_json(asdict(outputs))
    else:
        print(f"bucket      {outputs.bucket}\nregistry    {outputs.repository_url}\nmachines    0 to {outputs.nodes}")
    todo = "" if outputs.image_digest else "; next: make image, make data SRC=DIR"
    say(f"the stack is up; no machine starts before `make train`{todo}")


def require(settings: Settings) -> None:
    """Raise UserError, after saying each cure, unless all is there without which `up` must fail or be of no use."""
    cli()
    crosses = [check for check in needed(settings) if not check.ok]
    for check in crosses:
        say(f"✗ {check.name}: {check.detail}" + (f"\n  {check.cure}" if check.cure else ""))
    if crosses:
        names = ", ".join(check.name for check in crosses)
        raise UserError(f"not ready: {names}; the cure is above, and `make doctor` looks at everything")


def needed(settings: Settings) -> Iterator[Check]:
    way_in = list(checks.way_in(settings))
    yield from way_in
    if not all(check.ok for check in way_in):
        return
    yield guarded("instance types", partial(checks.offerings, settings))
    quotas = list(checks.quotas(settings))
    # One market with room is enough to train in.
    if not any(check.ok for check in quotas):
        yield from quotas


def pinned(settings: Settings) -> Settings:
    """The settings with the machine image pinned: today's newest, written once: no later `up` changes it."""
    if settings.machine_image:
        return settings
    newest = find_image(settings)
    pulumi(settings, "config", "set", "machine_image", newest)
    say(f"pinned machine_image to {newest}, the newest Deep Learning Base GPU image of {settings.region}")
    return replace(settings, machine_image=newest)


def find_image(settings: Settings) -> str:
    assert settings.region
    newest = checks.newest_machine_image(settings.region)
    if newest is None:
        raise UserError(
            f"AWS publishes no Deep Learning Base GPU image in {settings.region}; "
            "`pulumi config set machine_image ami-...` with one that has the NVIDIA driver, Docker and the AWS CLI"
        )
    return newest


def show_plan(settings: Settings) -> None:
    print(f"pulumi stack select --create {settings.stack}")
    if not settings.machine_image:
        print(f"pulumi config set machine_image {find_image(settings)} --stack {settings.stack}")
    print(f"pulumi up --stack {settings.stack}")


if __name__ == "__main__":
    sys.exit(main())

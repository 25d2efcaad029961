"""make up: make the stack in your AWS account, or bring it up to date. No machine starts; it costs cents a month."""

import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial

from infra.costs import DATA_GB, REGION_AND_DATE, idle_month_of
from infra.ops import checks
from infra.ops.checks import Check, guarded
from infra.ops.command import parser, print_json, run, say
from infra.ops.door import published, stack_outputs
from infra.ops.errors import UserError
from infra.ops.stack import (
    Settings,
    cli,
    create_if_missing,
    declared_values,
    own_values,
    pulumi,
    read_settings,
    recorded,
    require_one_region,
)
from infra.outputs import to_make, to_set

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
    say(account_and_cost(settings))
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
    hears = guarded("warnings", partial(checks.warnings, outputs), needed=False)
    if not hears.ok:
        say(f"{hears.detail}: {hears.cure}")
    ready = outputs.image_digest and checks.image_is_there(outputs)
    todo = "" if ready else f"; next: {to_make(stack, 'image')}, {to_make(stack, 'data SRC=DIR')}"
    say(f"the stack is up; no machine starts before `{to_make(stack, 'train')}`{todo}")


def account_and_cost(settings: Settings) -> str:
    """Whose account it is, and what the stack costs there on which nobody trains."""
    values = declared_values() | own_values(settings.stack)
    dollars = idle_month_of(values["private_subnets"] == "true", settings.nodes)
    return (
        f"{checks.credentials(settings).detail}, in {settings.region}: without a machine about ${dollars:.2f} a month, "
        f"with {DATA_GB} GB of data and an image ({REGION_AND_DATE})"
    )


def require(settings: Settings) -> None:
    """Raise UserError, after saying each cure, unless all is there without which `up` must fail or do harm."""
    cli()
    require_one_region(settings)
    crosses = [check for check in needed(settings) if not check.ok]
    for check in crosses:
        show_cross(check)
    if crosses:
        names = ", ".join(check.name for check in crosses)
        raise UserError(f"not ready: {names}; the cure is above, and `make doctor` looks at everything")
    quotas = list(checks.quotas(settings))
    # One market with room is enough to train in; and a stack without any is made while AWS thinks about the request.
    if not any(check.ok for check in quotas):
        for check in quotas:
            show_cross(check)
        say("no machine can start before AWS has granted that: ask now, it takes hours to days; the rest can be made")
    require_state(settings)


def show_cross(check: Check) -> None:
    say(f"✗ {check.name}: {check.detail}" + (f"\n  {check.cure}" if check.cure else ""))


def needed(settings: Settings) -> Iterator[Check]:
    way_in = list(checks.way_in(settings))
    yield from way_in
    if all(check.ok for check in way_in):
        yield guarded("instance types", partial(checks.offerings, settings))


def require_state(settings: Settings) -> None:
    """Raise UserError if the stack is not this machine's to change: half of it would be made a second time."""
    assert settings.region
    known = recorded(settings)
    where = known.get("region", settings.region)
    if where != settings.region:
        raise UserError(
            f"Pulumi's state has the stack {settings.stack} in {where}, not in {settings.region}; "
            f"`{to_set(settings.stack, f'aws:region={where}')}`"
        )
    if not known and published(settings.stack, settings.region) is not None:
        raise UserError(
            f"the stack {settings.stack} is up in {settings.region}, but Pulumi's state here does not know it; whoever "
            "made it changes it, or hands you the state (infra/README.md, Where the state is); train, logs, download "
            "and the like need none"
        )


def pinned(settings: Settings) -> Settings:
    """The settings with region and machine image pinned: today's newest, written once: no later `up` changes them."""
    assert settings.region
    if "aws:region" not in own_values(settings.stack):
        pulumi(settings, "config", "set", "aws:region", settings.region)
        say(f"pinned aws:region to {settings.region}, where the stack stays whatever another shell says")
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
            f"`{to_set(settings.stack, 'machine_image=ami-...')}` with one that has the NVIDIA driver, Docker and the "
            "AWS CLI"
        )
    return newest


def show_plan(settings: Settings) -> None:
    print(f"pulumi stack select --create {settings.stack}")
    if "aws:region" not in own_values(settings.stack):
        print(f"pulumi config set aws:region {settings.region} --stack {settings.stack}")
    if not settings.machine_image:
        print(f"pulumi config set machine_image {find_image(settings)} --stack {settings.stack}")
    print(f"pulumi up --stack {settings.stack}")


if __name__ == "__main__":
    sys.exit(main())

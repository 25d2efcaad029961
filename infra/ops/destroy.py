"""make destroy: take the stack away. Says what stays, which is the bucket with data and runs, and its price."""

import sys
from contextlib import suppress
from typing import Any

from infra.ops import storage
from infra.ops.command import parser, print_json, run, say
from infra.ops.door import stack_outputs
from infra.ops.errors import UserError
from infra.ops.fleet import find_machines
from infra.ops.record import active_run
from infra.ops.stack import cli, own_values, pulumi, read_settings, require_one_region
from infra.ops.up import require_state
from infra.outputs import Outputs

EXAMPLES = """
make destroy
make destroy YES=1 STACK=team
python -m infra.ops.destroy --dry-run --json
"""


def main(arguments: list[str] | None = None) -> int:
    options = parser("destroy", __doc__, EXAMPLES)
    options.add_argument("--yes", action="store_true", help="do not ask (make destroy YES=1)")
    options.add_argument(
        "--force", action="store_true", help="even while machines run; what they have not saved is lost"
    )
    options.add_argument("--dry-run", action="store_true", help="only say what would go and what stays (DRY=1)")
    options.add_argument("--json", action="store_true", help="print what stays as JSON")
    given = options.parse_args(arguments)
    return run(lambda: destroy(given.stack, given.yes, given.force, given.dry_run, given.json))


def destroy(stack: str, yes: bool, force: bool, dry_run: bool, as_json: bool) -> None:
    settings = read_settings(stack)
    cli()
    require_one_region(settings)
    if settings.region is None:
        raise UserError("no AWS region is set; `make set SET=aws:region=REGION` or AWS_REGION chooses one")
    if not (yes or dry_run or sys.stdin.isatty()):
        raise UserError("there is no terminal to ask on; say `make destroy YES=1`, or DRY=1 to see what would stay")
    require_state(settings)
    outputs = known_outputs(stack, settings.region)
    if not (force or dry_run):
        refuse_at_work(settings.region, stack, outputs)
    stays = what_stays(outputs) if outputs else {}
    if outputs:
        say(farewell(outputs, stays))
    if not dry_run:
        pulumi(settings, "destroy", *(("--yes", "--skip-preview") if yes else ()))
        if "image_digest" in own_values(stack):  # the registry went, and the image with it
            pulumi(settings, "config", "rm", "image_digest")
    if as_json:
        print_json(stays)
    elif outputs and not dry_run:
        say(f"the stack {stack} is gone" + (f"; `make up` takes {outputs.bucket} up again" if stays else ""))


def refuse_at_work(region: str, stack: str, outputs: Outputs | None) -> None:
    """Raise UserError while machines of the stack run, or one is asked for."""
    machines = [machine.id for machine in find_machines(region, stack)]
    active = None
    with suppress(UserError):  # a bucket that is gone names no run
        active = active_run(outputs) if outputs else None
    if machines:
        what = f"run {active} is on {', '.join(machines)}" if active else f"machines run: {', '.join(machines)}"
        raise UserError(f"{what}; `make stop` saves and ends what is there")
    if active:
        raise UserError(f"run {active} waits for its machine; `make stop` takes it back")


def known_outputs(stack: str, region: str) -> Outputs | None:
    """What the stack published, or None: half a stack, which published nothing, can be destroyed too."""
    try:
        return stack_outputs(stack, region)
    except UserError as error:
        say(f"{error}; destroying what Pulumi knows of it")
        return None


def what_stays(outputs: Outputs) -> dict[str, Any]:
    """The bucket and its price a month in dollars; nothing if the stack was made to take its data with it."""
    if not outputs.keep_data:
        return {}
    stored, whole = storage.measure(outputs.bucket, outputs.region)
    return {
        "bucket": outputs.bucket,
        "bytes": sum(stored.values()),
        "all_counted": whole,
        "dollars_a_month": round(storage.monthly_dollars(stored), 2),
        "in_words": storage.describe(stored, whole),
    }


def farewell(outputs: Outputs, stays: dict[str, Any]) -> str:
    if not stays:
        return f"{outputs.bucket} and everything in it is DELETED: keep_data is false"
    return f"{outputs.bucket} stays: {stays['in_words']}; all else goes and costs nothing more"


if __name__ == "__main__":
    sys.exit(main())

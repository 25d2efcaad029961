"""make doctor: is all there that the verbs need? A tick or a cure for each, and the next command.

Exit 0 if nothing that is needed is missing, else 1.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial

from rich.console import Console
from rich.markup import escape

from infra.ops import checks
from infra.ops.checks import Check, guarded
from infra.ops.command import parser, print_json, run, say
from infra.ops.door import stack_outputs
from infra.ops.errors import EXIT_MISSING, UserError
from infra.ops.stack import Settings, read_settings
from infra.outputs import Outputs, to_make

EXAMPLES = """
make doctor
STACK=team python -m infra.ops.doctor --json
"""


def main(arguments: list[str] | None = None) -> int:
    options = parser("doctor", __doc__, EXAMPLES)
    options.add_argument("--json", action="store_true", help="print the checks as a JSON list")
    given = options.parse_args(arguments)
    return run(lambda: doctor(given.stack, given.json))


def doctor(stack: str, as_json: bool) -> int:
    settings = read_settings(stack)
    console = Console(highlight=False, soft_wrap=True)
    found = []
    for check in examine(settings):
        found.append(check)
        if not as_json:
            show(console, check)
    missing = [check for check in found if check.needed and not check.ok]
    if as_json:
        print_json([asdict(check) for check in found])
    else:
        say(f"\nnext: {command_of(missing[0]) if missing else to_make(stack, 'train')}")
    return EXIT_MISSING if missing else 0


def command_of(check: Check) -> str:
    """What to type for a check that failed: the command within its cure, where there is one."""
    quoted = re.search("`(.+?)`", check.cure)
    return quoted[1] if quoted else check.cure


def examine(settings: Settings) -> Iterator[Check]:
    """Every check, in the order in which one would mend them. What cannot be looked at yet says why."""
    yield from checks.tools()
    yield from account(settings)


def account(settings: Settings) -> Iterator[Check]:
    """The checks of the account, region and stack; the first cross on the way in is the last check."""
    way_in = list(checks.way_in(settings))
    yield from way_in
    if not all(check.ok for check in way_in):
        return
    yield from capacity(settings)
    yield guarded("machine image", partial(checks.machine_image, settings))
    assert settings.region
    try:
        outputs = stack_outputs(settings.stack, settings.region)
    except UserError as error:
        said, _, cure = str(error).rpartition("; ")
        yield Check("stack", False, said, cure)
        return
    yield Check("stack", True, f"{outputs.stack} in {outputs.region}")
    yield from made(outputs)


def capacity(settings: Settings) -> Iterator[Check]:
    yield guarded("instance types", partial(checks.offerings, settings))
    yield from checks.quotas(settings)
    if settings.market != "on-demand":
        yield guarded("role for spot", partial(checks.spot_role, settings), needed=False)


def made(outputs: Outputs) -> Iterator[Check]:
    """What the stack should hold."""
    yield guarded("bucket", partial(checks.bucket, outputs))
    yield guarded("image", partial(checks.image, outputs))
    yield guarded("data", partial(checks.data, outputs))
    yield guarded("warnings", partial(checks.warnings, outputs), needed=False)


def show(console: Console, check: Check) -> None:
    mark = "[green]✓[/]" if check.ok else "[red]✗[/]" if check.needed else "[yellow]-[/]"
    console.print(f"{mark} {check.name:<22} {escape(check.detail)}")
    if check.cure:
        console.print(f"  {'':<22} [yellow]{escape(check.cure)}[/]")


if __name__ == "__main__":
    sys.exit(main())

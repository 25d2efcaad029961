"""make set: show the stack's settings, or change them. What is changed takes effect with the next `make up`."""

import re
import sys

from infra.ops import door
from infra.ops.command import parser, run, said, say
from infra.ops.errors import UserError
from infra.ops.stack import create_if_missing, declared_values, own_values, pulumi, settings_of
from infra.outputs import to_make, to_set
from infra.settings import check_settings

EXAMPLES = """
make set
make set SET="nodes=2 email=me@example.org"
make set SET=email= STACK=team
python -m infra.ops.set nodes=2
"""
REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]")


def main(arguments: list[str] | None = None) -> int:
    options = parser("set", __doc__, EXAMPLES)
    options.add_argument(
        "changes",
        nargs="*",
        metavar="NAME=VALUE",
        default=(said("SET") or "").split(),
        help="a setting of Pulumi.yaml, or aws:region; without a value it goes back to its default (SET=)",
    )
    given = options.parse_args(arguments)
    return run(lambda: change(given.stack, given.changes) if given.changes else show(given.stack))


def show(stack: str) -> None:
    own = own_values(stack)
    for name, value in ({"aws:region": door.default_region() or ""} | declared_values() | own).items():
        print(f"{name:<18} {value or '(empty)'}{'' if name in own else '  (default)'}")


def change(stack: str, changes: list[str]) -> None:
    defaults, own = declared_values(), own_values(stack)
    wanted = dict(_split(text, stack) for text in changes)
    known = {"aws:region", *defaults, *own}
    new = {name: value for name, value in (own | wanted).items() if value or name not in known.intersection(wanted)}
    check(stack, defaults | new, wanted)
    differing = [name for name in wanted if own.get(name) != new.get(name)]
    if not differing:
        return say("it is so already; nothing is changed")
    if "aws:region" in differing:
        refuse_to_move(stack, own.get("aws:region"))
    settings = settings_of(stack, defaults | new)
    create_if_missing(settings)
    for name in differing:
        pulumi(settings, "config", *(("set", name, new[name]) if name in new else ("rm", name)))
    for name in differing:
        was, now = ({**defaults, **values}.get(name) or "(empty)" for values in (own, new))
        print(f"{name:<18} {was} -> {now}")
    say(f"next: {to_make(stack, 'up')}, with which it takes effect")


def check(stack: str, values: dict[str, str], wanted: dict[str, str]) -> None:
    """Raise UserError for a setting that is none, or that cannot be."""
    region = wanted.get("aws:region")
    if region and not REGION.fullmatch(region):
        raise UserError(f"aws:region is {region!r}, no region's name; `{to_set(stack, 'aws:region=us-east-1')}`")
    foreign = {name for name in values if ":" in name and name not in wanted}
    try:
        check_settings({name: values[name] for name in values.keys() - foreign - {"aws:region"}}, stack)
    except ValueError as error:
        raise UserError(str(error)) from None


def refuse_to_move(stack: str, region: str | None) -> None:
    """Raise UserError if a stack is up in its region: Pulumi would make it anew elsewhere and lose sight of it here."""
    if region and door.published(stack, region) is not None:
        first = to_make(stack, "destroy")
        raise UserError(f"the stack {stack} is up in {region}; `{first}` goes before, or STACK=NAME makes another one")


def _split(text: str, stack: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign:
        raise UserError(f"{text!r} is no NAME=VALUE; for example `{to_set(stack, 'nodes=2')}`")
    return name, value


if __name__ == "__main__":
    sys.exit(main())

"""What every verb of `python -m manifests` has: one line about it, examples that can be typed, checked numbers."""

import argparse
from collections.abc import Callable
from textwrap import dedent, indent
from typing import Any

PROGRAM = "python -m manifests"


def add_verb(
    subparsers: Any, name: str, run: Callable[[argparse.Namespace], int | None], about: str, examples: str
) -> Any:
    """A verb's parser: one line about it, and examples that can be typed."""
    parser = subparsers.add_parser(
        name,
        help=about,
        description=about,
        epilog="examples:\n" + indent(dedent(examples), "  "),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def one_or_more(text: str) -> int:
    """A count from the command line; nothing or less would be taken for "as many as you like" further on."""
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)

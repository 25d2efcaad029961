"""make preview: what `make up` would change, without changing it. Costs nothing."""

import sys

from infra.ops.command import parser, run
from infra.ops.stack import create_if_missing, pulumi, read_settings
from infra.ops.up import pinned, require

EXAMPLES = """
make preview
python -m infra.ops.preview --stack team
"""


def main(arguments: list[str] | None = None) -> int:
    given = parser("preview", __doc__, EXAMPLES).parse_args(arguments)
    return run(lambda: preview(given.stack))


def preview(stack: str) -> None:
    settings = read_settings(stack)
    require(settings)
    create_if_missing(settings)
    pulumi(pinned(settings), "preview")


if __name__ == "__main__":
    sys.exit(main())

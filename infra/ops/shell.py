"""make shell: a login shell on a machine of the stack, through SSM: no key, no open port; `sudo -i` there for root."""

import os
import sys

from infra.ops.command import outputs_of, parser, run, say
from infra.ops.errors import UserError
from infra.ops.session import find_machine, find_plugin, open_session, require_terminal

EXAMPLES = """
make shell
make shell STACK=team
python -m infra.ops.shell --machine i-0123456789abcdef0
"""
DOCUMENT = "AWS-StartInteractiveCommand"  # AWS's own
COMMAND = "bash --login"


def main(arguments: list[str] | None = None) -> int:
    options = parser("shell", __doc__, EXAMPLES)
    options.add_argument("--machine", help="which one, if the stack has several (default: that which is there longest)")
    given = options.parse_args(arguments)
    return run(lambda: shell(given.stack, given.machine))


def shell(stack: str, wanted: str | None) -> None:
    require_terminal("`make status` asks a machine without one")
    plugin = find_plugin()
    outputs = outputs_of(stack)
    machine = find_machine(outputs, wanted)
    if machine is None or (wanted and machine != wanted):
        raise UserError(
            f"no {wanted or 'machine'} of the stack {stack} takes sessions; `make status` shows what there is"
        )
    session = open_session(outputs, plugin, machine, DOCUMENT, command=COMMAND)
    if session is None:
        raise UserError(f"machine {machine} takes no session just now; try again in a minute, or `make status`")
    say(f"a shell on {machine}; an open session keeps an idle machine from giving itself back")
    # The terminal is the plugin's from here on, signals included.
    os.execve(session.line[0], session.line, session.environment)


if __name__ == "__main__":
    sys.exit(main())

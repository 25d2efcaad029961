"""make clean: remove from the machines what ended runs have left there; S3 has all of it first, or nothing is removed.

Only machines that bear the stack's label are spoken to, and only containers and directories of runs are removed.
"""

import argparse
import json
import sys

from infra.ops import agent, fleet, record
from infra.ops.command import outputs_of, parser, print_json, run, said, say
from infra.ops.errors import EXIT_MISSING, UserError
from infra.outputs import Outputs

EXAMPLES = """
make clean
make clean RUN=2026-01-31-184502-slowfast-face
python -m infra.ops.clean --json
"""


def main(arguments: list[str] | None = None) -> int:
    made = parser("clean", __doc__, EXAMPLES)
    made.add_argument("--run", default=said("RUN"), help="which run (RUN=; default: all that the machines name)")
    made.add_argument("--json", action="store_true", help="print what each machine said as JSON")
    given = made.parse_args(arguments)
    return run(lambda: clean(outputs_of(given.stack), given))


def clean(outputs: Outputs, given: argparse.Namespace) -> int:
    wanted, active = given.run and record.check_run_id(given.run), record.active_run(outputs)
    if active and wanted in (None, active):
        raise UserError(f"run {active} is active; `make stop` saves and ends it, and takes its machine with all on it")
    running = [m.id for m in fleet.find_machines(outputs.region, outputs.stack) if m.state == "running"]
    online = sorted(agent.online(outputs, running))
    answers = [
        (machine, run_id, agent.tell(outputs, outputs.document_clean, machine, run_id=run_id))
        for machine in online
        for run_id in ([wanted] if wanted else left_on(outputs, machine))
    ]
    for machine, run_id, answer in answers:
        told = answer.stdout if answer.ok else answer.stderr
        say(f"{'✓' if answer.ok else '✗'} {machine}, run {run_id}: {' '.join(told.split()) or answer.status}")
    if given.json:
        told_by = [{"machine": m, "run": r, "clean": a.ok, "said": a.stdout or a.stderr} for m, r, a in answers]
        print_json(told_by)
    elif not answers:
        say("no machine of the stack holds anything of an ended run" if online else "no machine of the stack is up")
    return 0 if all(answer.ok for _, _, answer in answers) else EXIT_MISSING


def left_on(outputs: Outputs, machine: str) -> list[str]:
    """The runs whose containers stand on a machine, ended."""
    answer = agent.tell(outputs, outputs.document_status, machine)
    if not answer.ok:
        raise UserError(
            f"machine {machine} does not tell what it holds ({answer.status}); `make clean RUN=` names a run"
        )
    return sorted({found["run_id"] for found in json.loads(answer.stdout)["containers"] if found["state"] != "running"})


if __name__ == "__main__":
    sys.exit(main())

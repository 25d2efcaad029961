"""make resume: take up again a run that was stopped, has failed, or was cut off, from its last checkpoint in S3."""

import argparse
import sys
from typing import Any

from infra.ops import arrival, launch, record, train
from infra.ops.command import outputs_of, parser, run, said
from infra.ops.errors import UserError

EXAMPLES = """
make resume RUN=2026-01-31-184502-slowfast-face
make resume CAP=40 HOURS=12
python -m infra.ops.resume --run 2026-01-31-184502-slowfast-face --yes --no-wait
"""
MONEY = ("deadline", "cap_dollars", "price_per_hour", "prices", "nodes")  # of the request, told anew


def main(arguments: list[str] | None = None) -> int:
    made = parser("resume", __doc__, EXAMPLES)
    made.add_argument("--run", default=said("RUN"), help="which run (RUN=; default: the newest)")
    launch.add_options(made, nodes="the run's", cap="the run's")
    given = made.parse_args(arguments)
    return run(lambda: resume(given))


def resume(given: argparse.Namespace) -> int:
    launch.check(given)
    outputs = outputs_of(given.stack)
    image = launch.require_free(outputs)
    run_id = record.choose_run(outputs, given.run)
    found = record.read_record(outputs, run_id, active="")
    refuse_finished(found)
    spent = float((found.machine or {}).get("dollars") or 0.0)
    given.nodes = given.nodes or str(found.request.get("nodes", 1))
    terms, group = launch.settle(outputs, given, cap=found.request.get("cap_dollars"), spent=spent)
    rows = [("image", image.described(found.request.get("image")))]
    if found.request.get("task", "fit") == "fit":
        rows.insert(0, ("data", train.data_of(found.request)))
    if not launch.agreed(run_id, progress(found), terms, given, tuple(rows)):
        return 0
    request = {name: value for name, value in found.request.items() if name not in MONEY}
    launch.begin(outputs, run_id, request, terms, group)
    return arrival.after(outputs, run_id, terms, group, given)


def refuse_finished(found: record.Record) -> None:
    if found.state == "finished":
        raise UserError(
            f"run {found.run_id} has finished: {(found.outcome or {}).get('reason', 'all epochs are done')}; "
            f"`make download RUN={found.run_id}` fetches it, `make train` starts another"
        )


def progress(found: record.Record) -> str:
    """`go on from epoch 12 of 60 (stopped)`."""
    status: dict[str, Any] = found.status or {}
    epoch = f" from epoch {status['epoch']}" if "epoch" in status else ""
    return f"go on{epoch}, where it was {found.state}"


if __name__ == "__main__":
    sys.exit(main())

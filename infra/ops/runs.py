"""make runs: every run with its outcome, test UAR, epochs, machine hours and price, the newest first."""

import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from infra.ops.command import is_yes, outputs_of, parser, print_json, run, say
from infra.ops.door import client
from infra.ops.record import Record, active_run, key, read_json, run_ids
from infra.outputs import Outputs

EXAMPLES = """
make runs
make runs ALL=1 STACK=team
python -m infra.ops.runs --json | jq '.[] | select(.outcome == "failed")'
"""
NEWEST = 50
THREADS = 16
PARTS = ("request", "status", "machine", "outcome", "evaluation")
WIDE = 120  # columns that hours, the interval of the score and the reason need besides
PLAIN_WIDTH = 160  # columns where stdout is no terminal
COLOURS = {"finished": "green", "failed": "red", "stopped": "yellow", "interrupted": "yellow"}


@dataclass(frozen=True)
class Row:
    run: str
    task: str  # fit, manifest or prepare
    active: bool
    outcome: str  # finished, stopped, failed, interrupted; of an active run what it does
    reason: str | None
    uar: float | None  # on the test actors, from 0 to 1
    uar_interval: list[float] | None  # at 95 %
    epochs: int | None  # begun
    epochs_asked: int | None
    hours: float | None  # of all its machines
    dollars: float | None


def main(arguments: list[str] | None = None) -> int:
    options = parser("runs", __doc__, EXAMPLES)
    options.add_argument(
        "--all",
        action="store_true",
        default=is_yes("ALL"),
        help=f"all of them, not only the newest {NEWEST} (make runs ALL=1)",
    )
    options.add_argument("--json", action="store_true", help="print them as a JSON list")
    given = options.parse_args(arguments)
    return run(lambda: runs(given.stack, given.all, given.json))


def runs(stack: str, every: bool, as_json: bool) -> None:
    outputs = outputs_of(stack)
    known = run_ids(outputs)
    shown = known if every else known[:NEWEST]
    rows = read_rows(outputs, shown)
    if as_json:
        print_json([asdict(row) for row in rows])
    elif rows:
        show(rows)
    if not rows:
        say(f"s3://{outputs.bucket}/runs/ holds no run yet; `make train` starts one")
    if len(known) > len(shown):
        say(f"{len(known) - len(shown)} older ones are not shown; `make runs ALL=1` shows them")


def read_rows(outputs: Outputs, wanted: list[str]) -> list[Row]:
    """What S3 holds of these runs, read side by side."""
    active = active_run(outputs)
    pages = ledger_pages(outputs) if wanted else {}
    names = [key(run_id, f"{part}.json") for run_id in wanted for part in PARTS]
    names += [page for run_id in wanted for page in pages.get(run_id, ())]
    with ThreadPoolExecutor(THREADS) as pool:
        found = dict(zip(names, pool.map(partial(read_json, outputs), names), strict=True))
    return [
        make_row(
            run_id,
            {part: found[key(run_id, f"{part}.json")] for part in PARTS},
            [page for name in pages.get(run_id, ()) if (page := found[name])],
            is_active=run_id == active,
        )
        for run_id in wanted
    ]


def ledger_pages(outputs: Outputs) -> dict[str, list[str]]:
    """Keys of the ledger by run, a page for each of its machines."""
    listing = client("s3", outputs.region).get_paginator("list_objects_v2")
    pages = defaultdict(list)
    for part in listing.paginate(Bucket=outputs.bucket, Prefix="ledger/"):
        for found in part.get("Contents", ()):
            pages[found["Key"].split("/")[1]].append(found["Key"])
    return pages


def make_row(
    run_id: str, parts: dict[str, dict[str, Any] | None], ledger: list[dict[str, Any]], *, is_active: bool
) -> Row:
    request, status, machine = (parts[name] or {} for name in ("request", "status", "machine"))
    record = Record(run_id, request, parts["status"], parts["machine"], parts["outcome"], is_active)
    overall = (parts["evaluation"] or {}).get("overall") or {}
    return Row(
        run=run_id,
        task=request.get("task", "fit"),
        active=is_active,
        outcome=record.state,
        reason=None if is_active else (parts["outcome"] or {}).get("reason"),
        uar=overall.get("uar"),
        uar_interval=overall.get("uar_interval"),
        epochs=status.get("epoch"),
        epochs_asked=status.get("epochs"),
        hours=round(sum(page["hours"] for page in ledger), 3) if ledger else None,
        # A machine that has just begun has written no page yet.
        dollars=round(sum(page["dollars"] for page in ledger), 2) if ledger else machine.get("dollars"),
    )


def show(rows: list[Row]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    is_wide = console.width >= WIDE
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("run", "outcome", "test UAR", "epochs", *["hours"] * is_wide, "cost", *["why"] * is_wide):
        right = name in ("test UAR", "epochs", "hours", "cost")
        # An id that does not fit is folded, never cut; nor is money.
        table.add_column(
            name, justify="right" if right else "left", no_wrap=name not in ("run", "why"), overflow="fold"
        )
    for row in rows:
        colour = "cyan" if row.active else COLOURS.get(row.outcome, "default")
        why = Text(row.reason or "" if row.outcome != "finished" else "", "dim")
        cells: list[str | Text] = [
            Text(row.run, "bold" if row.active else ""), Text(row.outcome, colour), uar_of(row, interval=is_wide),
            f"{row.epochs}/{row.epochs_asked}" if row.epochs_asked else row.task if row.task != "fit" else "",
            *["" if row.hours is None else f"{row.hours:.2f}"] * is_wide,
            "" if row.dollars is None else f"${row.dollars:.2f}",
        ]  # fmt: skip
        table.add_row(*cells, *[why] * is_wide)
    console.print(table)
    for row in rows if not is_wide else ():
        if row.reason and row.outcome != "finished":
            console.print(Text(f"{row.run}: {row.reason}", "dim"))


def uar_of(row: Row, *, interval: bool) -> str:
    if row.uar is None:
        return ""
    low, high = row.uar_interval or (None, None)
    return f"{row.uar:.1%}" + (f" ({low:.0%}-{high:.0%})" if interval and low is not None and high is not None else "")


if __name__ == "__main__":
    sys.exit(main())

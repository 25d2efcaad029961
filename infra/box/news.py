"""What the stack's topic hears of a run's end: how and why, for how many dollars, and what to type next."""

from typing import Any

from infra.box.duty import BY_HAND, Duty
from infra.box.station import one_line

NEXT = {"fit": "download RUN={run}", "manifest": "prepare", "prepare": "train"}  # after each task that has finished


def announce(duty: Duty, outcome: dict[str, Any]) -> None:
    """Tell whoever listens; that nobody could be told is said in the run's own lines, and keeps it from nothing."""
    if not duty.station.topic or outcome["reason"] == BY_HAND:  # whoever did that knows it
        return
    request = duty.request
    cap = request.cap_dollars if request else None
    told = sentence(duty.run_id, request.task if request else "fit", outcome, duty.ledger.dollars(), cap)
    stack = "" if duty.station.stack == "dev" else f" STACK={duty.station.stack}"
    try:
        duty.station.publish(f"run {duty.run_id} has {outcome['outcome']}", f"{told}{stack}")
    except Exception as error:
        duty.say(f"nobody could be told of the run's end: {one_line(error)}")


def sentence(run_id: str, task: str, outcome: dict[str, Any], dollars: float, cap: float | None) -> str:
    """How a run has ended, closed by the next command; after a cap that was reached it allows as much again."""
    match outcome["outcome"]:
        case "finished":
            then = NEXT[task].format(run=run_id)
        case "stopped":
            then = f"resume RUN={run_id}" + (f" CAP={2 * cap:g}" if cap and dollars >= cap else "")
        case _:
            then = f"logs RUN={run_id}"
    return f"Run {run_id} has {outcome['outcome']}: {outcome['reason']}. It has cost ${dollars:.2f}. Next: make {then}"

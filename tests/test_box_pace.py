"""What a courier costs and how soon S3 knows: measured by itself, with nothing else of these tests running.

Run: pytest -s tests/test_box_pace.py
"""

import hashlib
import json
import os
import re
import threading
import time
from concurrent.futures import Future, wait
from pathlib import Path

import pytest
from couriers import Machine, begun, lines_of, machine

__all__ = ["begun", "machine"]  # fixtures


@pytest.fixture
def alone(begun: dict[str, Future[None]]) -> None:
    """Nothing else is going on: the other tests' stories are over."""
    wait(begun.values())


def test_a_checkpoint_is_uploaded_once_and_named_only_when_it_is_there(machine: Machine) -> None:
    size = 40_000_000
    machine.ask_for("lines=40", f"checkpoint={size}")
    machine.ends(machine.start())
    for step in (20, 40):
        parts = machine.faulty.uploads(f"step-{step:08}.pt")
        # Each part is sent with a signature of its own around it, hence the per mille.
        assert size <= sum(part.sent for part in parts) < size * 1.001
    done = [s for s in machine.faulty.seen if s.path.endswith(".pt") and s.method == "POST" and "uploadId" in s.query]
    pointers = machine.faulty.uploads("last.json")
    assert len(done) == 2
    assert done[0].time <= pointers[0].time
    named = json.loads(machine.text("checkpoints/last.json"))
    assert hashlib.sha256(machine.get("checkpoints/" + named[0]["file"]) or b"").hexdigest() == named[0]["sha256"]


@pytest.mark.usefixtures("alone")
def test_a_line_is_in_s3_within_five_seconds_and_the_courier_costs_little(machine: Machine) -> None:
    machine.ask_for("lines=150", "per_second=10")
    process = machine.start()
    machine.wait_until(lambda: lines_of(machine.text("output.txt"), "print"), "the trainer prints")
    ticks = os.sysconf("SC_CLK_TCK")

    def seconds() -> float:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / ticks

    arrived: dict[int, float] = {}

    def watch() -> None:
        while process.poll() is None:
            text, now = machine.text("output.txt"), time.time()
            for line in lines_of(text, "print"):
                arrived.setdefault(line, now)
            time.sleep(0.2)

    watching = threading.Thread(target=watch)
    watching.start()
    used, began = seconds(), time.monotonic()
    time.sleep(10)
    share = (seconds() - used) / (time.monotonic() - began)
    machine.ends(process)
    watching.join()
    printed = dict(re.findall(r"^(\S+) print (\d+)$", machine.text("output.txt"), re.MULTILINE))
    late = sorted(arrived[int(line)] - float(when) for when, line in printed.items() if int(line) in arrived)
    p95 = late[int(0.95 * len(late))]
    print(f"\nline to S3: p50 {late[len(late) // 2]:.2f} s, p95 {p95:.2f} s; courier {share:.2%} of a core")
    assert len(late) == 150
    assert p95 <= 5
    assert share < 0.06  # 2 % on a machine that is not shared; the figure is printed

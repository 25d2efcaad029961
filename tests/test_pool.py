"""Every job of a pool is answered exactly once, by its result or by its name, whichever workers die and when."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from manifests.pool import map_in_processes

LONG = 1.0  # seconds in which a broken pool is noticed, so that the next job is handed to one that is known broken


def square_or_die(number: int, deadly: frozenset[int]) -> int:
    if number in deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def answers(
    count: int, deadly: frozenset[int], pauses: frozenset[int] = frozenset(), workers: int = 2
) -> Iterator[tuple[int, str]]:
    """(job, "done" or "died") of each answer as it comes; the consumer rests after the answers numbered in `pauses`."""
    jobs = [(number, deadly) for number in range(count)]
    for place, answer in enumerate(map_in_processes(square_or_die, jobs, workers, lambda job: -1 - job[0])):
        yield (-1 - answer, "died") if answer < 0 else (round(answer**0.5), "done")
        if place in pauses:
            time.sleep(LONG)


@pytest.mark.parametrize(
    ("deadly", "pauses"),
    [
        pytest.param({3}, {0}, id="a worker dies while the consumer rests"),
        pytest.param({0, 1}, {0}, id="two die at once"),
        pytest.param({2, 12, 19}, {0, 9}, id="now and then, the last one too"),
        pytest.param({0, 1, 2, 3, 4, 5}, set(), id="one after the other"),
    ],
)
def test_each_job_is_answered_once_by_its_result_or_by_its_name(deadly: set[int], pauses: set[int]) -> None:
    given = sorted(answers(20, frozenset(deadly), frozenset(pauses)))
    assert given == [(number, "died" if number in deadly else "done") for number in range(20)]


def test_a_worker_that_is_killed_from_outside_costs_no_job_and_none_is_blamed() -> None:
    given = []
    for number, how in answers(14, frozenset()):
        given.append((number, how))
        if len(given) in (1, 3, 6):
            for worker in multiprocessing.active_children():
                worker.kill()
                worker.join()
            time.sleep(LONG / 4)
    assert sorted(given) == [(number, "done") for number in range(14)]


def leave_mark(folder: Path, number: int) -> int:
    (folder / f"{number}-{os.getpid()}").touch()
    return number


def test_a_consumer_that_stops_early_leaves_no_worker_behind_and_starts_no_further_job(tmp_path: Path) -> None:
    results = map_in_processes(leave_mark, [(tmp_path, number) for number in range(200)], 2, lambda job: -1)
    assert next(results) in range(200)
    results.close()
    assert not multiprocessing.active_children()
    done = [mark.name.partition("-")[0] for mark in tmp_path.iterdir()]
    assert len(done) == len(set(done)) < 200


def fail(number: int) -> int:
    if number == 5:
        raise ValueError("five")
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_job_raises_is_raised_here_and_ends_the_work(workers: int) -> None:
    with pytest.raises(ValueError, match="five"):
        list(map_in_processes(fail, [(number,) for number in range(40)], workers, lambda job: -1))
    assert not multiprocessing.active_children()


WORK = """
import time
from manifests.pool import map_in_processes

if __name__ == "__main__":
    print("begins", flush=True)
    for _ in map_in_processes(time.sleep, [(0.1,)] * 200, 2, lambda job: None):
        pass
"""


@pytest.mark.parametrize("after", [0.1, 0.3, 0.6, 1.0])
def test_ctrl_c_while_workers_begin_is_the_parents_alone_to_tell(after: float, tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(WORK)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "work.py"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(after)
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert told.count("Traceback (most recent call last)") == 1, told

"""make tensorboard: figures from metrics.jsonl, and the real TensorBoard where it is installed.

Run: pytest tests/test_ops_tensorboard.py
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from cloud import Cloud
from watching import Stage, machine, stage

from infra.ops.tensorboard import figures

RUN = "2026-01-31-184502-r50"
METRICS = b"""\
{"kind": "step", "epoch": 0, "lr": 0.01, "step": 10, "loss": 2.0, "clips_per_second": 31.5, "time": "2026"}
{"kind": "evaluation", "split": "val", "epoch": 0, "step": 10, "uar": 0.25, "loss": 1.9, "by_actor": {}, "time": "2026"}
"""
installed = find_spec("tensorboard") is not None


@pytest.fixture
def desk(aws: Cloud, tmp_path: Path) -> Iterator[Stage]:
    with stage(aws, tmp_path) as made:
        made.put_run(RUN, machine=machine(), metrics=METRICS)
        made.activate(RUN)
        yield made


def test_every_figure_of_a_whole_line_is_told_with_its_step() -> None:
    assert figures(METRICS + b'{"kind": "st') == [
        ("train/lr", 10, 0.01), ("train/loss", 10, 2.0), ("train/clips_per_second", 10, 31.5),
        ("val/uar", 10, 0.25), ("val/loss", 10, 1.9),
    ]  # fmt: skip


@pytest.mark.skipif(installed, reason="TensorBoard is installed")
def test_where_it_is_not_installed_one_sentence_says_how(desk: Stage) -> None:
    done = desk.make("tensorboard")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: TensorBoard is not installed; `.venv/bin/pip install tensorboard`, or `make monitor` without it\n"
    )


@pytest.mark.skipif(not installed, reason="TensorBoard is not installed (pip install tensorboard)")
def test_tensorboard_shows_the_run_and_follows_it(desk: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    line = [sys.executable, "-m", "infra.ops.tensorboard", "--port", str(port)]
    environment = desk.environment() | {"TMPDIR": str(desk.folder)}
    watching = subprocess.Popen(
        line, cwd=desk.folder, env=environment, stderr=subprocess.DEVNULL, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        wait_for_points(port, [[10, 2.0]])
        more = {"kind": "step", "epoch": 0, "step": 20, "loss": 1.5, "time": "2026"}
        desk.put(f"runs/{RUN}/metrics.jsonl", METRICS + json.dumps(more).encode() + b"\n")
        wait_for_points(port, [[10, 2.0], [20, 1.5]])
        os.killpg(watching.pid, signal.SIGINT)
        assert watching.wait(30) == 0
        assert not list(desk.folder.glob("slowfast-*"))
    finally:
        watching.kill()


def wait_for_points(port: int, wanted: list[list[float]]) -> None:
    url = f"http://localhost:{port}/data/plugin/scalars/scalars?tag=train/loss&run={RUN}"
    end, found = time.monotonic() + 90, []
    while found != wanted:
        assert time.monotonic() < end, found
        time.sleep(0.5)
        try:
            with urlopen(url) as answer:
                found = [point[1:] for point in json.load(answer)]
        except (URLError, OSError):
            continue

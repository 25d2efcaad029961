"""make tensorboard: the run's curves in TensorBoard, followed while it trains; a temporary folder holds them."""

import json
import subprocess
import sys
import tempfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from infra.ops.command import outputs_of, parser, run, said, say
from infra.ops.errors import UserError
from infra.ops.logs import patiently
from infra.ops.record import choose_run, key, read_record
from infra.ops.tail import Copy

EXAMPLES = """
make tensorboard
make tensorboard RUN=2026-01-31-184502-slowfast-face
python -m infra.ops.tensorboard --port 6007
"""
LOOK_EVERY = 10.0  # seconds
STRANGERS = {"kind", "split", "epoch", "step", "time"}  # of a line of metrics.jsonl, what is no figure


def main(arguments: list[str] | None = None) -> int:
    options = parser("tensorboard", __doc__, EXAMPLES)
    options.add_argument("--run", default=said("RUN"), help="which run (RUN=; default: the active or newest)")
    options.add_argument("--port", type=int, default=6006, help="of this machine (default: %(default)s)")
    given = options.parse_args(arguments)
    return run(lambda: tensorboard(given.stack, given.run, given.port))


def tensorboard(stack: str, run_id: str | None, port: int) -> int:
    if find_spec("tensorboard") is None:
        raise UserError(
            "TensorBoard is not installed; `.venv/bin/pip install tensorboard`, or `make monitor` without it"
        )
    outputs = outputs_of(stack)
    run_id = choose_run(outputs, run_id)
    read_record(outputs, run_id)  # says so if there is none
    metrics = Copy(outputs, key(run_id, "metrics.jsonl"))
    with tempfile.TemporaryDirectory(prefix="slowfast-") as folder:
        events = Events(Path(folder) / run_id)
        events.write(patiently(metrics.read) or b"")
        line = [sys.executable, "-m", "tensorboard.main", "--logdir", folder, "--port", str(port)]
        server = subprocess.Popen([*line, "--reload_interval", str(round(LOOK_EVERY))])
        say(f"{run_id} is at http://localhost:{port}; Ctrl-C ends TensorBoard, never the run")
        try:
            while True:
                try:
                    return server.wait(LOOK_EVERY)
                except subprocess.TimeoutExpired:
                    events.write(patiently(metrics.read) or b"")
        except KeyboardInterrupt:
            return 0
        finally:
            server.terminate()
            server.wait()


class Events:
    """TensorBoard's event files of one run: a figure is written once, however often its line is seen."""

    def __init__(self, folder: Path) -> None:
        self._writer: Any = import_module("tensorboard.summary").Writer(str(folder))
        self._written: set[tuple[str, int]] = set()

    def write(self, metrics: bytes) -> None:
        for name, step, value in figures(metrics):
            if (name, step) not in self._written:
                self._written.add((name, step))
                self._writer.add_scalar(name, value, step=step)
        self._writer.flush()


def figures(metrics: bytes) -> list[tuple[str, int, float]]:
    """Name, step and value of every figure in the whole lines of metrics.jsonl: train/loss, val/uar, ..."""
    found = []
    for text in metrics.split(b"\n")[:-1]:
        line = json.loads(text)
        group = "train" if line["kind"] == "step" else line.get("split", line["kind"])
        for name, value in line.items():
            if name not in STRANGERS and isinstance(value, int | float) and not isinstance(value, bool):
                found.append((f"{group}/{name}", int(line["step"]), float(value)))
    return found


if __name__ == "__main__":
    sys.exit(main())

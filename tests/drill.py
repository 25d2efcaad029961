"""Kill training again and again and compare what comes out with a run that nobody touched: `make drill`.

python tests/drill.py --kills 50
python tests/drill.py --kills 12 --nodes 2          a two-node run under torchrun, of which nodes are killed
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from toys import fit_words, make_corpus

from trainer.run import read_json, read_metrics

TIMELESS = ("kind", "split", "epoch", "step", "loss", "lr", "war", "uar", "macro_f1")
SETTLE = 60.0  # seconds that a node which was asked to stop has to end
PATIENCE = 300.0  # seconds without progress that end the drill as failed
EPOCHS = 40


@dataclass(frozen=True)
class Kill:
    """What one kill hit, and what it cost."""

    signal: str
    node: int
    phase: str
    step: int
    kept: int  # the step that the next start went on from
    seconds: float  # from the signal to the end of the process

    @property
    def lost(self) -> int:
        return self.step - self.kept


class Nodes:
    """One run as its machines would run it: `python -m trainer` on one, a torchrun on each of several.

    Nodes are process groups on this machine; the group is what a kill hits, as when a spot machine is taken. A node
    that has ended without finishing is replaced, as an Auto Scaling group does.
    """

    def __init__(self, count: int, words: list[str]) -> None:
        self.count, self.words = count, words
        self.port = free_port()
        self.processes = [self.start(node) for node in range(count)]

    def start(self, node: int) -> subprocess.Popen[bytes]:
        command = ["-m", "trainer", *self.words]
        if self.count > 1:
            elastic = [
                "--nnodes", str(self.count), "--nproc-per-node", "1", "--max-restarts", "1000",
                "--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{self.port}",
                "--rdzv-conf", f"is_host={int(node == 0)}", "--local-addr", "localhost",
            ]  # fmt: skip
            command = ["-m", "torch.distributed.run", *elastic, "-m", "--", "trainer", *self.words]
        return subprocess.Popen(
            [sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
        )  # fmt: skip

    def finished(self) -> bool:
        """Whether every node has ended well; those that have ended otherwise are replaced."""
        for node, process in enumerate(self.processes):
            if process.poll() not in (None, 0):
                kill_group(process)
                self.processes[node] = self.start(node)
        return all(process.poll() == 0 for process in self.processes)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port: int = listener.getsockname()[1]
        return port


def end(process: subprocess.Popen[bytes], signum: int) -> float:
    """Kill a node whole or ask it to end; return the seconds until it has."""
    asked = time.monotonic()
    if signum == signal.SIGKILL:
        kill_group(process)
    else:
        process.send_signal(signum)
    process.wait(SETTLE)
    return time.monotonic() - asked


def newest_step(run: Path) -> int:
    """The step of the newest checkpoint, 0 before the first one."""
    history = read_json(run / "checkpoints" / "last.json")
    return int(history[0]["file"].split("-")[1].removesuffix(".pt")) if history else 0


def wait_for_moment(nodes: Nodes, run: Path, random: Random) -> bool:
    """Let the run live for a while: sometimes not even to its next step, mostly some steps or epochs on.

    Returns whether it has finished before that.
    """
    before = read_json(run / "status.json")
    impatient = random.random() < 0.2
    deadline = time.monotonic() + (random.uniform(0.5, 5) if impatient else PATIENCE)
    while time.monotonic() < deadline:
        if nodes.finished():
            return True
        if not impatient and read_json(run / "status.json") != before:
            impatient, deadline = True, time.monotonic() + random.uniform(0, 2.5)
        time.sleep(0.01)
    assert impatient, f"{run} made no progress for {PATIENCE:g} s"
    return False


def strike(nodes: Nodes, run: Path, random: Random) -> Kill:
    """One kill: of a node without warning, or asked for politely as a spot notice does."""
    node = random.randrange(nodes.count)
    name = random.choice(("SIGKILL", "SIGKILL", "SIGTERM"))
    phase = (read_json(run / "status.json") or {}).get("phase", "starting")
    seconds = end(nodes.processes[node], getattr(signal, name))
    step = (read_json(run / "status.json") or {}).get("step", 0)
    return Kill(name, node, phase, step, newest_step(run), seconds)


def survive(
    corpus: tuple[Path, Path], run: Path, nodes: int, kills: int, random: Random, settings: list[str]
) -> list[Kill]:
    """Train `run` to its end, through at most `kills` kills."""
    group = Nodes(nodes, fit_words(corpus, run, *settings))
    survived: list[Kill] = []
    while len(survived) < kills and not wait_for_moment(group, run, random):
        survived.append(strike(group, run, random))
    while not group.finished():
        time.sleep(0.1)
    return survived


def differences(run: Path, undisturbed: Path) -> list[str]:
    """What the two runs do not share: weights bit for bit, and every line of metrics.jsonl but for its times."""
    ours, theirs = (load_file(path / "model.safetensors") for path in (run, undisturbed))
    found = [f"weight {key}" for key in theirs if key not in ours or not torch.equal(ours[key], theirs[key])]
    first, second = ([timeless(line) for line in read_metrics(path)] for path in (run, undisturbed))
    if len(first) != len(second):
        found.append(f"{len(first)} lines of metrics instead of {len(second)}")
    return found + [f"metrics line {n + 1}" for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b]


def timeless(line: dict[str, Any]) -> dict[str, Any]:
    return {key: line[key] for key in TIMELESS if key in line}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="kills to survive (%(default)s)")
    parser.add_argument("--nodes", type=int, default=1, help="machines of the run (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the kills' moments (%(default)s)")
    arguments = parser.parse_args()
    console, random = Console(), Random(arguments.seed)
    settings = [f"optim.epochs={EPOCHS}"]
    with tempfile.TemporaryDirectory() as folder:
        corpus = make_corpus(Path(folder))
        undisturbed = Path(folder) / "undisturbed"
        survive(corpus, undisturbed, arguments.nodes, 0, random, settings)
        survived: list[Kill] = []
        found: list[str] = []
        runs = 0
        while len(survived) < arguments.kills:
            runs += 1
            run = Path(folder) / f"run-{runs}"
            left = arguments.kills - len(survived)
            survived += survive(corpus, run, arguments.nodes, left, random, settings)
            found += [f"run {runs}: {difference}" for difference in differences(run, undisturbed)]
            console.print(f"run {runs} done, {len(survived)} of {arguments.kills} kills", style="dim")
    console.print(table_of(survived))
    verdict = "weights and metrics equal those of the undisturbed run, bit for bit" if not found else "; ".join(found)
    console.print(f"{len(survived)} kills, {runs} runs of {EPOCHS} epochs: {verdict}")
    return 1 if found else 0


def table_of(kills: list[Kill]) -> Table:
    table = Table(title="what was killed, when, and what it cost")
    for column in ("kill", "signal", "node", "phase", "at step", "kept", "lost", "ended in"):
        table.add_column(column, justify="left" if column in ("signal", "phase") else "right")
    for number, kill in enumerate(kills, start=1):
        table.add_row(
            str(number), kill.signal, str(kill.node), kill.phase, str(kill.step), str(kill.kept), str(kill.lost),
            f"{kill.seconds:.1f} s",
        )  # fmt: skip
    return table


if __name__ == "__main__":
    sys.exit(main())

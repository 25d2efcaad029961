"""What safety and company cost a training: `python tests/bench_processes.py [--rounds 3]`.

Two processes of one thread beside one process of two, a checkpoint of the R50 model beside the interval between two of
them, the start up to the end of a first (small) step, and on paper how far the recipe scales. Starts take turns, so
that whatever else the machine does disturbs all alike.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
from bench_train import A10G_FLOPS, CPU, training_flops
from rich.console import Console
from rich.table import Table
from toys import fit_words, make_corpus

from manifests.clips import ClipStore
from manifests.table import read_manifest
from trainer.checkpoint import save_checkpoint
from trainer.config import Config, read_config
from trainer.learner import create_learner, random_state
from trainer.networks import create_model
from trainer.processes import ALONE
from trainer.run import read_json, read_metrics
from trainer.workflow import choose_clips

# Small enough for a minute, large enough that the network and not its wrapping is measured.
SMALL = (
    "model.width=16", "data.frames=16", "data.size=64", "data.batch=8", "optim.epochs=3",
    "evaluation.flip=false",
)  # fmt: skip
R50 = read_config(Path("slowfast_face.yaml"), ["device=cpu"])
FIRST_STEP = (
    *(f"model.{name}={getattr(R50.model, name)}" for name in ("depth", "width", "beta_inv", "dropout")),
    "data.frames=8", "data.size=32", "data.batch=2", "optim.epochs=1",
)  # fmt: skip
GOALS = {
    "two processes": "at least 0.9 times the clips/s of one process of two threads",
    "checkpoint": "less than 3 % of the time between two checkpoints",
    "start": "less than 10 s to the first step",
}
BACKWARD = 2 / 3  # of a step's computing; all but the last gradients travel meanwhile
UTILISATION = 0.3  # of the GPU's peak
LINKS = {  # bytes per second that one member of the ring sends, less than the data sheets say
    "8 GPUs, NVLink": (8, 100e9),
    "8 GPUs, PCIe 4.0": (8, 12e9),
    "4 machines, 100 Gbit/s": (4, 10e9),
    "4 machines, 25 Gbit/s": (4, 2.5e9),
    "4 machines, 10 Gbit/s": (4, 1e9),
}


class Scaling(NamedTuple):
    """One step of `members` that share their gradients, in seconds, and how much of their time they use."""

    computing: float
    exchanging: float
    efficiency: float  # while gradients travel during the backward pass
    efficiency_at_worst: float  # while they travel after it


def scaling(flops: float, peak: float, gradient_bytes: float, members: int, bytes_per_second: float) -> Scaling:
    """A ring all-reduce sends 2 (n - 1) / n of the gradients from each member, whatever their number."""
    computing = flops / peak
    exchanging = 2 * (members - 1) / members * gradient_bytes / bytes_per_second
    step = computing + max(exchanging - BACKWARD * computing, 0)
    return Scaling(computing, exchanging, computing / step, computing / (computing + exchanging))


def start(words: list[str], processes: int, threads: int) -> subprocess.Popen[bytes]:
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", "-m", "--"] if processes > 1 else ["-m"]
    return subprocess.Popen(
        [sys.executable, *launcher, "trainer", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"},
    )  # fmt: skip


def bench_two_processes(corpus: tuple[Path, Path], folder: Path, rounds: int) -> tuple[list[tuple[str, str]], bool]:
    ratios = []
    for turn in range(rounds):
        speeds = []
        for processes in (1, 2):
            run = folder / f"{processes}-{turn}"
            process = start(fit_words(corpus, run, *SMALL), processes, 2 // processes)
            assert process.wait() == 0
            speeds.append(
                statistics.median(line["clips_per_second"] for line in read_metrics(run) if line["kind"] == "step")
            )
        ratios.append(speeds[1] / speeds[0])
    ratio = statistics.median(ratios)
    every = ", ".join(f"{each:.2f}" for each in ratios)
    return [("two processes of one thread : one of two", f"{ratio:.2f} x the clips/s ({every})")], ratio >= 0.9


def bench_checkpoint(
    config: Config, corpus: tuple[Path, Path], folder: Path, rounds: int
) -> tuple[list[tuple[str, str]], bool]:
    manifest, clips = corpus
    splits, _, _ = choose_clips(read_manifest(manifest), ClipStore(clips))
    learner = create_learner(config, splits["train"], 2, config.optim.epochs, CPU, ALONE, None)
    for parameter in learner.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    learner.optimizer.step()  # which makes AdamW's averages
    costs = []
    for turn in range(rounds + 1):
        began = time.perf_counter()
        save_checkpoint(folder / "checkpoints", f"step-{turn:08d}", {"rng": [random_state(CPU)], **learner.state()})
        costs.append(time.perf_counter() - began)
    seconds = statistics.median(costs[1:])
    size = max(path.stat().st_size for path in (folder / "checkpoints").glob("step-*.pt"))
    share = seconds / (config.checkpoint_minutes * 60)
    said = f"{seconds:.2f} s for {size / 1e6:.0f} MB, {share:.2%} of {config.checkpoint_minutes:g} minutes"
    return [("a checkpoint of the R50 model", said)], share < 0.03


def bench_start(corpus: tuple[Path, Path], folder: Path, rounds: int) -> tuple[list[tuple[str, str]], bool]:
    costs = []
    for turn in range(rounds + 1):
        run = folder / f"start-{turn}"
        began = time.perf_counter()
        process = start(fit_words(corpus, run, *FIRST_STEP), 1, 2)
        while (read_json(run / "status.json") or {}).get("step", 0) < 1:
            assert process.poll() is None
            time.sleep(0.01)
        costs.append(time.perf_counter() - began)
        process.kill()
        process.wait()
    seconds = statistics.median(costs[1:])
    every = ", ".join(f"{each:.1f}" for each in costs[1:])
    return [("start to first step, R50, files in the cache", f"{seconds:.1f} s ({every})")], seconds < 10


def scaling_table(config: Config) -> Table:
    with torch.device("meta"):
        model = create_model(6, **config.model.model_dump(exclude={"pretrained"}))
    gradients = 4 * sum(parameter.numel() for parameter in model.parameters())
    data = config.data
    one = training_flops(config) * data.clips_per_video
    table = Table(title=f"scaling on paper: {gradients / 1e6:.0f} MB of gradients a step, A10G at {UTILISATION:.0%}")
    for heading in ("members", "videos each", "computing", "exchange", "videos/s each", "efficiency", "at worst"):
        table.add_column(heading, justify="left" if heading == "members" else "right")
    for name, (members, speed) in LINKS.items():
        for videos in (data.batch // members, data.batch):
            told = scaling(one * videos, A10G_FLOPS * UTILISATION, gradients, members, speed)
            table.add_row(
                name, str(videos), f"{told.computing:.2f} s", f"{told.exchanging:.3f} s",
                f"{videos / told.computing * told.efficiency:.0f}", f"{told.efficiency:.0%}",
                f"{told.efficiency_at_worst:.0%}",
            )  # fmt: skip
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    table, within = Table(title="several processes, checkpoints, starts"), {}
    table.add_column("what")
    table.add_column("cost", justify="right")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = make_corpus(folder, takes=16)
        results = {
            "start": bench_start(corpus, folder, rounds),
            "checkpoint": bench_checkpoint(R50, corpus, folder, rounds),
            "two processes": bench_two_processes(corpus, folder, rounds),
        }
    for each, (rows, good) in results.items():
        within[each] = good
        for row in rows:
            table.add_row(*row)
    console = Console(width=120)
    console.print(table)
    console.print(scaling_table(R50))
    for each, good in within.items():
        print(f"{each}: {'within' if good else 'NOT within'} {GOALS[each]}")
    return 0 if all(within.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

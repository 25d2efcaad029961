"""The processes of one training: a single one, or as many as torchrun started, on one machine or several.

    torchrun --nproc-per-node gpu -m -- trainer fit --config slowfast_face.yaml ... --run runs/first
    torchrun --nproc-per-node gpu --nnodes 4 --max-restarts 9 --rdzv-backend c10d --rdzv-endpoint HOST:29400 -m -- ...

(Without the `--` torchrun takes the trainer's --run for one of its own options.) All find the run directory under
the same path, several machines on a folder that they share, or each with the same checkpoints on a disk of its own.

Each computes its share of every batch; DistributedDataParallel averages the gradients. In validation and testing each
looks at its share of the videos. The first one, the leader, judges and writes. What they have to decide together (to
stop, to checkpoint, whether the loss is still a number) they decide on the same figures, gathered from all of them.
"""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from manifests.errors import UserError
from manifests.files import replacing, sha256_of
from trainer.run import Interrupted, Run

# A process that waits longer for another one gives up; its elastic agent then starts all of them again.
PATIENCE = timedelta(minutes=10)


@dataclass(frozen=True)
class Processes:
    """Which process this is, of how many. A single one needs no group, and none of the methods costs it anything."""

    rank: int = 0
    world: int = 1

    @property
    def leader(self) -> bool:
        return self.rank == 0

    def share(self, total: int) -> range:
        """The numbers below `total` that are this process's; every number is somebody's, and only one's."""
        return range(self.rank, total, self.world)

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The module to call in training: with several processes, one whose gradients are the mean over all."""
        if self.world == 1:
            return model
        # It would give everyone the leader's buffers before a step; `share_buffers` gives them the mean after it.
        return DistributedDataParallel(
            model, device_ids=[device.index] if device.type == "cuda" else None, forward_sync_buffers=False
        )

    def exchanging(self, module: nn.Module, really: bool) -> AbstractContextManager[Any]:
        """Whether a pass through the wrapped module, forward and back, exchanges gradients.

        Those of a pass that does not are kept, and travel with those of the next one that does.
        """
        return module.no_sync() if isinstance(module, DistributedDataParallel) and not really else nullcontext()

    def share_buffers(self, model: nn.Module) -> None:
        """Let every process have the mean over all of them of the model's buffers, BatchNorm's running statistics."""
        if self.world == 1:
            return
        buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        mean = torch.cat([buffer.flatten() for buffer in buffers])
        dist.all_reduce(mean)
        mean /= self.world
        for buffer, part in zip(buffers, mean.split([buffer.numel() for buffer in buffers]), strict=True):
            buffer.copy_(part.view_as(buffer))

    def gather(self, *values: float) -> Tensor:
        """These numbers from every process, on the CPU: `(world, len(values))`, float64."""
        own = torch.tensor(values, dtype=torch.float64)
        if self.world == 1:
            return own[None]
        own = own.to(_device_of_group())
        everyone = [torch.empty_like(own) for _ in range(self.world)]
        dist.all_gather(everyone, own)
        return torch.stack(everyone).cpu()

    def gather_shares(self, rows: Tensor, total: int) -> Tensor:
        """`(total, ...)` from each process's rows of its `share(total)`, in the order of the whole."""
        if self.world == 1:
            return rows
        parts = self.gather_objects(rows)
        # With fewer rows than processes some have none, and cannot know their shape; the leader always has one.
        whole = torch.empty((total, *parts[0].shape[1:]), dtype=parts[0].dtype)
        for rank, part in enumerate(parts[:total]):
            whole[rank :: self.world] = part
        return whole

    def gather_objects(self, value: Any) -> list[Any]:
        """`value` of every process, in the order of their ranks."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def leader_says(self, value: Any) -> Any:
        """The leader's `value`, in every process: none goes by what it saw on disk at a slightly other moment."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def hand_out(self, path: Path) -> None:
        """Let each machine have the leader's file: they share no folder, perhaps."""
        if self.world == 1:
            return
        digest = self.leader_says(sha256_of(path) if self.leader else None)
        lacks = not path.is_file() or sha256_of(path) != digest
        if not self.gather(lacks).any():
            return
        content = self.leader_says(path.read_bytes() if self.leader else None)
        if lacks:
            with replacing(path) as temporary:
                temporary.write_bytes(content)


ALONE = Processes()


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """The processes that torchrun has started, connected while the outermost context lasts; alone without torchrun.

    Raises UserError when this process's GPU is not there.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield ALONE
        return
    if dist.is_initialized():
        yield Processes(dist.get_rank(), world)
        return
    if device == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise UserError(
                f"process {local} of this machine has no GPU of its own, torch sees {torch.cuda.device_count()}; "
                "say torchrun --nproc-per-node gpu"
            )
        torch.cuda.set_device(local)
    store, rank, _ = next(rendezvous("env://", timeout=PATIENCE))
    store = dist.PrefixStore(meet(store, rank, world), store)
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=PATIENCE)
    try:
        yield Processes(dist.get_rank(), world)
    finally:
        dist.destroy_process_group()


def meet(store: dist.Store, rank: int, world: int) -> str:
    """A word that only the processes of this very start share, and all of them do; waits for those not here yet.

    torchrun keeps one store through all of its restarts, and gloo looks there for the others' addresses: those of the
    processes that died, if it comes too early, and then waits in vain (seen with torch 2.14).
    """
    mine = secrets.token_hex(8)
    store.set(f"here/{rank}", mine)
    while True:
        if rank == 0:
            store.set("all", " ".join(store.get(f"here/{each}").decode() for each in range(world)))
        # Whoever finds himself in it agrees; to a word with a dead one's name in it somebody never does.
        word = store.get("all").decode()
        if mine in word.split():
            store.set(f"agreed/{rank}", word)
            if all(store.get(f"agreed/{each}").decode() == word for each in range(world)):
                return word
        time.sleep(0.02)


def stop_together(run: Run, processes: Processes) -> None:
    """Raise Interrupted in every process if a signal has reached any: one that left alone would strand the others."""
    if signum := int(processes.gather(run.signal).max()):
        raise Interrupted(signum)


def _device_of_group() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")

"""One step on trial before a training that costs money: the real batch, the real network, on the device it is for.

Nothing is kept. What does not work shows here within a minute, with its cure, and not after an hour of loading.
"""

import shutil
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from manifests.clips import ClipStore
from manifests.errors import UserError
from manifests.files import replacing, write_json, writing_to
from manifests.table import Manifest
from trainer.batchsize import memory_errors_explained
from trainer.config import Config
from trainer.dataset import Clips
from trainer.learner import create_learner, make_deterministic
from trainer.loader import training_loader
from trainer.processes import ALONE
from trainer.sampling import TrainingOrder
from trainer.train import count_pieces, count_steps, learn
from trainer.wanted import batches_ahead, wait_for
from trainer.weights import cached, public_address
from trainer.workflow import choose_clips

# What CUDA says where it cannot be used -> what to do.
CURES = {
    "driver on your system is too old": "the machine image's driver is older than this image's CUDA needs: pin a newer "
    "machine image (make doctor names it), then make up",
    "Found no NVIDIA driver": "this machine has no GPU, or its container was started without one: choose a GPU "
    "instance type, or say device=cpu",
    "No CUDA GPUs are available": "the container does not see the machine's GPU: let a new machine start (make resume)",
    "no kernel image is available": "this GPU is older than what torch was built for: choose g4dn, g5 or g6",
    "not compiled with CUDA": "this torch is built for CPUs: install the CUDA build, or say device=cpu",
}


def preflight(config: Config, manifest: Manifest, store: ClipStore, processes: int, run: Path | None = None) -> str:
    """Do one step as each of `processes` will do it; return a line on what it took. Raises UserError with the cure.

    Shards that are not there are wanted in the directory of the `run` that will follow.
    """
    splits, _, _ = choose_clips(manifest, store)
    clips, classes = splits["train"], len(manifest.labels)
    count_steps(len(clips), config.data.batch, processes)
    if config.device == "cuda":
        check_gpus(processes)
    device = make_deterministic(config.seed, config.device, 0)
    share = config.data.model_copy(update={"batch": config.data.batch // processes, "workers": 0})
    config = config.model_copy(update={"data": share})
    pieces = count_pieces(config, clips, classes, device, ALONE, None)
    with memory_errors_explained(share.batch, pieces, auto=config.optim.accumulate == "auto"):
        learner = create_learner(config, clips, classes, config.optim.epochs, device, ALONE, None)
        loader = training_loader(config, clips, 0, ALONE)
        if share.shard_window and run:
            want_shards(run, clips, loader)
        drawn, targets = next(iter(loader))
        began = time.monotonic()
        loss = learn(config, learner, drawn, targets, 0, pieces)
    took = f"{time.monotonic() - began:.1f} s on the CPU"
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**30
        took = f"{time.monotonic() - began:.1f} s and {peak:.1f} GiB on {torch.cuda.get_device_name()}"
    return f"preflight: a step on {len(targets)} videos in {pieces} pieces took {took}; loss {loss:.3f}"


def want_shards(run: Path, clips: Clips, loader: DataLoader[Any]) -> None:
    order = loader.batch_sampler
    assert isinstance(order, TrainingOrder)
    numbers, in_use = order.shards_needed(0, batches_ahead(0))
    write_json(run / "wanted.json", {"in_use": in_use, "shards": [clips.store.shards[number] for number in numbers]})
    clips.store.wait = wait_for


def check_gpus(processes: int) -> None:
    """Raise UserError, with the cure, where CUDA does not work or there is no GPU for each process."""
    try:
        torch.cuda.init()
        torch.ones(1, device="cuda").sum().item()
    except (RuntimeError, AssertionError) as error:
        raise UserError(explain(str(error))) from None
    if (found := torch.cuda.device_count()) < processes:
        raise UserError(
            f"{processes} processes want a GPU each and torch sees {found}; choose a larger instance type, "
            f"or say processes={found}"
        )


def explain(said: str) -> str:
    """One sentence of what CUDA said, and the cure that is known for it."""
    cures = [cure for words, cure in CURES.items() if words in said]
    return "; ".join([f"CUDA does not work here: {said.splitlines()[0].partition('. ')[0].rstrip('.')}", *cures])


def take_weights(config: Config, folder: Path) -> None:
    """Put the pretrained weights where the trainer looks for what it fetched, if `folder` has a file of their name."""
    model = config.model
    if model.pretrained is None:
        return
    address = public_address(model.pretrained, model.arch, model.depth).partition("#")[0]
    given = folder / address.rpartition("/")[2]
    if "://" in address and given.is_file() and not (place := cached(address)).is_file():
        with writing_to(place.parent), replacing(place) as temporary:
            shutil.copyfile(given, temporary)
        print(f"pretrained weights: {given}, and not {address}")

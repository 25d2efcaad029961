"""A network asked about videos: its weights read from a run, and its logits for every view of every video."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from manifests.console import track
from trainer.checkpoint import load_weights
from trainer.dataset import Clips, TestViews
from trainer.loader import start_worker
from trainer.networks import create_model, normalisation, place, to_input
from trainer.processes import ALONE, Processes


def load_model(path: Path, device: str) -> tuple[nn.Module, dict[str, Any]]:
    """(network in eval mode, metadata) from a run's model.safetensors."""
    state, metadata = load_weights(path)
    settings = {key: value for key, value in metadata["model"].items() if key != "pretrained"}
    model = create_model(len(metadata["labels"]), **settings)
    model.load_state_dict(state)
    return place(model, torch.device(device)).eval(), metadata


def test_views(clips: Clips, metadata: dict[str, Any], views: int) -> TestViews:
    """The views of these clips that a model of this metadata expects."""
    data = metadata["data"]
    return TestViews(clips, frames=data["frames"], span=data["span"], size=data["size"], views=views)


@torch.inference_mode()
def predict_views(
    model: nn.Module,
    views: Dataset[tuple[Tensor, int]],
    device: torch.device,
    *,
    arch: str,
    batch: int,
    workers: int,
    flip: bool,
    loaded: int | None = None,
    each: Callable[[int], None] = lambda videos: None,
    title: str = "",
    processes: Processes = ALONE,
) -> Tensor:
    """Logits of every view of every video, on the CPU: `(videos, views, classes)`; `flip` doubles the views.

    The network sees `batch` views at once; `loaded` videos are brought at once, `batch` unless told otherwise.
    `arch` says which normalisation of pixels the network expects. `each` is called with the number of videos done, at
    first with 0, then after every batch; it may raise to stop. With a `title` people see how far it is. Several
    processes share the videos, each looked at by one; all get the logits of all, and call `each` equally often.
    """
    model.eval()
    total: int = len(views)  # type: ignore[arg-type]
    share = Subset(views, processes.share(total))
    loader = DataLoader(
        share, batch_size=loaded or batch, num_workers=workers, worker_init_fn=start_worker, generator=torch.Generator()
    )
    rounds = -(-total // ((loaded or batch) * processes.world))
    done: list[Tensor] = []
    videos = 0
    each(0)
    for clips, _ in track(loader, title, len(loader), "batches") if title and processes.leader else loader:
        # However many views there are, the network sees `batch` of them at once: more would need more memory, and more
        # time for each.
        for piece in clips.flatten(0, 1).split(batch):
            inputs = to_input(piece.to(device), *normalisation(arch))
            logits = model(inputs)
            if flip:
                logits = torch.stack([logits, model(inputs.flip(-1))], dim=1).flatten(0, 1)
            done.append(logits.float().cpu())
        videos += len(clips)
        each(min(videos * processes.world, total))
    for _ in range(rounds - len(loader)):  # others may have a batch more
        each(total)
    return processes.gather_shares(torch.cat(done).unflatten(0, (videos, -1)) if done else torch.empty(0), total)

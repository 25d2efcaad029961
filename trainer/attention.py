"""Where a network looks: Grad-CAM (Selvaraju et al., arXiv:1610.02391), over space and time; and when it decides."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from manifests.files import sha256_of
from trainer.dataset import Clips
from trainer.hardest import hardest, moments_of
from trainer.inference import test_views
from trainer.networks import normalisation, to_input
from trainer.record import read_predictions
from trainer.sampling import duration_of, spread_frames, view_frames

# A map of fewer cells on a side says no more than left or right: for small inputs an earlier stage is asked.
FEWEST_CELLS = 4


def watch(
    run: Path, model: nn.Module, metadata: dict[str, Any], test: Clips, views: int, device: str
) -> dict[str, Any]:  # fmt: skip
    """What attention.json holds: for each of the hardest videos what spoke for the emotion it was taken for, and when.

    At some moments of the video: a map of where that was, from the view that was nearest in time, and what the network
    would have answered had the video ended there.
    """
    dataset, labels = test_views(test, metadata, views), metadata["labels"]
    mean_and_deviation = normalisation(metadata["model"]["arch"])
    place_of = {clip_id: row for row, clip_id in enumerate(test.clip_ids)}
    clips = {}
    for prediction in hardest(read_predictions(run / "predictions.csv")):
        row = place_of[prediction.clip_id]
        video = test.store.open(prediction.clip_id)
        times, moments = video.times, moments_of(video.times)
        seen = times[view_frames(times, dataset.frames, dataset.span, views)]
        inputs = to_input(dataset[row][0].to(device), *mean_and_deviation)
        classes = torch.full((views,), labels.index(prediction.predicted), device=device)
        heat = grad_cam(model, inputs, classes).cpu().numpy()
        endings = dataset.show(video, frames_until(times, dataset.frames, dataset.span, moments))
        with torch.inference_mode():
            answers = torch.cat([model(to_input(few.to(device), *mean_and_deviation)) for few in endings.split(views)])
        clips[prediction.clip_id] = {
            "emotion": prediction.predicted,
            "seconds": np.round(moments - times[0], 3).tolist(),
            "maps": maps_at(moments, seconds_of_maps(seen, heat.shape[1]), heat),
            "probabilities": answers.float().softmax(-1).cpu().double().numpy().round(4).tolist(),
        }
    return {"weights_sha256": sha256_of(run / "model.safetensors"), "clips": clips}


def grad_cam(model: nn.Module, inputs: Tensor, classes: Tensor) -> Tensor:
    """What speaks for a class, place by place: `(B, 3, T, H, W)` normalised clips, `(B,)` classes -> `(B, t, h, w)`.

    From 0, in units of the logit. Asks the last residual stage whose map has FEWEST_CELLS on each side (of SlowFast the
    slow pathway's, which sees most of the detail), or else the first. `t` is 1 for a network without time.
    """
    stages = residual_stages(model)
    for stage in reversed(stages):
        maps, gradient = _activations(model, stage, inputs, classes)
        if min(maps.shape[-2:]) >= FEWEST_CELLS or stage is stages[0]:
            break
    if maps.ndim == 4:
        maps, gradient = maps.unsqueeze(2), gradient.unsqueeze(2)
    weights = gradient.mean(dim=(2, 3, 4), keepdim=True)
    return (weights * maps).sum(dim=1).relu()


def residual_stages(model: nn.Module) -> list[nn.Module]:
    """The stages between stem and head; of a network of two pathways those of the slow one."""
    prefixes: Any = model.stages
    stages: list[Any] = [model.get_submodule(names[0].removesuffix(".")) for names in prefixes[1:-1]]
    return [stage.multipathway_blocks[0] if hasattr(stage, "multipathway_blocks") else stage for stage in stages]


def _activations(model: nn.Module, stage: nn.Module, inputs: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """What a stage puts out, and how the logits of the classes would change with it."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        # Cut from what came before, so that only the rest of the network is differentiated.
        kept.append(output.detach().requires_grad_())
        return kept[-1]

    handle = stage.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            logits = model(inputs)
            (gradient,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), kept[0])
    finally:
        handle.remove()
    return kept[0].detach(), gradient


def maps_at(moments: NDArray[np.floating], seconds: NDArray[np.floating], heat: NDArray[np.floating]) -> list[Any]:
    """The map nearest to each moment, `(moments, h, w)` as whole per cent of the hottest place shown.

    `heat` `(views, t, h, w)` are the maps of some views of a video, `seconds` `(views, t)` when they were seen.
    """
    nearest = np.abs(seconds.reshape(-1, 1) - moments).argmin(axis=0)
    chosen = heat.reshape(-1, *heat.shape[2:])[nearest]
    return np.rint(100 * chosen / max(float(chosen.max()), 1e-12)).astype(int).tolist()


def frames_until(
    times: NDArray[np.floating], frames: int, span: float, moments: NDArray[np.floating]
) -> NDArray[np.integer]:
    """`(moments, frames)` indices of what a network would see of a video that ended at each moment, in seconds.

    The last `span` seconds before it, or all there is so far: the last of them is the view that ends with the video.
    """
    window = np.minimum(np.minimum(span, duration_of(times)), moments - times[0])
    return spread_frames(times, moments - window, window, frames)


def seconds_of_maps(times: NDArray[np.floating], maps: int) -> NDArray[np.floating]:
    """When each of a clip's maps was seen, `(views, maps)`: each stands for its share of the frames, `(views, T)`."""
    frames = times.shape[-1]
    middles = ((np.arange(maps) + 0.5) * frames / maps).astype(int)
    return times[:, middles]

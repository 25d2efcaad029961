"""Every network under one roof: made from a recipe's settings, filled from a checkpoint, fed with uint8 clips.

Each takes one tensor `(B, 3, T, H, W)`, gives logits `(B, classes)`, and lists its `stages`: the prefixes of its
parameters' names from the input to the head, by which rates are graded and stages frozen.
"""

from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from manifests.errors import UserError
from trainer.r3d import R3D18
from trainer.single_frame import SingleFrame
from trainer.slowfast import SlowFast

Network = SlowFast | R3D18 | SingleFrame
Triple = tuple[float, float, float]

# Mean and standard deviation of RGB in 0..1 that the public weights were trained with: PySlowFast's
# configs/Kinetics/SLOWFAST_8x8_R50.yaml, and the transforms of torchvision's R3D_18_Weights.KINETICS400_V1.
PYSLOWFAST: tuple[Triple, Triple] = ((0.45, 0.45, 0.45), (0.225, 0.225, 0.225))
TORCHVISION_VIDEO: tuple[Triple, Triple] = ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))
NORMALISATION = {"slowfast": PYSLOWFAST, "single_frame": PYSLOWFAST, "r3d18": TORCHVISION_VIDEO}


def create_model(
    classes: int,
    *,
    arch: str,
    depth: int,
    width: int,
    alpha: int,
    beta_inv: int,
    se_ratio: float | None,
    se_place: str,
    dropout: float,
) -> Network:
    """The network that the `model` section of a recipe describes, with random weights."""
    if arch == "single_frame":
        return SingleFrame(classes, dropout)
    if arch == "r3d18":
        return R3D18(classes, width, dropout)
    return SlowFast(classes, depth, width, alpha, beta_inv, se_ratio, se_place, dropout)


def load_pretrained(model: Network, path: Path) -> None:
    """Fill everything but the head and the SE gates from a checkpoint in pytorchvideo's or torchvision's layout.

    Raises UserError when the file is no checkpoint or holds another network.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError):
        raise UserError(f"{path} is not a checkpoint that torch can read; fetch it again") from None
    weights = {f"net.{key}": value for key, value in state.get("model_state", state).items()}
    head = model.stages[-1]
    weights = {key: value for key, value in weights.items() if not key.startswith(head)}
    own = model.state_dict()
    wrong = [key for key, value in weights.items() if key not in own or own[key].shape != value.shape]
    # Checkpoints from before torch 0.4 lack BatchNorm's count of batches, which nothing here reads.
    left = {key for key in own if key.startswith(head) or ".se." in key or key.endswith(".num_batches_tracked")}
    absent = [key for key in own if key not in weights and key not in left]
    if wrong or absent:
        raise UserError(
            f"{path} is not a checkpoint of this network: {len(wrong)} of its weights do not fit and {len(absent)} are "
            f"missing, the first is {(wrong + absent)[0]}; set model.arch, model.depth and model.width to those of the "
            "checkpoint"
        )
    model.load_state_dict(weights, strict=False)


def normalisation(arch: str) -> tuple[Triple, Triple]:
    """(mean, standard deviation) of each channel, RGB in 0..1, that a network of this kind expects."""
    return NORMALISATION[arch]


def to_input(frames: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """`(B, T, 3, H, W)` uint8 RGB -> `(B, 3, T, H, W)` float32, normalised, channels innermost in memory."""
    pixels = frames.transpose(1, 2).to(torch.float32, memory_format=torch.channels_last_3d)
    middle, width = (255 * torch.tensor(values, device=pixels.device).view(-1, 1, 1, 1) for values in (mean, std))
    return pixels.sub_(middle).div_(width)


def place(model: nn.Module, device: torch.device) -> nn.Module:
    """Move to the device, with channels innermost, the layout that convolutions are faster in."""
    flat = isinstance(model, SingleFrame)
    return model.to(device).to(memory_format=torch.channels_last if flat else torch.channels_last_3d)

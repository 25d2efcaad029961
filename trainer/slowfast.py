"""The networks: SlowFast with Squeeze-and-Excitation, and the single-frame baseline it has to beat.

Each takes one tensor `(B, 3, T, H, W)` and gives logits `(B, classes)`; what a pathway sees is taken inside.
"""

import warnings
from collections import OrderedDict
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from manifests.errors import UserError

with warnings.catch_warnings():
    # Importing pytorchvideo scripts a function of its own, at which torch warns; nobody here can act on that.
    warnings.simplefilter("ignore", FutureWarning)
    from pytorchvideo.models.resnet import create_bottleneck_block
    from pytorchvideo.models.slowfast import create_slowfast

# What the Kinetics-400 weights were trained on (PySlowFast configs/Kinetics/SLOWFAST_8x8_R50.yaml), RGB in 0..1.
MEAN = 0.45
STD = 0.225

HEAD_KEYS = {"blocks.6.proj.weight", "blocks.6.proj.bias"}


class SqueezeExcite(nn.Module):
    """Channel gates 2 * sigmoid(W2 relu(W1 mean(x))), which are exactly 1 while W2 and its bias are 0.

    Squeeze-and-Excitation is Hu et al., arXiv:1709.01507; the doubled gate lets a pretrained network keep its features
    untouched until training moves them, where the plain sigmoid would halve each block's output.
    """

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        squeezed = max(8, int(channels * ratio))
        self.fc1 = nn.Conv3d(channels, squeezed, kernel_size=1)
        self.fc2 = nn.Conv3d(squeezed, channels, kernel_size=1)

    def reset_to_identity(self) -> None:
        for parameter in self.fc2.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, T, H, W)` -> the same shape, each channel scaled."""
        squeezed = x.mean(dim=(2, 3, 4), keepdim=True)
        return x * (2 * torch.sigmoid(self.fc2(torch.relu(self.fc1(squeezed)))))


def create_squeezed_bottleneck(*, se_ratio: float, **kwargs: object) -> nn.Sequential:
    """pytorchvideo's bottleneck with a gate behind its last BatchNorm, before the residual sum.

    The gate is a new child, `se`: the names of all other weights stay those of the Kinetics checkpoint. A subclass
    would not do: BottleneckBlock's constructor sets every local name on itself, `__class__` among them.
    """
    block = create_bottleneck_block(**kwargs)
    gate = SqueezeExcite(block.conv_c.out_channels, se_ratio)
    return nn.Sequential(OrderedDict([*block.named_children(), ("se", gate)]))


class SlowFast(nn.Module):
    """SlowFast (Feichtenhofer et al., arXiv:1812.03982): a wide pathway on few frames, a thin one on all of them."""

    def __init__(
        self, classes: int, depth: int, width: int, alpha: int, beta_inv: int, se_ratio: float | None, dropout: float
    ) -> None:
        super().__init__()
        bottleneck = (
            create_bottleneck_block if se_ratio is None else partial(create_squeezed_bottleneck, se_ratio=se_ratio)
        )
        self.alpha = alpha
        self.net = create_slowfast(
            slowfast_channel_reduction_ratio=(beta_inv,),
            slowfast_fusion_conv_kernel_size=(7, 1, 1),
            slowfast_fusion_conv_stride=(alpha, 1, 1),
            model_depth=depth,
            model_num_class=classes,
            dropout_rate=dropout,
            stem_dim_outs=(width, width // beta_inv),
            bottleneck=bottleneck,
            # The default pool fits 32 frames of 224 px only; the adaptive one gives the same there and fits the rest.
            head_pool=nn.AdaptiveAvgPool3d,
            head_output_size=((1, 1, 1), (1, 1, 1)),
        )
        for module in self.net.modules():
            if isinstance(module, SqueezeExcite):
                # Only now: the builder's last act is to fill every convolution with random numbers, these too.
                module.reset_to_identity()
            elif isinstance(module, nn.Conv3d):
                _use_plain_integers(module)
            elif getattr(module, "block_final_bn", False):
                # The builder starts residual branches at zero. AdamW moves a gain by its rate at most per step, so from
                # scratch they would sleep for the first hundred steps; a checkpoint brings gains of its own.
                nn.init.ones_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, 3, T, H, W)`, normalised, T a multiple of alpha -> logits `(B, classes)`."""
        slow = x.index_select(2, slow_indices(x.shape[2], self.alpha, x.device))
        # A fresh list at each call: the blocks write their outputs into the list that they are given.
        return self.net([slow, x])


def slow_indices(frames: int, alpha: int, device: torch.device | None = None) -> Tensor:
    """Which fast frames the slow pathway sees: `(T // alpha,)`, spread from first to last and rounded down.

    The rule that the Kinetics weights were trained with: for 32 frames 0, 4, 8, 13, 17, 22, 26, 31.
    """
    return torch.linspace(0, frames - 1, frames // alpha, dtype=torch.float64, device=device).long()


def _use_plain_integers(conv: nn.Conv3d) -> None:
    """pytorchvideo leaves numpy integers in some convolutions, at which torch.compile and scripting stumble."""
    for name in ("kernel_size", "stride", "padding", "dilation"):
        setattr(conv, name, tuple(int(n) for n in getattr(conv, name)))


class SingleFrame(nn.Module):
    """The baseline without time: a ResNet-18 on one frame, a random one in training and the middle one in testing."""

    def __init__(self, classes: int, dropout: float) -> None:
        super().__init__()
        self.net = resnet18(num_classes=classes)
        self.net.fc = nn.Sequential(nn.Dropout(dropout), self.net.fc)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, 3, T, H, W)`, normalised -> logits `(B, classes)`."""
        batch, _, frames, _, _ = x.shape
        if self.training:
            chosen = torch.randint(frames, (batch,), device=x.device)
        else:
            chosen = torch.full((batch,), frames // 2, device=x.device)
        return self.net(x[torch.arange(batch, device=x.device), :, chosen])


def create_model(
    classes: int,
    *,
    arch: str,
    depth: int,
    width: int,
    alpha: int,
    beta_inv: int,
    se_ratio: float | None,
    dropout: float,
    pretrained: str | None,
) -> nn.Module:
    """The network that the `model` section of a recipe describes, with Kinetics weights if it names some."""
    if arch == "single_frame":
        return SingleFrame(classes, dropout)
    model = SlowFast(classes, depth, width, alpha, beta_inv, se_ratio, dropout)
    if pretrained is not None:
        load_kinetics(model, Path(pretrained))
    return model


def place(model: nn.Module, device: torch.device) -> nn.Module:
    """Move to the device, with channels innermost where convolutions are 3-D: that layout is the faster one there."""
    model = model.to(device)
    return model.to(memory_format=torch.channels_last_3d) if isinstance(model, SlowFast) else model


def to_input(frames: Tensor) -> Tensor:
    """`(B, T, 3, H, W)` uint8 RGB -> `(B, 3, T, H, W)` float32, normalised as the Kinetics weights expect."""
    pixels = frames.transpose(1, 2).to(torch.float32, memory_format=torch.channels_last_3d)
    return pixels.div_(255.0).sub_(MEAN).div_(STD)


def load_kinetics(model: SlowFast, path: Path) -> None:
    """Fill everything but the head and the SE gates from a pytorchvideo checkpoint (`{"model_state": ...}`).

    Raises UserError when the file is absent or holds another network.
    """
    if not path.is_file():
        raise UserError(
            f"no Kinetics weights at {path}; fetch SLOWFAST_8x8_R50.pyth from pytorchvideo's model zoo, "
            "or train from scratch with model.pretrained=null"
        )
    state = torch.load(path, map_location="cpu", weights_only=True)
    weights = {key: value for key, value in state.get("model_state", state).items() if key not in HEAD_KEYS}
    own = model.net.state_dict()
    wrong = [key for key, value in weights.items() if key not in own or own[key].shape != value.shape]
    absent = [key for key in own if key not in weights and key not in HEAD_KEYS and ".se." not in key]
    if wrong or absent:
        raise UserError(
            f"{path} is not a checkpoint of this network: {len(wrong)} of its weights do not fit and {len(absent)} are "
            f"missing, the first is {(wrong + absent)[0]}; set model.depth and model.width to those of the checkpoint"
        )
    model.net.load_state_dict(weights, strict=False)


def parameter_groups(model: nn.Module, lr: float, backbone_lr: float, weight_decay: float) -> list[dict[str, object]]:
    """AdamW groups: head and SE gates learn at `lr`, the rest at `backbone_lr`; vectors and gates are not decayed."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        fresh = ".se." in name or name.startswith(("net.blocks.6.", "net.fc."))
        decayed = parameter.ndim > 1 and ".se." not in name
        key = (lr if fresh else backbone_lr, weight_decay if decayed else 0.0)
        groups.setdefault(key, []).append(parameter)
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]

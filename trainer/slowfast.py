"""SlowFast with Squeeze-and-Excitation, its weights named as those of the Kinetics checkpoint."""

import warnings
from collections import OrderedDict
from functools import partial

import torch
from torch import Tensor, nn

with warnings.catch_warnings():
    # Importing pytorchvideo scripts a function of its own, at which torch warns; nobody here can act on that.
    warnings.simplefilter("ignore", FutureWarning)
    from pytorchvideo.models.resnet import create_bottleneck_block
    from pytorchvideo.models.slowfast import create_slowfast

# Over how many fast frames the pathways are joined: 7, but 5 in the R101 whose Kinetics weights are public.
FUSION_FRAMES = {101: 5}


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


def create_squeezed_bottleneck(*, se_ratio: float, se_place: str, **kwargs: object) -> nn.Sequential:
    """pytorchvideo's bottleneck with a gate: "residual" behind norm_c, before the sum, "inner" behind norm_b, as X3D.

    The inner gate sees a quarter of the channels and is 15 times cheaper. Either is a new child, `se`: the names of all
    other weights stay those of the Kinetics checkpoint. A subclass would not do: BottleneckBlock's constructor sets
    every local name on itself, `__class__` among them.
    """
    children = dict(create_bottleneck_block(**kwargs).named_children())
    gated, conv = {"residual": ("norm_c", "conv_c"), "inner": ("norm_b", "conv_b")}[se_place]
    gate = SqueezeExcite(children[conv].out_channels, se_ratio)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name, child in children.items():
        layers[name] = child
        if name == gated:
            layers["se"] = gate
    return nn.Sequential(layers)


class SlowFast(nn.Module):
    """SlowFast (Feichtenhofer et al., arXiv:1812.03982): a wide pathway on few frames, a thin one on all of them."""

    # The stem, the four residual stages, and the head; each stage ends in the fusion of its pathways.
    stages = (*((f"net.blocks.{index}.",) for index in range(5)), ("net.blocks.6.",))

    def __init__(
        self,
        classes: int,
        depth: int,
        width: int,
        alpha: int,
        beta_inv: int,
        se_ratio: float | None,
        se_place: str,
        dropout: float,
    ) -> None:
        super().__init__()
        bottleneck = create_bottleneck_block
        if se_ratio is not None:
            bottleneck = partial(create_squeezed_bottleneck, se_ratio=se_ratio, se_place=se_place)
        self.alpha = alpha
        self.net = create_slowfast(
            slowfast_channel_reduction_ratio=(beta_inv,),
            slowfast_fusion_conv_kernel_size=(FUSION_FRAMES.get(depth, 7), 1, 1),
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
    slow = frames // alpha
    return torch.arange(slow, device=device) * (frames - 1) // max(slow - 1, 1)


def _use_plain_integers(conv: nn.Conv3d) -> None:
    """pytorchvideo leaves numpy integers in some convolutions, at which torch.compile and scripting stumble."""
    for name in ("kernel_size", "stride", "padding", "dilation"):
        setattr(conv, name, tuple(int(n) for n in getattr(conv, name)))

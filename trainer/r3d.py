"""The baseline that looks at space and time with one kind of eye: R3D-18 (Tran et al., arXiv:1711.11248)."""

from collections import OrderedDict

from torch import Tensor, nn
from torchvision.models.video.resnet import BasicBlock, Conv3DSimple


class R3D18(nn.Module):
    """torchvision's r3d_18 at any width: the names of its weights are those of that checkpoint, which has 64."""

    stages = (("net.stem.",), ("net.layer1.",), ("net.layer2.",), ("net.layer3.",), ("net.layer4.",), ("net.fc.",))

    def __init__(self, classes: int, width: int, dropout: float) -> None:
        super().__init__()
        stem = nn.Sequential(
            nn.Conv3d(3, width, kernel_size=(3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
        )
        self.net = nn.Sequential(
            OrderedDict(
                stem=stem,
                layer1=_residual_layer(width, width, stride=1),
                layer2=_residual_layer(width, 2 * width, stride=2),
                layer3=_residual_layer(2 * width, 4 * width, stride=2),
                layer4=_residual_layer(4 * width, 8 * width, stride=2),
                avgpool=nn.AdaptiveAvgPool3d(1),
                flatten=nn.Flatten(),
                dropout=nn.Dropout(dropout),
                fc=nn.Linear(8 * width, classes),
            )
        )
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """`(B, 3, T, H, W)`, normalised -> logits `(B, classes)`."""
        return self.net(x)


def _residual_layer(channels_in: int, channels: int, stride: int) -> nn.Sequential:
    """Two blocks of two 3x3x3 convolutions; `stride` halves frames, height and width alike."""
    shortcut = None
    if stride != 1:
        conv = nn.Conv3d(channels_in, channels, kernel_size=1, stride=stride, bias=False)
        shortcut = nn.Sequential(conv, nn.BatchNorm3d(channels))
    return nn.Sequential(
        BasicBlock(channels_in, channels, Conv3DSimple, stride, shortcut),
        BasicBlock(channels, channels, Conv3DSimple),
    )

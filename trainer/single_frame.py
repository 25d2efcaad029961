"""The baseline without time: what one look at a face gives, which a network that sees motion has to beat."""

import torch
from torch import Tensor, nn
from torchvision.models import resnet18


class SingleFrame(nn.Module):
    """A ResNet-18 on one frame of the clip, a random one in training and the middle one in testing."""

    stages = (
        ("net.conv1.", "net.bn1."),
        ("net.layer1.",),
        ("net.layer2.",),
        ("net.layer3.",),
        ("net.layer4.",),
        ("net.fc.",),
    )

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

"""How the disturbances look: one frame of a test video in each of those that a single frame can show."""

import numpy as np
import torch

from manifests.clips import ClipStore
from trainer.dataset import resize_to, to_tensor
from trainer.hardest import data_uri
from trainer.robustness import DISTURBANCES

UNDISTURBED = "undisturbed"


def sample_pictures(store: ClipStore, clip_id: str, size: int) -> list[dict[str, str]]:
    """Name, severity and picture of each, the undisturbed first; as large as the network sees it, `size` pixels.

    What only time is disturbed by is left out.
    """
    video = store.open(clip_id)
    frame = resize_to(size)(to_tensor(video.frames([len(video) // 2])))
    shown = [{"name": UNDISTURBED, "severity": "", "picture": picture(frame)}]
    for disturbance in DISTURBANCES:
        disturbed = disturbance.apply(frame, torch.Generator().manual_seed(0))
        if not torch.equal(disturbed, frame):
            told = {"name": disturbance.name, "severity": disturbance.severity}
            shown.append({**told, "picture": picture(disturbed)})
    return shown


def picture(frame: torch.Tensor) -> str:
    """`(1, 3, H, W)` uint8 -> a JPEG that a page carries inside itself."""
    return data_uri(np.ascontiguousarray(frame[0].permute(1, 2, 0).numpy()))

"""Mixed precision: in which numbers a step computes, and how fp16 gradients are kept from vanishing."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.modules.module import register_module_forward_pre_hook

from manifests.errors import UserError

Amp = Literal["none", "bf16", "fp16", "auto"]
DTYPES = {"none": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def precision(name: Amp, device: torch.device) -> tuple[Callable[[], AbstractContextManager[Any]], GradScaler]:
    """(a maker of autocast contexts for forward passes, the scaler of the loss, which does nothing but for fp16).

    "auto" is bf16 on a GPU that has it, fp16 on another one, and nothing on a CPU. With fp16 a step whose gradients
    overflow is skipped and the scale is halved. Raises UserError for a GPU that can only imitate bf16, slower than
    float32.
    """
    on_gpu = device.type == "cuda"
    has_bf16 = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    if name == "auto":
        name = "bf16" if has_bf16 else "fp16" if on_gpu else "none"
    if name == "bf16" and on_gpu and not has_bf16:
        raise UserError(
            f"{torch.cuda.get_device_name(device)} has no bfloat16 (GPUs before Ampere have not); say optim.amp=auto"
        )
    scaler = GradScaler(device.type, enabled=name == "fp16")
    if name == "bf16" and device.type == "cpu":
        return bfloat16_on_cpu, scaler
    return partial(torch.autocast, device.type, DTYPES[name], enabled=name != "none"), scaler


@contextmanager
def bfloat16_on_cpu() -> Iterator[None]:
    """Autocast that refuses what torch 2.14 computes wrongly: raises UserError at the first such convolution.

    oneDNN's bfloat16 gradient of a convolution's weights reads memory that nobody wrote wherever a clip is shorter than
    the kernel (jit_bf16:avx512_core_bf16, seen for 2 frames and 3 taps, 2 to 4 and 5, 2 to 6 and 7).
    """
    hook = register_module_forward_pre_hook(_refuse_short_clips)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            yield
    finally:
        hook.remove()


def _refuse_short_clips(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    if isinstance(module, nn.Conv3d) and 1 < inputs[0].shape[2] < module.kernel_size[0]:
        raise UserError(
            f"a convolution over {module.kernel_size[0]} frames meets only {inputs[0].shape[2]}, for which torch's "
            "bfloat16 gradients are wrong on a CPU; say optim.amp=none, or raise data.frames"
        )

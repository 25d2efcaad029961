"""The trained network as a file: model.safetensors, model.pt2 (torch.export) or model.onnx, each run in the same way.

Whatever the file, what comes out of here takes uint8 pictures and gives logits: normalisation is part of the network.
"""

import importlib.util
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.passes import move_to_device_pass

from manifests.errors import UserError
from manifests.files import sha256_of
from trainer.inference import load_model
from trainer.networks import normalisation, to_input
from trainer.run import read_json

# Frames `(B, T, 3, H, W)` uint8 RGB -> logits `(B, classes)` float32, both on the CPU.
Network = Callable[[Tensor], Tensor]

KEY = "slowfast-emotion"  # under which an ONNX file's metadata_props hold ours
SIDECAR = "metadata.json"  # the file inside a .pt2 that does
INPUT, OUTPUT = "frames", "logits"


class WithPreprocessing(nn.Module):
    """A network that takes pictures as they are: `(B, T, 3, H, W)` uint8 RGB -> logits `(B, classes)`."""

    def __init__(self, network: nn.Module, arch: str) -> None:
        super().__init__()
        self.network = network
        self.mean, self.std = normalisation(arch)

    def forward(self, frames: Tensor) -> Tensor:
        return self.network(to_input(frames, self.mean, self.std))


def load_network(path: Path, device: str) -> tuple[Network, dict[str, Any]]:
    """(network, metadata) from a file of any of the three formats, told apart by its suffix.

    The metadata is that of model.safetensors with `temperature` (None without one) and `weights_sha256`, of the
    model.safetensors that it all comes from. Raises UserError when the file is absent or not one of ours, when a
    package that it needs is not installed, and when the GPU asked for is absent.
    """
    if not path.is_file():
        raise UserError(f"no model at {path}; train one: python -m trainer fit --help, or export one: "
                        "python -m trainer export --help")  # fmt: skip
    if path.suffix == ".onnx":
        return _load_onnx(path, device)
    check_device(device)
    if path.suffix == ".pt2":
        return _load_exported(path, device)
    network, metadata = load_module(path, device)
    return _on(network, device), metadata


def load_module(path: Path, device: str) -> tuple[WithPreprocessing, dict[str, Any]]:
    """(network in eval mode, metadata as of `load_network`) from a model.safetensors; raises UserError likewise."""
    network, metadata = load_model(path, device)
    digest = sha256_of(path)
    extra = {"temperature": known_temperature(path, digest), "weights_sha256": digest}
    return WithPreprocessing(network, metadata["model"]["arch"]).eval(), {**metadata, **extra}


def check_device(device: str) -> None:
    """Raise UserError if the GPU that was asked for is absent: the CPU does not quietly step in."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda, but torch sees no GPU here (driver or container?); for the CPU: --device cpu")


def check_onnx(*packages: str) -> None:
    """Raise UserError if one of the optional packages that ONNX takes is not installed."""
    absent = [package for package in packages if importlib.util.find_spec(package) is None]
    if absent:
        raise UserError(
            f"ONNX needs {' and '.join(absent)}, which {'is' if len(absent) == 1 else 'are'} not installed: "
            "pip install onnx onnxscript onnxruntime"
        )


def known_temperature(weights: Path, digest: str) -> float | None:
    """The temperature that the evaluation of these very weights has fitted, from the evaluation.json beside them."""
    evaluation = read_json(weights.parent / "evaluation.json")
    if evaluation is None or evaluation["weights_sha256"] != digest:
        return None
    return evaluation["temperature"]["value"] if "temperature" in evaluation else None


def _load_exported(path: Path, device: str) -> tuple[Network, dict[str, Any]]:
    try:
        # Looked into first: torch answers a file that it cannot read with its own traceback on stderr.
        with zipfile.ZipFile(path) as archive:
            (inside,) = [name for name in archive.namelist() if name.endswith(f"/extra/{SIDECAR}")]
            metadata = json.loads(archive.read(inside))
    except (zipfile.BadZipFile, ValueError):
        raise _not_ours(path) from None
    program = torch.export.load(path)
    if device != "cpu":
        program = move_to_device_pass(program, device)
    return _on(program.module(), device), metadata


def _on(module: nn.Module, device: str) -> Network:
    return lambda frames: module(frames.to(device)).float().cpu()


def _load_onnx(path: Path, device: str) -> tuple[Network, dict[str, Any]]:
    check_onnx("onnxruntime")
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import (
        Fail,
        InvalidArgument,
        InvalidProtobuf,
    )

    provider = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors: what it warns of, such as a GPU that it cannot use, is checked below
    try:
        able = provider in onnxruntime.get_available_providers()
        session = onnxruntime.InferenceSession(path, options, providers=[provider] if able else [])
        metadata = json.loads(session.get_modelmeta().custom_metadata_map[KEY])
    except (Fail, InvalidArgument, InvalidProtobuf, KeyError):
        raise _not_ours(path) from None
    # A provider whose driver is missing gives way to the CPU without an error.
    if session.get_providers()[0] != provider:
        raise UserError(
            "--device cuda, but this onnxruntime cannot use a GPU here; pip install onnxruntime-gpu on a machine that "
            "has one, or for the CPU: --device cpu"
        )
    return lambda frames: torch.from_numpy(session.run([OUTPUT], {INPUT: frames.numpy()})[0]), metadata


def _not_ours(path: Path) -> UserError:
    return UserError(
        f"{path} is not a model of this project (or is cut short); give a run's model.safetensors, or what "
        "python -m trainer export made of it"
    )

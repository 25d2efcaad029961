"""A run's network in files that other programs run: model.pt2 for PyTorch, model.onnx for everything else.

Each takes pictures as they are, uint8, and carries the labels and all that is to be known of its input. A file is kept
only if it gives the probabilities that model.safetensors gives; what each takes per clip is measured on the way.
"""

import json
import statistics
import time
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from manifests.clips import ClipStore, read_index
from manifests.console import track
from manifests.errors import UserError
from manifests.files import replacing, sha256_of, write_json
from trainer.dataset import resize_to, to_tensor
from trainer.formats import INPUT, KEY, OUTPUT, SIDECAR, Network, check_onnx, load_module, load_network
from trainer.run import read_json
from trainer.sampling import view_frames

FILES = {"export": "model.pt2", "onnx": "model.onnx"}
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OPSET = 20  # what torch's exporter writes without converting afterwards
TOLERANCE = 1e-4  # in a probability
NOISE_BATCHES = (1, 3)  # of two sizes, as any batch must do
FACES = 8  # prepared clips, spread over the folder
TIMED = 10  # clips, one at a time


def export_run(run: Path, out: Path, formats: Sequence[str], store: ClipStore | None) -> tuple[dict[str, Any], bool]:
    """Write the files of `formats` (keys of FILES) and export.json into `out`; (what that holds, whether it is new).

    Files that are there already, of these weights, are left as they are. `store` gives prepared clips to check on,
    besides noise. Raises UserError when the run has no weights, a package is missing, or a file gives other
    probabilities than the weights.
    """
    if "onnx" in formats:
        check_onnx(*ONNX_PACKAGES)
    module, metadata = load_module(run / "model.safetensors", "cpu")
    same = {"weights_sha256": metadata["weights_sha256"], "temperature": metadata["temperature"]}
    known = read_json(out / "export.json")
    rows = dict(known["formats"]) if known is not None and same.items() <= known.items() else {}
    rows = {name: row for name, row in rows.items() if name not in FILES or is_there(out / FILES[name], row, store)}
    absent = [name for name in formats if name not in rows]
    if known is not None and not absent:
        return known, False

    tellable = {**metadata, **describe_tensors(metadata)}
    batches = {"noise": noise(metadata), "faces": faces(store, metadata) if store else []}
    program = trace(module, metadata)
    for name in track(absent, "exporting", len(absent), "files"):
        path = out / FILES[name]
        with replacing(path) as temporary:
            write = {"export": write_exported, "onnx": write_onnx}[name]
            write(program, temporary, tellable)
            network, _ = load_network(temporary, "cpu")
            differences = {kind: difference(module, network, some) for kind, some in batches.items()}
            check_differences(path, differences)
        rows[name] = {"sha256": sha256_of(path), "bytes": path.stat().st_size, "max_difference": differences}
    rows["safetensors"] = {"bytes": (run / "model.safetensors").stat().st_size}
    # All of them, those that were there already too: times of different hours are not to be compared.
    networks = {name: load_network(out / FILES[name], "cpu")[0] if name in FILES else module for name in rows}
    for name, milliseconds in latencies(networks, batches["noise"][0][:1]).items():
        rows[name]["ms_per_clip"] = milliseconds
    result: dict[str, Any] = {
        **same,
        "labels": metadata["labels"],
        **describe_tensors(metadata),
        "onnx_opset": OPSET,
        "threads": torch.get_num_threads(),
        "timed_clips": TIMED,
        "versions": {name: version(name) for name in ("torch", *(ONNX_PACKAGES if "onnx" in rows else ()))},
        "formats": rows,
    }
    write_json(out / "export.json", result)
    return result, True


def is_there(path: Path, row: Mapping[str, Any], store: ClipStore | None) -> bool:
    """Whether the file is what export.json says, and was checked on faces if that is asked for."""
    checked = store is None or row["max_difference"]["faces"] is not None
    return checked and path.is_file() and sha256_of(path) == row["sha256"]


def describe_tensors(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What goes into the exported network and what comes out, for those who have nothing but the file."""
    data, margin = metadata["data"], metadata["clips"]["margin"]
    temperature = metadata["temperature"]
    tempered = "" if temperature is None else f", after division by the temperature {temperature:g},"
    return {
        "input": {
            "name": INPUT,
            "shape": ["batch", data["frames"], 3, data["size"], data["size"]],
            "type": "uint8",
            "meaning": f"RGB pictures at even distances over {data['span']:g} seconds of one face, all cut to one "
            f"square, {1 + margin:g} times the face's size; not normalised, the network does that",
        },
        "output": {
            "name": OUTPUT,
            "shape": ["batch", len(metadata["labels"])],
            "type": "float32",
            "meaning": f"their softmax{tempered} gives the probabilities of the labels, in their order",
        },
    }


def trace(module: nn.Module, metadata: Mapping[str, Any]) -> ExportedProgram:
    """The network as a graph for any number of clips of the size that it was trained on."""
    example = torch.zeros(2, *clip_shape(metadata), dtype=torch.uint8)
    with torch.no_grad():
        program = torch.export.export(module, (example,), dynamic_shapes=({0: Dim("batch")},))
    for node in program.graph.nodes:
        # Where each operation stands in the sources, with the paths of this machine: nothing to give away.
        node.meta.pop("stack_trace", None)
    return program


def clip_shape(metadata: Mapping[str, Any]) -> tuple[int, int, int, int]:
    data = metadata["data"]
    return data["frames"], 3, data["size"], data["size"]


def write_exported(program: ExportedProgram, path: Path, metadata: Mapping[str, Any]) -> None:
    # To a stream: given a path, torch writes its name, a temporary one, into the file.
    with path.open("wb") as stream, warnings.catch_warnings():
        # Weights whose channels are innermost count as incomplete, which matters only where weights share memory.
        warnings.filterwarnings("ignore", "No complete tensor found")
        torch.export.save(program, stream, extra_files={SIDECAR: json.dumps(metadata)})


def write_onnx(program: ExportedProgram, path: Path, metadata: Mapping[str, Any]) -> None:
    made = torch.onnx.export(
        program, input_names=[INPUT], output_names=[OUTPUT], dynamic_shapes=({0: "batch"},), opset_version=OPSET,
        verbose=False,
    )  # fmt: skip
    assert made is not None
    made.model.metadata_props[KEY] = json.dumps(metadata)
    made.save(path, external_data=False)


def noise(metadata: Mapping[str, Any]) -> list[Tensor]:
    """Batches of random pictures, `(B, T, 3, H, W)` uint8, the same every time."""
    generator = torch.Generator().manual_seed(0)
    shape = clip_shape(metadata)
    return [torch.randint(256, (size, *shape), dtype=torch.uint8, generator=generator) for size in NOISE_BATCHES]


def faces(store: ClipStore, metadata: Mapping[str, Any]) -> list[Tensor]:
    """The middle view of some prepared clips, one batch `(1, T, 3, H, W)` uint8 each."""
    data, ids = metadata["data"], [row["clip_id"] for row in read_index(store.root)]
    resize = resize_to(data["size"])
    batches = []
    for place in np.unique(np.linspace(0, len(ids) - 1, FACES).round().astype(int)):
        video = store.open(ids[place])
        indices = view_frames(video.times, data["frames"], data["span"], 1)[0]
        batches.append(resize(to_tensor(video.frames(indices)))[None])
    return batches


@torch.inference_mode()
def difference(first: Network, second: Network, batches: Sequence[Tensor]) -> dict[str, float] | None:
    """The largest difference between two networks over batches, in a logit and in a probability; None without any."""
    pairs = [(first(frames), second(frames)) for frames in batches]
    if not pairs:
        return None
    apart = [
        (float((one - two).abs().max()), float((one.softmax(-1) - two.softmax(-1)).abs().max())) for one, two in pairs
    ]
    logits, probabilities = (max(column) for column in zip(*apart, strict=True))
    return {"clips": sum(map(len, batches)), "logits": logits, "probabilities": probabilities}


def check_differences(path: Path, differences: Mapping[str, dict[str, float] | None]) -> None:
    for kind, measured in differences.items():
        # Put this way, a difference that is no number does not pass.
        if measured is not None and not measured["probabilities"] <= TOLERANCE:
            raise UserError(
                f"{path} would differ from model.safetensors by up to {measured['probabilities']:.2g} in a probability "
                f"on {kind} and was not kept; another version of torch or onnxruntime may do better"
            )


@torch.inference_mode()
def latencies(networks: Mapping[str, Network], clip: Tensor) -> dict[str, float]:
    """Milliseconds that each network takes for one clip `(1, T, 3, H, W)`, the median of TIMED after one not counted.

    They take turns, so that whatever else the machine does burdens them alike.
    """
    times: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(1 + TIMED):
        for name, network in networks.items():
            started = time.perf_counter()
            network(clip)
            times[name].append(1000 * (time.perf_counter() - started))
    return {name: round(statistics.median(taken[1:]), 2) for name, taken in times.items()}


def table(result: Mapping[str, Any]) -> str:
    """What export.json says, as lines for people: a row per file, then how it was measured."""
    lines = [f"{'file':<18}{'MB':>8}{'ms per clip':>13}{'largest difference on noise':>29}{'on faces':>10}"]
    for name in ("safetensors", *FILES):
        if row := result["formats"].get(name):
            apart = row.get("max_difference", {"noise": None, "faces": None})
            noise, faces = (f"{apart[kind]['probabilities']:.0e}" if apart[kind] else "" for kind in ("noise", "faces"))
            file = FILES.get(name, "model.safetensors")
            line = f"{file:<18}{row['bytes'] / 1e6:>8.1f}{row['ms_per_clip']:>13.1f}{noise:>29}{faces:>10}"
            lines.append(line.rstrip())
    opset = f"; ONNX opset {result['onnx_opset']}" if "onnx" in result["formats"] else ""
    threads = result["threads"]
    lines.append(
        f"CPU, {threads} thread{'' if threads == 1 else 's'}, median of {result['timed_clips']} clips, one at a time "
        f"and in turns; differences in a probability{opset}"
    )
    return "\n".join(lines)

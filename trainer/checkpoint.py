"""Checkpoints that are whole or absent, and the weights file that leaves the run.

`checkpoints/last.json` names the newest whole checkpoint and its sha256; it is replaced only when that file is safe on
disk, and the checkpoint before is deleted only after that. Whatever moment a kill picks, one good checkpoint remains.
"""

import json
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from manifests.errors import UserError
from manifests.files import replacing, sha256_of, write_json, writing_to

KEPT = 2


def save_checkpoint(folder: Path, name: str, state: dict[str, Any]) -> None:
    """Write `state` as the newest checkpoint; `name` is unlike those of other states, `step-00000340` for example.

    Raises UserError when the disk is full or closed; the checkpoint before stays the newest one.
    """
    file = f"{name}.pt"
    with writing_to(folder), replacing(folder / file) as temporary:
        _write(state, temporary)
        digest = sha256_of(temporary)
    history = [entry for entry in _history(folder) if entry["file"] != file]
    history = [{"file": file, "sha256": digest}, *history][:KEPT]
    write_json(folder / "last.json", history)
    named = {entry["file"] for entry in history}
    for old in folder.glob("step-*.pt"):
        if old.name not in named:
            old.unlink()


def _write(state: dict[str, Any], path: Path) -> None:
    with path.open("wb") as stream:
        try:
            torch.save(state, stream)
        except RuntimeError as error:
            # torch's writer stumbles once more over what the disk has refused, and says only that.
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint whose bytes are what was written, or None if there is none.

    Raises UserError when checkpoints are named but every one of them is damaged, or one is not ours:
    starting over is the user's to decide.
    """
    history = _history(folder)
    for entry in history:
        path = folder / entry["file"]
        if path.is_file() and sha256_of(path) == entry["sha256"]:
            try:
                # Whoever may write to the bucket that it was in shall not run code here.
                state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            except UnpicklingError:
                raise UserError(
                    f"{path} is no checkpoint of ours: it holds more than numbers; delete {folder} to start over"
                ) from None
            return state
    if history:
        raise UserError(
            f"every checkpoint in {folder} is damaged; restore one from a backup, or delete the folder to start over"
        )
    return None


def _history(folder: Path) -> list[dict[str, Any]]:
    path = folder / "last.json"
    entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return entries


def save_weights(path: Path, state: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write model.safetensors; the metadata (labels, preprocessing, network) is all that `predict` needs beside it."""
    with replacing(path) as temporary:
        tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
        save_file(tensors, temporary, metadata={"slowfast-emotion": json.dumps(metadata)})


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(state, metadata) of a model.safetensors. Raises UserError when it is absent or not one of ours."""
    if not path.is_file():
        raise UserError(f"no weights at {path}; train first: python -m trainer fit --help")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {})["slowfast-emotion"])
            return {key: file.get_tensor(key) for key in file.keys()}, metadata  # noqa: SIM118 (not a dict)
    except (KeyError, SafetensorError):
        raise UserError(
            f"{path} is not a model of this project (or is cut short); give a run's model.safetensors"
        ) from None

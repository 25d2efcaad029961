"""Pretrained weights from wherever they are: fetched once, whole or not at all, and the same bytes ever after."""

import math
import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from manifests.console import track
from manifests.errors import UserError
from manifests.files import DISK_ERRORS, replacing, sha256_of, write_text, writing_to
from manifests.sources import is_s3, s3_client

MODEL_ZOO = "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics"
BLOCK = 1 << 20
PATIENCE = 30.0


def fetch_weights(source: str, arch: str, depth: int) -> tuple[Path, str]:
    """(local file, its sha256) of the weights at a path, an `s3://` or `https://` address, or of `kinetics400`.

    `kinetics400` means the public weights of this network; `#sha256=DIGITS` behind any source says how the hash must
    begin. What is fetched stays in the cache. The sha256 is recorded at first use and checked ever after.
    Raises UserError when the file cannot be had or is not the one that it was.
    """
    place, _, promised = public_address(source, arch, depth).partition("#sha256=")
    path = cached(place) if "://" in place else Path(place).expanduser()
    if "://" in place and not path.is_file():
        with writing_to(path.parent), replacing(path) as temporary:
            download(place, temporary)
    if not path.is_file():
        raise UserError(
            f"no weights at {path}; set model.pretrained to a path, an s3:// or https:// address, kinetics400 for the "
            "public ones, or null to train from scratch"
        )
    digest = sha256_of(path)
    if not digest.startswith(promised):
        raise UserError(f"{path} has the sha256 {digest} and not {promised}; delete it, or correct model.pretrained")
    compare_with_record(path, digest)
    return path, digest


def public_address(source: str, arch: str, depth: int) -> str:
    """The source itself; for `kinetics400`, where the public weights of this network are."""
    if source != "kinetics400":
        return source
    # From pytorchvideo.models.hub.slowfast and torchvision's R3D_18_Weights, whose file is named by its sha256.
    match arch, depth:
        case "slowfast", 50:
            return f"{MODEL_ZOO}/SLOWFAST_8x8_R50.pyth"
        case "slowfast", 101:
            return f"{MODEL_ZOO}/SLOWFAST_8x8_R101.pyth"
        case "r3d18", _:
            return "https://download.pytorch.org/models/r3d_18-b3b3357e.pth#sha256=b3b3357e"
    raise UserError(
        f"there are no public Kinetics-400 weights of {arch} with model.depth={depth}; train from scratch with "
        "model.pretrained=null, or set it to a checkpoint of your own"
    )


def cached(address: str) -> Path:
    """Where the cache keeps what is at an address: in folders named as the address is."""
    parts = urlsplit(address)
    return cache() / parts.scheme / parts.netloc / unquote(parts.path).lstrip("/")


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "slowfast-emotion" / "weights"


def download(address: str, path: Path) -> None:
    """Write what is at an address into `path`, with a progress bar. Raises UserError if not every byte arrives."""
    with opened(address) as (length, stream), path.open("wb") as file:
        blocks = math.ceil(length / BLOCK)
        for _ in track(range(blocks), f"fetching {address}", blocks, "MiB"):
            file.write(stream.read(BLOCK))
    arrived = path.stat().st_size
    if arrived != length:
        raise UserError(f"{address} broke off after {arrived} of {length} bytes; run the same command again")


@contextmanager
def opened(address: str) -> Iterator[tuple[int, Any]]:
    """(bytes, stream) of what is at an address. Raises UserError, with another way to the file, for any failure."""
    if is_s3(address):
        bucket, _, key = address.removeprefix("s3://").partition("/")
        with s3_client(address) as client:
            answer = client.get_object(Bucket=bucket, Key=key)
            yield answer["ContentLength"], answer["Body"]
        return
    try:
        with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
            if answer.headers["Content-Length"] is None:
                raise HTTPException("it does not say its length, so that a torn download would pass for a whole one")
            yield int(answer.headers["Content-Length"]), answer
    except (OSError, HTTPException) as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        raise UserError(
            f"cannot fetch {address} ({error}); fetch it on a machine that can, copy it here and set model.pretrained "
            "to its path, or train from scratch with model.pretrained=null"
        ) from error


def compare_with_record(path: Path, digest: str) -> None:
    """Refuse a file that is not what it was at its first use; record it if this is that use.

    The record is `<file>.sha256` in the words of `sha256sum`; beside a file in a folder that is closed to us it goes to
    the cache instead.
    """
    beside = path.with_name(f"{path.name}.sha256")
    elsewhere = cache() / "records" / beside.absolute().relative_to("/")
    for record in (beside, elsewhere):
        if record.is_file():
            known = record.read_text(encoding="utf-8").partition(" ")[0]
            if known != digest:
                raise UserError(
                    f"{path} is not the file that it was: sha256 {known} at first use, {digest} now; put the old one "
                    f"back, or delete {record} to take the new one"
                )
            return
    line = f"{digest}  {path.name}\n"
    try:
        write_text(beside, line)
    except OSError:
        with writing_to(elsewhere.parent):
            write_text(elsewhere, line)

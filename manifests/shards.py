"""Prepared clips packed for an object store: a million small files become some thousand tar files, read at random.

A shard is a plain tar of clip files. `shards.csv` says in which shard, and where in it, each clip lies, so that a clip
is read from a shard as it is from a file of its own. Packing again packs only what is new.
"""

import hashlib
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

from manifests.clipfile import clip_path
from manifests.clips import ClipStore, read_index, read_shards, write_shards
from manifests.console import track
from manifests.errors import UserError
from manifests.files import replacing, writing_to

TAR_HEADER = 512  # bytes before a member's own
TABLES = ("rule.json", "index.csv", "rejected.csv")


def pack(clips: Path, out: Path, shard_bytes: int = 256 * 2**20) -> str:
    """Pack the folder that prepare made into `out`, itself a store; return one line that says what was done.

    Raises UserError when the folder holds no prepared clips, or `out` clips of another rule.
    """
    store = ClipStore(clips)
    if Path(out).resolve() == Path(clips).resolve():
        raise UserError(f"{out} is the folder to be packed: give another --out")
    if (out / "index.csv").exists() and ClipStore(out).rule != store.rule:
        raise UserError(f"{out} holds shards of clips prepared by another rule: give another --out")
    known = {row["key"]: row for row in read_shards(out) if (out / row["shard"]).exists()}
    keys = sorted({row["key"] for row in read_index(clips)} - known.keys())
    if absent := [key for key in keys if not clip_path(clips, key).exists()]:
        raise UserError(f"{clips} lacks {len(absent)} clips of its index, as {absent[0]}: run prepare on it again")
    sizes = {key: clip_path(clips, key).stat().st_size for key in keys}
    groups = list(_groups(sizes, shard_bytes))
    with writing_to(out):
        for group in track(groups, "packing", len(groups), "shards") if groups else ():
            known |= {row["key"]: row for row in _write_shard(clips, out, group)}
        # Shards first, then where they are, then which clips there are: no reader finds a clip without its bytes.
        if groups:
            write_shards(out, (known[key] for key in sorted(known)))
        for name in TABLES:
            with replacing(out / name) as temporary:
                shutil.copyfile(clips / name, temporary)
    if not groups:
        return f"nothing to do: {len(store)} clips are packed in {out}"
    shards = len({row["shard"] for row in known.values()})
    fresh = f"{len(groups)} of them new ({sum(sizes.values()) / 1e6:.0f} MB)"
    return f"{len(store)} clips are packed in {out}: {shards} shards, {fresh}"


def _groups(sizes: dict[str, int], shard_bytes: int) -> Iterator[list[str]]:
    """Keys in turn, as many as fill a shard."""
    group: list[str] = []
    held = 0
    for key, size in sizes.items():
        group.append(key)
        held += size
        if held >= shard_bytes:
            yield group
            group, held = [], 0
    if group:
        yield group


def _write_shard(clips: Path, out: Path, keys: list[str]) -> list[dict[str, str]]:
    """Write one shard, named by what is in it; return where in it each clip lies."""
    name = f"shard-{hashlib.sha256(''.join(keys).encode()).hexdigest()[:16]}.tar"
    rows = []
    with replacing(out / name) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key in keys:
            path = clip_path(clips, key)
            member = tarfile.TarInfo(path.name)  # no owner, no time: the same clips give the same bytes
            member.size = path.stat().st_size
            rows.append({"key": key, "shard": name, "start": str(tar.offset + TAR_HEADER), "bytes": str(member.size)})
            with path.open("rb") as stream:
                tar.addfile(member, stream)
    return rows

"""The store of prepared clips: what goes in comes out, any frames in any order, and nothing half-written is read."""

import json
import multiprocessing
import os
import pickle
import tarfile
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import films
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.clipfile import clip_path, encode_frame, read_clip, write_clip
from manifests.clips import (
    ClipStore,
    Rule,
    claim_folder,
    index_row,
    preparing_in,
    read_index,
    read_rejected,
    update_tables,
)
from manifests.errors import UserError
from manifests.faces import Square, crop_square
from manifests.shards import pack

RULE = Rule(size=64)


def some_frames(count: int = 12) -> list[np.ndarray]:
    return [crop_square(frame, Square(140, 80, 200), RULE.size) for frame in films.face_frames(count)]


def stored(root: Path, clip_id: str = "crema_1001_DFA_HAP_XX", source: str = "00", count: int = 12) -> str:
    """Put a clip of a drawn face into a store; return its key."""
    claim_folder(root, RULE)
    key = RULE.key(source)
    meta = {"clip_id": clip_id, "rule": asdict(RULE), "frames": count, "seconds": count / 30, "box_x": 1, "box_y": 2}
    meta |= {"box_side": 200, "face_size": 150.0, "score": 0.93, "miss_rate": 0.0}
    jpegs = [encode_frame(frame) for frame in some_frames(count)]
    path = write_clip(root, key, jpegs, [n / 30 for n in range(count)], meta)
    update_tables(root, [index_row(clip_id, clip_id[:10], f"{clip_id}.flv", read_clip(path))], [])
    return key


def test_frames_come_back_as_they_went_in(tmp_path: Path) -> None:
    stored(tmp_path)
    clip = ClipStore(tmp_path).open("crema_1001_DFA_HAP_XX")
    frames = clip.frames(range(12))
    assert frames.shape == (12, 64, 64, 3)
    assert frames.dtype == np.uint8
    assert np.abs(frames.astype(int) - np.stack(some_frames())).mean() < 2.5
    np.testing.assert_allclose(clip.times, np.arange(12) / 30, atol=1e-6)
    assert clip.meta["face_size"] == 150.0
    assert len(clip) == 12


def test_any_frames_in_any_order_are_the_same_as_all_frames(tmp_path: Path) -> None:
    stored(tmp_path)
    clip = ClipStore(tmp_path).open("crema_1001_DFA_HAP_XX")
    everything = clip.frames(range(12))

    @given(st.lists(st.integers(0, 11), max_size=20))
    def picked(indices: list[int]) -> None:
        np.testing.assert_array_equal(clip.frames(np.array(indices, int)), everything[indices])

    picked()


def test_frames_are_read_at_the_smallest_size_that_is_large_enough(tmp_path: Path) -> None:
    stored(tmp_path)
    clip = ClipStore(tmp_path).open("crema_1001_DFA_HAP_XX")
    whole = clip.frames([3, 7])
    for at_least, side in ((64, 64), (33, 64), (32, 32), (17, 32), (9, 16), (8, 8), (1, 8), (100, 64), (None, 64)):
        small = clip.frames([3, 7], at_least)
        assert small.shape == (2, side, side, 3)
        averaged = np.stack([cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA) for frame in whole])
        assert np.abs(small.astype(int) - averaged).mean() < 2
    assert np.array_equal(clip.frames([7, 3, 7], 32), clip.frames([3, 7], 32)[[1, 0, 1]])


def test_a_key_names_everything_that_shapes_a_clip() -> None:
    rule = Rule()
    others = [
        replace(rule, size=160),
        replace(rule, margin=0.25),
        replace(rule, no_face="crop"),
        replace(rule, detector="another"),
        replace(rule, stride=0.2),
        replace(rule, max_fps=25.0),
        replace(rule, quality=80),
        replace(rule, version=99),
        replace(rule, roll=True),
    ]
    assert len(asdict(rule)) == len(others)
    keys = {r.key("ab") for r in (rule, *others)} | {rule.key("cd")}
    assert len(keys) == len(others) + 2


def test_a_store_survives_pickling_and_holds_no_file_open(tmp_path: Path) -> None:
    stored(tmp_path)
    store = pickle.loads(pickle.dumps(ClipStore(tmp_path)))
    assert "crema_1001_DFA_HAP_XX" in store
    assert "crema_1001_DFA_HAP" not in store
    assert len(store) == 1
    assert store.open("crema_1001_DFA_HAP_XX").frames([3]).shape == (1, 64, 64, 3)


def test_the_store_of_forty_thousand_clips_is_small_and_finds_each(tmp_path: Path) -> None:
    claim_folder(tmp_path, RULE)
    names = [f"ravdess_01-03-01-{n:06d}" for n in range(40_000)]
    row = dict.fromkeys(("actor", "path", "frames", "seconds", "box_x", "box_y", "box_side"), "1")
    row |= dict.fromkeys(("face_size", "score", "miss_rate"), "1")
    update_tables(tmp_path, [{"clip_id": name, "key": RULE.key(name), **row} for name in names], [])
    store = ClipStore(tmp_path)
    assert len(pickle.dumps(store)) < 100 * len(names)
    assert all(name in store for name in names[::997])
    assert "ravdess_01-03-01-040000" not in store


def test_an_absent_empty_or_fully_rejected_folder_is_named_with_the_next_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no prepared clips.*manifests prepare"):
        ClipStore(tmp_path / "absent")
    with pytest.raises(UserError, match=r"holds no prepared clips.*manifests prepare"):
        ClipStore(tmp_path)
    claim_folder(tmp_path, RULE)
    update_tables(tmp_path, [], [])
    with pytest.raises(UserError, match="all were rejected"):
        ClipStore(tmp_path)


def test_a_clip_that_is_not_there_is_named_with_the_next_command(tmp_path: Path) -> None:
    key = stored(tmp_path)
    store = ClipStore(tmp_path)
    with pytest.raises(UserError, match=r"no prepared clip crema_1002_X.*manifests prepare"):
        store.open("crema_1002_X")
    clip_path(tmp_path, key).unlink()
    with pytest.raises(UserError, match="manifests prepare"):
        store.open("crema_1001_DFA_HAP_XX")


def test_a_clip_of_another_file_than_the_manifests_is_told_packed_or_not(tmp_path: Path) -> None:
    names = [f"crema_100{n}_DFA_HAP_XX" for n in range(3)]
    for n, name in enumerate(names):
        stored(tmp_path / "loose", name, f"{n:02}", 6)
    pack(tmp_path / "loose", tmp_path / "packed")
    for folder in ("loose", "packed"):
        store = ClipStore(tmp_path / folder)
        assert store.from_other_files(names, ["00", "01", "02"]) == []
        assert store.from_other_files(names, ["00", "99", "02"]) == [names[1]]
        # Nothing is known of a file that was not verified, and a clip that is not there is none of another file.
        assert store.from_other_files([*names, "crema_1009_DFA_HAP_XX"], ["", "01", "", "77"]) == []


def test_a_torn_clip_file_is_never_read(tmp_path: Path) -> None:
    path = clip_path(tmp_path, stored(tmp_path))
    data = path.read_bytes()
    for length in (0, 5, 11, 40, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match="delete it and run"):
            ClipStore(tmp_path).open("crema_1001_DFA_HAP_XX")


def test_one_folder_holds_clips_of_one_rule(tmp_path: Path) -> None:
    stored(tmp_path)
    claim_folder(tmp_path, RULE)
    with pytest.raises(UserError, match=r"size 64.*another --out"):
        claim_folder(tmp_path, replace(RULE, size=128))
    assert ClipStore(tmp_path).rule == RULE


def test_a_clip_is_either_prepared_or_rejected(tmp_path: Path) -> None:
    stored(tmp_path)
    refused = {"clip_id": "crema_1001_DFA_HAP_XX", "actor": "a", "path": "p", "key": "", "reason": "gone"}
    update_tables(tmp_path, [], [refused])
    assert read_index(tmp_path) == []
    assert read_rejected(tmp_path) == [refused]
    stored(tmp_path)
    assert read_rejected(tmp_path) == []
    assert len(read_index(tmp_path)) == 1


def add_one_by_one(root: Path, name: str, count: int) -> None:
    row = dict.fromkeys(("actor", "path", "frames", "seconds", "box_x", "box_y", "box_side"), "1")
    row |= dict.fromkeys(("face_size", "score", "miss_rate"), "1")
    for n in range(count):
        update_tables(root, [{"clip_id": f"{name}_{n}", "key": RULE.key(f"{name}{n}"), **row}], [])


def test_writers_at_once_lose_no_row(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=add_one_by_one, args=(tmp_path, name, 15)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(read_index(tmp_path)) == 45


def test_the_header_is_plain_json_that_other_tools_can_read(tmp_path: Path) -> None:
    data = clip_path(tmp_path, stored(tmp_path)).read_bytes()
    length = int.from_bytes(data[8:12], "little")
    header = json.loads(data[12 : 12 + length])
    first = data[12 + length : 12 + length + header["offsets"][1]]
    assert first.startswith(b"\xff\xd8")
    assert first.endswith(b"\xff\xd9")


def test_packed_clips_are_read_as_unpacked_ones_and_only_what_is_new_is_packed(tmp_path: Path) -> None:
    loose, packed = tmp_path / "loose", tmp_path / "packed"
    names = [f"crema_100{n}_DFA_HAP_XX" for n in range(5)]
    for n, name in enumerate(names[:4]):
        stored(loose, name, f"{n:02}", 6 + n)
    one = clip_path(loose, RULE.key("00")).stat().st_size
    said = pack(loose, packed, shard_bytes=2 * one)
    assert "4 clips are packed" in said
    assert "2 shards, 2 of them new" in said
    shards = {path.name: path.read_bytes() for path in packed.glob("*.tar")}
    assert "nothing to do: 4 clips" in pack(loose, packed, shard_bytes=2 * one)
    stored(loose, names[4], "04", 10)
    assert "3 shards, 1 of them new" in pack(loose, packed, shard_bytes=2 * one)
    assert shards.items() <= {path.name: path.read_bytes() for path in packed.glob("*.tar")}.items()
    lost = min(shards)
    (packed / lost).unlink()
    assert "1 of them new" in pack(loose, packed, shard_bytes=2 * one)
    assert (packed / lost).read_bytes() == shards[lost]
    there, here = ClipStore(loose), pickle.loads(pickle.dumps(ClipStore(packed)))
    for n, name in enumerate(names):
        indices = [0, 5, 2] if n < 4 else [9]
        np.testing.assert_array_equal(here.open(name).frames(indices), there.open(name).frames(indices))
        np.testing.assert_array_equal(here.open(name).times, there.open(name).times)


def test_a_shard_is_a_tar_that_other_tools_unpack(tmp_path: Path) -> None:
    key = stored(tmp_path / "loose")
    pack(tmp_path / "loose", tmp_path / "packed")
    (shard,) = (tmp_path / "packed").glob("*.tar")
    with tarfile.open(shard) as tar:
        member = tar.extractfile(f"{key}.clip")
        assert member is not None
        assert member.read() == clip_path(tmp_path / "loose", key).read_bytes()


def test_two_takes_of_the_same_bytes_share_one_clip_packed_or_not(tmp_path: Path) -> None:
    for name in ("crema_1001_a", "crema_1002_a"):
        stored(tmp_path / "loose", name, "same")
    pack(tmp_path / "loose", tmp_path / "packed")
    assert len(read_index(tmp_path / "packed")) == 2
    store = ClipStore(tmp_path / "packed")
    np.testing.assert_array_equal(store.open("crema_1001_a").frames([4]), store.open("crema_1002_a").frames([4]))


def test_a_shard_that_was_cut_is_never_read(tmp_path: Path) -> None:
    stored(tmp_path / "loose")
    pack(tmp_path / "loose", tmp_path / "packed")
    (shard,) = (tmp_path / "packed").glob("*.tar")
    os.truncate(shard, 6000)
    with pytest.raises(UserError, match="not whole"):
        ClipStore(tmp_path / "packed").open("crema_1001_DFA_HAP_XX")


def test_packing_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    key = stored(tmp_path / "loose")
    with pytest.raises(UserError, match="another --out"):
        pack(tmp_path / "loose", tmp_path / "loose")
    clip_path(tmp_path / "loose", key).unlink()
    with pytest.raises(UserError, match="lacks 1 clips"):
        pack(tmp_path / "loose", tmp_path / "packed")
    with pytest.raises(UserError, match="holds no prepared clips"):
        pack(tmp_path / "absent", tmp_path / "packed")


def test_who_is_alone_in_a_folder_clears_what_killed_runs_left(tmp_path: Path) -> None:
    left = tmp_path / "ab" / ".tmp-abc-1.clip"
    left.parent.mkdir()
    left.write_bytes(b"half")
    with preparing_in(tmp_path):
        assert not left.exists()
        left.write_bytes(b"being written by another run")
        with preparing_in(tmp_path):
            assert left.exists()

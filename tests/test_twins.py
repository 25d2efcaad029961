"""Two files of one take must get one answer, and what is no twin is not counted. Run: pytest tests/test_twins.py"""

from dataclasses import replace

import numpy as np
import pytest

from manifests.clipfile import encode_frame, write_clip
from manifests.clips import INDEX_COLUMNS, ClipStore, Rule, claim_folder, update_tables
from manifests.errors import UserError
from trainer.dataset import Clips
from trainer.record import Prediction
from trainer.twins import agreement, twin_sources, twins_line

RULE = Rule(size=32)


def store(root, sources, rule=RULE):
    """Prepared clips: clip_id -> sha256 of the file they were made from."""
    claim_folder(root, rule)
    rows = []
    for clip_id, source in sources.items():
        key = rule.key(source)
        meta = {"rule": {"size": 32}, "source_sha256": source}
        write_clip(root, key, [encode_frame(np.zeros((32, 32, 3), np.uint8))], [0.0], meta)
        rows.append({**dict.fromkeys(INDEX_COLUMNS, ""), "clip_id": clip_id, "key": key})
    update_tables(root, rows, [])
    return ClipStore(root)


def test_a_twin_is_the_same_take_from_another_file(tmp_path):
    ours = store(tmp_path / "ours", {"a": "a-silent", "b": "b-silent", "c": "c-silent", "d": "d-silent"})
    test = Clips(ours, ["a", "b", "c"], [0, 0, 0])
    # b is the very same file, c is absent, d is no test video.
    other = store(tmp_path / "other", {"a": "a-sound", "b": "b-silent", "d": "d-sound"})
    assert twin_sources(test, other) == {"a": "a-sound"}


def test_clips_of_the_same_files_are_refused_with_the_next_command(tmp_path):
    ours = store(tmp_path / "ours", {"a": "a-silent"})
    with pytest.raises(UserError, match="--twins audio-video"):
        twin_sources(Clips(ours, ["a"], [0]), ours)


def test_clips_that_were_cropped_otherwise_are_refused(tmp_path):
    ours = store(tmp_path / "ours", {"a": "a-silent"})
    other = store(tmp_path / "other", {"a": "a-sound"}, replace(RULE, margin=0.1))
    with pytest.raises(UserError, match="prepared by another rule"):
        twin_sources(Clips(ours, ["a"], [0]), other)


def prediction(clip_id, happy):
    return Prediction(clip_id, "x", "happy", "happy" if happy > 0.5 else "sad", max(happy, 1 - happy),
                      {"happy": happy, "sad": 1 - happy})  # fmt: skip


def test_agreement_counts_answers_and_names_the_takes_that_differ():
    ours = [prediction("a", 0.9), prediction("b", 0.6), prediction("c", 0.2), prediction("d", 0.8)]
    theirs = np.array([[0.85, 0.15], [0.4, 0.6], [0.2, 0.8], [0.8, 0.2]])
    figures = agreement(ours, theirs, ["happy", "sad"])
    assert figures["compared"] == 4
    assert figures["agreement"] == 0.75
    assert figures["largest_difference"] == pytest.approx(0.2)
    assert figures["disagreements"] == [
        {"clip_id": "b", "label": "happy", "predicted": "happy", "twin_predicted": "sad"}
    ]
    assert twins_line(figures).startswith("twins: 3 of 4 takes get the same answer from their other file (75.0%)")

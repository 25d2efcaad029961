"""What a run sees and says of itself. Run: pytest tests/test_workflow.py"""

from dataclasses import replace

import numpy as np
import pytest
from toys import make_corpus

from manifests.clips import ClipStore
from manifests.errors import UserError
from manifests.table import VOTES, read_manifest
from trainer.workflow import choose_clips, count, teach_votes


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    manifest, clips = make_corpus(tmp_path_factory.mktemp("toys"))
    return read_manifest(manifest), ClipStore(clips)


def test_clips_that_were_made_from_other_files_are_refused(inputs):
    manifest, store = inputs
    choose_clips(manifest, store)
    rows = manifest.rows.copy()
    rows.loc[0, "sha256"] = "f" * 64
    with pytest.raises(UserError, match=r"1 clips .* made from other files than the manifest's, the first is toy_00"):
        choose_clips(replace(manifest, rows=rows), store)


def test_clips_and_actors_are_counted_for_each_corpus(inputs):
    rows = inputs[0].rows.copy()
    rows.loc[rows["actor"] == "toy_00", "dataset"] = "crema"
    counts = count(rows)
    assert (counts["clips"], counts["actors"]) == (64, 8)
    assert counts["datasets"] == {"crema": {"clips": 8, "actors": 1}, "ravdess": {"clips": 56, "actors": 7}}


def test_votes_teach_training_clips_only_and_those_left_out_are_counted(inputs):
    manifest, store = inputs
    rows = manifest.rows.copy()
    rows["emotion"] = rows["emotion"].replace({"grows": "happy", "shrinks": "sad"})
    first = rows.index[rows["split"] == "train"][0]
    rows.loc[first, list(VOTES)] = 0
    rows.loc[first, ["votes_happy", "votes_sad", "votes_fear"]] = [6, 2, 3]
    voted = replace(manifest, rows=rows, labels=("happy", "sad"))
    splits, _, _ = choose_clips(voted, store)
    assert teach_votes(splits["train"], voted, 0.5) == {"softened": 1, "dropped": 3}
    targets = splits["train"].targets
    assert np.allclose(targets[0], [0.5 + 0.5 * 6 / 8, 0.5 * 2 / 8])
    assert np.isin(targets[1:], [0, 1]).all()
    assert splits["val"].targets is None
    assert splits["test"].targets is None

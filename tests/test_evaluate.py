"""Evaluation counts videos, averages views, and refuses what does not fit. Run: pytest tests/test_evaluate.py"""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from toys import LABELS, TINY, make_corpus

from manifests.clips import ClipStore
from manifests.table import as_table, facts_path, read_manifest, write_manifest
from trainer.__main__ import main
from trainer.dataset import Clips, TestViews
from trainer.evaluate import describe, predict_views, result_line
from trainer.run import read_json


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("toys"))


def fit(manifest, clips, run, *settings):
    words = ["fit", "--config", "demo.yaml", "--manifest", manifest, "--clips", clips, "--run", run]
    return main([str(word) for word in (*words, *TINY, "optim.epochs=2", *settings)])


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    assert fit(*corpus, path) == 0
    return path


def test_predictions_and_figures_are_about_the_same_videos(run, corpus):
    evaluation = read_json(run / "evaluation.json")
    with (run / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    tested = read_manifest(corpus[0]).rows.query("split == 'test'")
    assert [row["clip_id"] for row in rows] == tested["clip_id"].tolist()
    assert evaluation["clips"] == len(rows) == np.sum(evaluation["confusion"])
    assert evaluation["actors"] == 2
    right = np.mean([row["label"] == row["predicted"] for row in rows])
    assert evaluation["overall"]["war"] == pytest.approx(right)
    for row in rows:
        shares = {label: float(row[f"p_{label}"]) for label in LABELS}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
        assert max(shares, key=shares.get) == row["predicted"]
    groups = evaluation["groups"]
    assert [g["clips"] for g in groups["actor"]] == [8, 8]
    assert sum(g["clips"] for g in groups["sex"]) == 16


def test_the_result_line_says_what_was_measured_on_whom(run):
    line = result_line(read_json(run / "evaluation.json"))
    assert line.startswith("UAR ")
    assert line.endswith("per video, on 16 videos of 2 unseen actors")


def test_evaluating_again_changes_nothing_and_other_views_are_another_result(run, corpus, capsys):
    manifest, clips = corpus
    words = ["evaluate", "--run", str(run), "--manifest", str(manifest), "--clips", str(clips)]
    before = (run / "evaluation.json").stat().st_mtime_ns
    assert main(words) == 0
    assert (run / "evaluation.json").stat().st_mtime_ns == before
    assert capsys.readouterr().out.startswith("nothing to do: UAR ")
    assert main([*words, "evaluation.clips=2"]) == 0
    assert read_json(run / "evaluation.json")["views"]["clips"] == 2
    assert capsys.readouterr().out.startswith("UAR ")
    assert main([*words, "evaluation.clips=1"]) == 0


def test_evaluating_leaves_a_finished_run_finished_and_its_steps_known(run, corpus):
    words = ["evaluate", "--run", str(run), "--manifest", str(corpus[0]), "--clips", str(corpus[1])]
    assert main([*words, "evaluation.clips=2"]) == 0
    status = read_json(run / "status.json")
    assert status["phase"] == "finished"
    assert status["step"] == status["steps"]
    assert read_json(run / "outcome.json")["outcome"] == "finished"
    assert main([*words, "evaluation.clips=1"]) == 0


def test_a_run_that_has_no_weights_yet_is_one_sentence_and_stays_as_it_was(run, corpus, tmp_path, capsys):
    (tmp_path / "run.json").write_bytes((run / "run.json").read_bytes())
    words = ["evaluate", "--run", str(tmp_path), "--manifest", str(corpus[0]), "--clips", str(corpus[1])]
    assert main(words) == 2
    assert "has no weights yet" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_mirrored_view_is_the_model_on_the_mirrored_clip(corpus):
    class LeftHalf(nn.Module):
        """A network that shows what it was given: the brightness of the left half and of the whole."""

        def forward(self, x):
            return torch.stack([x[..., : x.shape[-1] // 2].mean(dim=(1, 2, 3, 4)), x.mean(dim=(1, 2, 3, 4))], dim=1)

    rows = read_manifest(corpus[0]).rows
    clips = Clips(ClipStore(Path(corpus[1])), rows["clip_id"].tolist()[:5], [0] * 5)
    views = TestViews(clips, frames=4, span=0.5, size=32, views=3)
    seen = predict_views(LeftHalf(), views, torch.device("cpu"), batch=2, workers=0, flip=True)
    assert seen.shape == (5, 6, 2)
    plain, mirrored = seen[:, 0::2], seen[:, 1::2]
    torch.testing.assert_close(plain[..., 1], mirrored[..., 1])
    torch.testing.assert_close((plain[..., 0] + mirrored[..., 0]) / 2, plain[..., 1])
    assert torch.equal(plain, predict_views(LeftHalf(), views, torch.device("cpu"), batch=5, workers=0, flip=False))


def test_groups_are_judged_on_their_own_videos():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]])
    truth = np.array([0, 1, 1, 0])
    rows = pd.DataFrame({
        "actor": list("aabb"), "dataset": ["crema"] * 2 + ["ravdess"] * 2, "sex": ["male", "male", "", "female"],
        "intensity": ["normal"] * 4,
    })  # fmt: skip
    figures = describe(probabilities, truth, rows, ("x", "y"), seed=0)
    assert figures["overall"]["war"] == 0.75
    assert [(g["name"], g["war"]) for g in figures["groups"]["dataset"]] == [("crema", 1.0), ("ravdess", 0.5)]
    assert [g["name"] for g in figures["groups"]["sex"]] == ["female", "male", "unknown"]
    assert figures["confusion"] == [[2, 0], [1, 1]]


def edit(corpus, folder, change):
    """A copy of the manifest with its rows changed, and a JSON beside it that vouches for them."""
    manifest = read_manifest(corpus[0])
    path = folder / "manifest.csv"
    write_manifest(path, as_table(change(manifest.rows)), {"labels": list(LABELS), "leaky": False, "synthetic": True})
    return path


def test_an_actor_in_two_splits_is_refused(corpus, tmp_path, capsys):
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(corpus[0].read_text().replace(",train,", ",test,", 1))
    facts_path(manifest).write_text(facts_path(corpus[0]).read_text())
    assert fit(manifest, corpus[1], tmp_path / "run") == 2
    assert "actor toy_" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_class_that_nobody_trains_on_is_refused(corpus, tmp_path, capsys):
    manifest = edit(corpus, tmp_path, lambda rows: rows[(rows["split"] != "train") | (rows["emotion"] == "grows")])
    assert fit(manifest, corpus[1], tmp_path / "run") == 2
    assert "the train split has no clip of shrinks" in capsys.readouterr().err


def test_a_split_without_videos_is_refused(corpus, tmp_path, capsys):
    manifest = edit(corpus, tmp_path, lambda rows: rows[rows["split"] != "val"])
    assert fit(manifest, corpus[1], tmp_path / "run") == 2
    assert "the val split has no clip at all" in capsys.readouterr().err


def test_videos_that_were_never_prepared_are_named(corpus, tmp_path, capsys):
    more = edit(corpus, tmp_path, lambda rows: pd.concat([rows, rows.tail(1).assign(clip_id="new", path="new.mp4")]))
    assert fit(more, corpus[1], tmp_path / "run") == 2
    assert "1 clips of the manifest are not in" in capsys.readouterr().err


def test_another_manifest_than_the_runs_is_refused(run, corpus, tmp_path, capsys):
    other = edit(corpus, tmp_path, lambda rows: rows.iloc[:-1])
    assert main(["evaluate", "--run", str(run), "--manifest", str(other), "--clips", str(corpus[1])]) == 2
    assert "is not the manifest that" in capsys.readouterr().err

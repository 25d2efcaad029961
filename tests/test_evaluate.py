"""Evaluation counts videos, averages views, and refuses what does not fit. Run: pytest tests/test_evaluate.py"""

import csv
import shutil
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset
from toys import LABELS, SIZE, TINY, make_corpus, write_clips

from manifests.clipfile import encode_frame, write_clip
from manifests.clips import INDEX_COLUMNS, ClipStore, Rule, claim_folder, update_tables
from manifests.files import write_json
from manifests.table import as_table, facts_path, read_manifest, write_manifest
from trainer.__main__ import main
from trainer.dataset import Clips, TestViews
from trainer.evaluate import result_line
from trainer.formats import load_network
from trainer.hardest import CARDS, MOMENTS
from trainer.inference import predict_views
from trainer.robustness import DISTURBANCES
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
    assert list(groups) == ["dataset", "actor", "sex", "age", "race", "intensity"]
    assert [g["clips"] for g in groups["actor"]] == [8, 8]
    assert all(sum(g["clips"] for g in rows) == 16 for rows in groups.values())


def test_the_temperature_comes_from_validation_actors_and_changes_no_answer(run):
    evaluation = read_json(run / "evaluation.json")
    assert evaluation["temperature"]["split"] == "val"
    assert (evaluation["temperature"]["clips"], evaluation["temperature"]["actors"]) == (16, 2)
    assert evaluation["temperature"]["value"] > 0
    before, after = evaluation["calibration"], evaluation["calibration_after"]
    assert before["nll"] != after["nll"]
    right = [sum(b["accuracy"] * b["clips"] for b in figures["bins"]) / 16 for figures in (before, after)]
    assert right[0] == pytest.approx(right[1]) == pytest.approx(evaluation["overall"]["war"])


def test_drawn_faces_have_no_human_figure_and_no_disturbance_is_tried_unasked(run):
    evaluation = read_json(run / "evaluation.json")
    assert evaluation["human"] == []
    assert evaluation["robustness"] is None


def test_more_views_are_told_with_what_they_bring_and_cost(run, corpus):
    words = ["evaluate", "--run", str(run), "--manifest", str(corpus[0]), "--clips", str(corpus[1])]
    assert main([*words, "evaluation.clips=3"]) == 0
    evaluation = read_json(run / "evaluation.json")
    ways = evaluation["tta"]
    assert [(way["clips"], way["flip"], way["views"]) for way in ways] == [(1, False, 1), (3, False, 3), (3, True, 6)]
    assert ways[0]["gain"] == 0
    assert {key: ways[0][key] for key in ("war", "uar", "macro_f1")} == evaluation["one_view"]
    assert {key: ways[2][key] for key in ("war", "uar", "macro_f1")} == {
        key: evaluation["overall"][key] for key in ("war", "uar", "macro_f1")
    }
    assert ways[2]["gain"] == pytest.approx(ways[2]["uar"] - ways[0]["uar"])
    assert ways[0]["seconds_per_video"] > 0
    assert evaluation["per_view"]["views"] == 6 * 16
    assert main([*words, "evaluation.clips=1"]) == 0


def test_what_is_asked_for_later_is_done_and_what_is_known_already_is_not_done_again(run, corpus, capsys):
    words = ["evaluate", "--run", str(run), "--manifest", str(corpus[0]), "--clips", str(corpus[1])]
    assert main([*words, "evaluation.robustness=true"]) == 0
    assert capsys.readouterr().out.startswith("UAR ")
    robustness = read_json(run / "evaluation.json")["robustness"]
    assert len(robustness["variants"]) == len(DISTURBANCES)
    for variant in robustness["variants"]:
        assert variant["lost"] == pytest.approx(robustness["clean"]["uar"] - variant["uar"])
    # The plain question is answered by what is known.
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("nothing to do: UAR ")
    assert read_json(run / "evaluation.json")["robustness"] == robustness


def test_an_evaluation_of_an_older_format_is_made_anew(run, corpus, capsys):
    evaluation = read_json(run / "evaluation.json")
    old = {key: value for key, value in evaluation.items() if key not in ("format", "temperature")}
    write_json(run / "evaluation.json", old)
    assert main(["evaluate", "--run", str(run), "--manifest", str(corpus[0]), "--clips", str(corpus[1])]) == 0
    assert capsys.readouterr().out.startswith("UAR ")
    assert "temperature" in read_json(run / "evaluation.json")


def test_neither_what_is_loaded_nor_what_is_seen_at_once_changes_an_answer(corpus):
    torch.manual_seed(0)
    net = nn.Sequential(nn.AdaptiveAvgPool3d(2), nn.Flatten(), nn.Linear(24, 2))
    rows = read_manifest(corpus[0]).rows
    clips = Clips(ClipStore(Path(corpus[1])), rows["clip_id"].tolist()[:5], [0] * 5)
    views = TestViews(clips, frames=4, span=0.5, size=32, views=3)
    told = [
        predict_views(
            net, views, torch.device("cpu"), arch="slowfast", batch=batch, workers=0, flip=True, loaded=loaded
        )
        for batch, loaded in ((2, None), (4, 1), (7, 5))
    ]
    torch.testing.assert_close(told[0], told[1])
    torch.testing.assert_close(told[0], told[2])


def other_files(clips, root, clip_ids):
    """The same pictures as in `clips`, prepared from other files."""
    ours = ClipStore(clips)
    claim_folder(root, ours.rule)
    rows = []
    for clip_id in clip_ids:
        clip = ours.open(clip_id)
        key = ours.rule.key(f"other file of {clip_id}")
        pictures = [encode_frame(frame, 100) for frame in clip.frames(range(len(clip)))]
        write_clip(root, key, pictures, clip.times.tolist(), {**clip.meta, "source_sha256": f"other {clip_id}"})
        rows.append({**dict.fromkeys(INDEX_COLUMNS, ""), "clip_id": clip_id, "key": key})
    update_tables(root, rows, [])
    return root


def test_takes_are_judged_from_their_other_files_too_and_only_once(run, corpus, tmp_path, capsys):
    tested = read_manifest(corpus[0]).rows.query("split == 'test'")["clip_id"].tolist()
    words = ["evaluate", "--run", str(run), "--manifest", str(corpus[0]), "--clips", str(corpus[1])]
    twins = other_files(corpus[1], tmp_path / "twins", tested[:5])
    assert main([*words, "--twins", str(twins)]) == 0
    evaluation = read_json(run / "evaluation.json")
    assert evaluation["twins"]["compared"] == 5
    assert evaluation["twins"]["largest_difference"] < 0.2
    assert "of 5 takes get the same answer from their other file" in capsys.readouterr().out
    before = (run / "evaluation.json").stat().st_mtime_ns
    assert main([*words, "--twins", str(twins)]) == 0
    assert (run / "evaluation.json").stat().st_mtime_ns == before
    # What was found stays known when nothing else is asked, and the very same files are no twins.
    assert main(words) == 0
    assert read_json(run / "evaluation.json") == evaluation
    assert main([*words, "--twins", str(corpus[1])]) == 2
    assert "holds no other file of any test video" in capsys.readouterr().err


def test_the_misread_videos_have_a_map_for_each_moment_that_the_report_shows(run):
    with (run / "predictions.csv").open() as stream:
        wrong = {row["clip_id"]: row["predicted"] for row in csv.DictReader(stream) if row["label"] != row["predicted"]}
    attention = read_json(run / "attention.json")
    assert attention["weights_sha256"] == read_json(run / "evaluation.json")["weights_sha256"]
    assert {clip_id: shown["emotion"] for clip_id, shown in attention["clips"].items()}.items() <= wrong.items()
    assert len(attention["clips"]) == min(len(wrong), CARDS)
    for shown in attention["clips"].values():
        maps = np.array(shown["maps"])
        assert maps.shape[0] == MOMENTS
        assert maps.min() >= 0
        assert maps.max() in (0, 100)
        assert len(shown["seconds"]) == MOMENTS
        assert np.array(shown["probabilities"]).sum(axis=1) == pytest.approx(np.ones(MOMENTS), abs=1e-3)


def test_the_answer_over_time_ends_with_that_of_the_view_at_the_end(run, corpus):
    store, data = ClipStore(corpus[1]), {"frames": 8, "span": 1.0, "size": 32}
    network, _ = load_network(run / "model.safetensors", "cpu")
    for clip_id, shown in read_json(run / "attention.json")["clips"].items():
        views, _ = TestViews(Clips(store, [clip_id], [0]), **data, views=2)[0]
        assert shown["probabilities"][-1] == pytest.approx(network(views[-1:]).softmax(-1)[0].tolist(), abs=2e-3)


def test_the_result_line_says_what_was_measured_on_whom(run):
    evaluation = read_json(run / "evaluation.json")
    line = result_line(evaluation)
    assert line.startswith("UAR ")
    assert line.endswith("per video, on 16 videos of 2 unseen actors")
    leaky = result_line({**evaluation, "leaky": True})
    assert leaky.endswith("per video, on 16 videos of 2 actors, SOME OF THEM SEEN IN TRAINING (leaky split)")
    assert "unseen" not in leaky


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


def pages(run):
    return [run / name for name in ("report.html", "model_card.md")]


def test_report_and_card_tell_what_was_judged_last(run, corpus, tmp_path):
    words = ["evaluate", "--run", str(run), "--manifest", str(corpus[0]), "--clips", str(corpus[1])]
    assert main([*words, "evaluation.clips=1"]) == 0
    before = [page.read_text() for page in pages(run)]
    assert main([*words, "evaluation.clips=2"]) == 0
    assert all(page.read_text() != old for page, old in zip(pages(run), before, strict=True))
    assert 'id="twins"' not in (run / "report.html").read_text()
    tested = read_manifest(corpus[0]).rows.query("split == 'test'")["clip_id"].tolist()
    assert main([*words, "--twins", str(other_files(corpus[1], tmp_path / "twins", tested[:3]))]) == 0
    assert 'id="twins"' in (run / "report.html").read_text()
    assert main([*words, "evaluation.clips=1"]) == 0


def test_a_run_that_was_stopped_while_it_was_tested_gets_its_report_from_either_command(run, corpus, tmp_path, capsys):
    stopped = Path(shutil.copytree(run, tmp_path / "run"))
    for path in (*pages(stopped), stopped / "evaluation.json", stopped / "outcome.json"):
        path.unlink()
    assert main(["evaluate", "--run", str(stopped), "--manifest", str(corpus[0]), "--clips", str(corpus[1])]) == 0
    assert all(page.is_file() for page in pages(stopped))
    capsys.readouterr()
    assert fit(*corpus, stopped) == 0
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize("setting", ["data.size=112", "model.alpha=8", "optim.lr=1", "seed=2", "stall_minutes=3"])
def test_what_makes_a_run_what_it_is_is_not_changed_by_evaluating(run, corpus, capsys, setting):
    words = ["evaluate", "--run", str(run), "--manifest", str(corpus[0]), "--clips", str(corpus[1])]
    before = (run / "outcome.json").stat().st_mtime_ns
    assert main([*words, setting]) == 2
    assert f"{setting.partition('=')[0]} is the run's own" in capsys.readouterr().err
    assert (run / "outcome.json").stat().st_mtime_ns == before
    assert main([*words, "data.batch=3", "data.workers=0", "data.shard_window=null", "device=cpu"]) == 0


def test_clips_of_another_size_or_margin_are_not_judged_as_the_run_s_own(run, corpus, tmp_path, capsys):
    other = tmp_path / "clips"
    write_clips(other, read_manifest(corpus[0]).rows.to_dict("records"), Rule(size=SIZE, margin=0.1))
    words = ["evaluate", "--run", str(run), "--manifest", str(corpus[0]), "--clips"]
    assert main([*words, str(other)]) == 2
    said = capsys.readouterr().err
    assert "clips.margin is 0.3 there and 0.1 here" in said
    assert said.count("\n") == 1
    assert main([*words, str(corpus[1])]) == 0


class Asks(Dataset):
    """Videos that are bright where the process that loads them lets Ctrl-C pass by."""

    def __len__(self):
        return 3

    def __getitem__(self, row):
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        return torch.full((1, 2, 3, 8, 8), 255 * ignored, dtype=torch.uint8), row


class Brightness(nn.Module):
    def forward(self, x):
        return x.mean(dim=(2, 3, 4))


def test_those_who_load_leave_ctrl_c_to_those_who_look():
    how = {"arch": "slowfast", "batch": 2, "flip": False}
    inside, outside = (predict_views(Brightness(), Asks(), torch.device("cpu"), workers=n, **how) for n in (1, 0))
    assert (inside > outside).all()


def test_a_mirrored_view_is_the_model_on_the_mirrored_clip(corpus):
    class LeftHalf(nn.Module):
        """A network that shows what it was given: the brightness of the left half and of the whole."""

        def forward(self, x):
            return torch.stack([x[..., : x.shape[-1] // 2].mean(dim=(1, 2, 3, 4)), x.mean(dim=(1, 2, 3, 4))], dim=1)

    rows = read_manifest(corpus[0]).rows
    clips = Clips(ClipStore(Path(corpus[1])), rows["clip_id"].tolist()[:5], [0] * 5)
    views = TestViews(clips, frames=4, span=0.5, size=32, views=3)
    seen = predict_views(LeftHalf(), views, torch.device("cpu"), arch="slowfast", batch=2, workers=0, flip=True)
    assert seen.shape == (5, 6, 2)
    plain, mirrored = seen[:, 0::2], seen[:, 1::2]
    torch.testing.assert_close(plain[..., 1], mirrored[..., 1])
    torch.testing.assert_close((plain[..., 0] + mirrored[..., 0]) / 2, plain[..., 1])
    again = predict_views(LeftHalf(), views, torch.device("cpu"), arch="slowfast", batch=5, workers=0, flip=False)
    assert torch.equal(plain, again)


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
    said = capsys.readouterr().err
    assert "the val split has no clip at all" in said
    assert "--split 70/15/15" in said


def test_videos_that_were_never_prepared_are_named(corpus, tmp_path, capsys):
    more = edit(corpus, tmp_path, lambda rows: pd.concat([rows, rows.tail(1).assign(clip_id="new", path="new.mp4")]))
    assert fit(more, corpus[1], tmp_path / "run") == 2
    assert "1 clips of the manifest are not in" in capsys.readouterr().err


def test_another_manifest_than_the_runs_is_refused(run, corpus, tmp_path, capsys):
    other = edit(corpus, tmp_path, lambda rows: rows.iloc[:-1])
    assert main(["evaluate", "--run", str(run), "--manifest", str(other), "--clips", str(corpus[1])]) == 2
    assert "is not the manifest that" in capsys.readouterr().err

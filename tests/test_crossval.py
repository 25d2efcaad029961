"""Folds are ordinary runs of one manifest's rows, done once, pooled when whole. Run: pytest tests/test_crossval.py"""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toys import LABELS, TINY, make_corpus

from manifests.build import Request, build
from manifests.check import check
from manifests.clips import ClipStore
from manifests.errors import UserError
from manifests.files import sha256_of, write_json
from manifests.table import as_table, read_manifest, write_manifest
from trainer.__main__ import main
from trainer.compare import compare, read_run
from trainer.config import read_config
from trainer.crossval import claim, crossval, write_fold
from trainer.metrics import accuracies, confusion_matrix
from trainer.protocols import PROTOCOLS, fold_rows, leaky_rows, plan_folds
from trainer.run import read_json
from trainer.standings import crossval_page, leak_sentence
from trainer.tables import print_page

SETTINGS = [*TINY, "optim.epochs=1", "evaluation.flip=false"]
FOLDS = ("fold-1", "fold-2", "fold-3")


def words(corpus, out, *more, protocol="actors"):
    manifest, clips = corpus
    inputs = ["--protocol", protocol, "--config", "demo.yaml", "--manifest", manifest, "--clips", clips, "--out", out]
    return ["crossval", *map(str, inputs), *map(str, more), *SETTINGS]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("toys"), actors=6, takes=2)


@pytest.fixture(scope="module")
def done(corpus, tmp_path_factory):
    """Three folds and the leaky probe, run fold by fold as several machines would, the last call pooling them."""
    out = tmp_path_factory.mktemp("cv") / "cv"
    for fold in (2, 1, "leaky"):
        assert main(words(corpus, out, "--folds", 3, "--fold", fold)) == 0
        assert not (out / "crossval.json").exists()
    assert main(words(corpus, out, "--folds", 3, "--fold", 3)) == 0
    return out


def test_every_video_is_tested_once_and_the_pool_is_about_all_of_them(done, corpus):
    pooled = pd.read_csv(done / "predictions.csv")
    result = read_json(done / "crossval.json")
    assert sorted(pooled["clip_id"]) == sorted(read_manifest(corpus[0]).rows["clip_id"])
    said, truth = (np.array(pooled[name].map(LABELS.index)) for name in ("predicted", "label"))
    war, uar = accuracies(confusion_matrix(said, truth, 2))
    assert result["pooled"]["war"] == pytest.approx(war)
    assert result["pooled"]["uar"] == pytest.approx(uar)
    assert (result["pooled"]["clips"], result["pooled"]["actors"]) == (24, 6)
    low, high = result["pooled"]["uar_interval"]
    assert low <= uar <= high


def test_mean_and_deviation_are_those_of_the_folds_own_evaluations(done):
    result = read_json(done / "crossval.json")
    assert [fold["name"] for fold in result["folds"]] == list(FOLDS)
    for name in ("war", "uar", "macro_f1"):
        scores = [read_json(done / fold / "evaluation.json")["overall"][name] for fold in FOLDS]
        assert [fold[name] for fold in result["folds"]] == scores
        assert result["mean"][name] == pytest.approx(np.mean(scores))
        assert result["sd"][name] == pytest.approx(np.std(scores, ddof=1))


def test_the_probe_is_marked_and_no_part_of_the_pool(done):
    result = read_json(done / "crossval.json")
    assert result["leaky"]["name"] == "leaky"
    assert result["leaky"]["uar"] == read_json(done / "leaky" / "evaluation.json")["overall"]["uar"]
    assert read_manifest(done / "leaky" / "manifest.csv").leaky
    assert read_json(done / "leaky" / "run.json")["manifest"]["leaky"]
    assert not any(read_manifest(done / fold / "manifest.csv").leaky for fold in FOLDS)
    assert "LEAKY probe" in (done / "crossval.html").read_text()


def test_doing_it_again_trains_nothing_and_changes_no_byte(done, corpus, capsys):
    files = [path for path in done.rglob("*") if path.is_file()]
    before = {path: (path.stat().st_mtime_ns, sha256_of(path)) for path in files}
    assert main(words(corpus, done, "--folds", 3)) == 0
    assert capsys.readouterr().out.count("nothing to do") == 4
    changed = {path.name for path in files if before[path][0] != path.stat().st_mtime_ns}
    assert changed <= {"crossval.json", "predictions.csv", "crossval.html"}
    assert all(before[path][1] == sha256_of(path) for path in files)


def test_a_fold_is_an_ordinary_run_that_fit_makes_again(done, corpus, tmp_path):
    inputs = ["--manifest", done / "fold-2" / "manifest.csv", "--clips", corpus[1], "--run", tmp_path / "again"]
    assert main(["fit", "--config", "demo.yaml", *map(str, inputs), *SETTINGS]) == 0
    assert sha256_of(tmp_path / "again" / "predictions.csv") == sha256_of(done / "fold-2" / "predictions.csv")


def test_a_cross_validation_is_compared_like_a_run(done, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(done, other)
    result = read_json(other / "crossval.json")
    result["config"]["model"]["arch"] = "single_frame"
    write_json(other / "crossval.json", result)
    told = compare([done, other])
    assert told["clips"] == 24
    assert told["contenders"][0]["uar"] == pytest.approx(result["pooled"]["uar"])
    assert told["contenders"][0]["uar_interval"] == pytest.approx(result["pooled"]["uar_interval"])
    seconds = [read_run(done / fold).seconds for fold in FOLDS]
    assert told["contenders"][0]["seconds"] == pytest.approx(sum(seconds))


def test_what_is_missing_is_named_and_nothing_is_pooled(done, corpus, tmp_path, capsys):
    out = tmp_path / "cv"
    shutil.copytree(done, out)
    for name in ("crossval.json", "fold-3/outcome.json"):
        (out / name).unlink()
    shutil.rmtree(out / "fold-2")
    assert main(words(corpus, out, "--folds", 3, "--fold", 1)) == 0
    assert "not finished: fold-2, fold-3;" in capsys.readouterr().err
    assert not (out / "crossval.json").exists()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["data.batch=3", "--folds", "3"], "config.data.batch is 4 there and 3 here"),
        (["--folds", "2"], "folds is 3 there and 2 here"),
        (["--folds", "3", "--fold", "4"], "there is no fold-4 in actors; it has fold-1, fold-2, fold-3, leaky"),
    ],
)
def test_a_folder_of_another_cross_validation_is_refused_and_kept(done, corpus, capsys, more, says):
    before = sha256_of(done / "crossval.json")
    assert main([*words(corpus, done), *more]) == 2
    assert says in capsys.readouterr().err
    assert sha256_of(done / "crossval.json") == before


def test_claiming_names_another_protocol(tmp_path):
    claim(tmp_path, {"protocol": "joint", "folds": 5})
    claim(tmp_path, {"protocol": "joint", "folds": 5})
    with pytest.raises(UserError, match="protocol is 'joint' there and 'crema5' here"):
        claim(tmp_path, {"protocol": "crema5", "folds": 5})


def test_a_protocol_that_the_corpus_cannot_serve_is_one_sentence_and_leaves_nothing(corpus, tmp_path, capsys):
    assert main(words(corpus, tmp_path / "cv", protocol="ravdess6")) == 2
    assert "ravdess6 has the classes angry, calm" in capsys.readouterr().err
    assert not (tmp_path / "cv").exists()


def test_a_fold_that_cannot_be_trained_is_told_before_the_first_one_begins(corpus, tmp_path, capsys):
    rows = read_manifest(corpus[0]).rows
    # Only one actor shrinks: in the fold that tests it, nobody is left to learn that from.
    few = as_table(rows[(rows["emotion"] == "grows") | (rows["actor"] == "toy_05")])
    write_manifest(tmp_path / "m.csv", few, {"labels": list(LABELS), "leaky": False, "synthetic": True})
    assert main(words((tmp_path / "m.csv", corpus[1]), tmp_path / "cv", "--folds", 3)) == 2
    assert "the train split has no clip of shrinks" in capsys.readouterr().err
    assert not list((tmp_path / "cv").glob("fold-*/run.json"))


def names_of_ravdess(folder):
    """Empty files with RAVDESS's names: 24 actors, 8 emotions."""
    for actor in range(1, 25):
        for emotion in range(1, 9):
            path = folder / f"Actor_{actor:02}" / f"02-01-{emotion:02}-01-01-01-{actor:02}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return folder


def test_a_folds_manifest_passes_the_check_and_remembers_what_it_was_made_from(tmp_path):
    build(Request(out=tmp_path / "m.csv", ravdess=names_of_ravdess(tmp_path / "data"), labels="ravdess8", verify=False))
    base = read_manifest(tmp_path / "m.csv")
    plan = plan_folds("ravdess6", base.rows, base.labels)
    for name, (rows, rule) in {"fold-3": fold_rows(plan, 3), "leaky": leaky_rows(plan)}.items():
        path = tmp_path / name / "manifest.csv"
        fold = write_fold(path, plan, base, rows, rule)
        assert list(check(path, None, False)) == []
        assert fold.facts["base_sha256"] == base.sha256
        assert fold.facts["notes"] == ["192 takes, where the complete corpus has 1440"]
        card = path.with_suffix(".md").read_text()
        assert rule in card
        assert "labels=ravdess8" in card
        assert "70/15/15" not in card
        digest = sha256_of(path)
        assert write_fold(path, plan, base, rows, rule).sha256 == digest


def test_a_killed_fold_goes_on_from_its_checkpoint(corpus, tmp_path):
    out = tmp_path / "cv"
    line = words(corpus, out, "--folds", 3, "--fold", 1)
    line = [word.replace("optim.epochs=1", "optim.epochs=5") for word in line]
    child = subprocess.Popen(
        [sys.executable, "-m", "trainer", *line], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not (out / "fold-1" / "checkpoints" / "last.json").exists():
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (out / "fold-1" / "outcome.json").exists()
    assert main(line) == 0
    assert read_json(out / "fold-1" / "outcome.json")["outcome"] == "finished"
    assert "going on after step" in (out / "fold-1" / "log.txt").read_text()


def test_published_results_stand_beside_people_and_not_beside_drawings(done, capsys):
    result = read_json(done / "crossval.json")
    assert result["references"] == []
    result["references"] = [vars(each) for each in PROTOCOLS["crema5"].references]
    print_page(crossval_page(result))
    said = capsys.readouterr().out
    assert "MAE-DFER" in said
    assert "77.3" in said
    assert "66.9" in said
    assert "chose the epoch by the test fold" in said


def test_the_page_says_what_was_left_out(done):
    result = read_json(done / "crossval.json") | {
        "left_out": {"emotion calm": 24}, "skipped": [{"clip_id": "a", "reason": "no face"}], "protocol": "joint",
    }  # fmt: skip
    notes = crossval_page(result).notes
    assert "Not part of joint: emotion calm (24)." in notes
    assert notes[1].replace("\u00a0", " ") == "1 video without a prepared face left out, named in crossval.json."


def test_the_leak_is_told_in_points_above_the_honest_mean():
    told = leak_sentence({"leaky": {"uar": 0.99}, "mean": {"uar": 0.75}}).replace("\u00a0", " ")
    assert "scores 99.0 % UAR: 24.0 points above the mean of the honest folds" in told


def test_across_corpora_one_fold_is_trained_and_told_without_a_deviation(tmp_path, capsys):
    manifest, clips = make_corpus(tmp_path, actors=6, takes=2)
    base = read_manifest(manifest)
    rows = base.rows.assign(dataset=np.where(base.rows["actor"] < "toy_03", "ravdess", "crema"))
    write_manifest(manifest, as_table(rows), base.facts)
    protocol = PROTOCOLS["ravdess->crema"]
    PROTOCOLS["toys"] = type(protocol)("toys across", labels=LABELS, test_on="crema")
    try:
        config = read_config(Path("demo.yaml"), SETTINGS)
        result = crossval("toys", config, read_manifest(manifest), ClipStore(clips), tmp_path / "cv")
    finally:
        del PROTOCOLS["toys"]
    assert [fold["clips"] for fold in result["folds"]] == [12]
    assert set(pd.read_csv(tmp_path / "cv" / "predictions.csv")["dataset"]) == {"crema"}
    assert result["sd"]["uar"] is None
    print_page(crossval_page(result | {"protocol": "ravdess->crema"}))
    assert "mean of folds" not in capsys.readouterr().out

"""Building manifests from trees of the right names. Run: .venv/bin/python -m pytest tests/test_build.py"""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from videos import crema_names, plant, ravdess_names

from manifests.__main__ import main
from manifests.build import Request, build
from manifests.errors import UserError
from manifests.table import COLUMNS, read_manifest

SHARED = Path(os.environ.get("SLOWFAST_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
COMPANIONS = (".csv", ".rejected.csv", ".json", ".md")


def bytes_of(manifest: Path) -> list[bytes]:
    return [manifest.with_suffix(suffix).read_bytes() for suffix in COMPANIONS]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six actors of each corpus, under one root."""
    root = tmp_path_factory.mktemp("small")
    plant(root / "ravdess", ravdess_names(range(1, 7)))
    plant(root / "crema-d", crema_names(range(1001, 1007)))
    return root


def of(root: Path, out: Path, **asked: object) -> Request:
    """A request for both corpora below `root`, trusting names."""
    given: dict[str, object] = {"ravdess": root / "ravdess", "crema": root / "crema-d", "verify": False, **asked}
    return Request(out=out, **given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both corpora with every official name; the files are empty."""
    listing = SHARED / "crema-d" / "VideoFlash.lfs.csv"
    if not listing.exists():
        pytest.skip(f"no {listing}")
    root = tmp_path_factory.mktemp("complete")
    plant(root / "ravdess", ravdess_names(range(1, 25)))
    with listing.open() as stream:
        plant(root / "crema-d", [row["path"] for row in csv.DictReader(stream)])
    for table in ("VideoDemographics.csv", "tabulatedVotes.csv"):
        shutil.copy(SHARED / "crema-d" / table, root / "crema-d" / table)
    return root


def test_complete_corpora_give_the_published_counts(complete: Path, tmp_path: Path) -> None:
    rows = build(of(complete, tmp_path / "m.csv")).rows
    assert Counter(rows["dataset"]) == {"ravdess": 1056, "crema": 7438}
    eight = build(of(complete, tmp_path / "r8.csv", crema=None, labels="ravdess8"))
    assert Counter(eight.rows["emotion"]) == {"neutral": 96} | dict.fromkeys(
        ("angry", "calm", "disgust", "fear", "happy", "sad", "surprise"), 192
    )
    assert eight.facts["rejected"] == {"twin of a kept take": 1440}
    assert eight.facts["dropped"] == {"channel song": 2024}
    song = build(
        of(complete, tmp_path / "song.csv", crema=None, labels="angry,calm,fear,happy,neutral,sad", channel="song")
    )
    assert len(song.rows) == 1012
    merged = build(of(complete, tmp_path / "calm.csv", calm="neutral"))
    assert Counter(merged.rows["dataset"])["ravdess"] == 1248
    assert Counter(merged.rows.query("emotion == 'neutral' and dataset == 'ravdess'")["acted_emotion"]) == {
        "neutral": 96, "calm": 192,
    }  # fmt: skip
    assert len(build(of(complete, tmp_path / "r7.csv", crema=None, labels="ravdess7")).rows) == 1248


def test_crema_folds_hold_as_many_test_clips_as_published(complete: Path, tmp_path: Path) -> None:
    tested = [
        len(
            build(
                of(complete, tmp_path / f"f{fold}.csv", ravdess=None, labels="crema6", folds="crema5", fold=fold)
            ).rows.query("split == 'test'")
        )
        for fold in range(1, 6)
    ]
    # The published lists drop one clip of fold 3 whose sound, not its picture, is misnamed.
    assert tested == [1463, 1470, 1475 + 1, 1474, 1555]


def test_ravdess_folds_test_240_and_validate_on_the_next_240(complete: Path, tmp_path: Path) -> None:
    asked = {"crema": None, "labels": "ravdess8", "folds": "ravdess6", "fold": 6}
    rows = build(of(complete, tmp_path / "m.csv", **asked)).rows
    assert Counter(rows["split"]) == {"train": 960, "val": 240, "test": 240}
    assert set(rows.query("split == 'test'")["actor"]) == {f"ravdess_{actor}" for actor in range(21, 25)}
    assert set(rows.query("fold == 1")["split"]) == {"val"}


def test_demographics_and_face_votes_are_joined(complete: Path, tmp_path: Path) -> None:
    rows = build(of(complete, tmp_path / "m.csv")).rows.set_index("clip_id")
    crema = rows[rows["dataset"] == "crema"].drop_duplicates("actor")
    assert Counter(crema["sex"]) == {"male": 48, "female": 43}
    assert Counter(crema["race"]) == {"Caucasian": 61, "African American": 22, "Asian": 7, "Unknown": 1}
    assert (crema["age"].min(), crema["age"].max()) == (20, 74)
    assert rows.loc["crema_1001_IEO_NEU_XX", "votes_neutral"] == 9
    assert rows.loc["crema_1001_IEO_NEU_XX", "votes_angry"] == 0
    assert rows.loc[rows["dataset"] == "crema", "votes_sad"].notna().all()
    assert rows.loc[rows["dataset"] == "ravdess", "votes_sad"].isna().all()
    sexes = rows[rows["dataset"] == "ravdess"].drop_duplicates("actor").set_index("actor")["sex"]
    assert (sexes["ravdess_01"], sexes["ravdess_02"]) == ("male", "female")


def test_tables_next_to_the_video_folder_are_found(complete: Path, tmp_path: Path) -> None:
    built = build(of(complete, tmp_path / "m.csv", ravdess=None, crema=complete / "crema-d" / "VideoFlash"))
    assert set(built.rows["sex"]) == {"male", "female"}
    assert built.facts["notes"] == []


def test_a_manifest_is_read_back_as_it_was_written(small: Path, tmp_path: Path) -> None:
    built = build(of(small, tmp_path / "m.csv"))
    manifest = read_manifest(tmp_path / "m.csv")
    assert manifest.rows.equals(built.rows)
    assert tuple(manifest.rows.columns) == COLUMNS
    assert manifest.labels == ("angry", "disgust", "fear", "happy", "neutral", "sad")
    assert not manifest.leaky
    assert not manifest.synthetic
    assert manifest.rows["sha256"].eq("").all()
    assert manifest.rows["frames"].isna().all()
    assert manifest.facts["verification"] == "none: names are trusted"


def test_the_same_tree_gives_the_same_bytes_wherever_it_lies(small: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "an other place"
    shutil.copytree(small, elsewhere)
    for number, root in enumerate((small, elsewhere)):
        build(of(root, tmp_path / str(number) / "m.csv"))
    assert bytes_of(tmp_path / "0" / "m.csv") == bytes_of(tmp_path / "1" / "m.csv")
    assert str(tmp_path) not in (tmp_path / "1" / "m.json").read_text()


def test_the_same_tree_gives_the_same_bytes_in_any_locale_and_hash_order(small: Path, tmp_path: Path) -> None:
    for number, settings_ in enumerate(
        ({"LC_ALL": "C", "PYTHONHASHSEED": "1"}, {"LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "2"})
    ):
        command = [sys.executable, "-m", "manifests", "build", "--no-verify", "--out", tmp_path / str(number) / "m.csv"]
        command += ["--ravdess", small / "ravdess", "--crema", small / "crema-d"]
        subprocess.run(list(map(str, command)), env={**os.environ, **settings_}, check=True, capture_output=True)
    assert bytes_of(tmp_path / "0" / "m.csv") == bytes_of(tmp_path / "1" / "m.csv")


def test_building_again_says_unchanged_and_touches_nothing(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.csv"
    command = ["build", "--ravdess", str(small / "ravdess"), "--out", str(out), "--no-verify"]
    assert main(command) == 0
    assert "written: " in capsys.readouterr().out
    before = [out.with_suffix(suffix).stat().st_mtime_ns for suffix in COMPANIONS]
    assert main(command) == 0
    assert "unchanged: " in capsys.readouterr().out
    assert [out.with_suffix(suffix).stat().st_mtime_ns for suffix in COMPANIONS] == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.csv", "m.json", "m.md", "m.rejected.csv"]


def test_both_corpora_in_one_folder_are_told_apart_by_name(small: Path, tmp_path: Path) -> None:
    apart = build(of(small, tmp_path / "a.csv")).rows
    together = build(Request(out=tmp_path / "b.csv", ravdess=small, crema=small, verify=False)).rows
    assert together.equals(apart)


def test_flat_and_nested_trees_and_both_channels_in_one_folder_are_one_corpus(tmp_path: Path) -> None:
    names = ravdess_names(range(1, 4))
    plant(tmp_path / "flat", [Path(name).name for name in names])
    plant(tmp_path / "nested", [f"Video_{'Speech' if name[13] == '1' else 'Song'}_{name[:8]}/{name}" for name in names])
    plant(tmp_path / "upper", [name.replace(".mp4", ".MP4") for name in names])
    takes = [
        build(Request(out=tmp_path / f"{tree}.csv", ravdess=tmp_path / tree, labels="ravdess8", verify=False)).rows
        for tree in ("flat", "nested", "upper")
    ]
    assert [len(rows) for rows in takes] == [180, 180, 180]
    assert takes[0]["clip_id"].equals(takes[1]["clip_id"])


@pytest.mark.parametrize(("prefer", "modality"), [("video-only", "02"), ("audio-video", "01")])
def test_a_take_counts_once_and_the_preferred_twin_is_kept(tmp_path: Path, prefer: str, modality: str) -> None:
    plant(tmp_path / "r", [*ravdess_names(range(1, 5), song=False), "lone/01-01-03-01-01-01-05.mp4"])
    built = build(Request(out=tmp_path / "m.csv", ravdess=tmp_path / "r", twins=prefer, verify=False))
    assert built.rows["clip_id"].is_unique
    assert len(built.rows) == 4 * 44 + 1
    kept = Counter(Path(path).name[:2] for path in built.rows["path"])
    assert kept[modality] >= 4 * 44
    assert Counter(reason.partition(":")[0] for reason in built.rejected["reason"]) == {"twin of a kept take": 4 * 44}


def test_a_re_encoded_copy_counts_once_and_the_published_suffix_wins(tmp_path: Path) -> None:
    plant(tmp_path / "c", crema_names(range(1001, 1004)))
    plant(tmp_path / "c", [name.replace("VideoFlash", "mp4") for name in crema_names(range(1001, 1005), suffix=".mp4")])
    built = build(Request(out=tmp_path / "m.csv", crema=tmp_path / "c", verify=False))
    assert Counter(Path(path).suffix for path in built.rows["path"]) == {".flv": 36, ".mp4": 12}
    assert built.facts["rejected"] == {"copy of a kept take": 36}


def test_only_video_names_outside_the_grammar_are_rejected_and_other_files_ignored(small: Path, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    shutil.copytree(small, root)
    plant(root / "ravdess", ["notes.txt", "list.csv", ".DS_Store", "Actor_01/._02-01-03-01-01-01-01.mp4", ".tmp-x.mp4"])
    plant(root / "ravdess", ["holiday.mp4", "03-01-03-01-01-01-01.mp4", "02-01-03-01-01-01-01.wav", ".hidden/a.mp4"])
    plant(root / "crema-d", ["VideoFlash/1076_MTI_SAD_XX.flv"])
    built = build(of(root, tmp_path / "m.csv"))
    named = {path: reason for path, reason in built.rejected.itertuples(index=False) if "twin" not in reason}
    assert {path: reason.partition(":")[0] for path, reason in named.items()} == {
        "ravdess/holiday.mp4": "name outside the grammar",
        "ravdess/03-01-03-01-01-01-01.mp4": "no picture",
        "crema-d/VideoFlash/1076_MTI_SAD_XX.flv": "known bad clip",
    }


names_of_takes = st.sampled_from(ravdess_names((1, 2, 3)) + crema_names((1001, 1002, 1003)))
odd_names = st.binary(min_size=1, max_size=20).filter(lambda name: b"/" not in name and b"\0" not in name)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(taken=st.sets(names_of_takes), odd=st.lists(odd_names, max_size=8), folder=st.sampled_from(["", "deep/er/"]))
def test_every_video_is_in_exactly_one_place_and_any_bytes_may_be_a_name(
    taken: set[str], odd: list[bytes], folder: str, tmp_path: Path
) -> None:
    root = tmp_path / "tree"
    shutil.rmtree(root, ignore_errors=True)
    # One complete set of actors, so that every class and split has takes.
    base = ravdess_names(range(11, 14), modalities=(2,), song=False)
    plant(root, [*base, *(folder + name for name in taken)])
    for name in odd:
        path = os.fsencode(root) + b"/" + name + b".mp4"
        with open(path, "ab"):
            pass
    videos = [name for _, _, names in os.walk(root) for name in names if not name.startswith(".")]
    built = build(Request(out=tmp_path / "m.csv", ravdess=root, crema=root, verify=False))
    assert len(built.rows) + len(built.rejected) + sum(built.facts["dropped"].values()) == len(videos)
    assert not set(built.rows["path"]) & set(built.rejected["path"])
    assert built.rows["clip_id"].is_unique
    assert (built.rows.groupby("actor")["split"].nunique() == 1).all()
    read_manifest(tmp_path / "m.csv")


def test_links_are_followed_once_and_pipes_and_broken_links_are_named(tmp_path: Path) -> None:
    plant(tmp_path / "store", ravdess_names(range(1, 4), modalities=(2,), song=False))
    root = tmp_path / "root"
    root.mkdir()
    (root / "data").symlink_to(tmp_path / "store")
    (root / "again").symlink_to(root)
    (root / "02-01-03-01-01-01-09.mp4").symlink_to(tmp_path / "gone.mp4")
    os.mkfifo(root / "02-01-03-01-01-01-10.mp4")
    built = build(Request(out=tmp_path / "m.csv", ravdess=root, verify=False))
    assert len(built.rows) == 3 * 44
    assert list(built.rejected["path"]) == ["02-01-03-01-01-01-09.mp4", "02-01-03-01-01-01-10.mp4"]
    assert set(built.rejected["reason"].str.partition(":")[0]) == {"no regular file"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_never_passed_over(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small, tmp_path / "tree")
    closed = tmp_path / "tree" / "ravdess" / "Actor_02"
    closed.chmod(0)
    try:
        with pytest.raises(UserError, match=r"cannot list .*Actor_02 \(Permission denied\)"):
            build(of(tmp_path / "tree", tmp_path / "m.csv"))
    finally:
        closed.chmod(0o755)


def test_a_leaky_manifest_says_so_wherever_it_appears(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.csv"
    command = [
        "build",
        "--ravdess",
        str(small / "ravdess"),
        "--crema",
        str(small / "crema-d"),
        "--no-verify",
        "--leaky",
    ]
    assert main([*command, "--out", str(out)]) == 0
    assert "LEAKY" in capsys.readouterr().out
    manifest = read_manifest(out)
    assert manifest.leaky
    assert (manifest.rows.groupby("actor")["split"].nunique() > 1).any()
    assert manifest.rows["split_rule"].str.startswith("LEAKY").all()
    assert "LEAKY" in out.with_suffix(".md").read_text()
    assert main(["show", str(out)]) == 0
    assert "LEAKY" in capsys.readouterr().out


def test_a_marker_of_a_drawn_corpus_makes_the_manifest_synthetic(small: Path, tmp_path: Path) -> None:
    root = tmp_path / "drawn"
    shutil.copytree(small, root)
    (root / "synthetic-corpus.json").write_text("{}")
    build(of(root, tmp_path / "m.csv"))
    assert read_manifest(tmp_path / "m.csv").synthetic
    card = (tmp_path / "m.md").read_text()
    assert "Synthetic" in card
    assert "CC BY" not in card  # nothing of RAVDESS is in it, nor its licence
    build(Request(out=tmp_path / "one.csv", ravdess=root / "ravdess", root=root, verify=False))
    assert read_manifest(tmp_path / "one.csv").synthetic


def test_training_on_one_corpus_and_testing_on_the_other(small: Path, tmp_path: Path) -> None:
    rows = build(of(small, tmp_path / "m.csv", test_on="crema")).rows
    assert set(rows.query("dataset == 'crema'")["split"]) == {"test"}
    assert set(rows.query("dataset == 'ravdess'")["split"]) == {"train", "val"}


WRONG = [
    (["--ravdess", "{root}/nowhere"], "there is no folder"),
    (["--ravdess", "{root}/empty"], "there is no video in"),
    (["--ravdess", "{root}/odd"], "none of the 1 videos can be used, e.g. holiday.mp4: name outside the grammar"),
    (["--ravdess", "{root}/happy"], "no take of angry, disgust, fear, neutral, sad"),
    (["--ravdess", "{root}/one"], "only 1 actor (ravdess_01): a split into train, val, test by actor needs 3"),
    (["--crema", "{small}/crema-d", "--labels", "ravdess8"], "no take of calm, surprise: use --labels common6"),
    (["--ravdess", "{small}/ravdess", "--folds", "ravdess6", "--fold", "3"], "--fold 3 is not among the folds 1 to 2"),
    (["--ravdess", "{small}/ravdess", "--folds", "ravdess6", "--fold", "0"], "--fold 0 is not among the folds"),
    (
        ["--ravdess", "{small}/ravdess", "--folds", "ravdess9"],
        "unknown folds 'ravdess9': use crema5, ravdess5, ravdess6",
    ),
    (["--ravdess", "{small}/ravdess", "--folds", "7"], "only 6 actors"),
    (["--ravdess", "{small}", "--crema", "{small}", "--folds", "ravdess6"], "do not list crema_1001"),
    (["--ravdess", "{small}/ravdess", "--split", "70/20/20"], "sum to 110, not to 100"),
    (["--ravdess", "{small}/ravdess", "--fold", "1"], "--fold belongs to --folds"),
    (["--ravdess", "{small}/ravdess", "--leaky", "--folds", "3"], "--folds and --leaky contradict each other"),
    (["--ravdess", "{small}/ravdess", "--calm", "neutral", "--labels", "ravdess8"], "--calm neutral contradicts"),
    (["--ravdess", "{small}/ravdess", "--labels", "commn6"], "unknown label set 'commn6'"),
    (["--ravdess", "{small}/ravdess", "--test-on", "crema"], "needs takes of that corpus and of another"),
    (["--ravdess", "{small}/ravdess", "--root", "{root}"], "is not below the data root"),
    (["--ravdess", "{small}/ravdess", "--out", "{root}/odd/holiday.mp4/m.csv"], "cannot write "),
    (["--ravdess", "{small}/ravdess", "--crema", "s3://bucket/x"], "one corpus is in S3 and another in a folder"),
    ([], "nothing to build from"),
]


@pytest.mark.parametrize(("arguments", "sentence"), WRONG, ids=[sentence[:30] for _, sentence in WRONG])
def test_wrong_input_is_one_sentence_and_exit_code_2(
    arguments: list[str], sentence: str, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    plant(tmp_path / "odd", ["holiday.mp4"])
    plant(tmp_path / "happy", [f"02-01-03-01-01-01-{actor:02d}.mp4" for actor in range(1, 5)])
    plant(tmp_path / "one", ravdess_names([1]))
    places = [argument.format(root=tmp_path, small=small) for argument in arguments]
    assert main(["build", "--out", str(tmp_path / "m.csv"), "--no-verify", *places]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert sentence in said
    assert said.count("\n") == 1
    assert not (tmp_path / "m.csv").exists()


def test_the_output_must_be_a_csv(small: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no \.csv"):
        build(of(small, tmp_path / "manifest.json"))


def test_a_split_without_a_class_is_noted(tmp_path: Path) -> None:
    plant(tmp_path / "r", ravdess_names(range(1, 4), song=False))
    for name in ravdess_names([2], song=False):
        if "-07-" in name[10:18]:
            (tmp_path / "r" / name).unlink()
    built = build(Request(out=tmp_path / "m.csv", ravdess=tmp_path / "r", verify=False))
    split = built.rows.query("actor == 'ravdess_02'")["split"].iloc[0]
    assert built.facts["notes"] == [f"{split} has no take of disgust"]


def test_the_json_and_the_card_tell_the_counts(small: Path, tmp_path: Path) -> None:
    built = build(of(small, tmp_path / "m.csv"))
    facts = json.loads((tmp_path / "m.json").read_text())
    assert facts["rows"] == len(built.rows) == 6 * 44 + 6 * 12
    assert (
        sum(n for split in facts["counts"].values() for part in split.values() for n in part.values()) == facts["rows"]
    )
    assert sorted(actor for actors in facts["actors"].values() for actor in actors) == sorted(set(built.rows["actor"]))
    assert facts["arguments"]["ravdess"] == "ravdess"
    card = (tmp_path / "m.md").read_text()
    for text in (
        "CC BY-NC-SA 4.0",
        "Open Database License",
        "actors 70/15/15, seed 0",
        "twin of a kept take",
        "Not decoded",
    ):
        assert text in card

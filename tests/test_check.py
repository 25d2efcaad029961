"""Manifests that were tampered with, compared, shown. Run: .venv/bin/python -m pytest tests/test_check.py"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from videos import crema_names, encode, ravdess_names, tell_apart

from manifests.__main__ import main
from manifests.build import Request, build
from manifests.errors import UserError
from manifests.table import facts_path, read_manifest, rejected_path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four actors of each corpus: one short video under many names, each with bytes of its own."""
    folder = tmp_path_factory.mktemp("check")
    pattern = encode(folder / "pattern.mp4").read_bytes()
    names = [name for name in ravdess_names(range(1, 5), modalities=(2,), song=False) if name[18:26] == "01-01-01"]
    for number, name in enumerate([*names, *crema_names(range(1001, 1005), ["DFA"], ".mp4")]):
        path = folder / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tell_apart(pattern, number))
    build(Request(out=folder / "m.csv", ravdess=folder / "root", crema=folder / "root", workers=1))
    return folder


@pytest.fixture
def manifest(corpus: Path, tmp_path: Path) -> Path:
    """A manifest of `corpus` to tamper with."""
    for name in ("m.csv", "m.json", "m.rejected.csv", "m.md"):
        shutil.copy(corpus / name, tmp_path / name)
    return tmp_path / "m.csv"


def edit(manifest: Path, change: Callable[[pd.DataFrame], pd.DataFrame | None]) -> None:
    rows = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    changed = change(rows)
    (rows if changed is None else changed).to_csv(manifest, index=False)


def move_one_take(rows: pd.DataFrame) -> None:
    first = rows.index[rows["split"] == "train"][0]
    rows.loc[first, "split"] = "test"


def test_a_sound_manifest_passes_at_every_depth(
    manifest: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(manifest), "--root", str(corpus / "root"), "--decode"]) == 0
    assert capsys.readouterr().out == f"{manifest}: sound, held against itself, the files, their pictures\n"


def test_an_actor_in_two_splits_is_refused_by_name(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(manifest, move_one_take)
    with pytest.raises(
        UserError, match=r"m\.csv: actor crema_1\d\d\d is in test and train: see `python -m manifests check"
    ):
        read_manifest(manifest)
    assert main(["check", str(manifest)]) == 1
    assert "is in test and train" in capsys.readouterr().out


TAMPERED: list[tuple[Callable[[pd.DataFrame], pd.DataFrame | None], str]] = [
    (lambda rows: rows.assign(emotion="hapy"), "unknown emotion 'hapy' (known: angry"),
    (lambda rows: rows.assign(split="dev"), "unknown split 'dev' (known: train, val, test)"),
    (lambda rows: pd.concat([rows, rows.head(1)]), "take 'crema_1001_DFA_ANG_XX' is there twice"),
    (
        lambda rows: pd.concat([rows, rows.head(1).assign(clip_id="other")]),
        "path 'VideoFlash/1001_DFA_ANG_XX.mp4' is there twice",
    ),
    (lambda rows: rows.head(0), "it has no rows"),
    (lambda rows: rows.drop(columns=["actor", "fps"]), "lacks the columns actor, fps"),
    (lambda rows: rows.assign(frames="many"), "is not a manifest"),
    (lambda rows: rows.assign(actor=""), "line 2 lacks its clip_id, path or actor"),
    (lambda rows: rows.assign(sha256="ab" * 32), "file content " + "ab" * 32 + " is in "),
    (lambda rows: rows[rows["split"] != "val"], "was changed after it was built"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "sentence"), TAMPERED, ids=[sentence[:25] for _, sentence in TAMPERED])
def test_a_tampered_manifest_is_refused_with_the_reason(
    change: Callable[[pd.DataFrame], pd.DataFrame | None], sentence: str, manifest: Path
) -> None:
    edit(manifest, change)
    with pytest.raises(UserError) as caught:
        read_manifest(manifest)
    assert sentence in str(caught.value)


def test_a_manifest_without_its_companions_is_refused(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no manifest"):
        read_manifest(tmp_path / "none.csv")
    facts_path(manifest).write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        read_manifest(manifest)
    facts_path(manifest).write_text('{"labels": []}')
    with pytest.raises(UserError, match="lacks sha256, leaky, synthetic"):
        read_manifest(manifest)
    facts_path(manifest).unlink()
    with pytest.raises(UserError, match=r"m\.json is not beside m\.csv"):
        read_manifest(manifest)


def test_overlap_is_accepted_only_from_a_manifest_that_says_so(manifest: Path) -> None:
    facts = json.loads(facts_path(manifest).read_text())
    edit(manifest, move_one_take)
    from manifests.files import sha256_of

    facts_path(manifest).write_text(json.dumps({**facts, "leaky": True, "sha256": sha256_of(manifest)}))
    assert read_manifest(manifest).leaky


def test_check_names_every_problem_and_exits_1(
    manifest: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    shutil.copytree(corpus / "root", root)
    rows = read_manifest(manifest).rows
    missing, grown, altered, torn = rows["path"][:4]
    (root / missing).unlink()
    (root / grown).write_bytes((root / grown).read_bytes() + b"more")
    content = (root / altered).read_bytes()
    (root / altered).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    rejected_path(manifest).write_text("path,reason\nx.mp4,lost\n")
    edit(manifest, lambda rows: rows.assign(acted_emotion=rows["acted_emotion"].replace("sad", "happy")))
    assert main(["check", str(manifest), "--root", str(root)]) == 1
    said = capsys.readouterr().out
    for problem in (
        f"{missing}: missing below {root}",
        f"{grown}: {(root / grown).stat().st_size} bytes there, {len(content)} in the manifest",
        f"{altered}: its content is not what it was, the sha256 differs",
        "its sha256 is not the one in m.json: it was changed after it was built",
        "m.rejected.csv was changed after it was built",
        "VideoFlash/1001_DFA_SAD_XX.mp4: its row says emotion happy, its name says sad",
    ):
        assert f"problem: {problem}" in said
    assert torn not in said
    assert "problems\n" in said


def test_decoding_anew_finds_what_the_rows_do_not_say(
    manifest: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(manifest, lambda rows: rows.assign(frames="13"))
    assert main(["check", str(manifest), "--root", str(corpus / "root"), "--decode"]) == 1
    assert "12 frames decoded, 13 in the manifest" in capsys.readouterr().out
    assert main(["check", str(manifest), "--decode"]) == 2


def test_diff_says_who_moved_and_exits_1(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.csv"
    asked = {"ravdess": corpus / "root", "crema": corpus / "root", "verify": False}
    build(Request(out=other, seed=1, **asked))  # type: ignore[arg-type]
    assert main(["diff", str(corpus / "m.csv"), str(other)]) == 1
    said = capsys.readouterr().out
    assert "actors changed their split: " in said
    assert "sha256 differs in 48 of 48 takes" in said
    assert main(["diff", str(other), str(other)]) == 0
    build(Request(out=tmp_path / "five.csv", labels="angry,disgust,fear,happy,neutral", **asked))  # type: ignore[arg-type]
    assert main(["diff", str(other), str(tmp_path / "five.csv")]) == 1
    said = capsys.readouterr().out
    assert "8 takes only in the first: crema_1001_DFA_SAD_XX, " in said
    assert "labels: (" in said


def test_show_prints_every_table(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(corpus / "m.csv")]) == 0
    said = capsys.readouterr().out
    for text in (
        "48 takes, 8 actors",
        "female",
        "unknown",
        "test, 2 actors: ",
        "left out: nothing",
        "emotion calm (4)",
    ):
        assert text in said


@pytest.mark.parametrize("verb", ["build", "check", "show", "diff"])
def test_help_has_examples_and_loads_no_library(verb: str) -> None:
    program = (
        f"import sys; from manifests.__main__ import main\ntry: main(['{verb}', '--help'])\nexcept SystemExit: pass\n"
    )
    program += "assert not {'pandas', 'numpy', 'av', 'sklearn'} & set(sys.modules), 'slow'"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert f"  python -m manifests {verb} " in said

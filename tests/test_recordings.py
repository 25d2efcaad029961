"""Someone's own recordings as a corpus. Run: .venv/bin/python -m pytest tests/test_recordings.py"""

import random
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from videos import plant, ravdess_names

from manifests.__main__ import main
from manifests.build import Built, Request, build
from manifests.errors import UserError
from manifests.recordings import read_recordings
from manifests.table import read_manifest

LABELS = ("happy", "sad")


def table(folder: Path, lines: list[str], header: str = "path,emotion,actor") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "own.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def built(folder: Path, out: Path, **asked: object) -> Built:
    given: dict[str, object] = {"csv": folder / "own.csv", "labels": "happy,sad", "verify": False, **asked}
    return build(Request(out=out, **given))  # type: ignore[arg-type]


EVERYONE = [f"{actor}/{emotion}.mp4,{emotion},{actor}" for actor in ("ann", "bob", "cem", "dua") for emotion in LABELS]


def test_a_table_of_path_emotion_and_actor_is_a_corpus(tmp_path: Path) -> None:
    table(tmp_path / "own", EVERYONE)
    rows = built(tmp_path / "own", tmp_path / "m.csv").rows
    assert len(rows) == 8
    assert set(rows["dataset"]) == {"own"}
    assert set(rows["actor"]) == {"own_ann", "own_bob", "own_cem", "own_dua"}
    assert rows["clip_id"].str.fullmatch("[A-Za-z0-9_-]+").all()
    assert (rows.groupby("actor")["split"].nunique() == 1).all()
    assert read_manifest(tmp_path / "m.csv").rows.equals(rows)


def test_everything_else_that_is_known_of_a_take_is_kept(tmp_path: Path) -> None:
    header = "path,emotion,actor,dataset,sex,age,intensity,statement,repetition,channel,remark"
    lines = [
        f"{actor}.mp4,{'Sadness' if actor == 'b' else 'HAPPY'},{actor},studio,F,33,high,hello,2,song,x"
        for actor in "abc"
    ]
    table(tmp_path, lines, header)
    rows = built(tmp_path, tmp_path / "m.csv", channel="both").rows
    kept = ["dataset", "actor", "emotion", "sex", "age", "intensity", "statement", "repetition", "channel"]
    assert rows.loc[rows["path"] == "b.mp4", kept].values.tolist() == [
        ["studio", "studio_b", "sad", "female", 33, "high", "hello", 2, "song"]
    ]


def test_own_recordings_and_a_corpus_go_into_one_manifest(tmp_path: Path) -> None:
    table(tmp_path / "own", EVERYONE)
    plant(tmp_path / "ravdess", ravdess_names(range(1, 5), song=False))
    rows = built(tmp_path / "own", tmp_path / "m.csv", ravdess=tmp_path / "ravdess", test_on="own").rows
    assert set(rows.query("dataset == 'own'")["split"]) == {"test"}
    assert set(rows["path"].str.split("/").str[0]) == {"own", "ravdess"}


def test_a_row_that_is_no_take_is_named_with_the_reason(tmp_path: Path) -> None:
    bad = {
        "../secret.mp4,happy,ann": "path outside the data root",
        "/etc/a.mp4,happy,ann": "path outside the data root",
        "x.mp4,hapy,ann": "unknown emotion: 'hapy', did you mean happy?",
        "y.mp4,,ann": "unknown emotion: ''",
        "z.mp4,happy,": "no actor",
        "twice.mp4,happy,ann\ntwice.mp4,happy,bob": "contradiction: listed twice with another emotion or actor",
    }
    path = table(tmp_path, [*EVERYONE, *bad])
    _, refused, repeated = read_recordings(path, "", LABELS)
    assert repeated == 0
    assert len(refused) == len(bad) + 1  # the contradiction is two rows
    for reason in bad.values():
        assert any(said.startswith(reason) for _, said in refused), reason


def test_a_repeated_row_counts_once_and_is_noted(tmp_path: Path) -> None:
    table(tmp_path, [*EVERYONE, "./ann//happy.mp4,happy,ann", "bob\\sad.mp4,sad,bob"])
    again = built(tmp_path, tmp_path / "m.csv")
    assert len(again.rows) == 8
    assert again.facts["notes"][0] == "2 rows of own.csv name a file again, with the same label: counted once"


def test_an_emotion_outside_the_label_set_is_counted_not_lost(tmp_path: Path) -> None:
    table(tmp_path, [*EVERYONE, "c.mp4,calm,ann", "d.mp4,surprised,bob"])
    assert built(tmp_path, tmp_path / "m.csv").facts["dropped"] == {"emotion calm": 1, "emotion surprise": 1}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("path,emotion\nx.mp4,happy\n", "lacks the column actor"),
        ("", "is not a CSV"),
        ("path,emotion,actor,age\nx.mp4,happy,ann,old\n", "line 2: age 'old' is no whole number"),
        ("path,emotion,actor,dataset\nx.mp4,happy,ann,crema\n", "a dataset cannot be called 'crema'"),
        ("path,emotion,actor\n", "none of the 0 videos can be used"),
        (
            "path,emotion,actor\nx.mp4,gloom,ann\n",
            "none of the 1 videos can be used, e.g. x.mp4: unknown emotion: 'gloom'",
        ),
    ],
)
def test_a_wrong_table_is_one_sentence(
    content: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.csv").write_text(content)
    assert main(["build", "--csv", str(tmp_path / "own.csv"), "--out", str(tmp_path / "m.csv"), "--no-verify"]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert main(["build", "--csv", str(tmp_path / "no.csv"), "--out", str(tmp_path / "m.csv")]) == 2


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(texts, st.sampled_from([*LABELS, "Joy", "calm", "?"]), texts), max_size=12))
def test_every_row_is_a_take_or_refused_or_a_repetition(rows: list[tuple[str, str, str]], tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    pd.DataFrame(rows, columns=["path", "emotion", "actor"]).to_csv(path, index=False)
    takes, refused, repeated = read_recordings(path, "in/", LABELS)
    listed = pd.read_csv(path, keep_default_na=False)
    assert len(takes) + repeated + len(refused) == len(listed)
    assert takes["clip_id"].is_unique
    assert takes["path"].is_unique
    assert not takes["path"].str.contains(r"(?:^|/)\.\.(?:/|$)", regex=True).any()
    assert takes["path"].str.startswith("in/").all()


def test_the_order_of_lines_changes_no_byte(tmp_path: Path) -> None:
    lines = EVERYONE[:]
    for number in range(2):
        random.Random(number).shuffle(lines)
        table(tmp_path / "own", lines)
        built(tmp_path / "own", tmp_path / str(number) / "m.csv")
    one, two = ((tmp_path / number / "m.csv").read_bytes() for number in "01")
    assert one == two


def test_a_file_that_a_corpus_holds_and_the_table_names_too_is_refused(tmp_path: Path) -> None:
    plant(tmp_path / "data" / "r", ravdess_names(range(1, 5)))
    twice = ravdess_names([2])[9]
    table(tmp_path / "data", [*EVERYONE, f"r/{twice},happy,ann"])
    with pytest.raises(UserError, match=f"own.csv names r/{twice}, which --ravdess or --crema holds too"):
        built(tmp_path / "data", tmp_path / "m.csv", ravdess=tmp_path / "data" / "r")

"""What a file name says. Run: .venv/bin/python -m pytest tests/test_corpora.py"""

import csv
import itertools
import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.corpora import (
    CREMA_KNOWN_BAD,
    CREMA_SENTENCES,
    LABEL_SETS,
    RAVDESS_EMOTIONS,
    NotATake,
    Take,
    label_set,
    read_crema,
    read_name,
    read_ravdess,
    suffix_of,
)
from manifests.errors import UserError

SHARED = Path(os.environ.get("SLOWFAST_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
BOTH = frozenset({"ravdess", "crema"})


def taken(names: list[str]) -> list[Take]:
    takes = []
    for name in names:
        try:
            takes.append(read_name(name, BOTH))
        except NotATake:
            continue
    return takes


def test_of_all_code_combinations_those_that_ravdess_recorded_are_takes() -> None:
    codes = [f"{n:02d}" for n in range(10)]
    rest = itertools.product(
        ("00", "01", "02", "03"), codes, ("00", "01", "02", "03"), ("01", "02"), ("01", "02"), range(26)
    )
    takes = taken(["-".join(("02", *map(str, part[:-1]), f"{part[-1]:02d}")) + ".mp4" for part in rest])
    speech = Counter(take.emotion for take in takes if take.channel == "speech")
    assert speech == {"neutral": 96, **dict.fromkeys(set(RAVDESS_EMOTIONS.values()) - {"neutral"}, 192)}
    assert sum(speech.values()) == 1440
    song = [take for take in takes if take.channel == "song"]
    assert len(song) == 1012
    assert "ravdess_18" not in {take.actor for take in song}
    assert len({take.clip_id for take in takes}) == len(takes)


def test_the_official_list_of_crema_d_gives_7438_clips_with_the_published_counts() -> None:
    listing = SHARED / "crema-d" / "VideoFlash.lfs.csv"
    if not listing.exists():
        pytest.skip(f"no {listing}")
    with listing.open() as stream:
        names = [row["path"] for row in csv.DictReader(stream)]
    takes = taken(names)
    assert (len(names), len(takes)) == (7442, 7438)
    assert {Path(name).stem for name in names} - {take.clip_id[6:] for take in takes} == set(CREMA_KNOWN_BAD)
    assert Counter(take.emotion for take in takes) == {
        "angry": 1271, "disgust": 1270, "fear": 1271, "happy": 1271, "neutral": 1086, "sad": 1269,
    }  # fmt: skip
    assert Counter(take.intensity for take in takes) == {"unspecified": 6074, "low": 455, "medium": 454, "high": 455}


@pytest.mark.parametrize("stem", sorted(CREMA_KNOWN_BAD))
def test_a_known_bad_clip_is_named_as_such(stem: str) -> None:
    with pytest.raises(NotATake, match=r"^known bad clip: "):
        read_crema(f"VideoFlash/{stem}.flv")


ravdess_fields = st.tuples(
    st.sampled_from(["01", "02"]),
    st.sampled_from(["01", "02"]),
    st.sampled_from(sorted(RAVDESS_EMOTIONS)),
    *[st.sampled_from(["01", "02"])] * 3,
    st.integers(1, 24).map("{:02d}".format),
).filter(
    lambda codes: (
        not (codes[2] == "01" and codes[3] == "02")
        and not (codes[1] == "02" and (codes[2] in ("07", "08") or codes[6] == "18"))
    )
)


@given(
    fields=ravdess_fields,
    suffix=st.sampled_from([".mp4", ".MP4", ".flv", ".Avi"]),
    folder=st.sampled_from(["", "a/b c/"]),
)
def test_ravdess_names_round_trip(fields: tuple[str, ...], suffix: str, folder: str) -> None:
    take = read_ravdess(folder + "-".join(fields) + suffix)
    emotion = next(code for code, name in RAVDESS_EMOTIONS.items() if name == take.emotion)
    assert fields == (
        "02" if take.modality == "video-only" else "01",
        "01" if take.channel == "speech" else "02",
        emotion,
        "02" if take.intensity == "strong" else "01",
        "01" if take.statement == "kids" else "02",
        f"{take.repetition:02d}",
        take.actor.removeprefix("ravdess_"),
    )
    assert take.clip_id == "ravdess_" + "-".join(fields[1:])
    assert take.sex == ("male" if int(fields[6]) % 2 else "female")


@given(
    actor=st.integers(1001, 1091),
    sentence=st.sampled_from(sorted(CREMA_SENTENCES)),
    emotion=st.sampled_from(["ANG", "DIS", "FEA", "HAP", "NEU", "SAD"]),
    level=st.sampled_from(["LO", "MD", "HI"]),
)
def test_crema_names_round_trip_and_levels_belong_to_one_sentence(
    actor: int, sentence: str, emotion: str, level: str
) -> None:
    right = level if sentence == "IEO" and emotion != "NEU" else "XX"
    wrong = "XX" if right != "XX" else level
    stem = f"{actor}_{sentence}_{emotion}_{right}"
    if stem not in CREMA_KNOWN_BAD:
        take = read_crema(f"{stem}.mp4")
        assert (take.clip_id, take.actor, take.statement) == (f"crema_{stem}", f"crema_{actor}", sentence)
        assert take.emotion[:3].upper() == emotion
    with pytest.raises(NotATake, match=r"^impossible code: "):
        read_crema(f"{actor}_{sentence}_{emotion}_{wrong}.mp4")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("03-01-03-01-01-01-01.mp4", "no picture: modality 03 is audio only"),
        ("04-01-03-01-01-01-01.mp4", "impossible code: there is no modality 04"),
        ("02-01-01-02-01-01-01.mp4", "impossible code: RAVDESS has no strong neutral"),
        ("02-02-07-01-01-01-01.mp4", "impossible code: RAVDESS has no song with disgust"),
        ("02-02-03-01-01-01-18.mp4", "impossible code: RAVDESS has no song by actor 18"),
        ("02-01-03-01-01-01-25.mp4", "impossible code: RAVDESS has actors 01 to 24, not 25"),
        ("Actor_02/02-01-03-01-01-01-01.mp4", "contradiction: the folder says actor 02, the name says 01"),
        ("02-01-03-01-01-01.mp4", "name outside the grammar"),
        ("٠٢-01-03-01-01-01-01.mp4", "name outside the grammar"),
        ("1092_DFA_ANG_XX.flv", "impossible code: CREMA-D has actors 1001 to 1091, not 1092"),
        ("1001_ABC_ANG_XX.flv", "impossible code: there is no sentence ABC"),
        ("1001_dfa_ang_xx.flv", "name outside the grammar"),
        ("holiday.mp4", "name outside the grammar: neither RAVDESS"),
    ],
)
def test_a_name_that_is_no_take_is_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(NotATake) as caught:
        read_name(name, BOTH)
    assert str(caught.value).startswith(reason)


def test_a_name_of_the_other_corpus_says_which_option_is_missing() -> None:
    with pytest.raises(NotATake, match="was not given as --crema"):
        read_name("1001_DFA_ANG_XX.flv", frozenset({"ravdess"}))


@given(st.text())
def test_any_text_is_a_take_or_is_refused_but_never_a_crash(name: str) -> None:
    suffix_of(name)
    for corpora in (BOTH, frozenset({"ravdess"}), frozenset({"crema"})):
        try:
            said: object = read_name(name, corpora)
        except NotATake as reason:
            said = reason
        assert isinstance(said, Take) or str(said)


def test_label_sets_have_a_fixed_order() -> None:
    assert LABEL_SETS["common6"] == ("angry", "disgust", "fear", "happy", "neutral", "sad") == LABEL_SETS["crema6"]
    assert LABEL_SETS["ravdess8"] == ("angry", "calm", "disgust", "fear", "happy", "neutral", "sad", "surprise")
    assert label_set("ravdess7") == tuple(name for name in LABEL_SETS["ravdess8"] if name != "calm")
    assert label_set("joy,contempt") == ("joy", "contempt")


@pytest.mark.parametrize("text", ["common7", "happy,happy", "", "Happy,sad", "happy,"])
def test_an_unknown_label_set_is_a_sentence(text: str) -> None:
    with pytest.raises(UserError, match="use --labels common6"):
        label_set(text)

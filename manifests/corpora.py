"""How RAVDESS and CREMA-D name their files, and what a name says about the take.

Sources: the RAVDESS description (Zenodo 1188976) and the CREMA-D README (CheyneyComputerScience/CREMA-D).
"""

import re
from dataclasses import dataclass

from manifests.errors import UserError
from manifests.table import EMOTIONS

VIDEO_SUFFIXES = frozenset(
    [
        ".mp4",
        ".flv",
        ".avi",
        ".mov",
        ".mkv",
        ".webm",
        ".m4v",
        ".mpg",
        ".mpeg",
        ".wmv",
        ".3gp",
        ".ogv",
        ".ts",
        ".mts",
        ".m2ts",
        ".mxf",
        ".asf",
        ".vob",
        ".divx",
        ".f4v",
    ]
)
# The suffix of the published files: among copies of one take it is preferred to a re-encoded one.
ORIGINAL_SUFFIX = {"ravdess": ".mp4", "crema": ".flv"}

COMMON6 = ("angry", "disgust", "fear", "happy", "neutral", "sad")
LABEL_SETS: dict[str, tuple[str, ...]] = {
    "common6": COMMON6,
    "crema6": COMMON6,
    "ravdess7": (*COMMON6, "surprise"),
    "ravdess8": EMOTIONS,
}

RAVDESS_EMOTIONS = dict(
    zip(
        ("01", "02", "03", "04", "05", "06", "07", "08"),
        ("neutral", "calm", "happy", "sad", "angry", "fear", "disgust", "surprise"),
        strict=True,
    )
)
RAVDESS_MODALITIES = {"01": "audio-video", "02": "video-only"}
CREMA_EMOTIONS = {"ANG": "angry", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
CREMA_SENTENCES = frozenset(["IEO", "TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI"])
CREMA_LEVELS = {"LO": "low", "MD": "medium", "HI": "high", "XX": "unspecified"}
# Named as broken by the corpus's own README; with them left out 7438 of 7442 clips remain.
CREMA_KNOWN_BAD = {
    "1064_IEO_DIS_MD": "a minute long, with all emotions in it",
    "1064_TIE_SAD_XX": "no duration, a fraction of a second",
    "1076_MTI_NEU_XX": "three frames long",
    "1076_MTI_SAD_XX": "an error picture",
}

_RAVDESS_NAME = re.compile(r"(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)", re.ASCII)
_CREMA_NAME = re.compile(r"(\d{4})_([A-Z]{3})_([A-Z]{3})_([A-Z]{2})", re.ASCII)
_ACTOR_FOLDER = re.compile(r"actor_(\d\d)", re.ASCII | re.IGNORECASE)


class NotATake(Exception):
    """The name is not that of a take; str(error) is the reason, "kind: detail"."""


@dataclass(frozen=True, slots=True)
class Take:
    """What a file's name says. clip_id names the take, whichever of its files this is."""

    clip_id: str
    dataset: str
    emotion: str
    actor: str
    sex: str
    intensity: str
    statement: str
    repetition: int
    channel: str
    modality: str


def suffix_of(path: str) -> str:
    """The last suffix of a "/"-separated path in lower case, "" if there is none."""
    name = path.rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    return f".{suffix.lower()}" if dot and stem else ""


def read_ravdess(path: str) -> Take:
    """Read e.g. `Actor_12/02-01-06-01-02-01-12.mp4`: modality-channel-emotion-intensity-statement-repetition-actor."""
    folder, _, name = path.rpartition("/")
    stem = name.rpartition(".")[0]
    match = _RAVDESS_NAME.fullmatch(stem)
    if not match:
        raise NotATake("name outside the grammar: RAVDESS names are seven two-digit fields, 02-01-06-01-02-01-12.mp4")
    modality, channel, emotion, intensity, statement, repetition, actor = match.groups()
    _demand("modality", modality, ("01", "02", "03"))
    _demand("channel", channel, ("01", "02"))
    _demand("emotion", emotion, RAVDESS_EMOTIONS)
    for field, code in (("intensity", intensity), ("statement", statement), ("repetition", repetition)):
        _demand(field, code, ("01", "02"))
    if not 1 <= int(actor) <= 24:
        raise NotATake(f"impossible code: RAVDESS has actors 01 to 24, not {actor}")
    if modality == "03":
        raise NotATake("no picture: modality 03 is audio only")
    if emotion == "01" and intensity == "02":
        raise NotATake("impossible code: RAVDESS has no strong neutral")
    if channel == "02" and emotion in ("07", "08"):
        raise NotATake(f"impossible code: RAVDESS has no song with {RAVDESS_EMOTIONS[emotion]}")
    if channel == "02" and actor == "18":
        raise NotATake("impossible code: RAVDESS has no song by actor 18")
    parent = _ACTOR_FOLDER.fullmatch(folder.rpartition("/")[2])
    if parent and parent[1] != actor:
        raise NotATake(f"contradiction: the folder says actor {parent[1]}, the name says {actor}")
    return Take(
        clip_id=f"ravdess_{stem[3:]}",
        dataset="ravdess",
        emotion=RAVDESS_EMOTIONS[emotion],
        actor=f"ravdess_{actor}",
        sex="male" if int(actor) % 2 else "female",
        intensity="strong" if intensity == "02" else "normal",
        statement="kids" if statement == "01" else "dogs",
        repetition=int(repetition),
        channel="speech" if channel == "01" else "song",
        modality=RAVDESS_MODALITIES[modality],
    )


def read_crema(path: str) -> Take:
    """Read e.g. `VideoFlash/1001_IEO_ANG_HI.flv`: actor_sentence_emotion_level. It does not say the sex."""
    stem = path.rpartition("/")[2].rpartition(".")[0]
    match = _CREMA_NAME.fullmatch(stem)
    if not match:
        raise NotATake("name outside the grammar: CREMA-D names are actor_SENTENCE_EMOTION_LEVEL, 1001_DFA_ANG_XX.flv")
    actor, sentence, emotion, level = match.groups()
    if not 1001 <= int(actor) <= 1091:
        raise NotATake(f"impossible code: CREMA-D has actors 1001 to 1091, not {actor}")
    _demand("sentence", sentence, CREMA_SENTENCES)
    _demand("emotion", emotion, CREMA_EMOTIONS)
    _demand("level", level, CREMA_LEVELS)
    # Only "It's eleven o'clock" was acted at three levels, and neutral never was: so in all 7442 official names.
    if (level != "XX") != (sentence == "IEO" and emotion != "NEU"):
        raise NotATake(f"impossible code: CREMA-D has no {sentence} {emotion} at level {level}")
    if stem in CREMA_KNOWN_BAD:
        raise NotATake(f"known bad clip: {CREMA_KNOWN_BAD[stem]}")
    return Take(
        clip_id=f"crema_{stem}",
        dataset="crema",
        emotion=CREMA_EMOTIONS[emotion],
        actor=f"crema_{actor}",
        sex="",
        intensity=CREMA_LEVELS[level],
        statement=sentence,
        repetition=1,
        channel="speech",
        modality="audio-video",
    )


def read_name(path: str, datasets: frozenset[str]) -> Take:
    """Read a name by the grammar of whichever of `datasets` it fits. Raises NotATake."""
    name = path.rpartition("/")[2].rpartition(".")[0]
    like = "ravdess" if _RAVDESS_NAME.fullmatch(name) else "crema" if _CREMA_NAME.fullmatch(name) else None
    if like and like not in datasets:
        raise NotATake(f"another corpus: a {like} name in a folder that was not given as --{like}")
    if not like and len(datasets) > 1:
        raise NotATake(
            "name outside the grammar: neither RAVDESS (02-01-06-01-02-01-12.mp4) nor CREMA-D (1001_DFA_ANG_XX.flv)"
        )
    return read_ravdess(path) if (like or min(datasets)) == "ravdess" else read_crema(path)


def label_set(text: str) -> tuple[str, ...]:
    """The class order that a name or a comma-separated list stands for."""
    if text in LABEL_SETS:
        return LABEL_SETS[text]
    labels = tuple(text.split(","))
    if (
        len(labels) < 2
        or len(set(labels)) < len(labels)
        or not all(re.fullmatch(r"[a-z][a-z_-]*", each) for each in labels)
    ):
        raise UserError(
            f"unknown label set {text!r}: use --labels {'|'.join(LABEL_SETS)}, or your own as angry,happy,..."
        )
    return labels


def _demand(field: str, code: str, known: object) -> None:
    if code not in known:  # type: ignore[operator]
        raise NotATake(f"impossible code: there is no {field} {code}")

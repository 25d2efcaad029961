"""The synthetic corpus: drawn faces in files that are named, laid out and encoded as RAVDESS and CREMA-D name theirs.

It is a test corpus. Nobody's face is in it, and a score on it says nothing about people.
"""

import json
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from manifests.acting import Performance, perform
from manifests.camera import add_sound, encode, film
from manifests.console import track
from manifests.errors import UserError
from manifests.files import replacing, write_json, write_text, writing_to
from manifests.identity import SKINS, Identity, draw_identity
from manifests.pool import map_in_processes
from manifests.puppet import Puppet
from manifests.workers import usable_cores

MARKER = "synthetic-corpus.json"
NOTICE = (
    "Drawn by `python -m manifests synth` to test this project: no person is shown, "
    "and no score on it says anything about people."
)
VERSION = 1  # raise it when the same arguments draw other pictures
EMOTIONS = ("angry", "disgust", "fear", "happy", "neutral", "sad")
RAVDESS_CODES = {"neutral": 1, "calm": 2, "happy": 3, "sad": 4, "angry": 5, "fear": 6, "disgust": 7, "surprise": 8}
CREMA_CODES = {"angry": "ANG", "disgust": "DIS", "fear": "FEA", "happy": "HAP", "neutral": "NEU", "sad": "SAD"}
# (intensity, statement, repetition) in the order in which takes are drawn.
RAVDESS_TAKES = ((1, 1, 1), (2, 2, 1), (1, 2, 2), (2, 1, 2), (1, 2, 1), (2, 1, 1), (1, 1, 2), (2, 2, 2))
CREMA_SENTENCES = ("DFA", "IEO", "IOM", "ITH", "ITS", "IWL", "IWW", "MTI")
STRENGTHS = {"LO": 0.82, "MD": 0.91, "HI": 1.0, "XX": 0.94, 1: 0.88, 2: 1.0}
MAX_ACTORS, MAX_TAKES = 24, len(RAVDESS_TAKES)
FRAME_SIZES = {"ravdess": (640, 360), "crema": (480, 360)}  # RAVDESS at half its real size, unless asked for
FRAME_RATES = {"ravdess": Fraction(30000, 1001), "crema": Fraction(30)}
FACE_UNIT = 0.175  # of the picture's height: a face is then a good third as high as the picture


@dataclass(frozen=True)
class Take:
    """One performance. `path` is drawn; `twin`, where there is one, is the same picture with sound."""

    corpus: str
    actor: int
    emotion: str
    strength: float
    number: int
    path: str
    twin: str | None


@dataclass(frozen=True)
class Arguments:
    """What shapes the corpus: the same arguments give the same bytes (on one machine)."""

    actors: int
    seed: int
    difficulty: float
    takes: int
    every_emotion: bool
    full_size: bool
    version: int = VERSION


@dataclass(frozen=True)
class Summary:
    takes: int
    drawn: int
    files: int


def synthesize(
    out: Path,
    actors: int,
    seed: int,
    *,
    difficulty: float = 0.3,
    takes: int = 2,
    every_emotion: bool = False,
    full_size: bool = False,
    workers: int | None = None,
) -> Summary:
    """Draw `actors` people per corpus into `out`; what is already there is kept.

    `takes` is per actor and emotion, `full_size` gives RAVDESS its real 1280x720 pixels, `workers` defaults to one per
    core. Raises UserError on bad arguments and on a folder that holds anything but a corpus made with the same ones.
    """
    arguments = Arguments(actors, seed, difficulty, takes, every_emotion, full_size)
    _check(arguments)
    out = Path(out)
    plan = plan_takes(arguments)
    with writing_to(out):
        _claim(out, arguments)
        missing = [take for take in plan if not all((out / path).exists() for path in _paths(take))]
        jobs = [(out, take, arguments) for take in missing]
        if jobs:
            done = map_in_processes(draw_take, jobs, workers or usable_cores(), _gave_up)
            for _ in track(done, "drawing", len(jobs), "takes"):
                pass
    return Summary(takes=len(plan), drawn=len(missing), files=sum(len(_paths(take)) for take in plan))


def plan_takes(arguments: Arguments) -> list[Take]:
    """Every take of the corpus, actor by actor; sexes, intensities and levels as the real grammars have them."""
    plan = []
    for actor in range(1, arguments.actors + 1):
        for emotion in RAVDESS_CODES if arguments.every_emotion else EMOTIONS:
            plan += [_ravdess_take(actor, emotion, *fields) for fields in _ravdess_fields(emotion, arguments.takes)]
    for actor in range(1001, arguments.actors + 1001):
        for emotion in EMOTIONS:
            plan += [_crema_take(actor, emotion, number) for number in range(arguments.takes)]
    return plan


def _ravdess_fields(emotion: str, takes: int) -> list[tuple[int, int, int, int]]:
    # Neutral has no strong intensity, so it has at most 4 takes, as in the real corpus.
    fields = [field for field in RAVDESS_TAKES if emotion != "neutral" or field[0] == 1]
    return [(number, *field) for number, field in enumerate(fields[:takes])]


def _ravdess_take(actor: int, emotion: str, number: int, intensity: int, statement: int, repetition: int) -> Take:
    rest = f"01-{RAVDESS_CODES[emotion]:02d}-{intensity:02d}-{statement:02d}-{repetition:02d}-{actor:02d}.mp4"
    folder = f"ravdess/Actor_{actor:02d}"
    return Take("ravdess", actor, emotion, STRENGTHS[intensity], number, f"{folder}/02-{rest}", f"{folder}/01-{rest}")


def _crema_take(actor: int, emotion: str, number: int) -> Take:
    sentence = CREMA_SENTENCES[number]
    # Levels exist for IEO only, and not for neutral.
    level = ("LO", "MD", "HI")[(actor + len(emotion)) % 3] if sentence == "IEO" and emotion != "neutral" else "XX"
    path = f"crema-d/VideoFlash/{actor}_{sentence}_{CREMA_CODES[emotion]}_{level}.flv"
    return Take("crema", actor, emotion, STRENGTHS[level], number, path, None)


def _paths(take: Take) -> tuple[str, ...]:
    return (take.path, take.twin) if take.twin else (take.path,)


# --- the folder ----------------------------------------------------------------------------------------------------


def _check(arguments: Arguments) -> None:
    actors, takes, difficulty, seed = arguments.actors, arguments.takes, arguments.difficulty, arguments.seed
    if not 1 <= actors <= MAX_ACTORS:
        raise UserError(f"--actors {actors}: give 1 to {MAX_ACTORS} per corpus, for RAVDESS has {MAX_ACTORS}")
    if not 1 <= takes <= MAX_TAKES:
        raise UserError(f"--takes {takes}: give 1 to {MAX_TAKES} per actor and emotion, for RAVDESS has {MAX_TAKES}")
    if not 0 <= difficulty <= 1:
        raise UserError(f"--difficulty {difficulty}: give a number from 0 (easy) to 1 (hard)")
    if seed < 0:
        raise UserError(f"--seed {seed}: give a whole number that is not negative")


def _claim(out: Path, arguments: Arguments) -> None:
    """Mark `out` as a synthetic corpus made with these arguments; refuse a folder that holds anything else."""
    marker, wanted = out / MARKER, asdict(arguments)
    if out.is_file():
        raise UserError(f"{out} is a file; give --out a folder")
    if marker.exists():
        try:
            before = json.loads(marker.read_text(encoding="utf-8"))["arguments"]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{marker} cannot be read; remove {out} or give another --out") from None
        other = ", ".join(f"{name} {before.get(name)}" for name in wanted if before.get(name) != wanted[name])
        if other:
            raise UserError(
                f"{out} holds a corpus made with other arguments ({other}); remove it or give another --out"
            )
    elif out.is_dir() and any(not entry.name.startswith(".tmp-") for entry in out.iterdir()):
        raise UserError(f"{out} holds files that synth did not draw; give --out a new or an empty folder")
    for leftover in out.rglob(".tmp-*"):  # of a run that was killed
        leftover.unlink(missing_ok=True)
    if not marker.exists():
        write_json(marker, {"synthetic": True, "notice": NOTICE, "arguments": asdict(arguments)})
    demographics = out / "crema-d" / "VideoDemographics.csv"
    if not demographics.exists():
        write_text(demographics, _demographics(arguments))


def _demographics(arguments: Arguments) -> str:
    lines = ['"ActorID","Age","Sex","Race","Ethnicity"']
    for actor in range(1001, arguments.actors + 1001):
        person = _person(arguments.seed, "crema", actor)
        lines.append(f'{actor},{person.age},"{person.sex}","{person.race}","Not Hispanic"')
    return "\n".join(lines) + "\n"


# --- the work ------------------------------------------------------------------------------------------------------


def _gave_up(job: tuple[Any, ...]) -> None:
    raise UserError(f"the process that drew {job[1].path} was killed (out of memory?); run the same command to go on")


def _random(seed: int, corpus: str, *path: int) -> np.random.Generator:
    return np.random.default_rng([seed, sorted(FRAME_SIZES).index(corpus), *path])


def _person(seed: int, corpus: str, actor: int) -> Identity:
    rng = _random(seed, corpus, actor)
    race = str(rng.choice(list(SKINS), p=(0.5, 0.15, 0.3, 0.05)))
    return draw_identity(rng, "Male" if actor % 2 else "Female", race)


@lru_cache(maxsize=2)
def _puppet(seed: int, corpus: str, actor: int, full_size: bool) -> Puppet:
    width, height = _frame_size(corpus, full_size)
    return Puppet(_person(seed, corpus, actor), width, height, height * FACE_UNIT, (width / 2, height * 0.46))


def _frame_size(corpus: str, full_size: bool) -> tuple[int, int]:
    return (1280, 720) if corpus == "ravdess" and full_size else FRAME_SIZES[corpus]


def act(take: Take, arguments: Arguments) -> Performance:
    """The take's time course, frame by frame; the same for the same arguments."""
    rate = FRAME_RATES[take.corpus]
    expressiveness = _random(arguments.seed, take.corpus, take.actor, 1).normal(1, 0.02 + 0.15 * arguments.difficulty)
    rng = _random(arguments.seed, take.corpus, take.actor, 2, RAVDESS_CODES[take.emotion], take.number)
    seconds = np.arange(round(rng.uniform(1.7, 2.3) * rate)) / float(rate)
    return perform(take.emotion, take.strength, seconds, rng, float(expressiveness), arguments.difficulty)


def draw_take(out: Path, take: Take, arguments: Arguments) -> None:
    """Write the take's file or files; a file that is there already is kept."""
    performance, path, rate = act(take, arguments), out / take.path, FRAME_RATES[take.corpus]
    if not path.exists():
        puppet = _puppet(arguments.seed, take.corpus, take.actor, arguments.full_size)
        rng = _random(arguments.seed, take.corpus, take.actor, 3, RAVDESS_CODES[take.emotion], take.number)
        pictures = film(puppet, performance, noise=1 + 4 * arguments.difficulty, rng=rng)
        with replacing(path) as temporary:
            encode(temporary, pictures, _frame_size(take.corpus, arguments.full_size), rate)
    if take.twin and not (out / take.twin).exists():
        with replacing(out / take.twin) as temporary:
            add_sound(path, temporary, performance.voice, rate, pitch=120 if take.actor % 2 else 210)

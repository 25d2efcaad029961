"""How a drawn face acts an emotion over time: which muscles (the expression), and in which rhythm.

Two pairs of emotions share their expression, so that no single frame can tell the two apart, whatever the moment:

* angry and disgust are the same scowl. Anger bursts (abrupt rise, slow fall), disgust swells (slow rise, abrupt fall):
  the same curve played backwards, and slower.
* fear and sad are the same distress. Fear quakes, sadness sways: the same curve, fast and slow.

Both rhythms of a pair start at a random phase, so at every moment of the clip the intensity has one and the same
distribution: uniform for the first pair, that of a sine at a random time for the second. The head's share in the
expression follows the intensity and says nothing more.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from manifests.puppet import Action, Pose

Floats = NDArray[np.floating]

EXPRESSIONS = {
    "rest": Action(),
    "smile": Action(cheek_raise=0.8, corner_pull=1.0, lid_tighten=0.2),
    "scowl": Action(brow_lower=1.0, lid_tighten=0.6, nose_wrinkle=0.9, upper_lip_raise=1.0, corner_depress=0.25),
    "distress": Action(inner_brow_raise=1.0, brow_lower=0.15, lid_raise=0.3, corner_depress=0.9, lip_stretch=0.7),
    "awe": Action(inner_brow_raise=0.9, outer_brow_raise=1.0, lid_raise=1.0, jaw_drop=0.8),
    "ease": Action(corner_pull=0.28, lid_tighten=0.2, lip_press=0.2),
}
# emotion: (expression, rhythm)
MANNERS = {
    "angry": ("scowl", "burst"),
    "disgust": ("scowl", "swell"),
    "fear": ("distress", "quake"),
    "sad": ("distress", "sway"),
    "happy": ("smile", "hold"),
    "neutral": ("rest", "hold"),
    "calm": ("ease", "hold"),
    "surprise": ("awe", "hold"),
}
PAIRS = (("angry", "disgust"), ("fear", "sad"))
RISE = 0.14  # of a burst's period is spent rising; of a swell's, falling
LOWEST = 0.35  # intensity at the quiet end of a rhythm, as a share of the apex


@dataclass(frozen=True)
class Performance:
    """One take, frame by frame: `intensity` and `voice` (how far speech opens the mouth) are (N,), 0 to 1."""

    intensity: Floats
    voice: Floats
    actions: list[Action]
    poses: list[Pose]
    brightness: Floats


def rhythm(name: str, seconds: Floats, rng: np.random.Generator, difficulty: float) -> Floats:
    """How strongly the expression shows at each time, 0 to 1: (N,) for (N,) seconds."""
    phase, jitter = rng.uniform(), rng.uniform(0.9, 1.1)
    if name in ("burst", "swell"):
        # Twice and more as quick one as the other; equally quick at difficulty 1, where only the direction is left.
        rate = 1.45 * 3.9 ** ((0.5 if name == "burst" else -0.5) * (1 - difficulty)) * jitter
        cycle = (rate * seconds + phase) % 1
        cycle = cycle if name == "burst" else 1 - cycle
        return np.where(cycle < RISE, cycle / RISE, (1 - cycle) / (1 - RISE))
    if name in ("quake", "sway"):
        rate = 1.9 * 7.5 ** ((0.5 if name == "quake" else -0.5) * (1 - 0.6 * difficulty)) * jitter
        return 0.5 + 0.5 * np.sin(2 * np.pi * (rate * seconds + phase))
    return 0.75 + 0.1 * np.sin(2 * np.pi * (rng.uniform(0.3, 0.6) * seconds + phase))


def perform(
    emotion: str, strength: float, seconds: Floats, rng: np.random.Generator, expressiveness: float, difficulty: float
) -> Performance:
    """Act one take at the given frame times (N,); `strength` is the directed one, `expressiveness` the actor's own."""
    expression, manner = MANNERS[emotion]
    wave = rhythm(manner, seconds, rng, difficulty)
    gate = _gate(seconds, rng)
    level = strength * expressiveness * (1.2 - 0.6 * difficulty) * rng.normal(1, 0.02 + 0.12 * difficulty)
    level = float(np.clip(level, 0.2, 1.3))
    intensity = level * gate * (LOWEST + (1 - LOWEST) * wave)
    voice = _voice(seconds, rng) * gate
    blink = _blinks(seconds, rng)
    apex = _misdirected(EXPRESSIONS[expression], rng, 0.03 + 0.25 * difficulty)
    tilt = float(rng.normal(0, 0.15 + 0.5 * difficulty))
    actions = [_mixed(apex, *moment, tilt) for moment in zip(intensity, voice, blink, strict=True)]
    poses = _head(expression, intensity, level * gate * (2 * wave - 1), seconds, rng, difficulty)
    drift = 1 + (0.02 + 0.05 * difficulty) * np.sin(2 * np.pi * (rng.uniform(0.2, 0.5) * seconds + rng.uniform()))
    return Performance(intensity, voice, actions, poses, drift)


def _mixed(apex: Action, intensity: float, voice: float, blink: float, tilt: float) -> Action:
    units = {field.name: getattr(apex, field.name) * intensity for field in fields(apex)}
    units["jaw_drop"] = min(1.0, units["jaw_drop"] + 0.45 * voice)
    return Action(**(units | {"blink": blink, "tilt": tilt}))


def _misdirected(apex: Action, rng: np.random.Generator, spread: float) -> Action:
    """The expression as this take shows it: each unit a little more or less than directed."""
    units = {field.name: getattr(apex, field.name) for field in fields(apex)}
    return Action(**{name: float(np.clip(unit * rng.normal(1, spread), 0, 1.2)) for name, unit in units.items()})


def _smoothstep(x: Floats) -> Floats:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _gate(seconds: Floats, rng: np.random.Generator) -> Floats:
    """Neutral lead-in, onset, apex, offset: the same for every emotion, and alike forwards and backwards."""
    begin, end = rng.uniform(0.02, 0.15), float(seconds[-1]) - rng.uniform(0.02, 0.15)
    return _smoothstep((seconds - begin) / 0.16) * _smoothstep((end - seconds) / 0.16)


def _voice(seconds: Floats, rng: np.random.Generator) -> Floats:
    """Syllables: the mouth opens three to four times a second, each time as far as it likes."""
    beat = rng.uniform(3.0, 4.0) * seconds + rng.uniform()
    loudness = rng.uniform(0.1, 1.0, int(beat[-1]) + 2)
    return loudness[beat.astype(int)] * np.sin(np.pi * (beat % 1)) ** 2


def _blinks(seconds: Floats, rng: np.random.Generator) -> Floats:
    shut = np.zeros_like(seconds)
    for moment in rng.uniform(0, seconds[-1], rng.integers(0, 3)):
        shut = np.maximum(shut, np.clip(1.4 - np.abs(seconds - moment) / 0.075, 0, 1))
    return shut


def _head(
    expression: str, intensity: Floats, swing: Floats, seconds: Floats, rng: np.random.Generator, difficulty: float
) -> list[Pose]:
    """The head follows the expression (a scowl thrusts, distress swings, a smile lifts) and wanders slowly besides."""
    roam = 0.2 + 1.2 * difficulty

    def wander(amount: float) -> Floats:
        rates, phases = rng.uniform(0.15, 0.5, 2), rng.uniform(0, 1, 2)
        waves = np.sin(2 * np.pi * (rates[:, None] * seconds + phases[:, None])).mean(0)
        return roam * amount * (waves + rng.normal(0, 0.6))

    scowl, distress, smile = (float(expression == name) for name in ("scowl", "distress", "smile"))
    pitch = wander(3) + (11 * scowl - 9 * smile) * intensity
    yaw = wander(5) + 9 * distress * swing
    roll = wander(3) + 5 * distress * swing
    right, down = wander(0.05) + 0.12 * distress * swing, wander(0.04) + (0.12 * scowl - 0.08 * smile) * intensity
    size = 1 + wander(0.02) + 0.10 * scowl * intensity
    columns = zip(pitch, yaw, roll, right, down, size, strict=True)
    return [Pose(*(float(value) for value in row)) for row in columns]

"""Who a drawn person is: sex, age, colours and proportions that are the same in every take."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from manifests.strokes import Colour, mixed, scaled

T = TypeVar("T")

SKINS: dict[str, tuple[Colour, ...]] = {
    "Caucasian": ((243, 207, 182), (233, 190, 160), (222, 176, 146), (205, 160, 128)),
    "Asian": ((238, 203, 166), (224, 184, 142)),
    "African American": ((160, 112, 80), (128, 86, 60), (104, 70, 50)),
    "Unknown": ((196, 148, 112), (180, 132, 98)),
}
HAIRS: tuple[Colour, ...] = ((34, 28, 26), (62, 44, 32), (94, 64, 42), (140, 96, 58), (190, 152, 98))
GREY: Colour = (138, 134, 130)
IRISES: tuple[Colour, ...] = ((74, 50, 34), (98, 72, 44), (70, 96, 70), (78, 110, 140))
CLOTHES: tuple[Colour, ...] = (
    (40, 44, 52), (112, 34, 42), (46, 74, 110), (88, 96, 84), (196, 190, 180), (72, 54, 92)
)  # fmt: skip
WALLS: tuple[Colour, ...] = ((224, 224, 220), (196, 204, 208), (150, 172, 150), (176, 160, 148), (120, 132, 150))
STYLES = {
    "Male": ("short", "parted", "buzz", "curly", "bald"),
    "Female": ("long", "bob", "tied", "curly", "fringe"),
}


@dataclass(frozen=True)
class Identity:
    """Everything that makes one person look the same in every take; sizes are factors around 1."""

    sex: str
    age: int
    race: str
    skin: Colour
    hair: Colour
    style: str
    iris: Colour
    clothes: Colour
    wall: Colour
    light: float  # -1 from the left of the picture, +1 from the right
    width: float
    jaw: float
    eyes: float
    nose: float
    lips: float
    brows: float
    glasses: bool
    beard: float  # how dense: 0 none, 0.3 stubble, 0.85 full
    seed: int


def draw_identity(rng: np.random.Generator, sex: str, race: str) -> Identity:
    """A person of the given sex ("Male", "Female") and race (a key of SKINS); the generator draws everything else."""

    def pick(options: tuple[T, ...]) -> T:
        return options[int(rng.integers(len(options)))]

    age, male, dark = int(rng.integers(20, 66)), sex == "Male", race in ("Asian", "African American")
    return Identity(
        sex=sex,
        age=age,
        race=race,
        skin=_varied(pick(SKINS[race]), rng, 4),
        hair=_varied(pick(HAIRS[: 2 if dark else 5]) if age < 52 else GREY, rng, 2),
        style=pick(STYLES[sex]),
        iris=pick(IRISES[: 2 if dark else 4]),
        clothes=_varied(pick(CLOTHES), rng, 8),
        wall=_varied(pick(WALLS), rng, 6),
        light=rng.uniform(-1, 1),
        width=rng.uniform(0.94, 1.06),
        jaw=rng.uniform(0.95, 1.08) if male else rng.uniform(0.86, 0.97),
        eyes=rng.uniform(0.94, 1.08),
        nose=rng.uniform(0.88, 1.12),
        lips=rng.uniform(0.85, 1.2),
        brows=rng.uniform(1.0, 1.3) if male else rng.uniform(0.75, 1.0),
        glasses=bool(rng.random() < 0.22),
        beard=pick((0.0, 0.0, 0.3, 0.85)) if male else 0.0,
        seed=int(rng.integers(2**31)),
    )


def _varied(colour: Colour, rng: np.random.Generator, spread: float) -> Colour:
    return scaled(mixed(colour, tuple(rng.uniform(0, 255, 3)), spread / 100), rng.uniform(0.94, 1.06))

"""What a run asks for: `runs/RUN_ID/request.json` in the bucket, written by `make train` before a machine starts.

    {
      "task": "fit",                                train; or make a "manifest", or "prepare" clips (default: fit)
      "config": "runs/r50/config.yaml",             fit: a recipe in the bucket, or the name of one that comes along
      "manifest": "manifests/all/manifest.csv",     its manifest.json lies beside; the task manifest writes it
      "clips": "clips/all/",                        prepared clips, all below that prefix; the task prepare writes them
      "data": "data/",                              manifest and prepare: the raw corpora (default: data/)
      "settings": ["optim.lr=3e-4"],                fit: what differs from the recipe (default: nothing)
      "image": "REGISTRY/NAME@sha256:...",          in which every machine of the run works (default: its stack's)
      "processes": "gpu",                           fit: one for each GPU, or a number, which also does without any
      "nodes": 1,                                   fit: machines that train together (default: 1)
      "deadline": "2026-01-31T18:00:00+00:00",      when the run is stopped, however far it is
      "cap_dollars": 20,                            what it may cost, on all of its machines together
      "price_per_hour": 1.006,                      of the dearest machine that may come, in dollars
      "prices": {"g6.xlarge us-east-1a": 0.31},     of each, by type, and zone on the spot market (default: the dearest)
      "stall_minutes": 60                           silence after which it is given up (default: 60)
    }

Keys of the bucket are also paths below the machine's fast disk, so they hold no `..` and do not begin with a slash.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import datetime
from typing import Any

IMAGE = re.compile(r"[a-z0-9.:/-]+@sha256:[0-9a-f]{64}")  # as in boot.sh


class WrongRequest(ValueError):
    """One sentence: which field is wrong and what is allowed."""


@dataclass(frozen=True)
class Request:
    """A request as it stands in the file; `read_request` makes one."""

    manifest: str
    deadline: datetime
    cap_dollars: float
    price_per_hour: float
    task: str = "fit"
    config: str = ""
    clips: str = ""
    data: str = "data/"
    settings: tuple[str, ...] = ()
    image: str = ""
    processes: int | None = None  # None: one for each GPU
    nodes: int = 1
    stall_minutes: float = 60.0
    prices: Mapping[str, float] = field(default_factory=dict)

    def price_of(self, machine: Mapping[str, Any]) -> float:
        """Dollars an hour of the machine of this `type` in this `zone`; of one that is not known, the dearest's."""
        here = f"{machine.get('type')} {machine.get('zone')}"
        return self.prices.get(here, self.prices.get(str(machine.get("type")), self.price_per_hour))

    @property
    def keys(self) -> list[str]:
        """The single objects to bring: the manifest with what lies beside it, and the recipe if it is in the bucket."""
        if self.task == "manifest":
            return []
        beside = self.manifest.removesuffix(".csv") + ".json"
        return [self.manifest, beside, *([self.config] if "/" in self.config else [])]


def read_request(text: str | bytes) -> Request:
    """The request in a JSON text. Raises WrongRequest."""
    try:
        tree = json.loads(text)
    except ValueError as error:
        raise WrongRequest(f"the request is not JSON: {error}") from None
    if not isinstance(tree, dict):
        raise WrongRequest("the request is not a JSON object of fields")
    if unknown := sorted(set(tree) - set(PARSERS)):
        raise WrongRequest(f"the request has unknown fields: {', '.join(unknown)}; it knows {', '.join(PARSERS)}")
    needed = [f.name for f in fields(Request) if f.default is MISSING and f.default_factory is MISSING]
    needed += NEEDED.get(str(tree.get("task", "fit")), [])
    if absent := [name for name in needed if name not in tree]:
        raise WrongRequest(f"the request lacks {', '.join(absent)}")
    values = {}
    for name, value in tree.items():
        try:
            values[name] = PARSERS[name](value)
        except ValueError as error:
            raise WrongRequest(f"the request's {name} is {error}, not {json.dumps(value)}") from None
    return Request(**values)


def _task(value: Any) -> str:
    if value not in NEEDED:
        raise ValueError(f"one of {', '.join(NEEDED)}")
    return str(value)


def _key(value: Any) -> str:
    if not isinstance(value, str) or not value or value.startswith("/") or ".." in value.split("/"):
        raise ValueError("a key in the bucket, such as manifests/all/manifest.csv")
    return value


def _manifest(value: Any) -> str:
    if not _key(value).endswith(".csv"):
        raise ValueError("the key of a manifest.csv")
    return str(value)


def _prefix(value: Any) -> str:
    if not _key(value).endswith("/"):
        raise ValueError("a prefix of the bucket that ends with a slash, such as clips/all/")
    return str(value)


def _settings(value: Any) -> tuple[str, ...]:
    # A word that begins with a dash would be an option of the trainer's command line.
    good = isinstance(value, list) and all(isinstance(w, str) and "=" in w and not w.startswith("-") for w in value)
    if not good:
        raise ValueError('a list of settings, such as ["optim.lr=3e-4"]')
    return tuple(value)


def _image(value: Any) -> str:
    if not isinstance(value, str) or not IMAGE.fullmatch(value):
        raise ValueError("an image by digest, such as REGISTRY/NAME@sha256:...")
    return value


def _processes(value: Any) -> int | None:
    if value == "gpu":
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 64:
        raise ValueError('"gpu" or a number from 1 to 64')
    return value


def _nodes(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 16:
        raise ValueError("a number from 1 to 16")
    return value


def _time(value: Any) -> datetime:
    try:
        when = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        when = None
    if when is None or when.tzinfo is None:
        raise ValueError("a time with its zone, such as 2026-01-31T18:00:00+00:00")
    return when


def _positive(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e6:
        raise ValueError("a number above zero")
    return float(value)


def _prices(value: Any) -> dict[str, float]:
    if not isinstance(value, dict):
        raise ValueError('an object of dollars an hour, such as {"g5.xlarge": 1.006}')
    return {name: _positive(price) for name, price in value.items()}


# What each task needs besides what all of them do.
NEEDED = {"fit": ["config", "clips"], "manifest": [], "prepare": ["clips"]}
PARSERS: dict[str, Callable[[Any], Any]] = {
    "task": _task,
    "config": _key,
    "manifest": _manifest,
    "clips": _prefix,
    "data": _prefix,
    "settings": _settings,
    "image": _image,
    "processes": _processes,
    "nodes": _nodes,
    "deadline": _time,
    "cap_dollars": _positive,
    "price_per_hour": _positive,
    "prices": _prices,
    "stall_minutes": _positive,
}

"""What every test shares: one thread per process, a Ctrl-C that reaches what they start, the long files first."""

import os
import signal
from typing import Any

# Small networks gain nothing from more threads, and real children want the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# A shell that starts pytest in the background lets it ignore SIGINT, and its children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# What `make test` hands to its children would make a `make` of theirs talk about the folders that it enters.
for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
    os.environ.pop(name, None)
# Minutes each: were they last, one process would wait for the other at the end.
LONG = (
    "test_rehearse",
    "test_infra_acceptance",
    "test_image",
    "test_box",
    "test_ops_story",
    "test_wanted",
    "test_processes",
)


def pytest_collection_modifyitems(items: list[Any]) -> None:
    ranks = {stem: rank for rank, stem in enumerate(LONG)}
    items.sort(
        key=lambda item: min((ranks[stem] for stem in LONG if item.path.stem.startswith(stem)), default=len(LONG))
    )

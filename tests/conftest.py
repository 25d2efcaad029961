"""What every test shares: one thread per process, a Ctrl-C that reaches what they start, the long files first.

And what many begin with: a local cloud, an operator's office in it, a browser.
"""

import os
import signal
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from browser import Browser
    from cloud import Cloud
    from operators import Office

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


# Each imports what it needs only where it is used: most tests need neither AWS nor a browser.


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Cloud"]:
    from cloud import cloud

    with cloud(tmp_path_factory.mktemp("cloud")) as started:
        yield started


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Office"]:
    from operators import operating

    with operating(tmp_path_factory.mktemp("cloud")) as made:
        yield made


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore's pauses between attempts take no time, and its budget of attempts is a new one."""
    from infra.ops import door

    door.client.cache_clear()
    sleep = time.sleep
    monkeypatch.setattr("time.sleep", lambda seconds: sleep(min(seconds, 0.01)))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Browser"]:
    """A browser for a module's tests, or the reason why they are skipped."""
    from browser import CHROMIUM, Browser

    if CHROMIUM is None:
        pytest.skip("no chromium on PATH")
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened

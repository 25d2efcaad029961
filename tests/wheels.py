"""Package indexes on this machine, for builds that shall not download gigabytes.

with local_index() as index: ...   # what pip here finds on disk; the rest is PyPI's, or whose index pip here is told
with empty_index() as index: ...   # every package of the lock, of its version, with nothing in it
index.arguments                    # of a build: the same whatever the port, so that the builder's cache stays good

A build reaches the index by its name through a proxy, which is the index too: builders leave proxies out of the keys
of their caches.
"""

import ast
import io
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pip._internal.models.index import PyPI

ROOT = Path(__file__).parents[1]
LOCK = dict(re.findall(r"^([a-z0-9.-]+)==(\S+)$", (ROOT / "requirements.lock").read_text(), re.M))


@dataclass(frozen=True)
class Index:
    host: str  # tells the two apart, or a builder would take one's layers for the other's
    url: str

    @property
    def arguments(self) -> dict[str, str]:
        return {"PIP_INDEX_URL": f"http://{self.host}/simple", "PIP_TRUSTED_HOST": self.host, "HTTP_PROXY": self.url}


def plain(name: str) -> str:
    """A project's name as indexes spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def settings() -> dict[str, list[str]]:
    """What pip is told here about where packages are, by option."""
    said = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    found: dict[str, list[str]] = {}
    for option, value in re.findall(r"^\S+?\.(find-links|index-url|extra-index-url)=(.*)$", said, re.M):
        found.setdefault(option, []).extend(ast.literal_eval(value).split())
    return found


@cache
def on_disk(name: str) -> dict[str, Path]:
    """The files of one project, in the version that is locked, which pip here finds without a network."""
    found: dict[str, Path] = {}
    for url in [*settings().get("index-url", []), *settings().get("extra-index-url", [])]:
        page = Path(unquote(urlsplit(url).path)) / name / "index.html"
        if url.startswith("file:") and page.is_file():
            for link in re.findall(r'href="([^"#]+)', page.read_text()):
                path = (page.parent / unquote(link)).resolve()
                found[path.name] = path
    for place in settings().get("find-links", []):
        folder = Path(urlsplit(place).path if place.startswith("file:") else place)
        found |= {path.name: path for path in folder.glob("*.whl") if plain(path.name.split("-")[0]) == name}
    version = LOCK.get(name)
    return {file: path for file, path in found.items() if version is None or f"-{version}-" in file}


def why_no_torch() -> str | None:
    """Why the real image cannot be built from what is here, or None."""
    heavy = ("torch", "triton", "nvidia-cublas", "nvidia-cudnn-cu13", "nvidia-nccl-cu13")
    missing = [name for name in heavy if not on_disk(name)]
    return (
        f"pip finds no wheels of {', '.join(missing)} on this machine, and tests load no gigabytes" if missing else None
    )


@contextmanager
def local_index() -> Iterator[Index]:
    upstream = next((url for url in settings().get("index-url", []) if url.startswith("http")), PyPI.simple_url)

    def project(name: str) -> list[str] | str:
        return list(on_disk(name)) or f"{upstream.rstrip('/')}/{name}/"

    def file(name: str) -> Any:
        return on_disk(plain(name.split("-")[0]))[name].open("rb")

    with _serving("wheels.test", project, file) as index:
        yield index


@contextmanager
def empty_index() -> Iterator[Index]:
    def project(name: str) -> list[str] | str:
        return [f"{name.replace('-', '_')}-{LOCK[name]}-py3-none-any.whl"]

    with _serving("empty.test", project, lambda name: io.BytesIO(empty_wheel(*name.split("-")[:2]))) as index:
        yield index


def empty_wheel(name: str, version: str) -> bytes:
    info = f"{name}-{version}.dist-info"
    texts = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "".join(f"{info}/{part},,\n" for part in ("METADATA", "WHEEL", "RECORD")),
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for part, text in texts.items():
            archive.writestr(f"{info}/{part}", text)
    return packed.getvalue()


@contextmanager
def _serving(host: str, project: Callable[[str], list[str] | str], file: Callable[[str], Any]) -> Iterator[Index]:
    """`project` tells a project's files, or the URL of the page that does; `file` opens one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, name = urlsplit(self.path).path.strip("/").split("/")
            if kind == "files":
                self.send_response(200)
                self.end_headers()
                with file(name) as stream:
                    return shutil.copyfileobj(stream, self.wfile, 2**20)
            found = project(name)
            if isinstance(found, str):
                self.send_response(302)
                self.send_header("Location", found)
                return self.end_headers()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            page = "".join(f'<a href="/files/{file}">{file}</a>\n' for file in found)
            self.wfile.write(f"<!DOCTYPE html>\n<html><body>{page}</body></html>".encode())
            return None

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield Index(host, f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()

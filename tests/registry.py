"""A container registry on this machine, as much of one as `docker push` and `docker pull` speak to.

with registry("AWS", password) as store:    # store.place is what an image's name begins with
    store.tags["repository"]["tag"]          # the digest; a tag is never given twice, as in the stack's own
    store.uploads                            # bytes of each blob that came, in order
"""

import base64
import hashlib
import json
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Store:
    place: str
    credentials: str
    told: Callable[[str, str, str, str], None]  # of each image: repository, tag, manifest, digest
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)  # media type and bytes, by digest
    tags: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    uploads: list[int] = field(default_factory=list)
    unfinished: dict[str, bytes] = field(default_factory=dict)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: Store

    def route(self) -> None:
        body = self.body()
        if self.headers.get("Authorization") != self.store.credentials:
            return self.answer(401, WWW_Authenticate='Basic realm="registry"')
        url = urlsplit(self.path)
        for method, pattern, act in ROUTES:
            if method == self.command and (match := re.fullmatch(pattern, url.path)):
                return act(self, *match.groups(), body, parse_qs(url.query))
        return self.answer(404)

    do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = route

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def begin(self, name: str, _body: bytes, query: dict[str, list[str]]) -> None:
        if (digest := query.get("mount", [""])[0]) in self.store.blobs:  # of another repository here
            return self.answer(201, Location=f"/v2/{name}/blobs/{digest}", Docker_Content_Digest=digest)
        upload = str(len(self.store.unfinished))
        self.store.unfinished[upload] = b""
        return self.answer(202, Location=f"/v2/{name}/blobs/uploads/{upload}", Docker_Upload_UUID=upload)

    def go_on(self, name: str, upload: str, body: bytes, _query: Any) -> None:
        self.store.unfinished[upload] += body
        end = len(self.store.unfinished[upload]) - 1
        self.answer(202, Location=f"/v2/{name}/blobs/uploads/{upload}", Docker_Upload_UUID=upload, Range=f"0-{end}")

    def complete(self, name: str, upload: str, body: bytes, query: dict[str, list[str]]) -> None:
        data = self.store.unfinished[upload] + body
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if query["digest"] != [digest]:
            return self.answer(400)
        self.store.blobs[digest] = data
        self.store.uploads.append(len(data))
        return self.answer(201, Location=f"/v2/{name}/blobs/{digest}", Docker_Content_Digest=digest)

    def blob(self, _name: str, digest: str, _body: bytes, _query: Any) -> None:
        if (data := self.store.blobs.get(digest)) is None:
            return self.answer(404)
        return self.answer(200, data, Docker_Content_Digest=digest)

    def put_manifest(self, name: str, tag: str, body: bytes, _query: Any) -> None:
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if self.store.tags[name].get(tag, digest) != digest:
            error = {"code": "TAG_INVALID", "message": f"the tag {tag} already exists and cannot be overwritten"}
            return self.answer(400, json.dumps({"errors": [error]}).encode(), Content_Type="application/json")
        self.store.manifests[digest] = (self.headers["Content-Type"], body)
        self.store.tags[name][tag] = digest
        self.store.told(name, tag, body.decode(), digest)
        return self.answer(201, Location=f"/v2/{name}/manifests/{digest}", Docker_Content_Digest=digest)

    def manifest(self, name: str, tag: str, _body: bytes, _query: Any) -> None:
        digest = self.store.tags[name].get(tag, tag)
        if digest not in self.store.manifests:
            return self.answer(404)
        kind, data = self.store.manifests[digest]
        return self.answer(200, data, Content_Type=kind, Docker_Content_Digest=digest)

    def log_message(self, *_: Any) -> None:
        pass


NAME = r"/v2/([a-z0-9/-]+)"
ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("GET", r"/v2/", lambda handler, *_: handler.answer(200)),
    ("POST", rf"{NAME}/blobs/uploads/", Handler.begin),
    ("PATCH", rf"{NAME}/blobs/uploads/(\d+)", Handler.go_on),
    ("PUT", rf"{NAME}/blobs/uploads/(\d+)", Handler.complete),
    ("HEAD", rf"{NAME}/blobs/(sha256:\w+)", Handler.blob),
    ("GET", rf"{NAME}/blobs/(sha256:\w+)", Handler.blob),
    ("PUT", rf"{NAME}/manifests/([\w.:-]+)", Handler.put_manifest),
    ("HEAD", rf"{NAME}/manifests/([\w.:-]+)", Handler.manifest),
    ("GET", rf"{NAME}/manifests/([\w.:-]+)", Handler.manifest),
]


@contextmanager
def registry(user: str, password: str, told: Callable[[str, str, str, str], None] = lambda *_: None) -> Iterator[Store]:
    credentials = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
    handler = type("OurHandler", (Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    handler.store = store = Store(f"127.0.0.1:{server.server_port}", credentials, told)  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()

"""Servers that misbehave on demand: a proxy before a cloud's endpoint, and EC2's metadata service.

with proxy(aws.url) as faulty: ...  # faulty.mode = "503", "expired", "hang", "cut", "pass"; see faulty.seen
with metadata({"spot/instance-action": '{"action": "terminate"}'}) as service: ...
"""

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

HOP = {"connection", "transfer-encoding", "keep-alive", "content-length"}


@dataclass(frozen=True)
class Seen:
    """A request that reached the cloud and was answered whole."""

    method: str
    path: str  # without the query
    query: str
    sent: int  # bytes of the request's body
    time: float


@dataclass
class Proxy:
    url: str
    target: str
    mode: str = "pass"
    only: str = ""  # the mode is for paths with this in them; others pass
    hold: int | None = None  # bytes of an answer after which the rest waits until there is no such number
    refused: int = 0
    given: int = 0  # bytes of all answers' bodies
    seen: list[Seen] = field(default_factory=list)

    def uploads(self, part_of_path: str) -> list[Seen]:
        return [s for s in self.seen if s.method == "PUT" and part_of_path in s.path]


class Relay(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def relay(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        mode = self.proxy.mode if self.proxy.only in self.path else "pass"
        if mode != "pass":
            self.proxy.refused += 1
        if mode == "503":
            return self.answer(503, {"Content-Type": "application/xml"}, b"<Error><Code>SlowDown</Code></Error>")
        if mode == "expired":
            return self.answer(400, {"Content-Type": "application/xml"}, b"<Error><Code>ExpiredToken</Code></Error>")
        if mode == "hang":
            while self.proxy.mode == "hang":
                time.sleep(0.05)
            self.close_connection = True
            return None
        target = http.client.HTTPConnection(urlsplit(self.proxy.target).netloc, timeout=60)
        target.request(self.command, self.path, body, dict(self.headers.items()))
        answer = target.getresponse()
        data = answer.read()
        headers = {k: v for k, v in answer.getheaders() if k.lower() not in HOP}
        length = answer.getheader("Content-Length") if self.command == "HEAD" else None
        target.close()
        if mode == "cut":
            # Half of the answer; of an empty one nothing, though the cloud has done what was asked.
            if data:
                self.answer(answer.status, headers, data[: len(data) // 2], length=str(len(data)))
            self.close_connection = True
            return None
        path, _, query = self.path.partition("?")
        self.proxy.seen.append(Seen(self.command, path, query, len(body), time.time()))
        return self.answer(answer.status, headers, data, length=length)

    def answer(self, status: int, headers: dict[str, str], data: bytes, length: str | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(data)))
        self.end_headers()
        self.give(data[: self.proxy.hold])
        if self.proxy.hold is not None and len(data) > (held := self.proxy.hold):
            while self.proxy.hold is not None:
                time.sleep(0.05)
            self.give(data[held:])

    def give(self, data: bytes) -> None:
        self.wfile.write(data)
        self.wfile.flush()
        self.proxy.given += len(data)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = relay

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def proxy(target: str) -> Iterator[Proxy]:
    handler = type("Handler", (Relay,), {})
    with _serving(handler) as url:
        made = Proxy(url, target)
        handler.proxy = made  # type: ignore[attr-defined]
        yield made
        made.mode, made.hold = "pass", None  # lets go whatever hangs


@dataclass
class Metadata:
    """IMDSv2: what stands at each path below meta-data/."""

    url: str
    texts: dict[str, str]


class Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    service: Metadata

    def do_PUT(self) -> None:
        self.say(200, "token" if self.path == "/latest/api/token" else "")

    def do_GET(self) -> None:
        path = self.path.removeprefix("/latest/meta-data/")
        if self.headers.get("X-aws-ec2-metadata-token") != "token":
            return self.say(401, "")
        text = self.service.texts.get(path)
        return self.say(404, "") if text is None else self.say(200, text)

    def say(self, status: int, text: str) -> None:
        self.send_response_only(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def metadata(texts: dict[str, str] | None = None) -> Iterator[Metadata]:
    handler = type("Handler", (Service,), {})
    with _serving(handler) as url:
        made = Metadata(url, texts or {})
        handler.service = made  # type: ignore[attr-defined]
        yield made


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that was killed
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield "http://{}:{}".format(*server.server_address[:2])
    finally:
        server.shutdown()
        server.server_close()

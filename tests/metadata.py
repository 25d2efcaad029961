"""The metadata service of one stand-in machine: IMDSv2 over real HTTP, for its identity, its role and its end.

Version 2 only, as the stack's machines demand: without a token there is no answer.
"""

import json
import secrets
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN_TTL = "X-aws-ec2-metadata-token-ttl-seconds"
TOKEN = "X-aws-ec2-metadata-token"
ROLE = "machine"


class Metadata:
    """What the service answers, by path below meta-data/; `take` adds the notice of a spot machine's end."""

    def __init__(self, instance: str, kind: str, zone: str, market: str) -> None:
        region = zone[:-1]
        self.answers = {
            "instance-id": instance,
            "instance-type": kind,
            "instance-life-cycle": market,
            "placement/availability-zone": zone,
            "placement/region": region,
            "iam/security-credentials/": ROLE,
        }
        self.identity = {"instanceId": instance, "instanceType": kind, "availabilityZone": zone, "region": region}
        self.tokens: set[str] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"metadata": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def take(self, when: datetime) -> None:
        """Announce that EC2 takes the machine back at that time."""
        notice = {"action": "terminate", "time": f"{when:%Y-%m-%dT%H:%M:%SZ}"}
        self.answers["spot/instance-action"] = json.dumps(notice)

    def answer(self, path: str) -> str | None:
        """The text at a path below /latest/; None if there is none."""
        if path == "dynamic/instance-identity/document":
            return json.dumps(self.identity)
        if path == f"meta-data/iam/security-credentials/{ROLE}":
            return json.dumps(credentials())
        return self.answers.get(path.removeprefix("meta-data/"))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def credentials() -> dict[str, str]:
    """Short-lived keys of the machine's role; the stand-in cloud takes any."""
    now = datetime.now(UTC)
    keys = {"AccessKeyId": "ASIATEST", "SecretAccessKey": "test", "Token": "test"}
    times = {"LastUpdated": f"{now:%Y-%m-%dT%H:%M:%SZ}", "Expiration": f"{now + timedelta(hours=6):%Y-%m-%dT%H:%M:%SZ}"}
    return {"Code": "Success", "Type": "AWS-HMAC", **keys, **times}


class _Handler(BaseHTTPRequestHandler):
    metadata: Metadata

    def do_PUT(self) -> None:
        if self.path != "/latest/api/token" or TOKEN_TTL not in self.headers:
            return self.send_error(400)
        token = secrets.token_urlsafe(16)
        self.metadata.tokens.add(token)
        self._reply(token, {TOKEN_TTL: self.headers[TOKEN_TTL]})

    def do_GET(self) -> None:
        if self.headers.get(TOKEN) not in self.metadata.tokens:
            return self.send_error(401)
        text = self.metadata.answer(self.path.removeprefix("/latest/"))
        return self.send_error(404) if text is None else self._reply(text, {})

    def _reply(self, text: str, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass

"""Counts the calls that a command makes to AWS, over real HTTP, by a proxy before a cloud's endpoint; and upsets some.

    with calls(aws.url) as seen:                       # commands speak to seen.url
        seen.answers["pricing:GetProducts"] = {...}  # what the cloud lacks: a tree, or a function of the call
        seen.upset("s3:PutObject", "503", "cut")       # its next two calls
        seen.names                                     # Counter({"s3:GetObject": 3, ...}), as policies name actions

A call is upset before it reaches the cloud ("503", "throttle", "expired", "skew", "denied", "drop"), or after: with
"cut" the cloud has done it, and nobody is told.
"""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from faults import HOP, _serving

PLACE = "us-east-1:123456789012"
SERVICES = {"monitoring": "cloudwatch"}  # where the name that signs is not the one in policies
S3_ACTIONS = {
    ("GET", "key", "uploadId"): "ListMultipartUploadParts",
    ("DELETE", "key", "uploadId"): "AbortMultipartUpload",
    ("GET", "bucket", "uploads"): "ListBucketMultipartUploads",
    ("GET", "bucket", "versions"): "ListBucketVersions",
    ("GET", "bucket", "location"): "GetBucketLocation",
    ("GET", "bucket", ""): "ListBucket",
    ("HEAD", "bucket", ""): "ListBucket",
    ("GET", "key", ""): "GetObject",
    ("HEAD", "key", ""): "GetObject",
    ("PUT", "key", ""): "PutObject",
    ("POST", "key", ""): "PutObject",
    ("PUT", "key", "uploadId"): "PutObject",
    ("POST", "key", "uploadId"): "PutObject",
    ("POST", "key", "uploads"): "PutObject",
    ("DELETE", "key", ""): "DeleteObject",
}
TROUBLES = {
    "503": (503, "ServiceUnavailable"),
    "throttle": (400, "Throttling"),
    "expired": (403, "ExpiredToken"),
    "skew": (403, "RequestTimeTooSkewed"),
    "denied": (403, "AccessDenied"),
}


@dataclass(frozen=True)
class Call:
    """One request that was made, as a policy speaks of it."""

    name: str  # service:Operation
    resources: tuple[str, ...]  # ARNs; `*` where the operation knows none
    parameters: dict[str, Any]


@dataclass
class Calls:
    url: str
    target: str
    made: list[Call] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)
    before: dict[str, Callable[[Call], None]] = field(default_factory=dict)  # what happens when such a call (`*`) comes
    troubles: dict[str, list[str]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def names(self) -> Counter[str]:
        return Counter(call.name for call in self.made)

    def of(self, name: str) -> list[Call]:
        return [call for call in self.made if call.name == name]

    def upset(self, name: str, *kinds: str) -> None:
        """Upset the next calls of that name, one after the other; or of a `name path`, a part of the parameters."""
        self.troubles.setdefault(name, []).extend(kinds)

    def trouble(self, call: Call) -> str:
        with self.lock:
            self.made.append(call)
            for name, kinds in self.troubles.items():
                wanted, _, part = name.partition(" ")
                if wanted in (call.name, "*") and part in json.dumps(call.parameters) and kinds:
                    return kinds.pop(0)
        return ""

    def reset(self) -> None:
        for things in (self.made, self.answers, self.before, self.troubles):
            things.clear()


def understood(method: str, path: str, headers: Any, body: bytes) -> tuple[Call, str]:
    """What a request asks for, and its protocol: json, query, ec2 or s3."""
    scope = headers.get("Authorization", "").partition("Credential=")[2].split("/")
    service = SERVICES.get(scope[3], scope[3]) if len(scope) > 3 else "unsigned"
    where, _, query = path.partition("?")
    if service == "s3":
        return _s3_call(method, unquote(where), set(parse_qs(query, keep_blank_values=True))), "s3"
    if target := headers.get("X-Amz-Target"):
        tree = json.loads(body or b"{}")
        return Call(f"{service}:{target.rpartition('.')[2]}", _resources(service, tree), tree), "json"
    if "/operation/" in where:
        return Call(f"{service}:{where.rpartition('/')[2]}", ("*",), {}), "json"
    asked = {name: values[0] for name, values in parse_qs(body.decode()).items()}
    protocol = "ec2" if service == "ec2" else "query"
    return Call(f"{service}:{asked.get('Action')}", _resources(service, asked), asked), protocol


def _s3_call(method: str, where: str, query: set[str]) -> Call:
    bucket, _, key = where.lstrip("/").partition("/")
    special = next((word for word in ("uploadId", "uploads", "versions", "location") if word in query), "")
    action = S3_ACTIONS[method, "key" if key else "bucket", special]
    arn = f"arn:aws:s3:::{bucket}" + (f"/{key}" if key else "")
    return Call(f"s3:{action}", (arn,), {"Bucket": bucket, "Key": key, "Method": method})


def _resources(service: str, asked: dict[str, Any]) -> tuple[str, ...]:
    if service == "autoscaling" and (group := asked.get("AutoScalingGroupName")):
        return (f"arn:aws:autoscaling:{PLACE}:autoScalingGroup:1a2b:autoScalingGroupName/{group}",)
    if service == "ssm" and "Name" in asked:
        return (f"arn:aws:ssm:{PLACE}:parameter{asked['Name']}",)
    if service == "ssm" and "Names" in asked:  # of public parameters
        return tuple(f"arn:aws:ssm:us-east-1::parameter{name}" for name in asked["Names"])
    if service == "iam" and (role := asked.get("RoleName")):  # the one that AWS itself takes on for spot machines
        return (f"arn:aws:iam::123456789012:role/aws-service-role/spot.amazonaws.com/{role}",)
    if service == "ecr" and (repository := asked.get("repositoryName")):
        return (f"arn:aws:ecr:{PLACE}:repository/{repository}",)
    if service == "sns":
        return (asked["TopicArn"],)
    if service == "ssm" and "DocumentName" in asked:
        machines = asked.get("InstanceIds") or [asked.get("Target")]
        found = [f"arn:aws:ec2:{PLACE}:instance/{machine}" for machine in machines]
        return (f"arn:aws:ssm:{PLACE}:document/{asked['DocumentName']}", *found)
    return ("*",)


class Relay(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    calls: Calls

    def relay(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        call, protocol = understood(self.command, self.path, self.headers, body)
        trouble = self.calls.trouble(call)
        if happens := self.calls.before.get(call.name) or self.calls.before.get("*"):
            happens(call)
        if trouble == "drop":
            self.close_connection = True
            return
        if trouble in TROUBLES:
            return self.refuse(*TROUBLES[trouble], protocol)
        if call.name in self.calls.answers:
            told = self.calls.answers[call.name]
            return self.answer(200, {}, told(call) if callable(told) else told)
        target = http.client.HTTPConnection(urlsplit(self.calls.target).netloc, timeout=60)
        target.request(self.command, self.path, body, dict(self.headers.items()))
        answer = target.getresponse()
        data = answer.read()
        target.close()
        if trouble == "cut":
            self.close_connection = True
            return
        headers = {k: v for k, v in answer.getheaders() if k.lower() not in HOP}
        length = answer.getheader("Content-Length") if self.command == "HEAD" else None
        self.answer(answer.status, headers, data, length)

    def refuse(self, status: int, code: str, protocol: str) -> None:
        body: Any = (
            f"<ErrorResponse><Error><Code>{code}</Code><Message>upset</Message></Error></ErrorResponse>".encode()
        )
        if protocol == "s3":
            body = f"<Error><Code>{code}</Code><Message>upset</Message></Error>".encode()
            status = 503 if code == "Throttling" else status  # as S3 slows down
        elif protocol == "ec2":
            body = f"<Response><Errors><Error><Code>{code}</Code><Message>upset</Message></Error></Errors></Response>"
            body = body.encode()
        elif protocol == "json":
            body = {"__type": code + "Exception" * (code in ("ExpiredToken", "AccessDenied")), "message": "upset"}
        self.answer(status, {}, b"" if self.command == "HEAD" else body)

    def answer(self, status: int, headers: dict[str, str], data: Any, length: str | None = None) -> None:
        if isinstance(data, dict):
            data, headers = json.dumps(data).encode(), {"Content-Type": "application/x-amz-json-1.1"}
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(data)))
        if "Date" not in headers:
            self.send_header("Date", time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime()))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = relay

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def calls(target: str) -> Iterator[Calls]:
    handler = type("Handler", (Relay,), {})
    with _serving(handler) as url:
        made = Calls(url, target)
        handler.calls = made  # type: ignore[attr-defined]
        yield made

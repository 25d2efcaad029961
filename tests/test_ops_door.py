"""The door to AWS, its sentences, and the manners of every verb's command line. Run: pytest tests/test_ops_door.py"""

import ast
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from infra.ops import door
from infra.ops.command import run
from infra.ops.errors import UserError

OPS = Path(__file__).parents[1] / "infra" / "ops"
VERBS = sorted(path.stem for path in OPS.glob("*.py") if "__main__" in path.read_text())


class Refusing(BaseHTTPRequestHandler):
    """An AWS that refuses every call in the way that the server's `code` says."""

    def do_POST(self) -> None:
        body = (
            f"<ErrorResponse><Error><Type>Sender</Type><Code>{self.server.code}</Code>"  # type: ignore[attr-defined]
            "<Message>No, not you</Message></Error><RequestId>1</RequestId></ErrorResponse>"
        ).encode()
        self.send_response(403)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    door.client.cache_clear()
    yield server
    door.client.cache_clear()
    server.shutdown()


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("ExpiredToken", "`aws sso login` renews them"),
        ("InvalidClientTokenId", "AWS does not know this access key"),
        ("SignatureDoesNotMatch", "`date -u` shows it"),
        ("RequestExpired", "this machine's clock is wrong"),
        ("AccessDenied", "you may not do GetCallerIdentity: No, not you"),
        ("Surprise", "AWS refuses GetCallerIdentity (Surprise): No, not you; `make doctor`"),
    ],
)
def test_what_aws_refuses_is_one_sentence_with_the_next_command(
    refusing: ThreadingHTTPServer, capsys: pytest.CaptureFixture[str], code: str, told: str
) -> None:
    refusing.code = code  # type: ignore[attr-defined]
    assert run(lambda: door.client("sts", "us-east-1").get_caller_identity()) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert told in said.err
    assert said.err.count("\n") == 1


def test_an_aws_that_is_not_there_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the attempts
    door.client.cache_clear()
    assert run(lambda: door.client("sts", "us-east-1").get_caller_identity()) == 2
    door.client.cache_clear()
    assert "AWS cannot be reached" in capsys.readouterr().err


def test_a_person_without_credentials_is_told_how_to_get_some(tmp_path: Path) -> None:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    clean |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_REGION": "us-east-1", "HOME": str(tmp_path)}
    code = "from infra.ops.command import run; from infra.ops import fleet; "
    code += "raise SystemExit(run(lambda: len(fleet.find_machines('us-east-1'))))"
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: AWS does not know who you are; `aws configure sso` or `aws configure` sets that up\n"


def test_a_bug_of_ours_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 // 0)


def test_a_mistake_of_the_operators_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    def mistaken() -> None:
        raise UserError("that is wrong; `make right`")

    assert run(mistaken) == 2
    assert capsys.readouterr().err == "error: that is wrong; `make right`\n"


def test_only_the_door_makes_clients() -> None:
    for path in OPS.glob("*.py"):
        if path.name == "door.py":
            continue
        names = {
            name.partition(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""])
        }
        assert not names & {"boto3", "botocore"}, path.name


def test_no_verb_hands_a_line_to_a_shell() -> None:
    for path in OPS.glob("*.py"):
        text = path.read_text()
        assert "shell=True" not in text, path.name
        assert "os.system" not in text, path.name


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_two_examples_and_needs_neither_aws_nor_boto3(verb: str) -> None:
    code = f"import sys; from infra.ops import {verb}\n"
    code += f"try: {verb}.main(['--help'])\n"
    code += "except SystemExit: print('boto3' in sys.modules, 'pulumi' in sys.modules, 'torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    *text, loaded = shown.stdout.splitlines()
    assert loaded == "False False False"
    examples = text[text.index("examples:") + 1 :]
    assert len(examples) >= 2
    assert any(f"make {verb}" in line for line in examples)
    assert any(f"python -m infra.ops.{verb}" in line for line in examples)

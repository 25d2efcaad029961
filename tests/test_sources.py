"""Listings of folders and of S3, over real HTTP. Run: .venv/bin/python -m pytest tests/test_sources.py"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from videos import crema_names, ravdess_names

from manifests.__main__ import main
from manifests.build import Request, build
from manifests.errors import UserError
from manifests.sources import below, common_root, printable
from manifests.table import read_manifest

PEOPLE = '"ActorID","Age","Sex","Race","Ethnicity"\n1001,51,"Male","Caucasian","Not Hispanic"\n'


def test_the_root_is_the_deepest_folder_that_holds_all() -> None:
    assert common_root(["/data/ravdess", "/data/crema-d"]) == "/data"
    assert common_root(["/data/ravdess"]) == "/data/ravdess"
    assert common_root(["s3://b/data/ravdess/", "s3://b/data/ravdess2"]) == "s3://b/data"
    assert below("s3://b/data/ravdess/", "s3://b/data") == "ravdess"
    with pytest.raises(UserError, match="in two buckets"):
        common_root(["s3://a/x", "s3://b/x"])


def test_bytes_that_are_no_utf8_are_shown_as_escapes() -> None:
    assert printable("a\udcff\nb") == "a\\xff\\x0ab"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of a local S3 endpoint that speaks HTTP, with both corpora in s3://lab/data."""
    boto3 = pytest.importorskip("boto3", reason="boto3 is not installed")
    server = shutil.which("moto_server", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if not server:
        pytest.skip("no moto_server on the PATH")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (tmp_path_factory.mktemp("moto") / "log").open("wb")
    process = subprocess.Popen([server, "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log)
    patch = pytest.MonkeyPatch()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        patch.setenv(name, "test")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    try:
        await_port(port)
        client = boto3.client("s3")
        client.create_bucket(Bucket="lab")
        names = [f"ravdess/{name}" for name in ravdess_names(range(1, 5), modalities=(2,))]
        for number, name in enumerate([*names, *(f"crema-d/{name}" for name in crema_names(range(1001, 1005)))]):
            client.put_object(Bucket="lab", Key=f"data/{name}", Body=b"x" * (1000 + number))
        client.put_object(Bucket="lab", Key="data/crema-d/VideoFlash/1005_DFA_ANG_XX.flv", Body=b"p" * 130)
        client.put_object(Bucket="lab", Key="data/crema-d/VideoDemographics.csv", Body=PEOPLE.encode())
        client.put_object(Bucket="lab", Key="data/crema-d/", Body=b"")
        yield client
    finally:
        patch.undo()
        process.terminate()
        process.wait(10)
        log.close()


def await_port(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "the endpoint never came up"
            time.sleep(0.1)


def test_a_bucket_is_listed_with_sizes_and_etags_and_nothing_is_downloaded(s3: Any, tmp_path: Path) -> None:
    out = tmp_path / "m.csv"
    built = build(Request(out=out, ravdess="s3://lab/data/ravdess", crema="s3://lab/data/crema-d/"))
    rows = read_manifest(out).rows
    assert len(rows) == 4 * 44 + 4 * 12
    assert rows["bytes"].ge(1000).all()
    assert rows["bytes"].is_unique
    assert rows["etag"].str.fullmatch("[0-9a-f]{32}").all()
    assert rows["sha256"].eq("").all()
    assert built.facts["verification"] == "listing: sizes and ETags, nothing was decoded"
    reasons = dict(built.rejected.itertuples(index=False, name=None))
    pointer = reasons["crema-d/VideoFlash/1005_DFA_ANG_XX.flv"]
    assert pointer == "too small for a video: 130 bytes, perhaps a git-lfs pointer"
    people = rows[rows["dataset"] == "crema"].drop_duplicates("actor").set_index("actor")
    assert people["sex"].to_dict() == {"crema_1001": "male", "crema_1002": "", "crema_1003": "", "crema_1004": ""}
    assert people.at["crema_1001", "age"] == 51


def test_check_holds_a_manifest_against_the_bucket(s3: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "m.csv"
    build(Request(out=out, ravdess="s3://lab/data/ravdess"))
    assert main(["check", str(out), "--root", "s3://lab/data/ravdess"]) == 0
    path = read_manifest(out).rows["path"][0]
    before = s3.get_object(Bucket="lab", Key=f"data/ravdess/{path}")["Body"].read()
    s3.put_object(Bucket="lab", Key=f"data/ravdess/{path}", Body=b"y" * len(before))
    assert main(["check", str(out), "--root", "s3://lab/data/ravdess"]) == 1
    assert f"problem: {path}: its ETag changed" in capsys.readouterr().out
    s3.delete_object(Bucket="lab", Key=f"data/ravdess/{path}")
    assert main(["check", str(out), "--root", "s3://lab/data/ravdess"]) == 1
    assert f"problem: {path}: missing below s3://lab/data/ravdess" in capsys.readouterr().out
    s3.put_object(Bucket="lab", Key=f"data/ravdess/{path}", Body=before)


def test_a_bucket_that_is_not_there_is_one_sentence(
    s3: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", "--ravdess", "s3://elsewhere/data", "--out", str(tmp_path / "m.csv")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: cannot read s3://elsewhere/data")
    assert said.count("\n") == 1


def test_without_boto3_the_sentence_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)  # as if it were not installed
    assert main(["build", "--ravdess", "s3://lab/data", "--out", str(tmp_path / "m.csv")]) == 2
    assert "needs boto3" in capsys.readouterr().err


def test_check_refuses_to_decode_what_lies_in_a_bucket(
    s3: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.csv"
    build(Request(out=out, ravdess="s3://lab/data/ravdess"))
    assert main(["check", str(out), "--root", "s3://lab/data/ravdess", "--decode"]) == 2
    assert "--decode reads videos from a folder, not from S3" in capsys.readouterr().err

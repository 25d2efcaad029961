"""Weights are fetched once, whole or not at all, and stay what they were. Run: pytest tests/test_weights.py"""

import hashlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from manifests.errors import UserError
from trainer import weights
from trainer.weights import fetch_weights

CONTENT = bytes(range(256)) * 10_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Site(BaseHTTPRequestHandler):
    """Serves CONTENT under any name but these: torn (cut in half), slow (halts half way), unmeasured, absent."""

    asked: ClassVar[list[str]] = []
    go_on = threading.Event()

    def do_GET(self):
        self.asked.append(self.path)
        name = self.path.rpartition("/")[2]
        if name == "absent.pth":
            self.send_error(404)
            return
        self.send_response(200)
        if name != "unmeasured.pth":
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        half = len(CONTENT) // 2
        with suppress(ConnectionError):  # a killed reader hears no more
            self.wfile.write(CONTENT[:half])
            if name == "slow.pth":
                self.go_on.wait(30)
            if name != "torn.pth":
                self.wfile.write(CONTENT[half:])

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def address():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    Site.go_on.set()
    server.shutdown()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    Site.asked.clear()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def files_in(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_an_address_is_asked_once_and_its_bytes_are_recorded(address, cache):
    path, digest = fetch_weights(f"{address}/zoo/net.pth", "slowfast", 50)
    assert path.read_bytes() == CONTENT
    assert digest == DIGEST
    assert path.is_relative_to(cache)
    assert path.with_name("net.pth.sha256").read_text() == f"{DIGEST}  net.pth\n"
    assert fetch_weights(f"{address}/zoo/net.pth", "slowfast", 50) == (path, DIGEST)
    assert Site.asked == ["/zoo/net.pth"]


def test_files_of_one_name_at_two_addresses_are_two_files(address):
    first, _ = fetch_weights(f"{address}/a/net.pth", "slowfast", 50)
    second, _ = fetch_weights(f"{address}/b/net.pth", "slowfast", 50)
    assert first != second


@pytest.mark.parametrize(
    ("arch", "depth", "name"),
    [("slowfast", 50, "SLOWFAST_8x8_R50.pyth"), ("slowfast", 101, "SLOWFAST_8x8_R101.pyth")],
)
def test_kinetics400_means_the_public_weights_of_the_network(address, monkeypatch, arch, depth, name):
    monkeypatch.setattr(weights, "MODEL_ZOO", f"{address}/model_zoo")
    path, _ = fetch_weights("kinetics400", arch, depth)
    assert path.read_bytes() == CONTENT
    assert Site.asked == [f"/model_zoo/{name}"]


def test_the_public_addresses_are_those_of_the_libraries_that_made_the_weights():
    from pytorchvideo.models.hub.slowfast import checkpoint_paths
    from torchvision.models.video import R3D_18_Weights

    assert weights.public_address("kinetics400", "slowfast", 50) == checkpoint_paths["slowfast_r50"]
    assert weights.public_address("kinetics400", "slowfast", 101) == checkpoint_paths["slowfast_r101"]
    address, _, digits = weights.public_address("kinetics400", "r3d18", 50).partition("#sha256=")
    assert address == R3D_18_Weights.KINETICS400_V1.url
    assert address.endswith(f"-{digits}.pth")


@pytest.mark.parametrize(("arch", "depth"), [("slowfast", 18), ("single_frame", 50)])
def test_a_network_without_public_weights_is_one_sentence(arch, depth):
    with pytest.raises(UserError, match=r"no public Kinetics-400 weights of .*model\.pretrained=null"):
        fetch_weights("kinetics400", arch, depth)


def test_a_torn_download_never_becomes_the_file(address, cache):
    with pytest.raises(UserError, match=f"broke off after {len(CONTENT) // 2} of {len(CONTENT)} bytes"):
        fetch_weights(f"{address}/torn.pth", "slowfast", 50)
    assert files_in(cache) == []


def test_a_killed_download_never_becomes_the_file(address, cache):
    source = f"{address}/slow.pth"
    program = f"from trainer.weights import fetch_weights; fetch_weights({source!r}, 'slowfast', 50)"
    process = subprocess.Popen([sys.executable, "-c", program])
    deadline = time.monotonic() + 30
    while not any(path.stat().st_size for path in files_in(cache)):
        assert time.monotonic() < deadline, "the download never began"
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert all(path.name.startswith(".tmp-") for path in files_in(cache))
    Site.go_on.set()
    path, digest = fetch_weights(source, "slowfast", 50)
    assert (path.read_bytes(), digest) == (CONTENT, DIGEST)


def test_a_length_that_is_not_told_is_refused(address, cache):
    with pytest.raises(UserError, match="does not say its length"):
        fetch_weights(f"{address}/unmeasured.pth", "slowfast", 50)
    assert files_in(cache) == []


@pytest.mark.parametrize("source", ["http://127.0.0.1:9/net.pth", "https://no-such-host.invalid/net.pth", "gs://b/net"])
def test_no_way_out_is_one_sentence_that_names_another_way(source):
    with pytest.raises(UserError, match=r"fetch it on a machine that can, copy it here and set model\.pretrained"):
        fetch_weights(source, "slowfast", 50)


def test_a_wrong_address_is_one_sentence_with_the_answer(address):
    with pytest.raises(UserError, match=r"absent\.pth \(HTTP Error 404"):
        fetch_weights(f"{address}/absent.pth", "slowfast", 50)


@pytest.mark.parametrize("name", ["net.pth", "from the web"])
def test_a_file_that_changed_since_its_first_use_is_refused_until_its_record_is_deleted(address, tmp_path, name):
    source = f"{address}/net.pth"
    if name == "net.pth":
        source = str(tmp_path / name)
        Path(source).write_bytes(CONTENT)
    path, _ = fetch_weights(source, "slowfast", 50)
    path.write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(UserError, match=f"is not the file that it was: sha256 {DIGEST}"):
        fetch_weights(source, "slowfast", 50)
    path.with_name("net.pth.sha256").unlink()
    assert fetch_weights(source, "slowfast", 50)[1] != DIGEST


def test_promised_digits_are_held_against_the_first_bytes_that_come(address, tmp_path):
    assert fetch_weights(f"{address}/net.pth#sha256={DIGEST[:8]}", "slowfast", 50)[1] == DIGEST
    path = tmp_path / "local.pth"
    path.write_bytes(CONTENT)
    with pytest.raises(UserError, match=f"has the sha256 {DIGEST} and not 0000"):
        fetch_weights(f"{path}#sha256=0000", "slowfast", 50)
    assert not path.with_name("local.pth.sha256").exists()


def test_a_record_that_sha256sum_wrote_counts(tmp_path):
    path = tmp_path / "net.pth"
    path.write_bytes(CONTENT)
    record = subprocess.run(["sha256sum", "net.pth"], cwd=tmp_path, capture_output=True, check=True).stdout
    path.with_name("net.pth.sha256").write_bytes(record)
    assert fetch_weights(str(path), "slowfast", 50) == (path, DIGEST)
    path.write_bytes(CONTENT + b"?")
    with pytest.raises(UserError, match="is not the file that it was"):
        fetch_weights(str(path), "slowfast", 50)


def test_a_file_in_a_folder_that_may_only_be_read_is_recorded_in_the_cache(monkeypatch):
    with tempfile.TemporaryDirectory() as folder:
        path, cache = Path(folder) / "shared" / "net.pth", Path(folder) / "cache"
        path.parent.mkdir()
        path.write_bytes(CONTENT)
        cache.mkdir()
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
        for mode, place in ((0o755, Path(folder)), (0o777, cache), (0o555, path.parent)):
            place.chmod(mode)
        root = os.geteuid() == 0
        try:
            if root:
                os.seteuid(65534)  # root may write everywhere, nobody may not
            assert fetch_weights(str(path), "slowfast", 50) == (path, DIGEST)
        finally:
            if root:
                os.seteuid(0)
            path.parent.chmod(0o755)
        assert [file.name for file in files_in(path.parent)] == ["net.pth"]
        assert [file.read_text() for file in files_in(cache)] == [f"{DIGEST}  net.pth\n"]
        path.write_bytes(CONTENT + b"?")
        with pytest.raises(UserError, match="is not the file that it was"):
            fetch_weights(str(path), "slowfast", 50)


def test_a_path_without_a_file_is_one_sentence_with_the_choices(tmp_path):
    with pytest.raises(UserError, match=r"no weights at .*kinetics400 for the public ones, or null"):
        fetch_weights(str(tmp_path / "none.pyth"), "slowfast", 50)


@pytest.fixture
def bucket(monkeypatch):
    """An S3 endpoint that speaks HTTP, with CONTENT at s3://lab/weights/net.pth."""
    boto3 = pytest.importorskip("boto3", reason="boto3 is not installed")
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    server = moto.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="lab")
    client.put_object(Bucket="lab", Key="weights/net.pth", Body=CONTENT)
    yield client
    server.stop()


def test_an_object_in_s3_is_fetched_once(bucket):
    path, digest = fetch_weights("s3://lab/weights/net.pth", "slowfast", 50)
    assert (path.read_bytes(), digest) == (CONTENT, DIGEST)
    bucket.delete_object(Bucket="lab", Key="weights/net.pth")
    assert fetch_weights("s3://lab/weights/net.pth", "slowfast", 50) == (path, DIGEST)


def test_an_object_that_is_not_there_is_one_sentence(bucket):
    with pytest.raises(UserError, match=r"cannot read s3://lab/weights/other\.pth .*NoSuchKey"):
        fetch_weights("s3://lab/weights/other.pth", "slowfast", 50)

"""make data: raw videos to the bucket, over real HTTP with faults in between. Run: pytest tests/test_ops_data.py"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cloud import Cloud
from faults import Proxy, proxy
from hypothesis import given
from hypothesis import strategies as st
from moving import HangAfter, content, do, end_by, fill, puts, start, wait_for
from watching import Stage, stage

from infra.box.transfer import PART
from infra.ops import corpus, upload
from infra.ops.corpus import TABLES, VIDEOS, printable, survey
from infra.ops.moving import Wire
from manifests.build import SMALLEST_VIDEO
from manifests.corpora import VIDEO_SUFFIXES

ROOT = Path(__file__).parents[1]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 300000\n"
STRANGE = [
    "a b.mp4",
    'it\'s "q".mp4',
    "$(touch x).mp4",
    "`id`; rm -rf *.mp4",
    "größe 日本 🎬.mp4",
    "a+b%20&=?#.mp4",
]


@pytest.fixture
def faulty(aws: Cloud) -> Iterator[Proxy]:
    with proxy(aws.url) as made:
        yield made


@pytest.fixture
def here(aws: Cloud, faulty: Proxy, tmp_path: Path) -> Iterator[Stage]:
    with stage(aws, tmp_path, faulty.url) as made:
        yield made


def video(seed: int, size: int = 3000) -> bytes:
    return hashlib.shake_128(str(seed).encode()).digest(size)


def corpus_of(folder: Path, videos: int) -> Path:
    return fill(folder, {f"Actor_{n % 4:02}/{n}.mp4": video(n) for n in range(videos)})


def test_what_was_sent_is_there_under_its_own_path_and_a_second_call_sends_nothing(
    here: Stage, faulty: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {name: video(n) for n, name in enumerate(STRANGE)} | {"crema/VideoDemographics.csv": b"ActorID\n1001\n"}
    source = fill(here.folder / "the $(source) 'folder'", files)
    code, out, err = do(here, monkeypatch, "data", str(source))
    assert code == 0, err
    assert (code, out) == (
        0,
        f"sent 7 new and 0 changed files, 0.00 GB, to s3://{here.outputs.bucket}/data/; 0 were there\n",
    )
    assert err.startswith("6 videos and 1 tables, 0.0 GiB, about $0.00 a month\n")
    assert content(here, "data/") == files
    sha256 = here.aws.client("s3").head_object(Bucket=here.outputs.bucket, Key="data/a b.mp4")["Metadata"]["sha256"]
    assert sha256 == hashlib.sha256(files["a b.mp4"]).hexdigest()
    faulty.seen.clear()
    code, out, _ = do(here, monkeypatch, "data", str(source))
    assert (code, out) == (0, f"nothing to do: all 7 files are in s3://{here.outputs.bucket}/data/\n")
    assert [(seen.method, seen.path) for seen in faulty.seen] == [("POST", "/"), ("GET", f"/{here.outputs.bucket}")]


def test_what_no_video_can_be_is_named_and_the_exit_code_says_so(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    source = corpus_of(here.folder / "src", 2)
    fill(
        source,
        {
            "empty.mp4": b"",
            "1001_DFA_ANG_XX.flv": POINTER,
            "stub.avi": b"x" * 20,
            "a.wav": b"x",
            "b.wav": b"x",
            "new\nline.mp4": video(4),
        },
    )
    fill(source, {".hidden/x.mp4": video(1), "._a.mp4": video(2)})
    (source / "gone.mp4").symlink_to("nowhere")
    (source / os.fsdecode(b"\xff.mp4")).write_bytes(video(3))
    code, out, err = do(here, monkeypatch, "data", str(source), "--json")
    told = json.loads(out)
    assert code == 1
    assert (told["videos"], told["new"], told["stays_here"]) == (2, 2, {".wav": 2})
    assert {row["path"]: row["reason"].split(";")[0] for row in told["left_out"]} == {
        "1001_DFA_ANG_XX.flv": "a Git-LFS pointer, not the video",
        "empty.mp4": "empty",
        "gone.mp4": "no regular file: a pipe, a device or a broken link",
        "stub.avi": "only 20 bytes",
        "\\xff.mp4": "its name has control characters, or is not UTF-8",
        "new\\x0aline.mp4": "its name has control characters, or is not UTF-8",
    }
    assert all(f"left out: {row['path']}: {row['reason']}\n" in err for row in told["left_out"])
    assert "2 .wav stay here" in err
    assert sorted(content(here, "data/")) == ["Actor_00/0.mp4", "Actor_01/1.mp4"]


def test_a_changed_file_goes_up_again_and_its_former_content_stays_a_version(
    here: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3, bucket = here.aws.client("s3"), here.outputs.bucket
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    source = corpus_of(here.folder / "src", 3)
    do(here, monkeypatch, "data", str(source))
    (source / "Actor_01/1.mp4").write_bytes(video(99))  # as many bytes as before
    code, out, _ = do(here, monkeypatch, "data", str(source))
    assert (code, out.split(",")[0]) == (0, "sent 0 new and 1 changed files")
    assert out.endswith("2 were there\n")
    assert content(here, "data/")["Actor_01/1.mp4"] == video(99)
    versions = s3.list_object_versions(Bucket=bucket, Prefix="data/Actor_01/1.mp4")["Versions"]
    assert len(versions) == 2


def test_nothing_in_the_bucket_is_ever_deleted(here: Stage, faulty: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    here.put("data/older.mp4", video(7))
    do(here, monkeypatch, "data", str(corpus_of(here.folder / "src", 2)))
    assert "older.mp4" in content(here, "data/")
    assert not [seen for seen in faulty.seen if seen.method == "DELETE"]


def test_a_dry_run_says_what_there_is_and_would_be_sent_and_its_price_and_sends_nothing(
    here: Stage, faulty: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.put("data/Actor_00/0.mp4", video(0))
    code, out, err = do(here, monkeypatch, "data", str(corpus_of(here.folder / "src", 3)), "--dry-run")
    assert (code, out.split(",")[0]) == (0, "would send 2 new and 0 changed files")
    assert out.endswith("1 seem to be there\n")
    assert "3 videos and 0 tables, 0.0 GiB, about $0.00 a month" in err
    assert not puts(faulty)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: "", "error: which folder?"),
        (lambda folder: "s3://elsewhere/x", "error: s3://elsewhere/x is in S3 already;"),
        (lambda folder: str(folder / "no\nwhere"), "error: there is no folder "),
        (lambda folder: str(fill(folder / "a", {"x.txt": b"x"})), "error: there is no video in "),
        (lambda folder: str(fill(folder / "b", {"x.zip": b"x"})), "error: there is no video in "),
        (lambda folder: str(fill(folder / "c", {"x.flv": POINTER})), "error: there is no video in "),
    ],
)
def test_a_folder_that_cannot_be_meant_is_one_sentence_before_aws_is_asked(
    here: Stage, faulty: Proxy, monkeypatch: pytest.MonkeyPatch, make: Any, sentence: str
) -> None:
    code, out, err = do(here, monkeypatch, "data", make(here.folder))
    assert (code, out) == (2, "")
    assert err.startswith(sentence)
    assert len(err.splitlines()) == 1
    assert faulty.seen == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_ended_amid_small_files_it_goes_on_and_sends_nothing_twice(
    here: Stage, faulty: Proxy, how: signal.Signals
) -> None:
    source = corpus_of(here.folder / "src", 120)
    faulty.seen = HangAfter(faulty, 30)
    process = start(here, "data", str(source))
    wait_for(lambda: faulty.mode == "hang", "the thirtieth upload")
    code, said = end_by(process, how, faulty)
    assert code == (-9 if how is signal.SIGKILL else 130)
    assert "Traceback" not in said
    assert 30 <= len(puts(faulty)) < 120
    done = start(here, "data", str(source))
    assert done.wait(60) == 0
    assert content(here, "data/") == {f"Actor_{n % 4:02}/{n}.mp4": video(n) for n in range(120)}
    assert set(puts(faulty).values()) == {1}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_ended_amid_a_large_file_it_goes_on_with_the_parts_that_are_there(
    here: Stage, faulty: Proxy, how: signal.Signals
) -> None:
    data = os.urandom(1000) * (3 * PART // 1000 + 1)
    source = fill(here.folder / "src", {"long.mkv": data})
    faulty.mode, faulty.only = "hang", "partNumber=2"
    process = start(here, "data", str(source))
    wait_for(lambda: len(puts(faulty)) == 3 and faulty.refused, "the arrival of the other three parts")
    end_by(process, how, faulty)
    assert len(puts(faulty)) == 3
    assert content(here, "data/") == {}
    done = start(here, "data", str(source))
    assert done.wait(60) == 0
    assert content(here, "data/") == {"long.mkv": data}
    assert set(puts(faulty).values()) == {1}
    assert sum(seen.sent for seen in faulty.seen if seen.method == "PUT") == len(data)
    (found,) = here.aws.client("s3").list_objects_v2(Bucket=here.outputs.bucket, Prefix="data/")["Contents"]
    assert found["ETag"].strip('"') == upload.etag_of(source / "long.mkv")
    assert not list((here.folder / "cache").rglob("uploads/*"))


@pytest.mark.parametrize("mode", ["503", "cut"])
def test_an_s3_that_is_away_or_cuts_for_a_while_is_waited_for(
    here: Stage, faulty: Proxy, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = corpus_of(here.folder / "src", 40)
    faulty.mode, faulty.only = mode, "/data/"
    process = start(here, "data", str(source))
    wait_for(lambda: faulty.refused >= 30, "trouble")
    faulty.mode = "pass"
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert said.count("trying on, Ctrl-C stops") >= 1
    assert len(content(here, "data/")) == 40


def test_expired_credentials_end_it_at_once_with_the_cure(here: Stage, faulty: Proxy) -> None:
    source = corpus_of(here.folder / "src", 40)
    faulty.mode, faulty.only = "expired", "/data/"
    done = start(here, "data", str(source))
    _, said = done.communicate(timeout=60)
    assert done.returncode == 2
    assert "error: your AWS credentials have expired; `aws sso login` renews them" in said
    assert "Traceback" not in said


def test_a_file_that_changes_while_it_is_read_is_named_and_not_sent_torn(
    here: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = corpus_of(here.folder / "src", 2)
    fill(source, {"large.mp4": bytes(PART + 10)})
    stamps = upload._stamp

    def restless(path: Path) -> upload.Stamp:
        with path.open("ab") as stream:
            stream.write(b"x")
        return stamps(path)

    monkeypatch.setattr(upload, "_stamp", lambda path: stamps(path) if path.name == "0.mp4" else restless(path))
    code, _, err = do(here, monkeypatch, "data", str(source))
    assert code == 1
    for name in ("Actor_01/1.mp4", "large.mp4"):
        assert f"left out: {name}: it changed while it was read; run it again when it is whole\n" in err
    assert list(content(here, "data/")) == ["Actor_00/0.mp4"]
    s3 = here.aws.client("s3")
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=here.outputs.bucket)


def test_what_others_put_there_in_other_parts_is_known_by_its_sha256_or_sent_anew(
    here: Stage, monkeypatch: pytest.MonkeyPatch, faulty: Proxy
) -> None:
    source = fill(here.folder / "src", {"a.mp4": video(1), "b.mp4": video(2)})
    s3 = here.aws.client("s3")
    for name, more in (("a.mp4", {"Metadata": {"sha256": hashlib.sha256(video(1)).hexdigest()}}), ("b.mp4", {})):
        place = {"Bucket": here.outputs.bucket, "Key": f"data/{name}"}
        begun = s3.create_multipart_upload(**place, **more)["UploadId"]
        data = (source / name).read_bytes()
        part = {"PartNumber": 1, "ETag": s3.upload_part(**place, UploadId=begun, PartNumber=1, Body=data)["ETag"]}
        s3.complete_multipart_upload(**place, UploadId=begun, MultipartUpload={"Parts": [part]})
    code, _, _ = do(here, monkeypatch, "data", str(source))
    assert code == 0
    assert list(puts(faulty)) == [f"/{here.outputs.bucket}/data/b.mp4 "]


def test_an_answer_to_the_last_call_of_a_large_file_may_be_lost(
    here: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    do(here, monkeypatch, "data", str(fill(here.folder / "src", {"a.mp4": video(1)})))
    wire = Wire(here.outputs.bucket, here.outputs.region)
    place = {"Bucket": here.outputs.bucket, "Key": "data/a.mp4", "UploadId": "gone"}

    def gone(**_: Any) -> None:
        raise wire.bucket.client.exceptions.NoSuchUpload({"Error": {"Code": "NoSuchUpload"}}, "Complete")

    monkeypatch.setattr(wire.bucket.client, "complete_multipart_upload", gone)
    upload._complete(wire, place, {1: "x"}, hashlib.sha256(video(1)).hexdigest())
    with pytest.raises(wire.bucket.client.exceptions.NoSuchUpload):
        upload._complete(wire, place, {1: "x"}, "another")


def test_the_commands_know_the_same_videos_as_the_manifests() -> None:
    assert VIDEOS == VIDEO_SUFFIXES
    assert corpus.SMALLEST_VIDEO == SMALLEST_VIDEO
    assert not VIDEOS & TABLES


def test_a_folder_that_links_to_itself_is_listed_once(tmp_path: Path) -> None:
    corpus_of(tmp_path, 3)
    (tmp_path / "again").symlink_to(tmp_path)
    assert len(survey(tmp_path).videos) == 3


@given(st.text(st.characters(min_codepoint=0, max_codepoint=0x10FFFF)))
def test_any_name_is_told_in_one_line_of_utf_8(name: str) -> None:
    if any(0xD800 <= ord(letter) <= 0xDFFF for letter in name):
        name = os.fsdecode(name.encode("utf-8", "surrogatepass"))
    told = printable(name)
    assert told.encode().decode() == told
    assert len(told.splitlines()) <= 1 or "\u2028" in told or "\u2029" in told


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
@pytest.mark.parametrize(
    "text", ["$(shell touch evil)", "a b", "'; touch evil; '", '"`touch evil`"', "$(touch evil)", "#x", "ö"]
)
@pytest.mark.parametrize("verb", ["data", "download", "pipeline"])
def test_make_passes_folders_letter_by_letter(tmp_path: Path, verb: str, text: str) -> None:
    """On its command line and by environment; the verb is a program that notes its environment."""
    said = {"data": ["SRC"], "download": ["RUN", "OUT", "ALL", "PARTIAL", "OPEN"], "pipeline": ["SRC", "OUT", "OPEN"]}[
        verb
    ]
    program = fill(tmp_path, {"bin/python": b""}) / "bin" / "python"
    program.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        f"json.dump({{name: os.environ.get(name) for name in {said}}}, open('noted', 'w'))\n"
    )
    program.chmod(0o755)
    bare = {key: value for key, value in os.environ.items() if key not in said and not key.startswith("MAKE")}
    line = ["make", "-f", str(ROOT / "Makefile"), "-o", ".venv/ready", f"BIN={program.parent}", verb]
    for arguments, more in (([f"{name}={text}" for name in said], {}), ([], dict.fromkeys(said, text))):
        subprocess.run([*line, *arguments], cwd=tmp_path, env=bare | more, check=True, capture_output=True)
        assert json.loads((tmp_path / "noted").read_text()) == dict.fromkeys(said, text)
    subprocess.run(line, cwd=tmp_path, env=bare, check=True, capture_output=True)
    assert set(json.loads((tmp_path / "noted").read_text()).values()) == {""}  # the verb's own default holds
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "noted"]

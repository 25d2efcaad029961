"""What the courier is made of, without a courier: requests, transfers, the mirror's pace, figures, the meaning of ends.

Run: pytest tests/test_box_files.py
"""

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cloud import REGION, Cloud, cloud
from faults import Proxy, metadata, proxy
from hypothesis import given
from hypothesis import strategies as st

from infra.box.child import Cause, command_line, outcome_of, reason_of
from infra.box.inputs import Missing
from infra.box.meter import dollars, dollars_at_finish, parse_gpus, parse_memory
from infra.box.mirror import Mirror, pause, worth_bringing
from infra.box.request import PARSERS, WrongRequest, read_request
from infra.box.shards import Shards
from infra.box.spot import Metadata
from infra.box.team import MINUTES_TO_RECOVER, Round, Team
from infra.box.transfer import (
    Bucket,
    Damaged,
    Remote,
    _fetch_rest,
    digest_of_first,
    fetch,
    fetch_all,
    is_there,
    open_bucket,
    send_large,
)

GOOD: dict[str, Any] = {
    "config": "demo.yaml", "manifest": "manifests/all/manifest.csv", "clips": "clips/all/", "settings": ["a.b=1"],
    "processes": "gpu", "deadline": "2026-01-31T18:00:00+00:00", "cap_dollars": 20, "price_per_hour": 1.006,
}  # fmt: skip


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with cloud(tmp_path_factory.mktemp("cloud")) as started:
        started.client("s3").create_bucket(Bucket="bucket")
        yield started


@pytest.fixture
def faulty(aws: Cloud) -> Iterator[Proxy]:
    with proxy(aws.url) as made:
        yield made


@pytest.fixture
def bucket(aws: Cloud, faulty: Proxy, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    for name, value in (aws.environment() | {"AWS_ENDPOINT_URL": faulty.url}).items():
        monkeypatch.setenv(name, value)
    return open_bucket("bucket", REGION)


def test_a_request_is_read_as_it_is_documented() -> None:
    request = read_request(json.dumps(GOOD))
    assert request.keys == ["manifests/all/manifest.csv", "manifests/all/manifest.json"]
    assert (request.processes, request.settings, request.stall_minutes) == (None, ("a.b=1",), 60)
    assert "runs/r/c.yaml" in read_request(json.dumps(GOOD | {"config": "runs/r/c.yaml"})).keys


@pytest.mark.parametrize(
    ("kind", "zone", "price"),
    [
        ("g6.xlarge", "us-east-1a", 0.31),
        ("g5.xlarge", "us-east-1c", 1.006),
        ("g6.xlarge", "us-east-1b", 2.0),
        (None, None, 2.0),
    ],
)
def test_a_machine_costs_what_it_was_offered_at_and_an_unknown_one_the_most(
    kind: str | None, zone: str | None, price: float
) -> None:
    told = {"price_per_hour": 2.0, "prices": {"g6.xlarge us-east-1a": 0.31, "g5.xlarge": 1.006}}
    assert read_request(json.dumps(GOOD | told)).price_of({"type": kind, "zone": zone}) == price


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"config": "../secret"}, "the request's config is a key in the bucket"),
        ({"manifest": "/etc/passwd.csv"}, "the request's manifest is a key in the bucket"),
        ({"manifest": "manifests/all"}, "the request's manifest is the key of a manifest.csv"),
        ({"clips": "clips/all"}, "the request's clips is a prefix"),
        ({"settings": ["--run=/"]}, "the request's settings is a list"),
        ({"settings": "optim.lr=1"}, "the request's settings is a list"),
        ({"processes": 0}, 'the request\'s processes is "gpu" or a number'),
        ({"processes": True}, 'the request\'s processes is "gpu" or a number'),
        ({"deadline": "2026-01-31T18:00:00"}, "the request's deadline is a time with its zone"),
        ({"price_per_hour": 0}, "the request's price_per_hour is a number above zero"),
        ({"prices": {"g5.xlarge": -1}}, "the request's prices is a number above zero"),
        ({"cap": 3}, "the request has unknown fields: cap;"),
        ({"task": "train"}, "the request's task is one of fit, manifest, prepare"),
        ({"nodes": 0}, "the request's nodes is a number from 1 to 16"),
        ({"data": "data"}, "the request's data is a prefix"),
    ],
)
def test_a_wrong_field_is_named_in_one_sentence(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(WrongRequest) as told:
        read_request(json.dumps(GOOD | change))
    assert str(told.value).startswith(sentence)
    assert "\n" not in str(told.value)


def test_each_task_needs_what_it_works_on_and_no_more() -> None:
    bare = {key: value for key, value in GOOD.items() if key not in ("config", "clips", "settings", "processes")}
    made = read_request(json.dumps(bare | {"task": "manifest"}))
    assert (made.keys, made.data, made.nodes) == ([], "data/", 1)
    prepared = read_request(json.dumps(bare | {"task": "prepare", "clips": "clips/all/"}))
    assert prepared.keys == ["manifests/all/manifest.csv", "manifests/all/manifest.json"]
    with pytest.raises(WrongRequest, match="the request lacks clips"):
        read_request(json.dumps(bare | {"task": "prepare"}))
    with pytest.raises(WrongRequest, match="the request lacks config, clips"):
        read_request(json.dumps(bare))


def team_of(*members: str) -> Team:
    """The team as the first of these machines sees it."""
    duty = SimpleNamespace(run_id="run", station=SimpleNamespace(instance=members[0], region=REGION))
    made = Team(duty, len(members))  # type: ignore[arg-type]
    made.members = {member: f"10.0.0.{number}" for number, member in enumerate(members)}
    return made


def test_a_round_ends_for_its_leader_when_a_member_is_gone_or_has_left_it() -> None:
    team, now = team_of("a", "b"), Round(3, False, ("a", "b"))
    team.round, team.words = now, {"b": {"left": 2, "ready": True, "why": ""}}
    assert not team.is_over(now)
    team.words = {"b": {"left": 3, "ready": False, "why": "on b the trainer was killed by SIGKILL"}}
    assert team.is_over(now)
    assert team.complaints() == ["on b the trainer was killed by SIGKILL"]
    team.words, team.members = {}, {"a": "10.0.0.1", "c": "10.0.0.3"}
    assert team.is_over(now)


def test_a_round_ends_for_a_follower_when_the_leader_says_so() -> None:
    team, now = team_of("b", "a"), Round(3, False, ("a", "b"))
    team.members = {"a": "10.0.0.1"}  # the leader decides what that means
    team.round = now
    assert not team.is_over(now)
    team.round = replace(now, over=True)
    assert team.is_over(now)
    team.round = Round(4, False, ("a", "c"))
    assert team.is_over(now)


def test_a_machine_that_fails_for_minutes_before_it_is_ready_ends_the_run_with_its_reason() -> None:
    team, why = team_of("a", "b"), "b cannot take part: no GPU"
    team.words = {"b": {"left": 0, "ready": False, "why": why}}
    unfit: dict[str, tuple[float, str]] = {}
    team._lose_patience(unfit)  # may yet be started again and do
    unfit["b"] = (unfit["b"][0] - 60 * MINUTES_TO_RECOVER, why)
    with pytest.raises(Missing, match=why):
        team._lose_patience(unfit)
    team.words["b"]["ready"] = True
    team._lose_patience(unfit)
    assert not unfit


def test_of_the_wanted_shards_those_are_kept_that_fit_and_all_that_are_in_use(tmp_path: Path) -> None:
    wanted = tmp_path / "wanted.json"
    known = [Remote(f"clips/x/{name}.tar", 10, "", 0) for name in "abcd"]
    shards = Shards(None, known, tmp_path, wanted, 20, lambda: None)  # type: ignore[arg-type]
    assert shards.to_keep() is None
    wanted.write_text(json.dumps({"in_use": 1, "shards": ["c.tar", "a.tar", "d.tar"]}))
    assert shards.to_keep() == ["c.tar", "a.tar"]
    wanted.write_text(json.dumps({"in_use": 3, "shards": ["d.tar", "c.tar", "b.tar", "a.tar"]}))
    assert shards.to_keep() == ["d.tar", "c.tar", "b.tar"]


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*PARSERS, "x"]), inner),
)


@given(ANY_JSON)
def test_no_json_at_all_makes_reading_a_request_fail_otherwise(tree: Any) -> None:
    with pytest.raises(WrongRequest):
        read_request(json.dumps(tree))


def test_an_object_that_was_brought_is_known_and_one_that_changed_is_not(bucket: Bucket, tmp_path: Path) -> None:
    bucket.write("a/one", b"first")
    (remote,) = bucket.list("a/")
    path = tmp_path / "one"
    assert not is_there(remote, path)
    assert fetch(bucket, remote, path) == 5
    assert is_there(remote, path)
    assert not is_there(Remote(remote.key, remote.size, "other", remote.modified + 5), path)


def test_what_a_killed_transfer_left_is_not_brought_again(bucket: Bucket, faulty: Proxy, tmp_path: Path) -> None:
    data = os.urandom(5_000_000)
    bucket.write("big", data)
    (remote,) = bucket.list("big")
    part = tmp_path / f".part-{hashlib.sha256(('big' + remote.etag).encode()).hexdigest()[:24]}"
    part.write_bytes(data[:4_000_000])
    got: list[str] = []
    bucket.client.meta.events.register("before-send.s3.GetObject", lambda request, **_: got.append(
        request.headers.get("Range", b"").decode()))  # fmt: skip
    fetch(bucket, remote, tmp_path / "big")
    assert got == ["bytes=4000000-"]
    assert (tmp_path / "big").read_bytes() == data
    assert sorted(p.name for p in tmp_path.iterdir()) == ["big"]


@pytest.mark.parametrize("others", [False, True])
def test_bytes_that_are_not_what_was_sent_are_not_taken(
    bucket: Bucket, tmp_path: Path, others: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(1000)
    bucket.client.put_object(Bucket="bucket", Key="c", Body=data) if others else bucket.write("c", data)
    (remote,) = bucket.list("c")
    part = tmp_path / f".part-{hashlib.sha256(('c' + remote.etag).encode()).hexdigest()[:24]}"
    part.write_bytes(b"x" * 500)  # what lies there already is damaged
    fetch(bucket, remote, tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == data
    monkeypatch.setattr("infra.box.transfer.digest_of", lambda *_: "other")
    with pytest.raises(Damaged):
        _fetch_rest(bucket, remote, tmp_path / "part", lambda: None)


def test_empty_objects_and_many_are_brought(bucket: Bucket, tmp_path: Path) -> None:
    for number in range(30):
        bucket.write(f"many/{number}", b"." * number)
    wanted = [(remote, tmp_path / remote.key) for remote in bucket.list("many/")]
    assert sum(fetch_all(bucket, wanted)) == sum(range(30))
    assert (tmp_path / "many/0").read_bytes() == b""
    assert len(list((tmp_path / "many").iterdir())) == 30


def test_a_mirror_that_starts_again_sends_nothing_that_is_there(
    bucket: Bucket, faulty: Proxy, tmp_path: Path
) -> None:  # fmt: skip
    (tmp_path / "log.txt").write_text("line\n")
    (tmp_path / "model.safetensors").write_bytes(os.urandom(9 * 2**20))
    assert Mirror(bucket, tmp_path, "runs/again/", print).finish()
    sent = len(faulty.uploads("/runs/again/"))
    assert sent == 2
    assert Mirror(bucket, tmp_path, "runs/again/", print).finish()
    assert len(faulty.uploads("/runs/again/")) == sent


def test_the_same_large_content_under_another_name_is_copied_within_s3(
    bucket: Bucket, faulty: Proxy, tmp_path: Path
) -> None:  # fmt: skip
    data = os.urandom(9 * 2**20)
    (tmp_path / "a.pt").write_bytes(data)
    (tmp_path / "b.pt").write_bytes(data)
    assert Mirror(bucket, tmp_path, "runs/twins/", print).finish()
    assert sum(seen.sent for seen in faulty.uploads("/runs/twins/")) < 1.1 * len(data)
    assert bucket.read("runs/twins/b.pt") == data


def test_a_large_log_that_grows_is_in_s3_as_its_checksum_says(bucket: Bucket, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_bytes(os.urandom(9 * 2**20))
    over = threading.Event()

    def grow() -> None:
        with log.open("ab", buffering=0) as stream:
            while not over.wait(0.001):
                stream.write(os.urandom(10_000))

    growing = threading.Thread(target=grow)
    growing.start()
    mirror = Mirror(bucket, tmp_path, "runs/grows/", print)
    while mirror.bytes_sent < 30 * 2**20:
        assert mirror.look()
        time.sleep(0.05)
        if content := bucket.read("runs/grows/log.txt"):
            assert log.read_bytes().startswith(content)
    over.set()
    growing.join()
    assert mirror.finish()
    assert bucket.read("runs/grows/log.txt") == log.read_bytes()
    assert bucket.sha256("runs/grows/log.txt") == hashlib.sha256(log.read_bytes()).hexdigest()
    size = log.stat().st_size
    with log.open("r+b") as stream:
        digest = digest_of_first(stream, size)
        stream.seek(0, os.SEEK_END)
        stream.write(b"a line that comes meanwhile")
        stream.flush()
        send_large(bucket, "runs/grows/log.txt", stream, size, digest)
    (remote,) = bucket.list("runs/grows/")
    assert fetch(bucket, remote, tmp_path / "brought") == size  # raises Damaged if checksum and content differ


def test_what_is_deleted_here_stays_in_s3_and_temporary_files_never_get_there(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    (tmp_path / ".tmp-half").write_text("half")
    mirror = Mirror(bucket, tmp_path, "runs/kept/", print)
    assert mirror.look()
    (tmp_path / "old").unlink()
    assert mirror.look()
    assert [remote.key for remote in bucket.list("runs/kept/")] == ["runs/kept/old"]


def test_of_checkpoints_s3_keeps_those_that_one_can_go_on_from(bucket: Bucket, tmp_path: Path) -> None:
    folder, mirror = tmp_path / "checkpoints", Mirror(bucket, tmp_path, "runs/long/", print)
    folder.mkdir()
    bucket.write("runs/long/checkpoints/step-1.pt", b"of the machine before")
    for step in (2, 3, 4):
        (folder / f"step-{step}.pt").write_bytes(b"%d" % step)
        (folder / f"step-{step - 2}.pt").unlink(missing_ok=True)
        named = [{"file": f"step-{n}.pt"} for n in (step, step - 1)]
        (folder / "last.json").write_text(json.dumps(named))
        assert mirror.look()
        there = {remote.key.rpartition("/")[2] for remote in bucket.list("runs/long/checkpoints/")}
        assert there == {"last.json", f"step-{step}.pt", f"step-{step - 1}.pt"}


def test_a_look_is_frequent_in_a_young_run_and_bounded_in_bytes() -> None:
    assert [pause(age, 1000) for age in (0, 1800, 3600, 1e6)] == [2, 2, 4, 15]
    assert pause(0, 100_000_000) == 100


def test_of_old_checkpoints_only_those_are_brought_that_are_named() -> None:
    names = ("log.txt", "checkpoints/last.json", *(f"checkpoints/step-{n}.pt" for n in range(5)), "checkpoints/best.x")
    found = [Remote("runs/r/" + name, 1, "", 0) for name in names]
    last = json.dumps([{"file": "step-4.pt"}, {"file": "step-3.pt"}]).encode()
    kept = [remote.key.removeprefix("runs/r/") for remote in worth_bringing(found, "runs/r/", last)]
    assert kept == [
        n for n in names if n not in ("checkpoints/step-0.pt", "checkpoints/step-1.pt", "checkpoints/step-2.pt")
    ]


def test_money_is_time_and_price() -> None:
    assert dollars(1800, 2.0) == 1.0
    assert dollars(3600, 2.0, before=0.5) == 2.5
    assert dollars_at_finish(1.0, 3600, 2.0) == 3.0
    assert dollars_at_finish(1.0, None, 2.0) is None


def test_what_nvidia_smi_and_the_kernel_say_is_read() -> None:
    cards = parse_gpus("NVIDIA L4, 97, 20311, 23034, 71, 70.12\nTesla T4, 3, 0, 15360, [N/A], [N/A]\n")
    assert [card["name"] for card in cards] == ["NVIDIA L4", "Tesla T4"]
    assert (cards[0]["use_percent"], cards[0]["memory_used_mib"], cards[1]["watts"]) == (97, 20311, None)
    text = "MemTotal:       1000 kB\nMemFree:  10 kB\nMemAvailable:    600 kB\n"
    assert parse_memory(text) == {"total_bytes": 1024000, "used_bytes": 409600}


def test_an_end_is_told_as_it_was() -> None:
    finished = {"outcome": "finished", "reason": "all", "exit_code": 0, "last_lines": []}
    saved = {"outcome": "interrupted", "reason": "SIGTERM", "exit_code": 143, "last_lines": ["x"]}
    broken = {"outcome": "failed", "reason": "CUDA out of memory", "exit_code": 1, "last_lines": []}
    spot = Cause("interrupted", "spot machine taken back", resumes=True)
    assert outcome_of(finished, 0, spot, [], False) == finished
    assert outcome_of(saved, 143, spot, [], False) == saved | {"reason": spot.reason}
    assert outcome_of(None, -9, spot, ["l"], False)["reason"].startswith(spot.reason + "; the trainer did not save")
    told = outcome_of(broken, 1, spot, [], False)
    assert (told["outcome"], told["reason"].startswith("CUDA out of memory")) == ("failed", True)
    assert outcome_of(None, -9, None, ["l"], True)["reason"].startswith(
        "the trainer was killed by SIGKILL; the machine"
    )


def test_torchruns_exit_code_is_seen_through() -> None:
    lines = ["Failures:", "  exitcode  : 143 (pid: 78)", "Root Cause (first observed failure):"]
    lines += ["  exitcode  : -11 (pid: 77)", "====="]
    assert reason_of(1, lines, False) == "the trainer was killed by SIGSEGV"
    assert reason_of(2, ["error: no such config"], False) == "no such config"
    assert "exit code 3" in reason_of(3, ["nothing"], False)


def test_one_process_needs_no_torchrun_and_several_get_the_two_dashes() -> None:
    assert command_line(["fit"], 1)[1:] == ["-m", "trainer", "fit"]
    several = command_line(["fit", "--run", "r"], 4)
    assert several[several.index("--") :] == ["--", "trainer", "fit", "--run", "r"]
    assert "--nproc-per-node=4" in several


def test_a_metadata_token_that_has_grown_old_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    with metadata({"spot/instance-action": '{"action": "terminate"}'}) as service:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.url)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
        known = Metadata()
        known._token = "old"
        assert known.notice() == {"action": "terminate"}
        assert known.rebalance() is None
        service.texts["events/recommendations/rebalance"] = '{"noticeTime": "now"}'
        assert known.rebalance() == {"noticeTime": "now"}

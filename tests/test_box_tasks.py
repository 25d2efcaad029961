"""Manifests and clips made on the machine, a training of them, and a step on trial before it: all real programs.

Run: pytest tests/test_box_tasks.py
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cloud import ROOT
from couriers import Machine, begun, the_cloud, together
from toys import TINY, make_corpus

from infra.box.inputs import KEPT_FREE
from manifests.shards import pack
from trainer.preflight import CURES, explain

__all__ = ["begun"]  # a fixture

SYNTH = ["synth", "--actors", "2", "--takes", "1", "--seed", "1"]
LIMITED = 5_000_000  # KiB of addresses that the trainer may have: torch itself takes four fifths


def put_toys(machine: Machine) -> Path:
    """A toy corpus as a manifest and clips of this machine's own, in S3."""
    manifest, clips = make_corpus(machine.folder / "corpus", actors=4, takes=1)
    for path in (manifest, manifest.with_suffix(".json")):
        machine.put(f"manifests/{machine.run_id}/{path.name}", path.read_bytes())
    machine.put_folder(f"clips/{machine.run_id}/", clips)
    return clips


def ask_for(machine: Machine, *settings: str, task: str = "fit", **changes: object) -> None:
    name = machine.run_id
    machine.ask_for(
        *settings, task=task, config="demo.yaml", data=f"data/{name}/", manifest=f"manifests/{name}/manifest.csv",
        clips=f"clips/{name}/", **changes,
    )  # fmt: skip


@together
def test_videos_become_a_manifest_and_clips_once_however_often_it_is_interrupted(machine: Machine) -> None:
    videos = machine.folder / "videos"
    subprocess.run([sys.executable, "-m", "manifests", *SYNTH, "--out", str(videos)], check=True, cwd=ROOT)
    machine.put_folder(f"data/{machine.run_id}/", videos)
    prefix, clips = f"manifests/{machine.run_id}/", f"clips/{machine.run_id}/"

    ask_for(machine, task="manifest", processes="gpu")
    outcome = machine.ends(machine.start(fake=False))
    assert (outcome["outcome"], outcome["reason"]) == ("finished", f"the manifest is s3://bucket/{prefix}manifest.csv")
    facts = json.loads(machine.object(prefix + "manifest.json") or b"")
    assert facts["actors"]["train"]
    assert {"ravdess", "crema"} <= set(facts["arguments"])
    assert machine.capacity() == 0

    # Interrupted when some clips are in S3, as a spot machine that is shut down is.
    ask_for(machine, task="prepare")
    process = machine.start(fake=False)
    made = lambda: {key for key in machine.keys(clips) if key.endswith(".clip")}  # noqa: E731
    machine.wait_until(made, "a clip is in S3", 120)
    process.terminate()
    outcome = machine.ends(process)
    before = made()
    assert outcome["outcome"] == "interrupted"
    assert machine.is_active()

    # Another machine makes the rest, and only that.
    machine.put(f"active/{machine.run_id}", machine.run_id)
    outcome = machine.ends(machine.start(fake=False, scratch="scratch-of-another"))
    assert (outcome["outcome"], outcome["reason"]) == ("finished", f"the clips are in s3://bucket/{clips}")
    assert len(made()) == 24
    assert before <= made()
    there = machine.folder / "scratch-of-another" / clips
    for path in (p for p in there.rglob("*") if p.is_file() and not p.name.startswith(".")):
        assert machine.object(clips + path.relative_to(there).as_posix()) == path.read_bytes(), path
    for key in before:
        assert len(machine.faulty.uploads(key.rpartition("/")[2])) == 1, key

    # And nobody anything more.
    machine.put(f"active/{machine.run_id}", machine.run_id)
    machine.faulty.seen.clear()
    outcome = machine.ends(machine.start(fake=False, scratch="scratch-of-a-third"))
    assert (outcome["outcome"], outcome["reason"]) == ("finished", "nothing to do")
    assert not [s for s in machine.faulty.seen if s.method == "GET" and s.path.startswith("/bucket/data/")]


@together
def test_a_real_training_goes_from_s3_to_weights_in_s3(machine: Machine) -> str:
    put_toys(machine)
    ask_for(machine, *TINY, "optim.epochs=1", "device=cpu", prices={"g4dn.xlarge": 0.5})
    outcome = machine.ends(machine.start(fake=False), seconds=300)
    assert outcome["outcome"] == "finished", outcome
    for name in ("model.safetensors", "log.txt", "metrics.jsonl", "evaluation.json", "report.html", "output.txt"):
        assert machine.get(name) == (machine.run / name).read_bytes(), name
    assert not machine.is_active()
    assert machine.capacity() == 0
    page = json.loads(machine.object(f"ledger/{machine.run_id}/{machine.instance}.json") or b"")
    assert (page["run"], page["type"], page["market"]) == (machine.run_id, "g4dn.xlarge", "spot")
    assert (page["price_per_hour"], page["outcome"]) == (0.5, "finished")
    assert page["dollars"] == pytest.approx(0.5 * page["hours"], abs=1e-4)
    assert machine.told("machine.json")["dollars"] == pytest.approx(page["dollars"], abs=0.01)
    said = machine.text("output.txt").splitlines()
    return next(line for line in said if line.startswith("preflight: "))


@together
def test_a_batch_that_is_too_big_ends_the_run_at_once_with_what_to_set(machine: Machine) -> None:
    put_toys(machine)
    ask_for(machine, *TINY, "device=cpu", "model.width=64", "data.size=256", "data.frames=64")
    outcome = machine.ends(machine.start(fake=False, addresses=LIMITED), seconds=300)
    assert outcome["outcome"] == "failed"
    assert outcome["reason"].startswith("4 videos in 1 pieces do not fit into memory; say optim.accumulate=auto")
    assert machine.get("metrics.jsonl") is None  # training was not begun
    assert machine.capacity() == 0


@together
def test_a_recipe_for_a_gpu_where_none_answers_says_so_at_once(machine: Machine) -> None:
    put_toys(machine)
    ask_for(machine, *TINY, "device=cuda")
    outcome = machine.ends(machine.start(fake=False), seconds=300)
    assert outcome["outcome"] == "failed"
    assert outcome["reason"].startswith("CUDA does not work here: ")
    assert outcome["reason"].endswith(tuple(CURES.values()))
    assert not machine.is_active()


@together
def test_pretrained_weights_come_from_the_bucket_if_it_has_them(machine: Machine) -> None:
    put_toys(machine)
    name = "SLOWFAST_8x8_R50.pyth"
    machine.put(f"weights/{name}", b"what no network takes")
    try:
        ask_for(machine, *TINY, "device=cpu", "model.pretrained=kinetics400", "model.depth=50", "optim.epochs=1")
        outcome = machine.ends(machine.start(fake=False), seconds=300)
    finally:
        the_cloud().client("s3").delete_object(Bucket="bucket", Key=f"weights/{name}")
    found = list((machine.folder / "scratch" / "cache").rglob(name))
    assert [path.read_bytes() for path in found] == [b"what no network takes"]
    assert "pretrained weights: " in machine.text("output.txt")
    assert outcome["outcome"] == "failed"
    assert name in outcome["reason"]


@together
def test_packed_clips_larger_than_the_disk_are_brought_as_training_wants_them(machine: Machine) -> None:
    manifest, clips = make_corpus(machine.folder / "corpus", actors=8, takes=2)
    pack(clips, machine.folder / "packed", 30_000)
    shards = {path.name: path.stat().st_size for path in (machine.folder / "packed").glob("*.tar")}
    assert len(shards) > 5
    for path in (manifest, manifest.with_suffix(".json")):
        machine.put(f"manifests/{machine.run_id}/{path.name}", path.read_bytes())
    machine.put_folder(f"clips/{machine.run_id}/", machine.folder / "packed")
    disk = machine.folder / "scratch"
    disk.mkdir()
    room = sum(shards.values()) // 2
    small = ["mount", "-t", "tmpfs", "-o", f"size={KEPT_FREE + room}", "tmpfs", str(disk)]
    if subprocess.run(small, capture_output=True).returncode:
        pytest.skip("a small disk of one's own needs the right to mount")
    try:
        ask_for(machine, *TINY, "optim.epochs=2", "device=cpu", "data.shard_window=2")
        process, here = machine.start(fake=False), []
        while process.poll() is None:
            here.append(sum(path.stat().st_size for path in (disk / "clips" / machine.run_id).glob("*.tar")))
            time.sleep(0.1)
        outcome = machine.ends(process)
        assert outcome["outcome"] == "finished", (outcome, machine.log())
    finally:
        machine.close()
        subprocess.run(["umount", str(disk)], check=True)
    brought = {s.path.rpartition("/")[2] for s in machine.faulty.seen if s.method == "GET" and s.path.endswith(".tar")}
    assert brought == set(shards)
    assert 0 < max(here) < sum(shards.values())


@pytest.mark.parametrize(
    ("said", "cure"),
    [
        (
            "The NVIDIA driver on your system is too old (found version 12020). Please update",
            "pin a newer machine image",
        ),
        ("CUDA error: no kernel image is available for execution on the device\nCUDA kernel", "choose g4dn, g5 or g6"),
        ("No CUDA GPUs are available", "let a new machine start"),
    ],
)
def test_what_cuda_says_comes_with_a_cure(said: str, cure: str) -> None:
    assert cure in explain(said)
    assert "\n" not in explain(said)
    assert "Please" not in explain(said)

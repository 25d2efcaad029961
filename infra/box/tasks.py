"""What each task brings to the machine, runs there, and leaves in the bucket besides its run directory.

A task yields its steps one by one, each when what it needs is there; after a step that did not finish it is not asked
for the next. Without a step there was nothing to do.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from infra.box import meter
from infra.box.child import Step, command_line
from infra.box.duty import Duty
from infra.box.inputs import KEPT_FREE, Missing, bring, find, find_all
from infra.box.mirror import Mirror
from infra.box.request import Request
from infra.box.shards import LOOK_EVERY, Shards
from infra.box.station import as_json, put_beside
from infra.box.transfer import Remote, insist, is_there

CORPORA = ("ravdess", "crema")  # folders of the raw data, if they are there; `manifests build` has options of that name
PREPARED = "prepared.json"  # beside prepared clips: what they were made of, once all are made
MINUTES_OF_PREFLIGHT = 10.0


def fit(duty: Duty, request: Request) -> Iterator[Step]:
    """Train, after a step on trial."""
    bucket, scratch = duty.bucket, duty.station.scratch
    singles = find(bucket, request.keys, duty.check)
    clips = find_all(bucket, request.clips, duty.check, "no clips; make prepare makes them of the videos")
    weights = find_all(bucket, "weights/", duty.check)
    wanted = [(remote, scratch / "inputs" / remote.key) for remote in singles]
    clips = bring_shards_later(duty, request, clips)
    bring(wanted + [(r, scratch / r.key) for r in clips + weights], bucket, scratch, duty.check, duty.say)
    processes = request.processes or len(meter.read_gpus())
    if not processes:
        raise Missing("the run asks for GPUs and nvidia-smi shows none: wrong type, or the driver does not answer")
    config = str(scratch / "inputs" / request.config) if "/" in request.config else request.config
    manifest = scratch / "inputs" / request.manifest
    words = ["--config", config, "--manifest", str(manifest), "--clips", str(scratch / request.clips)]
    # What the trainer fetches itself stays on the disk too, for the next container of this machine.
    cache = {"XDG_CACHE_HOME": str(scratch / "cache")}
    run = scratch / "runs" / duty.run_id
    trial = ["preflight", *words, "--processes", str(processes * request.nodes), "--weights", str(scratch / "weights")]
    trial += ["--run", str(run)]
    yield Step(
        "preflight", "the preflight", command_line([*trial, *request.settings], 1), minutes=MINUTES_OF_PREFLIGHT,
        environment=cache,
    )  # fmt: skip
    training = command_line(["fit", *words, "--run", str(run), *request.settings], processes, request.nodes)
    yield Step("training", "the trainer", training, is_trainer=True, environment=cache)


def bring_shards_later(duty: Duty, request: Request, clips: list[Remote]) -> list[Remote]:
    """The clips that are to be brought before training: all, or if they are packed and too many all but the shards."""
    scratch = duty.station.scratch
    shards = [remote for remote in clips if remote.key.endswith(".tar")]
    held = sum(remote.size for remote in shards if is_there(remote, scratch / remote.key))
    room = shutil.disk_usage(scratch).free + held - KEPT_FREE
    if not shards or sum(remote.size for remote in clips) <= room:
        return clips
    duty.say(f"the disk has room for {room / 1e9:.2f} GB of shards: they are brought as they are wanted")
    wanted = scratch / "runs" / duty.run_id / "wanted.json"
    keeper = Shards(duty.bucket, shards, scratch / request.clips, wanted, room, duty.check)
    duty.every(LOOK_EVERY, keeper.look)
    return [remote for remote in clips if remote not in shards]


def manifest(duty: Duty, request: Request) -> Iterator[Step]:
    """Make a manifest of the raw corpora; what was decoded for an earlier one is not decoded again."""
    bucket, scratch = duty.bucket, duty.station.scratch
    prefix, out = request.manifest.rpartition("/")[0] + "/", scratch / request.manifest
    earlier = find_all(bucket, prefix, duty.check)
    root = bring_data(duty, request, earlier)
    duty.products = Mirror(bucket, out.parent, prefix, duty.say, pointers=(out.with_suffix(".json").name,))
    duty.products.trust(earlier)
    duty.products.start()
    folders = {name: root / name for name in CORPORA}
    if not all(folder.is_dir() for folder in folders.values()):  # otherwise named: the files' own names tell them apart
        folders = dict.fromkeys(CORPORA, root)
    words = [word for name, folder in folders.items() for word in (f"--{name}", str(folder))]
    yield Step(
        "manifest", "the manifest's build", manifests_line("build", *words, "--root", str(root), "--out", str(out)),
        done=f"the manifest is s3://{bucket.name}/{request.manifest}",
    )  # fmt: skip


def prepare(duty: Duty, request: Request) -> Iterator[Step]:
    """Make prepared clips of the raw corpora; they are in S3 while they grow, so nobody makes one again."""
    bucket, scratch = duty.bucket, duty.station.scratch
    singles = find(bucket, request.keys, duty.check)
    sources = as_json(made_of(duty, request))
    if insist(lambda: bucket.read(request.clips + PREPARED), duty.check) == sources:
        duty.say(f"nothing to do: s3://{bucket.name}/{request.clips} was prepared from these very videos")
        return
    bring([(r, scratch / "inputs" / r.key) for r in singles], bucket, scratch, duty.check, duty.say)
    earlier = find_all(bucket, request.clips, duty.check)
    root, out = bring_data(duty, request, earlier), scratch / request.clips
    duty.products = Mirror(bucket, out, request.clips, duty.say, pointers=("index.csv", PREPARED))
    duty.products.trust(earlier)
    duty.products.start()
    yield Step(
        "preparing", "preparing clips",
        manifests_line("prepare", str(scratch / "inputs" / request.manifest), "--root", str(root), "--out", str(out)),
        done=f"the clips are in s3://{bucket.name}/{request.clips}",
    )  # fmt: skip
    put_beside(out / PREPARED, sources)


TASKS = {"fit": fit, "manifest": manifest, "prepare": prepare}


def bring_data(duty: Duty, request: Request, earlier: list[Remote]) -> Path:
    """Bring the raw corpora, and what an earlier start has made of them; return the folder of the corpora."""
    scratch = duty.station.scratch
    videos = find_all(duty.bucket, request.data, duty.check, "no videos; make data SRC=DIR uploads them")
    bring([(r, scratch / r.key) for r in videos + earlier], duty.bucket, scratch, duty.check, duty.say)
    return scratch / request.data


def made_of(duty: Duty, request: Request) -> dict[str, str]:
    """All that decides what prepared clips become: the manifest, the raw files, and the program in its image."""
    videos = find_all(duty.bucket, request.data, duty.check, "no videos; make data SRC=DIR uploads them")
    listing = json.dumps([(remote.key, remote.size, remote.etag) for remote in videos])
    table = insist(lambda: duty.bucket.read(request.manifest), duty.check) or b""
    digests = {"manifest": table, "videos": listing.encode()}
    return {name: hashlib.sha256(text).hexdigest() for name, text in digests.items()} | {"image": duty.station.image}


def manifests_line(*words: str) -> list[str]:
    return [sys.executable, "-m", "manifests", *words]

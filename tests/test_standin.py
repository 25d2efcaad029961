"""The stand-in machines that the rehearsal rests on are real enough: they boot, obey, die and are replaced.

Run: pytest tests/test_standin.py
"""

import base64
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from box import ROOT
from cloud import REGION, Cloud, cloud
from standin import can_stand_in

from infra.documents import COMMANDS, document
from infra.machine import BOOT_SCRIPT, render_boot

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/slowfast@sha256:" + "a" * 64
VALUES = {"STACK": "dev", "REGION": REGION, "BUCKET": "bucket", "IMAGE": IMAGE, "ASG": "group", "LOG_GROUP": "/dev"}


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    reason = can_stand_in(tmp_path_factory.mktemp("probe"))
    if reason:
        pytest.skip(reason)
    with cloud(tmp_path_factory.mktemp("cloud"), run_commands=True, boot_seconds=0.5) as started:
        started.client("s3").create_bucket(Bucket="bucket")
        started.client("logs").create_log_group(logGroupName="/dev")
        make_group(started)
        make_documents(started)
        yield started


def make_group(aws: Cloud) -> None:
    """The group of the stack, as infra/machine.py declares it, of spot machines."""
    ec2 = aws.client("ec2")
    boot = render_boot(BOOT_SCRIPT.read_text(), {**VALUES, "IDLE_MINUTES": "20"})
    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    template = {"ImageId": image, "UserData": base64.b64encode(boot.encode()).decode()}
    made = ec2.create_launch_template(LaunchTemplateName="machine", LaunchTemplateData=template)["LaunchTemplate"]
    which = {"LaunchTemplateId": made["LaunchTemplateId"], "Version": "$Latest"}
    types = [{"InstanceType": "g6.xlarge"}, {"InstanceType": "g5.xlarge"}]
    aws.client("autoscaling").create_auto_scaling_group(
        AutoScalingGroupName="group",
        MinSize=0,
        MaxSize=2,
        DesiredCapacity=0,
        AvailabilityZones=[f"{REGION}a"],
        MixedInstancesPolicy={
            "LaunchTemplate": {"LaunchTemplateSpecification": which, "Overrides": types},
            "InstancesDistribution": {"OnDemandBaseCapacity": 0, "OnDemandPercentageAboveBaseCapacity": 0},
        },
    )


def make_documents(aws: Cloud) -> None:
    for command in COMMANDS:
        script = (BOOT_SCRIPT.parent / "documents" / f"{command}.sh").read_text()
        make_document(aws, command, document(command, script))


def make_document(aws: Cloud, name: str, content: dict[str, Any]) -> None:
    aws.client("ssm").create_document(Name=name, Content=json.dumps(content), DocumentType="Command")


@pytest.fixture
def machine(aws: Cloud) -> str:
    """The machine there is, or a new one that has just come online and may still be booting."""
    aws.client("autoscaling").set_desired_capacity(AutoScalingGroupName="group", DesiredCapacity=1)
    return another(aws)


def wait_until(happens: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (found := happens()):
        assert time.monotonic() < end, f"waited {seconds:g} s in vain until {what}"
        time.sleep(0.1)
    return found


def another(aws: Cloud, before: str = "") -> str:
    """The id of the machine that takes commands, and is not the one before."""
    return wait_until(lambda: [name for name in online(aws) if name != before], "a machine is online")[0]


def boot_log(aws: Cloud, instance: str) -> list[str]:
    logs = aws.client("logs")
    try:
        events = logs.get_log_events(logGroupName="/dev", logStreamName=f"boot-{instance}", startFromHead=True)
    except logs.exceptions.ResourceNotFoundException:
        return []
    return [event["message"] for event in events["events"]]


def online(aws: Cloud) -> list[str]:
    return [row["InstanceId"] for row in aws.client("ssm").describe_instance_information()["InstanceInformationList"]]


def disk(aws: Cloud, instance: str, path: str) -> Path:
    """A file of the machine's own."""
    return aws.folder / "machines" / instance / "upper" / path.lstrip("/")


def send(aws: Cloud, name: str, instance: str, **parameters: str) -> str:
    given = {key: [value] for key, value in parameters.items()}
    return aws.client("ssm").send_command(DocumentName=name, InstanceIds=[instance], Parameters=given)["Command"][
        "CommandId"
    ]


def answer(aws: Cloud, instance: str, command: str) -> dict[str, Any]:
    """What the command has come to, once it is over."""

    def look() -> dict[str, Any] | None:
        found = aws.client("ssm").get_command_invocation(CommandId=command, InstanceId=instance)
        return None if found["Status"] in ("Pending", "InProgress") else found

    return wait_until(look, "the command is over")


def script(*lines: str) -> dict[str, Any]:
    step = {"action": "aws:runShellScript", "name": "run", "inputs": {"runCommand": list(lines)}}
    return {"schemaVersion": "2.2", "description": "a script", "mainSteps": [step]}


def processes(marker: str) -> list[str]:
    return subprocess.run(["pgrep", "-f", marker], capture_output=True, text=True).stdout.split()


def test_a_machine_of_the_group_boots_its_user_data_for_real(aws: Cloud, machine: str) -> None:
    wait_until(lambda: "boot: ready, no run is active" in boot_log(aws, machine), "the boot has come to its end")
    assert f"INSTANCE={machine}" in disk(aws, machine, "/etc/slowfast.env").read_text()
    (row,) = aws.client("ec2").describe_instances(InstanceIds=[machine])["Reservations"][0]["Instances"]
    assert (row["InstanceType"], row["InstanceLifecycle"]) == ("g6.xlarge", "spot")


def test_a_machine_is_as_old_as_it_is_and_has_its_own_processes_keys_and_metadata(aws: Cloud, machine: str) -> None:
    make_document(
        aws,
        "who",
        script(
            "cut -d. -f1 /proc/uptime",
            "ps -e --no-headers | wc -l",
            "aws sts get-caller-identity --region us-east-1 > /dev/null && echo signed",
            "curl -s -o /dev/null -w '%{http_code}\\n' $AWS_EC2_METADATA_SERVICE_ENDPOINT/latest/meta-data/instance-id",
            "token=$(curl -sX PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "
            "$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest/api/token)",
            'curl -sH "X-aws-ec2-metadata-token: $token" '
            "$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest/meta-data/instance-id",
            "env | grep -c SECRET",
        ),
    )
    said = answer(aws, machine, send(aws, "who", machine))
    uptime, own, signed, untold, told = said["StandardOutputContent"].split()[:5]
    assert (signed, untold, told[: len(machine)]) == ("signed", "401", machine)
    assert int(uptime) < 120
    assert int(own) < 20
    assert said["StandardOutputContent"].endswith("0\n")  # no key in the environment


def test_what_ssm_is_sent_is_run_and_told_as_ssm_tells_it(aws: Cloud, machine: str) -> None:
    seen = json.loads(answer(aws, machine, send(aws, "status", machine))["StandardOutputContent"])
    assert (seen["instance"], seen["idle"]["timer"]) == (machine, "active")

    long = script("seq 20000", "echo to stderr >&2", "exit 7")
    make_document(aws, "long", long)
    command = send(aws, "long", machine)
    told = answer(aws, machine, command)
    assert (told["Status"], told["ResponseCode"], len(told["StandardOutputContent"])) == ("Failed", 7, 24_000)
    assert told["StandardErrorContent"] == "to stderr\nfailed to run commands: exit status 7"
    (row,) = aws.client("ssm").list_command_invocations(CommandId=command, Details=True)["CommandInvocations"]
    assert (row["Status"], row["CommandPlugins"][0]["ResponseCode"]) == ("Failed", 7)
    assert command in [row["CommandId"] for row in aws.client("ssm").list_commands()["Commands"]]


def test_nothing_is_told_before_the_end_and_a_cancelled_command_ends_with_all_it_started(
    aws: Cloud, machine: str
) -> None:
    make_document(aws, "wait", script("echo early", "sleep 4321 &", "touch /run/waiting", "wait"))
    command = send(aws, "wait", machine)
    wait_until(disk(aws, machine, "/run/waiting").exists, "the script waits")
    so_far = aws.client("ssm").get_command_invocation(CommandId=command, InstanceId=machine)
    assert (so_far["Status"], so_far["StandardOutputContent"]) == ("InProgress", "")
    assert processes("sleep 4321")
    aws.client("ssm").cancel_command(CommandId=command)
    assert answer(aws, machine, command)["Status"] == "Cancelled"
    assert not processes("sleep 4321")


@pytest.mark.parametrize("run_id", ["x; reboot", "$(reboot)", "Run", "ab", "run-1\n", "-x-y"])
def test_a_parameter_that_breaks_its_pattern_is_refused(aws: Cloud, machine: str, run_id: str) -> None:
    ssm = aws.client("ssm")
    with pytest.raises(ssm.exceptions.InvalidParameters):
        send(aws, "run", machine, run_id=run_id)
    with pytest.raises(ssm.exceptions.InvalidParameters):
        send(aws, "run", machine, run_id="run-1", more="x")


def test_a_machine_that_is_not_online_takes_no_command(aws: Cloud) -> None:
    ssm = aws.client("ssm")
    with pytest.raises(ssm.exceptions.InvalidInstanceId):
        send(aws, "status", "i-0123456789abcdef0")


def test_a_run_that_does_not_exist_gives_its_machine_back(aws: Cloud, machine: str) -> None:
    # The real courier, in a container of this machine: it tells the reason, and leaves the group.
    wait_until(lambda: "boot: ready, no run is active" in boot_log(aws, machine), "the image is there")
    assert answer(aws, machine, send(aws, "run", machine, run_id="no-such-run"))["Status"] == "Success"
    group = aws.client("autoscaling").describe_auto_scaling_groups
    wait_until(lambda: group()["AutoScalingGroups"][0]["DesiredCapacity"] == 0, "the machine is given back")
    wait_until(lambda: not online(aws), "the machine is gone")
    assert not group()["AutoScalingGroups"][0]["Instances"]
    told = aws.client("s3").get_object(Bucket="bucket", Key="runs/no-such-run/outcome.json")["Body"].read()
    assert "there is no run no-such-run" in json.loads(told)["reason"]


def test_a_terminated_machine_is_gone_with_its_processes_and_is_replaced(aws: Cloud, machine: str) -> None:
    make_document(aws, "work", script("setsid sleep 5432 > /dev/null 2>&1 < /dev/null &"))
    answer(aws, machine, send(aws, "work", machine))
    assert processes("sleep 5432")
    aws.client("ec2").terminate_instances(InstanceIds=[machine])
    wait_until(lambda: not processes("sleep 5432"), "its processes are gone")
    wait_until(lambda: machine not in online(aws), "SSM has lost it")
    assert another(aws, machine)


def test_a_machine_that_shuts_itself_down_is_terminated(aws: Cloud, machine: str) -> None:
    make_document(aws, "off", script("shutdown -h now"))
    send(aws, "off", machine)
    wait_until(lambda: machine not in online(aws), "the machine is gone")
    (row,) = aws.client("ec2").describe_instances(InstanceIds=[machine])["Reservations"][0]["Instances"]
    assert row["State"]["Name"] == "terminated"


def test_a_spot_machine_is_told_and_then_taken_and_replaced(aws: Cloud, machine: str) -> None:
    aws.spot_notice(machine, seconds=4)

    def told() -> dict[str, Any] | None:
        return json.loads(answer(aws, machine, send(aws, "status", machine))["StandardOutputContent"])["spot_notice"]

    assert wait_until(told, "the machine knows")["action"] == "terminate"
    wait_until(lambda: machine not in online(aws), "the machine is taken")
    assert another(aws, machine)


def test_the_group_is_emptied_when_its_deadline_has_come(aws: Cloud, machine: str) -> None:
    groups = aws.client("autoscaling")
    groups.put_scheduled_update_group_action(
        AutoScalingGroupName="group",
        ScheduledActionName="deadline",
        StartTime=datetime.now(UTC) + timedelta(seconds=2),
        DesiredCapacity=0,
    )
    wait_until(lambda: machine not in online(aws), "the machine is gone")
    group = groups.describe_auto_scaling_groups()["AutoScalingGroups"][0]
    assert (group["DesiredCapacity"], group["Instances"]) == (0, [])
    assert "MixedInstancesPolicy" in group
    assert not groups.describe_scheduled_actions()["ScheduledUpdateGroupActions"]


def test_nothing_of_a_cloud_is_left_when_it_is_killed(tmp_path: Path) -> None:
    if reason := can_stand_in(tmp_path / "probe"):
        pytest.skip(reason)
    made = ROOT / "tests" / "standin.py"
    program = f"""
import sys; sys.path.insert(0, {str(made.parent)!r})
from pathlib import Path; from standin import Instance, Machine
instance = Instance("i-1", "g6.xlarge", "us-east-1a", "spot", "")
machine = Machine(Path({str(tmp_path / "m")!r}), instance, "http://127.0.0.1:9")
machine.power_on()
machine.execute("#!/bin/sh\\nsetsid sleep 6543 > /dev/null 2>&1 < /dev/null &\\n")
print("up", flush=True); sys.stdin.read()
"""
    maker = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert maker.stdout
    assert maker.stdout.readline() == "up\n"
    assert processes("sleep 6543")
    maker.kill()
    maker.wait()
    wait_until(lambda: not processes("sleep 6543"), "the power cord has ended the machine")

"""Two machines train one run: two couriers and two trainers on this one, each with an address and a disk of its own.

Run: pytest tests/test_box_nodes.py
"""

import json
import os
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from cloud import REGION
from couriers import Machine, begun, the_cloud, together
from toys import TINY, make_corpus

__all__ = ["begun"]  # a fixture

EPOCHS = 8


def make_pair(machine: Machine) -> tuple[Machine, Machine]:
    """Two machines of one group on addresses of this one, and a toy corpus in S3."""
    aws = the_cloud()
    ec2, scaling = aws.client("ec2"), aws.client("autoscaling")
    network = ec2.create_vpc(CidrBlock="127.0.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=network, CidrBlock="127.0.7.0/24", AvailabilityZone=REGION + "a")["Subnet"]
    scaling.update_auto_scaling_group(
        AutoScalingGroupName=machine.run_id, VPCZoneIdentifier=subnet["SubnetId"], DesiredCapacity=0
    )
    scaling.set_desired_capacity(AutoScalingGroupName=machine.run_id, DesiredCapacity=2)
    manifest, clips = make_corpus(machine.folder / "corpus", actors=4, takes=2)
    for path in (manifest, manifest.with_suffix(".json")):
        machine.put(f"manifests/{machine.run_id}/{path.name}", path.read_bytes())
    machine.put_folder(f"clips/{machine.run_id}/", clips)
    first, second = serving(machine)
    return another(machine, first), another(machine, second)


def another(machine: Machine, instance: str) -> Machine:
    """A machine of the same group and run, with a disk of its own."""
    folder = machine.folder / instance
    folder.mkdir()
    return replace(machine, instance=instance, folder=folder)


def serving(machine: Machine) -> list[str]:
    """The group's machines, oldest first."""
    aws = machine.aws
    group = aws.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[machine.run_id])
    ids = [each["InstanceId"] for each in group["AutoScalingGroups"][0]["Instances"]]
    found = aws.client("ec2").describe_instances(InstanceIds=ids)["Reservations"] if ids else []
    known = [each for reservation in found for each in reservation["Instances"]]
    return [each["InstanceId"] for each in sorted(known, key=lambda each: (each["LaunchTime"], each["InstanceId"]))]


def take_away(machine: Machine) -> None:
    """What becomes of a machine that AWS ends: all of its processes, without a word; the group starts another."""
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(machine.folder / "scratch") in (place / "cmdline").read_text():
                os.kill(int(place.name), signal.SIGKILL)
    machine.aws.client("autoscaling").terminate_instance_in_auto_scaling_group(
        InstanceId=machine.instance, ShouldDecrementDesiredCapacity=False
    )


@together
def test_a_leader_that_is_taken_away_is_replaced_and_the_run_goes_on(machine: Machine) -> str:
    leader, follower = make_pair(machine)
    leader.ask_for(
        *TINY, f"optim.epochs={EPOCHS}", "device=cpu", config="demo.yaml", nodes=2,
        manifest=f"manifests/{machine.run_id}/manifest.csv", clips=f"clips/{machine.run_id}/",
    )  # fmt: skip
    couriers = {each.instance: each.start(fake=False) for each in (leader, follower)}
    machine.wait_until(lambda: machine.get("checkpoints/last.json"), f"{leader.log()} {follower.log()}", 240)
    take_away(leader)
    kept = json.loads(machine.text("checkpoints/last.json"))[0]["file"]
    (fresh,) = set(serving(machine)) - {leader.instance, follower.instance}
    third = another(machine, fresh)
    couriers[fresh] = third.start(fake=False)
    assert couriers[follower.instance].wait(300) == 0, follower.log()
    assert couriers[fresh].wait(60) == 0, third.log()
    outcome = machine.told()
    assert outcome["outcome"] == "finished", f"{outcome}; {follower.log()}; {third.log()}"
    assert machine.told("round.json")["members"] == [follower.instance, fresh]
    # The same run: it went on from a checkpoint, and no step is lost or told twice.
    steps = [json.loads(line) for line in machine.text("metrics.jsonl").splitlines()]
    assert [line["epoch"] for line in steps if line["kind"] == "evaluation"] == list(range(EPOCHS))
    went_on = [line for line in machine.text("log.txt").splitlines() if "going on after step" in line]
    assert went_on
    assert int(went_on[0].split()[-1]) >= int(kept.split("-")[1].removesuffix(".pt"))
    assert machine.get("model.safetensors")
    assert not machine.is_active()
    assert machine.capacity() == 0
    pages = {json.loads(machine.object(key) or b"")["instance"] for key in machine.keys(f"ledger/{machine.run_id}/")}
    assert pages == set(couriers)
    return f"leader taken away; {went_on[0].partition(' ')[2]}"

"""Several machines that train one run together: who they are, who leads, and in which round they train.

The group's oldest machine in service leads: it alone mirrors the run directory and tells the run's end. A round is one
start of the trainer on all machines, `runs/RUN_ID/round.json`, written by the leader:

    {"number": 3, "over": false, "members": ["i-0a...", "i-0b..."], "address": "10.0.0.7", "port": 40123}

Each machine tells in `runs/RUN_ID/nodes/INSTANCE/round.json` which round it has left, why, and whether it is ready for
the next. When a member is gone or has left, the leader ends the round, so that no trainer waits for one that is dead;
when S3 has all that it has saved and all machines are ready, it opens the next. The others bring the run from S3 first.

torchrun could do this by itself (elastic), but then any machine may become the one that writes, each on its own disk.
"""

import json
import socket
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import boto3
from botocore.config import Config

from infra.box.child import Step
from infra.box.duty import Duty
from infra.box.inputs import Missing, bring_run
from infra.box.mirror import Mirror
from infra.box.station import as_json
from infra.box.transfer import insist

LOOK_EVERY = 5.0  # seconds
MINUTES_TO_RECOVER = 5.0  # that a machine has which fails before it is ready
ROUNDS_IN_VAIN = 3  # that may end without a step done before the run is given up


@dataclass(frozen=True)
class Round:
    number: int = 0
    over: bool = True
    members: tuple[str, ...] = ()  # instances; the first one leads
    address: str = ""
    port: int = 0


class Team:
    """This machine among those of its group; `look` keeps what is known of the others fresh."""

    def __init__(self, duty: Duty, size: int) -> None:
        self.duty, self.size, self.me = duty, size, duty.station.instance
        patience = Config(connect_timeout=5, read_timeout=15, retries={"total_max_attempts": 2})
        region = duty.station.region
        self._scaling = boto3.client("autoscaling", region_name=region, config=patience)
        self._ec2 = boto3.client("ec2", region_name=region, config=patience)
        self._prefix = f"runs/{duty.run_id}/"
        self.members: dict[str, str] = {}  # instances in service, oldest first -> private address
        self.round = Round()  # the newest
        self.words: dict[str, dict[str, Any]] = {}  # of the members, to the leader: see `tell`

    @property
    def leads(self) -> bool:
        return next(iter(self.members), None) == self.me

    def look(self) -> None:
        group = self._scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[self.duty.station.group])
        found = group["AutoScalingGroups"][0]["Instances"]
        serving = [each["InstanceId"] for each in found if each["LifecycleState"] == "InService"]
        answer = self._ec2.describe_instances(InstanceIds=serving) if serving else {"Reservations": []}
        machines = [machine for reservation in answer["Reservations"] for machine in reservation["Instances"]]
        machines.sort(key=lambda machine: (machine["LaunchTime"], machine["InstanceId"]))
        self.members = {machine["InstanceId"]: machine["PrivateIpAddress"] for machine in machines}
        if text := self.duty.bucket.read(self._prefix + "round.json"):
            known = json.loads(text)
            self.round = Round(**known | {"members": tuple(known["members"])})
        if self.leads:
            self.words = {member: self._word_of(member) for member in self.members if member != self.me}

    def _word_of(self, member: str) -> dict[str, Any]:
        text = self.duty.bucket.read(f"{self._prefix}nodes/{member}/round.json")
        return dict(json.loads(text or b'{"left": -1, "ready": false, "why": ""}'))

    def tell(self, left: int, ready: bool, why: str = "") -> None:
        """Tell the leader that this machine's trainer is not in round `left` any more."""
        key = f"{self._prefix}nodes/{self.me}/round.json"
        word = as_json({"left": left, "ready": ready, "why": why})
        insist(lambda: self.duty.bucket.write(key, word), self.duty.check)

    def complaints(self) -> list[str]:
        """Why members have left the round that is not over."""
        return [word["why"] for word in self.words.values() if word["left"] >= self.round.number and word["why"]]

    def is_over(self, now: Round) -> bool:
        """Whether the trainers of this round wait in vain, or are not waited for any more."""
        if self.round.number > now.number or (self.round.number == now.number and self.round.over):
            return True
        left = any(self.words.get(member, {}).get("left", -1) >= now.number for member in now.members)
        return self.leads and (left or not set(now.members) <= set(self.members))

    def join(self) -> None:
        """Wait until this machine is in service, and take its role."""
        while self.me not in self.members:
            insist(self.look, self.duty.check)
            self.duty.asked.wait(0 if self.me in self.members else LOOK_EVERY / 2)
        self.take_role()
        if not self.leads:
            self.tell(self.round.number, ready=False)

    def take_role(self) -> None:
        """Lead, or follow: then this machine's own word goes below nodes/, and the run's is the leader's."""
        duty = self.duty
        if duty.mirror is not None:
            if duty.leads == self.leads:
                return
            # A leader that has ended the run takes the note away before it leaves: then there is nothing to lead.
            duty.look_at_note()
            duty.check()
            duty.mirror.finish()
        duty.leads = self.leads
        if duty.leads:
            self._bring()
        run = duty.station.scratch / "runs" / duty.run_id
        duty.prefix = self._prefix if duty.leads else f"{self._prefix}nodes/{self.me}/"
        duty.run = run if duty.leads else duty.station.scratch / "nodes" / duty.run_id
        duty.run.mkdir(parents=True, exist_ok=True)
        duty.mirror = Mirror(duty.bucket, duty.run, duty.prefix, duty.say)
        duty.mirror.start()
        duty.say(f"this machine, {self.me}, {'leads' if duty.leads else 'follows'}")

    def next_round(self, last: int) -> Round:
        """Wait for a round after the `last` that has this machine in it; the leader opens it."""
        duty, said = self.duty, False
        unfit: dict[str, tuple[float, str]] = {}
        if not self.leads:
            self.tell(last, ready=True)
        while True:
            duty.check()
            insist(self.look, duty.check)
            if self.me in self.members:
                self.take_role()
            if duty.leads and self.leads:
                if not self.round.over:
                    self._write(replace(self.round, over=True))
                self._lose_patience(unfit)
                others = [member for member in self.members if member != self.me][: self.size - 1]
                if len(others) == self.size - 1 and all(self._is_ready(member) for member in others):
                    return self._open((self.me, *others))
            elif self.round.number > last and not self.round.over and self.me in self.round.members:
                self._bring()
                return self.round
            if not said:
                duty.say(f"waiting for the other machines: {len(self.members)} of {self.size} are in service")
                said = True
            duty.asked.wait(LOOK_EVERY / 2)

    def _lose_patience(self, unfit: dict[str, tuple[float, str]]) -> None:
        """Raise Missing when a machine has failed for so long that it will not take part; `unfit` remembers when."""
        for member, word in self.words.items():
            if word["ready"]:
                unfit.pop(member, None)
            elif word["why"]:
                unfit.setdefault(member, (time.monotonic(), word["why"]))
        for since, why in unfit.values():
            if time.monotonic() - since > MINUTES_TO_RECOVER * 60:
                raise Missing(why)

    def _is_ready(self, member: str) -> bool:
        word = self.words.get(member, {})
        return bool(word.get("ready")) and word["left"] >= self.round.number

    def _open(self, members: tuple[str, ...]) -> Round:
        """Open the next round, once S3 has all that the others have to bring."""
        assert self.duty.mirror
        self.duty.mirror.flush(self.duty.check)
        with socket.socket() as listener:
            listener.bind((self.members[self.me], 0))
            port = listener.getsockname()[1]
        self.words = {}
        self._write(Round(self.round.number + 1, False, members, self.members[self.me], port))
        self.duty.say(f"round {self.round.number} of {', '.join(members)}")
        return self.round

    def _write(self, now: Round) -> None:
        insist(lambda: self.duty.bucket.write(self._prefix + "round.json", as_json(asdict(now))), self.duty.check)
        self.round = now

    def _bring(self) -> None:
        """Make the run directory here what S3 has of it."""
        duty = self.duty
        assert duty.request
        bring_run(duty.bucket, duty.request, duty.station.scratch / "runs" / duty.run_id, duty.check, own=False)

    def step(self, step: Step, now: Round) -> Step:
        """The trainer's step in this round: torchrun with the leader's address and this machine's number."""
        place = [f"--nnodes={len(now.members)}", f"--node-rank={now.members.index(self.me)}", "--max-restarts=0"]
        place += [f"--master-addr={now.address}", f"--master-port={now.port}"]
        command = [part for word in step.command for part in (place if word == "--standalone" else [word])]
        return replace(step, command=command, over=lambda: self.is_over(now), is_trainer=self.duty.leads)

"""make rehearse: the whole story of a run in AWS, on this machine, at no cost: each step, and what it proves.

up, image, data, manifest, prepare, train, watch, stop, resume, a spot machine taken, download, destroy: said as a user
says them, to a local AWS endpoint whose machines boot for real in a root directory of their own (cloud.py, standin.py)
and train for real, on the CPU. `up` goes through the `pulumi` that is on the PATH; where there is none, through the
rehearsal's own stand-in (declared.py). It wants root and Linux's overlayfs, and a few minutes.
"""

import argparse
import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from cloud import ROOT, cloud
from lent import find_image
from rich.console import Console
from stage import STACK, Refuted, Stage, claim
from standin import can_stand_in

from infra.ops.context import read_context
from infra.outputs import Outputs, parameter_name, read_outputs, tags

ACTORS = 3  # of each corpus: one trains, one validates, one tests
TINY = (
    "model.width=8 model.beta_inv=4 data.frames=8 data.size=32 data.batch=4 data.workers=0 evaluation.clips=1 "
    "evaluation.flip=false checkpoint_minutes=0.1"
)
# Training has to last through a stop and a notice, and courier and verbs look every five seconds.
TRAINING_SECONDS, TRIAL_EPOCHS = 50.0, 12
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
PUSHED = {"schemaVersion": 2, "mediaType": DOCKER, "config": {"digest": "sha256:" + "0" * 64}, "layers": []}


class Rehearsal:
    """The story, a method for each step, in the order of `tell`."""

    def __init__(self, stage: Stage, image: str) -> None:
        self.stage, self.lent = stage, image
        self.run = ""
        self.machines: list[str] = []  # every machine that has worked on the run
        self.outputs: Outputs

    def tell(self) -> None:
        self.up()
        self.image()
        self.data()
        self.manifest()
        self.prepare()
        self.pace()
        self.train()
        self.watch()
        self.stop()
        self.resume()
        self.take()
        self.finish()
        self.download()
        self.destroy()

    def up(self) -> None:
        with self.stage.step("make up") as proofs:
            said = self.stage.make("up", YES=1)
            self.read_outputs()
            group = self.group()
            claim(group["DesiredCapacity"] == 0 and not self.live(), "an idle stack has a machine")
            by = (
                "by the pulumi on the PATH"
                if self.stage.has_pulumi
                else "no pulumi here, so the rehearsal's own: " + self.made(said.err)
            )
            proofs += [f"the stack is there and no machine runs ({by})"]
            refused = self.stage.make("train", YES=1, CONFIG="demo.yaml", fails=True)
            claim("make image" in refused.err, f"train without an image said {refused.last}")
            proofs += ["train before there is an image is refused, with the next command"]

    @staticmethod
    def made(text: str) -> str:
        return next(line for line in text.splitlines() if line.startswith("made "))

    def image(self) -> None:
        # A local AWS endpoint has no registry that takes a push. What `make image` does of a commit that somebody has
        # pushed already is all there: it finds it, and has the next machine use it.
        with self.stage.step("make image") as proofs:
            tag = read_context(self.stage.project).tag
            repository = self.outputs.repository_url.partition("/")[2]
            pushed = {"imageManifest": json.dumps(PUSHED), "imageTag": tag}
            self.stage.client("ecr").put_image(repositoryName=repository, **pushed)
            said = self.stage.make("image", YES=1)
            self.read_outputs()
            claim(f"@{self.outputs.image_digest}" in said.out, "the stack does not publish the image's digest")
            template = self.stage.client("ec2").describe_launch_template_versions(
                LaunchTemplateId=self.outputs.launch_template, Versions=["$Latest"]
            )["LaunchTemplateVersions"][0]
            claim(template["VersionNumber"] > 1, "the machines' template is the old one")
            proofs += ["what the registry has is not built again; its digest is in a new template for the next machine"]
            proofs += [
                f"the machines' containers are real ones, of this machine's Docker engine and its image {self.lent}"
                if self.lent
                else "no Docker engine here has an image of this code: the courier runs as a process of this virtualenv"
            ]

    def data(self) -> None:
        self.corpus = self.stage.folder / "corpus"
        with self.stage.step("make data") as proofs:
            self.draw()
            self.stage.make("data", SRC=self.corpus)
            sent = self.objects("data/")
            here = {str(path.relative_to(self.corpus)): path.stat().st_size for path in self.files(self.corpus)}
            claim(
                {key.removeprefix("data/"): size for key, size in sent.items()} == here, "S3 has other files than SRC"
            )
            times = self.written("data/")
            self.stage.make("data", SRC=self.corpus)
            claim(self.written("data/") == times, "a second upload has sent something again")
            proofs += [f"{len(here)} drawn files are in S3, each of its size; said twice, nothing is sent again"]

    def draw(self) -> None:
        line = [sys.executable, "-m", "manifests", "synth", "--actors", str(ACTORS), "--takes", "1"]
        subprocess.run([*line, "--out", str(self.corpus)], cwd=ROOT, check=True, capture_output=True)

    def manifest(self) -> None:
        with self.stage.step("make manifest") as proofs:
            self.stage.make("manifest", YES=1)
            self.over("manifest")
            rows = list(csv.DictReader(io.StringIO(self.read("manifests/all/manifest.csv").decode())))
            by_corpus = {corpus: sum(row["dataset"] == corpus for row in rows) for corpus in ("ravdess", "crema")}
            claim(all(by_corpus.values()), f"the manifest lacks a corpus: {by_corpus}")
            splits = [{row["actor"] for row in rows if row["split"] == split} for split in ("train", "val", "test")]
            apart = len(set.union(*splits)) == sum(map(len, splits))
            claim(all(splits) and apart, "an actor is in two splits, or a split is empty")
            told = " and ".join(f"{count} takes of {corpus}" for corpus, count in by_corpus.items())
            proofs += [f"a machine made it in the image and gave itself back: {told}, no actor in two splits"]
            self.rows = len(rows)

    def prepare(self) -> None:
        with self.stage.step("make prepare") as proofs:
            self.stage.make("prepare", YES=1)
            self.over("prepare")
            index = list(csv.DictReader(io.StringIO(self.read("clips/all/index.csv").decode())))
            claim(len(index) == self.rows, f"{len(index)} clips are prepared of {self.rows} takes")
            proofs += [f"{self.rows} takes are face clips in S3 once, for every run to come; the machine is gone"]

    def pace(self) -> None:
        """So many epochs as last TRAINING_SECONDS here: found by a few of them, without any cloud."""
        with self.stage.step("python -m trainer fit, for the pace") as proofs:
            trial = self.stage.folder / "trial"
            for key in (*self.objects("manifests/all/"), *self.objects("clips/all/")):
                (trial / key).parent.mkdir(parents=True, exist_ok=True)
                (trial / key).write_bytes(self.read(key))
            words = ["--config", "demo.yaml", "--manifest", "manifests/all/manifest.csv", "--clips", "clips/all"]
            line = [sys.executable, "-m", "trainer", "fit", *words, "--run", "run", *TINY.split()]
            line += [f"optim.epochs={TRIAL_EPOCHS}"]
            alone = {**os.environ, "OMP_NUM_THREADS": "1"}  # as on the stand-in machines
            done = subprocess.run(line, cwd=trial, env=alone, capture_output=True, text=True)
            claim(done.returncode == 0, f"the trainer ended with {done.returncode}: {done.stderr[-300:]}")
            judged = [row for row in rows_of((trial / "run/metrics.jsonl").read_text()) if row["kind"] == "evaluation"]
            first, last = (datetime.fromisoformat(judged[place]["time"]).timestamp() for place in (0, TRIAL_EPOCHS - 1))
            each = max(last - first, 1.0) / (TRIAL_EPOCHS - 1)
            self.epochs = max(30, round(TRAINING_SECONDS / each))
            proofs += [f"{each:.2f} s an epoch, so {self.epochs} of them are a run that can be stopped and taken"]

    def train(self) -> None:
        with self.stage.step("make train") as proofs:
            self.run = self.stage.make(
                "train", YES=1, CONFIG="demo.yaml", SET=f"{TINY} optim.epochs={self.epochs}", NAME="rehearsed", CAP=5
            ).out.strip()
            machine = self.working()
            request = json.loads(self.read(f"runs/{self.run}/request.json"))
            actions = self.stage.client("autoscaling").describe_scheduled_actions(AutoScalingGroupName=self.outputs.asg)
            claim(actions["ScheduledUpdateGroupActions"], "AWS itself would never empty the group")
            proofs += [f"{machine} booted from the stack's own boot script and trains {self.run}"]
            proofs += [f"AWS itself ends it by {request['deadline'][:16]}, for ${request['cap_dollars']:.2f} at most"]
            refused = self.stage.make("train", YES=1, CONFIG="demo.yaml", fails=True)
            claim(self.run in refused.err, f"a second train said {refused.last}")
            proofs += ["a second `make train` does not trample on it"]

    def watch(self) -> None:
        with self.stage.step("make status, monitor, logs") as proofs:
            status = self.stage.make("status").out
            claim(self.run in status and self.machines[-1] in status, "status does not name run and machine")
            self.stage.at_terminal("monitor", until="epoch", key="q", RUN=self.run)
            claim(self.active() == self.run, "leaving the monitor has ended the run")
            logs = self.stage.start("logs", RUN=self.run)
            assert logs.stdout
            line = next((text for text in logs.stdout if "epoch" in text), None)
            # As a terminal's Ctrl-C does: to every process in the foreground.
            os.killpg(logs.pid, signal.SIGINT)
            logs.communicate(timeout=60)
            claim(line, "logs show no epoch")
            claim(self.active() == self.run, "Ctrl-C in logs has ended the run")
            proofs += ["status names run and machine; the monitor fills a terminal and `q` leaves it"]
            proofs += [f"logs stream it ({str(line).strip()[:60]}), and Ctrl-C ends the watching only"]

    def stop(self) -> None:
        with self.stage.step("make stop") as proofs:
            self.stage.make("stop", RUN=self.run)
            self.gone()
            claim(self.active() is None, "the note that the run is active is still there")
            outcome = self.outcome()
            claim(outcome["outcome"] == "stopped", f"the outcome is {outcome['outcome']}: {outcome['reason']}")
            self.stopped_at = self.epoch()
            last = json.loads(self.read(f"runs/{self.run}/checkpoints/last.json"))
            claim(last, "there is no checkpoint")
            claim(self.stopped_at < self.epochs, "the run was over before it was stopped")
            proofs += [f"saved in epoch {self.stopped_at} of {self.epochs}, all of it in S3, the machine is given back"]

    def resume(self) -> None:
        with self.stage.step("make resume") as proofs:
            self.stage.make("resume", RUN=self.run, YES=1)
            machine = self.working()
            self.stage.wait(lambda: self.epoch() > self.stopped_at, "the resumed run comes further")
            proofs += [
                f"another machine, {machine}, goes on from epoch {self.stopped_at} and has come to {self.epoch()}"
            ]

    def take(self) -> None:
        with self.stage.step("a spot machine is taken") as proofs:
            taken, at = self.machines[-1], self.epoch()
            claim(at < self.epochs, "the run was over before its machine was taken")
            self.stage.cloud.spot_notice(taken, seconds=30)
            self.stage.wait(lambda: taken not in self.live(), "the machine is taken")
            claim(self.active() == self.run, "the run is no longer active")
            machine = self.working()
            self.stage.wait(lambda: self.over_or(lambda: self.epoch() > at), "the replacement comes further")
            proofs += [f"told, {taken} saved and was taken; {machine} replaced it and went on by itself"]

    def finish(self) -> None:
        with self.stage.step("make logs, to the end") as proofs:
            logs = self.stage.make("logs", RUN=self.run, ALL=1)
            outcome = self.outcome()
            claim(outcome["outcome"] == "finished", f"the outcome is {outcome['outcome']}: {outcome['reason']}")
            self.gone()
            claim(self.active() is None and self.group()["DesiredCapacity"] == 0, "a machine would come again")
            metrics = rows_of(self.read(f"runs/{self.run}/metrics.jsonl").decode())
            rows = [row for row in metrics if row["kind"] == "evaluation"]
            judged = [row["epoch"] for row in rows if row["split"] == "val"]
            claim(judged == list(range(self.epochs)), "metrics.jsonl lacks an epoch, or has one twice")
            lines = self.read(f"runs/{self.run}/output.txt").decode().splitlines()
            claim(logs.out.splitlines() == lines, "logs printed other lines than those in S3")
            claim(any("spot machine taken back" in line for line in lines), "the output does not tell of the notice")
            proofs += [f"finished, over {len(self.machines)} machines, none of {self.epochs} epochs lost or done twice"]
            proofs += ["logs has every line of all of them once; the last gave itself back, and no other will come"]

    def download(self) -> None:
        with self.stage.step("make download, make runs") as proofs:
            out = self.stage.folder / "fetched"
            self.stage.make("download", RUN=self.run, OUT=out, OPEN=0)
            run = out / self.run
            for name in ("outcome.json", "evaluation.json", "model.safetensors", "report.html", "output.txt"):
                claim((run / name).is_file(), f"the download lacks {name}")
                claim((run / name).read_bytes() == self.read(f"runs/{self.run}/{name}"), f"{name} differs from S3's")
            uar = json.loads((run / "evaluation.json").read_text())
            claim(uar, "the evaluation is empty")
            runs = self.stage.make("runs")
            claim(self.run in runs.out and "finished" in runs.out, f"runs does not list it: {runs.last}")
            ledger = [json.loads(self.read(key)) for key in self.objects(f"ledger/{self.run}/")]
            claim(len(ledger) == len(self.machines), f"the ledger has {len(ledger)} of {len(self.machines)} machines")
            claim({page["instance"] for page in ledger} == set(self.machines), "the ledger names other machines")
            dollars = sum(page["dollars"] for page in ledger)
            claim(0 < dollars < 5, f"the ledger says that it cost ${dollars}")
            proofs += ["a finished run, byte for byte: model, evaluation, report"]
            proofs += [f"the ledger has a page for each machine, ${dollars:.4f} together, had it been AWS"]

    def destroy(self) -> None:
        with self.stage.step("make destroy") as proofs:
            said = self.stage.make("destroy", YES=1)
            claim(self.outputs.bucket in said.err, f"destroy does not say what stays: {said.last}")
            groups = self.stage.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
            claim(not groups and not self.live(), "a group or a machine is left")
            claim(self.read(f"runs/{self.run}/model.safetensors"), "the model is gone from the bucket")
            proofs += [
                "nothing that costs is left but the bucket, which is told with its price; the run is still in it"
            ]

    # What AWS says.

    def read_outputs(self) -> None:
        found = self.stage.client("ssm").get_parameter(Name=parameter_name(STACK))
        self.outputs = read_outputs(found["Parameter"]["Value"])

    def group(self) -> Any:
        groups = self.stage.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[self.outputs.asg])
        return groups["AutoScalingGroups"][0]

    def live(self) -> list[str]:
        """Machines that bear the stack's label and cost money."""
        labels = [{"Name": f"tag:{key}", "Values": [value]} for key, value in tags(STACK).items()]
        states = [{"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}]
        found = self.stage.client("ec2").describe_instances(Filters=[*labels, *states])["Reservations"]
        return [machine["InstanceId"] for reservation in found for machine in reservation["Instances"]]

    def gone(self) -> None:
        self.stage.wait(lambda: not self.live(), "the machine is given back")

    def read(self, key: str) -> bytes:
        s3 = self.stage.client("s3")
        try:
            return s3.get_object(Bucket=self.outputs.bucket, Key=key)["Body"].read()
        except s3.exceptions.NoSuchKey:
            raise Refuted(f"s3://{self.outputs.bucket}/{key} is not there") from None

    def objects(self, prefix: str) -> dict[str, int]:
        return {row["Key"]: row["Size"] for row in self.listing(prefix)}

    def written(self, prefix: str) -> dict[str, Any]:
        return {row["Key"]: row["LastModified"] for row in self.listing(prefix)}

    def listing(self, prefix: str) -> list[Any]:
        pages = self.stage.client("s3").get_paginator("list_objects_v2")
        found = pages.paginate(Bucket=self.outputs.bucket, Prefix=prefix)
        return [row for page in found for row in page.get("Contents", ())]

    @staticmethod
    def files(folder: Path) -> list[Path]:
        return [path for path in folder.rglob("*") if path.is_file()]

    # How the run stands.

    def active(self) -> str | None:
        try:
            return self.read(f"active/{STACK}").decode().strip()
        except Refuted:
            return None

    def outcome(self) -> Any:
        return json.loads(self.read(f"runs/{self.run}/outcome.json"))

    def epoch(self) -> int:
        try:
            return int(json.loads(self.read(f"runs/{self.run}/status.json")).get("epoch") or 0)
        except Refuted:
            return 0

    def over_or(self, happens: Any) -> bool:
        return self.active() != self.run or bool(happens())

    def working(self) -> str:
        """The machine that works on the run, one that has not before; its training has begun."""

        def look() -> str | None:
            try:
                told = json.loads(self.read(f"runs/{self.run}/machine.json"))
            except Refuted:
                return None
            new = told["instance"] not in self.machines and told["phase"] not in ("starting", "bringing")
            return told["instance"] if new else None

        machine = self.stage.wait(look, "another machine works on the run")
        self.machines.append(machine)
        return machine

    def over(self, task: str) -> None:
        """Wait until the newest run, of a task that is no training, is over; it must have finished."""

        def look() -> str | None:
            return None if self.active() else max(key.split("/")[1] for key in self.objects("runs/"))

        run = self.stage.wait(look, f"{task} is over")
        outcome = json.loads(self.read(f"runs/{run}/outcome.json"))
        claim(outcome["outcome"] == "finished", f"{task} has {outcome['outcome']}: {outcome['reason']}")
        self.gone()


def rows_of(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def rehearse(folder: Path, console: Console, image: str) -> bool:
    """Whether every claim holds; `image` is one of this machine's Docker engine, or empty."""
    with cloud(folder / "cloud", run_commands=True, image=image) as aws:
        stage = Stage(folder, aws, console)
        console.print(f"a local AWS at {aws.url}; everything of the rehearsal is in {folder}", highlight=False)
        try:
            Rehearsal(stage, image).tell()
        except Refuted as refuted:
            console.print(f"[red]not proved:[/] {refuted}", highlight=False)
            console.print(f"what was said and done is in {folder} (log, cloud/)", highlight=False)
            return False
        console.print(stage.summary())
        return True


def main() -> int:
    made = argparse.ArgumentParser(prog="make rehearse", description=__doc__)
    made.add_argument("--keep", type=Path, metavar="DIR", help="a new folder for everything, left there afterwards")
    made.add_argument(
        "--image", help="image of the local Docker engine (default: one of this very code, if it has one)"
    )
    given = made.parse_args()
    folder = given.keep or Path(tempfile.mkdtemp(prefix="rehearsal-"))
    folder.mkdir(parents=True, exist_ok=True)
    console = Console(width=None if sys.stdout.isatty() else 160)
    if reason := can_stand_in(folder / "probe"):
        console.print(f"error: no rehearsal here: {reason}; Linux, root and overlayfs are needed", highlight=False)
        return 2
    try:
        good = rehearse(folder.resolve(), console, find_image() if given.image is None else given.image)
    except KeyboardInterrupt:
        console.print("\ninterrupted; nothing of the rehearsal runs on")
        return 130
    if good and not given.keep:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

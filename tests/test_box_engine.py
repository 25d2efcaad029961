"""The machine's unit with a Docker engine of the test's own: containers, couriers and the engine itself are killed.

The image is empty; what it needs of this machine is mounted. Needs root, dockerd and containerd.
Run: pytest tests/test_box_engine.py
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cloud import ROOT
from couriers import FAKE, Machine, lines_of, machine

__all__ = ["machine"]  # a fixture

BOOT = ROOT / "infra" / "box" / "boot.sh"
PLACES = [*map(Path, ("/usr", "/bin", "/lib", "/lib64", "/etc")), Path(sys.base_prefix), ROOT]
RESTARTS = 10


class Engine:
    """A Docker daemon that can be killed and started, as systemd does, beside a containerd that lives on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {"DOCKER_HOST": f"unix://{folder}/docker.sock"}
        socket = ["--address", str(folder / "containerd.sock")]
        with (folder / "log").open("a") as log:
            self.containerd = subprocess.Popen(
                ["containerd", *socket, "--root", str(folder / "c-root"), "--state", str(folder / "c-state")],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.start()

    def start(self) -> None:
        places = ["--data-root", str(self.folder / "data"), "--exec-root", str(self.folder / "exec")]
        places += ["--containerd", str(self.folder / "containerd.sock")]
        places += ["--pidfile", str(self.folder / "pid"), "--host", self.environment["DOCKER_HOST"]]
        (self.folder / "pid").unlink(missing_ok=True)
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                ["dockerd", *places, "--bridge", "none", "--iptables=false", "--storage-driver", "vfs"],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        end = time.monotonic() + 60
        while self("info").returncode:
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < end, "the engine does not answer"
            time.sleep(0.2)

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["docker", *words], env=self.environment, capture_output=True, text=True, timeout=60)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        for container in self("ps", "--all", "--quiet").stdout.split():
            self("rm", "--force", container)
        for process in (self.process, self.containerd):
            process.terminate()
            process.wait(30)
        # What the daemon that was killed had mounted, inner places first.
        mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for place in sorted((place for place in mounted if place.startswith(str(self.folder))), reverse=True):
            subprocess.run(["umount", "--lazy", place], capture_output=True)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    if os.geteuid() or not all(map(shutil.which, ("docker", "dockerd", "containerd"))):
        pytest.skip("an engine of one's own needs root, docker, dockerd and containerd")
    folder = tmp_path_factory.mktemp("engine")
    try:
        made = Engine(folder)
    except AssertionError as error:
        pytest.skip(f"no Docker engine can be started here: {error}")
    with tarfile.open(folder / "empty.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("empty"))
    entry = json.dumps([sys.executable, "-m", "infra.box.courier"])
    done = made("import", "--change", f"ENTRYPOINT {entry}", str(folder / "empty.tar"), "courier:empty")
    assert done.returncode == 0, done.stderr
    yield made
    made.close()


class Unit:
    """slowfast-run@RUN_ID as boot.sh writes it and systemd runs it: started again when it fails, up to ten times."""

    def __init__(self, engine: Engine, machine: Machine) -> None:
        self.machine, self.engine = machine, engine
        folder, scratch, home = machine.folder, machine.folder / "scratch", machine.folder / "home"
        (home / "trainer").mkdir(parents=True)
        shutil.copy(FAKE, home / "trainer" / "__main__.py")
        (home / "trainer" / "__init__.py").touch()
        scratch.mkdir()
        (scratch / ".charged").write_text(Path("/proc/uptime").read_text().split()[0])
        text = BOOT.read_text()
        writing = "printf '[Unit]" + text.partition("\nprintf '[Unit]")[2].partition("\nEOF\n")[0] + "\nEOF\n"
        subprocess.run(["bash", "-c", writing], env={"UNITS": str(folder), "PATH": os.environ["PATH"]}, check=True)
        unit = (folder / "slowfast-run@.service").read_text().replace("\\\n", " ").replace("%i", machine.run_id)
        unit = unit.replace("/etc/slowfast.env", str(folder / "env")).replace("/scratch:/", f"{scratch}:/")
        self.lines = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line)
        assert self.lines["Restart"] == "on-failure"
        assert 'docker rm --force "slowfast-$1"' in text
        own = machine.aws.environment().keys() | {
            "STACK",
            "REGION",
            "BUCKET",
            "ASG",
            "INSTANCE",
            "OMP_NUM_THREADS",
            "PYTHONPATH",
        }
        own |= {"AWS_EC2_METADATA_SERVICE_ENDPOINT"}
        known = {name: value for name, value in machine.environment().items() if name in own} | {
            "IMAGE": "courier:empty"
        }
        (folder / "env").write_text("".join(f"{name}={value}\n" for name, value in known.items()))
        mounts = [word for place in PLACES for word in ("--volume", f"{place}:{place}:ro")]
        mounts += ["--volume", f"{home}:/home", "--workdir", "/home"]
        self.environment = engine.environment | known | {"GPUS": " ".join(mounts)}
        self.environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.codes: list[int] = []
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        for _ in range(RESTARTS):
            # Of /opt/slowfast/ready what touches Docker here; how it finds and pulls an image: test_box_documents.py
            self.engine("rm", "--force", f"slowfast-{self.machine.run_id}")
            self.codes.append(self._execute("ExecStart"))
            self._execute("ExecStopPost")
            if self.codes[-1] == 0:
                return
            time.sleep(float(self.lines["RestartSec"]))

    def _execute(self, line: str) -> int:
        # systemd expands a word that is a variable by itself into as many as it holds.
        words = shlex.split(self.lines[line].removeprefix("-"))
        full = [
            w
            for word in words
            for w in (self.environment[word[1:]].split() if re.fullmatch(r"\$[A-Z]+", word) else [word])
        ]
        with (self.machine.folder / "courier.log").open("a") as log:
            return subprocess.run(full, env=self.environment, stdout=log, stderr=log).returncode

    def ends(self) -> dict:
        self.thread.join(120)
        assert not self.thread.is_alive(), self.machine.log()
        return self.machine.told()


@contextmanager
def training(engine: Engine, machine: Machine) -> Iterator[Unit]:
    """A run under way in a container, with lines in S3."""
    machine.ask_for("lines=160", "checkpoint=9000000")
    unit = Unit(engine, machine)
    machine.wait_until(lambda: len(lines_of(machine.text("log.txt"))) > 10, "lines are in S3")
    yield unit
    outcome = unit.ends()
    assert outcome["outcome"] == "finished", outcome
    assert unit.codes[0] != 0
    assert unit.codes[-1] == 0
    # Nothing lost, nothing doubled, whoever was killed.
    assert lines_of(machine.text("log.txt")) == list(range(160))
    assert lines_of(machine.text("output.txt"), "print") == list(range(160))
    assert machine.get("checkpoints/step-00000160.pt") == (machine.run / "checkpoints/step-00000160.pt").read_bytes()
    assert not machine.is_active()
    assert machine.capacity() == 0


def pids_of(engine: Engine, machine: Machine, what: str) -> list[int]:
    """Processes of a machine's container whose command line has `what` in it."""
    rows = engine("top", f"slowfast-{machine.run_id}", "-eo", "pid,args").stdout.splitlines()[1:]
    return [int(row.split()[0]) for row in rows if what in row]


def test_a_container_that_is_killed_is_started_again_and_the_run_goes_on(engine: Engine, machine: Machine) -> None:
    with training(engine, machine):
        assert engine("kill", f"slowfast-{machine.run_id}").returncode == 0
    told = machine.text(f"machine-{machine.instance}.txt")
    assert '"Status":"exited"' in told  # what Docker knew at the unit's last end


def test_a_courier_that_is_killed_takes_its_container_along_and_the_run_goes_on(
    engine: Engine, machine: Machine
) -> None:  # fmt: skip
    with training(engine, machine):
        couriers = pids_of(engine, machine, "-m infra.box.courier")
        os.kill(max(couriers), signal.SIGKILL)


def test_an_engine_that_is_killed_and_started_again_starts_the_run_again(engine: Engine, machine: Machine) -> None:
    with training(engine, machine) as unit:
        engine.kill()
        machine.wait_until(lambda: unit.codes, "the unit notices")
        engine.start()

"""A stand-in machine: a box (box.py) that boots, lives, is given commands, and is switched off like a real one.

It has a root directory, processes, an uptime and a metadata service of its own, and this machine's network. Its first
process hangs on a pipe from whoever made it, the power cord: when that closes, all that runs on the machine is gone.

Where Docker runs here its containers are real ones of this engine; elsewhere a container is the image's entry point,
the courier, as a process of this project's virtualenv.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import lent
from box import ROOT, STATE, Box, can_enter
from metadata import Metadata

MINUTE = 60.0  # seconds
USER_DATA = "/var/lib/cloud/instance/user-data.txt"
# An own /proc shows own processes; an own clock of boots makes the machine as old as it is. The fast disk is a folder.
POWER_ON = """
set -e
mount -t overlay overlay -o lowerdir=/,upperdir="$1/upper",workdir="$1/work" "$1/root"
mount -t proc proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
mount --rbind /sys "$1/root/sys"
mount --rbind "$2" "$1/root$2"
mkdir -p "$1/root/scratch"
mount --bind "$1/scratch" "$1/root/scratch"
if [ -S "$3" ]; then : > "$1/root/run/lent.sock"; mount --bind "$3" "$1/root/run/lent.sock"; fi
exec chroot "$1/root" bash -c 'rm -rf /run/slowfast* && echo up > /run/power && read -r _'
"""
SOCKET = "/var/run/docker.sock"
COURIER = f"""#!/bin/sh
cd {ROOT} && exec {sys.executable} -m infra.box.courier "$@"
"""


@dataclass(frozen=True)
class Instance:
    """What EC2 knows of a machine."""

    id: str
    type: str
    zone: str
    market: str  # spot or on-demand
    user_data: str


@dataclass
class Ended:
    """A script's end: its exit code (-1 if it was cut off), and what it printed."""

    code: int
    stdout: str
    stderr: str


class Machine(Box):
    """One machine of the cloud, switched on by `power_on` and off by `power_off`."""

    def __init__(self, folder: Path, instance: Instance, endpoint: str, image: str = "") -> None:
        """`image`: run the containers on this machine's engine, from that image, and not as processes."""
        self.instance, self.image = instance, image
        self.ended = Event()
        self._power: subprocess.Popen[bytes] | None = None
        self.metadata = Metadata(instance.id, instance.type, instance.zone, instance.market)
        nowhere = "/var/lib/box/none"
        super().__init__(
            folder,
            {
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_EC2_METADATA_SERVICE_ENDPOINT": self.metadata.url,
                # Small networks gain nothing from more threads, and other machines may stand here.
                "OMP_NUM_THREADS": "1",
                "OMP_WAIT_POLICY": "PASSIVE",
                # Not those of the person on whose machine this one stands.
                "AWS_CONFIG_FILE": nowhere,
                "AWS_SHARED_CREDENTIALS_FILE": nowhere,
            },
        )
        (folder / "scratch").mkdir()
        self.write("/var/lib/cloud/data/instance-id", instance.id + "\n")
        self.write(USER_DATA, instance.user_data)
        self.write(f"{STATE}/workload", COURIER)
        # One card, as far as nvidia-smi tells; torch finds none and computes on the CPU.
        self.write(f"{STATE}/gpu", "")
        if image:
            self._lend_engine()
        self.write("/opt/stand-ins/shutdown", f"#!/bin/sh\necho now > {STATE}/shutdown\n")

    def _lend_engine(self) -> None:
        line = shlex.join([sys.executable, lent.__file__, self.image, self.instance.id, str(self.folder)])
        self.write("/opt/stand-ins/docker", f'#!/bin/sh\nDOCKER_HOST=unix:///run/lent.sock exec {line} "$@"\n')
        card = self.folder / "nvidia-smi"
        card.write_text(lent.CARD)
        card.chmod(0o755)
        # A container of this engine is told the uptime of this very machine: what was before is not to be paid for.
        charged = self.folder / "scratch" / ".charged"
        charged.write_text(f"{uptime():.0f}\n")
        os.chown(charged, 1000, 1000)

    def power_on(self) -> None:
        """Switch on and wait until commands can be run; the user data is `boot`'s."""
        own = ["--mount", "--pid", "--fork", "--kill-child", "--time", "--boottime", f"-{int(uptime())}"]
        line = ["unshare", *own, "bash", "-c", POWER_ON, "power-on", str(self.folder), str(ROOT)]
        line += [SOCKET if self.image else ""]
        with (self.folder / "console").open("ab") as console:
            self._power = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=console, stderr=console)
        end = time.monotonic() + 60
        while not self.has("/run/power"):
            if self._power.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.instance.id} did not start: {(self.folder / 'console').read_text()}")
            time.sleep(0.02)

    def boot(self) -> None:
        """Run the user data, as cloud-init does at the first boot, its output in the console."""
        self.execute(f"#!/bin/sh\n. /etc/os-release\nexec bash {USER_DATA} > /var/log/cloud-init-output.log 2>&1\n")

    def keep_time(self) -> None:
        """Ask the idle timer's question every minute of the machine's life, as systemd does once it is enabled."""
        while not self.ended.wait(MINUTE):
            if self.has(f"{STATE}/timers/slowfast-idle.timer.json"):
                self.execute("#!/bin/sh\nexec bash /opt/slowfast/idle\n")

    def execute(self, script: str, seconds: float = 3600, stop: Event | None = None) -> Ended:
        """Run a script as the SSM agent does, from a file by `sh -c FILE`, all that it started ended with it.

        Cut off after so many seconds, when `stop` is set, or when the machine goes.
        """
        name = f"/var/lib/box/scripts/{time.monotonic_ns()}"
        self.write(name, script)
        out, err = (self.folder / f"{Path(name).name}.{stream}" for stream in ("stdout", "stderr"))
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                [*self.enter(), "sh", "-c", name],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        end = time.monotonic() + seconds
        while (code := process.poll()) is None:
            if time.monotonic() > end or self.ended.is_set() or (stop and stop.is_set()):
                end_group(process)
                code = -1
                break
            time.sleep(0.05)
        return Ended(code, out.read_text(errors="replace"), err.read_text(errors="replace"))

    def enter(self) -> list[str]:
        """The command line that runs another one on the machine."""
        init = self._first_process()
        return ["nsenter", "--target", init, "--mount", "--pid", "--time", f"--root=/proc/{init}/root", "--wd"]

    def write(self, path: str, text: str) -> None:
        """Write a file, through the mounted root while there is one: a layer under a mount is not to be touched."""
        file = (self._root() if self._power else self.upper) / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)

    def _root(self) -> Path:
        return Path(f"/proc/{self._first_process()}/root")

    def _first_process(self) -> str:
        assert self._power
        pid = self._power.pid
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]

    def wants_off(self) -> bool:
        """Whether something on the machine has shut it down."""
        return self.has(f"{STATE}/shutdown")

    def power_off(self, grace: float = 0) -> None:
        """Switch off. With `grace`, systemd first stops our containers, as at a termination; they have so long."""
        if grace and not self.ended.is_set():
            stop = f"docker ps --quiet --filter label=slowfast-emotion=1 | xargs -r docker stop -t {grace:.0f}"
            self.execute(f"#!/bin/sh\n{stop}\n", seconds=grace + 10)
        self.ended.set()
        self.metadata.close()
        if self._power:
            self._power.kill()  # the kernel ends all of the machine's processes with its first
            self._power.wait()
        if self.image:
            lent.forget(self.instance.id)

    def close(self) -> None:
        # Not the box's own: process ids in its files are the machine's, and mean others here.
        self.power_off()


def can_stand_in(folder: Path) -> str | None:
    """Why there can be no stand-in machine here, or None."""
    if reason := can_enter(folder):
        return reason
    own = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--time", "--boottime", "-1", "true"]
    tried = subprocess.run(own, capture_output=True, text=True)
    return None if tried.returncode == 0 else f"no process and time namespaces: {tried.stderr.strip()}"


def uptime() -> float:
    return float(Path("/proc/uptime").read_text().split()[0])


def end_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()

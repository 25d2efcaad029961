"""What the machine does and what it costs: `machine.json`, beside the trainer's status.json.

{"instance", "type", "zone", "market", "image", "phase", "time", "gpus": [...], "memory", "disk", "load",
 "price_per_hour", "dollars", "dollars_at_finish", "cap_dollars", "deadline", "spot_notice", "rebalance", "mirror"}
"""

import shutil
import subprocess
from pathlib import Path
from typing import Any

READ_EVERY = 15.0  # seconds
GPU_FIELDS = ("name", "utilization.gpu", "memory.used", "memory.total", "temperature.gpu", "power.draw")
GPU_KEYS = ("use_percent", "memory_used_mib", "memory_total_mib", "celsius", "watts")


def dollars(seconds: float, price_per_hour: float, before: float = 0.0) -> float:
    """What `seconds` of one machine cost, on top of what earlier machines of the run did."""
    return before + seconds * price_per_hour / 3600


def dollars_at_finish(so_far: float, eta_seconds: float | None, price_per_hour: float) -> float | None:
    """The whole run's price if the trainer's own estimate of what is left holds; None while it has none."""
    return None if eta_seconds is None else dollars(eta_seconds, price_per_hour, so_far)


def parse_gpus(text: str) -> list[dict[str, Any]]:
    """A dictionary for each line of nvidia-smi's CSV; what a card does not tell (`[N/A]`) is None."""
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.strip()]
    return [{"name": row[0], **dict(zip(GPU_KEYS, map(_number, row[1:]), strict=False))} for row in rows]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def read_gpus() -> list[dict[str, Any]]:
    """The machine's GPUs; none if there is none or the driver does not answer."""
    command = ["nvidia-smi", "--query-gpu=" + ",".join(GPU_FIELDS), "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse_gpus(answer.stdout) if answer.returncode == 0 else []


def parse_memory(meminfo: str) -> dict[str, int]:
    """Bytes of memory, in all and in use, from the text of /proc/meminfo."""
    sizes = dict(line.split(":", 1) for line in meminfo.splitlines())
    total, free = (int(sizes[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
    return {"total_bytes": total, "used_bytes": total - free}


def read_machine(disk: Path) -> dict[str, Any]:
    """What can be read off the machine at this moment."""
    space = shutil.disk_usage(disk)
    return {
        "gpus": read_gpus(),
        "memory": parse_memory(Path("/proc/meminfo").read_text()),
        "disk": {"total_bytes": space.total, "used_bytes": space.used},
        "load": float(Path("/proc/loadavg").read_text().split()[0]),
    }


def uptime() -> float:
    """Seconds since the machine booted, which is about when it began to cost."""
    return float(Path("/proc/uptime").read_text().split()[0])


def kills_for_memory() -> int:
    """How many processes the kernel has killed since boot because memory had run out."""
    counts = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    return int(counts.get("oom_kill", 0))

#!/bin/sh
# What this machine does, as one JSON object on stdout. What does not answer is null or empty, never an error.
exec python3 - << 'PYTHON'
import json, os, re, shutil, subprocess, time
from pathlib import Path
from urllib.request import Request, urlopen


def lines(*command):
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return answer.stdout.splitlines() if answer.returncode == 0 else []


def number(text):
    return float(text) if re.fullmatch(r"-?[0-9.]+", text.strip()) else None


def gpus():
    fields = ("name", "utilization.gpu", "memory.used", "memory.total", "temperature.gpu", "power.draw")
    rows = lines("nvidia-smi", "--query-gpu=" + ",".join(fields), "--format=csv,noheader,nounits")
    keys = ("use_percent", "memory_used_mib", "memory_total_mib", "celsius", "watts")
    split = [row.split(", ") for row in rows]
    return [dict(name=row[0], **dict(zip(keys, map(number, row[1:])))) for row in split]


def containers():
    ours = lines("docker", "ps", "--all", "--filter", "label=slowfast-emotion=1", "--format", "{" + "{json .}" + "}")
    rows = [json.loads(row) for row in ours]
    keep = ("Names", "Image", "State", "Status")
    found = [dict((key.lower(), row[key]) for key in keep) for row in rows]
    return [dict(run_id=row["names"][len("slowfast-"):], **row) for row in found]


def disks():
    places = [place for place in ("/", "/scratch") if os.path.isdir(place)]
    sizes = [shutil.disk_usage(place) for place in places]
    return [dict(place=place, total_bytes=size.total, used_bytes=size.used) for place, size in zip(places, sizes)]


def memory():
    sizes = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total, free = (int(sizes[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
    return dict(total_bytes=total, used_bytes=total - free)


def processes():
    # Names only: a command line may hold what is nobody else's business.
    rows = lines("ps", "-eo", "pid,pcpu,rss,etimes,comm", "--sort=-pcpu", "--no-headers")[:8]
    split = [row.split(None, 4) for row in rows]
    return [
        dict(pid=int(pid), cpu_percent=float(cpu), rss_bytes=int(rss) * 1024, seconds=int(age), name=name)
        for pid, cpu, rss, age, name in split
    ]


def idle(uptime, limit):
    stamp = Path("/run/slowfast-active")
    text = stamp.read_text().strip() if stamp.exists() else ""
    timer = lines("systemctl", "is-active", "slowfast-idle.timer")
    seconds = uptime - int(text) if text else None
    return dict(timer=timer[0] if timer else "inactive", limit_minutes=limit, idle_seconds=seconds)


def spot_notice():
    """The two-minute warning that a spot machine is taken, if there is one."""
    base = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254").rstrip("/")
    try:
        ask = Request(base + "/latest/api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"})
        token = urlopen(ask, timeout=2).read().decode()
        ask = Request(base + "/latest/meta-data/spot/instance-action", headers={"X-aws-ec2-metadata-token": token})
        return json.load(urlopen(ask, timeout=2))
    except (OSError, ValueError):
        return None


env = Path("/etc/slowfast.env")
settings = dict(line.split("=", 1) for line in env.read_text().splitlines()) if env.exists() else {}
uptime = int(float(Path("/proc/uptime").read_text().split()[0]))
print(json.dumps(dict(
    instance=settings.get("INSTANCE"),
    time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    uptime_seconds=uptime,
    image=settings.get("IMAGE"),
    gpus=gpus(),
    containers=containers(),
    load=os.getloadavg()[0],
    memory=memory(),
    disks=disks(),
    processes=processes(),
    idle=idle(uptime, int(settings.get("IDLE_MINUTES", 0)) or None),
    spot_notice=spot_notice(),
)))
PYTHON

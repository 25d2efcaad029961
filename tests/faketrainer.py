"""Stands in for `python -m trainer`: writes a run directory as the real one does, line by line, and can be killed.

Installed by a test as trainer/__main__.py in the courier's working directory. Settings: lines, per_second, checkpoint
(bytes, saved half-way and when stopped), deaf (hears no SIGTERM), silent (seconds without a word), crash, and toobig (a
preflight that fails).
"""

import argparse
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("verb")
for name in ("config", "manifest", "clips", "run", "weights"):
    parser.add_argument(f"--{name}", type=Path)
parser.add_argument("--processes")
parser.add_argument("settings", nargs="*")
given = parser.parse_intermixed_args()
settings = {"lines": 40.0, "per_second": 20.0, "checkpoint": 1000.0}
settings |= {"deaf": 0.0, "silent": 0.0, "crash": 0.0, "toobig": 0.0}
settings |= {key: float(value) for key, value in (word.split("=") for word in given.settings)}
run = given.run
asked = False


def on_term(*_):
    global asked
    asked = True


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        temporary.write_bytes(data)
    except OSError as error:  # as the real one ends when the disk is full
        temporary.unlink()
        print(f"error: cannot write into {path.parent}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    os.replace(temporary, path)


def write_json(name, value):
    write(run / name, json.dumps(value).encode())


def save(step):
    data = hashlib.sha256(str(step).encode()).digest() * (int(settings["checkpoint"]) // 32)
    write(run / "checkpoints" / f"step-{step:08}.pt", data)
    write_json("checkpoints/last.json", [{"file": f"step-{step:08}.pt", "sha256": hashlib.sha256(data).hexdigest()}])


def end(outcome, reason, code):
    write_json(
        "outcome.json", {"outcome": outcome, "reason": reason, "exit_code": code, "seconds": 1, "last_lines": []}
    )
    sys.exit(code)


if given.verb == "preflight":
    if settings["toobig"]:
        print("error: 8 videos in 1 pieces do not fit into memory; lower data.batch", file=sys.stderr)
    sys.exit(2 if settings["toobig"] else 0)
assert given.config.is_file()
assert given.manifest.with_suffix(".json").is_file()
assert any(given.clips.iterdir())
if settings["crash"]:
    print("error: optim.lr must be positive", file=sys.stderr)
    sys.exit(2)
signal.signal(signal.SIGTERM, signal.SIG_IGN if settings["deaf"] else on_term)
if os.environ.get("RANK", "0") != "0":  # torchrun's second process: lives as long as the first
    while not asked and os.getppid() != 1:
        time.sleep(0.05)
    sys.exit(143)
run.mkdir(parents=True, exist_ok=True)
(run / "outcome.json").unlink(missing_ok=True)
log = run / "log.txt"
first = len(log.read_text().splitlines()) if log.exists() else 0
write_json("run.json", {"run_id": run.name, "pid": os.getpid(), "resumed_at": first})
write_json("status.json", {"phase": "training", "eta": 60, "heartbeat": time.strftime("%Y-%m-%dT%H:%M:%S+00:00")})
time.sleep(settings["silent"])
for step in range(first, int(settings["lines"])):
    with log.open("a") as stream:
        stream.write(f"{time.time():.3f} line {step}\n")
    print(f"{time.time():.3f} print {step}", flush=True)
    if step % max(1, int(settings["per_second"])) == 0:
        status = {"phase": "training", "step": step, "heartbeat": time.strftime("%Y-%m-%dT%H:%M:%S+00:00"), "eta": 60}
        write_json("status.json", status)
    if step == int(settings["lines"]) // 2:
        save(step)
    if asked:
        save(step)
        end("interrupted", "stopped by SIGTERM", 143)
    time.sleep(1 / settings["per_second"])
save(int(settings["lines"]))
write(run / "model.safetensors", b"weights" * 1000)
end("finished", "all stages are done", 0)

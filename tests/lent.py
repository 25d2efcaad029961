"""`docker` on a stand-in machine, where this one has an engine: that engine, lent, with an image that it has.

    lent.py IMAGE MACHINE FOLDER run --name slowfast-x ...

A machine sees its own containers only, under their own names; on the engine these end with the machine's id. Whatever
image is asked for, the lent one is taken: a local AWS has no registry. Its fast disk is FOLDER/scratch, its card the
FOLDER/nvidia-smi that tells of one.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LABEL = "slowfast-machine"  # of a container: whose it is
LENT_ENVIRONMENT = ("AWS_ENDPOINT_URL", "AWS_EC2_METADATA_SERVICE_ENDPOINT", "OMP_NUM_THREADS", "OMP_WAIT_POLICY")
# Prints the image's files, as JSON of sha256 by name.
LIST = """
import hashlib, json, pathlib
files = [path for path in pathlib.Path(".").rglob("*") if path.is_file() and path.suffix != ".pyc"]
print(json.dumps({str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}))
"""
CARD = """#!/bin/sh
case "$*" in *--query-gpu*) echo "NVIDIA L4, 37, 11021, 23034, 61, 68.20" ;; *) echo "GPU 0: NVIDIA L4" ;; esac
"""


def main(image: str, machine: str, folder: str, words: list[str]) -> int:
    engine = shutil.which("docker", path="/usr/local/bin:/usr/bin:/bin") or "docker"
    verb, rest = words[0], words[1:]
    if verb == "login":
        return 0 if sys.stdin.read() else 1
    if verb == "pull" or words[:2] == ["image", "inspect"]:
        return subprocess.run([engine, "image", "inspect", image], stdout=subprocess.DEVNULL).returncode
    if verb == "ps":
        mine = [ending(word, machine) if word.startswith("name=") else word for word in rest]
        line = [engine, "ps", "--filter", f"label={LABEL}={machine}", *mine]
        done = subprocess.run(line, stdout=subprocess.PIPE, text=True)
        print(done.stdout.replace(f".{machine}", ""), end="", flush=True)
        return done.returncode
    if verb == "run":
        os.execv(engine, [engine, "run", *run_words(image, machine, folder, rest)])
    os.execv(engine, [engine, verb, *(f"{w}.{machine}" if w.startswith("slowfast-") else w for w in rest)])


def ending(pattern: str, machine: str) -> str:
    """A filter for a name that ends here, for one that goes on with the machine's id."""
    return pattern.removesuffix("$") + rf"\.{machine}$"


def run_words(image: str, machine: str, folder: str, words: list[str]) -> list[str]:
    *options, _, run_id = words
    options = [word for word in options if not word.startswith("--gpus")]
    options[options.index("--name") + 1] += f".{machine}"
    options[options.index("--volume") + 1] = f"{folder}/scratch:/scratch"
    options += ["--volume", f"{folder}/nvidia-smi:/usr/local/bin/nvidia-smi:ro", "--label", f"{LABEL}={machine}"]
    for name in LENT_ENVIRONMENT:
        options += ["--env", name]
    return [*options, image, run_id]


def find_image() -> str:
    """The id of an image of this very code that the engine has; "" without an engine, or such an image."""
    line = ["docker", "images", "--filter", "label=slowfast-emotion.context", "--format", "{{.ID}}"]
    try:
        known = subprocess.run(line, capture_output=True, text=True, timeout=30).stdout.split()
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return next((image for image in dict.fromkeys(known) if has_this_code(image)), "")


def has_this_code(image: str) -> bool:
    """Whether every file of the project that the image has is as it is here."""
    line = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "python", image, "-c", LIST]
    done = subprocess.run(line, capture_output=True, text=True)
    files: dict[str, str] = json.loads(done.stdout) if done.returncode == 0 else {}
    here = {name: ROOT / name for name in files}
    return bool(files) and all(
        path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == files[name] for name, path in here.items()
    )


def forget(machine: str) -> None:
    """Remove what the machine has left on the engine, running or not."""
    line = ["docker", "ps", "--all", "--quiet", "--filter", f"label={LABEL}={machine}"]
    for found in subprocess.run(line, capture_output=True, text=True).stdout.split():
        subprocess.run(["docker", "rm", "--force", "--volumes", found], capture_output=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4], sys.argv[4:]))

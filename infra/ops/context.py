"""What the image is made of: the files that docker/Dockerfile.dockerignore lets through, named by what they hold.

The image's tag is the commit; where the files differ from it, `-dirty-` and a hash of them follows. So a tag that the
registry has is an image that need not be built, and the registry refuses to give a tag a second meaning.
"""

import hashlib
import io
import re
import subprocess
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from infra.ops.errors import UserError

DOCKERFILE = "docker/Dockerfile"
IGNORE = "docker/Dockerfile.dockerignore"
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the time of every packed file: the earliest that a zip can tell


@dataclass(frozen=True)
class Context:
    root: Path
    files: tuple[str, ...]  # relative to root, sorted
    base: str  # what to build upon; "" for the Dockerfile's own
    commit: str  # "" outside of git
    dirty: bool  # the files differ from the commit's

    @cached_property
    def digest(self) -> str:
        """Hex sha256 of all that shapes the image."""
        whole = hashlib.sha256(self.base.encode())
        for name in self.files:
            whole.update(f"{name}\0{hashlib.sha256((self.root / name).read_bytes()).hexdigest()}\n".encode())
        return whole.hexdigest()

    @property
    def tag(self) -> str:
        if self.commit and not (self.dirty or self.base):
            return self.commit[:12]
        return f"{self.commit[:12] or 'no-commit'}-dirty-{self.digest[:12]}"

    def differs_from(self, tag: str) -> bool:
        """Whether an image of that tag was built of other files; no where git does not know its commit."""
        commit, _, digest = tag.partition("-dirty-")
        if digest:
            return digest != self.digest[:12]
        if commit == self.commit[:12]:
            return self.dirty or bool(self.base)
        return bool(_git(self.root, "diff", "--name-only", commit, "--", *_wanted(self.root)))

    @property
    def arguments(self) -> dict[str, str]:
        """The Dockerfile's arguments: what the image's labels say, and the base if it is not the Dockerfile's own."""
        lock = (self.root / "requirements.lock").read_text(encoding="utf-8")
        torch = re.search(r"^torch==(\S+)", lock, re.M)
        project = tomllib.loads((self.root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        labels = {
            "REVISION": self.commit + ("+changes" if self.dirty else ""),
            "VERSION": project["version"],
            "TORCH": torch[1] if torch else "",
            "CONTEXT": self.digest,
        }
        return labels | ({"BASE": self.base} if self.base else {})

    def tar(self) -> bytes:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name in self.files:
                data = (self.root / name).read_bytes()
                member = tarfile.TarInfo(name)
                member.size, member.mode = len(data), 0o644
                archive.addfile(member, io.BytesIO(data))
        return packed.getvalue()

    def zip(self) -> bytes:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in self.files:
                member = zipfile.ZipInfo(name, LONG_AGO)
                member.external_attr, member.compress_type = 0o644 << 16, zipfile.ZIP_DEFLATED
                archive.writestr(member, (self.root / name).read_bytes())
        return packed.getvalue()


def read_context(root: Path, base: str = "") -> Context:
    """The context of the project at `root`. Raises UserError if that has no Dockerfile."""
    from docker.utils.build import exclude_paths

    if not (root / DOCKERFILE).is_file():
        raise UserError(f"{root} has no {DOCKERFILE}; run this in a whole copy of the project")
    patterns = _patterns(root)
    files = tuple(sorted(name for name in exclude_paths(str(root), patterns, DOCKERFILE) if (root / name).is_file()))
    commit = _git(root, "rev-parse", "HEAD").strip()
    changed = _git(root, "status", "--porcelain", "--untracked-files=all", "--", *_wanted(root))
    return Context(root, files, base, commit, dirty=bool(changed))


def _patterns(root: Path) -> list[str]:
    return [line for line in map(str.strip, (root / IGNORE).read_text().splitlines()) if line and line[0] != "#"]


def _wanted(root: Path) -> list[str]:
    return [pattern[1:] for pattern in _patterns(root) if pattern.startswith("!")]


def _git(root: Path, *arguments: str) -> str:
    """What git says; nothing where there is no git or no commit."""
    try:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""

"""The image in the registry that the next run works in: what it is called, since when it is there, what it lacks."""

from dataclasses import dataclass
from datetime import datetime

from infra.ops import door, figures
from infra.ops.command import said
from infra.ops.context import read_context
from infra.ops.errors import UserError
from infra.ops.stack import project_folder
from infra.outputs import Outputs


@dataclass(frozen=True)
class Pushed:
    name: str  # REPOSITORY@DIGEST, as a request names it
    tags: tuple[str, ...]
    when: datetime

    def described(self, before: str | None = None) -> str:
        """Tag and time, and what of your code is not in it; `before` is the image that the run was begun in."""
        told = f"{', '.join(self.tags) or self.name.partition('@')[2][:19]}, pushed {figures.clock(self.when)}"
        if before not in (None, self.name):
            told += "; the run was begun in another, and goes on in this one"
        if self.is_behind():
            told += "; your files, or BASE=, differ from it: `make image` builds them"
        return told

    def is_behind(self) -> bool:
        """Whether the files here are others; no where that cannot be told, as outside of a clone."""
        try:
            context = read_context(project_folder(), said("BASE") or "")
        except UserError:
            return False
        return bool(self.tags) and all(context.differs_from(tag) for tag in self.tags)


def look(outputs: Outputs) -> Pushed:
    """The stack's image. Raises UserError if there is none, or the registry no longer has it."""
    if not outputs.image_digest:
        raise UserError("the stack has no image yet, and machines start the run from it; `make image`")
    ecr = door.client("ecr", outputs.region)
    where = {"repositoryName": outputs.repository_url.partition("/")[2]}
    try:
        found = ecr.describe_images(**where, imageIds=[{"imageDigest": outputs.image_digest}])["imageDetails"][0]
    except (ecr.exceptions.ImageNotFoundException, ecr.exceptions.RepositoryNotFoundException):
        raise UserError(f"the registry no longer has the image {outputs.image_digest[:19]}; `make image`") from None
    name = f"{outputs.repository_url}@{outputs.image_digest}"
    return Pushed(name, tuple(found.get("imageTags", ())), found["imagePushedAt"])

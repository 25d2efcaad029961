"""make train: train on a GPU machine of your own. Says what it may cost, asks, starts the machine and the run."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

import yaml

from infra.ops import arrival, door, launch, record
from infra.ops.command import outputs_of, parser, run, said
from infra.ops.errors import UserError
from infra.outputs import Outputs

EXAMPLES = """
make train
make train SET="optim.lr=3e-4 data.batch=16" CAP=10 SPOT=1
make train CONFIG=my/recipe.yaml NAME=wider DRY=1
python -m infra.ops.train --config demo --hours 2 --yes --json
"""


def main(arguments: list[str] | None = None) -> int:
    made = parser("train", __doc__, EXAMPLES)
    made.add_argument(
        "--config",
        default=said("CONFIG") or "slowfast_face",
        help="a recipe: a YAML file of yours, or the name of one that comes along (CONFIG=; default: slowfast_face)",
    )
    made.add_argument("--set", default=said("SET") or "", help='what differs from it: "key=value key=value" (SET=)')
    made.add_argument("--manifest", default=said("MANIFEST") or "all", help="name of the data (MANIFEST=; all)")
    made.add_argument("--clips", default=said("CLIPS"), help="name of the prepared clips (CLIPS=; the manifest's)")
    made.add_argument("--name", default=said("NAME"), help="what the run's id ends with (NAME=; the recipe's name)")
    launch.add_options(made)
    given = made.parse_args(arguments)
    return run(lambda: train(given))


def train(given: argparse.Namespace) -> int:
    launch.check(given)
    settings = words(given.set)
    recipe, content = read_recipe(given.config, settings)
    request = what_is_asked(recipe, settings, given.manifest, given.clips or given.manifest)
    outputs = outputs_of(given.stack)
    image = launch.require_free(outputs)
    require(outputs, request)
    terms, group = launch.settle(outputs, given)
    run_id = record.new_run_id(given.name or Path(recipe).stem)
    if content is not None:
        request["config"] = record.key(run_id, "config.yaml")
    rows = (("data", data_of(request)), ("image", image.described()))
    if not launch.agreed(run_id, " ".join(["train", recipe, *settings]), terms, given, rows):
        return 0
    launch.begin(outputs, run_id, request, terms, group, content)
    return arrival.after(outputs, run_id, terms, group, given)


def words(text: str) -> list[str]:
    """Settings as the shell would part them, quotes and all. Raises UserError for what is no setting."""
    try:
        found = shlex.split(text)
    except ValueError as error:
        raise UserError(f"SET has {str(error).lower()}; for example SET='optim.lr=3e-4 data.batch=16'") from None
    for word in found:
        if "=" not in word or word.startswith(("-", "=")) or "\0" in word:
            raise UserError(f"{word!r} in SET is no setting; for example SET='optim.lr=3e-4 data.batch=16'")
    return found


def read_recipe(config: str, settings: list[str]) -> tuple[str, bytes | None]:
    """A recipe's file name and, unless it is one that comes along, its bytes; checked with its settings.

    Raises UserError: a typing mistake shall not cost the start of a machine.
    """
    # Both are quick to import, and bring no torch.
    from manifests.errors import UserError as WrongSetting
    from trainer.config import read_config

    path = Path(config if config.endswith((".yaml", ".yml")) else f"{config}.yaml")
    try:
        mine = path.is_file()
        if not mine and path.name != str(path):
            raise UserError(
                f"there is no file {config!r}; CONFIG= takes a YAML file, or slowfast_face, which comes along"
            )
        read_config(path, settings)
        return path.name, path.read_bytes() if mine else None
    except WrongSetting as error:
        raise UserError(str(error)) from None
    except yaml.YAMLError as error:
        raise UserError(f"a value in SET is not YAML: {' '.join(str(error).split())}; quote it") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{config!r} cannot be read as a recipe ({error}); CONFIG=slowfast_face comes along") from None


def what_is_asked(recipe: str, settings: list[str], manifest: str, clips: str) -> dict[str, Any]:
    """The request as far as it does not speak of money; infra/box/request.py tells its form."""
    return {
        "config": recipe,
        "manifest": manifest if "/" in manifest else f"manifests/{manifest}/manifest.csv",
        "clips": clips.rstrip("/") + "/" if "/" in clips else f"clips/{clips}/",
        "settings": settings,
    }


def data_of(request: dict[str, Any]) -> str:
    """`manifests/all, clips/all`: on what a run trains."""
    return f"{request['manifest'].removesuffix('/manifest.csv')}, {request['clips'].rstrip('/')}"


def require(outputs: Outputs, request: dict[str, Any]) -> None:
    """Raise UserError unless manifest and clips are in the bucket."""
    s3 = door.client("s3", outputs.region)
    beside = request["manifest"].removesuffix(".csv") + ".json"
    for key in (request["manifest"], beside):
        try:
            s3.head_object(Bucket=outputs.bucket, Key=key)
        except s3.exceptions.ClientError as error:
            if error.response["Error"]["Code"] != "404":
                raise
            raise UserError(f"s3://{outputs.bucket}/{key} is not there; `make manifest` makes it") from None
    found = s3.list_objects_v2(Bucket=outputs.bucket, Prefix=request["clips"], MaxKeys=2).get("Contents", ())
    if not [item for item in found if not item["Key"].endswith("/")]:
        raise UserError(f"s3://{outputs.bucket}/{request['clips']} holds no clips; `make prepare` makes them")


if __name__ == "__main__":
    sys.exit(main())

"""The settings as the Pulumi CLI hands them to the program.

A mistake is a `pulumi.RunError`, which the CLI prints as one sentence, before anything is made.
"""

import re

import pulumi

from infra.outputs import to_set
from infra.settings import Settings, check_settings


def read_settings(project: str, stack: str) -> Settings:
    """The settings of this run of the program, whole and consistent; raises pulumi.RunError otherwise."""
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,19}", stack):
        raise pulumi.RunError(
            f"the stack is named {stack!r}, but buckets and registries will bear the name, so it must be up to 20 "
            "small letters, digits and hyphens: `make up STACK=dev`"
        )
    given = pulumi.runtime.get_config_env()
    own = {key.partition(":")[2]: value for key, value in given.items() if key.partition(":")[0] == project}
    try:
        settings = check_settings(own, stack)
    except ValueError as error:
        raise pulumi.RunError(str(error)) from None
    if not settings.machine_image:
        raise pulumi.RunError(
            "machine_image is empty: `make up` pins the newest Deep Learning Base GPU image of your region by itself; "
            f"`{to_set(stack, 'machine_image=ami-...')}` takes another"
        )
    return settings

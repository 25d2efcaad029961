"""One label on everything: a resource that can bear tags gets the stack's, whoever declares it."""

from typing import Any

import pulumi


def tag_everything(tags: dict[str, str]) -> None:
    """Add `tags` to every resource declared from now on. What a machine's launch makes is labelled in its template."""

    def add(args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult | None:
        # Every class of the provider names all its properties; one that knows no tags has no such key. The group's are
        # a list, for each says whether machines inherit it; infra/machine.py gives them.
        props: dict[str, Any] = dict(args.props)
        own = props.get("tags", [])
        if isinstance(own, list):
            return None
        return pulumi.ResourceTransformationResult(props={**props, "tags": {**(own or {}), **tags}}, opts=args.opts)

    pulumi.runtime.register_stack_transformation(add)

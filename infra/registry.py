"""The registry of the trainer's image: tags never move, every image is scanned, old ones expire."""

import json

import pulumi_aws as aws

IMAGES_KEPT = 10


def make_repository(name: str) -> aws.ecr.Repository:
    repository = aws.ecr.Repository(
        name,
        name=name,
        image_tag_mutability="IMMUTABLE",
        image_scanning_configuration={"scan_on_push": True},
        encryption_configurations=[{"encryption_type": "AES256"}],
        # An image can be built again from its revision; only the bucket's content cannot.
        force_delete=True,
    )
    aws.ecr.LifecyclePolicy(name, repository=repository.name, policy=json.dumps(_expiry()))
    return repository


def _expiry() -> dict[str, object]:
    newest = {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": IMAGES_KEPT}
    rule = {"rulePriority": 1, "description": f"keep the newest {IMAGES_KEPT}", "selection": newest}
    return {"rules": [rule | {"action": {"type": "expire"}}]}

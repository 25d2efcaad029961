"""The bucket of corpora, clips, manifests, weights and runs: private, encrypted, versioned, and kept.

It is the only part of the stack that `destroy` leaves behind, its protection included, and a later `up` takes it up
again by its tags (infra/account.py).
"""

import json

import pulumi
import pulumi_aws as aws

from infra import policies

# AWS counts from the upload; an object in infrequent access costs for 30 days at least and for each gigabyte read.
CLIPS_REST_AFTER_DAYS = 60
OLD_VERSIONS_DAYS = 30
STALE_UPLOADS_DAYS = 3


def make_bucket(name: str, taken_up: str | None, keep: bool) -> aws.s3.Bucket:
    """Make the bucket, or take up the one named `taken_up`; `keep` leaves it, and all that is in it, at `destroy`."""
    kept = pulumi.ResourceOptions(retain_on_delete=keep)
    # An import demands inputs equal to what is there: tags that the user added are his, and force_destroy is no
    # property of the bucket in AWS.
    found = pulumi.ResourceOptions(import_=taken_up, ignore_changes=["tags", "force_destroy"] if keep else ["tags"])
    bucket = aws.s3.Bucket(
        name,
        bucket=taken_up,
        force_destroy=None if keep else True,
        opts=pulumi.ResourceOptions.merge(kept, found if taken_up else None),
    )
    aws.s3.BucketVersioning(name, bucket=bucket.bucket, versioning_configuration={"status": "Enabled"}, opts=kept)
    aws.s3.BucketServerSideEncryptionConfiguration(
        name,
        bucket=bucket.bucket,
        rules=[{"apply_server_side_encryption_by_default": {"sse_algorithm": "AES256"}}],
        opts=kept,
    )
    block = aws.s3.BucketPublicAccessBlock(
        name,
        bucket=bucket.bucket,
        block_public_acls=True,
        block_public_policy=True,
        ignore_public_acls=True,
        restrict_public_buckets=True,
        opts=kept,
    )
    aws.s3.BucketPolicy(
        name,
        bucket=bucket.bucket,
        policy=bucket.arn.apply(lambda arn: json.dumps(policies.tls_only(arn))),
        opts=pulumi.ResourceOptions.merge(kept, pulumi.ResourceOptions(depends_on=[block])),
    )
    aws.s3.BucketLifecycleConfiguration(name, bucket=bucket.bucket, rules=_lifecycle(), opts=kept)
    return bucket


def _lifecycle() -> list[aws.s3.BucketLifecycleConfigurationRuleArgsDict]:
    return [
        {
            "id": "drop-stale-uploads",
            "status": "Enabled",
            "filter": {"prefix": ""},
            "abort_incomplete_multipart_upload": {"days_after_initiation": STALE_UPLOADS_DAYS},
        },
        {
            "id": "drop-old-versions",
            "status": "Enabled",
            "filter": {"prefix": ""},
            "noncurrent_version_expiration": {"noncurrent_days": OLD_VERSIONS_DAYS},
            "expiration": {"expired_object_delete_marker": True},
        },
        {
            "id": "clips-to-infrequent-access",
            "status": "Enabled",
            "filter": {"prefix": "clips/"},
            "transitions": [{"days": CLIPS_REST_AFTER_DAYS, "storage_class": "STANDARD_IA"}],
        },
    ]

"""What the bucket holds and what that costs a month: the only thing that costs money while no machine runs."""

from datetime import UTC, datetime, timedelta

from infra.costs import BUCKET_GB_MONTH, RESTING_GB_MONTH
from infra.ops.door import client

GIB = 2**30
# Dollars per GiB and month in us-east-1; other regions up to 1.8 times.
DOLLARS = {"StandardStorage": BUCKET_GB_MONTH, "StandardIAStorage": RESTING_GB_MONTH}
PAGES = 50  # of 1,000 versions each: a listing stops there


def monthly_dollars(stored: dict[str, int]) -> float:
    """What `stored`, bytes by storage class, costs a month at the list price of us-east-1."""
    return sum(DOLLARS[name] * size / GIB for name, size in stored.items())


def describe(stored: dict[str, int], whole: bool = True) -> str:
    """`12.3 GiB, about $0.28 a month`; at least so much if the listing was cut short."""
    size, dollars = sum(stored.values()) / GIB, monthly_dollars(stored)
    return f"{'' if whole else 'at least '}{size:.1f} GiB, about ${dollars:.2f} a month"


def measure(bucket: str, region: str) -> tuple[dict[str, int], bool]:
    """Bytes in a bucket by storage class, old versions included, and whether that is all of it.

    CloudWatch knows it in one call, up to two days late; a bucket that is younger is listed.
    """
    return (known, True) if (known := _metric(bucket, region)) else _listing(bucket, region)


def _metric(bucket: str, region: str) -> dict[str, int]:
    now = datetime.now(UTC)
    queries = [
        {
            "Id": name[0].lower() + name[1:],
            "MetricStat": {
                "Metric": {
                    "Namespace": "AWS/S3",
                    "MetricName": "BucketSizeBytes",
                    "Dimensions": [
                        {"Name": "BucketName", "Value": bucket},
                        {"Name": "StorageType", "Value": name},
                    ],
                },
                "Period": 86400,
                "Stat": "Average",
            },
        }
        for name in DOLLARS
    ]
    answer = client("cloudwatch", region).get_metric_data(
        MetricDataQueries=queries, StartTime=now - timedelta(days=3), EndTime=now, ScanBy="TimestampDescending"
    )
    latest = {found["Id"].lower(): found["Values"][0] for found in answer["MetricDataResults"] if found["Values"]}
    return {name: int(latest[name.lower()]) for name in DOLLARS if name.lower() in latest}


def _listing(bucket: str, region: str) -> tuple[dict[str, int], bool]:
    stored = dict.fromkeys(DOLLARS, 0)
    pages = client("s3", region).get_paginator("list_object_versions").paginate(Bucket=bucket)
    for number, page in enumerate(pages, start=1):
        for version in page.get("Versions", []):
            rarely = version.get("StorageClass") == "STANDARD_IA"
            stored["StandardIAStorage" if rarely else "StandardStorage"] += version["Size"]
        if number == PAGES and page["IsTruncated"]:
            return stored, False
    return stored, True

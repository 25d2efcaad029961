"""What the verbs need, one look each: good, or what is wrong and its cure. `doctor` shows all, `up` asks for some."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial

from infra.ops import capacity, door
from infra.ops.errors import UserError
from infra.ops.stack import INSTALL, Settings
from infra.outputs import Outputs, to_set

# AWS publishes the newest Deep Learning Base GPU image of a region under one of these names.
MACHINE_IMAGES = [
    f"/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-{gpu}ubuntu-{release}/latest/ami-id"
    for release in ("22.04", "24.04")
    for gpu in ("gpu-", "")
]
SPOT_ROLE = "AWSServiceRoleForEC2Spot"


@dataclass(frozen=True)
class Check:
    name: str
    ok: bool
    detail: str
    cure: str = ""
    needed: bool = True  # False: good to have, or there is another way


def tools() -> Iterator[Check]:
    """The programs of this machine."""
    yield _program("Pulumi CLI", ["pulumi", "version"], INSTALL)
    yield _program(
        "Docker",
        ["docker", "info", "--format", "{{.ServerVersion}}"],
        "start Docker, or let AWS build the image: `make image WHERE=aws`",
        needed=False,
    )
    yield _program(
        "session-manager-plugin",
        ["session-manager-plugin", "--version"],
        "only `make shell` and `make attach` need it: "
        "https://docs.aws.amazon.com/systems-manager/latest/userguide/session-manager-working-with-install-plugin.html",
        needed=False,
    )
    yield _program(
        "AWS CLI",
        ["aws", "--version"],
        "some cures are commands of it: https://docs.aws.amazon.com/cli/latest/userguide/getting-started-install.html",
        needed=False,
    )


def way_in(settings: Settings) -> Iterator[Check]:
    """Region and credentials; ends at the first cross, since nothing further can be looked at."""
    for name, look in (("region", region), ("credentials", credentials)):
        check = guarded(name, partial(look, settings))
        yield check
        if not check.ok:
            return


def credentials(settings: Settings) -> Check:
    # STS answers in any region; without one it is the sign-in alone that is looked at.
    who = door.client("sts", settings.region or "us-east-1").get_caller_identity()
    return Check("credentials", True, f"{who['Arn']} of account {who['Account']}")


def region(settings: Settings) -> Check:
    if settings.region is None:
        cure = f"{to_set(settings.stack, 'aws:region=us-east-1')} (or AWS_REGION)"
        return Check("region", False, "none is set", cure)
    return Check("region", True, settings.region)


def offerings(settings: Settings) -> Check:
    assert settings.region
    offers = _offers(settings.region, settings.instance_types, "availability-zone")
    zones = capacity.zones_by_type(settings.instance_types, offers)
    verdict = capacity.judge_offerings(zones, settings.region)
    sold = ",".join(name for name, found in zones.items() if found)
    change = to_set(settings.stack, f"instance_types={sold}")
    other = change if sold else "choose another region or other instance_types"
    return Check("instance types", verdict.ok, verdict.detail, "" if verdict.ok else other)


def quota(where: str, types: tuple[str, ...], nodes: int, market: str) -> Check:
    vcpus = _vcpus(where, types)
    codes = {code for name in vcpus if (code := capacity.quota_code(name, market))}
    service = door.client("service-quotas", where)
    limits = {
        code: service.get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"] for code in sorted(codes)
    }
    verdict = capacity.judge_quota(market, limits, vcpus, nodes)
    return Check(f"vCPU quota, {market}", verdict.ok, verdict.detail, _ask_for(verdict, where))


def quotas(settings: Settings) -> Iterator[Check]:
    """One for each market that the settings use."""
    assert settings.region
    for market in capacity.MARKETS[settings.market]:
        look = partial(quota, settings.region, settings.instance_types, settings.nodes, market)
        yield guarded(f"vCPU quota, {market}", look)


def require_room(outputs: Outputs, market: str, nodes: int) -> None:
    """Raise UserError, with the request to make, if the quota of each of a stack's markets is too small for a run."""
    looks = [quota(outputs.region, outputs.instance_types, nodes, name) for name in capacity.MARKETS[market]]
    if all(look.cure for look in looks):  # where no quota is known, AWS may well have room
        told = ", ".join(f"{look.name}: {look.detail}" for look in looks)
        raise UserError(f"AWS would start no machine ({told}); ask for more, it takes hours to days: {looks[-1].cure}")


def spot_role(settings: Settings) -> Check:
    """Spot machines need a role that EC2 owns; the first one asked for makes it, where one may make roles."""
    assert settings.region
    iam = door.client("iam", settings.region)
    try:
        iam.get_role(RoleName=SPOT_ROLE)
    except iam.exceptions.NoSuchEntityException:
        cure = "aws iam create-service-linked-role --aws-service-name spot.amazonaws.com"
        return Check("role for spot", False, f"no {SPOT_ROLE} yet; AWS makes it with the first one", cure, needed=False)
    return Check("role for spot", True, SPOT_ROLE, needed=False)


def newest_machine_image(where: str) -> str | None:
    """The newest Deep Learning Base GPU image of a region, or None if AWS publishes none there."""
    found = door.client("ssm", where).get_parameters(Names=MACHINE_IMAGES)["Parameters"]
    values = {row["Name"]: row["Value"] for row in found}
    return next((values[name] for name in MACHINE_IMAGES if name in values), None)


def machine_image(settings: Settings) -> Check:
    assert settings.region
    newest, stack = newest_machine_image(settings.region), settings.stack
    if not settings.machine_image and newest:
        return Check("machine image", True, f"{newest}, the newest; `make up` pins it")
    own = to_set(stack, "machine_image=ami-...") + " (an image with the NVIDIA driver, Docker and the AWS CLI)"
    cure = to_set(stack, f"machine_image={newest}") if newest else own
    if not settings.machine_image:
        return Check("machine image", False, f"{settings.region} publishes no Deep Learning image", cure)
    ec2 = door.client("ec2", settings.region)
    rows = ec2.describe_images(Filters=[{"Name": "image-id", "Values": [settings.machine_image]}])["Images"]
    if not rows:
        return Check("machine image", False, f"{settings.region} has no {settings.machine_image}", cure)
    return Check("machine image", True, f"{settings.machine_image}, {rows[0].get('Name', 'without a name')}")


def bucket(outputs: Outputs) -> Check:
    s3 = door.client("s3", outputs.region)
    try:
        s3.head_bucket(Bucket=outputs.bucket)
    except s3.exceptions.ClientError as error:
        if error.response["Error"]["Code"] not in ("404", "NoSuchBucket"):
            raise
        return Check("bucket", False, f"{outputs.bucket} is gone", "make up")
    return Check("bucket", True, outputs.bucket)


def image(outputs: Outputs) -> Check:
    if not outputs.image_digest:
        return Check("image", False, "none is pushed yet", "make image")
    if not image_is_there(outputs):
        return Check("image", False, f"the registry no longer has {outputs.image_digest[:19]}", "make image")
    return Check("image", True, f"{outputs.repository_url.partition('/')[2]} {outputs.image_digest[:19]}")


def image_is_there(outputs: Outputs) -> bool:
    """Whether the registry has the image that the stack's machines are to pull; one call, which operators may make."""
    ecr = door.client("ecr", outputs.region)
    repository = outputs.repository_url.partition("/")[2]
    try:
        ecr.describe_images(repositoryName=repository, imageIds=[{"imageDigest": outputs.image_digest}])
    except (ecr.exceptions.ImageNotFoundException, ecr.exceptions.RepositoryNotFoundException):
        return False
    return True


def data(outputs: Outputs) -> Check:
    s3 = door.client("s3", outputs.region)
    for prefix, what in (("clips/", "prepared clips"), ("data/", "raw videos")):
        if s3.list_objects_v2(Bucket=outputs.bucket, Prefix=prefix, MaxKeys=1)["KeyCount"]:
            return Check("data", True, f"{what} are in s3://{outputs.bucket}/{prefix}")
    return Check("data", False, f"s3://{outputs.bucket} has no videos", "make data SRC=DIR")


def warnings(outputs: Outputs) -> Check:
    """Whether somebody hears of warnings and ends of runs; an address that has not confirmed hears nothing."""
    pages = door.client("sns", outputs.region).get_paginator("list_subscriptions_by_topic")
    found = [row for page in pages.paginate(TopicArn=outputs.topic) for row in page["Subscriptions"]]
    hearing = [row["Endpoint"] for row in found if row["SubscriptionArn"].startswith("arn:")]
    if hearing:
        return Check("warnings", True, f"{', '.join(hearing)} hears of them", needed=False)
    if found:
        detail, cure = f"{found[0]['Endpoint']} has not confirmed", "say yes to the message that AWS has sent there"
    else:
        detail, cure = "nobody hears of warnings", to_set(outputs.stack, "email=you@example.org")
    return Check("warnings", False, detail, cure, needed=False)


def guarded(name: str, look: Callable[[], Check], needed: bool = True) -> Check:
    """A check that cannot be made is a cross with the reason, so that the others are made all the same."""
    try:
        return look()
    except UserError as error:
        told = str(error)
    except Exception as error:
        if (sentence := door.sentence(error)) is None:
            raise
        told = sentence
    detail, _, cure = told.rpartition("; ")
    return Check(name, False, detail, cure, needed)


def _program(name: str, line: list[str], cure: str, needed: bool = True) -> Check:
    path = shutil.which(line[0])
    if path is None:
        return Check(name, False, f"{line[0]} is not on the PATH", cure, needed)
    try:
        answer = subprocess.run([path, *line[1:]], capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return Check(name, False, f"`{' '.join(line)}` does not answer", cure, needed)
    said = (answer.stdout.strip() or answer.stderr.strip()).splitlines()
    good = answer.returncode == 0
    return Check(name, good, said[-1] if said else "", "" if good else cure, needed)


def _offers(where: str, types: tuple[str, ...], by: str) -> list[dict[str, str]]:
    ec2 = door.client("ec2", where)
    wanted = [{"Name": "instance-type", "Values": list(types)}]
    pages = ec2.get_paginator("describe_instance_type_offerings").paginate(LocationType=by, Filters=wanted)
    return [offer for page in pages for offer in page["InstanceTypeOfferings"]]


@cache
def _vcpus(where: str, types: tuple[str, ...]) -> dict[str, int]:
    """vCPUs of one machine by type, for those types that the region knows, in order of preference."""
    sold = {offer["InstanceType"] for offer in _offers(where, types, "region")}
    asked = [name for name in types if name in sold]
    ec2 = door.client("ec2", where)
    rows = ec2.describe_instance_types(InstanceTypes=asked)["InstanceTypes"] if asked else []
    known = {row["InstanceType"]: row["VCpuInfo"]["DefaultVCpus"] for row in rows}
    return {name: known[name] for name in asked}


def _ask_for(verdict: capacity.Verdict, where: str) -> str:
    if verdict.ok or verdict.ask is None:
        return ""
    code, needed = verdict.ask
    return (
        f"aws service-quotas request-service-quota-increase --service-code ec2 --quota-code {code} "
        f"--desired-value {needed} --region {where}"
    )

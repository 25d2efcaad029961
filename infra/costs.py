"""What each part of the stack costs: per hour and month while no run is on, and while one is. The one table of prices.

List prices in US dollars of us-east-1, as of 2025, written down from memory and not looked up: check them
against https://aws.amazon.com/pricing before you rely on them. `make train` asks AWS for the price of a machine, and
takes this table's only where AWS is silent. This module imports no pulumi.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infra.recording import Declared, Recording

REGION_AND_DATE = "us-east-1, list prices of 2025 from memory, to be checked"
HOURS_A_MONTH = 730
MACHINE_HOUR = {  # of Linux machines on demand
    "g4dn.xlarge": 0.526,
    "g4dn.2xlarge": 0.752,
    "g4dn.4xlarge": 1.204,
    "g4dn.12xlarge": 3.912,
    "g5.xlarge": 1.006,
    "g5.2xlarge": 1.212,
    "g5.4xlarge": 1.624,
    "g5.12xlarge": 5.672,
    "g5.48xlarge": 16.288,
    "g6.xlarge": 0.8048,
    "g6.2xlarge": 0.9776,
    "g6.4xlarge": 1.3232,
    "g6.12xlarge": 4.6016,
    "g6.48xlarge": 13.3504,
    "g6e.xlarge": 1.861,
    "g6e.2xlarge": 2.2421,
}
DISK_GB_MONTH = 0.08
ADDRESS_HOUR = 0.005
ENDPOINT_HOUR = 0.01
BUCKET_GB_MONTH = 0.023
RESTING_GB_MONTH = 0.0125
REGISTRY_GB_MONTH = 0.10
LOG_GB = 0.50
ALARM_MONTH = 0.10
BUILD_MINUTE = 0.01  # of infra/builder.py's COMPUTE
# What the idle figures suppose to be stored.
DATA_GB = 10
IMAGE_GB = 4
# Endpoints of private subnets (infra/network.py), and one more for several machines.
ENDPOINTS = 8

# Parts without any charge of their own at the size of one stack, by the type's last word.
FREE = {
    *("BucketVersioning", "BucketServerSideEncryptionConfiguration", "BucketPublicAccessBlock", "BucketPolicy"),
    *("BucketLifecycleConfiguration", "LifecyclePolicy", "Topic", "TopicPolicy", "TopicSubscription", "Budget"),
    *("Vpc", "Subnet", "RouteTable", "RouteTableAssociation", "Route", "InternetGateway", "DefaultSecurityGroup"),
    *("SecurityGroup", "SecurityGroupIngressRule", "SecurityGroupEgressRule", "PlacementGroup", "LaunchTemplate"),
    *("Role", "RolePolicy", "RolePolicyAttachment", "UserPolicyAttachment", "InstanceProfile", "Policy"),
    *("Document", "EventRule", "EventTarget", "Parameter"),
}


@dataclass(frozen=True)
class Cost:
    part: str
    month: float  # dollars while no run is on
    in_use: str

    @property
    def hour(self) -> float:
        return self.month / HOURS_A_MONTH


def cost_of(resource: "Declared") -> Cost | None:
    """What one part costs, None for nothing; raises KeyError for a type that nobody has looked at."""
    match resource.type.rpartition(":")[2]:
        case "Bucket":
            return Cost(
                f"bucket with {DATA_GB} GB",
                DATA_GB * BUCKET_GB_MONTH,
                f"${BUCKET_GB_MONTH} per GB and month, ${RESTING_GB_MONTH} for clips that rest",
            )
        case "Repository":
            return Cost(
                f"registry with one image of {IMAGE_GB} GB",
                IMAGE_GB * REGISTRY_GB_MONTH,
                f"${REGISTRY_GB_MONTH:.2f} per GB and month",
            )
        case "LogGroup":
            return Cost("log", 0, f"${LOG_GB:.2f} per GB written")
        case "MetricAlarm":
            return Cost("idle alarm", ALARM_MONTH, "the same; an account's first ten are free")
        case "Project":
            return Cost("image builder", 0, f"${BUILD_MINUTE:.2f} per minute that it builds")
        case "Group":
            return Cost("machines, each", 0, _machine(resource))
        case "VpcEndpoint" if resource.inputs["vpcEndpointType"] == "Interface":
            service = resource.inputs["serviceName"].split(".", 3)[3]
            return Cost(f"endpoint of {service}", ENDPOINT_HOUR * HOURS_A_MONTH, "the same, and $0.01 per GB")
        case "VpcEndpoint":
            return None  # the gateway to S3
        case kind if kind in FREE:
            return None
        case kind:
            raise KeyError(kind)


def _machine(group: "Declared") -> str:
    overrides = group.inputs["mixedInstancesPolicy"]["launchTemplate"]["overrides"]
    names = [override["instanceType"] for override in overrides]
    prices = ", ".join(f"{name} ${MACHINE_HOUR[name]:.2f}" for name in names)
    return f"{prices} an hour on demand; on the spot market usually a third to two thirds of it"


def disk_and_address_hour(volume_gb: int, public: bool) -> float:
    """Dollars an hour for what every running machine has besides itself."""
    return volume_gb * DISK_GB_MONTH / HOURS_A_MONTH + (ADDRESS_HOUR if public else 0)


def idle_month(recording: "Recording") -> float:
    """Dollars a month of a stack on which nobody trains."""
    return sum(cost.month for resource in recording.resources if (cost := cost_of(resource)))


def idle_month_of(private: bool, nodes: int) -> float:
    """The same from the two settings that it hangs on, for whoever has no recording."""
    endpoints = (ENDPOINTS + (nodes > 1)) * private
    hourly = endpoints * ENDPOINT_HOUR * HOURS_A_MONTH
    return DATA_GB * BUCKET_GB_MONTH + IMAGE_GB * REGISTRY_GB_MONTH + ALARM_MONTH + hourly


def cost_table(recording: "Recording") -> str:
    """The parts that cost, as a Markdown table, with what `destroy` leaves of them."""
    rows = ["| part | idle, per hour | idle, per month | in use | after destroy |", "|---|---|---|---|---|"]
    for resource in sorted(recording.resources, key=lambda resource: (resource.module, resource.name)):
        if cost := cost_of(resource):
            left = "stays, and costs the same" if resource.kept else "gone"
            rows.append(f"| {cost.part} | ${cost.hour:.4f} | ${cost.month:.2f} | {cost.in_use} | {left} |")
    total = idle_month(recording)
    rows.append(f"| **all** | **${total / HOURS_A_MONTH:.4f}** | **${total:.2f}** | | |")
    return "\n".join(rows)

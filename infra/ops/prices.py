"""What machines cost: AWS's own price lists, and the arithmetic from a cap in dollars to a deadline.

Spot prices are those of the moment, by zone; on-demand ones come from the price list, which lives in us-east-1 whatever
the region. Where that is silent the table of infra/costs.py speaks, and it is said so.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from infra.costs import MACHINE_HOUR, REGION_AND_DATE
from infra.ops.door import client
from infra.ops.errors import UserError

PRICE_LIST_REGION = "us-east-1"
TO_SAVE = timedelta(minutes=10)  # before AWS takes its machine a run ends by itself, saves and uploads


@dataclass(frozen=True)
class Offer:
    """One machine at a price; a `zone` of its own on the spot market only."""

    type: str
    market: str  # spot or on-demand
    price: float  # dollars an hour
    zone: str = ""
    source: str = ""  # where the price is from, if not from AWS now


def on_demand(types: Iterable[str], region: str) -> list[Offer]:
    """The list price of each type. Raises UserError for a type that neither AWS nor the table knows a price of."""
    return [_listed(name, region) for name in types]


def spot(types: Iterable[str], region: str, zones: Iterable[str] = ()) -> list[Offer]:
    """Today's spot price of each type in each of the zones (all, if none is named) that has it, cheapest first."""
    wanted = set(zones)
    pages = client("ec2", region).get_paginator("describe_spot_price_history")
    found: dict[tuple[str, str], Offer] = {}
    # From now on: the prices that hold now, newest first if one is just changing.
    for page in pages.paginate(
        InstanceTypes=list(types), ProductDescriptions=["Linux/UNIX"], StartTime=datetime.now(UTC)
    ):
        for row in page["SpotPriceHistory"]:
            name, zone = row["InstanceType"], row["AvailabilityZone"]
            if not wanted or zone in wanted:
                found.setdefault((name, zone), Offer(name, "spot", float(row["SpotPrice"]), zone))
    return sorted(found.values(), key=lambda offer: (offer.price, offer.type, offer.zone))


def hours_for(dollars: float, price: float, nodes: int) -> float:
    """How long `nodes` machines may run for so many dollars."""
    return dollars / (price * nodes)


def cost_of(hours: float, price: float, nodes: int) -> float:
    """What `nodes` machines cost in so many hours."""
    return hours * price * nodes


def deadline(now: datetime, hours: float, dollars: float, price: float, nodes: int) -> datetime:
    """When machines are taken away: after `hours`, or when `dollars` are spent, whichever is earlier."""
    until = now + timedelta(hours=min(hours, hours_for(dollars, price, nodes)))
    return until.replace(microsecond=0)


@dataclass(frozen=True)
class Terms:
    """What a run may have and cost."""

    nodes: int
    offers: tuple[Offer, ...]  # any of these may come
    instead: tuple[Offer, ...]  # and these where AWS has none of the others; empty: wait
    cap: float  # dollars, on all machines of the run together
    spent: float  # dollars of it that earlier goes have cost
    limit: float  # hours at most

    @property
    def market(self) -> str:
        return self.offers[0].market

    @property
    def price(self) -> float:
        """Dollars an hour of one machine: the dearest that may come, so that the cap holds whichever does."""
        return max(offer.price for offer in self.offers)

    @property
    def hours(self) -> float:
        return min(self.limit, hours_for(self.cap - self.spent, self.price, self.nodes))

    @property
    def most(self) -> float:
        """Dollars that this go costs if it lasts until its deadline."""
        return cost_of(self.hours, self.price, self.nodes)

    def deadline(self, now: datetime) -> datetime:
        """When AWS takes the machines away; the run itself ends earlier by what it needs to save."""
        return deadline(now, self.limit, self.cap - self.spent, self.price, self.nodes)

    def request(self, now: datetime) -> dict[str, Any]:
        """What of them stands in the run's request (infra/box/request.py)."""
        return {
            "nodes": self.nodes,
            "deadline": (self.deadline(now) - TO_SAVE).isoformat(),
            "cap_dollars": self.cap,
            "price_per_hour": self.price,
            "prices": {f"{offer.type} {offer.zone}".strip(): offer.price for offer in self.offers},
        }

    def without_spot(self) -> "Terms":
        return replace(self, offers=self.instead, instead=())


def read_list_price(product: str | dict[str, Any]) -> float:
    """Dollars an hour in one product of the price list: on demand, not reserved."""
    tree = json.loads(product) if isinstance(product, str) else product
    (term,) = tree["terms"]["OnDemand"].values()
    (dimension,) = term["priceDimensions"].values()
    return float(dimension["pricePerUnit"]["USD"])


def _listed(name: str, region: str) -> Offer:
    if (price := _ask(name, region)) is not None:
        return Offer(name, "on-demand", price)
    if name not in MACHINE_HOUR:
        raise UserError(
            f"neither AWS nor this project knows what {name} costs in {region}, so no cap can hold; "
            f"`make set SET=instance_types=TYPE,TYPE` takes others, such as {', '.join(list(MACHINE_HOUR)[:3])}"
        )
    return Offer(name, "on-demand", MACHINE_HOUR[name], source=REGION_AND_DATE)


def _ask(name: str, region: str) -> float | None:
    """What the price list says of a type, None if it is silent: it is a courtesy, and no reason to fail."""
    service = client("pricing", PRICE_LIST_REGION)
    wanted = {
        "instanceType": name,
        "regionCode": region,
        "operatingSystem": "Linux",
        "preInstalledSw": "NA",
        "tenancy": "Shared",
        "capacitystatus": "Used",
    }
    filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in wanted.items()]
    try:
        found = service.get_products(ServiceCode="AmazonEC2", Filters=filters, MaxResults=1)["PriceList"]
        price = read_list_price(found[0]) if found else 0.0
    except (service.exceptions.ClientError, KeyError, ValueError):
        return None
    return price or None

"""Whether the account may run the machines that the settings ask for: quotas and offerings, as pure functions.

EC2 counts vCPUs per family of types and per market, each with its own quota
(https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MARKETS = {"spot": ("spot",), "on-demand": ("on-demand",), "spot-then-on-demand": ("spot", "on-demand")}
QUOTA_CODES = {
    ("G and VT", "on-demand"): "L-DB2E81BA",
    ("G and VT", "spot"): "L-3819A6DF",
    ("P", "on-demand"): "L-417A185B",
    ("P", "spot"): "L-7212CCBC",
    ("Standard", "on-demand"): "L-1216C47A",
    ("Standard", "spot"): "L-34B43A08",
}
FAMILIES = {
    **dict.fromkeys(("g", "gr", "vt"), "G and VT"),
    "p": "P",
    **dict.fromkeys(("a", "c", "d", "h", "i", "im", "is", "m", "r", "t", "z"), "Standard"),
}


@dataclass(frozen=True)
class Verdict:
    """Whether one market has room, in words, and what to ask AWS for if not: (quota code, vCPUs)."""

    ok: bool
    detail: str
    ask: tuple[str, int] | None = None


def quota_code(instance_type: str, market: str) -> str | None:
    """The quota that counts a type's vCPUs in a market, or None if this table does not know the family."""
    match = re.match(r"([a-z]+)(\d+)", instance_type)
    family = FAMILIES.get(match[1]) if match else None
    # The spot quota of P covers P2 to P4; the later ones each have their own.
    if match is None or family is None or ((family, market) == ("P", "spot") and int(match[2]) > 4):
        return None
    return QUOTA_CODES[family, market]


def judge_quota(market: str, limits: Mapping[str, float], vcpus: Mapping[str, int], nodes: int) -> Verdict:
    """Whether `nodes` machines of at least one type fit.

    `limits`: vCPUs by quota code; `vcpus`: those of one machine by type, in order of preference.
    """
    fits, short, unknown = [], [], []
    for name, each in vcpus.items():
        code = quota_code(name, market)
        if code is None:
            unknown.append(name)
        elif limits[code] >= each * nodes:
            fits.append(name)
        else:
            short.append((code, each * nodes, name))
    if fits:
        rest = [name for _, _, name in short]
        return Verdict(True, f"room for {nodes} x {', '.join(fits)}" + (f", not for {', '.join(rest)}" if rest else ""))
    if short:
        code, needed, name = min(short, key=lambda item: item[1])
        return Verdict(
            False, f"{limits[code]:g} vCPUs allowed, {needed} needed for {nodes} x {name}", ask=(code, needed)
        )
    return Verdict(False, f"no quota is known for {', '.join(unknown) or 'any of the types'}")


def zones_by_type(types: Iterable[str], offerings: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Zones that offer each type, in the order asked; `offerings` as DescribeInstanceTypeOfferings lists them."""
    zones: dict[str, list[str]] = {name: [] for name in types}
    for offer in offerings:
        if offer["InstanceType"] in zones:
            zones[offer["InstanceType"]].append(offer["Location"])
    return {name: sorted(found) for name, found in zones.items()}


def judge_offerings(zones: Mapping[str, list[str]], region: str) -> Verdict:
    """Every type must be sold in some zone of the region; the program refuses a stack otherwise.

    In words zone us-east-1a is `a`.
    """
    short = {name: " ".join(zone.removeprefix(region) for zone in found) for name, found in zones.items()}
    words = "; ".join(f"{name} in {found}" if found else f"{name} nowhere" for name, found in short.items())
    return Verdict(bool(zones) and all(zones.values()), words or "no type is set")

"""Quotas, offerings and prices as pure functions. Run: pytest tests/test_ops_capacity.py"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.ops.capacity import MARKETS, judge_offerings, judge_quota, quota_code, zones_by_type
from infra.ops.storage import GIB, describe, monthly_dollars

VCPUS = {"g6.xlarge": 4, "g5.2xlarge": 8, "g4dn.12xlarge": 48}


@pytest.mark.parametrize(
    ("instance_type", "market", "code"),
    [
        ("g6.xlarge", "on-demand", "L-DB2E81BA"),
        ("g4dn.xlarge", "spot", "L-3819A6DF"),
        ("gr6.4xlarge", "spot", "L-3819A6DF"),
        ("vt1.3xlarge", "on-demand", "L-DB2E81BA"),
        ("p4d.24xlarge", "on-demand", "L-417A185B"),
        ("p3.2xlarge", "spot", "L-7212CCBC"),
        ("c7i.8xlarge", "on-demand", "L-1216C47A"),
        ("p5.48xlarge", "spot", None),
        ("trn1.2xlarge", "on-demand", None),
        ("inf2.xlarge", "spot", None),
        ("u-6tb1.metal", "on-demand", None),
    ],
)
def test_a_type_is_counted_by_its_familys_quota(instance_type: str, market: str, code: str | None) -> None:
    assert quota_code(instance_type, market) == code


def test_room_for_one_of_the_types_is_enough_and_the_others_are_named() -> None:
    verdict = judge_quota("spot", {"L-3819A6DF": 8}, VCPUS, nodes=1)
    assert verdict.ok
    assert verdict.detail == "room for 1 x g6.xlarge, g5.2xlarge, not for g4dn.12xlarge"
    assert verdict.ask is None


def test_a_quota_of_nothing_asks_for_as_much_as_the_smallest_type_needs() -> None:
    verdict = judge_quota("on-demand", {"L-DB2E81BA": 0}, VCPUS, nodes=4)
    assert not verdict.ok
    assert verdict.detail == "0 vCPUs allowed, 16 needed for 4 x g6.xlarge"
    assert verdict.ask == ("L-DB2E81BA", 16)


def test_types_without_a_known_quota_are_no_room() -> None:
    verdict = judge_quota("spot", {}, {"trn1.2xlarge": 8}, nodes=1)
    assert (verdict.ok, verdict.detail) == (False, "no quota is known for trn1.2xlarge")


@given(
    limit=st.integers(0, 400),
    nodes=st.integers(1, 16),
    vcpus=st.dictionaries(st.sampled_from(list(VCPUS)), st.sampled_from([4, 8, 48]), min_size=1),
    market=st.sampled_from(["spot", "on-demand"]),
)
def test_a_verdict_holds_what_it_says(limit: int, nodes: int, vcpus: dict[str, int], market: str) -> None:
    limits = dict.fromkeys(("L-DB2E81BA", "L-3819A6DF"), float(limit))
    verdict = judge_quota(market, limits, vcpus, nodes)
    assert verdict.ok == (limit >= nodes * min(vcpus.values()))
    assert (verdict.ask is None) == verdict.ok
    if verdict.ask:
        granted = judge_quota(market, {verdict.ask[0]: verdict.ask[1]}, vcpus, nodes)
        assert granted.ok  # what it tells you to ask for is enough


def test_every_market_of_the_settings_is_judged() -> None:
    assert MARKETS == {
        "spot": ("spot",),
        "on-demand": ("on-demand",),
        "spot-then-on-demand": ("spot", "on-demand"),
    }


def test_offerings_are_told_by_type_and_zone_and_one_sold_nowhere_is_a_cross() -> None:
    rows = [
        {"InstanceType": "g6.xlarge", "Location": "us-east-1b"},
        {"InstanceType": "g6.xlarge", "Location": "us-east-1a"},
        {"InstanceType": "m5.large", "Location": "us-east-1a"},
    ]
    zones = zones_by_type(["g6.xlarge", "g5.xlarge"], rows)
    assert zones == {"g6.xlarge": ["us-east-1a", "us-east-1b"], "g5.xlarge": []}
    verdict = judge_offerings(zones, "us-east-1")
    assert (verdict.ok, verdict.detail) == (False, "g6.xlarge in a b; g5.xlarge nowhere")
    assert judge_offerings({"g6.xlarge": ["us-east-1a"]}, "us-east-1").ok


def test_what_the_bucket_costs_is_its_size_at_each_classs_price() -> None:
    assert monthly_dollars({"StandardStorage": 100 * GIB, "StandardIAStorage": 200 * GIB}) == pytest.approx(4.8)
    assert monthly_dollars({}) == 0
    stored = {"StandardStorage": 25 * GIB, "StandardIAStorage": 0}
    assert describe(stored) == "25.0 GiB, about $0.57 a month"  # 0.575, rounded to even
    assert describe(stored, whole=False).startswith("at least 25.0 GiB")

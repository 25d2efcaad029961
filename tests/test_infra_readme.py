"""The stack's own page says what the program does. Run: pytest tests/test_infra_readme.py"""

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
from stack import KINDS, kind

from infra.costs import HOURS_A_MONTH, cost_of, cost_table, disk_and_address_hour, idle_month, idle_month_of
from infra.outputs import parameter_name
from infra.picture import README, blocks, left_by_destroy, mermaid, render
from infra.policies import UNSCOPED


def test_the_page_is_what_the_program_would_write_now():
    text = README.read_text()
    assert text == render(text, blocks()), "run `python -m infra.picture`"


@pytest.mark.parametrize("name", KINDS)
def test_the_picture_shows_every_part_once_and_no_arrow_to_nowhere(name):
    drawn = mermaid(kind(name))
    boxes = re.findall(r'^    (\w+)\["(.*)"\]$', drawn, re.M)
    labels = [line for _, label in boxes for line in label.split("<br/>")]
    assert sum(int(re.search(r"(?: x (\d+))?$", label)[1] or 1) for label in labels) == len(kind(name).resources)
    assert len({box for box, _ in boxes}) == len(boxes)
    ends = {end for arrow in re.findall(r"^  (\w+) --> (\w+)$", drawn, re.M) for end in arrow}
    assert ends <= {box for box, _ in boxes}
    assert "  machine_autoscaling_group --> network_ec2_subnet" in drawn


def test_the_picture_follows_the_program():
    assert "internet gateway" in mermaid(kind("default"))
    assert "internet gateway" not in mermaid(kind("private"))
    assert "ec2 vpc endpoint x 9" in mermaid(kind("private"))


@pytest.mark.parametrize("name", KINDS)
def test_every_part_has_a_price_or_is_known_to_be_free(name):
    assert [cost_of(resource) for resource in kind(name).resources]


def test_a_part_that_nobody_has_priced_is_found():
    stranger = replace(kind("default").resources[0], type="aws:ec2/natGateway:NatGateway")
    with pytest.raises(KeyError, match="NatGateway"):
        cost_of(stranger)


@pytest.mark.parametrize("name", KINDS)
def test_what_up_says_that_a_stack_costs_is_the_sum_of_its_parts(name):
    settings = {"private_subnets": False, "nodes": 1} | KINDS[name]
    told = idle_month_of(settings["private_subnets"], settings["nodes"])
    assert told == pytest.approx(idle_month(kind(name)))


def test_an_idle_stack_costs_cents_and_a_private_one_its_endpoints():
    assert idle_month(kind("default")) == pytest.approx(10 * 0.023 + 4 * 0.10 + 0.10)
    assert idle_month(kind("private")) - idle_month(kind("default")) == pytest.approx(8 * 0.01 * 730)
    assert disk_and_address_hour(150, public=True) == pytest.approx(150 * 0.08 / HOURS_A_MONTH + 0.005)


def test_the_table_adds_up_and_says_what_stays():
    rows = [line.split("|")[1:-1] for line in cost_table(kind("private")).splitlines()[2:]]
    *parts, total = [[cell.strip(" *") for cell in row] for row in rows]
    assert sum(float(row[2].strip("$")) for row in parts) == pytest.approx(float(total[2].strip("$")), abs=0.01)
    assert {row[4] for row in parts} == {"gone"}
    (kept,) = [row for row in cost_table(kind("default")).splitlines() if "stays" in row]
    assert "bucket" in kept


def test_destroy_leaves_what_the_page_says():
    assert left_by_destroy(kind("default")).splitlines()[0] == "- s3 bucket"
    assert left_by_destroy(SimpleNamespace(resources=[])) == ""


def test_the_page_s_prose_names_what_there_is():
    text = README.read_text()
    assert parameter_name("STACK") in text
    assert len(UNSCOPED) == 4
    assert "the four statements that name no resource" in " ".join(text.split())

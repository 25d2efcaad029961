"""A wrong setting is one sentence that names it, and nothing is made. Run: pytest tests/test_infra_settings.py"""

import pulumi
import pytest
import yaml

from infra.recording import PULUMI_YAML, _Monitor, defaults, record
from infra.settings import Settings

TAGGED = "aws:resourcegroupstaggingapi/getResources:getResources"
# The setting, what somebody typed, and what the sentence says besides the setting's name and that value.
WRONG = [
    ("instance_types", "g9.enormous", "which no zone of us-east-1 offers"),
    ("instance_types", "g6", "must be instance types such as g6.xlarge"),
    ("instance_types", "", "at least 1 item"),
    ("market", "cheap", "'spot', 'on-demand' or 'spot-then-on-demand'"),
    ("nodes", 0, "greater than or equal to 1"),
    ("nodes", 17, "less than or equal to 16"),
    ("nodes", "two", "valid integer"),
    ("volume_gb", 20, "greater than or equal to 100"),
    ("machine_image", "ubuntu", "an AMI id such as ami-"),
    ("machine_image", "", "`make up` pins"),
    ("image_digest", "latest", "sha256: and 64 hexadecimal digits"),
    ("cap_dollars", -5, "greater than or equal to 1"),
    ("deadline_hours", 1000, "less than or equal to 168"),
    ("idle_minutes", 1, "greater than or equal to 10"),
    ("budget_dollars", -1, "greater than or equal to 0"),
    ("email", "nobody", "empty or an e-mail address"),
    ("bucket_name", "Not A Bucket", "empty or the name of a bucket"),
    ("bucket_name", "somebody-elses", "bears the stack's tags"),
    ("keep_data", "perhaps", "valid boolean"),
    ("cluster_placement", True, "nodes is 1"),
    ("operators", "eve", "ARNs of IAM users or roles"),
    ("operators", "arn:aws:iam::999999999999:user/eve", "not of this account (123456789012)"),
]


@pytest.fixture
def made(monkeypatch):
    """Names of the resources that the program has asked for."""
    names = []
    real = _Monitor.RegisterResource

    def register(self, request):
        names.extend([request.name] if request.custom else [])
        return real(self, request)

    monkeypatch.setattr(_Monitor, "RegisterResource", register)
    return names


@pytest.mark.parametrize(("setting", "value", "says"), WRONG, ids=[f"{w[0]}={w[1]}" for w in WRONG])
def test_a_wrong_setting_is_one_sentence_before_anything_is_made(setting, value, says, made):
    with pytest.raises(pulumi.RunError) as raised:
        record({setting: value})
    sentence = str(raised.value)
    assert setting in sentence
    assert str(value).lower() in sentence.lower()
    assert says in sentence
    assert "\n" not in sentence
    assert made == []


def test_a_misspelt_setting_is_told_its_nearest(made):
    with pytest.raises(pulumi.RunError, match="there is no setting nods; did you mean nodes"):
        record({"nods": 2})
    assert made == []


def test_a_stack_whose_name_no_bucket_could_bear_is_refused(made):
    with pytest.raises(pulumi.RunError, match="'My_Stack', but buckets and registries will bear the name"):
        record(stack="My_Stack")
    assert made == []


def test_an_image_of_another_region_is_told_so(made):
    with pytest.raises(pulumi.RunError, match="machine_image is 'ami-0123456789abcdef0', which us-east-1 does not"):
        record(answers={"aws:ec2/getAmiIds:getAmiIds": {"ids": []}})
    assert made == []


def test_of_several_buckets_that_are_ours_one_must_be_named(made):
    two = {"resourceTagMappingLists": [{"resourceArn": f"arn:aws:s3:::ours-{n}"} for n in (1, 2)]}
    with pytest.raises(pulumi.RunError, match="bucket_name is empty, but ours-1 and ours-2 all bear"):
        record(answers={TAGGED: two})
    assert made == []
    chosen = record({"bucket_name": "ours-2"}, answers={TAGGED: two})
    assert chosen.outputs["bucket"] == "ours-2"


def test_pulumi_yaml_declares_every_setting_with_a_type_a_default_and_a_description():
    declared = yaml.safe_load(PULUMI_YAML.read_text())["config"]
    assert list(defaults()) == list(declared)
    assert set(declared) == set(Settings.model_fields)
    for entry in declared.values():
        assert set(entry) == {"type", "description", "default"}
    settings = Settings.model_validate(defaults())
    assert settings.keep_data, "data is kept unless somebody says otherwise"
    assert settings.instance_types[0] == "g6.xlarge"

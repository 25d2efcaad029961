"""What the stack is, whatever its settings: shut, encrypted, labelled, kept. Run: pytest tests/test_infra_program.py"""

import base64
import json
import shlex
import subprocess
from dataclasses import fields

import pytest
from stack import KINDS, kind, of_type, only

from infra.machine import BOOT_SCRIPT, USER_DATA_BYTES, render_boot
from infra.outputs import NAMES, Outputs, parameter_name, read_outputs, tags
from infra.recording import IMAGE, ZONES, record

every_kind = pytest.mark.parametrize("name", KINDS)
SATELLITES = {
    "BucketVersioning",
    "BucketServerSideEncryptionConfiguration",
    "BucketPublicAccessBlock",
    "BucketPolicy",
    "BucketLifecycleConfiguration",
}


@every_kind
def test_no_address_is_let_in(name):
    recording = kind(name)
    for rule in of_type(recording, ":SecurityGroupIngressRule"):
        assert rule.inputs["referencedSecurityGroupId"].startswith("SecurityGroup-")
        assert not {"cidrIpv4", "cidrIpv6", "prefixListId"} & set(rule.inputs)
    for group in of_type(recording, "ecurityGroup"):
        assert not group.inputs.get("ingress")
    assert not of_type(recording, ":KeyPair")
    assert "keyName" not in only(recording, ":LaunchTemplate").inputs


@every_kind
def test_machines_admit_their_peers_only_where_there_are_any(name):
    recording = kind(name)
    machines = next(g for g in of_type(recording, ":SecurityGroup") if g.name.endswith("-machines"))
    admitted = [r for r in of_type(recording, ":SecurityGroupIngressRule") if machines.urn in r.needs]
    to_machines = [r for r in admitted if r.inputs["securityGroupId"] == "SecurityGroup-slowfast-emotion-dev-machines"]
    assert len(to_machines) == (1 if KINDS[name].get("nodes", 1) > 1 else 0)


@every_kind
def test_everything_that_can_bear_the_label_bears_it(name):
    recording = kind(name)
    bare = set()
    for resource in recording.resources:
        own = resource.inputs.get("tags")
        if isinstance(own, list):
            assert all(tag["propagateAtLaunch"] for tag in own)
            own = {tag["key"]: tag["value"] for tag in own}
        if not own:
            bare.add(resource.type.rpartition(":")[2])
        else:
            assert own.items() >= tags("dev").items()
    # What AWS lets bear no tags; a new resource without them is either taggable, or belongs here.
    assert bare <= SATELLITES | {
        *("LifecyclePolicy", "TopicPolicy", "TopicSubscription", "EventTarget", "Route", "RouteTableAssociation"),
        *("RolePolicy", "RolePolicyAttachment", "UserPolicyAttachment", "Policy"),
    }
    assert not [r for r in recording.resources if r.type == "aws:iam/policy:Policy" and not r.inputs.get("tags")]
    launched = only(recording, ":LaunchTemplate").inputs["tagSpecifications"]
    assert {spec["resourceType"] for spec in launched} == {"instance", "volume", "network-interface"}
    assert all(spec["tags"].items() >= tags("dev").items() for spec in launched)


@every_kind
def test_the_bucket_is_private_encrypted_versioned_and_speaks_tls_only(name):
    recording = kind(name)
    block = only(recording, ":BucketPublicAccessBlock").inputs
    assert all(block[key] for key in block if key != "bucket")
    assert len(block) == 5
    (rule,) = only(recording, ":BucketServerSideEncryptionConfiguration").inputs["rules"]
    assert rule["applyServerSideEncryptionByDefault"]["sseAlgorithm"] == "AES256"
    assert only(recording, ":BucketVersioning").inputs["versioningConfiguration"]["status"] == "Enabled"
    (statement,) = json.loads(only(recording, ":BucketPolicy").inputs["policy"])["Statement"]
    assert (statement["Effect"], statement["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})
    assert not of_type(recording, ":BucketAcl")
    assert all(only(recording, f":{part}").inputs["bucket"] for part in SATELLITES)


def test_the_lifecycle_drops_what_nobody_needs_and_rests_the_clips():
    rules = only(kind("default"), ":BucketLifecycleConfiguration").inputs["rules"]
    assert {key for rule in rules for key in rule} >= {
        "abortIncompleteMultipartUpload",
        "noncurrentVersionExpiration",
        "transitions",
    }
    (resting,) = [rule for rule in rules if "transitions" in rule]
    assert resting["filter"]["prefix"] == "clips/"
    assert resting["transitions"][0]["storageClass"] == "STANDARD_IA"
    # Nothing that is current ever expires: data leaves the bucket by a person's hand only.
    assert all("days" not in rule.get("expiration", {}) for rule in rules)


def test_destroy_leaves_the_bucket_with_its_protection_and_nothing_else():
    kept = {r.type.rpartition(":")[2] for r in kind("default").resources if r.kept}
    assert kept == SATELLITES | {"Bucket"}
    assert "forceDestroy" not in only(kind("default"), ":Bucket").inputs


def test_destroy_leaves_nothing_when_told_so():
    recording = kind("private")
    assert not [r for r in recording.resources if r.kept]
    assert only(recording, ":Bucket").inputs["forceDestroy"] is True


def test_a_kept_bucket_is_taken_up_by_its_tags():
    left = {"resourceTagMappingLists": [{"resourceArn": "arn:aws:s3:::slowfast-emotion-dev-1a2b3c4"}]}
    recording = record(answers={"aws:resourcegroupstaggingapi/getResources:getResources": left})
    bucket = only(recording, ":Bucket")
    assert bucket.imported == bucket.inputs["bucket"] == "slowfast-emotion-dev-1a2b3c4"
    # An import must find what it declares: the user's own tags and the provider's own flag are not its business.
    assert {"tags", "forceDestroy"} <= set(bucket.ignored)
    asked = dict(recording.calls)["aws:resourcegroupstaggingapi/getResources:getResources"]
    assert {f["key"]: f["values"] for f in asked["tagFilters"]} == {k: [v] for k, v in tags("dev").items()}


@every_kind
def test_machines_have_the_second_metadata_service_and_an_encrypted_disk_that_goes_with_them(name):
    template = only(kind(name), ":LaunchTemplate").inputs
    options = template["metadataOptions"]
    assert (options["httpTokens"], options["httpPutResponseHopLimit"]) == ("required", 2)
    (mapping,) = template["blockDeviceMappings"]
    assert (mapping["ebs"]["encrypted"], mapping["ebs"]["deleteOnTermination"]) == ("true", "true")
    assert (mapping["ebs"]["volumeType"], mapping["ebs"]["volumeSize"]) == ("gp3", 150)
    assert mapping["deviceName"] == "/dev/sda1"
    assert template["instanceInitiatedShutdownBehavior"] == "terminate"


def test_a_newer_machine_image_changes_nothing():
    recording = kind("default")
    assert only(recording, ":LaunchTemplate").inputs["imageId"] == IMAGE
    (asked,) = [arguments for call, arguments in recording.calls if call.endswith(":getAmi")]
    assert asked["filters"] == [{"name": "image-id", "values": [IMAGE]}]
    assert not asked.get("mostRecent")
    assert not [call for call, _ in recording.calls if call.endswith("getParameter")]


@pytest.mark.parametrize(
    ("name", "on_demand", "most"),
    [("default", 0, 1), ("spot", 0, 1), ("on-demand", 100, 1), ("four nodes", 0, 4), ("private, four nodes", 0, 4)],
)
def test_the_group_is_empty_bounded_and_of_the_market_asked_for(name, on_demand, most):
    group = only(kind(name), ":Group")
    distribution = group.inputs["mixedInstancesPolicy"]["instancesDistribution"]
    assert (group.inputs["minSize"], group.inputs["desiredCapacity"], group.inputs["maxSize"]) == (0, 0, most)
    assert distribution["onDemandPercentageAboveBaseCapacity"] == on_demand
    assert distribution["spotAllocationStrategy"] == "price-capacity-optimized"
    overrides = group.inputs["mixedInstancesPolicy"]["launchTemplate"]["overrides"]
    assert [o["instanceType"] for o in overrides] == ["g6.xlarge", "g5.xlarge", "g4dn.xlarge"]
    # `make train` sets both while a run is on; an `up` meanwhile must not take its machine away.
    assert set(group.ignored) == {
        "desiredCapacity",
        "mixedInstancesPolicy.instancesDistribution.onDemandPercentageAboveBaseCapacity",
    }


def test_machines_stand_close_together_only_when_asked():
    assert only(kind("four nodes"), ":PlacementGroup").inputs["strategy"] == "cluster"
    assert only(kind("four nodes"), ":Group").inputs["placementGroup"]
    assert not of_type(kind("private, four nodes"), ":PlacementGroup")


@every_kind
def test_every_zone_that_offers_the_types_has_a_subnet_and_s3_costs_nothing(name):
    recording = kind(name)
    subnets = of_type(recording, ":Subnet")
    assert sorted(s.inputs["availabilityZone"] for s in subnets) == ZONES
    assert len({s.inputs["cidrBlock"] for s in subnets}) == len(ZONES)
    (s3,) = [e for e in of_type(recording, ":VpcEndpoint") if e.inputs["vpcEndpointType"] == "Gateway"]
    assert s3.inputs["serviceName"] == "com.amazonaws.us-east-1.s3"
    assert s3.inputs["routeTableIds"] == [
        only(recording, ":RouteTable").inputs.get("id", s3.inputs["routeTableIds"][0])
    ]


def test_a_zone_that_appears_moves_no_subnet():
    offers = {"instanceTypes": ["g6.xlarge", "g5.xlarge", "g4dn.xlarge", "g6.xlarge"]}
    offers |= {"locations": ["us-east-1b", "us-east-1d", "us-east-1d", "us-east-1-bos-1a"]}
    answers = {
        "aws:ec2/getInstanceTypeOfferings:getInstanceTypeOfferings": offers,
        "aws:index/getAvailabilityZones:getAvailabilityZones": {"names": [*ZONES, "us-east-1d"]},
    }
    blocks = {s.inputs["availabilityZone"]: s.inputs["cidrBlock"] for s in of_type(record(answers=answers), ":Subnet")}
    before = {s.inputs["availabilityZone"]: s.inputs["cidrBlock"] for s in of_type(kind("default"), ":Subnet")}
    # The local zone, which takes no subnet without opting in, is left out.
    assert set(blocks) == {"us-east-1b", "us-east-1d"}
    assert blocks["us-east-1b"] == before["us-east-1b"]


@pytest.mark.parametrize("name", ["private", "private, four nodes"])
def test_a_private_machine_reaches_aws_and_nothing_else(name):
    recording = kind(name)
    assert not of_type(recording, ":InternetGateway")
    assert not of_type(recording, ":Route")
    assert not any(s.inputs["mapPublicIpOnLaunch"] for s in of_type(recording, ":Subnet"))
    for rule in of_type(recording, ":SecurityGroupEgressRule"):
        assert not {"cidrIpv4", "cidrIpv6"} & set(rule.inputs)
    services = {e.inputs["serviceName"].partition("us-east-1.")[2] for e in of_type(recording, ":VpcEndpoint")}
    assert services >= {"s3", "ssm", "ssmmessages", "ec2messages", "ecr.api", "ecr.dkr", "logs", "autoscaling", "sns"}


def test_a_public_machine_pays_for_no_endpoint():
    assert {e.inputs["vpcEndpointType"] for e in of_type(kind("default"), ":VpcEndpoint")} == {"Gateway"}


@every_kind
def test_images_are_immutable_scanned_and_expire(name):
    repository = only(kind(name), ":Repository").inputs
    assert repository["imageTagMutability"] == "IMMUTABLE"
    assert repository["imageScanningConfiguration"]["scanOnPush"] is True
    (rule,) = json.loads(only(kind(name), ":LifecyclePolicy").inputs["policy"])["rules"]
    assert rule["action"] == {"type": "expire"}


@every_kind
def test_machines_that_idle_are_taken_away_by_aws_and_somebody_is_told(name):
    recording = kind(name)
    alarm, empty = only(recording, ":MetricAlarm"), only(recording, "autoscaling/policy:Policy")
    assert (empty.inputs["adjustmentType"], empty.inputs["scalingAdjustment"]) == ("ExactCapacity", 0)
    assert empty.urn in alarm.needs
    assert only(recording, ":Topic").urn in alarm.needs
    assert alarm.inputs["dimensions"] == {"AutoScalingGroupName": "slowfast-emotion-dev"}
    assert alarm.inputs["period"] * alarm.inputs["evaluationPeriods"] >= 3600
    # CloudWatch takes no alarm that looks back over more than a day.
    assert alarm.inputs["period"] * alarm.inputs["evaluationPeriods"] <= 86400
    assert alarm.inputs["treatMissingData"] == "notBreaching"


def test_the_idle_alarm_follows_the_setting_and_fits_what_cloudwatch_takes():
    longest = only(record({"idle_minutes": 240}), ":MetricAlarm").inputs
    assert longest["period"] * longest["evaluationPeriods"] == 3 * 240 * 60 <= 86400


def test_a_budget_warns_unless_there_is_none():
    budget = only(kind("default"), ":Budget").inputs
    assert (budget["limitAmount"], budget["timeUnit"]) == ("100.0", "MONTHLY")
    assert {n["notificationType"] for n in budget["notifications"]} == {"FORECASTED", "ACTUAL"}
    assert not of_type(kind("private"), ":Budget")


def test_warnings_reach_an_address_when_one_is_set():
    assert only(kind("spot"), ":TopicSubscription").inputs["endpoint"] == "someone@example.org"
    assert not of_type(kind("default"), ":TopicSubscription")
    assert only(kind("default"), ":LogGroup").inputs["retentionInDays"] == 30


def test_a_notice_is_one_sentence_that_names_the_machine():
    targets = {
        t.name.rpartition("-")[2]: t.inputs["inputTransformer"] for t in of_type(kind("default"), ":EventTarget")
    }
    assert set(targets) == {"taken", "refused"}
    for transformer in targets.values():
        for path in transformer["inputPaths"]:
            assert f"<{path}>" in json.loads(transformer["inputTemplate"])


def test_operators_are_given_the_operator_policy():
    attached = [a for a in of_type(kind("four nodes"), ":RolePolicyAttachment") if a.inputs["role"] == "trainer"]
    assert len(attached) == 1
    assert only(kind("private, four nodes"), ":UserPolicyAttachment").inputs["user"] == "eve"


@every_kind
def test_what_is_published_is_what_the_commands_read(name):
    recording = kind(name)
    parameter = only(recording, "ssm/parameter:Parameter").inputs
    assert parameter["name"] == parameter_name("dev")
    published = read_outputs(parameter["insecureValue"])
    assert len(parameter["insecureValue"]) < 4096, "more than a standard parameter holds"
    assert set(recording.outputs) == set(NAMES) == {field.name for field in fields(Outputs)}
    for output in NAMES:
        value = getattr(published, output)
        assert recording.outputs[output] == (list(value) if isinstance(value, tuple) else value)
    assert published.nodes == KINDS[name].get("nodes", 1)
    assert published.asg == only(recording, ":Group").inputs["name"]


def user_data(name):
    return base64.b64decode(only(kind(name), ":LaunchTemplate").inputs["userData"]).decode()


@every_kind
def test_a_machine_is_told_where_it_belongs_before_its_boot_script_begins(name):
    text = user_data(name)
    assert text.startswith("#!/bin/bash\n")
    assert len(text.encode()) < USER_DATA_BYTES
    head = text[: text.index(BOOT_SCRIPT.read_text().splitlines()[1])]
    told = subprocess.run(["bash", "-c", head + "env"], capture_output=True, text=True, check=True, env={}).stdout
    values = dict(line.split("=", 1) for line in told.splitlines())
    assert values["STACK"] == "dev"
    assert values["BUCKET"] == kind(name).outputs["bucket"]
    assert values["ASG"] == kind(name).outputs["asg"]
    assert values["LOG_GROUP"] == kind(name).outputs["log_group"]
    assert values["TOPIC"] == kind(name).outputs["topic"]
    assert (values["REGION"], values["IDLE_MINUTES"]) == ("us-east-1", "20")
    digest = kind(name).outputs["image_digest"]
    assert values["IMAGE"] == (f"{kind(name).outputs['repository_url']}@{digest}" if digest else "")


def test_a_value_with_quotes_and_commands_stays_a_value():
    nasty = 'it\'s $(touch /tmp/never) `id` "x"\nsecond line'
    script = render_boot('#!/bin/bash\nprintf %s "$VALUE"', {"VALUE": nasty})
    assert subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout == nasty
    assert shlex.quote(nasty) in script

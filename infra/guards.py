"""What keeps the stack from billing by accident, on AWS's side, whatever becomes of the machines.

The machines give themselves back when idle (infra/box/boot.sh) and `make train` sets the hour at which the group goes
to 0; these are for the day when neither worked.
"""

import json
import math

import pulumi_aws as aws

from infra import policies

LOG_DAYS = 30
# A machine that only waits is below this; the one process that feeds a GPU keeps a core busy, a quarter of a g6.xlarge.
IDLE_CPU_PERCENT = 2
# Points of a plain (five-minute) metric.
PERIOD_SECONDS = 300


def make_log_group(name: str) -> aws.cloudwatch.LogGroup:
    return aws.cloudwatch.LogGroup(name, name=f"/{name}", retention_in_days=LOG_DAYS)


def make_topic(name: str, account: str, email: str) -> aws.sns.Topic:
    """The topic of warnings and ends of runs. Not encrypted: it carries no data, and AWS's own key shuts alarms out."""
    topic = aws.sns.Topic(name, name=name)
    aws.sns.TopicPolicy(
        name, arn=topic.arn, policy=topic.arn.apply(lambda arn: json.dumps(policies.publishers(arn, account)))
    )
    if email:
        aws.sns.TopicSubscription(name, topic=topic.arn, protocol="email", endpoint=email)
    return topic


def make_budget(name: str, topic: aws.sns.Topic, dollars: int) -> aws.budgets.Budget | None:
    """Warn when the account's month is forecast to pass `dollars`, and when it has; 0 makes no budget.

    It covers the account, not only what bears our label: AWS bills by label only after somebody has activated the label
    in the billing console, and until then such a budget would stand at 0 and warn of nothing.
    """
    if not dollars:
        return None
    return aws.budgets.Budget(
        name,
        name=name,
        budget_type="COST",
        time_unit="MONTHLY",
        limit_unit="USD",
        limit_amount=f"{dollars:.1f}",
        notifications=[
            {
                "notification_type": kind,
                "comparison_operator": "GREATER_THAN",
                "threshold": 100,
                "threshold_type": "PERCENTAGE",
                "subscriber_sns_topic_arns": [topic.arn],
            }
            for kind in ("FORECASTED", "ACTUAL")
        ],
    )


def make_idle_alarm(
    name: str, group: aws.autoscaling.Group, topic: aws.sns.Topic, idle_minutes: int
) -> aws.cloudwatch.MetricAlarm:
    """Empty the group, and tell, when its machines have done nothing for three times `idle_minutes`, an hour at least.

    It looks at the CPU, the one figure that EC2 itself reports: a figure of the GPU would have to come from the very
    machine that does not answer. No machine, no figure, no alarm.
    """
    empty = aws.autoscaling.Policy(
        f"{name}-empty",
        autoscaling_group_name=group.name,
        policy_type="SimpleScaling",
        adjustment_type="ExactCapacity",
        scaling_adjustment=0,
    )
    return aws.cloudwatch.MetricAlarm(
        f"{name}-idle",
        name=f"{name}-idle",
        alarm_description=f"The machines of {name} have done nothing for long; the group is emptied.",
        namespace="AWS/EC2",
        metric_name="CPUUtilization",
        dimensions={"AutoScalingGroupName": group.name},
        statistic="Maximum",  # of the machines' figures: one that works keeps them all
        comparison_operator="LessThanThreshold",
        threshold=IDLE_CPU_PERCENT,
        period=PERIOD_SECONDS,
        evaluation_periods=max(12, math.ceil(3 * idle_minutes * 60 / PERIOD_SECONDS)),
        treat_missing_data="notBreaching",
        alarm_actions=[empty.arn, topic.arn],
    )


def make_notices(name: str, group: str, topic: aws.sns.Topic) -> None:
    """Tell when AWS takes a spot machine back, and when it has none to give.

    The first event names no group, so an account with other spot machines hears of those too.
    """
    _notice(
        f"{name}-taken",
        topic,
        {"source": ["aws.ec2"], "detail-type": ["EC2 Spot Instance Interruption Warning"]},
        {"machine": "$.detail.instance-id"},
        "AWS takes spot machine <machine> back in two minutes; a run on it is saved and goes on with the next machine.",
    )
    _notice(
        f"{name}-refused",
        topic,
        {
            "source": ["aws.autoscaling"],
            "detail-type": ["EC2 Instance Launch Unsuccessful"],
            "detail": {"AutoScalingGroupName": [group]},
        },
        {"reason": "$.detail.StatusMessage"},
        f"{name} could not start a machine: <reason>",
    )


def _notice(name: str, topic: aws.sns.Topic, pattern: dict[str, object], paths: dict[str, str], sentence: str) -> None:
    rule = aws.cloudwatch.EventRule(name, name=name, event_pattern=json.dumps(pattern))
    aws.cloudwatch.EventTarget(
        name,
        rule=rule.name,
        arn=topic.arn,
        input_transformer={"input_paths": paths, "input_template": json.dumps(sentence)},
    )

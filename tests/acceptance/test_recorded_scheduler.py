"""EventBridge Scheduler's answers beside those that were recorded from AWS."""

import pytest

from preheat.kernel.errors import AwsError
from tests.unit.test_events import QUEUE
from tests.unit.test_scheduler import ROLE, Clockwork

ROLE_PATTERN = r"^arn:aws[a-z-]*:iam::\d{12}:role\/[\w+=,.@\/-]+$"


@pytest.fixture
def world():
    return Clockwork()


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({}, {"MaximumEventAgeInSeconds": 86_400, "MaximumRetryAttempts": 185}),
        ({"MaximumRetryAttempts": 3}, {"MaximumEventAgeInSeconds": 86_400, "MaximumRetryAttempts": 3}),
    ],
)
def test_the_retry_policy_that_acts_is_shown(world, given, shown):
    world.create("rate(1 minute)", target={"RetryPolicy": given} if given else {})
    target = world("scheduler", "GetSchedule", Name="s")["Target"]
    assert target == {"Arn": QUEUE, "RoleArn": ROLE, "RetryPolicy": shown}


@pytest.mark.parametrize(("expression", "seconds"), [("rate(2 minute)", 120), ("rate(1 hours)", 3_600)])
def test_a_unit_in_the_singular_or_the_plural_with_any_number(world, expression, seconds):
    world.queue()
    world.create("rate(1 minute)")
    start = world.clock.now()
    world(
        "scheduler", "UpdateSchedule", Name="s", ScheduleExpression=expression, FlexibleTimeWindow={"Mode": "OFF"},
        Target={"Arn": QUEUE, "RoleArn": ROLE},
    )  # fmt: skip
    world.advance(2 * seconds)
    assert world.times() == [start + seconds, start + 2 * seconds]


@pytest.mark.parametrize(
    "expression",
    [
        "cron(0 1 * * * *)", "cron(7 20 * * NOT *)", "cron(INVALID)", "cron(0 dummy ? * MON-FRI *)",
        "cron(71 8 1 * ? *)", "cron()", "rate(10 seconds)", "rate(10 years)", "rate()", "rate(10)",
        "rate(10 minutess)", "rate(foo minutes)", "rate(-10 minutes)", "rate( 10 minutes )", " rate(10 minutes)",
        "at(2021-12-31T23:59:59Z)", "at(2021-12-31)",
    ],
)  # fmt: skip
def test_expressions_that_aws_refuses(world, expression):
    with pytest.raises(AwsError) as caught:
        world.create(expression)
    error = caught.value
    expected = ("ValidationException", f"Invalid Schedule Expression {expression}.", 400)
    assert (error.code, error.message, error.status) == expected


def test_all_that_is_wrong_in_one_answer(world):
    with pytest.raises(AwsError) as caught:
        policy = {"MaximumRetryAttempts": 186}
        world.create("rate(1 minute)", name="no name", target={"RoleArn": "nobody", "RetryPolicy": policy})
    fails = "failed to satisfy constraint: Member must"
    assert caught.value.message == (
        f"3 validation errors detected: Value 'no name' at 'name' {fails} satisfy regular expression pattern: "
        f"^[0-9a-zA-Z-_.]+$; Value 'nobody' at 'target.roleArn' {fails} satisfy regular expression pattern: "
        f"{ROLE_PATTERN}; Value '186' at 'target.retryPolicy.maximumRetryAttempts' {fails} have value less than or "
        "equal to 185"
    )

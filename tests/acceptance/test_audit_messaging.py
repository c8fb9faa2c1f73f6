"""What a tester who knows AWS tried on topics, buses and schedules and found wanting: dead letters that say why in the
service's own words, roles that do not trust, universal targets with an input that does not fit."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError

from tests.acceptance.test_iam_enforced import EnforcedServer, allow, document
from tests.support.server import wait_for

ACCOUNT = "000000000000"
BUS = f"arn:aws:events:us-east-1:{ACCOUNT}:event-bus/"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/audit-messaging"
OFF = {"Mode": "OFF"}
SDK = "arn:aws:scheduler:::aws-sdk:"


@pytest.fixture
def enforced(tmp_path):
    server = EnforcedServer(tmp_path / "state").start()
    yield server
    assert server.stop() == 0
    assert "defect in" not in server.log.read_text()


def queue(aws, name, service=None):
    sqs, arn = aws.client("sqs"), f"arn:aws:sqs:us-east-1:{ACCOUNT}:{name}"
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    if service:
        open_to = {**allow("sqs:SendMessage", arn), "Principal": {"Service": service}}
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": document(open_to)})
    return url, arn


def letters(aws, url, count):
    """(body, attributes) of that many messages."""
    sqs, found = aws.client("sqs"), []

    def more():
        got = sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1, MessageAttributeNames=["All"]
        ).get("Messages", [])
        for message in got:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            told = message.get("MessageAttributes", {}).items()
            found.append((message["Body"], {name: value["StringValue"] for name, value in told}))
        return len(found) >= count

    wait_for(more)
    return found


def put(aws, source, bus="default"):
    entry = {"Source": source, "DetailType": "d", "Detail": "{}", "EventBusName": bus}
    aws.client("events").put_events(Entries=[entry])


def refusal(call, **params):
    with pytest.raises(ClientError) as caught:
        call(**params)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def in_a_second():
    return f"at({datetime.now(UTC) + timedelta(seconds=2):%Y-%m-%dT%H:%M:%S})"


def schedule(aws, name, target, expression=None):
    return aws.client("scheduler").create_schedule(
        Name=name, ScheduleExpression=expression or in_a_second(), FlexibleTimeWindow=OFF, Target=target
    )


def test_dead_letters_carry_the_error_codes_of_eventbridge(aws):
    events = aws.client("events")
    url, dead = queue(aws, "audit-dead")
    events.put_rule(Name="audit-gone", EventPattern=json.dumps({"source": ["audit-gone"]}))
    gone = ("lambda:us-east-1:{}:function:", "sqs:us-east-1:{}:", "sns:us-east-1:{}:")
    targets = [
        {"Id": str(i), "Arn": f"arn:aws:{arn.format(ACCOUNT)}audit-gone", "DeadLetterConfig": {"Arn": dead}}
        for i, arn in enumerate(gone)
    ]
    events.put_targets(Rule="audit-gone", Targets=targets)
    put(aws, "audit-gone")
    told = [attributes for _, attributes in letters(aws, url, 3)]
    assert {one["TARGET_ARN"] for one in told} == {target["Arn"] for target in targets}
    assert [one["ERROR_CODE"] for one in told] == ["NO_RESOURCE"] * 3


def test_an_event_that_came_from_a_bus_is_dead_lettered_before_a_third(aws):
    events = aws.client("events")
    url, dead = queue(aws, "audit-hops")
    for bus in ("audit-two", "audit-three"):
        events.create_event_bus(Name=bus)
    pattern = json.dumps({"source": ["audit-hop"]})
    for bus, onward in (("default", "audit-two"), ("audit-two", "audit-three")):
        events.put_rule(Name="audit-hop", EventBusName=bus, EventPattern=pattern)
        target = {"Id": "1", "Arn": BUS + onward, "RoleArn": ROLE, "DeadLetterConfig": {"Arn": dead}}
        events.put_targets(Rule="audit-hop", EventBusName=bus, Targets=[target])
    put(aws, "audit-hop")
    ((body, told),) = letters(aws, url, 1)
    assert json.loads(body)["source"] == "audit-hop"
    assert (told["ERROR_CODE"], told["TARGET_ARN"]) == ("THIRD_ACCOUNT_HOP_DETECTED", BUS + "audit-three")


def test_an_input_that_does_not_fit_a_universal_target_is_dead_lettered(aws):
    url, dead = queue(aws, "audit-unfit")
    wrong = {
        "type": {"QueueUrl": url, "MessageBody": "x", "DelaySeconds": "soon"},
        "flag": {"QueueUrl": url, "MessageBody": "x", "DelaySeconds": True},
        "lack": {"QueueUrl": url},
    }
    for name, given in wrong.items():
        target = {"Arn": SDK + "sqs:sendMessage", "RoleArn": ROLE, "Input": json.dumps(given)}
        schedule(aws, f"audit-{name}", {**target, "DeadLetterConfig": {"Arn": dead}})
    told = {one["SCHEDULE_ARN"].rpartition("-")[2]: one for _, one in letters(aws, url, 3)}
    assert {name: one["ERROR_CODE"] for name, one in told.items()} == dict.fromkeys(wrong, "ValidationException")
    assert told["lack"]["ERROR_MESSAGE"] == "The input lacks MessageBody."
    for one in told.values():
        assert one["IS_PAYLOAD_TRUNCATED"] == "false" and one["EXECUTION_ID"]
        assert datetime.fromisoformat(one["SCHEDULED_TIME"]) <= datetime.now(UTC)


def test_a_universal_target_that_is_not_here_is_refused(aws):
    scheduler = aws.client("scheduler")
    for operation in ("sqs:nope", "ec2:stopInstances"):
        code, message = refusal(
            scheduler.create_schedule,
            Name="audit-never", ScheduleExpression="rate(1 hour)", FlexibleTimeWindow=OFF,
            Target={"Arn": SDK + operation, "RoleArn": ROLE},
        )  # fmt: skip
        assert code == "ValidationException" and f"Preheat does not implement {operation}." in message
    assert refusal(scheduler.get_schedule, Name="audit-never")[0] == "ResourceNotFoundException"


def test_a_role_has_to_trust_whoever_takes_it(enforced):
    events = enforced.client("events")
    url, arn = queue(enforced, "q")
    dead_url, dead = queue(enforced, "dead", "events.amazonaws.com")
    role = enforced.role("lambdas", allow("*"))
    own = {"Effect": "Allow", "Principal": {"Service": "scheduler.amazonaws.com"}, "Action": "sts:AssumeRole"}
    trust = {"Version": "2012-10-17", "Statement": [own]}
    trusted = enforced.role("schedules", allow("sqs:SendMessage", arn), trust=trust)
    for unfit in (role, role + "-gone"):
        with pytest.raises(ClientError, match="must allow AWS EventBridge Scheduler to assume the role"):
            schedule(enforced, "s", {"Arn": arn, "RoleArn": unfit})
    schedule(enforced, "s", {"Arn": arn, "RoleArn": trusted, "Input": "trusted"})
    assert [body for body, _ in letters(enforced, url, 1)] == ["trusted"]
    events.create_event_bus(Name="b")
    events.put_rule(Name="r", EventPattern=json.dumps({"source": ["s"]}))
    letter = {"DeadLetterConfig": {"Arn": dead}}
    targets = [{"Id": "1", "Arn": BUS + "b", "RoleArn": role, **letter}, {"Id": "2", "Arn": arn, **letter}]
    events.put_targets(Rule="r", Targets=targets)
    put(enforced, "s")
    told = {one["TARGET_ARN"]: one["ERROR_CODE"] for _, one in letters(enforced, dead_url, 2)}
    assert told == {BUS + "b": "FAILED_TO_ASSUME_ROLE", arn: "NO_PERMISSIONS"}

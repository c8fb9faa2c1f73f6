"""What a tester who knows AWS tried on schedules. Every operation as a universal target, names not quite right,
requests that are sent twice, targets that nothing can reach, the second at which a schedule fires."""

import json
import statistics
from datetime import UTC, datetime, timedelta

import botocore.session
import pytest
from botocore.exceptions import ClientError

from preheat.cli.inventory import inventory
from preheat.services.scheduler.domain import READING, sdk_name
from tests.acceptance.test_audit_messaging import ACCOUNT, OFF, ROLE, SDK, letters, queue, refusal
from tests.support.server import wait_for

SCHEDULES = {"ScheduleExpression": "rate(1 hour)", "FlexibleTimeWindow": OFF}
NOT_HERE = {
    "kinesis": f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/s",
    "firehose": f"arn:aws:firehose:us-east-1:{ACCOUNT}:deliverystream/d",
    "stepfunctions": f"arn:aws:states:us-east-1:{ACCOUNT}:stateMachine:m",
}


def made_up(shape, depth=0):
    """A value that fits a shape: what it needs, and inside lists everything."""
    kind = shape.type_name
    if kind == "structure":
        names = shape.members if depth > 1 else shape.required_members
        return {name: made_up(shape.members[name], depth + 1) for name in names} if depth < 4 else {}
    if kind == "list":
        return [made_up(shape.member, depth + 1)]
    if kind == "map":
        return {"a": made_up(shape.value, depth + 1)}
    if kind == "timestamp":
        return "2027-01-01T00:00:00Z"
    if kind in ("integer", "long", "float", "double"):
        return 1
    return kind != "boolean" and (shape.enum[0] if getattr(shape, "enum", None) else "made-up")


def operations():
    """(SDK's service, api) of all that is implemented."""
    for service, implemented, _ in inventory():
        for operation in sorted(implemented):
            yield service, operation, sdk_name(service), operation[0].lower() + operation[1:]


def test_every_operation_that_writes_is_a_universal_target(fresh_server):
    """Each is called with an input that fits, and does its work or is dead-lettered in its service's own words."""
    server, models = fresh_server(), botocore.session.get_session()
    scheduler, now = server.client("scheduler"), datetime.now(UTC)
    url, dead = queue(server, "unwanted")
    due, wanted = f"at({now + timedelta(hours=2):%Y-%m-%dT%H:%M:%S})", 0
    for service, operation, sdk, api in operations():
        shape = models.get_service_model(service).operation_model(operation).input_shape
        given = json.dumps(made_up(shape) if shape else {})
        target = {"Arn": f"{SDK}{sdk}:{api}", "RoleArn": ROLE, "Input": given, "DeadLetterConfig": {"Arn": dead}}
        params = {**SCHEDULES, "ScheduleExpression": due, "Name": f"{sdk}-{api}"[:64]}
        if api.startswith(READING):
            code, message = refusal(scheduler.create_schedule, **params, Target=target)
            assert code == "ValidationException" and message.endswith(f"The api {api} is not supported.")
        else:
            scheduler.create_schedule(**params, Target={**target, "RetryPolicy": {"MaximumRetryAttempts": 0}})
            wanted += 1
    assert wanted > 250
    server.advance(3 * 3_600)
    found = letters(server, url, wanted * 2 // 3)
    assert not [one["TARGET_ARN"] for _, one in found if one["ERROR_CODE"] == "InternalFailure"]
    assert "defect in" not in server.log.read_text()


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("sqs:SendMessage", "The api SendMessage is not supported."),
        ("sqs:ReceiveMessage", "The api ReceiveMessage is not supported."),
        ("dynamodb:GetItem", "The api GetItem is not supported."),
        ("SQS:sendMessage", "Preheat does not implement SQS:sendMessage."),
        ("logs:putLogEvents", "The SDKs call the service cloudwatchlogs."),
        ("events:putEvents", "The SDKs call the service eventbridge."),
    ],
)
def test_universal_targets_are_named_as_the_sdks_do(aws, target, text):
    given = {"Arn": SDK + target, "RoleArn": ROLE, "Input": "{}"}
    code, message = refusal(aws.client("scheduler").create_schedule, Name="misnamed", **SCHEDULES, Target=given)
    assert code == "ValidationException" and message.endswith(text)


@pytest.mark.parametrize("service", sorted(NOT_HERE))
def test_a_target_whose_service_is_not_here_is_refused(aws, service):
    if any(name == service and implemented for name, implemented, _ in inventory()):
        pytest.skip(f"{service} is here")
    arn, text = NOT_HERE[service], f"Preheat does not implement {service}"
    target = {"Arn": arn, "RoleArn": ROLE, "Input": "{}"}
    if service == "kinesis":
        target["KinesisParameters"] = {"PartitionKey": "k"}
    code, message = refusal(aws.client("scheduler").create_schedule, Name="nowhere", **SCHEDULES, Target=target)
    assert code == "ValidationException" and text in message
    events = aws.client("events")
    events.put_rule(Name=f"nowhere-{service}", EventPattern='{"source": ["nowhere"]}')
    targets = [{"Id": "1", "Arn": arn, "RoleArn": ROLE}]
    code, message = refusal(events.put_targets, Rule=f"nowhere-{service}", Targets=targets)
    assert code == "ValidationException" and text in message
    assert events.list_targets_by_rule(Rule=f"nowhere-{service}")["Targets"] == []


def test_a_pipe_is_answered_clearly(aws):
    if any(name == "pipes" and implemented for name, implemented, _ in inventory()):
        pytest.skip("pipes are here")
    with pytest.raises(ClientError) as caught:
        aws.client("pipes").create_pipe(Name="p", Source=NOT_HERE["kinesis"], Target=ROLE, RoleArn=ROLE)
    assert "pipes" in caught.value.response["Error"]["Message"].lower()
    assert 400 <= caught.value.response["ResponseMetadata"]["HTTPStatusCode"] < 502


def test_a_start_that_has_passed_is_refused_unless_it_stood_there_before(aws):
    scheduler = aws.client("scheduler")
    _, arn = queue(aws, "audit-start")
    target = {"Arn": arn, "RoleArn": ROLE, "Input": '"x"'}
    past = datetime.now(UTC) - timedelta(minutes=6)
    said = ("ValidationException", "The StartDate you specify cannot be earlier than 5 minutes ago.")
    assert refusal(scheduler.create_schedule, Name="audit-start", **SCHEDULES, Target=target, StartDate=past) == said
    at = {"ScheduleExpression": "at(2040-01-01T00:00:00)", "FlexibleTimeWindow": OFF, "Target": target}
    scheduler.create_schedule(Name="audit-start", **at, StartDate=past, EndDate=past)
    given = {**SCHEDULES, "Target": target, "StartDate": datetime.now(UTC) - timedelta(minutes=4)}
    scheduler.update_schedule(Name="audit-start", **given)
    scheduler.update_schedule(Name="audit-start", **given, State="DISABLED")
    assert refusal(scheduler.update_schedule, Name="audit-start", **{**given, "StartDate": past}) == said


def test_a_group_request_sent_twice_makes_one_group(aws):
    scheduler = aws.client("scheduler")
    first = scheduler.create_schedule_group(Name="audit-twice", ClientToken="t")
    assert scheduler.create_schedule_group(Name="audit-twice", ClientToken="t")["ScheduleGroupArn"] == (
        first["ScheduleGroupArn"]
    )
    for other in ({"ClientToken": "u"}, {"ClientToken": "t", "Tags": [{"Key": "a", "Value": "b"}]}):
        code, _ = refusal(scheduler.create_schedule_group, Name="audit-twice", **other)
        assert code == "ConflictException"
    scheduler.delete_schedule_group(Name="audit-twice")

    def gone():
        names = [one["Name"] for one in scheduler.list_schedule_groups(NamePrefix="audit-twice")["ScheduleGroups"]]
        return not names

    wait_for(gone, what="the group's end")


def test_schedules_fire_at_their_second(aws):
    """Thirty of them; how late each was when the queue had its message. The bound is for a machine that is busy."""
    scheduler = aws.client("scheduler")
    url, arn = queue(aws, "audit-seconds")
    now = json.loads(aws.get("/_preheat/clock")[2])["now"]
    first = datetime.fromtimestamp(int(now) + 3, UTC)
    for number in range(30):
        due = first + timedelta(seconds=number // 6)
        target = {"Arn": arn, "RoleArn": ROLE, "Input": f"{due.timestamp()}"}
        expression = f"at({due:%Y-%m-%dT%H:%M:%S})"
        params = {"ScheduleExpression": expression, "FlexibleTimeWindow": OFF, "ActionAfterCompletion": "DELETE"}
        scheduler.create_schedule(Name=f"audit-second-{number}", **params, Target=target)
    late, sqs = [], aws.client("sqs")

    def all_there():
        got = sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1, MessageSystemAttributeNames=["SentTimestamp"]
        ).get("Messages", [])
        for message in got:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            late.append(int(message["Attributes"]["SentTimestamp"]) / 1_000 - float(message["Body"]))
        return len(late) == 30

    wait_for(all_there)
    assert min(late) >= 0 and statistics.median(late) < 1.0, late

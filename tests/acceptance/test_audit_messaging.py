"""What a tester who knows AWS tried on topics, buses and schedules and found wanting: dead letters that say why in the
service's own words, roles that do not trust, universal targets with an input that does not fit."""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError

from tests.acceptance.test_iam_enforced import EnforcedServer, allow, document
from tests.support.endpoint import Endpoint
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


# -- events ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def endpoint():
    endpoint = Endpoint()
    yield endpoint
    endpoint.close()


def test_an_event_has_room_for_a_megabyte(aws):
    events = aws.client("events")
    url, arn = queue(aws, "audit-large")
    events.put_rule(Name="audit-large", EventPattern=json.dumps({"source": ["audit-large"]}))
    events.put_targets(Rule="audit-large", Targets=[{"Id": "1", "Arn": arn, "InputPath": "$.detail.size"}])
    size = 1_048_576 - len("audit-larged")
    entry = {"Source": "audit-large", "DetailType": "d"}
    head = '{"size": 1, "text": "'
    full = head + "x" * (size - len(head) - 2) + '"}'
    assert refusal(events.put_events, Entries=[{**entry, "Detail": full + " "}]) == (
        "ValidationException", "Total size of the entries in the request is over the limit."
    )  # fmt: skip
    assert events.put_events(Entries=[{**entry, "Detail": full}])["FailedEntryCount"] == 0
    assert letters(aws, url, 1)[0][0] == "1"


def test_an_api_destination_gets_events_at_its_rate_and_loses_none(aws, endpoint):
    """What is above the rate waits, and is no attempt that failed."""
    events = aws.client("events")
    url, dead = queue(aws, "audit-rate")
    keys = {"ApiKeyAuthParameters": {"ApiKeyName": "k", "ApiKeyValue": "v"}}
    made = events.create_connection(Name="audit-rate", AuthorizationType="API_KEY", AuthParameters=keys)
    destination = events.create_api_destination(
        Name="audit-rate", ConnectionArn=made["ConnectionArn"], InvocationEndpoint=endpoint.url, HttpMethod="POST",
        InvocationRateLimitPerSecond=5,
    )["ApiDestinationArn"]  # fmt: skip
    events.put_rule(Name="audit-rate", EventPattern=json.dumps({"source": ["audit-rate"]}))
    target = {"Id": "1", "Arn": destination, "RoleArn": ROLE, "RetryPolicy": {"MaximumRetryAttempts": 0}}
    events.put_targets(Rule="audit-rate", Targets=[{**target, "DeadLetterConfig": {"Arn": dead}}])
    entries = [{"Source": "audit-rate", "DetailType": "d", "Detail": json.dumps({"n": n})} for n in range(10)]
    began = time.monotonic()
    events.put_events(Entries=entries)
    wait_for(lambda: len(endpoint.posts) == 10)
    assert time.monotonic() - began >= 9 / 5
    assert sorted(json.loads(body)["detail"]["n"] for _, body in endpoint.posts) == list(range(10))
    assert aws.client("sqs").receive_message(QueueUrl=url).get("Messages", []) == []


# -- delivery status logs ----------------------------------------------------------------------------------------------


def status_logs(aws, topic, failure=False):
    """The documents in a topic's log group, [] while there is none."""
    group = f"sns/us-east-1/{ACCOUNT}/{topic}" + ("/Failure" if failure else "")
    logs = aws.client("logs")
    try:
        return [json.loads(one["message"]) for one in logs.filter_log_events(logGroupName=group)["events"]]
    except logs.exceptions.ResourceNotFoundException:
        return []


def test_delivery_status_is_logged_for_queues_functions_and_endpoints(aws, endpoint):
    sns, name = aws.client("sns"), "audit-status"
    url, arn = queue(aws, name)
    attributes = {f"{kind}{end}FeedbackRoleArn": ROLE for kind in ("SQS", "Lambda", "HTTP") for end in (
        "Success", "Failure"
    )}  # fmt: skip
    attributes |= {"SQSSuccessFeedbackSampleRate": "100", "HTTPSuccessFeedbackSampleRate": "100"}
    topic = sns.create_topic(Name=name, Attributes=attributes)["TopicArn"]
    gone = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:audit-gone"
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    sns.subscribe(TopicArn=topic, Protocol="lambda", Endpoint=gone)
    sns.subscribe(TopicArn=topic, Protocol="http", Endpoint=endpoint.url)
    wait_for(lambda: endpoint.posts)
    sns.confirm_subscription(TopicArn=topic, Token=json.loads(endpoint.posts[0][1])["Token"])
    sent = sns.publish(TopicArn=topic, Message="m")["MessageId"]
    found = wait_for(lambda: len(good := status_logs(aws, name)) == 2 and good)
    by_target = {one["delivery"]["destination"]: one for one in found}
    assert set(by_target) == {arn, endpoint.url}
    for one in found:
        assert one["status"] == "SUCCESS" and one["notification"]["messageId"] == sent
        assert one["notification"]["messageMD5Sum"] == "6f8f57715090da2632453988d9a1501b"
        assert one["delivery"]["statusCode"] == 200 and one["delivery"]["attempts"] == 1
    taken = aws.client("sqs").receive_message(QueueUrl=url)["Messages"][0]["MessageId"]
    assert json.loads(by_target[arn]["delivery"]["providerResponse"]) == {"sqsMessageId": taken}
    (bad,) = wait_for(lambda: status_logs(aws, name, failure=True))
    assert (bad["status"], bad["delivery"]["destination"]) == ("FAILURE", gone)
    assert bad["delivery"]["statusCode"] == 404 and "audit-gone" in bad["delivery"]["providerResponse"]


def test_successes_are_sampled_and_failures_are_not(aws):
    sns, name = aws.client("sns"), "audit-sample"
    _, arn = queue(aws, name)
    given = {"SQSSuccessFeedbackRoleArn": ROLE, "SQSFailureFeedbackRoleArn": ROLE, "SQSSuccessFeedbackSampleRate": "30"}
    topic = sns.create_topic(Name=name, Attributes=given)["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn + "-gone")
    for _ in range(10):
        entries = [{"Id": str(number), "Message": "m"} for number in range(10)]
        sns.publish_batch(TopicArn=topic, PublishBatchRequestEntries=entries)
    wait_for(lambda: len(status_logs(aws, name, failure=True)) == 100)
    wait_for(lambda: len(status_logs(aws, name)) >= 8)
    assert len(status_logs(aws, name)) <= 60


def test_an_endpoint_that_is_away_is_logged_once_it_is_given_up(fresh_server):
    server, name = fresh_server(), "audit-away"
    sns = server.client("sns")
    attributes = {"HTTPFailureFeedbackRoleArn": ROLE}
    topic = sns.create_topic(Name=name, Attributes=attributes)["TopicArn"]
    endpoint = Endpoint()
    sns.subscribe(TopicArn=topic, Protocol="http", Endpoint=endpoint.url)
    wait_for(lambda: endpoint.posts)
    sns.confirm_subscription(TopicArn=topic, Token=json.loads(endpoint.posts[0][1])["Token"])
    endpoint.answers += [503] * 4
    sns.publish(TopicArn=topic, Message="m")
    wait_for(lambda: server.advance(21) or len(endpoint.posts) == 5)
    (bad,) = wait_for(lambda: status_logs(server, name, failure=True))
    assert (bad["delivery"]["attempts"], bad["delivery"]["statusCode"]) == (4, 503)
    assert bad["delivery"]["dwellTimeMs"] >= 60_000
    endpoint.close()


def test_a_feedback_role_has_to_trust_sns_and_to_be_let_in(enforced):
    sns = enforced.client("sns")
    _, arn = queue(enforced, "q", "sns.amazonaws.com")
    own = {"Effect": "Allow", "Principal": {"Service": "sns.amazonaws.com"}, "Action": "sts:AssumeRole"}
    trust = {"Version": "2012-10-17", "Statement": [own]}
    roles = {
        "good": enforced.role("good", allow("logs:*"), trust=trust),
        "strange": enforced.role("strange", allow("logs:*")),
        "weak": enforced.role("weak", allow("sqs:*"), trust=trust),
    }
    for name, role in roles.items():
        topic = sns.create_topic(Name=name, Attributes={"SQSSuccessFeedbackRoleArn": role})["TopicArn"]
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
        sns.publish(TopicArn=topic, Message=name)
    assert wait_for(lambda: status_logs(enforced, "good"))[0]["status"] == "SUCCESS"
    wait_for(lambda: enforced.log.read_text().count("was given up") >= 2)
    assert status_logs(enforced, "strange") == status_logs(enforced, "weak") == []

"""EventBridge's answers beside those that were recorded from AWS: codes, messages to the letter, members, effects."""

import json

import pytest

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Scope
from tests.unit.test_events import BUS, QUEUE, World

LONG = "much too long a name with spaces in it, of more than sixty-four characters"
ARN_PATTERN = r"^arn:aws([a-z]|\-)*:events:([a-z]|\d|\-)*:([0-9]{12})?:connection\/[\.\-_A-Za-z0-9]+\/[\-A-Za-z0-9]+$"
MANAGED = "Events-Archive-kept"
PERMISSION = {"Action": "events:PutEvents", "Principal": "111111111111", "StatementId": "s"}


@pytest.fixture
def world():
    return World()


def wrong(*members: tuple[str, str, str]) -> str:
    """AWS's text about members that break their constraints."""
    each = [
        f"Value '{found}' at '{at}' failed to satisfy constraint: Member must {rule}" for found, at, rule in members
    ]
    return f"{len(members)} validation error{'s' if len(members) > 1 else ''} detected: {'; '.join(each)}"


def pattern(text: str = r"[\.\-_A-Za-z0-9]+") -> str:
    return f"satisfy regular expression pattern: {text}"


REFUSED = [
    (
        "CreateConnection",
        {"Name": LONG, "AuthorizationType": "NONE", "AuthParameters": {}},
        "ValidationException",
        wrong(
            (LONG, "name", "have length less than or equal to 64"),
            (LONG, "name", pattern()),
            ("NONE", "authorizationType", "satisfy enum value set: [BASIC, OAUTH_CLIENT_CREDENTIALS, API_KEY]"),
        ),
    ),
    (
        "CreateApiDestination",
        {"Name": "d", "ConnectionArn": "nothing", "HttpMethod": "PULL", "InvocationEndpoint": "nowhere"},
        "ValidationException",
        wrong(
            ("nothing", "connectionArn", pattern(ARN_PATTERN)),
            ("PULL", "httpMethod", "satisfy enum value set: [HEAD, POST, PATCH, DELETE, PUT, GET, OPTIONS]"),
        ),
    ),
    (
        "PutTargets",
        {"Rule": "r", "Targets": [{"Id": "good", "Arn": QUEUE}, {"Id": "b a d", "Arn": QUEUE}]},
        "ValidationException",
        wrong(("b a d", "targets.2.member.id", pattern())),
    ),
    (
        "PutTargets",
        {"Rule": "r", "Targets": [{"Id": "i" * 65, "Arn": QUEUE}]},
        "ValidationException",
        wrong(("i" * 65, "targets.1.member.id", "have length less than or equal to 64")),
    ),
    (
        "PutTargets",
        {"Rule": "nowhere", "Targets": [{"Id": "a", "Arn": "arn:aws:s3:::b"}, {"Id": "b", "Arn": "b"}]},
        "ValidationException",
        "Parameter b is not valid. Reason: Provided Arn is not in correct format.",
    ),
    (
        "RemovePermission",
        {"StatementId": "nobody"},
        "ResourceNotFoundException",
        "Statement with the provided id does not exist.",
    ),
    (
        "PutPermission",
        {**PERMISSION, "Action": "events:PutPermission"},
        "ValidationException",
        "Provided value in parameter 'action' is not supported.",
    ),
    (
        "PutRule",
        {"Name": "s", "ScheduleExpression": "rate( 10 minutes )"},
        "ValidationException",
        "Parameter ScheduleExpression is not valid.",
    ),
    (
        "PutTargets",
        {"Rule": "nowhere", "Targets": [{"Id": "one", "Arn": f"{QUEUE}.fifo"}]},
        "ValidationException",
        "Parameter(s) SqsParameters must be specified for target: one.",
    ),
    (
        "CreateEventBus",
        {"Name": "aws.partner/x/y", "EventSourceName": "aws.partner/x/y"},
        "ResourceNotFoundException",
        "Event source aws.partner/x/y does not exist.",
    ),
    (
        "ListReplays",
        {"NamePrefix": "r", "State": "COMPLETED"},
        "ValidationException",
        "At most one filter is allowed for ListReplays. Use either : State, EventSourceArn, or NamePrefix.",
    ),
    (
        "DeleteRule",
        {"Name": MANAGED},
        "ManagedRuleException",
        f"{MANAGED} is a managed rule. Set 'force' parameter to true to override.",
    ),
    (
        "RemoveTargets",
        {"Rule": MANAGED, "Ids": [MANAGED]},
        "ManagedRuleException",
        f"{MANAGED} is a managed rule. Set 'force' parameter to true to override.",
    ),
]


@pytest.mark.parametrize(("operation", "params", "code", "message"), REFUSED)
def test_refused_in_the_words_of_aws(world, operation, params, code, message):
    world.events("PutRule", Name="r", EventPattern='{"a":["b"]}')
    world.events("CreateArchive", ArchiveName="kept", EventSourceArn=f"{BUS}default")
    with pytest.raises(AwsError) as caught:
        world.events(operation, **params)
    assert (caught.value.code, caught.value.message, caught.value.status) == (code, message, 400)


@pytest.mark.parametrize("operation", ["PutRule", "DisableRule", "PutTargets", "TagResource"])
def test_what_is_managed_is_nobody_elses_to_change(world, operation):
    world.events("CreateArchive", ArchiveName="kept", EventSourceArn=f"{BUS}default")
    params = {
        "PutRule": {"Name": MANAGED, "EventPattern": '{"a":["b"]}'},
        "DisableRule": {"Name": MANAGED},
        "PutTargets": {"Rule": MANAGED, "Targets": [{"Id": "1", "Arn": QUEUE}]},
        "TagResource": {"ResourceARN": f"{BUS}x".replace("event-bus/x", f"rule/{MANAGED}"), "Tags": []},
    }[operation]
    with pytest.raises(AwsError) as caught:
        world.events(operation, **params)
    assert caught.value.code == "ManagedRuleException"
    assert world.events("ListRules")["Rules"][0]["State"] == "ENABLED"


def test_too_many_entries_are_shown_as_aws_shows_them(world):
    entry = {"Source": "shop", "DetailType": "order", "Detail": '{"n": 1}', "EventBusName": "b", "Resources": ["x"]}
    with pytest.raises(AwsError) as caught:
        world.events("PutEvents", Entries=[entry, *[{"Source": "shop"}] * 10])
    first = (
        "PutEventsRequestEntry(time=null, source=shop, resources=[x], detailType=order, detail={\"n\": 1}, "
        "eventBusName=b, traceHeader=null, kmsKeyIdentifier=null, internalMetadata=null)"
    )
    rest = (
        "PutEventsRequestEntry(time=null, source=shop, resources=null, detailType=null, detail=null, "
        "eventBusName=null, traceHeader=null, kmsKeyIdentifier=null, internalMetadata=null)"
    )
    shown = ", ".join([first, *[rest] * 10])
    assert caught.value.message == wrong((f"[{shown}]", "entries", "have length less than or equal to 10"))


def test_the_event_without_its_detail_has_names_of_its_own(world):
    world.queue()
    template = '{"event": <aws.events.event>, "json": <aws.events.event.json>}'
    world.rule({"source": ["shop"]}, {"Arn": QUEUE, "InputTransformer": {"InputTemplate": template}})
    world.put({"n": 1})
    (body,) = world.bodies()
    assert list(body["event"]) == [
        "id", "account", "detailType", "time", "source", "region", "resources", "version"
    ]  # fmt: skip
    assert (body["event"]["detailType"], body["event"]["id"]) == ("order", body["json"]["id"])
    assert body["json"]["detail"] == {"n": 1}


@pytest.mark.parametrize(("region", "same"), [("us-east-1", True), ("eu-west-1", False)])
def test_an_event_that_crosses_into_another_region_gets_an_id_of_its_own(world, region, same):
    there = f"arn:aws:events:{region}:000000000000:event-bus/there"
    world.rule({"source": ["shop"]}, {"Arn": there})
    world.scope = Scope(region=region)
    world.events("CreateEventBus", Name="there")
    world.queue()
    world.rule({"source": ["shop"]}, {"Arn": QUEUE.replace("us-east-1", region)}, name="on", EventBusName="there")
    world.scope = Scope()
    sent = world.put({"n": 1})["Entries"][0]["EventId"]
    world.scope = Scope(region=region)
    (event,) = world.bodies()
    assert (event["id"] == sent, event["region"], event["detail"]) == (same, "us-east-1", {"n": 1})


def test_an_archive_has_a_rule_that_force_takes_away(world):
    world.events(
        "CreateArchive", ArchiveName="kept", EventSourceArn=f"{BUS}default", EventPattern='{"source":["shop"]}'
    )
    (rule,) = world.events("ListRules")["Rules"]
    assert (rule["Name"], rule["ManagedBy"]) == (MANAGED, "prod.vhs.events.aws.internal")
    assert json.loads(rule["EventPattern"]) == {"source": ["shop"], "replay-name": [{"exists": False}]}
    (target,) = world.events("ListTargetsByRule", Rule=MANAGED)["Targets"]
    assert (target["Arn"], target["InputTransformer"]["InputPathsMap"]) == ("arn:aws:events:us-east-1:::", {})
    template = target["InputTransformer"]["InputTemplate"]
    assert '"event": <aws.events.event.json>, "ingestion-time": <aws.events.event.ingestion-time>' in template

    world.put({"n": 1})
    world.events("RemoveTargets", Rule=MANAGED, Ids=[MANAGED], Force=True)
    world.put({"n": 2})
    archive = world.events("DescribeArchive", ArchiveName="kept")
    assert (archive["State"], archive["EventCount"]) == ("DISABLED", 1)
    world.events("DeleteRule", Name=MANAGED, Force=True)
    assert world.events("ListRules")["Rules"] == []
    world.events("DeleteArchive", ArchiveName="kept")
    world.events("CreateArchive", ArchiveName="kept", EventSourceArn=f"{BUS}default")
    assert world.events("DescribeRule", Name=MANAGED)["State"] == "ENABLED"


def test_the_default_bus_tells_since_when_it_is_there(world):
    (listed,) = world.events("ListEventBuses")["EventBuses"]
    world.advance(60)
    shown = world.events("DescribeEventBus")
    assert shown == listed == {
        "Name": "default", "Arn": f"{BUS}default", "CreationTime": shown["LastModifiedTime"],
        "LastModifiedTime": listed["CreationTime"],
    }  # fmt: skip

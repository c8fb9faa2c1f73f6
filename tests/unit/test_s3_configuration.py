"""S3 without a socket: notifications and what is configured on a bucket."""

import hashlib
import json

import pytest

from preheat.services.s3 import domain
from preheat.services.s3.service import build
from tests.support.inprocess import InProcess
from tests.unit.test_s3 import LARGE, refused, s3

QUEUE = "arn:aws:sqs:us-east-1:000000000000:q"
FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:f"


@pytest.fixture
def world():
    made = InProcess(build)
    made("s3", "CreateBucket", Bucket="bucket")
    return made


def events(world):
    rows = world.db.all("SELECT payload FROM due WHERE kind = 'deliver' ORDER BY id")
    return [json.loads(row["payload"]) for row in rows]


def configure(world, **configuration):
    return s3(
        world, "PutBucketNotificationConfiguration", NotificationConfiguration=configuration,
        SkipDestinationValidation=True,
    )  # fmt: skip


def rule(name, value):
    return {"Key": {"FilterRules": [{"Name": name, "Value": value}]}}


def test_events_go_out_with_the_write(world):
    configure(
        world,
        QueueConfigurations=[
            {"Id": "q", "QueueArn": QUEUE, "Events": ["s3:ObjectCreated:*"], "Filter": rule("prefix", "in/")}
        ],
        LambdaFunctionConfigurations=[{"LambdaFunctionArn": FUNCTION, "Events": ["s3:ObjectRemoved:Delete"]}],
    )  # fmt: skip
    test_event = json.loads(events(world)[0]["body"])
    assert (len(events(world)), test_event["Event"], test_event["Bucket"]) == (1, "s3:TestEvent", "bucket")
    s3(world, "PutObject", Key="out/x", Body=b"1")
    assert len(events(world)) == 1
    s3(world, "PutObject", Key="in/a b+ü", Body=b"12")
    s3(world, "CopyObject", Key="in/large", CopySource="bucket/in/a%20b%2B%C3%BC")
    s3(world, "DeleteObject", Key="absent")
    s3(world, "DeleteObject", Key="in/large")
    sent = events(world)[1:]
    assert [event["target"] for event in sent] == [QUEUE, QUEUE, FUNCTION]
    assert sent[0]["source_arn"] == "arn:aws:s3:::bucket" and sent[0]["source_service"] == "s3.amazonaws.com"
    records = [json.loads(event["body"])["Records"][0] for event in sent]
    assert [record["eventName"] for record in records] == [
        "ObjectCreated:Put", "ObjectCreated:Copy", "ObjectRemoved:Delete",
    ]  # fmt: skip
    entity = records[0]["s3"]["object"]
    assert (entity["key"], entity["size"], entity["eTag"]) == ("in/a+b%2B%C3%BC", 2, hashlib.md5(b"12").hexdigest())
    assert records[0]["s3"]["configurationId"] == "q"
    assert set(records[2]["s3"]["object"]) == {"key", "sequencer"}
    sequence = [record["s3"]["object"]["sequencer"] for record in records]
    assert sequence == sorted(sequence) and len(set(sequence)) == 3
    assert set(records[0]) == {
        "eventVersion", "eventSource", "awsRegion", "eventTime", "eventName", "userIdentity", "requestParameters",
        "responseElements", "s3",
    }  # fmt: skip


def test_a_refused_write_tells_nobody(world):
    configure(world, QueueConfigurations=[{"QueueArn": QUEUE, "Events": ["s3:ObjectCreated:*"]}])
    before = len(events(world))
    refused(world, "PutObject", Key="k", Body=b"1", ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg==")
    refused(world, "PutObject", Key="k", Body=LARGE, ChecksumCRC32="AAAAAA==")
    assert len(events(world)) == before


def test_what_is_configured_is_shown_and_taken_away(world):
    given = {"Id": "one", "QueueArn": QUEUE, "Events": ["s3:ObjectCreated:Put"], "Filter": rule("suffix", ".pdf")}
    configure(world, QueueConfigurations=[given])
    shown = s3(world, "GetBucketNotificationConfiguration")
    assert shown["QueueConfigurations"][0] | {"Filter": None} == given | {"Filter": None}
    assert shown["QueueConfigurations"][0]["Filter"]["Key"]["FilterRules"] == [{"Name": "Suffix", "Value": ".pdf"}]
    configure(world)
    assert s3(world, "GetBucketNotificationConfiguration") == {}


@pytest.mark.parametrize(
    ("configuration", "code"),
    [
        ({"QueueConfigurations": [{"QueueArn": "nonsense", "Events": ["s3:ObjectCreated:*"]}]}, "InvalidArgument"),
        ({"QueueConfigurations": [{"QueueArn": FUNCTION, "Events": ["s3:ObjectCreated:*"]}]}, "InvalidArgument"),
        ({"QueueConfigurations": [{"QueueArn": QUEUE + ".fifo", "Events": ["s3:ObjectCreated:*"]}]}, "InvalidArgument"),
        ({"QueueConfigurations": [{"QueueArn": QUEUE, "Events": ["s3:Nothing"]}]}, "InvalidArgument"),
        ({"QueueConfigurations": [{"QueueArn": QUEUE, "Events": ["s3:LifecycleTransition"]}]}, "NotImplemented"),
        (
            {
                "QueueConfigurations": [
                    {"QueueArn": QUEUE, "Events": ["s3:ObjectCreated:*"], "Filter": rule("regex", "a")}
                ]
            },
            "InvalidArgument",
        ),
        (
            {
                "QueueConfigurations": [{"QueueArn": QUEUE, "Events": ["s3:ObjectCreated:*"]}],
                "LambdaFunctionConfigurations": [{"LambdaFunctionArn": FUNCTION, "Events": ["s3:ObjectCreated:Put"]}],
            },
            "InvalidArgument",
        ),
    ],
)
def test_notifications_that_cannot_be(world, configuration, code):
    error = refused(
        world, "PutBucketNotificationConfiguration", NotificationConfiguration=configuration,
        SkipDestinationValidation=True,
    )  # fmt: skip
    assert error.code == code


def test_a_destination_must_exist(world):
    error = refused(
        world, "PutBucketNotificationConfiguration",
        NotificationConfiguration={"QueueConfigurations": [{"QueueArn": QUEUE, "Events": ["s3:ObjectCreated:*"]}]},
    )  # fmt: skip
    assert error.message == "Unable to validate the following destination configurations"
    assert error.fields["ArgumentName"] == QUEUE


# -- configuration ----------------------------------------------------------------------------------------------------


def test_configuration_that_is_not_there(world):
    for kind, code in (
        ("Cors", "NoSuchCORSConfiguration"), ("Tagging", "NoSuchTagSet"), ("Policy", "NoSuchBucketPolicy"),
    ):  # fmt: skip
        error = refused(world, f"GetBucket{kind}")
        assert (error.code, error.status) == (code, 404)
    s3(world, "DeletePublicAccessBlock")
    assert refused(world, "GetPublicAccessBlock").code == "NoSuchPublicAccessBlockConfiguration"
    rules = s3(world, "GetBucketEncryption")["ServerSideEncryptionConfiguration"]["Rules"]
    assert rules[0]["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    assert s3(world, "GetBucketVersioning") == {}


@pytest.mark.parametrize(
    ("operation", "params", "code"),
    [
        ("PutBucketPolicy", {"Policy": "{"}, "MalformedPolicy"),
        ("PutBucketPolicy", {"Policy": json.dumps({"Statement": [{"Effect": "Allow"}]})}, "MalformedPolicy"),
        ("PutBucketCors", {"CORSConfiguration": {"CORSRules": []}}, "MalformedXML"),
        (
            "PutBucketCors",
            {"CORSConfiguration": {"CORSRules": [{"AllowedOrigins": ["*"], "AllowedMethods": ["PATCH"]}]}},
            "InvalidRequest",
        ),
        ("PutBucketVersioning", {"VersioningConfiguration": {"Status": "Enabled"}}, "NotImplemented"),
        ("PutBucketOwnershipControls", {"OwnershipControls": {"Rules": []}}, "MalformedXML"),
        ("PutBucketAcl", {"ACL": "public-read"}, "AccessControlListNotSupported"),
    ],
)
def test_configuration_that_cannot_be(world, operation, params, code):
    assert refused(world, operation, **params).code == code


@pytest.mark.parametrize(
    ("origin", "method", "headers", "allowed"),
    [
        ("https://a.example", "GET", [], True),
        ("https://a.example", "PUT", [], False),
        ("https://b.other", "GET", [], False),
        ("https://a.example", "GET", ["X-Amz-Date"], True),
        ("https://a.example", "GET", ["Authorization"], False),
    ],
)
def test_cors(origin, method, headers, allowed):
    rules = [
        {
            "AllowedOrigins": ["https://*.example"], "AllowedMethods": ["GET", "HEAD"], "AllowedHeaders": ["x-amz-*"],
            "ExposeHeaders": ["ETag"], "MaxAgeSeconds": 9,
        }
    ]  # fmt: skip
    answer = domain.cors_headers(rules, origin, method, headers)
    assert (answer is not None) is allowed
    if answer is not None:
        assert answer["Access-Control-Allow-Origin"] == origin
        assert answer["Access-Control-Max-Age"] == "9"
        assert domain.cors_headers([{"AllowedOrigins": ["*"], "AllowedMethods": ["GET"]}], origin, "GET") == {
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Allow-Methods": "GET",
            "Vary": "Origin, Access-Control-Request-Headers, Access-Control-Request-Method",
        }

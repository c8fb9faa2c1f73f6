"""What happens in a bucket reaches the default bus, when the bucket says so."""

import pytest

from preheat.services.s3.service import build as build_s3
from tests.unit.test_events import QUEUE, World


@pytest.fixture
def world(tmp_path):
    world = World(directory=tmp_path)
    world.machine.add_service(build_s3(world.platform))
    world.queue()
    world.rule({"source": ["aws.s3"], "detail": {"bucket": {"name": ["docs"]}}}, {"Arn": QUEUE})
    world("s3", "CreateBucket", Bucket="docs")
    return world


def test_objects_put_tagged_and_deleted(world):
    world("s3", "PutObject", Bucket="docs", Key="before", Body=b"x")
    configuration = {"EventBridgeConfiguration": {}}
    world("s3", "PutBucketNotificationConfiguration", Bucket="docs", NotificationConfiguration=configuration)
    assert world("s3", "GetBucketNotificationConfiguration", Bucket="docs") == configuration
    world("s3", "PutObject", Bucket="docs", Key="a b/ü.pdf", Body=b"text")
    world("s3", "PutObjectTagging", Bucket="docs", Key="a b/ü.pdf", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    world("s3", "CopyObject", Bucket="docs", Key="copy", CopySource="docs/before")
    world("s3", "DeleteObject", Bucket="docs", Key="copy")
    world.settle()
    events = {(event["detail-type"], event["detail"].get("reason")): event for event in world.bodies()}
    assert set(events) == {
        ("Object Created", "PutObject"), ("Object Tags Added", None), ("Object Created", "CopyObject"),
        ("Object Deleted", "DeleteObject"),
    }  # fmt: skip
    created = events["Object Created", "PutObject"]
    assert (created["source"], created["resources"]) == ("aws.s3", ["arn:aws:s3:::docs"])
    entity = created["detail"]["object"]
    assert (entity["key"], entity["size"]) == ("a b/ü.pdf", 4)
    assert entity["etag"] == "1cb251ec0d568de6a929b520c4aed8d1"
    assert created["detail"]["bucket"] == {"name": "docs"}
    assert events["Object Deleted", "DeleteObject"]["detail"]["deletion-type"] == "Permanently Deleted"


def test_switched_off_again(world):
    for configuration in ({"EventBridgeConfiguration": {}}, {}):
        world("s3", "PutBucketNotificationConfiguration", Bucket="docs", NotificationConfiguration=configuration)
    world("s3", "PutObject", Bucket="docs", Key="k", Body=b"x")
    world.settle()
    assert world.bodies() == []

"""S3 through boto3 over a socket."""

import hashlib
import io
import json
import urllib.request
import uuid

import boto3.s3.transfer
import pytest
from botocore.exceptions import ClientError

from tests.support.server import wait_for

MIB = 1 << 20


@pytest.fixture(scope="module")
def s3(aws):
    return aws.client("s3")


@pytest.fixture
def bucket(s3):
    name = f"b-{uuid.uuid4()}"
    s3.create_bucket(Bucket=name)
    return name


def code(caught) -> tuple[str, int]:
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def test_put_get_head_delete(s3, bucket):
    put = s3.put_object(
        Bucket=bucket, Key="a/ü b+c.txt", Body=b"hello", ContentType="text/plain; charset=utf-8",
        Metadata={"Color": "red"}, CacheControl="no-store", ContentLanguage="de", Tagging="a=1&b=2",
    )  # fmt: skip
    assert put["ETag"] == f'"{hashlib.md5(b"hello").hexdigest()}"'
    got = s3.get_object(Bucket=bucket, Key="a/ü b+c.txt")
    assert got["Body"].read() == b"hello"
    assert (got["ContentType"], got["CacheControl"], got["ContentLanguage"]) == (
        "text/plain; charset=utf-8", "no-store", "de",
    )  # fmt: skip
    assert (got["Metadata"], got["TagCount"], got["AcceptRanges"]) == ({"color": "red"}, 2, "bytes")
    head = s3.head_object(Bucket=bucket, Key="a/ü b+c.txt")
    assert (head["ContentLength"], head["ETag"]) == (5, put["ETag"])
    s3.delete_object(Bucket=bucket, Key="a/ü b+c.txt")
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=bucket, Key="a/ü b+c.txt")
    assert code(caught) == ("NoSuchKey", 404)
    assert caught.value.response["Error"]["Key"] == "a/ü b+c.txt"
    with pytest.raises(ClientError) as caught:
        s3.head_object(Bucket=bucket, Key="a/ü b+c.txt")
    assert code(caught) == ("404", 404)
    s3.delete_bucket(Bucket=bucket)


def test_a_large_body_and_its_ranges(s3, bucket):
    body = bytes(range(256)) * 4_000
    s3.put_object(Bucket=bucket, Key="large", Body=body)
    assert s3.get_object(Bucket=bucket, Key="large")["Body"].read() == body
    part = s3.get_object(Bucket=bucket, Key="large", Range="bytes=1000-1999")
    assert part["Body"].read() == body[1000:2000]
    assert part["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert part["ContentRange"] == f"bytes 1000-1999/{len(body)}"
    assert s3.get_object(Bucket=bucket, Key="large", Range="bytes=-7")["Body"].read() == body[-7:]
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=bucket, Key="large", Range=f"bytes={len(body)}-")
    assert code(caught) == ("InvalidRange", 416)
    assert caught.value.response["Error"]["ActualObjectSize"] == str(len(body))


def test_conditions(s3, bucket):
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"1")["ETag"]
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=bucket, Key="k", IfNoneMatch=etag)
    assert code(caught) == ("304", 304)
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=bucket, Key="k", IfMatch='"other"')
    assert code(caught) == ("PreconditionFailed", 412)
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfNoneMatch="*")
    assert code(caught) == ("PreconditionFailed", 412)
    assert caught.value.response["Error"]["Condition"] == "If-None-Match"
    s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfMatch=etag)
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=bucket, Key="absent", Body=b"2", IfMatch=etag)
    assert code(caught) == ("NoSuchKey", 404)


def test_listing(s3, bucket):
    for key in ("a.txt", "dir/one", "dir/two", "dir/sub/three", "z &<>é.txt"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    listed = s3.list_objects_v2(Bucket=bucket, Delimiter="/")
    assert [entry["Key"] for entry in listed["Contents"]] == ["a.txt", "z &<>é.txt"]
    assert [entry["Prefix"] for entry in listed["CommonPrefixes"]] == ["dir/"]
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": 2})
    assert [entry["Key"] for page in pages for entry in page["Contents"]] == [
        "a.txt", "dir/one", "dir/sub/three", "dir/two", "z &<>é.txt",
    ]  # fmt: skip
    old = s3.list_objects(Bucket=bucket, Prefix="dir/", Delimiter="/", MaxKeys=1)
    assert (old["IsTruncated"], old["NextMarker"]) == (True, "dir/one")
    versions = s3.list_object_versions(Bucket=bucket, Prefix="a")["Versions"]
    assert [(entry["Key"], entry["VersionId"], entry["IsLatest"]) for entry in versions] == [("a.txt", "null", True)]
    deleted = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "a.txt"}, {"Key": "absent"}]})
    assert [entry["Key"] for entry in deleted["Deleted"]] == ["a.txt", "absent"]
    with pytest.raises(ClientError) as caught:
        s3.delete_bucket(Bucket=bucket)
    assert code(caught) == ("BucketNotEmpty", 409)


def test_boto3_transfers_in_parts(s3, bucket):
    body = bytes(range(251)) * 50_000
    config = boto3.s3.transfer.TransferConfig(
        multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB, max_concurrency=2
    )
    s3.upload_fileobj(io.BytesIO(body), bucket, "mp", Config=config, ExtraArgs={"Metadata": {"a": "b"}})
    head = s3.head_object(Bucket=bucket, Key="mp")
    assert head["ETag"].endswith('-3"')
    assert (head["ContentLength"], head["Metadata"]) == (len(body), {"a": "b"})
    down = io.BytesIO()
    s3.download_fileobj(bucket, "mp", down, Config=config)
    assert down.getvalue() == body
    s3.copy({"Bucket": bucket, "Key": "mp"}, bucket, "copied", Config=config)
    assert s3.get_object(Bucket=bucket, Key="copied")["Body"].read() == body
    s3.copy_object(Bucket=bucket, Key="whole", CopySource={"Bucket": bucket, "Key": "mp"})
    assert s3.head_object(Bucket=bucket, Key="whole")["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
    sizes = s3.get_object_attributes(Bucket=bucket, Key="mp", ObjectAttributes=["ObjectParts", "ObjectSize", "ETag"])
    assert (sizes["ObjectParts"]["TotalPartsCount"], sizes["ObjectSize"]) == (3, len(body))


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA1", "SHA256"])
def test_checksums_that_boto3_sends_and_verifies(s3, bucket, algorithm):
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"payload", ChecksumAlgorithm=algorithm)
    got = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert got["Body"].read() == b"payload"
    assert got[f"Checksum{algorithm}"] == put[f"Checksum{algorithm}"]


def test_bad_digests(s3, bucket):
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=bucket, Key="k", Body=b"payload", ChecksumCRC32="AAAAAA==")
    assert code(caught) == ("BadDigest", 400)
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=bucket, Key="k", Body=b"payload", ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg==")
    assert code(caught) == ("BadDigest", 400)
    with pytest.raises(ClientError) as caught:
        s3.head_object(Bucket=bucket, Key="k")
    assert code(caught) == ("404", 404)


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_presigned_urls(aws, bucket, version):
    client = aws.client("s3", signature_version=version)
    put = client.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "k é"}, ExpiresIn=60)
    request = urllib.request.Request(put, data=b"body", method="PUT", headers={"Content-Type": ""})
    assert urllib.request.urlopen(request).status == 200
    get = client.generate_presigned_url(
        "get_object", Params={"Bucket": bucket, "Key": "k é", "ResponseContentType": "text/x"}, ExpiresIn=60
    )
    with urllib.request.urlopen(get) as answer:
        assert (answer.read(), answer.headers["Content-Type"]) == (b"body", "text/x")


def test_configuration_of_a_bucket(s3, bucket):
    rules = [{"AllowedOrigins": ["https://a.example"], "AllowedMethods": ["GET"], "MaxAgeSeconds": 5}]
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": rules})
    assert s3.get_bucket_cors(Bucket=bucket)["CORSRules"] == rules
    s3.delete_bucket_cors(Bucket=bucket)
    with pytest.raises(ClientError) as caught:
        s3.get_bucket_cors(Bucket=bucket)
    assert code(caught) == ("NoSuchCORSConfiguration", 404)
    text = json.dumps({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*"}
    ]})  # fmt: skip
    s3.put_bucket_policy(Bucket=bucket, Policy=text)
    assert json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"]) == json.loads(text)
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == [{"Key": "a", "Value": "b"}]
    assert s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]["BlockPublicAcls"] is True
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None
    with pytest.raises(ClientError) as caught:
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    assert code(caught) == ("NotImplemented", 501)


def test_state_survives_a_kill(fresh_server):
    server = fresh_server()
    s3 = server.client("s3")
    s3.create_bucket(Bucket="kept-bucket")
    s3.put_object(Bucket="kept-bucket", Key="small", Body=b"small")
    s3.put_object(Bucket="kept-bucket", Key="large", Body=b"large" * 100_000)
    server.kill()
    server.start()
    assert s3.get_object(Bucket="kept-bucket", Key="small")["Body"].read() == b"small"
    assert s3.get_object(Bucket="kept-bucket", Key="large")["Body"].read() == b"large" * 100_000


def test_an_upload_is_announced_on_a_queue(aws, s3, bucket):
    sqs = aws.client("sqs")
    url = sqs.create_queue(QueueName=f"q-{uuid.uuid4()}")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    wanted = {"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={"QueueConfigurations": [wanted]})
    s3.put_object(Bucket=bucket, Key="in/a b.txt", Body=b"hello")
    seen: list[dict] = []

    def received():
        for message in sqs.receive_message(QueueUrl=url, WaitTimeSeconds=2).get("Messages", []):
            seen.append(json.loads(message["Body"]))
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return len(seen) == 2

    wait_for(received, what="the test event and the upload's event")
    record = next(event["Records"][0] for event in seen if "Records" in event)
    assert (record["eventName"], record["s3"]["object"]["key"]) == ("ObjectCreated:Put", "in/a+b.txt")
    assert any(event.get("Event") == "s3:TestEvent" for event in seen)
    with pytest.raises(ClientError) as caught:
        absent = {"QueueConfigurations": [{**wanted, "QueueArn": arn + "-absent"}]}
        s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=absent)
    assert code(caught) == ("InvalidArgument", 400)

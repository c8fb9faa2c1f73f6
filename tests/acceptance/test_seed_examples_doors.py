"""Examples of the documents about what stands in front of a function: URLs, HTTP APIs, rate limits, buckets, presigned
uploads; and about keys and large files. docs/EXAMPLES.md is the list."""

import io
import json
import urllib.parse

import pytest
from boto3.s3.transfer import TransferConfig

from tests.support.lab import ACCOUNT, Door, Lab
from tests.support.server import wait_for

GREET = """
def handler(event, context):
    who = event.get("name", "World")
    return {"statusCode": 200, "body": f"Hello, {who}!"}
"""


@pytest.fixture
def lab(aws, request):
    return Lab.of(aws, request)


def test_a_function_url_opens_without_an_api(lab):
    name = lab.function(GREET)
    cors = {"AllowOrigins": ["https://shop.example"], "AllowMethods": ["GET"]}
    url = lab.functions.create_function_url_config(FunctionName=name, AuthType="NONE", Cors=cors)["FunctionUrl"]
    lab.functions.add_permission(
        FunctionName=name, StatementId="everybody", Action="lambda:InvokeFunctionUrl", Principal="*",
        FunctionUrlAuthType="NONE",
    )  # fmt: skip
    host = {"Host": urllib.parse.urlsplit(url).netloc}
    status, headers, body = lab.server.get("/", headers={**host, "Origin": "https://shop.example"})
    headers = {key.lower(): value for key, value in headers.items()}
    assert (status, body, headers["access-control-allow-origin"]) == (200, b"Hello, World!", "https://shop.example")
    lab.functions.update_function_url_config(FunctionName=name, AuthType="AWS_IAM")
    assert lab.server.get("/", headers=host)[0] == 403


GATEWAY = """
import json

def handler(event, context):
    method = event["httpMethod"]
    params = event.get("queryStringParameters") or {}
    headers = event.get("headers") or {}
    kind = headers.get("content-type") or headers.get("Content-Type")
    body = event.get("body")
    data = json.loads(body) if body and kind == "application/json" else {}
    user = (event.get("pathParameters") or {}).get("id")
    if method == "POST":
        made = {"name": data["name"], "role": params["role"], "path": event["path"],
                "encoded": event["isBase64Encoded"], "auth": headers.get("authorization")}
        return {"statusCode": 201, "headers": {"Content-Type": "application/json"}, "body": json.dumps(made)}
    if method == "GET":
        answer = {"user_id": user, "page": params.get("page", "1")}
        return {"statusCode": 200, "headers": {"Content-Type": "application/json"}, "body": json.dumps(answer)}
    return {"statusCode": 405, "body": "Method not allowed"}
"""


def test_http_requests_become_events_and_answers(lab):
    door = Door(lab)
    door.route(lab.function(GATEWAY), "ANY /users", "GET /users/{id}", payload="1.0")
    status, headers, body = door.call("POST", "/users?role=admin", {"name": "Alice"}, Authorization="Bearer x")
    assert (status, headers["content-type"]) == (201, "application/json")
    assert json.loads(body) == {
        "name": "Alice", "role": "admin", "path": "/users", "encoded": False, "auth": "Bearer x",
    }  # fmt: skip
    status, _, body = door.call("GET", "/users/123?page=4")
    assert (status, json.loads(body)) == (200, {"user_id": "123", "page": "4"})
    status, _, body = door.call("DELETE", "/users")
    assert (status, body) == (405, b"Method not allowed")
    assert door.call("GET", "/elsewhere")[0] == 404


def test_a_rate_limit_spares_the_function(lab):
    settings = {"GET /costly": {"ThrottlingRateLimit": 1.0, "ThrottlingBurstLimit": 2}}
    door = Door(lab)
    name = lab.function(GREET)
    door.route(name, "GET /costly", "GET /cheap")
    door.gateway.update_stage(ApiId=door.id, StageName="$default", RouteSettings=settings)
    answers = [door.call("GET", "/costly") for _ in range(12)]
    refused = [body for status, _, body in answers if status == 429]
    assert len(refused) >= 6 and set(refused) == {b'{"message":"Too Many Requests"}'}
    assert all(door.call("GET", "/cheap")[0] == 200 for _ in range(12))
    passed = 24 - len(refused)
    wait_for(lambda: len(lab.lines(name, "REPORT ")) == passed, what=f"{passed} runs")


WATCH = """
import os
from urllib.parse import unquote_plus
import boto3
s3 = boto3.client("s3")

def made(bucket, key, size):
    text = s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode()
    s3.put_object(Bucket=bucket, Key="thumbs/" + key, Body=f"{size}:{text}")

def gone(bucket, key):
    s3.delete_object(Bucket=bucket, Key="thumbs/" + key)

def handler(event, context):
    for record in event["Records"]:
        name = record["eventName"]
        bucket = record["s3"]["bucket"]["name"]
        key = unquote_plus(record["s3"]["object"]["key"])
        if name.startswith("ObjectCreated"):
            made(bucket, key, record["s3"]["object"]["size"])
        elif name.startswith("ObjectRemoved"):
            gone(bucket, key)
"""


def test_a_bucket_starts_a_function(lab):
    name, bucket = lab.function(WATCH), lab.bucket()
    arn = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:{name}"
    lab.functions.add_permission(
        FunctionName=name, StatementId="s3", Action="lambda:InvokeFunction", Principal="s3.amazonaws.com",
        SourceArn=f"arn:aws:s3:::{bucket}",
    )  # fmt: skip
    rules = [{"Name": "prefix", "Value": "uploads/"}, {"Name": "suffix", "Value": ".jpg"}]
    events = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
    wanted = {"LambdaFunctionArn": arn, "Events": events, "Filter": {"Key": {"FilterRules": rules}}}
    lab.s3.put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration={"LambdaFunctionConfigurations": [wanted]}
    )

    def thumbs():
        listed = lab.s3.list_objects_v2(Bucket=bucket, Prefix="thumbs/")
        return [item["Key"] for item in listed.get("Contents", ())]

    for key in ("uploads/doc.pdf", "images/photo.jpg", "uploads/my photo+ü.jpg"):
        lab.s3.put_object(Bucket=bucket, Key=key, Body=b"pixels")
    wait_for(thumbs, what="a thumbnail")
    assert thumbs() == ["thumbs/uploads/my photo+ü.jpg"]
    assert lab.s3.get_object(Bucket=bucket, Key=thumbs()[0])["Body"].read() == b"6:pixels"
    lab.s3.delete_object(Bucket=bucket, Key="uploads/my photo+ü.jpg")
    wait_for(lambda: not thumbs(), what="the thumbnail's end")
    wait_for(lambda: len(lab.lines(name, "REPORT ")) == 2, what="two runs, no more")


def test_keys_prefixes_and_large_files(lab, tmp_path):
    bucket = lab.bucket()
    keys = ["models/v1/classifier.pkl", "models/v2/classifier.pkl", "uploads/user123/2025-01-15_document.pdf"]
    for key in keys:
        lab.s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
        assert lab.s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode()
    listed = lab.s3.list_objects_v2(Bucket=bucket, Prefix="models/")
    assert [item["Key"] for item in listed["Contents"]] == keys[:2]
    listed = lab.s3.list_objects_v2(Bucket=bucket, Prefix="models/", Delimiter="/")
    assert [item["Prefix"] for item in listed["CommonPrefixes"]] == ["models/v1/", "models/v2/"]
    assert "Contents" not in listed
    lab.s3.delete_object(Bucket=bucket, Key=keys[0])
    with pytest.raises(lab.s3.exceptions.NoSuchKey):
        lab.s3.get_object(Bucket=bucket, Key=keys[0])
    large = tmp_path / "large_model.tar.gz"
    large.write_bytes(bytes(range(256)) * (12 * 4096 + 1))
    config = TransferConfig(multipart_threshold=10 * 1024**2, multipart_chunksize=5 * 1024**2, max_concurrency=10)
    lab.s3.upload_file(str(large), bucket, "models/large", Config=config)
    head = lab.s3.head_object(Bucket=bucket, Key="models/large")
    assert head["ContentLength"] == large.stat().st_size and head["ETag"].endswith('-3"')
    back = io.BytesIO()
    lab.s3.download_fileobj(bucket, "models/large", back)
    assert back.getvalue() == large.read_bytes()


PRESIGN = """
import json
import os
import uuid
import boto3
s3 = boto3.client("s3")

def handler(event, context):
    key = f"uploads/{uuid.uuid4()}/{json.loads(event['body'])['filename']}"
    url = s3.generate_presigned_url(
        "put_object", Params={"Bucket": os.environ["BUCKET"], "Key": key}, ExpiresIn=3600)
    return {"statusCode": 200, "body": json.dumps({"upload_url": url, "key": key})}
"""


def test_a_client_uploads_with_a_presigned_url(lab):
    bucket, door = lab.bucket(), Door(lab)
    door.route(lab.function(PRESIGN, variables={"BUCKET": bucket}), "POST /get-upload-url")
    status, _, body = door.call("POST", "/get-upload-url", {"filename": "doc.pdf"})
    answer = json.loads(body)
    assert status == 200 and "Signature=" in answer["upload_url"] and "Expires=" in answer["upload_url"]
    target = urllib.parse.urlsplit(answer["upload_url"])
    path, host = f"{target.path}?{target.query}", {"Host": target.netloc}
    assert lab.server.get(path, "PUT", b"content", host)[0] == 200
    assert lab.s3.get_object(Bucket=bucket, Key=answer["key"])["Body"].read() == b"content"
    assert lab.server.get(path.replace("doc.pdf", "other.pdf"), "PUT", b"content", host)[0] == 403

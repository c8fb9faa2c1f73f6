"""Forms that browsers post to a bucket: what boto3's generate_presigned_post signs is kept to, in AWS's words. The
server enforces policies, so that every signature is verified."""

import base64
import hashlib
import json
import re
import uuid
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import unescape

import pytest

from tests.acceptance.test_iam_enforced import EnforcedServer, allow, document
from tests.support.forms import BOUNDARY, posted
from tests.support.server import wait_for

EMPTY = {"expiration": "2099-01-01T00:00:00Z", "conditions": []}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = EnforcedServer(tmp_path_factory.mktemp("forms") / "state").start()
    yield server
    assert server.stop() == 0, server.log.read_text()[-4000:]
    assert "defect in" not in server.log.read_text(), server.log.read_text()[-4000:]


@pytest.fixture(scope="module", params=[{"signature_version": "s3v4"}, {}], ids=["version 4", "boto3's own choice"])
def s3(server, request):
    return server.client("s3", **request.param)


@pytest.fixture
def bucket(s3):
    name = f"b-{uuid.uuid4()}"
    s3.create_bucket(Bucket=name)
    return name


def place(s3, bucket, key="docs/a.txt", fields=None, conditions=(), seconds=60):
    """(url, fields) of an upload; every given field is a condition too."""
    rules = [{name: value} for name, value in (fields or {}).items()]
    made = s3.generate_presigned_post(bucket, key, dict(fields or {}), [*rules, *conditions], seconds)
    return made["url"], made["fields"]


def refusal(answer):
    status = answer[0]
    return status, told(answer, "Code"), told(answer, "Message")


def told(answer, name):
    return unescape(re.search(f"<{name}>(.*)</{name}>", answer[2])[1], {"&quot;": '"', "&apos;": "'", "&#x27;": "'"})


def kept(s3, bucket):
    return [one["Key"] for one in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]


# -- what is taken ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 5, 200_000])
def test_a_file_is_kept_with_what_the_form_says_of_it(s3, bucket, size):
    body = bytes(range(256)) * (size // 256) + b"\r\n--x\n"[: size % 256]
    said = {"Content-Type": "text/plain", "Cache-Control": "no-store", "x-amz-meta-Who": "ann b",
            "x-amz-storage-class": "STANDARD_IA"}  # fmt: skip
    url, fields = place(s3, bucket, "docs/ü b+c.txt", said, [["content-length-range", 0, 300_000]])
    status, headers, text = posted(url, fields, body)
    assert (status, text) == (204, "")
    assert headers["etag"] == f'"{hashlib.md5(body).hexdigest()}"'
    assert headers["location"] == f"{url}/docs%2F%C3%BC%20b%2Bc.txt"
    found = s3.get_object(Bucket=bucket, Key="docs/ü b+c.txt")
    assert found["Body"].read() == body
    assert (found["ContentType"], found["CacheControl"], found["Metadata"], found["StorageClass"]) == (
        "text/plain", "no-store", {"who": "ann b"}, "STANDARD_IA",
    )  # fmt: skip


def test_success_is_told_as_the_form_asks(s3, bucket):
    for status in ("200", "201", "204", "418"):
        url, fields = place(s3, bucket, "a&b.txt", {"success_action_status": status})
        answer = posted(url, fields, b"x")
        assert answer[0] == (204 if status == "418" else int(status))
        if status == "201":
            assert answer[1]["content-type"] == "application/xml"
            assert [told(answer, name) for name in ("Bucket", "Key")] == [bucket, "a&b.txt"]
            assert told(answer, "ETag") == f'"{hashlib.md5(b"x").hexdigest()}"'
            assert told(answer, "Location") == answer[1]["location"]
    page = "http://127.0.0.1:1/done?from=form"
    url, fields = place(s3, bucket, "b.txt", {"success_action_redirect": page, "success_action_status": "201"})
    status, headers, _ = posted(url, fields, b"x")
    assert status == 303 and headers["location"].startswith(f"{page}&")
    query = parse_qs(urlsplit(headers["location"]).query)
    assert (query["bucket"], query["key"], query["etag"]) == (
        [bucket], ["b.txt"], [f'"{hashlib.md5(b"x").hexdigest()}"'],
    )  # fmt: skip
    url, fields = place(s3, bucket, "b.txt", {"success_action_redirect": "javascript:alert(1)"})
    assert posted(url, fields, b"x")[0] == 204


def test_the_files_own_name_stands_for_a_variable(s3, bucket):
    url, fields = place(s3, bucket, "in/${filename}")
    assert posted(url, fields, b"x", "C:\\\\folder\\\\näme.txt")[0] == 204
    assert kept(s3, bucket) == ["in/näme.txt"]


def test_tags_a_checksum_and_fields_that_are_to_be_ignored(s3, bucket):
    tags = "<Tagging><TagSet><Tag><Key>team</Key><Value>a+b c</Value></Tag></TagSet></Tagging>"
    url, fields = place(s3, bucket, "t", {"tagging": tags, "x-amz-checksum-crc32": "jL3VFQ=="})
    assert refusal(posted(url, fields, b"x"))[1] == "BadDigest" and kept(s3, bucket) == []
    url, fields = place(s3, bucket, "t", {"tagging": tags})
    late = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="submit"\r\n\r\nSend\r\n'.encode()
    assert posted(url, {**fields, "x-ignore-me": "1"}, b"x", after=late)[0] == 204
    assert s3.get_object_tagging(Bucket=bucket, Key="t")["TagSet"] == [{"Key": "team", "Value": "a+b c"}]
    assert s3.get_object(Bucket=bucket, Key="t")["Body"].read() == b"x"


def test_a_posted_file_is_announced_as_one(server, s3, bucket):
    sqs, rule = server.client("sqs"), {"Events": ["s3:ObjectCreated:Post"]}
    queue = sqs.create_queue(QueueName=bucket)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = {"Effect": "Allow", "Principal": {"Service": "s3.amazonaws.com"}, "Action": "sqs:SendMessage",
              "Resource": arn}  # fmt: skip
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": document(policy)})
    s3.put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration={"QueueConfigurations": [{"QueueArn": arn, **rule}]}
    )
    s3.put_object(Bucket=bucket, Key="put", Body=b"x")
    url, fields = place(s3, bucket, "posted")
    assert posted(url, fields, b"xyz")[0] == 204
    seen = []

    def records():
        for message in sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", []):
            seen.extend(json.loads(message["Body"]).get("Records", []))
        return seen

    wait_for(records, what="the event")
    (record,) = seen
    assert record["eventName"] == "ObjectCreated:Post"
    assert (record["s3"]["object"]["key"], record["s3"]["object"]["size"]) == ("posted", 3)


def test_a_browser_may_read_the_answer_where_the_buckets_rules_say_so(server, s3, bucket):
    origin = {"Origin": "https://page.example"}
    url, fields = place(s3, bucket)
    assert "access-control-allow-origin" not in posted(url, fields, b"x", headers=origin)[1]
    rule = {"AllowedOrigins": ["https://page.example"], "AllowedMethods": ["POST"], "ExposeHeaders": ["ETag"]}
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [rule]})
    for file, status in ((b"x", 204), (None, 400)):
        answer = posted(url, fields, file, headers=origin)
        assert (answer[0], answer[1]["access-control-allow-origin"]) == (status, "https://page.example")
    path, asked = url.removeprefix(server.endpoint), {**origin, "Access-Control-Request-Method": "POST"}
    assert server.get(path, "OPTIONS", None, asked)[0] == 200
    assert server.get(path, "OPTIONS", None, {**asked, "Access-Control-Request-Method": "PUT"})[0] == 403


def test_by_the_buckets_own_host_name(server, s3, bucket):
    _, fields = place(s3, bucket)
    host = f"{bucket}.localhost:{server.port}"
    status, headers, _ = posted(server.endpoint + "/", fields, b"x", headers={"Host": host})
    assert (status, headers["location"]) == (204, f"http://{host}/docs%2Fa.txt")


# -- what is refused --------------------------------------------------------------------------------------------------


def test_sizes_outside_the_range_are_refused_and_nothing_is_kept(s3, bucket):
    url, fields = place(s3, bucket, conditions=[["content-length-range", 3, 100_000]])
    large = posted(url, fields, b"x" * 100_001)
    assert refusal(large) == (400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size")
    assert (told(large, "ProposedSize"), told(large, "MaxSizeAllowed")) == ("100001", "100000")
    small = posted(url, fields, b"xx")
    assert refusal(small) == (400, "EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size")
    assert (told(small, "ProposedSize"), told(small, "MinSizeAllowed")) == ("2", "3")
    assert kept(s3, bucket) == []
    assert [posted(url, fields, b"x" * size)[0] for size in (3, 100_000)] == [204, 204]


def test_fields_that_are_not_what_was_signed(s3, bucket):
    url, fields = place(s3, bucket, fields={"Content-Type": "text/plain"}, conditions=[["starts-with", "$tag", "a"]])
    fields["tag"] = "abc"
    cases = {
        'Policy Condition failed: ["eq", "$key", "docs/a.txt"]': {"key": "docs/b.txt"},
        'Policy Condition failed: ["eq", "$Content-Type", "text/plain"]': {"Content-Type": "text/html"},
        'Policy Condition failed: ["starts-with", "$tag", "a"]': {"tag": "b"},
        "Extra input fields: acl": {"acl": "private"},
        "Extra input fields: x-amz-meta-labels": {"x-amz-meta-labels": "acme"},
    }
    for text, changed in cases.items():
        answer = posted(url, {**fields, **changed}, b"x")
        assert refusal(answer) == (403, "AccessDenied", f"Invalid according to Policy: {text}"), changed
    without = {name: value for name, value in fields.items() if name != "Content-Type"}
    assert 'failed: ["eq", "$Content-Type", "text/plain"]' in refusal(posted(url, without, b"x"))[2]
    other = f"{bucket}-other"
    s3.create_bucket(Bucket=other)
    answer = posted(url.replace(bucket, other), fields, b"x")
    assert refusal(answer)[2] == f'Invalid according to Policy: Policy Condition failed: ["eq", "$bucket", "{bucket}"]'
    assert kept(s3, bucket) == kept(s3, other) == []
    assert posted(url, fields, b"x")[0] == 204


def test_a_content_type_with_commas_is_a_list(s3, bucket):
    url, fields = place(s3, bucket, conditions=[["starts-with", "$Content-Type", "image/"]])
    assert posted(url, {**fields, "Content-Type": "image/png, image/gif"}, b"x")[0] == 204
    assert posted(url, {**fields, "Content-Type": "image/png,text/html"}, b"x")[0] == 403


def test_after_its_time_a_form_is_refused(s3, bucket):
    url, fields = place(s3, bucket, seconds=2)
    assert posted(url, fields, b"first")[0] == 204
    wait_for(lambda: posted(url, fields, b"late")[0] == 403, what="the end of the policy")
    late = posted(url, fields, b"late")
    assert refusal(late) == (403, "AccessDenied", "Invalid according to Policy: Policy expired.")
    answer = posted(*place(s3, bucket, seconds=-5), b"late")
    assert refusal(answer) == (403, "AccessDenied", "Invalid according to Policy: Policy expired.")


def test_a_policy_that_was_changed_or_signed_by_nobody(server, s3, bucket):
    url, fields = place(s3, bucket, conditions=[["content-length-range", 0, 10]])
    policy = json.loads(base64.b64decode(fields["policy"]))
    policy["conditions"][0] = ["content-length-range", 0, 10_000]
    changed = {**fields, "policy": base64.b64encode(json.dumps(policy).encode()).decode()}
    assert refusal(posted(url, changed, b"x"))[:2] == (403, "SignatureDoesNotMatch")
    name = "AWSAccessKeyId" if "AWSAccessKeyId" in fields else "x-amz-credential"
    unknown = {**fields, name: fields[name].replace(fields[name][:20], "AKIAAAAAAAAAAAAAAAAA")}
    assert refusal(posted(url, unknown, b"x"))[:2] == (403, "InvalidAccessKeyId")
    assert refusal(posted(url, {"key": "docs/a.txt"}, b"x")) == (403, "AccessDenied", "Access Denied")
    signature = "signature" if "signature" in fields else "x-amz-signature"
    lacking = {name: value for name, value in fields.items() if name != signature}
    assert refusal(posted(url, lacking, b"x"))[:2] == (400, "InvalidArgument")
    assert kept(s3, bucket) == []


def test_the_signers_permissions_count(server, s3, bucket):
    iam, version = server.client("iam"), s3.meta.config.signature_version or "s3v4"
    user = f"writer-{bucket[:13]}"
    iam.create_user(UserName=user)
    own = document(allow("s3:PutObject", f"arn:aws:s3:::{bucket}/own/*"))
    iam.put_user_policy(UserName=user, PolicyName="p", PolicyDocument=own)
    key = iam.create_access_key(UserName=user)["AccessKey"]
    theirs = server.client("s3", (key["AccessKeyId"], key["SecretAccessKey"]), signature_version=version)
    assert posted(*place(theirs, bucket, "own/a"), b"x")[0] == 204
    status, code, text = refusal(posted(*place(theirs, bucket, "other/a"), b"x"))
    assert (status, code) == (403, "AccessDenied") and "s3:PutObject" in text
    tags = {"tagging": "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"}
    assert "s3:PutObjectTagging" in posted(*place(theirs, bucket, "own/b", tags), b"x")[2]
    assert kept(s3, bucket) == ["own/a"]


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        ("not base64!", "Invalid JSON."),
        ([], "Invalid JSON."),
        ({"conditions": []}, "Policy missing expiration."),
        ({"expiration": "2099-01-01T00:00:00Z"}, "Policy missing conditions."),
        ({**EMPTY, "expiration": "soon"}, "Invalid 'expiration' value: 'soon'"),
        ({**EMPTY, "expiration": 5}, "Invalid 'expiration' value: '5'"),
        ({**EMPTY, "conditions": {}}, "must be a List."),
        ({**EMPTY, "conditions": [{"a": "b", "c": "d"}]}, "must have exactly one property specified."),
        ({**EMPTY, "conditions": [{"key": 5}]}, "value must be a string."),
        ({**EMPTY, "conditions": [["like", "$key", "x"]]}, "Invalid condition operator: like"),
        ({**EMPTY, "conditions": [["eq", "key", "x"]]}, "Invalid condition:"),
        ({**EMPTY, "conditions": [["content-length-range", 0, "many"]]}, "content-length-range"),
        ({**EMPTY, "conditions": [7]}, "Invalid condition: 7"),
    ],
)
def test_a_policy_that_is_none(aws, policy, text):
    """An unknown access key is good here, so that the policy itself is looked at."""
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="policies-that-are-none")
    signed = policy if isinstance(policy, str) else base64.b64encode(json.dumps(policy).encode()).decode()
    fields = {"key": "a", "AWSAccessKeyId": "test", "policy": signed, "signature": "x"}
    status, code, message = refusal(posted(f"{aws.endpoint}/policies-that-are-none", fields, b"x"))
    assert (status, code) == (400, "InvalidPolicyDocument")
    assert text in message
    assert kept(s3, "policies-that-are-none") == []


def test_a_body_that_is_no_form(aws):
    s3, name = aws.client("s3"), "forms-that-are-none"
    s3.create_bucket(Bucket=name)
    url = f"{aws.endpoint}/{name}"
    assert refusal(posted(url, {"key": "a"}, None))[:2] == (400, "IncorrectNumberOfFilesInPostRequest")
    assert refusal(posted(url, {}, b"x")) == (
        400, "InvalidArgument",
        "Bucket POST must contain a field named 'key'.  If it is specified, please check the order of the fields.",
    )  # fmt: skip
    assert refusal(posted(url, {"key": "a", "acl": "p" * 21_000}, b"x"))[:2] == (400, "MaxPostPreDataLengthExceeded")
    assert refusal(posted(url, {"key": "a", "Content-Type": "a\nX-Evil: 1"}, b"x"))[:2] == (501, "NotImplemented")
    assert refusal(posted(url, {"key": "a", "x-amz-meta-a b": "1"}, b"x"))[:2] == (501, "NotImplemented")
    for kind in ("multipart/form-data", "multipart/form-data; boundary=other"):
        answer = posted(url, {"key": "a"}, b"x", headers={"Content-Type": kind})
        assert refusal(answer)[:2] == (400, "MalformedPOSTRequest"), kind
    assert refusal(posted(f"{aws.endpoint}/no-such-bucket-here", {"key": "a"}, b"x"))[:2] == (404, "NoSuchBucket")
    assert kept(s3, name) == []

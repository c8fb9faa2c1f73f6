"""Clients that break off, park and multiply, against the whole platform."""

import json
import selectors
import socket

from tests.support.server import wait_for

LONG_POLLS = 1_000


def receive_request(url, wait_s=20):
    """The bytes of a ReceiveMessage of the JSON protocol."""
    body = json.dumps({"QueueUrl": url, "WaitTimeSeconds": wait_s, "MaxNumberOfMessages": 1}).encode()
    head = (
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-amz-json-1.0\r\n"
        "X-Amz-Target: AmazonSQS.ReceiveMessage\r\n"
        "Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/sqs/aws4_request, "
        f"SignedHeaders=host, Signature=0\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def connect(aws):
    return socket.create_connection(("127.0.0.1", aws.port), timeout=30)


def test_a_parked_client_that_leaves_takes_no_message_with_it(aws):
    sqs = aws.client("sqs")
    url = sqs.create_queue(QueueName="left-behind")["QueueUrl"]
    for _ in range(5):
        with connect(aws) as client:
            client.sendall(receive_request(url))
            assert aws.get("/_preheat/health")[0] == 200
    sqs.send_message(QueueUrl=url, MessageBody="still here")
    messages = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5)["Messages"]
    assert [message["Body"] for message in messages] == ["still here"]


def test_a_thousand_long_polls_wake_on_their_messages(aws):
    sqs = aws.client("sqs")
    url = sqs.create_queue(QueueName="crowded")["QueueUrl"]
    clients = [connect(aws) for _ in range(LONG_POLLS)]
    try:
        for client in clients:
            client.sendall(receive_request(url))
        assert aws.get("/_preheat/health")[0] == 200
        for start in range(0, LONG_POLLS, 10):
            entries = [{"Id": str(n), "MessageBody": f"m{n}"} for n in range(start, start + 10)]
            sqs.send_message_batch(QueueUrl=url, Entries=entries)
        bodies = set()
        with selectors.DefaultSelector() as selector:
            for client in clients:
                selector.register(client, selectors.EVENT_READ, bytearray())
            while selector.get_map():
                ready = selector.select(timeout=20)
                assert ready, f"{len(selector.get_map())} polls got nothing"
                for key, _ in ready:
                    key.data.extend(key.fileobj.recv(65_536))
                    _, _, body = bytes(key.data).partition(b"\r\n\r\n")
                    if body.endswith(b"}"):
                        bodies |= {message["Body"] for message in json.loads(body)["Messages"]}
                        selector.unregister(key.fileobj)
        assert bodies == {f"m{n}" for n in range(LONG_POLLS)}
    finally:
        for client in clients:
            client.close()


def test_a_request_that_breaks_off_leaves_no_object(aws):
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="broken-off")
    with connect(aws) as client:
        client.sendall(b"PUT /broken-off/key HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf")
    with connect(aws) as client:
        client.sendall(b"PUT /broken-off/whole HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nhalf")
        assert client.recv(65_536).startswith(b"HTTP/1.1 200")
    assert [item["Key"] for item in s3.list_objects_v2(Bucket="broken-off")["Contents"]] == ["whole"]


def test_operations_of_one_connection_are_answered_in_order(aws):
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="in-order")
    put = b"PUT /in-order/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n%02d"
    get = b"GET /in-order/k HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = get.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with connect(aws) as client:
        client.sendall(b"".join(put % n + get for n in range(20)) + last)
        parts = []
        while data := client.recv(65_536):
            parts.append(data)
    answer = b"".join(parts)
    assert answer.count(b"HTTP/1.1 200 OK") == 41
    found = [answer.find(b"\r\n\r\n%02d" % n) for n in range(20)]
    assert -1 not in found and found == sorted(found)


def test_a_stored_body_that_has_vanished_is_an_error_not_a_hang(fresh_server):
    server = fresh_server()
    s3 = server.client("s3")
    s3.create_bucket(Bucket="vanishing")
    s3.put_object(Bucket="vanishing", Key="big", Body=b"x" * 1_000_000)
    stored = [path for path in (server.state / "blobs").rglob("*") if path.is_file()]
    assert stored
    for path in stored:
        path.unlink()
    assert server.get("/vanishing/big")[0] == 500
    assert server.get("/vanishing/big", "HEAD")[0] == 200
    wait_for(lambda: "defect in a front door" in server.log.read_text(), what="the report")


# -- browsers and buckets ---------------------------------------------------------------------------------------------

PAGE = "https://app.example.com"


def preflight(aws, path, origin=PAGE, method="PUT", **headers):
    asked = {"Origin": origin, "Access-Control-Request-Method": method, **headers}
    return aws.get(path, "OPTIONS", headers={name: value for name, value in asked.items() if value})


def test_a_browser_may_do_what_the_bucket_allows(aws):
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="browsed")
    assert preflight(aws, "/browsed/key")[0] == 403
    rule = {"AllowedOrigins": ["https://*.example.com"], "AllowedMethods": ["GET", "PUT"],
            "AllowedHeaders": ["x-amz-*"], "ExposeHeaders": ["ETag"], "MaxAgeSeconds": 60}  # fmt: skip
    s3.put_bucket_cors(Bucket="browsed", CORSConfiguration={"CORSRules": [rule]})
    status, headers, body = preflight(aws, "/browsed/key", **{"Access-Control-Request-Headers": "X-Amz-Date"})
    assert (status, body) == (200, b"") and headers["Access-Control-Allow-Origin"] == PAGE
    assert headers["Access-Control-Allow-Headers"] == "x-amz-date" and headers["Access-Control-Max-Age"] == "60"
    for refused in ({"origin": "https://evil.test"}, {"method": "DELETE"}, {"Access-Control-Request-Headers": "x-b"}):
        status, headers, body = preflight(aws, "/browsed/key", **refused)
        assert status == 403 and b"<Code>AccessForbidden</Code>" in body
        assert "Access-Control-Allow-Origin" not in headers
    assert preflight(aws, "/browsed/key", origin="")[0] == 400
    status, headers, _ = aws.get("/browsed/key", "PUT", b"hello", {"Origin": PAGE})
    assert status == 200 and headers["Access-Control-Expose-Headers"] == "ETag" and headers["ETag"]
    host = {"Origin": PAGE, "Host": f"browsed.s3.localhost:{aws.port}"}
    status, headers, body = aws.get("/key", headers=host)
    assert (status, body) == (200, b"hello") and headers["Access-Control-Allow-Origin"] == PAGE
    status, headers, _ = aws.get("/browsed/none", headers={"Origin": PAGE})
    assert status == 404 and headers["Access-Control-Allow-Origin"] == PAGE
    assert "Access-Control-Allow-Origin" not in aws.get("/browsed/key", headers={"Origin": "https://evil.test"})[1]
    assert "Access-Control-Allow-Origin" not in aws.get("/browsed/key")[1]
    assert aws.get("/", headers={"Origin": PAGE})[0] == 200


def test_a_form_without_version_or_signature_finds_its_service(aws):
    form = {"content-type": "application/x-www-form-urlencoded"}
    status, _, body = aws.get("/", "POST", b"Action=CreateQueue&QueueName=bare-form", form)
    assert status == 200 and b"<QueueUrl>" in body
    status, _, body = aws.get("/", "POST", b"Action=NoSuchAction", form)
    assert (status >= 400 and b"NoSuchAction" in body) or b"<Error>" in body


def test_an_upload_that_does_not_say_its_length_is_refused(aws):
    aws.client("s3").create_bucket(Bucket="lengthless")
    with socket.create_connection(("127.0.0.1", aws.port), timeout=10) as connection:
        connection.sendall(b"PUT /lengthless/key HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 411 ") and b"<Code>MissingContentLength</Code>" in answer

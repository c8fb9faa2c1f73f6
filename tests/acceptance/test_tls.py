"""HTTPS and WSS on the server's one port, with the clients that people have, and from within functions."""

import http.client
import io
import json
import shutil
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, SSLError

from tests.support.clients import aws_cli, have
from tests.support.functions import ROLE, make_zip
from tests.support.server import wait_for
from tests.support.websocket import Client

BIN = Path(sys.executable).parent
BUNDLE = "/var/runtime/ca-cert.pem"
CALLER = """
import boto3, json, os, urllib.request

def handler(event, context):
    told = event.get("requestContext", {})
    if told.get("eventType") == "MESSAGE":
        endpoint = f"https://{told['domainName']}/{told['stage']}"
        client = boto3.client("apigatewaymanagementapi", endpoint_url=endpoint)
        client.post_to_connection(ConnectionId=told["connectionId"], Data=b"pushed over https")
    if "back" in event.get("rawQueryString", ""):
        stage = "" if told["stage"] == "$default" else "/" + told["stage"]
        with urllib.request.urlopen(f"https://{told['domainName']}{stage}/there?seen=1") as answer:
            return {"statusCode": 200, "body": answer.read().decode()}
    shown = {"domain": told.get("domainName"), "path": event.get("rawPath"), "headers": event.get("headers")}
    return {"statusCode": 200, "body": json.dumps(shown)}
"""
TRUSTING = """
import os, ssl, urllib.request

def handler(event, context):
    names = ("AWS_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
    told = {name: os.environ[name] for name in names}
    told["endpoint"] = os.environ["AWS_ENDPOINT_URL"]
    told["roots"] = len(ssl.create_default_context().get_ca_certs())
    told["health"] = urllib.request.urlopen(event["url"]).status
    told["folder"] = sorted(os.listdir(os.path.dirname(told["SSL_CERT_FILE"])))
    try:
        open(told["SSL_CERT_FILE"], "a").close()
        told["written"] = True
    except OSError:
        told["written"] = False
    return told
"""
IN_NODE = """
const asked = require("https").get(process.argv[1], (answer) => answer.resume().on("end", () => {
  console.log(answer.statusCode);
}));
asked.on("error", (error) => console.log(error.code));
"""


def certificate(server, *arguments):
    command = [BIN / "preheat", "certificate", "--state", server.state, *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture(scope="module")
def ca(aws):
    return certificate(aws, "--path").strip()


@pytest.fixture
def tls(ca):
    return ssl.create_default_context(cafile=ca)


def client(server, service, ca, **config):
    return boto3.client(
        service, endpoint_url=f"https://localhost:{server.port}", region_name="us-east-1", verify=ca,
        aws_access_key_id="test", aws_secret_access_key="test",
        config=Config(retries={"max_attempts": 0}, **config),
    )  # fmt: skip


def ask(server, tls, path, host="127.0.0.1", headers=None, method="GET", body=None):
    """(status, headers, body) of one HTTPS request; `host` is the name that the client looks for."""
    connection = http.client.HTTPSConnection(host, server.port, timeout=60)
    raw = socket.create_connection(("127.0.0.1", server.port), 60)
    connection.sock = tls.wrap_socket(raw, server_hostname=host)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def function(server, name, source, **settings):
    functions = server.client("lambda")
    functions.create_function(
        FunctionName=name, Runtime="python3.11", Handler="app.handler", Role=ROLE, Timeout=30, MemorySize=256,
        Code={"ZipFile": make_zip({"app.py": source})}, **settings,
    )  # fmt: skip
    functions.get_waiter("function_active_v2").wait(FunctionName=name)
    return functions


def test_the_command_says_where_and_how(aws, ca):
    told = certificate(aws)
    assert Path(ca) == aws.state / "tls" / "ca.pem" and f"certificate    {ca}\n" in told
    assert f"NODE_EXTRA_CA_CERTS={ca}" in told and f"curl --cacert {ca} https://127.0.0.1:" in told
    assert f"AWS_CA_BUNDLE={aws.state / 'tls' / 'runtime' / 'ca-cert.pem'}" in told


def test_the_sdk_over_https_gets_https_urls(aws, ca):
    sqs = client(aws, "sqs", ca)
    url = sqs.create_queue(QueueName="tls-queue")["QueueUrl"]
    assert url == f"https://localhost:{aws.port}/000000000000/tls-queue"
    sqs.send_message(QueueUrl=url, MessageBody="over tls")
    plain = aws.client("sqs")
    there = plain.get_queue_url(QueueName="tls-queue")["QueueUrl"]
    assert there == f"http://127.0.0.1:{aws.port}/000000000000/tls-queue"
    (message,) = plain.receive_message(QueueUrl=there, WaitTimeSeconds=5)["Messages"]
    assert message["Body"] == "over tls"
    with pytest.raises(SSLError):
        client(aws, "sqs", True).list_queues()


def test_large_objects_go_both_ways(aws, ca):
    """boto3 sends `Expect: 100-continue` before a body, and keeps the connection."""
    s3 = client(aws, "s3", ca, s3={"addressing_style": "path"})
    s3.create_bucket(Bucket="tls-bucket")
    data = bytes(range(256)) * 40_000
    s3.put_object(Bucket="tls-bucket", Key="large", Body=io.BytesIO(data))
    assert s3.get_object(Bucket="tls-bucket", Key="large")["Body"].read() == data
    assert s3.get_object(Bucket="tls-bucket", Key="large", Range="bytes=5-9")["Body"].read() == data[5:10]
    begun = s3.create_multipart_upload(Bucket="tls-bucket", Key="parts")["UploadId"]
    names = {"Bucket": "tls-bucket", "Key": "parts", "UploadId": begun}
    tag = s3.upload_part(**names, PartNumber=1, Body=b"x")["ETag"]
    done = s3.complete_multipart_upload(**names, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": tag}]})
    assert done["Location"] == f"https://localhost:{aws.port}/tls-bucket/parts"


def test_presigned_urls_and_buckets_by_host_name(aws, ca, tls):
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="tls-host")
    s3.put_object(Bucket="tls-host", Key="a.txt", Body=b"by name")
    name = "tls-host.s3.amazonaws.com"
    assert ask(aws, tls, "/a.txt", name, {"Host": name})[2] == b"by name"
    signed = client(aws, "s3", ca, s3={"addressing_style": "path"}).generate_presigned_url(
        "get_object", Params={"Bucket": "tls-host", "Key": "a.txt"}
    )
    assert signed.startswith(f"https://localhost:{aws.port}/")
    _, _, target = signed.partition(f":{aws.port}")
    assert ask(aws, tls, target, "localhost")[2] == b"by name"


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "a1b2c3.execute-api.eu-west-1.localhost"])
def test_names_of_this_server_are_verified(aws, tls, name):
    assert ask(aws, tls, "/_preheat/health", name)[0] == 200


def test_other_names_are_not(aws, tls):
    with pytest.raises(ssl.SSLCertVerificationError, match=r"example\.com"):
        ask(aws, tls, "/_preheat/health", "example.com")


def test_a_websocket_function_posts_to_its_connection_as_on_aws(aws, tls):
    functions = function(aws, "tls-socket", CALLER)
    apis = aws.client("apigatewayv2")
    api = apis.create_api(
        Name="tls", ProtocolType="WEBSOCKET", RouteSelectionExpression="$request.body.action"
    )["ApiId"]  # fmt: skip
    uri = f"arn:aws:lambda:us-east-1:000000000000:function:{'tls-socket'}"
    integration = apis.create_integration(ApiId=api, IntegrationType="AWS_PROXY", IntegrationUri=uri)["IntegrationId"]
    apis.create_route(ApiId=api, RouteKey="$default", Target=f"integrations/{integration}")
    apis.create_stage(ApiId=api, StageName="live", AutoDeploy=True)
    host = f"{api}.execute-api.us-east-1.localhost"
    for path, name in ((f"/_aws/execute-api/{api}/live", "localhost"), ("/live", host)):
        socket_ = Client(aws.port, path, name, tls=tls)
        socket_.send("hello")
        assert socket_.text() == "pushed over https"
        assert socket_.ping() == b"are you there"
        socket_.close()
    functions.delete_function(FunctionName="tls-socket")


def test_a_function_calls_its_own_http_api_and_url_by_the_domain_it_is_told(aws, tls):
    functions = function(aws, "tls-doors", CALLER)
    arn = functions.get_function(FunctionName="tls-doors")["Configuration"]["FunctionArn"]
    api = aws.client("apigatewayv2").create_api(Name="tls-http", ProtocolType="HTTP", Target=arn)["ApiId"]
    url = functions.create_function_url_config(FunctionName="tls-doors", AuthType="NONE")["FunctionUrl"]
    name = url.removeprefix("http://").partition(".")[0]
    for prefix in (f"/_aws/execute-api/{api}", f"/_aws/lambda-url/{name}"):
        status, _, body = ask(aws, tls, f"{prefix}/here?back=1")
        assert status == 200, body
        told = json.loads(body)
        assert told["path"] == "/there" and told["domain"] == f"127.0.0.1:{aws.port}{prefix}"
        assert told["headers"]["x-forwarded-proto"] == "https"
        assert json.loads(aws.get(f"{prefix}/here")[2])["headers"]["x-forwarded-proto"] == "http"
    host = f"{name}.lambda-url.us-east-1.localhost"
    assert json.loads(ask(aws, tls, "/x", host)[2])["domain"] == f"{host}:{aws.port}"
    functions.delete_function(FunctionName="tls-doors")


def test_a_function_url_streams_over_tls(aws, tls):
    source = "def handler(event, context):\n    for part in ('one ', 'two ', 'three'):\n        yield part\n"
    functions = function(aws, "tls-stream", source)
    url = functions.create_function_url_config(
        FunctionName="tls-stream", AuthType="NONE", InvokeMode="RESPONSE_STREAM"
    )["FunctionUrl"]  # fmt: skip
    name = url.removeprefix("http://").partition(".")[0]
    status, headers, body = ask(aws, tls, f"/_aws/lambda-url/{name}/")
    assert (status, headers["Transfer-Encoding"], body) == (200, "chunked", b"one two three")
    functions.delete_function(FunctionName="tls-stream")


def told_by(server, **variables):
    settings = {"Environment": {"Variables": variables}} if variables else {}
    functions = function(server, "tls-trust", TRUSTING, **settings)
    payload = json.dumps({"url": f"https://127.0.0.1:{server.port}/_preheat/health"})
    told = json.loads(functions.invoke(FunctionName="tls-trust", Payload=payload)["Payload"].read())
    functions.delete_function(FunctionName="tls-trust")
    return told


def test_functions_trust_the_platform_and_keep_what_they_set_themselves(aws):
    own = {"NODE_EXTRA_CA_CERTS": "/opt/mine.pem", "AWS_CA_BUNDLE": "/opt/two.pem"}
    told = told_by(aws, **own)
    assert told.pop("roots") > 50
    assert told == {
        **own, "SSL_CERT_FILE": BUNDLE, "REQUESTS_CA_BUNDLE": BUNDLE, "endpoint": aws.endpoint, "health": 200,
        "folder": ["ca-cert.pem", "preheat-ca.pem"], "written": False,
    }  # fmt: skip


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_functions_below_bubblewrap_trust_the_platform_too(fresh_server):
    told = told_by(fresh_server("--sandbox", "bwrap"))
    assert told["health"] == 200 and told["roots"] > 50 and not told["written"]
    assert (told["AWS_CA_BUNDLE"], told["folder"]) == (BUNDLE, ["ca-cert.pem", "preheat-ca.pem"])


def test_the_aws_cli_over_https(aws, ca):
    endpoint = f"https://127.0.0.1:{aws.port}"
    command = [have(aws_cli), "--endpoint-url", endpoint, "sqs", "create-queue", "--queue-name", "tls-cli"]
    environment = {**aws.environment(), "AWS_CA_BUNDLE": ca}
    told = subprocess.run(
        [*map(str, command), "--output", "text"], env=environment, capture_output=True, text=True, timeout=120
    )  # fmt: skip
    assert told.stdout.strip() == f"{endpoint}/000000000000/tls-cli", told.stderr


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_node_over_https(aws, ca):
    command = ["node", "-e", IN_NODE, f"https://localhost:{aws.port}/_preheat/health"]
    environment = {**aws.environment(), "NODE_EXTRA_CA_CERTS": ca}
    trusting = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert trusting.stdout.strip() == "200", trusting.stderr
    wary = subprocess.run(command, env=aws.environment(), capture_output=True, text=True, timeout=60)
    assert wary.stdout.strip() in ("UNABLE_TO_VERIFY_LEAF_SIGNATURE", "UNABLE_TO_GET_ISSUER_CERT_LOCALLY")


def test_garbage_ends_and_the_server_goes_on(aws, tls):
    before = aws.log.read_text()
    for begun in (b"\x16\x03\x01\x00\x05HELLO" * 9, b"\x16" * 40_000):
        with socket.create_connection(("127.0.0.1", aws.port), 30) as raw:
            raw.sendall(begun)
            raw.settimeout(30)
            try:
                while raw.recv(4_096):
                    pass
            except ConnectionError:
                continue
    assert ask(aws, tls, "/_preheat/health")[0] == 200
    assert aws.log.read_text() == before


def test_a_policy_that_demands_tls_gets_it(fresh_server):
    server = fresh_server("--iam", "enforce")
    root = [line.partition("=")[2] for line in (server.state / "root-credentials").read_text().splitlines()]
    iam = boto3.Session(*root, region_name="us-east-1").client("iam", endpoint_url=server.endpoint)
    iam.create_user(UserName="careful")
    tls_only = {"Bool": {"aws:SecureTransport": "true"}}
    statement = {"Effect": "Allow", "Action": "sqs:*", "Resource": "*", "Condition": tls_only}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName="careful", PolicyName="tls-only", PolicyDocument=document)
    key = iam.create_access_key(UserName="careful")["AccessKey"]
    session = boto3.Session(key["AccessKeyId"], key["SecretAccessKey"], region_name="us-east-1")
    with pytest.raises(ClientError, match="not authorized to perform: sqs:createqueue"):
        session.client("sqs", endpoint_url=server.endpoint).create_queue(QueueName="careful")
    secure = {"endpoint_url": f"https://127.0.0.1:{server.port}", "verify": certificate(server, "--path").strip()}
    assert session.client("sqs", **secure).create_queue(QueueName="careful")["QueueUrl"].startswith("https://")


def test_a_restart_and_an_advanced_clock_change_no_authority(fresh_server):
    """Without a sandbox, where functions see the files at their place in the state."""
    server = fresh_server("--sandbox", "off")
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", server.port), 30) as raw, pytest.raises(ssl.SSLError):
            ssl.create_default_context().wrap_socket(raw, server_hostname="localhost")
    wait_for(lambda: "preheat certificate" in server.log.read_text(), what="the notice")
    tls = ssl.create_default_context(cafile=certificate(server, "--path").strip())
    for _ in range(2):
        server.advance(366 * 86_400)
    assert ask(server, tls, "/_preheat/health")[0] == 200
    assert server.log.read_text().count("preheat certificate") == 1
    server.kill()
    server.start()
    assert json.loads(server.get("/_preheat/clock")[2])["offset"] > 700 * 86_400
    assert ask(server, tls, "/_preheat/health")[0] == 200
    told = told_by(server)
    folder = f"{server.state}/tls/runtime"
    assert told["health"] == 200 and told["NODE_EXTRA_CA_CERTS"] == f"{folder}/preheat-ca.pem"
    assert told["AWS_CA_BUNDLE"] == told["SSL_CERT_FILE"] == told["REQUESTS_CA_BUNDLE"] == f"{folder}/ca-cert.pem"
    assert server.stop() == 0

"""HTTP APIs: made through boto3, called over plain HTTP by host name and by path."""

import json

import pytest
from botocore.exceptions import ClientError

from tests.support.functions import ROLE, make_zip
from tests.support.server import wait_for

ECHO = """
import json, os, select

def handler(event, context):
    path = event.get("rawPath") or event["path"]
    if path.endswith("/raise"):
        raise ValueError("oh")
    if path.endswith("/slow"):
        select.select([], [], [], 5)
    if path.endswith("/plain"):
        return "hello"
    return {"statusCode": 200, "headers": {"Access-Control-Allow-Origin": "mine"}, "cookies": ["a=1", "b=2"],
            "multiValueHeaders": {"X-M": ["1", "2"]}, "body": json.dumps(event)}
"""


@pytest.fixture(scope="module")
def function(aws):
    client = aws.client("lambda")
    client.create_function(
        FunctionName="api-echo", Runtime="python3.11", Handler="app.handler", Role=ROLE, Timeout=10,
        Code={"ZipFile": make_zip({"app.py": ECHO})},
    )  # fmt: skip
    client.get_waiter("function_active_v2").wait(FunctionName="api-echo", WaiterConfig={"Delay": 1})
    yield client.get_function(FunctionName="api-echo")["Configuration"]["FunctionArn"]
    client.delete_function(FunctionName="api-echo")


@pytest.fixture
def gateway(aws):
    return aws.client("apigatewayv2")


class Api:
    """An API with one Lambda integration; `call` goes by host name."""

    def __init__(self, aws, gateway, function, **params):
        self.aws, self.gateway = aws, gateway
        self.document = gateway.create_api(Name="tests", ProtocolType="HTTP", **params)
        self.id = self.document["ApiId"]
        self.integration = self.integrate(function) if function else None

    def integrate(self, function, **params):
        settings = {"IntegrationType": "AWS_PROXY", "IntegrationUri": function, "PayloadFormatVersion": "2.0", **params}
        return self.gateway.create_integration(ApiId=self.id, **settings)["IntegrationId"]

    def route(self, *keys, integration=None):
        target = f"integrations/{integration or self.integration}"
        return [self.gateway.create_route(ApiId=self.id, RouteKey=key, Target=target)["RouteId"] for key in keys]

    def stage(self, name="$default", **params):
        return self.gateway.create_stage(ApiId=self.id, StageName=name, **{"AutoDeploy": True, **params})

    def call(self, path="/", method="GET", body=None, headers=None):
        """(status, [(lower-case name, value)], decoded body)."""
        host = {"Host": f"{self.id}.execute-api.us-east-1.localhost:{self.aws.port}"}
        status, got, data = self.aws.get(path, method, body, {**host, **(headers or {})})
        got = {name.lower(): value for name, value in got.items()}
        try:
            return status, got, json.loads(data)
        except ValueError:
            return status, got, data


@pytest.fixture
def api(aws, gateway, function):
    made = []

    def make(*routes, **params):
        made.append(Api(aws, gateway, function, **params))
        made[-1].route(*routes)
        return made[-1]

    yield make
    for one in made:
        gateway.delete_api(ApiId=one.id)


def code_of(failure):
    return failure.value.response["Error"]["Code"], failure.value.response["ResponseMetadata"]["HTTPStatusCode"]


def test_the_most_specific_route_answers(api):
    one = api("GET /pets", "GET /pets/{id}", "ANY /pets/{id}", "GET /pets/{rest+}", "POST /pets/new", "$default")
    one.stage()
    wanted = {
        ("GET", "/pets"): ("GET /pets", None),
        ("GET", "/pets/7"): ("GET /pets/{id}", {"id": "7"}),
        ("DELETE", "/pets/7"): ("ANY /pets/{id}", {"id": "7"}),
        ("POST", "/pets/new"): ("POST /pets/new", None),
        ("GET", "/pets/a%20b/c"): ("GET /pets/{rest+}", {"rest": "a b/c"}),
        ("PUT", "/elsewhere"): ("$default", None),
    }
    for (method, path), (key, parameters) in wanted.items():
        status, headers, event = one.call(path, method)
        assert (status, event["routeKey"], event.get("pathParameters")) == (200, key, parameters), (method, path)
        assert headers["apigw-requestid"] == event["requestContext"]["requestId"]


def test_format_2_0(api):
    one = api("POST /in/{name}")
    one.stage("dev", StageVariables={"colour": "red"})
    headers = {"Cookie": "a=1; b=2", "Content-Type": "application/x-www-form-urlencoded"}
    status, answered, event = one.call("/dev/in/x?q=1&q=2", "POST", b"k=v", headers)
    assert status == 200 and answered["content-type"] == "text/plain; charset=utf-8"
    assert (event["version"], event["rawPath"], event["rawQueryString"]) == ("2.0", "/dev/in/x", "q=1&q=2")
    assert event["cookies"] == ["a=1", "b=2"] and event["queryStringParameters"] == {"q": "1,2"}
    assert (event["isBase64Encoded"], event["body"]) == (True, "az12")
    assert event["stageVariables"] == {"colour": "red"} and event["pathParameters"] == {"name": "x"}
    context = event["requestContext"]
    assert (context["stage"], context["routeKey"], context["apiId"]) == ("dev", "POST /in/{name}", one.id)
    assert "authentication" not in context and context["http"]["path"] == "/dev/in/x"
    _, _, by_path = one.call(f"/_aws/execute-api/{one.id}/dev/in/y", "POST", headers={"Host": "localhost"})
    assert (by_path["rawPath"], by_path["pathParameters"]) == ("/dev/in/y", {"name": "y"})
    assert "body" not in by_path and "cookies" not in by_path


def test_format_1_0(api, function):
    one = api()
    one.route("GET /in/{name}", integration=one.integrate(function, PayloadFormatVersion="1.0"))
    one.stage("dev")
    status, _, event = one.call("/dev/in/x?q=1&q=2", headers={"X-A": "1", "Cookie": "a=1"})
    assert (status, event["version"], event["resource"], event["httpMethod"]) == (200, "1.0", "/in/{name}", "GET")
    assert (event["path"], event["pathParameters"]) == ("/dev/in/x", {"name": "x"})
    assert event["queryStringParameters"] == {"q": "2"}
    assert event["multiValueQueryStringParameters"] == {"q": ["1", "2"]}
    assert event["headers"]["x-a"] == "1" and event["multiValueHeaders"]["cookie"] == ["a=1"]
    assert (event["body"], event["isBase64Encoded"], event["stageVariables"]) == (None, False, None)
    assert event["requestContext"]["resourcePath"] == "/in/{name}"
    assert one.call("/dev/in/plain")[::2] == (500, {"message": "Internal Server Error"})


def test_answers_inferred_failed_and_late(api, function):
    one = api("GET /plain", "GET /raise", "GET /gone")
    late = one.integrate(function, TimeoutInMillis=100)
    missing = one.integrate(function.replace("api-echo", "api-missing"))
    one.route("GET /slow", integration=late)
    one.route("GET /missing", integration=missing)
    one.stage()
    assert one.call("/plain")[::2] == (200, b"hello")
    assert one.call("/raise")[::2] == (500, {"message": "Internal Server Error"})
    assert one.call("/missing")[::2] == (500, {"message": "Internal Server Error"})
    assert one.call("/slow")[::2] == (503, {"message": "Service Unavailable"})
    assert one.call("/nothing")[::2] == (404, {"message": "Not Found"})
    assert one.call("/plain", "POST")[0] == 404
    assert one.call("/plain", headers={"Host": "abcdefghij.execute-api.us-east-1.localhost"})[0] == 404


def test_a_function_without_concurrency_is_a_503(aws, api):
    client = aws.client("lambda")
    one = api("GET /")
    one.stage()
    client.put_function_concurrency(FunctionName="api-echo", ReservedConcurrentExecutions=0)
    try:
        assert one.call("/")[::2] == (503, {"message": "Service Unavailable"})
    finally:
        client.delete_function_concurrency(FunctionName="api-echo")


def test_cors(api):
    rules = {"AllowOrigins": ["https://a.test"], "AllowMethods": ["GET"], "AllowHeaders": ["x-a"], "MaxAge": 9,
             "ExposeHeaders": ["x-m"]}  # fmt: skip
    one = api("ANY /x", CorsConfiguration=rules)
    one.stage()
    asked = {"Origin": "https://a.test", "Access-Control-Request-Method": "GET"}
    status, headers, _ = one.call("/x", "OPTIONS", headers=asked)
    assert (status, headers["access-control-allow-methods"], headers["access-control-max-age"]) == (204, "GET", "9")
    assert one.call("/x", headers={"Origin": "https://a.test"})[1]["access-control-allow-origin"] == "https://a.test"
    assert "access-control-allow-origin" not in one.call("/x", headers={"Origin": "https://b.test"})[1]
    assert one.call("/none", headers={"Origin": "https://a.test"})[1]["access-control-expose-headers"] == "x-m"
    one.gateway.delete_cors_configuration(ApiId=one.id)
    assert one.call("/x", headers={"Origin": "https://a.test"})[1]["access-control-allow-origin"] == "mine"
    assert one.call("/x", "OPTIONS", headers=asked)[2]["routeKey"] == "ANY /x"


def test_a_deployment_holds_until_the_next_one(api, gateway):
    one = api("GET /old")
    one.stage("dev", AutoDeploy=False)
    assert one.call("/dev/old")[0] == 404
    first = gateway.create_deployment(ApiId=one.id, StageName="dev", Description="one")["DeploymentId"]
    assert one.call("/dev/old")[0] == 200
    one.route("GET /new")
    assert one.call("/dev/new")[0] == 404
    second = gateway.create_deployment(ApiId=one.id)["DeploymentId"]
    gateway.update_stage(ApiId=one.id, StageName="dev", DeploymentId=second)
    assert one.call("/dev/new")[0] == 200
    with pytest.raises(ClientError) as failure:
        gateway.delete_deployment(ApiId=one.id, DeploymentId=second)
    assert code_of(failure) == ("BadRequestException", 400)
    gateway.delete_deployment(ApiId=one.id, DeploymentId=first)
    assert [item["DeploymentId"] for item in gateway.get_deployments(ApiId=one.id)["Items"]] == [second]
    gateway.update_stage(ApiId=one.id, StageName="dev", AutoDeploy=True)
    one.route("GET /newest")
    assert one.call("/dev/newest")[0] == 200
    with pytest.raises(ClientError) as failure:
        gateway.create_deployment(ApiId=one.id, StageName="dev")
    assert code_of(failure) == ("BadRequestException", 400)
    gateway.delete_stage(ApiId=one.id, StageName="dev")
    assert one.call("/dev/newest")[0] == 404


def test_quick_create(aws, gateway, function):
    document = gateway.create_api(Name="quick", ProtocolType="HTTP", Target=function)
    one = Api.__new__(Api)
    one.aws, one.id = aws, document["ApiId"]
    assert document["ApiEndpoint"] == f"http://{one.id}.execute-api.us-east-1.localhost:{aws.port}"
    assert one.call("/any/thing", "PATCH")[2]["routeKey"] == "$default"
    gateway.delete_api(ApiId=one.id)
    assert one.call("/any/thing")[0] == 404


def test_throttling_acts(api, gateway):
    one = api("GET /slow-lane", "GET /free")
    limits = {"ThrottlingBurstLimit": 2, "ThrottlingRateLimit": 0.001}
    one.stage(RouteSettings={"GET /slow-lane": limits})
    assert [one.call("/slow-lane")[0] for _ in range(3)] == [200, 200, 429]
    assert one.call("/slow-lane")[2] == {"message": "Too Many Requests"}
    assert [one.call("/free")[0] for _ in range(4)] == [200] * 4
    gateway.update_stage(ApiId=one.id, StageName="$default", RouteSettings={}, DefaultRouteSettings=limits)
    assert [one.call("/free")[0] for _ in range(3)] == [200, 200, 429]


# -- SQS-SendMessage --------------------------------------------------------------------------------------------------


def to_queue(one, url, **parameters):
    mapping = {"QueueUrl": url, "MessageBody": "$request.body", **parameters}
    settings = {"IntegrationType": "AWS_PROXY", "IntegrationSubtype": "SQS-SendMessage", "PayloadFormatVersion": "1.0"}
    made = one.gateway.create_integration(ApiId=one.id, RequestParameters=mapping, CredentialsArn=ROLE, **settings)
    return made["IntegrationId"]


def test_a_request_becomes_a_message(aws, api):
    sqs = aws.client("sqs")
    url = sqs.create_queue(QueueName="from-api")["QueueUrl"]
    one = api()
    attributes = json.dumps({"source": {"DataType": "String", "StringValue": "${request.header.x-from}"}})
    one.route("POST /send", integration=to_queue(one, url, MessageAttributes=attributes))
    one.stage()
    status, headers, body = one.call("/send", "POST", b'{"n": 1}', {"X-From": "tests"})
    assert (status, headers["content-type"]) == (200, "text/xml") and b"<MessageId>" in body
    (message,) = sqs.receive_message(QueueUrl=url, MessageAttributeNames=["All"], WaitTimeSeconds=5)["Messages"]
    assert message["Body"] == '{"n": 1}' and message["MessageId"].encode() in body
    assert message["MessageAttributes"]["source"]["StringValue"] == "tests"
    assert one.call("/send", "POST", b"x", {"X-From": 'not " JSON'})[0] == 400
    assert one.call("/send", "POST", b"")[0] == 400
    sqs.delete_queue(QueueUrl=url)
    assert one.call("/send", "POST", b"x", {"X-From": "tests"})[0] == 400


def test_the_group_of_a_fifo_message_comes_from_the_request(aws, api):
    sqs = aws.client("sqs")
    url = sqs.create_queue(QueueName="from-api.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    one = api()
    integration = to_queue(
        one, url, MessageGroupId="$request.body.tenant", MessageDeduplicationId="${request.path.id}-${context.stage}"
    )
    one.route("POST /send/{id}", integration=integration)
    one.stage()
    for number, tenant in (("1", "a"), ("1", "a"), ("2", "b")):
        assert one.call(f"/send/{number}", "POST", json.dumps({"tenant": tenant}).encode())[0] == 200
    got = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, MessageSystemAttributeNames=["All"])["Messages"]
    assert [message["Attributes"]["MessageGroupId"] for message in got] == ["a", "b"]
    assert got[0]["Attributes"]["MessageDeduplicationId"] == "1-$default"
    assert one.call("/send/3", "POST", b"{}")[0] == 400


# -- the control plane ------------------------------------------------------------------------------------------------


def test_tags(api, gateway):
    one = api("GET /", Tags={"a": "1"})
    arn = f"arn:aws:apigateway:us-east-1::/apis/{one.id}"
    gateway.tag_resource(ResourceArn=arn, Tags={"b": "2"})
    gateway.untag_resource(ResourceArn=arn, TagKeys=["a"])
    assert gateway.get_tags(ResourceArn=arn)["Tags"] == gateway.get_api(ApiId=one.id)["Tags"] == {"b": "2"}
    one.stage("dev", Tags={"s": "1"})
    assert gateway.get_tags(ResourceArn=f"{arn}/stages/dev")["Tags"] == {"s": "1"}
    with pytest.raises(ClientError) as failure:
        gateway.get_tags(ResourceArn=arn + "x")
    assert code_of(failure) == ("NotFoundException", 404)


def document(function, *paths, **extra):
    integration = {"type": "aws_proxy", "uri": function, "payloadFormatVersion": "2.0"}
    methods = {path: {"get": {"x-amazon-apigateway-integration": integration}} for path in paths}
    return json.dumps({"openapi": "3.0.1", "info": {"title": "imported", "version": "7"}, "paths": methods, **extra})


def test_import_and_reimport(aws, gateway, function):
    wrapped = f"arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{function}/invocations"
    cors = {"allowOrigins": ["https://a.test"]}
    made = gateway.import_api(Body=document(wrapped, "/one/{id}", "/$default", **{"x-amazon-apigateway-cors": cors}))
    one = Api.__new__(Api)
    one.aws, one.gateway, one.id = aws, gateway, made["ApiId"]
    assert (made["Name"], made["Version"]) == ("imported", "7")
    assert made["CorsConfiguration"]["AllowOrigins"] == ["https://a.test"]
    one.stage()
    assert one.call("/one/5")[2]["routeKey"] == "GET /one/{id}" and one.call("/x")[2]["routeKey"] == "$default"
    with pytest.raises(ClientError) as failure:
        gateway.reimport_api(ApiId=one.id, Body=document("no function", "/two"))
    assert code_of(failure)[0] == "BadRequestException" and one.call("/one/5")[0] == 200
    gateway.reimport_api(ApiId=one.id, Body=document(function, "/two"))
    assert (one.call("/one/5")[0], one.call("/two")[0]) == (404, 200)
    for body in ("[]", "{", '{"openapi": "3.0.1"}', '{"paths": {"/x": []}}'):
        with pytest.raises(ClientError) as failure:
            gateway.import_api(Body=body)
        assert code_of(failure) == ("BadRequestException", 400)
    gateway.delete_api(ApiId=one.id)


def test_routes_and_integrations_change_and_go(api, gateway, function):
    one = api("GET /a")
    (route,) = one.route("GET /b")
    one.stage()
    gateway.update_route(ApiId=one.id, RouteId=route, RouteKey="GET /c")
    assert (one.call("/b")[0], one.call("/c")[0]) == (404, 200)
    gateway.update_integration(ApiId=one.id, IntegrationId=one.integration, PayloadFormatVersion="1.0")
    assert one.call("/c")[2]["version"] == "1.0"
    with pytest.raises(ClientError) as failure:
        gateway.delete_integration(ApiId=one.id, IntegrationId=one.integration)
    assert code_of(failure) == ("ConflictException", 409)
    with pytest.raises(ClientError) as failure:
        one.route("GET /a")
    assert code_of(failure) == ("ConflictException", 409)
    gateway.delete_route(ApiId=one.id, RouteId=route)
    assert one.call("/c")[0] == 404
    pages = [gateway.get_routes(ApiId=one.id, MaxResults="1")["Items"][0]["RouteKey"]]
    assert pages == ["GET /a"]
    assert one.id in [item["ApiId"] for item in gateway.get_apis()["Items"]]


def test_what_cannot_be_is_refused(api, gateway, function):
    one = api()
    calls = [
        lambda: one.route("FETCH /x"),
        lambda: one.route("GET x"),
        lambda: one.route("GET /{a+}/b"),
        lambda: one.route("GET /x{a}"),
        lambda: one.route("GET /x", integration="none"),
        lambda: one.integrate(function, PayloadFormatVersion="3.0"),
        lambda: one.integrate("arn:aws:s3:::bucket"),
        lambda: one.integrate(function, TimeoutInMillis=40_000),
        lambda: one.integrate("http://example.test", IntegrationType="HTTP_PROXY"),
        lambda: to_queue(one, "http://q", Unknown="x"),
        lambda: one.stage("bad name"),
        lambda: one.stage("s", AccessLogSettings={"DestinationArn": "arn:aws:logs:us-east-1:000000000000:log-group:x"}),
        lambda: gateway.create_api(Name="w", ProtocolType="WEBSOCKET"),
        lambda: gateway.create_route(ApiId=one.id, RouteKey="GET /x", AuthorizationType="JWT"),
        lambda: gateway.create_deployment(ApiId=one.id),
    ]
    for call in calls:
        with pytest.raises(ClientError) as failure:
            call()
        assert code_of(failure) == ("BadRequestException", 400)
    assert gateway.get_routes(ApiId=one.id)["Items"] == [] and gateway.get_stages(ApiId=one.id)["Items"] == []
    for call in (lambda: gateway.get_api(ApiId="nosuch"), lambda: gateway.get_route(ApiId=one.id, RouteId="nosuch")):
        with pytest.raises(ClientError) as failure:
            call()
        assert code_of(failure) == ("NotFoundException", 404)


def test_apis_outlive_a_kill(fresh_server, tmp_path):
    server = fresh_server()
    functions, gateway = server.client("lambda"), server.client("apigatewayv2")
    arn = functions.create_function(
        FunctionName="f", Runtime="python3.11", Handler="app.handler", Role=ROLE,
        Code={"ZipFile": make_zip({"app.py": ECHO})},
    )["FunctionArn"]  # fmt: skip
    functions.get_waiter("function_active_v2").wait(FunctionName="f", WaiterConfig={"Delay": 1})
    one = Api.__new__(Api)
    one.aws, one.id = server, gateway.create_api(Name="quick", ProtocolType="HTTP", Target=arn)["ApiId"]
    server.kill()
    server.start()
    assert wait_for(lambda: one.call("/x")[0] == 200)

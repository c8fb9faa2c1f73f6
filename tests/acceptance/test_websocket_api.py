"""WebSocket APIs: made through boto3, spoken to over sockets, written to by functions through the connections API."""

import json
import threading

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.support.functions import ROLE, make_zip
from tests.support.server import LiveServer, wait_for
from tests.support.websocket import Client, Refused

CHAT = """
import boto3, json, os, select

table = boto3.resource("dynamodb").Table("ws-seen")

def handler(event, context):
    told = event["requestContext"]
    kind = told["eventType"]
    key = told["messageId"] if kind == "MESSAGE" else kind
    table.put_item(Item={"connection": told["connectionId"], "what": key, "event": json.dumps(event)})
    if kind == "CONNECT":
        query = event.get("queryStringParameters") or {}
        if "fail" in query:
            raise ValueError("no")
        if "early" in query:
            post(event, "too early")
        wanted = event["headers"].get("sec-websocket-protocol", "").split(",")[0]
        headers = {"Sec-WebSocket-Protocol": wanted} if wanted else {}
        return {"statusCode": int(query.get("status", 200)), "headers": headers}
    if kind == "DISCONNECT":
        return {"statusCode": 200}
    body = event["body"]
    if body.startswith("{") and told["routeKey"] == "push":
        for text in json.loads(body)["texts"]:
            post(event, text)
    elif "raise" in body:
        raise ValueError("oh")
    elif "none" in body:
        return None
    elif "slow" in body:
        select.select([], [], [], 3)
    return {"statusCode": 200, "body": json.dumps({"route": told["routeKey"], "got": body})}

def post(event, text):
    told = event["requestContext"]
    endpoint = f"http://{told['domainName']}/{told['stage']}"
    client = boto3.client("apigatewaymanagementapi", endpoint_url=endpoint)
    try:
        client.post_to_connection(ConnectionId=told["connectionId"], Data=text.encode())
    except client.exceptions.GoneException:
        table.put_item(Item={"connection": told["connectionId"], "what": "GONE", "event": "{}"})
"""
LIMIT = 32 * 1024


@pytest.fixture(scope="module")
def function(aws):
    keys = [("connection", "HASH"), ("what", "RANGE")]
    aws.client("dynamodb").create_table(
        TableName="ws-seen", BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in keys],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name, _ in keys],
    )  # fmt: skip
    client = aws.client("lambda")
    client.create_function(
        FunctionName="ws-chat", Runtime="python3.11", Handler="app.handler", Role=ROLE, Timeout=10, MemorySize=512,
        Code={"ZipFile": make_zip({"app.py": CHAT})},
    )  # fmt: skip
    client.get_waiter("function_active_v2").wait(FunctionName="ws-chat", WaiterConfig={"Delay": 1})
    return client.get_function(FunctionName="ws-chat")["Configuration"]["FunctionArn"]


class Api:
    """A WebSocket API with routes to one function."""

    def __init__(self, aws, function, *routes, selection="$request.body.action", **integration):
        self.aws, self.gateway = aws, aws.client("apigatewayv2")
        made = self.gateway.create_api(Name="chat", ProtocolType="WEBSOCKET", RouteSelectionExpression=selection)
        self.id, self.document = made["ApiId"], made
        uri = f"arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{function}/invocations"
        self.integration = self.gateway.create_integration(
            ApiId=self.id, IntegrationType="AWS_PROXY", IntegrationUri=uri, **integration
        )["IntegrationId"]
        self.routes = {key: self.route(key) for key in routes}
        self.gateway.create_stage(
            ApiId=self.id, StageName="live", DeploymentId=self.deploy(), StageVariables={"colour": "blue"}
        )

    def route(self, key, integration=None, **more):
        target = f"integrations/{integration or self.integration}"
        return self.gateway.create_route(ApiId=self.id, RouteKey=key, Target=target, **more)["RouteId"]

    def deploy(self, **more):
        return self.gateway.create_deployment(ApiId=self.id, **more)["DeploymentId"]

    def connect(self, query="", **more):
        return Client(self.aws.port, f"/_aws/execute-api/{self.id}/live{query}", **more)

    def events(self, connection):
        rows = self.aws.client("dynamodb").query(
            TableName="ws-seen", KeyConditionExpression="#c = :c", ExpressionAttributeNames={"#c": "connection"},
            ExpressionAttributeValues={":c": {"S": connection}}, ConsistentRead=True,
        )["Items"]  # fmt: skip
        return {row["what"]["S"]: json.loads(row["event"]["S"]) for row in rows}

    @property
    def connections(self):
        endpoint = f"{self.aws.endpoint}/_aws/execute-api/{self.id}/live"
        return boto3.client(
            "apigatewaymanagementapi", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="test",
            aws_secret_access_key="test", config=Config(retries={"max_attempts": 0}),
        )  # fmt: skip


@pytest.fixture(scope="module")
def chat(aws, function):
    api = Api(aws, function, "$connect", "$disconnect", "$default", "push", "ask")
    api.gateway.update_route(
        ApiId=api.id, RouteId=api.routes["ask"], RouteResponseSelectionExpression="$default"
    )
    api.gateway.create_route_response(ApiId=api.id, RouteId=api.routes["ask"], RouteResponseKey="$default")
    api.deploy(StageName="live")
    return api


def refused(call, *args, **params):
    with pytest.raises(ClientError) as failure:
        call(*args, **params)
    error = failure.value.response
    return error["ResponseMetadata"]["HTTPStatusCode"], error["Error"]["Code"], error["Error"].get("Message")


def identity(client):
    """The connection's id, as the server tells it in an error."""
    client.send({"action": "push", "raise": 1, "texts": None})
    return client.json()["connectionId"]


# -- a connection's life ----------------------------------------------------------------------------------------------


def test_the_handshake_asks_the_connect_route(chat):
    client = chat.connect("?room=4&room=5&who=me", User_Agent="tests/1")
    connection = identity(client)
    event = chat.events(connection)["CONNECT"]
    told = event["requestContext"]
    assert (told["routeKey"], told["eventType"], told["messageDirection"]) == ("$connect", "CONNECT", "IN")
    assert (told["stage"], told["apiId"], told["connectionId"]) == ("live", chat.id, connection)
    assert told["identity"] == {"sourceIp": "127.0.0.1", "userAgent": "tests/1"}
    assert told["connectedAt"] <= told["requestTimeEpoch"] and "messageId" not in told
    assert event["queryStringParameters"] == {"room": "5", "who": "me"}
    assert event["multiValueQueryStringParameters"] == {"room": ["4", "5"], "who": ["me"]}
    assert event["headers"]["user-agent"] == "tests/1" and event["stageVariables"] == {"colour": "blue"}
    assert event["isBase64Encoded"] is False and "body" not in event
    client.close(1000, "bye")
    told = wait_for(lambda: chat.events(connection).get("DISCONNECT"))["requestContext"]
    assert (told["routeKey"], told["disconnectStatusCode"], told["disconnectReason"]) == ("$disconnect", 1000, "bye")
    gone = refused(chat.connections.post_to_connection, ConnectionId=connection, Data=b"x")
    assert gone[:2] == (410, "GoneException")


def test_the_connect_route_refuses_and_fails(chat):
    for query, status, message in (("?status=401", 401, "Unauthorized"), ("?status=403", 403, "Forbidden"),
                                   ("?fail=1", 502, "Internal server error")):  # fmt: skip
        with pytest.raises(Refused) as failure:
            chat.connect(query)
        assert failure.value.args[0] == status and json.loads(failure.value.args[2])["message"] == message


def test_nobody_can_be_written_to_before_the_connect_route_has_said_yes(chat):
    client = chat.connect("?early=1")
    assert "GONE" in chat.events(identity(client))
    client.close()


def test_the_function_chooses_the_subprotocol(chat):
    client = chat.connect(protocols=("graphql-ws", "mqtt"))
    assert client.subprotocol == "graphql-ws"
    client.close()
    plain = chat.connect()
    assert plain.subprotocol is None
    plain.close()


def test_a_client_that_goes_without_a_word_is_disconnected(chat):
    client = chat.connect()
    connection = identity(client)
    client.drop()
    told = wait_for(lambda: chat.events(connection).get("DISCONNECT"))["requestContext"]
    assert told["disconnectStatusCode"] == 1006


@pytest.mark.parametrize("how", ["by host", "plain HTTP", "other path", "old version", "no such stage"])
def test_how_a_stage_is_reached(chat, aws, how):
    host = f"{chat.id}.execute-api.us-east-1.localhost"
    if how == "by host":
        client = Client(aws.port, "/live", host=host)
        client.send({"action": "push", "texts": ["by name"]})
        assert client.text() == "by name"
        client.close()
        return
    path = f"/_aws/execute-api/{chat.id}/live"
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    asked, wanted = {
        "plain HTTP": ((path, {}), 426),
        "other path": ((f"{path}/other", {**headers, "Sec-WebSocket-Version": "13"}), 403),
        "old version": ((path, {**headers, "Sec-WebSocket-Version": "8"}), 400),
        "no such stage": ((f"/_aws/execute-api/{chat.id}/gone", {**headers, "Sec-WebSocket-Version": "13"}), 404),
    }[how]
    assert aws.get(asked[0], headers=asked[1])[0] == wanted


# -- messages ---------------------------------------------------------------------------------------------------------


def test_a_message_takes_the_route_that_its_body_names(chat):
    client = chat.connect()
    for sent, route in (({"action": "ask", "n": 1}, "ask"), ('{"action": "ask"} ', "ask")):
        client.send(sent)
        answered = client.json()
        assert answered["route"] == route and answered["got"] == (sent if isinstance(sent, str) else json.dumps(sent))
    for sent in ("no json", {"action": "$connect"}, {"action": "unknown"}, {"other": 1}, "[1]", {"action": {"a": 1}}):
        client.send(sent)
    connection = identity(client)
    wanted = ["$default"] * 6 + ["ask"] * 2 + ["push"]

    def routes():
        events = chat.events(connection).values()
        return sorted(one["requestContext"]["routeKey"] for one in events if "body" in one) == wanted

    wait_for(routes)
    client.close()


def test_only_a_route_with_a_response_answers(chat):
    client = chat.connect()
    client.send("nothing comes of it")
    client.send({"action": "push", "texts": ["one", "zwei ü", "x" * 20_000]})
    assert [client.text() for _ in range(3)] == ["one", "zwei ü", "x" * 20_000]
    client.send_frames('{"action": ', '"ask", "parts": "', "y" * LIMIT, '"}')
    assert json.loads(client.json()["got"])["parts"] == "y" * LIMIT
    client.close()


@pytest.mark.parametrize("sent", ["raise", "none"])
def test_a_failed_integration_is_told_in_an_error_frame(chat, sent):
    client = chat.connect()
    client.send(sent)
    told = client.json()
    assert told["message"] == "Internal server error" and set(told) == {"message", "connectionId", "requestId"}
    assert len(told["connectionId"]) == 16
    client.close()


def test_without_a_default_route_an_unknown_message_is_forbidden(aws, function):
    api = Api(aws, function, "ask", selection="${request.body.meta.kind}-v1")
    api.route("question-v1")
    api.deploy(StageName="live")
    client = api.connect()
    client.send({"meta": {"kind": "ask"}})
    assert client.json()["message"] == "Forbidden"
    client.send({"meta": {"kind": "question"}})
    client.send({"meta": {}})
    assert client.json()["message"] == "Forbidden"
    client.close()


def test_a_slow_integration_is_not_waited_for(aws, function):
    api = Api(aws, function, "$default", TimeoutInMillis=100)
    client = api.connect()
    client.send("slow")
    assert client.json()["message"] == "Internal server error"
    client.close()


def test_a_throttled_route_says_so(aws, function):
    api = Api(aws, function, "$default")
    api.gateway.update_stage(
        ApiId=api.id, StageName="live", DefaultRouteSettings={"ThrottlingRateLimit": 0.001, "ThrottlingBurstLimit": 2}
    )
    client = api.connect()
    for _ in range(3):
        client.send("none")
    told = sorted(client.json()["message"] for _ in range(3))
    assert told == ["Internal server error", "Internal server error", "Too Many Requests"]
    client.close()


def test_a_mock_lets_clients_in_or_keeps_them_out(aws, function):
    api = Api(aws, function, "$default")
    for status, inside in ((200, True), (403, False)):
        mock = api.gateway.create_integration(
            ApiId=api.id, IntegrationType="MOCK", TemplateSelectionExpression="\\$default",
            RequestTemplates={"$default": json.dumps({"statusCode": status})},
        )["IntegrationId"]  # fmt: skip
        if inside:
            connect = api.route("$connect", mock)
        else:
            api.gateway.update_route(ApiId=api.id, RouteId=connect, Target=f"integrations/{mock}")
        api.deploy(StageName="live")
        if inside:
            api.connect().close()
        else:
            with pytest.raises(Refused) as failure:
                api.connect()
            assert failure.value.args[0] == 403


def test_what_is_no_message_ends_the_connection(chat):
    client = chat.connect()
    assert client.ping() == b"are you there"
    client.send_bytes(b"\0\1")
    assert client.end()[0] == 1003
    for parts in (["x" * (LIMIT + 1)], ["x" * LIMIT] * 5):
        client = chat.connect()
        client.send_frames(*parts)
        assert client.end()[0] == 1009
    client = chat.connect()
    client.socket.sendall(b"\xff\xff\xff\xff\xff\xff")
    assert client.end()[0] == 1002
    client = chat.connect()
    client.socket.sendall(bytes((0x81, 0x82, 0, 0, 0, 0, 0xC3, 0x28)))
    assert client.end()[0] == 1007


# -- the connections API ----------------------------------------------------------------------------------------------


def test_the_connections_api(chat):
    client = chat.connect(User_Agent="tests/2")
    connection = identity(client)
    known = chat.connections
    found = known.get_connection(ConnectionId=connection)
    assert found["Identity"] == {"SourceIp": "127.0.0.1", "UserAgent": "tests/2"}
    assert found["ConnectedAt"] <= found["LastActiveAt"]
    known.post_to_connection(ConnectionId=connection, Data="grüße".encode())
    assert client.text() == "grüße"
    assert refused(known.post_to_connection, ConnectionId=connection, Data=b"x" * (128 * 1024 + 1))[:2] == (
        413, "PayloadTooLargeException",
    )  # fmt: skip
    known.post_to_connection(ConnectionId=connection, Data=b"x" * 128 * 1024)
    assert len(client.text()) == 128 * 1024
    assert refused(known.get_connection, ConnectionId="nonsense")[:2] == (400, "BadRequestException")
    assert refused(known.get_connection, ConnectionId="A" * 15 + "=")[:2] == (410, "GoneException")
    assert known.delete_connection(ConnectionId=connection)["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert client.end()[0] == 1000
    told = wait_for(lambda: chat.events(connection).get("DISCONNECT"))["requestContext"]
    assert (told["disconnectStatusCode"], told["disconnectReason"]) == (1000, "Connection Closed Normally")
    assert refused(known.delete_connection, ConnectionId=connection)[:2] == (410, "GoneException")


def test_a_client_that_does_not_read_is_not_written_to_without_end(chat):
    client = chat.connect()
    connection = identity(client)
    known = chat.connections

    def fill():
        for _ in range(400):
            known.post_to_connection(ConnectionId=connection, Data=b"x" * 128 * 1024)

    assert refused(fill)[:2] == (429, "LimitExceededException")
    assert client.text() == "x" * 128 * 1024
    client.drop()


def test_unsigned_commands_are_refused(chat):
    client = chat.connect()
    connection = identity(client)
    unsigned = boto3.client(
        "apigatewaymanagementapi", endpoint_url=f"{chat.aws.endpoint}/_aws/execute-api/{chat.id}/live",
        region_name="us-east-1", config=Config(signature_version=UNSIGNED),
    )  # fmt: skip
    assert refused(unsigned.get_connection, ConnectionId=connection) == (
        403, "MissingAuthenticationTokenException", "Missing Authentication Token",
    )  # fmt: skip
    client.close()


def test_a_hundred_clients_hear_what_is_meant_for_them(chat):
    clients = [chat.connect() for _ in range(100)]
    for number, client in enumerate(clients):
        client.send({"action": "ask", "number": number})
    assert [json.loads(client.json()["got"])["number"] for client in clients] == list(range(100))
    threads = [threading.Thread(target=client.close) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# -- time, restarts, policies -----------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path):
    server = LiveServer(tmp_path / "state").start()
    yield server
    server.stop()


def plain_api(server, **stage):
    """An API without any route but a mocked $default: (API id, path)."""
    gateway = server.client("apigatewayv2")
    api = gateway.create_api(Name="bare", ProtocolType="WEBSOCKET", RouteSelectionExpression="$request.body.action")
    mock = gateway.create_integration(
        ApiId=api["ApiId"], IntegrationType="MOCK", RequestTemplates={"$default": '{"statusCode": 200}'}
    )["IntegrationId"]
    gateway.create_route(ApiId=api["ApiId"], RouteKey="$default", Target=f"integrations/{mock}")
    gateway.create_stage(ApiId=api["ApiId"], StageName="live", AutoDeploy=True, **stage)
    assert api["ApiEndpoint"] == f"ws://{api['ApiId']}.execute-api.us-east-1.localhost:{server.port}"
    return api["ApiId"], f"/_aws/execute-api/{api['ApiId']}/live"


def test_idle_and_old_connections_end(own):
    _, path = plain_api(own)
    idle, busy = Client(own.port, path), Client(own.port, path)
    own.advance(500)
    busy.ping()
    own.advance(101)
    assert idle.end() == (1001, "Going away")
    for _ in range(12):
        busy.ping()
        own.advance(550)
    assert busy.end() == (1001, "Going away")


def test_the_server_says_goodbye(own):
    _, path = plain_api(own)
    client = Client(own.port, path)
    client.ping()
    stopping = threading.Thread(target=own.stop)
    stopping.start()
    assert client.end()[0] == 1012
    stopping.join()


def test_metrics(own):
    api, path = plain_api(own)
    client = Client(own.port, path)
    client.send("one")
    client.send("two")
    client.ping()
    client.close()
    now = json.loads(own.get("/_preheat/clock")[2])["now"]

    def total(name):
        points = own.client("cloudwatch").get_metric_statistics(
            Namespace="AWS/ApiGateway", MetricName=name, StartTime=now - 600, EndTime=now + 600, Period=60,
            Dimensions=[{"Name": "ApiId", "Value": api}, {"Name": "Stage", "Value": "live"}], Statistics=["Sum"],
        )["Datapoints"]  # fmt: skip
        return sum(point["Sum"] for point in points)

    wait_for(lambda: (total("ConnectCount"), total("MessageCount")) == (1, 2))


# -- templates --------------------------------------------------------------------------------------------------------

TEMPLATE = """
Parameters: {Answers: {Type: String, Default: 'true'}}
Conditions: {Answering: !Equals [!Ref Answers, 'true']}
Resources:
  Role:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument:
        Version: '2012-10-17'
        Statement: [{Effect: Allow, Principal: {Service: lambda.amazonaws.com}, Action: 'sts:AssumeRole'}]
  Echo:
    Type: AWS::Lambda::Function
    Properties:
      Runtime: python3.11
      Handler: index.handler
      Role: !GetAtt Role.Arn
      Code: {ZipFile: 'def handler(event, context): return {"statusCode": 200, "body": "echo " + event["body"]}'}
  Chat:
    Type: AWS::ApiGatewayV2::Api
    Properties: {Name: chat, ProtocolType: WEBSOCKET, RouteSelectionExpression: $request.body.action}
  Calls:
    Type: AWS::ApiGatewayV2::Integration
    Properties:
      ApiId: !Ref Chat
      IntegrationType: AWS_PROXY
      IntegrationUri:
        !Sub arn:aws:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/${Echo.Arn}/invocations
  Default:
    Type: AWS::ApiGatewayV2::Route
    Properties:
      ApiId: !Ref Chat
      RouteKey: $default
      RouteResponseSelectionExpression: $default
      Target: !Sub integrations/${Calls}
  Answer:
    Type: AWS::ApiGatewayV2::RouteResponse
    Condition: Answering
    Properties: {ApiId: !Ref Chat, RouteId: !Ref Default, RouteResponseKey: $default}
  Live:
    Type: AWS::ApiGatewayV2::Stage
    Properties: {ApiId: !Ref Chat, StageName: live, AutoDeploy: true}
Outputs:
  Endpoint: {Value: !Sub '${Chat.ApiEndpoint}/${Live}'}
  Id: {Value: !Ref Chat}
"""


def test_a_template_makes_changes_and_removes_one(aws):
    stacks = aws.client("cloudformation")
    call = {"StackName": "sockets", "TemplateBody": TEMPLATE, "Capabilities": ["CAPABILITY_IAM"]}
    waiting = {"Delay": 0, "MaxAttempts": 3_000}
    stacks.create_stack(**call)
    stacks.get_waiter("stack_create_complete").wait(StackName="sockets", WaiterConfig=waiting)
    described = stacks.describe_stacks(StackName="sockets")["Stacks"][0]
    outputs = {one["OutputKey"]: one["OutputValue"] for one in described["Outputs"]}
    assert outputs["Endpoint"] == f"ws://{outputs['Id']}.execute-api.us-east-1.localhost:{aws.port}/live"
    client = Client(aws.port, f"/_aws/execute-api/{outputs['Id']}/live")
    client.send("hello")
    assert client.text() == "echo hello"
    stacks.update_stack(**call, Parameters=[{"ParameterKey": "Answers", "ParameterValue": "false"}])
    stacks.get_waiter("stack_update_complete").wait(StackName="sockets", WaiterConfig=waiting)
    client.send("not answered")
    assert client.ping() == b"are you there"
    stacks.delete_stack(StackName="sockets")
    stacks.get_waiter("stack_delete_complete").wait(StackName="sockets", WaiterConfig=waiting)
    client.send("to nobody")
    told = client.json()
    assert told["message"] == "Forbidden"
    client.close()
    assert refused(aws.client("apigatewayv2").get_api, ApiId=outputs["Id"])[:2] == (404, "NotFoundException")

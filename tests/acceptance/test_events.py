"""EventBridge over a socket: functions and queues as targets, schedules, replays, HTTP endpoints, templates, a kill."""

import base64
import http.server
import json
import threading
import time
from datetime import UTC, datetime

import pytest
from botocore.exceptions import ClientError

from tests.support.functions import ROLE, make_zip
from tests.support.server import wait_for

ACCOUNT = "000000000000"
ECHO = """
import json, os, boto3
sqs = boto3.client("sqs")

def handler(event, context):
    sqs.send_message(QueueUrl=os.environ["QUEUE"], MessageBody=json.dumps(event))
"""


class Desk:
    """EventBridge and queues of one server."""

    def __init__(self, server, name):
        self.server, self.name = server, name
        self.events, self.sqs = server.client("events"), server.client("sqs")

    def queue(self, suffix="", **attributes):
        name = f"{self.name}{suffix}"
        url = self.sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        return url, f"arn:aws:sqs:us-east-1:{ACCOUNT}:{name}"

    def put(self, detail, **more):
        entry = {"Source": self.name, "DetailType": "t", "Detail": json.dumps(detail), **more}
        return self.events.put_events(Entries=[entry])["Entries"][0]["EventId"]

    def rule(self, *targets, name=None, pattern=None):
        name = name or self.name
        self.events.put_rule(Name=name, EventPattern=json.dumps(pattern or {"source": [self.name]}))
        given = [{"Id": str(number), **target} for number, target in enumerate(targets)]
        assert self.events.put_targets(Rule=name, Targets=given)["FailedEntryCount"] == 0

    def take(self, url, count=1):
        """That many messages, parsed."""
        found = []

        def receive():
            answer = self.sqs.receive_message(
                QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1, MessageSystemAttributeNames=["All"]
            )
            for message in answer.get("Messages", ()):
                self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
                found.append(message)
            return len(found) >= count

        wait_for(receive, what=f"{count} messages in {url}")
        assert len(found) == count
        return [json.loads(message["Body"]) for message in found]


def refusal(call, **params):
    with pytest.raises(ClientError) as caught:
        call(**params)
    return caught.value


def test_a_function_and_a_queue_get_an_event(aws):
    desk = Desk(aws, "by-function")
    url, arn = desk.queue()
    functions = aws.client("lambda")
    made = functions.create_function(
        FunctionName="by-function", Runtime="python3.11", Handler="app.handler", Role=ROLE, Timeout=20,
        Code={"ZipFile": make_zip({"app.py": ECHO})}, Environment={"Variables": {"QUEUE": url}},
    )  # fmt: skip
    functions.get_waiter("function_active_v2").wait(FunctionName="by-function")
    template = {"InputPathsMap": {"n": "$.detail.n"}, "InputTemplate": '{"number": <n>}'}
    desk.rule({"Arn": made["FunctionArn"]}, {"Arn": arn, "InputTransformer": template})
    identifier = desk.put({"n": 7})
    bodies = desk.take(url, 2)
    assert {"number": 7} in bodies
    (event,) = (body for body in bodies if "id" in body)
    assert (event["id"], event["source"], event["detail"]) == (identifier, "by-function", {"n": 7})


def test_errors_as_the_sdk_models_them(aws):
    events = aws.client("events")
    with pytest.raises(events.exceptions.ResourceNotFoundException):
        events.describe_rule(Name="no-such-rule")
    with pytest.raises(events.exceptions.InvalidEventPatternException):
        events.put_rule(Name="bad", EventPattern='{"a": 1}')
    error = refusal(events.put_rule, Name="bad", ScheduleExpression="rate(2 minute)").response["Error"]
    assert error == {"Code": "ValidationException", "Message": "Parameter ScheduleExpression is not valid."}
    refused = refusal(events.list_event_sources).response["Error"]
    assert refused["Code"] == "UnsupportedOperation"


def test_what_was_accepted_survives_a_killed_server(fresh_server):
    server = fresh_server()
    desk = Desk(server, "killed")
    url, arn = desk.queue()
    desk.rule({"Arn": arn})
    for number in range(20):
        desk.put({"n": number})
    server.kill()
    server.start()
    desk.put({"n": 20})
    assert sorted(body["detail"]["n"] for body in desk.take(url, 21)) == list(range(21))


def test_a_schedule_fires_within_50_ms(fresh_server):
    """Moved to just before a full minute, three times; how late the message was in the queue."""
    server = fresh_server()
    desk = Desk(server, "on-time")
    url, arn = desk.queue()
    desk.events.put_rule(Name="minutely", ScheduleExpression="cron(* * * * ? *)")
    desk.events.put_targets(Rule="minutely", Targets=[{"Id": "1", "Arn": arn}])
    late = []
    for _ in range(3):
        now = json.loads(server.get("/_preheat/clock")[2])["now"]
        server.advance(59.5 - now % 60 if now % 60 < 59.5 else 119.5 - now % 60)

        def receive():
            return desk.sqs.receive_message(QueueUrl=url, AttributeNames=["All"], WaitTimeSeconds=2).get("Messages")

        (message,) = wait_for(receive, what="the minute's message")
        desk.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        due = datetime.fromisoformat(json.loads(message["Body"])["time"]).timestamp()
        assert due % 60 == 0
        late.append(int(message["Attributes"]["SentTimestamp"]) / 1_000 - due)
    assert 0 <= min(late) <= 0.05, late


def test_a_replay(aws):
    desk = Desk(aws, "again")
    url, arn = desk.queue()
    desk.rule({"Arn": arn})
    bus = f"arn:aws:events:us-east-1:{ACCOUNT}:event-bus/default"
    pattern = json.dumps({"source": ["again"]})
    archive = desk.events.create_archive(ArchiveName="again", EventSourceArn=bus, EventPattern=pattern)["ArchiveArn"]
    for number in range(3):
        desk.put({"n": number})
    desk.take(url, 3)
    assert desk.events.describe_archive(ArchiveName="again")["EventCount"] == 3
    now = time.time()
    desk.events.start_replay(
        ReplayName="again", EventSourceArn=archive, Destination={"Arn": bus},
        EventStartTime=datetime.fromtimestamp(now - 3_600, UTC), EventEndTime=datetime.fromtimestamp(now + 3_600, UTC),
    )  # fmt: skip
    assert {body["replay-name"] for body in desk.take(url, 3)} == {"again"}
    wait_for(lambda: desk.events.describe_replay(ReplayName="again")["State"] == "COMPLETED", what="the end")


# -- HTTP endpoints ---------------------------------------------------------------------------------------------------


class Endpoint:
    """A web server that keeps what it is asked. `/token` gives tokens; the first call with one is answered 401 when
    `stale`; `/flaky` fails once."""

    def __init__(self):
        self.calls = []
        self.stale = self.flaky = True
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                endpoint.calls.append((self.path, dict(self.headers), body))
                status, answer = endpoint.answer(self.path, self.headers)
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, path, headers):
        if path == "/token":
            number = sum(call[0] == "/token" for call in self.calls)
            return 200, json.dumps({"access_token": f"token-{number}", "expires_in": 600}).encode()
        if headers.get("Authorization") == "Bearer token-1" and self.stale:
            self.stale = False
            return 401, b""
        if path.startswith("/flaky") and self.flaky:
            self.flaky = False
            return 503, b""
        return 200, b"{}"

    def paths(self):
        return [path for path, _, _ in self.calls]


@pytest.fixture
def endpoint():
    endpoint = Endpoint()
    yield endpoint
    endpoint.server.shutdown()
    endpoint.server.server_close()


def destination(desk, endpoint, path, kind, parameters, **more):
    made = desk.events.create_connection(
        Name=desk.name, AuthorizationType=kind, AuthParameters={**parameters, **more}
    )["ConnectionArn"]
    return desk.events.create_api_destination(
        Name=desk.name, ConnectionArn=made, InvocationEndpoint=endpoint.url + path, HttpMethod="POST"
    )["ApiDestinationArn"]


def test_an_endpoint_with_a_password(aws, endpoint):
    desk = Desk(aws, "basic")
    extra = {"QueryStringParameters": [{"Key": "from", "Value": "bus"}], "BodyParameters": [{"Key": "k", "Value": "v"}]}
    basic = {"BasicAuthParameters": {"Username": "me", "Password": "secret!"}}
    arn = destination(desk, endpoint, "/flaky/*/end", "BASIC", basic, InvocationHttpParameters=extra)
    http_parameters = {"PathParameterValues": ["$.detail.part"], "HeaderParameters": {"X-N": "$.detail.n"}}
    desk.rule({"Arn": arn, "HttpParameters": http_parameters, "InputPath": "$.detail", "RoleArn": ROLE})
    desk.put({"part": "a b", "n": 5})
    wait_for(lambda: len(endpoint.calls) == 2, what="the second attempt")
    path, headers, body = endpoint.calls[-1]
    assert path == "/flaky/a%20b/end?from=bus"
    assert headers["Authorization"] == "Basic " + base64.b64encode(b"me:secret!").decode()
    assert headers["X-N"] == "5" and headers["Content-Type"].startswith("application/json")
    assert json.loads(body) == {"part": "a b", "n": 5, "k": "v"}
    shown = desk.events.describe_connection(Name="basic")
    assert "secret!" not in json.dumps(shown, default=str)
    secret = aws.client("secretsmanager").get_secret_value(SecretId=shown["SecretArn"])["SecretString"]
    assert json.loads(secret)["password"] == "secret!"
    state = aws.client("events").deauthorize_connection(Name="basic")["ConnectionState"]
    assert state == "DEAUTHORIZED"


def test_an_endpoint_with_a_key(aws, endpoint):
    desk = Desk(aws, "keyed")
    keys = {"ApiKeyAuthParameters": {"ApiKeyName": "X-Key", "ApiKeyValue": "k-1"}}
    desk.rule({"Arn": destination(desk, endpoint, "/in", "API_KEY", keys), "RoleArn": ROLE})
    desk.put({"n": 1})
    wait_for(lambda: endpoint.calls, what="the call")
    assert endpoint.calls[0][1]["X-Key"] == "k-1"
    desk.events.update_connection(Name="keyed", AuthParameters={"ApiKeyAuthParameters": {"ApiKeyValue": "k-2"}})
    desk.put({"n": 2})
    wait_for(lambda: len(endpoint.calls) == 2, what="the second call")
    assert endpoint.calls[1][1]["X-Key"] == "k-2"
    desk.events.delete_api_destination(Name="keyed")
    desk.events.delete_connection(Name="keyed")
    message = refusal(desk.events.describe_connection, Name="keyed").response["Error"]["Message"]
    assert message == "Failed to describe the connection(s). Connection 'keyed' does not exist."


def test_an_endpoint_with_tokens(aws, endpoint):
    """One token for several calls, a new one after a 401."""
    desk = Desk(aws, "oauth")
    oauth = {"OAuthParameters": {
        "ClientParameters": {"ClientID": "id", "ClientSecret": "s"}, "AuthorizationEndpoint": endpoint.url + "/token",
        "HttpMethod": "POST",
        "OAuthHttpParameters": {"BodyParameters": [{"Key": "scope", "Value": "all"}]},
    }}  # fmt: skip
    desk.rule({"Arn": destination(desk, endpoint, "/in", "OAUTH_CLIENT_CREDENTIALS", oauth), "RoleArn": ROLE})
    desk.put({"n": 1})
    wait_for(lambda: endpoint.paths() == ["/token", "/in", "/token", "/in"], what="the retry with a new token")
    assert endpoint.calls[0][2] == "grant_type=client_credentials&client_id=id&client_secret=s&scope=all"
    desk.put({"n": 2})
    wait_for(lambda: len(endpoint.calls) == 5, what="the second event")
    assert endpoint.calls[-1][1]["Authorization"] == "Bearer token-2"


# -- templates --------------------------------------------------------------------------------------------------------

TEMPLATE = """
AWSTemplateFormatVersion: 2010-09-09
Transform: AWS::Serverless-2016-10-31
Parameters: {Kind: {Type: String, Default: small}}
Resources:
  Bus: {Type: AWS::Events::EventBus, Properties: {Name: stacked, Tags: [{Key: a, Value: b}]}}
  BusPolicy:
    Type: AWS::Events::EventBusPolicy
    Properties:
      EventBusName: !Ref Bus
      StatementId: others
      Statement:
        {Effect: Allow, Principal: {AWS: "111111111111"}, Action: "events:PutEvents", Resource: !GetAtt Bus.Arn}
  Archive: {Type: AWS::Events::Archive, Properties: {SourceArn: !GetAtt Bus.Arn, RetentionDays: 7}}
  Connection:
    Type: AWS::Events::Connection
    Properties:
      AuthorizationType: API_KEY
      AuthParameters: {ApiKeyAuthParameters: {ApiKeyName: X, ApiKeyValue: y}}
  Destination:
    Type: AWS::Events::ApiDestination
    Properties:
      {ConnectionArn: !GetAtt Connection.Arn, HttpMethod: POST, InvocationEndpoint: "https://example.com/*"}
  Inbox: {Type: AWS::SQS::Queue}
  Rule:
    Type: AWS::Events::Rule
    Properties:
      EventBusName: !Ref Bus
      EventPattern: {detail: {amount: [{numeric: [">", 1]}], kind: [{prefix: !Ref Kind}]}}
      Targets: [{Id: inbox, Arn: !GetAtt Inbox.Arn, InputPath: $.detail}]
  Worker:
    Type: AWS::Serverless::Function
    Properties:
      Runtime: python3.11
      Handler: index.handler
      InlineCode: |
        import json, os, boto3
        def handler(event, context):
            boto3.client("sqs").send_message(QueueUrl=os.environ["QUEUE"], MessageBody=json.dumps(event))
      Environment: {Variables: {QUEUE: !Ref Inbox}}
      Events:
        Daily: {Type: Schedule, Properties: {Schedule: rate(1 day), Input: '{"tick": 1}'}}
        Bridge:
          Type: EventBridgeRule
          Properties: {Pattern: {source: [stack]}, RetryPolicy: {MaximumRetryAttempts: 2}}
        Old: {Type: CloudWatchEvent, Properties: {Pattern: {source: [old]}}}
Outputs:
  Rule: {Value: !Ref Rule}
  RuleArn: {Value: !GetAtt Rule.Arn}
  Inbox: {Value: !Ref Inbox}
  Secret: {Value: !GetAtt Connection.SecretArn}
"""


def test_a_template_with_everything(fresh_server):
    server = fresh_server()
    desk, stacks = Desk(server, "stack"), server.client("cloudformation")
    capabilities = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]

    def settled(status):
        def look():
            found = stacks.describe_stacks(StackName="bridge")["Stacks"][0]
            return None if found["StackStatus"].endswith("IN_PROGRESS") else found

        found = wait_for(look, what="the stack")
        history = stacks.describe_stack_events(StackName="bridge")["StackEvents"]
        reasons = [event["ResourceStatusReason"] for event in history if event["ResourceStatus"].endswith("_FAILED")]
        assert found["StackStatus"] == status, reasons
        return {output["OutputKey"]: output["OutputValue"] for output in found["Outputs"]}

    stacks.create_stack(StackName="bridge", TemplateBody=TEMPLATE, Capabilities=capabilities)
    outputs = settled("CREATE_COMPLETE")
    assert outputs["Rule"].startswith("stacked|bridge-Rule-")
    url = outputs["Inbox"]
    for amount in (1, 2):
        desk.put({"amount": amount, "kind": "smallish"}, EventBusName="stacked")
    assert desk.take(url) == [{"amount": 2, "kind": "smallish"}]
    policy = json.loads(desk.events.describe_event_bus(Name="stacked")["Policy"])
    assert [one["Sid"] for one in policy["Statement"]] == ["others"]
    desk.put({"from": "bus"})
    assert desk.take(url)[0]["detail"] == {"from": "bus"}
    server.advance(86_400)
    assert desk.take(url) == [{"tick": 1}]
    stacks.update_stack(
        StackName="bridge", TemplateBody=TEMPLATE, Capabilities=capabilities,
        Parameters=[{"ParameterKey": "Kind", "ParameterValue": "large"}],
    )  # fmt: skip
    settled("UPDATE_COMPLETE")
    for kind in ("small", "large"):
        desk.put({"amount": 3, "kind": kind}, EventBusName="stacked")
    assert desk.take(url) == [{"amount": 3, "kind": "large"}]
    stacks.delete_stack(StackName="bridge")
    stacks.get_waiter("stack_delete_complete").wait(StackName="bridge", WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    assert [bus["Name"] for bus in desk.events.list_event_buses()["EventBuses"]] == ["default"]
    assert desk.events.list_rules()["Rules"] == []
    assert desk.events.list_connections()["Connections"] == []
    assert desk.events.list_archives()["Archives"] == []

"""One server as a laboratory: functions, queues, tables, HTTP APIs and logs under names of their own."""

import json
import re
import zlib
from concurrent.futures import ThreadPoolExecutor

from tests.support.functions import ROLE, make_zip
from tests.support.server import wait_for

ACCOUNT = "000000000000"


class Lab:
    """One server, names with a prefix of their own: functions, queues, tables, logs."""

    def __init__(self, server, name):
        self.server, self.name = server, name
        self.functions = server.client("lambda", max_pool_connections=60)
        self.sqs, self.s3, self.logs = server.client("sqs"), server.client("s3"), server.client("logs")

    @classmethod
    def of(cls, server, request):
        """Names of the test that asks."""
        words = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test").lower()).strip("-")
        return cls(server, f"{words[:38].strip('-')}-{zlib.crc32(request.node.nodeid.encode()) % 1000}")

    def function(self, source, suffix="", files=None, **settings):
        name = f"{self.name}{suffix}"
        settings = {"Role": ROLE, "Runtime": "python3.11", "Handler": "index.handler", "Timeout": 20, **settings}
        variables = settings.pop("variables", None)
        if variables:
            settings["Environment"] = {"Variables": variables}
        code = {"ZipFile": make_zip({"index.py": source, **(files or {})})}
        self.functions.create_function(FunctionName=name, Code=code, MemorySize=settings.pop("memory", 256), **settings)
        self.functions.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})
        return name

    def invoke(self, name, event=None, **params):
        """(what the function answered, the whole response)."""
        response = self.functions.invoke(FunctionName=name, Payload=json.dumps(event or {}), **params)
        return json.loads(response["Payload"].read() or b"null"), response

    def ask(self, name, event=None, **params):
        answer, response = self.invoke(name, event, **params)
        assert "FunctionError" not in response, answer
        return answer

    def fails(self, name, event=None, **params):
        answer, response = self.invoke(name, event, **params)
        assert response["StatusCode"] == 200 and response["FunctionError"] == "Unhandled", answer
        return answer

    def together(self, name, events, **params):
        with ThreadPoolExecutor(len(events)) as threads:
            return list(threads.map(lambda event: self.ask(name, event, **params), events))

    def lines(self, name, holding=""):
        """Messages of the function's log that hold a text, oldest first."""
        try:
            pages = self.logs.get_paginator("filter_log_events").paginate(logGroupName=f"/aws/lambda/{name}")
            found = [event["message"].rstrip("\n") for page in pages for event in page["events"]]
        except self.logs.exceptions.ResourceNotFoundException:
            return []
        return [line for line in found if holding in line]

    def queue(self, suffix, **attributes):
        """(URL, ARN)."""
        name = f"{self.name}-{suffix}"
        url = self.sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        return url, f"arn:aws:sqs:us-east-1:{ACCOUNT}:{name}"

    def counts(self, url):
        """(visible, in flight, delayed)."""
        names = ["", "NotVisible", "Delayed"]
        names = [f"ApproximateNumberOfMessages{name}" for name in names]
        values = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return tuple(int(values[name]) for name in names)

    def take(self, url, count):
        """That many messages, deleted, in the order in which they came."""
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
        assert len(found) == count, found
        return found

    def map(self, arn, name, **params):
        answer = self.functions.create_event_source_mapping(EventSourceArn=arn, FunctionName=name, **params)
        return answer["UUID"]

    def bucket(self, suffix=""):
        self.s3.create_bucket(Bucket=f"{self.name}{suffix}")
        return f"{self.name}{suffix}"

    def table(self, suffix, key):
        name = f"{self.name}-{suffix}"
        self.server.client("dynamodb").create_table(
            TableName=name, KeySchema=[{"AttributeName": key, "KeyType": "HASH"}], BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
        )  # fmt: skip
        return self.server.resource("dynamodb").Table(name)


class Door:
    """An HTTP API in front of functions."""

    def __init__(self, lab, **stage):
        self.lab, self.gateway = lab, lab.server.client("apigatewayv2")
        self.id = self.gateway.create_api(Name=lab.name, ProtocolType="HTTP")["ApiId"]
        self.gateway.create_stage(ApiId=self.id, StageName="$default", AutoDeploy=True, **stage)

    def route(self, function, *keys, payload="2.0"):
        arn = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:{function}"
        integration = self.gateway.create_integration(
            ApiId=self.id, IntegrationType="AWS_PROXY", IntegrationUri=arn, PayloadFormatVersion=payload
        )["IntegrationId"]
        for key in keys:
            self.gateway.create_route(ApiId=self.id, RouteKey=key, Target=f"integrations/{integration}")

    def call(self, method, path, document=None, **headers):
        """(status, headers in lower case, body)."""
        given = {"Host": f"{self.id}.execute-api.us-east-1.localhost", **headers}
        body = None if document is None else json.dumps(document).encode()
        if body:
            given["Content-Type"] = "application/json"
        status, got, data = self.lab.server.get(path, method, body, given)
        return status, {name.lower(): value for name, value in got.items()}, data

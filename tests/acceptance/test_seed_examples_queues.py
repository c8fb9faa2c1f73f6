"""Examples of the documents about queues, topics and buses: batches, dead letters, replays, visibility, delays, groups,
fan-out, idempotency, asynchronous invocations. docs/EXAMPLES.md is the list."""

import json
import threading
import time

import pytest
from botocore.exceptions import ClientError

from tests.acceptance.test_cloudformation import outputs, settled
from tests.support.functions import make_zip
from tests.support.lab import ACCOUNT, Lab
from tests.support.server import LiveServer, wait_for


@pytest.fixture
def lab(aws, request):
    return Lab.of(aws, request)


@pytest.fixture(scope="module")
def timed(tmp_path_factory):
    """A server whose clock these tests put forward."""
    server = LiveServer(tmp_path_factory.mktemp("timed") / "state").start()
    yield server
    assert server.stop() == 0


@pytest.fixture
def later(timed, request):
    return Lab.of(timed, request)


def until(lab, seconds, condition, what):
    """The condition comes true while the clock is put forward, so many seconds at a time."""

    def look():
        found = condition()
        if not found:
            lab.server.advance(seconds)
        return found

    return wait_for(look, what=what)


def runs(lab, name, url, count, left):
    """Wait until the function has run so often and so many messages wait for their visibility timeout."""

    def look():
        return len(lab.lines(name, "REPORT ")) == count and lab.counts(url) == (0, left, 0)

    wait_for(look, what=f"{count} runs of {name}")


def redrive(arn, count=3):
    return json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": str(count)})


STACK = """
Resources:
  DeadRequests: {Type: AWS::SQS::Queue, Properties: {QueueName: rag-dead}}
  Requests:
    Type: AWS::SQS::Queue
    Properties:
      QueueName: rag-questions
      VisibilityTimeout: 60
      RedrivePolicy: {deadLetterTargetArn: !GetAtt DeadRequests.Arn, maxReceiveCount: 3}
  Answers: {Type: AWS::SQS::Queue}
  Worker:
    Type: AWS::Lambda::Function
    Properties:
      FunctionName: rag-answerer
      Runtime: python3.11
      Handler: index.handler
      Timeout: 50
      ReservedConcurrentExecutions: 100
      Role: arn:aws:iam::000000000000:role/worker
      Environment: {Variables: {ANSWERS: !Ref Answers}}
      Code:
        ZipFile: |
          import json, os, boto3
          sqs = boto3.client("sqs")
          def handler(event, context):
              (record,) = event["Records"]
              kind = json.loads(record["body"])["kind"]
              count = int(record["attributes"]["ApproximateReceiveCount"])
              if kind == "poison" or (kind == "flaky" and count == 1):
                  raise RuntimeError(kind)
              sqs.send_message(QueueUrl=os.environ["ANSWERS"], MessageBody=record["body"])
  Trigger:
    Type: AWS::Lambda::EventSourceMapping
    Properties:
      EventSourceArn: !GetAtt Requests.Arn
      FunctionName: !Ref Worker
      BatchSize: 1
      MaximumBatchingWindowInSeconds: 0
  Entry: {Type: AWS::ApiGatewayV2::Api, Properties: {Name: entry, ProtocolType: HTTP}}
  Stage: {Type: AWS::ApiGatewayV2::Stage, Properties: {ApiId: !Ref Entry, StageName: $default, AutoDeploy: true}}
  Route:
    Type: AWS::ApiGatewayV2::Route
    Properties: {ApiId: !Ref Entry, RouteKey: POST /ask, Target: !Sub "integrations/${Buffer}"}
  Buffer:
    Type: AWS::ApiGatewayV2::Integration
    Properties:
      ApiId: !Ref Entry
      IntegrationType: AWS_PROXY
      IntegrationSubtype: SQS-SendMessage
      PayloadFormatVersion: "1.0"
      CredentialsArn: arn:aws:iam::000000000000:role/worker
      RequestParameters: {QueueUrl: !Ref Requests, MessageBody: $request.body}
Outputs:
  Entry: {Value: !Ref Entry}
  Dead: {Value: !Ref DeadRequests}
  Main: {Value: !Ref Requests}
  Answers: {Value: !Ref Answers}
"""


def replay(sqs, dead, main):
    """Messages of a dead-letter queue go back to their queue. How many did."""
    moved = 0
    while True:
        response = sqs.receive_message(QueueUrl=dead, MaxNumberOfMessages=10, WaitTimeSeconds=1)
        messages = response.get("Messages", [])
        if not messages:
            return moved
        for message in messages:
            sqs.send_message(QueueUrl=main, MessageBody=message["Body"])
            sqs.delete_message(QueueUrl=dead, ReceiptHandle=message["ReceiptHandle"])
            moved += 1


def test_requests_wait_in_a_queue_and_three_failures_end_in_the_dead_letter_queue(later):
    stacks = later.server.client("cloudformation")
    stacks.create_stack(StackName="rag", TemplateBody=STACK)
    stack = settled(stacks, "rag")
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    out = outputs(stack)
    host = {"Host": f"{out['Entry']}.execute-api.us-east-1.localhost", "Content-Type": "application/json"}
    for number in range(40):
        kind = "poison" if number < 3 else "flaky" if number < 10 else "good"
        body = json.dumps({"kind": kind, "number": number}).encode()
        assert later.server.get("/ask", "POST", body, host)[0] == 200
    wait_for(lambda: later.counts(out["Answers"])[0] == 30, what="the good answers")
    runs(later, "rag-answerer", out["Main"], 40, 10)
    later.server.advance(61)
    runs(later, "rag-answerer", out["Main"], 50, 3)
    later.server.advance(61)
    runs(later, "rag-answerer", out["Main"], 53, 3)
    later.server.advance(61)
    wait_for(lambda: later.counts(out["Dead"]) == (3, 0, 0), what="three dead letters")
    assert later.counts(out["Main"]) == (0, 0, 0) and later.counts(out["Answers"])[0] == 37
    assert len(later.take(out["Answers"], 37)) == 37
    fixed = "import os, boto3\nsqs = boto3.client('sqs')\ndef handler(event, context):\n" + (
        "    for record in event['Records']:\n"
        "        sqs.send_message(QueueUrl=os.environ['ANSWERS'], MessageBody=record['body'])\n"
    )
    later.functions.update_function_code(FunctionName="rag-answerer", ZipFile=make_zip({"index.py": fixed}))
    assert replay(later.sqs, out["Dead"], out["Main"]) == 3
    found = [json.loads(message["Body"])["number"] for message in later.take(out["Answers"], 3)]
    assert sorted(found) == [0, 1, 2]


def test_a_function_may_not_outlive_the_visibility_timeout(lab):
    _, arn = lab.queue("short", VisibilityTimeout="30")
    name = lab.function("def handler(event, context):\n    pass\n", Timeout=60)
    with pytest.raises(ClientError) as caught:
        lab.map(arn, name)
    assert caught.value.response["Error"]["Message"] == (
        "Queue visibility timeout: 30 seconds is less than Function timeout: 60 seconds"
    )
    lab.functions.update_function_configuration(FunctionName=name, Timeout=10)
    uuid = lab.map(arn, name)

    def about_it():
        found = json.loads(lab.server.get("/_preheat/findings")[2])["findings"]
        return [one for one in found if one["subject"].endswith(uuid) and "isibility" in json.dumps(one)]

    assert about_it(), "30 s are less than six times 10 s"
    lab.functions.update_function_configuration(FunctionName=name, Timeout=5)
    lab.functions.update_event_source_mapping(UUID=uuid, BatchSize=5)
    assert not about_it()
    lab.functions.delete_event_source_mapping(UUID=uuid)


WHOLE = """
import json

def process(data):
    if data["n"] == 3:
        raise ValueError("three")
    print(f"processed {data['n']}.")

def handler(event, context):
    print(f"batch of {len(event['Records'])}")
    trouble = None
    for record in event["Records"]:
        body = record["body"]
        try:
            process(json.loads(body))
        except ValueError as error:
            trouble = error
    if trouble:
        raise trouble
"""
PARTIAL = """
import json
import logging
log = logging.getLogger()

def process(data):
    if data["n"] == 3:
        raise ValueError("three")
    print(f"processed {data['n']}.")

def handler(event, context):
    print(f"batch of {len(event['Records'])}")
    failed = []
    for record in event["Records"]:
        try:
            process(json.loads(record["body"]))
        except Exception as error:
            failed.append(record["messageId"])
            log.error(f"{record['messageId']} failed: {error}")
    return {"batchItemFailures": [{"itemIdentifier": one} for one in failed]}
"""


@pytest.mark.parametrize("partial", [False, True], ids=["whole", "partial"])
def test_one_failure_in_a_batch_of_five(later, partial):
    dead, dead_arn = later.queue("dead")
    url, arn = later.queue("main", VisibilityTimeout="30", RedrivePolicy=redrive(dead_arn))
    entries = [{"Id": str(n), "MessageBody": json.dumps({"n": n})} for n in range(1, 6)]
    assert len(later.sqs.send_message_batch(QueueUrl=url, Entries=entries)["Successful"]) == 5
    name = later.function(PARTIAL if partial else WHOLE, Timeout=5)
    later.map(arn, name, BatchSize=10, **({"FunctionResponseTypes": ["ReportBatchItemFailures"]} if partial else {}))
    lost = 1 if partial else 5
    for number in range(1, 4):
        runs(later, name, url, number, lost)
        later.server.advance(31)
    wait_for(lambda: later.counts(dead)[0] == lost, what="the dead letters")
    processed = {n: len(later.lines(name, f"processed {n}.")) for n in range(1, 6)}
    good = 1 if partial else 3
    assert processed == {1: good, 2: good, 3: 0, 4: good, 5: good}
    assert later.lines(name, "batch of ") == ["batch of 5"] + [f"batch of {lost}"] * 2
    assert sorted(json.loads(message["Body"])["n"] for message in later.take(dead, lost))[-1] == (3 if partial else 5)


TURNS = """
import json
import os
import boto3
turns = boto3.resource("dynamodb").Table(os.environ["TABLE"])

def dlq_handler(event, context):
    for record in event["Records"]:
        turn = json.loads(record["body"])
        turns.put_item(Item=turn)
"""


def test_a_turn_that_could_not_be_written_is_written_later(later):
    url, arn = later.queue("turns", VisibilityTimeout="60")
    name = later.function(TURNS, Handler="index.dlq_handler", variables={"TABLE": f"{later.name}-memory"}, Timeout=10)
    later.map(arn, name)
    later.sqs.send_message(QueueUrl=url, MessageBody=json.dumps({"pk": "SESSION#s1", "text": "hello"}))
    runs(later, name, url, 1, 1)
    assert later.lines(name, "ResourceNotFoundException")
    table = later.table("memory", "pk")
    later.server.advance(61)
    wait_for(lambda: table.get_item(Key={"pk": "SESSION#s1"}).get("Item"), what="the turn")
    assert table.get_item(Key={"pk": "SESSION#s1"})["Item"] == {"pk": "SESSION#s1", "text": "hello"}
    wait_for(lambda: later.counts(url) == (0, 0, 0), what="an empty queue")


def test_a_message_comes_back_when_its_consumer_died_and_waits_while_it_lives(later):
    url, _ = later.queue("work", VisibilityTimeout="30")
    sqs = later.sqs

    def receive():
        asked = {"QueueUrl": url, "MessageSystemAttributeNames": ["ApproximateReceiveCount"]}
        return sqs.receive_message(**asked).get("Messages", [])

    sqs.send_message(QueueUrl=url, MessageBody="long")
    (_first,) = receive()
    later.server.advance(15)
    assert receive() == []
    later.server.advance(20)
    (again,) = receive()
    assert again["Attributes"]["ApproximateReceiveCount"] == "2"
    for _ in range(4):
        later.server.advance(20)
        assert receive() == []
        sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=again["ReceiptHandle"], VisibilityTimeout=30)
    sqs.delete_message(QueueUrl=url, ReceiptHandle=again["ReceiptHandle"])
    later.server.advance(60)
    assert receive() == [] and later.counts(url) == (0, 0, 0)


def test_a_long_poll_ends_with_the_message_and_a_short_one_at_once(lab):
    url, _ = lab.queue("polled")
    began = time.monotonic()
    assert "Messages" not in lab.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
    assert time.monotonic() - began < 15
    found = []

    def wait():
        answer = lab.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=20)
        found.append((time.monotonic(), [message["Body"] for message in answer["Messages"]]))

    poll = threading.Thread(target=wait)
    poll.start()
    overview = "/_preheat/console/overview"
    assert lab.server.get(overview)[0] == 200 and not found
    sent = time.monotonic()
    lab.sqs.send_message(QueueUrl=url, MessageBody="now")
    poll.join(25)
    assert found[0][1] == ["now"] and found[0][0] - sent < 5


def test_delays_of_queues_and_messages(later):
    slow, _ = later.queue("slow", DelaySeconds="300")
    url, _ = later.queue("main")
    later.sqs.send_message(QueueUrl=slow, MessageBody="5 minutes")
    for attempt in range(6):
        delay = min(30 * 2**attempt, 900)
        later.sqs.send_message(QueueUrl=url, MessageBody=str(delay), DelaySeconds=delay)
    with pytest.raises(ClientError, match="900"):
        later.sqs.send_message(QueueUrl=url, MessageBody="too long", DelaySeconds=901)
    came, passed = {}, 0
    for moment in (29, 31, 61, 119, 121, 241, 299, 301, 481, 899, 901):
        later.server.advance(moment - passed)
        passed = moment
        for message in later.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", ()):
            came[int(message["Body"])] = moment
            later.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        assert later.counts(slow) == ((0, 0, 1) if moment < 300 else (1, 0, 0))
    assert came == {30: 31, 60: 61, 120: 121, 240: 241, 480: 481, 900: 901}


def test_batches_of_ten(lab):
    url, _ = lab.queue("batched")
    entries = [{"Id": str(number), "MessageBody": json.dumps({"n": number})} for number in range(10)]
    entries[4] = {**entries[4], "MessageBody": "no \x00 text"}
    response = lab.sqs.send_message_batch(QueueUrl=url, Entries=entries)
    assert [entry["Id"] for entry in response["Failed"]] == ["4"] and len(response["Successful"]) == 9
    with pytest.raises(lab.sqs.exceptions.TooManyEntriesInBatchRequest):
        lab.sqs.send_message_batch(QueueUrl=url, Entries=[*entries, {"Id": "x", "MessageBody": "eleventh"}])
    messages = lab.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    gone = [{"Id": str(n), "ReceiptHandle": message["ReceiptHandle"]} for n, message in enumerate(messages)]
    assert len(lab.sqs.delete_message_batch(QueueUrl=url, Entries=gone)["Successful"]) == 9
    assert lab.counts(url) == (0, 0, 0)


LARGE = """
import json
import os
import boto3
s3, sqs = boto3.client("s3"), boto3.client("sqs")

def handler(event, context):
    for record in event["Records"]:
        body = json.loads(record["body"])
        if body.get("__s3_ref__"):
            response = s3.get_object(Bucket=body["bucket"], Key=body["key"])
            payload = json.loads(response["Body"].read())
            s3.delete_object(Bucket=body["bucket"], Key=body["key"])
        else:
            payload = body
        sqs.send_message(QueueUrl=os.environ["SIZES"], MessageBody=str(len(payload["text"])))
"""


def test_large_messages_travel_through_a_bucket(lab):
    bucket, (sizes, _), (url, arn) = lab.bucket(), lab.queue("sizes"), lab.queue("large")
    lab.map(arn, lab.function(LARGE, variables={"SIZES": sizes}))

    def send(data):
        payload = json.dumps(data)
        if len(payload.encode()) > 200_000:
            key = f"messages/{len(payload)}.json"
            lab.s3.put_object(Bucket=bucket, Key=key, Body=payload)
            payload = json.dumps({"__s3_ref__": True, "bucket": bucket, "key": key})
        lab.sqs.send_message(QueueUrl=url, MessageBody=payload)

    send({"text": "x" * 2_000_000})
    send({"text": "small"})
    assert sorted(int(message["Body"]) for message in lab.take(sizes, 2)) == [5, 2_000_000]
    assert lab.s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


ORDERED = """
import json
import os
import time
import boto3
sqs = boto3.client("sqs")

def handler(event, context):
    for record in event["Records"]:
        group = record["attributes"]["MessageGroupId"]
        time.sleep(0.02)
        sqs.send_message(QueueUrl=os.environ["SEEN"], MessageBody=record["body"], MessageGroupId="all",
                         MessageDeduplicationId=f"{group}-{record['messageId']}")
"""


def test_groups_keep_their_order_and_duplicates_are_dropped(lab):
    url, arn = lab.queue("actions.fifo", FifoQueue="true")
    seen, _ = lab.queue("seen.fifo", FifoQueue="true")
    for number in range(8):
        for user in ("user-1", "user-2", "user-3"):
            for _ in range(2):
                lab.sqs.send_message(
                    QueueUrl=url, MessageBody=json.dumps([user, number]), MessageGroupId=user,
                    MessageDeduplicationId=f"{user}-{number}",
                )  # fmt: skip
    lab.map(arn, lab.function(ORDERED, variables={"SEEN": seen}))
    came = [json.loads(message["Body"]) for message in lab.take(seen, 24)]
    for user in ("user-1", "user-2", "user-3"):
        assert [number for who, number in came if who == user] == list(range(8))


INVENTORY = """
import json
import os
import boto3
sqs = boto3.client("sqs")

def handler(event, context):
    for record in event["Records"]:
        envelope = json.loads(record["body"]) if "body" in record else record["Sns"]
        order = json.loads(envelope["Message"])
        sqs.send_message(QueueUrl=os.environ["OUT"], MessageBody=f"{os.environ['WHO']} {order['order_id']}")
"""


def test_one_topic_many_consumers_and_a_filter(lab):
    sns, (out, _) = lab.server.client("sns"), lab.queue("out")
    topic = sns.create_topic(Name=lab.name)["TopicArn"]
    for who in ("inventory", "email"):
        _, arn = lab.queue(who)
        lab.map(arn, lab.function(INVENTORY, f"-{who}", variables={"OUT": out, "WHO": who}))
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    direct = lab.function(INVENTORY, "-direct", variables={"OUT": out, "WHO": "direct"})
    function = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:{direct}"
    lab.functions.add_permission(
        FunctionName=direct, StatementId="sns", Action="lambda:InvokeFunction", Principal="sns.amazonaws.com",
        SourceArn=topic,
    )  # fmt: skip
    sns.subscribe(TopicArn=topic, Protocol="lambda", Endpoint=function)
    precious, arn = lab.queue("precious")
    policy = json.dumps({"order_value": [{"numeric": [">=", 1000]}]})
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"FilterPolicy": policy})
    for order, value in (("cheap", "999.99"), ("dear", "1000")):
        attributes = {
            "event_type": {"DataType": "String", "StringValue": "order_placed"},
            "order_value": {"DataType": "Number", "StringValue": value},
        }
        sns.publish(TopicArn=topic, Message=json.dumps({"order_id": order}), MessageAttributes=attributes)
    came = sorted(message["Body"] for message in lab.take(out, 6))
    assert came == [f"{who} {order}" for who in ("direct", "email", "inventory") for order in ("cheap", "dear")]
    (message,) = lab.take(precious, 1)
    assert json.loads(json.loads(message["Body"])["Message"]) == {"order_id": "dear"}
    assert lab.counts(precious) == (0, 0, 0)


def test_a_rule_routes_the_orders_that_matter(lab):
    events, (url, arn) = lab.server.client("events"), lab.queue("orders")
    pattern = {
        "source": [lab.name], "detail-type": ["order.placed"], "detail": {"amount": [{"numeric": [">=", 1000]}]},
    }  # fmt: skip
    events.put_rule(Name=lab.name, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=lab.name, Targets=[{"Id": "1", "Arn": arn}])
    given = [("order.placed", 999), ("order.placed", 1000), ("order.sent", 5000), ("order.placed", 2500.5)]
    entries = [
        {"Source": lab.name, "DetailType": kind, "Detail": json.dumps({"amount": amount})} for kind, amount in given
    ]
    assert events.put_events(Entries=entries)["FailedEntryCount"] == 0
    found = [json.loads(message["Body"]) for message in lab.take(url, 2)]
    assert sorted(event["detail"]["amount"] for event in found) == [1000, 2500.5]
    assert lab.counts(url) == (0, 0, 0)


PAYMENT = """
import json
import os
import boto3
from botocore.exceptions import ClientError
database = boto3.resource("dynamodb")
handled, ledger = database.Table(os.environ["HANDLED"]), database.Table(os.environ["LEDGER"])

def charge(order):
    ledger.update_item(Key={"id": order["customer"]}, UpdateExpression="ADD balance :a",
                       ExpressionAttributeValues={":a": order["amount"]})

def handler(event, context):
    for record in event["Records"]:
        order = json.loads(record["body"])
        key = f"order-{order['order_id']}-payment"
        try:
            handled.put_item(Item={"id": key}, ConditionExpression="attribute_not_exists(id)")
        except ClientError as error:
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise
            print("seen before")
            continue
        charge(order)
"""


def test_duplicates_are_charged_once(lab):
    handled, ledger, (url, arn) = lab.table("handled", "id"), lab.table("ledger", "id"), lab.queue("payments")
    orders = [{"order_id": number, "customer": "c", "amount": 10} for number in range(6)]
    for order in orders * 3:
        lab.sqs.send_message(QueueUrl=url, MessageBody=json.dumps(order))
    name = lab.function(PAYMENT, variables={"HANDLED": handled.name, "LEDGER": ledger.name})
    lab.map(arn, name, BatchSize=1)
    wait_for(lambda: lab.counts(url) == (0, 0, 0), what="an empty queue")
    assert int(ledger.get_item(Key={"id": "c"})["Item"]["balance"]) == 60
    assert handled.scan()["Count"] == 6
    wait_for(lambda: len(lab.lines(name, "seen before")) == 12, what="the duplicates")


OUTCOME = """
def handler(event, context):
    if event.get("fail"):
        raise RuntimeError("cannot")
    return {"processed": event["key"]}
"""


def test_asynchronous_invocations_are_tried_three_times_then_reported(later):
    good, good_arn = later.queue("success")
    bad, bad_arn = later.queue("failure")
    letters, letters_arn = later.queue("letters")
    name = later.function(OUTCOME)
    destinations = {"OnSuccess": {"Destination": good_arn}, "OnFailure": {"Destination": bad_arn}}
    later.functions.put_function_event_invoke_config(FunctionName=name, DestinationConfig=destinations)
    old = later.function(OUTCOME, "-old", DeadLetterConfig={"TargetArn": letters_arn})
    asked = {"InvocationType": "Event", "FunctionName": name}
    response = later.functions.invoke(**asked, Payload=json.dumps({"key": "value"}))
    assert response["StatusCode"] == 202 and response["Payload"].read() == b""
    (message,) = later.take(good, 1)
    record = json.loads(message["Body"])
    assert (record["requestContext"]["condition"], record["responsePayload"]) == ("Success", {"processed": "value"})
    for function in (name, old):
        payload = json.dumps({"key": "value", "fail": True})
        later.functions.invoke(**{**asked, "FunctionName": function}, Payload=payload)
    until(later, 30, lambda: later.counts(bad)[0] and later.counts(letters)[0], "the records")
    (message,) = later.take(bad, 1)
    record = json.loads(message["Body"])
    assert record["requestContext"]["condition"] == "RetriesExhausted"
    assert record["requestContext"]["approximateInvokeCount"] == 3
    assert record["requestPayload"] == {"key": "value", "fail": True}
    assert record["responsePayload"]["errorMessage"] == "cannot"
    assert len(later.lines(name, "[ERROR] RuntimeError: cannot")) == 3
    (message,) = later.sqs.receive_message(QueueUrl=letters, MessageAttributeNames=["All"])["Messages"]
    assert json.loads(message["Body"]) == {"key": "value", "fail": True}
    assert message["MessageAttributes"]["ErrorMessage"]["StringValue"] == "cannot"
    assert later.counts(good) == (0, 0, 0)

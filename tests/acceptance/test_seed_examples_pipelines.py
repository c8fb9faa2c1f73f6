"""Examples of the documents that join several services: accepting at once and working later, the moderation pipeline
with its two branches and one finish, the worker that answers from memory and model. docs/EXAMPLES.md is the list."""

import json

import pytest

from tests.support.lab import Door, Lab
from tests.support.server import wait_for

ORDERS = """
import json
import os
import uuid
import boto3
orders = boto3.resource("dynamodb").Table(os.environ["TABLE"])
sqs = boto3.client("sqs")

def create(body):
    if not body.get("item"):
        return {"statusCode": 400, "body": json.dumps({"error": "an item is missing"})}
    order = str(uuid.uuid4())
    orders.put_item(Item={"order_id": order, "status": "processing"})
    message = {"order_id": order, "action": "fulfill", "callback_url": body.get("callback_url")}
    sqs.send_message(QueueUrl=os.environ["QUEUE"], MessageBody=json.dumps(message))
    return {"statusCode": 202, "body": json.dumps({"order_id": order, "status": "processing"})}

def status(order):
    item = orders.get_item(Key={"order_id": order})["Item"]
    return {"statusCode": 200, "body": json.dumps({"order_id": order, "status": item["status"]})}

def handler(event, context):
    if event["routeKey"] == "POST /orders":
        return create(json.loads(event["body"]))
    if event["routeKey"] == "POST /done":
        print("told " + event["body"])
        return {"statusCode": 204}
    return status(event["pathParameters"]["order_id"])
"""
FULFILL = """
import json
import os
import urllib.request
import boto3
orders = boto3.resource("dynamodb").Table(os.environ["TABLE"])

def fulfillment_handler(event, context):
    for record in event["Records"]:
        order = json.loads(record["body"])
        orders.update_item(Key={"order_id": order["order_id"]}, UpdateExpression="SET #s = :s",
                           ExpressionAttributeNames={"#s": "status"}, ExpressionAttributeValues={":s": "fulfilled"})
        if order.get("callback_url"):
            body = json.dumps({"order_id": order["order_id"], "status": "fulfilled"}).encode()
            request = urllib.request.Request(order["callback_url"], body, {"Content-Type": "application/json"})
            urllib.request.urlopen(request, timeout=5).close()
"""


@pytest.fixture
def lab(aws, request):
    return Lab.of(aws, request)


def test_an_order_is_accepted_at_once_and_fulfilled_later(lab):
    table, (url, arn), door = lab.table("orders", "order_id"), lab.queue("fulfillment"), Door(lab)
    web = lab.function(ORDERS, variables={"TABLE": table.name, "QUEUE": url})
    door.route(web, "POST /orders", "GET /orders/{order_id}/status", "POST /done")
    assert door.call("POST", "/orders", {"item": ""})[0] == 400
    callback = f"{lab.server.endpoint}/_aws/execute-api/{door.id}/done"
    status, _, body = door.call("POST", "/orders", {"item": "manga", "callback_url": callback})
    answer = json.loads(body)
    assert (status, answer["status"]) == (202, "processing")
    path = f"/orders/{answer['order_id']}/status"
    assert json.loads(door.call("GET", path)[2])["status"] == "processing"
    worker = lab.function(
        FULFILL, "-worker", Handler="index.fulfillment_handler", variables={"TABLE": table.name}, Timeout=10
    )
    lab.map(arn, worker)
    wait_for(lambda: json.loads(door.call("GET", path)[2])["status"] == "fulfilled", what="the order")
    wanted = "told " + json.dumps({"order_id": answer["order_id"], "status": "fulfilled"})
    wait_for(lambda: lab.lines(web, wanted), what="the call back")


UPLOAD = """
import base64
import json
import os
import uuid
from datetime import datetime, timezone
import boto3
s3, sqs, dynamodb = boto3.client("s3"), boto3.client("sqs"), boto3.client("dynamodb")

def handle_upload(event, context):
    image = base64.b64decode(event["body"]) if event["isBase64Encoded"] else event["body"].encode()
    user = event["headers"]["x-user"]
    job = str(uuid.uuid4())
    s3.put_object(Bucket=os.environ["BUCKET"], Key=f"uploads/{job}/original.jpg", Body=image,
                  Metadata={"user_id": user})
    dynamodb.put_item(TableName=os.environ["JOBS"], Item={
        "job_id": {"S": job}, "user_id": {"S": user}, "status": {"S": "pending"},
        "created_at": {"S": datetime.now(timezone.utc).isoformat()}})
    sqs.send_message(QueueUrl=os.environ["QUEUE"], MessageBody=json.dumps({"job_id": job}))
    return {"statusCode": 202,
            "body": json.dumps({"job_id": job, "status": "processing", "status_url": f"/jobs/{job}"})}
"""
DISPATCH = """
import json
import os
import boto3
functions, dynamodb = boto3.client("lambda"), boto3.client("dynamodb")

def dispatch_handler(event, context):
    for record in event["Records"]:
        job = json.loads(record["body"])["job_id"]
        key = f"uploads/{job}/original.jpg"
        for name in (os.environ["LABELS"], os.environ["MODEL"]):
            functions.invoke(FunctionName=name, InvocationType="Event",
                             Payload=json.dumps({"job_id": job, "image_key": key}))
        dynamodb.update_item(
            TableName=os.environ["JOBS"], Key={"job_id": {"S": job}}, UpdateExpression="SET #s = :s",
            ExpressionAttributeNames={"#s": "status"}, ExpressionAttributeValues={":s": {"S": "analyzing"}})
"""
BRANCH = """
import json
import os
import time
import boto3
s3, dynamodb, sns = boto3.client("s3"), boto3.client("dynamodb"), boto3.client("sns")
JOBS, COLUMN = os.environ["JOBS"], os.environ["COLUMN"]
_model = None

def cached_model():
    global _model
    if _model is None:
        print("loading the model")
        _model = {"gun": "violence", "cat": "pets"}
    return _model

def analyze(image):
    model = cached_model()
    return [kind for word, kind in model.items() if word in image.decode()]

def finalize(job, item):
    labels = json.loads(item["labels"]["S"]) + json.loads(item["custom"]["S"])
    decision = "rejected" if "violence" in labels else "approved"
    dynamodb.update_item(
        TableName=JOBS, Key={"job_id": {"S": job}}, UpdateExpression="SET #s = :status, decision = :decision",
        ExpressionAttributeNames={"#s": "status"},
        ExpressionAttributeValues={":status": {"S": "complete"}, ":decision": {"S": decision}})
    sns.publish(TopicArn=os.environ["TOPIC"], Message=json.dumps(
        {"job_id": job, "user_id": item["user_id"]["S"], "decision": decision}))

def check_and_finalize(job):
    item = dynamodb.get_item(TableName=JOBS, Key={"job_id": {"S": job}}, ConsistentRead=True).get("Item", {})
    if not ("labels" in item and "custom" in item):
        print("the other is not done")
        return
    try:
        dynamodb.update_item(
            TableName=JOBS, Key={"job_id": {"S": job}}, UpdateExpression="SET #s = :s, finalized_by = :me",
            ConditionExpression="attribute_not_exists(finalized_by)", ExpressionAttributeNames={"#s": "status"},
            ExpressionAttributeValues={":s": {"S": "finalizing"}, ":me": {"S": COLUMN}})
    except dynamodb.exceptions.ConditionalCheckFailedException:
        print("the other claimed it")
        return
    finalize(job, item)

def handler(event, context):
    job = event["job_id"]
    image = s3.get_object(Bucket=os.environ["BUCKET"], Key=event["image_key"])["Body"].read()
    found = analyze(image)
    dynamodb.update_item(
        TableName=JOBS, Key={"job_id": {"S": job}}, UpdateExpression=f"SET {COLUMN} = :r",
        ExpressionAttributeValues={":r": {"S": json.dumps(found)}})
    check_and_finalize(job)
"""


def test_two_branches_and_exactly_one_finish(lab):
    bucket, (work, work_arn), (told, told_arn) = lab.bucket(), lab.queue("processing"), lab.queue("told")
    jobs, door, sns = lab.table("jobs", "job_id"), Door(lab), lab.server.client("sns")
    topic = sns.create_topic(Name=lab.name)["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=told_arn, Attributes={"RawMessageDelivery": "true"})
    shared = {"JOBS": jobs.name, "BUCKET": bucket, "TOPIC": topic, "QUEUE": work}
    branches = [
        lab.function(BRANCH, f"-{column}", variables={**shared, "COLUMN": column}) for column in ("labels", "custom")
    ]
    variables = {**shared, "LABELS": branches[0], "MODEL": branches[1]}
    lab.map(work_arn, lab.function(DISPATCH, "-dispatch", Handler="index.dispatch_handler", variables=variables))
    door.route(lab.function(UPLOAD, Handler="index.handle_upload", variables=shared), "POST /jobs")
    expected = {}
    for number in range(12):
        text = b"a gun" if number % 3 == 0 else b"a cat"
        headers = {"Host": f"{door.id}.execute-api.us-east-1.localhost", "X-User": f"u{number}"}
        status, _, body = lab.server.get("/jobs", "POST", text, {**headers, "Content-Type": "image/jpeg"})
        assert status == 202
        expected[json.loads(body)["job_id"]] = ("rejected" if number % 3 == 0 else "approved", f"u{number}")
    messages = [json.loads(message["Body"]) for message in lab.take(told, 12)]
    assert {one["job_id"]: (one["decision"], one["user_id"]) for one in messages} == expected
    items = {item["job_id"]: item for item in jobs.scan(ConsistentRead=True)["Items"]}
    assert {job: item["decision"] for job, item in items.items()} == {job: one for job, (one, _) in expected.items()}

    def all_ran():
        return all(len(lab.lines(name, "REPORT ")) == 12 for name in branches)

    wait_for(all_ran, what="24 runs")
    waited = [line for name in branches for line in lab.lines(name, "the other ")]
    assert len(waited) == 12 and lab.counts(told) == (0, 0, 0)


BURST = """
import json
import os
import boto3
memory = boto3.resource("dynamodb").Table(os.environ["TABLE"])
bedrock = boto3.client("bedrock-runtime")
sqs = boto3.client("sqs")

def allowed(text):
    return "secret" not in text

def handler(event, context):
    for record in event["Records"]:
        message = json.loads(record["body"])
        key = {"pk": f"SESSION#{message['session']}"}
        past = memory.get_item(Key=key).get("Item", {**key, "turns": []})
        passages = "".join(f"[{n}] note\\n{text}\\n" for n, text in enumerate(message["notes"], 1))
        prompt = f"<passages>\\n{passages}</passages>\\n<question>{message['question']}</question>"
        answer = bedrock.converse(modelId="preheat.extractive-v1",
                                  messages=[{"role": "user", "content": [{"text": prompt}]}])
        text = answer["output"]["message"]["content"][0]["text"]
        text = text if allowed(text) else "I cannot say."
        memory.put_item(Item={**past, "turns": [*past["turns"], text]})
        sqs.send_message(QueueUrl=os.environ["REPLIES"], MessageBody=text)
"""


def test_a_burst_worker_answers_from_memory_and_model(lab):
    table, (replies, _), (url, arn) = lab.table("memory", "pk"), lab.queue("replies"), lab.queue("burst")
    name = lab.function(BURST, variables={"TABLE": table.name, "REPLIES": replies}, memory=512, Timeout=5)
    lab.map(arn, name, BatchSize=1)
    notes = ["Returns are accepted for 30 days after delivery.", "The secret code of the shop is 1234."]
    for question, wanted in (("How many days are returns accepted?", "Returns"), ("What is the secret code?", "I can")):
        body = {"session": "s1", "question": question, "notes": notes}
        lab.sqs.send_message(QueueUrl=url, MessageBody=json.dumps(body))
        (reply,) = lab.take(replies, 1)
        assert reply["Body"].startswith(wanted), reply
    assert len(table.get_item(Key={"pk": "SESSION#s1"})["Item"]["turns"]) == 2

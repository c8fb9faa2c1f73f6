"""The examples of five documents about Lambda in production, run with other names: handlers, what lives outside them,
the context, settings, secrets, layers, versions. Doors, queues and concurrency have files of their own;
docs/EXAMPLES.md is the list."""

import json
import pickle

import pytest
from botocore.exceptions import ClientError

from tests.acceptance.test_iam_enforced import EnforcedServer, allow
from tests.support.functions import make_zip
from tests.support.lab import ACCOUNT, Lab
from tests.support.server import wait_for


@pytest.fixture
def lab(aws, request):
    return Lab.of(aws, request)


GREET = """
def handler(event, context):
    who = event.get("name", "World")
    return {"statusCode": 200, "body": f"Hello, {who}!"}
"""
CHAT = """
import json

def reply_to(session, text):
    return f"{session}: {text.upper()}"

def handler(event, context):
    session = event["session"]
    text = event["text"]
    answer = reply_to(session, text)
    return {"statusCode": 200, "body": json.dumps({"response": answer})}
"""


def test_handlers_answer(lab):
    greet, chat = lab.function(GREET), lab.function(CHAT, "-chat")
    assert lab.ask(greet) == {"statusCode": 200, "body": "Hello, World!"}
    assert lab.ask(greet, {"name": "Ada"})["body"] == "Hello, Ada!"
    answer = lab.ask(chat, {"session": "s1", "text": "a manga"}, InvocationType="RequestResponse")
    assert json.loads(answer["body"]) == {"response": "s1: A MANGA"}
    failure = lab.fails(chat, {"text": "nobody's"})
    assert (failure["errorType"], failure["errorMessage"]) == ("KeyError", "'session'")


CONTEXT = """
def handler(event, context):
    print(f"Name: {context.function_name}")
    print(f"Id: {context.aws_request_id}")
    print(f"Limit: {context.memory_limit_in_mb} MB")
    print(f"Left: {context.get_remaining_time_in_millis()} ms")
    return {"statusCode": 200, "body": "Done", "version": context.function_version,
            "arn": context.invoked_function_arn, "group": context.log_group_name, "stream": context.log_stream_name}
"""


def test_the_context_tells_the_truth(lab):
    name = lab.function(CONTEXT, memory=384, Timeout=7)
    answer, response = lab.invoke(name)
    request = response["ResponseMetadata"]["RequestId"]
    assert answer["version"] == "$LATEST" and answer["group"] == f"/aws/lambda/{name}"
    assert answer["arn"] == f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:{name}"
    (left,) = wait_for(lambda: lab.lines(name, "Left: "), what="the handler's lines")
    assert 6_000 < int(left.split()[1]) <= 7_000
    lines = lab.lines(name)
    assert {f"Name: {name}", f"Id: {request}", "Limit: 384 MB"} <= set(lines)
    (stream,) = lab.logs.describe_log_streams(logGroupName=answer["group"])["logStreams"]
    assert stream["logStreamName"] == answer["stream"]


ONCE = """
import json
import os
import pickle
import boto3

print("starting cold")
store = boto3.client("s3")
database = boto3.resource("dynamodb")
results = database.Table(os.environ["TABLE"])
fetched = store.get_object(Bucket=os.environ["BUCKET"], Key="model.pkl")
model = pickle.loads(fetched["Body"].read())
served = 0
link = None

def connect():
    print("connecting")
    return object()

def doubled(x):
    return x * 2

def handler(event, context):
    global served, link
    print("handling")
    served += 1
    if link is None:
        link = connect()
    guess = model["weight"] * doubled(event["value"])
    results.put_item(Item={"id": event["id"], "result": guess})
    known = results.get_item(Key={"id": event["id"]})["Item"]
    return {"statusCode": 200, "served": served, "result": int(known["result"])}
"""


def test_what_stands_outside_the_handler_runs_once(lab):
    table, bucket = lab.table("results", "id"), lab.bucket()
    lab.s3.put_object(Bucket=bucket, Key="model.pkl", Body=pickle.dumps({"weight": 3}))
    name = lab.function(ONCE, variables={"TABLE": table.name, "BUCKET": bucket})
    lab.s3.put_object(Bucket=bucket, Key="model.pkl", Body=pickle.dumps({"weight": 5}))
    first = lab.ask(name, {"id": "a", "value": 1})
    lab.s3.put_object(Bucket=bucket, Key="model.pkl", Body=pickle.dumps({"weight": 7}))
    rest = [lab.ask(name, {"id": f"b{number}", "value": number}) for number in range(2, 5)]
    assert [one["served"] for one in [first, *rest]] == [1, 2, 3, 4]
    assert [one["result"] for one in [first, *rest]] == [10, 20, 30, 40]
    assert int(table.get_item(Key={"id": "b4"})["Item"]["result"]) == 40
    wait_for(lambda: len(lab.lines(name, "handling")) == 4, what="the lines of four runs")
    assert len(lab.lines(name, "starting cold")) == len(lab.lines(name, "connecting")) == 1
    assert len([line for line in lab.lines(name, "REPORT ") if "Init Duration" in line]) == 1


LAZY = """
import boto3
_client = None

def client():
    global _client
    if _client is None:
        print("making it")
        _client = boto3.client("s3")
    return _client

def handler(event, context):
    if event.get("heavy"):
        import decimal
        return [bucket["Name"] for bucket in client().list_buckets()["Buckets"]]
    return _client is None
"""


def test_a_client_is_made_when_it_is_first_needed(lab):
    name, bucket = lab.function(LAZY), lab.bucket()
    assert lab.ask(name) is True
    assert bucket in lab.ask(name, {"heavy": True}) and bucket in lab.ask(name, {"heavy": True})
    assert lab.ask(name) is False
    wait_for(lambda: len(lab.lines(name, "REPORT ")) == 4, what="four reports")
    assert len(lab.lines(name, "making it")) == 1


SCRATCH = """
import json
import os
import time
import boto3
s3 = boto3.client("s3")
PATH = "/tmp/model.pkl"

def handler(event, context):
    cached = os.path.exists(PATH)
    if not cached:
        s3.download_file(os.environ["BUCKET"], "model.pkl", PATH)
    with open("/tmp/cache.json", "w") as file:
        json.dump(event, file)
    time.sleep(event.get("sleep", 0))
    with open("/tmp/cache.json") as file:
        again = json.load(file)
    room = os.statvfs("/tmp")
    try:
        with open(os.path.join(os.environ["LAMBDA_TASK_ROOT"], "made.txt"), "w"):
            written = True
    except OSError:
        written = False
    return {"cached": cached, "again": again, "model": open(PATH).read(), "written": written,
            "free_mb": room.f_frsize * room.f_bavail / (1024 * 1024)}
"""


def test_tmp_is_kept_while_warm_and_private(lab):
    bucket = lab.bucket()
    lab.s3.put_object(Bucket=bucket, Key="model.pkl", Body=b"one")
    name = lab.function(SCRATCH, variables={"BUCKET": bucket})
    first = lab.ask(name, {"n": 1})
    lab.s3.put_object(Bucket=bucket, Key="model.pkl", Body=b"two")
    second = lab.ask(name, {"n": 2})
    assert [(one["cached"], one["model"], one["again"]) for one in (first, second)] == [
        (False, "one", {"n": 1}), (True, "one", {"n": 2}),
    ]  # fmt: skip
    assert first["written"] is False and first["free_mb"] > 0
    both = lab.together(name, [{"n": number, "sleep": 0.7} for number in (3, 4)])
    assert [one["again"]["n"] for one in both] == [3, 4]
    assert sorted(one["model"] for one in both) == ["one", "two"]


PATIENT = """
import time
import boto3

def work(item):
    time.sleep(0.25)

def handler(event, context):
    done = 0
    try:
        for item in event["items"]:
            if context.get_remaining_time_in_millis() < 5000 and event.get("careful"):
                return {"statusCode": 200, "body": "Partly done", "done": done}
            work(item)
            done += 1
        return {"statusCode": 200, "body": "Complete", "done": done}
    finally:
        print("tidied up")
"""


def test_a_handler_that_watches_its_time_and_one_that_does_not(lab):
    name = lab.function(PATIENT, Timeout=6)
    partly = lab.ask(name, {"items": list(range(40)), "careful": True})
    assert partly["body"] == "Partly done" and 1 <= partly["done"] < 40
    lab.functions.update_function_configuration(FunctionName=name, Timeout=1)
    failure = lab.fails(name, {"items": list(range(40))})
    assert failure["errorMessage"].endswith("Task timed out after 1.00 seconds")
    assert lab.ask(name, {"items": [1]}) == {"statusCode": 200, "body": "Complete", "done": 1}
    wait_for(lambda: len(lab.lines(name, "REPORT ")) == 3, what="three reports")
    assert len(lab.lines(name, "tidied up")) == 2


STAGED = """
import os
import boto3
TABLE = os.environ["TABLE"]
LEVEL = os.environ.get("LOG_LEVEL", "INFO")
REGION = os.environ["AWS_REGION"]
database = boto3.resource("dynamodb")

def handler(event, context):
    database.Table(TABLE).put_item(Item={"id": event["id"]})
    return [TABLE, LEVEL, REGION]
"""


def test_one_code_and_the_settings_of_a_stage(lab):
    dev, prod = lab.table("dev", "id"), lab.table("prod", "id")
    name = lab.function(STAGED, variables={"TABLE": dev.name})
    assert lab.ask(name, {"id": "x"}) == [dev.name, "INFO", "us-east-1"]
    variables = {"TABLE": prod.name, "LOG_LEVEL": "WARNING"}
    lab.functions.update_function_configuration(FunctionName=name, Environment={"Variables": variables})
    assert lab.ask(name, {"id": "y"}) == [prod.name, "WARNING", "us-east-1"]
    assert [item["id"] for item in dev.scan()["Items"]] == ["x"]
    assert [item["id"] for item in prod.scan()["Items"]] == ["y"]
    assert lab.functions.get_function_configuration(FunctionName=name)["Environment"]["Variables"] == variables
    lab.functions.update_function_configuration(FunctionName=name, Environment={"Variables": {}})
    failure = lab.fails(name, {"id": "z"})
    assert (failure["errorType"], failure["errorMessage"]) == ("KeyError", "'TABLE'")


SECRET = """
import os
import time
import boto3
secrets = boto3.client("secretsmanager")

def read(name):
    print("asking")
    return secrets.get_secret_value(SecretId=name)["SecretString"]

password = read("prod/db/password")
_key = None
_until = 0.0

def handler(event, context):
    global _key, _until
    if _key is None or ("ttl" in event and time.monotonic() >= _until):
        _key = read(os.environ["SECRET"])
        _until = time.monotonic() + event.get("ttl", 0)
    return [password, _key]
"""


def test_secrets_are_read_at_run_time_and_cached(lab):
    manager = lab.server.client("secretsmanager")
    manager.create_secret(Name="prod/db/password", SecretString="pa")
    manager.create_secret(Name="seed-key", SecretString="one")
    name = lab.function(SECRET, variables={"SECRET": "seed-key"})
    assert lab.ask(name) == ["pa", "one"]
    manager.put_secret_value(SecretId="seed-key", SecretString="two")
    assert lab.ask(name) == lab.ask(name) == ["pa", "one"]
    wait_for(lambda: len(lab.lines(name, "REPORT ")) == 3, what="three reports")
    assert len(lab.lines(name, "asking")) == 2
    assert lab.ask(name, {"ttl": 600}) == ["pa", "two"]
    manager.put_secret_value(SecretId="seed-key", SecretString="three")
    assert lab.ask(name, {"ttl": 600}) == ["pa", "two"]
    fresh = lab.function(SECRET, "-short", variables={"SECRET": "seed-key"})
    assert lab.ask(fresh, {"ttl": 0.05}) == ["pa", "three"]
    manager.put_secret_value(SecretId="seed-key", SecretString="four")
    assert wait_for(lambda: lab.ask(fresh, {"ttl": 0.05}) == ["pa", "four"], what="the secret's new value")
    lab.functions.delete_function(FunctionName=name)
    manager.delete_secret(SecretId="prod/db/password", ForceDeleteWithoutRecovery=True)


def test_a_layer_serves_several_functions(lab):
    def publish(number):
        files = {"python/sharedkit/__init__.py": f"def frame(rows):\n    return [{number}, len(rows)]\n"}
        return lab.functions.publish_layer_version(
            LayerName=f"{lab.name}-{number}", Content={"ZipFile": make_zip(files)}, CompatibleRuntimes=["python3.11"]
        )["LayerVersionArn"]

    arns = [publish(number) for number in range(6)]
    source = "import sharedkit as kit\ndef handler(event, context):\n    return kit.frame(event['rows'])\n"
    names = [lab.function(source, f"-{number}", Layers=arns[:1]) for number in range(2)]
    assert [lab.ask(name, {"rows": [1, 2, 3]}) for name in names] == [[0, 3], [0, 3]]
    lab.functions.update_function_configuration(FunctionName=names[0], Layers=[arns[1]])
    assert [lab.ask(name, {"rows": []}) for name in names] == [[1, 0], [0, 0]]
    lab.functions.update_function_configuration(FunctionName=names[0], Layers=arns[1:])
    assert lab.ask(names[0], {"rows": []}) == [5, 0]
    with pytest.raises(ClientError, match="Cannot reference more than 5 layers"):
        lab.functions.update_function_configuration(FunctionName=names[0], Layers=arns)
    assert len(lab.functions.get_function_configuration(FunctionName=names[0])["Layers"]) == 5


def test_a_canary_takes_a_tenth_of_the_traffic(lab):
    name = lab.function("def handler(event, context):\n    return context.function_version\n")
    published = [lab.functions.publish_version(FunctionName=name)["Version"]]
    for number in range(2, 7):
        code = f"def handler(event, context):\n    return context.function_version + '/{number}'\n"
        lab.functions.update_function_code(FunctionName=name, ZipFile=make_zip({"index.py": code}))
        published.append(lab.functions.publish_version(FunctionName=name)["Version"])
    assert published == ["1", "2", "3", "4", "5", "6"]
    lab.functions.create_alias(FunctionName=name, Name="prod", FunctionVersion="4")
    lab.functions.create_alias(FunctionName=name, Name="staging", FunctionVersion="6")
    assert lab.ask(name, Qualifier="prod") == "4/4"
    lab.functions.update_alias(
        FunctionName=name, Name="prod", FunctionVersion="5", RoutingConfig={"AdditionalVersionWeights": {"6": 0.1}}
    )
    answers = [lab.ask(name, Qualifier="prod") for _ in range(600)]
    assert set(answers) == {"5/5", "6/6"} and 25 <= answers.count("6/6") <= 98
    assert lab.ask(name, Qualifier="staging") == "6/6" and lab.ask(name, Qualifier="1") == "1"
    assert lab.functions.invoke(FunctionName=name, Qualifier="staging")["ExecutedVersion"] == "6"


STRUCTURED = """
import json
import logging
from datetime import datetime, timezone
logger = logging.getLogger()
logger.setLevel(logging.INFO)

def note(kind, job, **more):
    logger.info(json.dumps({"event": kind, "job_id": job, "at": datetime.now(timezone.utc).isoformat(), **more}))

def handler(event, context):
    note("upload_received", event["job"], size_bytes=event["size"])
    note("finished", event["job"])
    raise_if = event.get("fail")
    if raise_if:
        raise RuntimeError(raise_if)
"""


def test_logs_by_job_and_metrics_of_a_function(lab):
    name = lab.function(STRUCTURED)
    for number in range(3):
        lab.ask(name, {"job": f"abc-{number}", "size": number})
    lab.fails(name, {"job": "abc-9", "size": 0, "fail": "no"})
    wait_for(lambda: len(lab.lines(name, "REPORT ")) == 4, what="four reports")
    found = lab.logs.filter_log_events(logGroupName=f"/aws/lambda/{name}", filterPattern='"abc-1"')["events"]
    documents = [json.loads(event["message"].split("\t")[-1]) for event in found]
    assert [(one["event"], one["job_id"]) for one in documents] == [("upload_received", "abc-1"), ("finished", "abc-1")]
    now = json.loads(lab.server.get("/_preheat/clock")[2])["now"]
    metrics = lab.server.client("cloudwatch")

    def measured(metric, statistic):
        points = metrics.get_metric_statistics(
            Namespace="AWS/Lambda", MetricName=metric, Dimensions=[{"Name": "FunctionName", "Value": name}],
            StartTime=now - 600, EndTime=now + 600, Period=3600, Statistics=[statistic],
        )["Datapoints"]  # fmt: skip
        return sum(point[statistic] for point in points)

    wait_for(lambda: measured("Invocations", "Sum") == 4, what="the invocations")
    assert measured("Errors", "Sum") == 1 and measured("Throttles", "Sum") == 0
    assert measured("Duration", "SampleCount") == 4 and measured("Duration", "Maximum") > 0
    assert wait_for(lambda: measured("ConcurrentExecutions", "Maximum"), what="concurrent executions") == 1


def test_a_least_privilege_role_is_all_a_worker_has(tmp_path):
    server = EnforcedServer(tmp_path / "state").start()
    try:
        lab = Lab(server, "seed-role")
        bucket, other = lab.bucket("-artifacts"), lab.bucket("-other")
        for key in ("models/m.pkl", "private/p.txt"):
            lab.s3.put_object(Bucket=bucket, Key=key, Body=b"x")
        logs = allow(["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"])
        models = allow(["s3:GetObject", "s3:PutObject"], f"arn:aws:s3:::{bucket}/models/*")
        source = """
import boto3
from botocore.exceptions import ClientError
s3 = boto3.client("s3")

def handler(event, context):
    try:
        getattr(s3, event["do"])(**event["with"])
    except ClientError as error:
        return error.response["Error"]["Code"]
    return "ok"
"""
        name = lab.function(source, Role=server.role("burst-worker", logs, models))

        def attempt(what, **given):
            return lab.ask(name, {"do": what, "with": given})

        assert attempt("get_object", Bucket=bucket, Key="models/m.pkl") == "ok"
        assert attempt("put_object", Bucket=bucket, Key="models/n.pkl", Body="y") == "ok"
        assert attempt("get_object", Bucket=bucket, Key="private/p.txt") == "AccessDenied"
        assert attempt("put_object", Bucket=other, Key="models/n.pkl", Body="y") == "AccessDenied"
        assert attempt("delete_object", Bucket=bucket, Key="models/m.pkl") == "AccessDenied"
    finally:
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("service", "operation", "params"),
    [
        ("application-autoscaling", "register_scalable_target",
         {"ServiceNamespace": "lambda", "ResourceId": "function:f:prod", "MinCapacity": 0, "MaxCapacity": 50,
          "ScalableDimension": "lambda:function:ProvisionedConcurrency"}),
        ("cloudwatch", "put_metric_alarm",
         {"AlarmName": "deep", "MetricName": "ApproximateNumberOfMessagesVisible", "Namespace": "AWS/SQS",
          "Threshold": 10000, "ComparisonOperator": "GreaterThanThreshold", "EvaluationPeriods": 3, "Period": 60}),
        ("rekognition", "detect_moderation_labels", {"Image": {"S3Object": {"Bucket": "uploads", "Name": "k"}}}),
        ("sagemaker-runtime", "invoke_endpoint", {"EndpointName": "intent", "Body": b"{}"}),
        ("stepfunctions", "describe_map_run", {"mapRunArn": "arn:aws:states:us-east-1:000000000000:mapRun:m"}),
        ("s3", "put_bucket_website", {"Bucket": "b", "WebsiteConfiguration": {"IndexDocument": {"Suffix": "i.html"}}}),
        ("logs", "start_query", {"logGroupName": "g", "startTime": 0, "endTime": 1, "queryString": "fields @message"}),
    ],
)  # fmt: skip
def test_what_is_not_here_says_so(aws, service, operation, params):
    with pytest.raises(ClientError) as caught:
        getattr(aws.client(service), operation)(**params)
    answer = caught.value.response
    assert answer["ResponseMetadata"]["HTTPStatusCode"] in (400, 404, 501)
    assert answer["Error"]["Code"] in ("UnknownOperationException", "UnsupportedOperation", "NotImplemented"), answer

"""The clock that can be moved: what `/_preheat/clock/advance` starts, refuses and keeps, and the clocks themselves."""

import json
import threading
import time

import pytest

from preheat.kernel.clock import ManualClock, SystemClock
from tests.support.functions import ROLE, make_zip
from tests.support.server import LiveServer, wait_for

YEAR_S = 366 * 86_400
HANDLER = """
import boto3, os, time
sqs = boto3.client("sqs")

def handler(event, context):
    sqs.send_message(QueueUrl=os.environ["MARKS"], MessageBody="run")
    time.sleep(event.get("seconds", 0))
    if event.get("fail"):
        raise ValueError("as asked")
    return "done"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    live = LiveServer(tmp_path_factory.mktemp("clock") / "state").start()
    yield live
    assert live.stop() == 0
    assert "Traceback" not in live.log.read_text(), live.log.read_text()[-4000:]


@pytest.fixture(scope="module")
def function(server):
    marks = server.client("sqs").create_queue(QueueName="marks")["QueueUrl"]
    functions = server.client("lambda")
    functions.create_function(
        FunctionName="marked", Runtime="python3.11", Handler="app.handler", Role=ROLE, Timeout=10,
        Code={"ZipFile": make_zip({"app.py": HANDLER})}, Environment={"Variables": {"MARKS": marks}},
    )  # fmt: skip
    functions.get_waiter("function_active_v2").wait(FunctionName="marked")

    def take():
        """The marks since the last look."""
        sqs, found = server.client("sqs"), 0
        while batch := sqs.receive_message(QueueUrl=marks, MaxNumberOfMessages=10).get("Messages"):
            for message in batch:
                sqs.delete_message(QueueUrl=marks, ReceiptHandle=message["ReceiptHandle"])
            found += len(batch)
        return found

    return functions, take


def read(server):
    status, _, body = server.get("/_preheat/clock")
    assert status == 200
    return json.loads(body)


def test_the_clock_is_read_and_moved(server):
    before = read(server)
    status, _, body = server.get("/_preheat/clock/advance?seconds=90.5", "POST")
    after = read(server)
    assert status == 200
    assert after["offset"] == pytest.approx(before["offset"] + 90.5, abs=0.5)
    assert before["now"] + 90 < json.loads(body)["now"] <= after["now"]
    assert after["now"] == pytest.approx(time.time() + after["offset"], abs=2)


@pytest.mark.parametrize(
    "query",
    ["", "?seconds=", "?seconds=soon", "?seconds=-1", "?seconds=nan", "?seconds=inf", "?seconds=1e9", "?minutes=1"],
)
def test_nonsense_is_refused_and_moves_nothing(server, query):
    before = read(server)["offset"]
    status, _, body = server.get("/_preheat/clock/advance" + query, "POST")
    assert status == 400 and "seconds" in json.loads(body)["message"]
    assert read(server)["offset"] == before


def test_the_clock_is_moved_by_post_alone(server):
    assert server.get("/_preheat/clock/advance?seconds=1")[0] == 405
    assert server.get("/_preheat/clock", "POST")[0] == 405


def test_a_delayed_message_is_there_when_the_answer_is(server):
    sqs = server.client("sqs")
    url = sqs.create_queue(QueueName="delayed")["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="later", DelaySeconds=600)
    server.advance(500)
    assert "Messages" not in sqs.receive_message(QueueUrl=url)
    server.advance(101)
    assert sqs.receive_message(QueueUrl=url)["Messages"][0]["Body"] == "later"


def test_a_long_poll_is_answered_by_a_jump(server):
    sqs = server.client("sqs")
    url = sqs.create_queue(QueueName="polled")["QueueUrl"]
    answers = []
    thread = threading.Thread(target=lambda: answers.append(sqs.receive_message(QueueUrl=url, WaitTimeSeconds=20)))
    began = time.monotonic()
    thread.start()

    def over():
        server.advance(1)
        return answers

    wait_for(over, what="the end of the long poll")
    thread.join()
    assert "Messages" not in answers[0] and time.monotonic() - began < 15


def test_messages_and_items_past_their_time_are_gone(server):
    sqs, items = server.client("sqs"), server.client("dynamodb")
    url = sqs.create_queue(QueueName="kept", Attributes={"MessageRetentionPeriod": "60"})["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="old")
    items.create_table(
        TableName="expiring", BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
    )  # fmt: skip
    items.update_time_to_live(
        TableName="expiring", TimeToLiveSpecification={"Enabled": True, "AttributeName": "until"}
    )
    for name, lives in (("short", 50), ("long", 500_000)):
        until = str(int(read(server)["now"]) + lives)
        items.put_item(TableName="expiring", Item={"id": {"S": name}, "until": {"N": until}})
    assert len(items.scan(TableName="expiring")["Items"]) == 2
    server.advance(3 * 86_400)
    assert "Messages" not in sqs.receive_message(QueueUrl=url)
    assert [item["id"]["S"] for item in items.scan(TableName="expiring")["Items"]] == ["long"]


def test_the_retries_of_an_asynchronous_invocation_come_after_one_minute_and_two(server, function):
    functions, take = function
    functions.invoke(FunctionName="marked", InvocationType="Event", Payload=b'{"fail": true}')
    wait_for(lambda: take() == 1, what="the first run")
    for pause in (61, 121):
        wait_for(lambda: _errors(server) == 0, what="the end of the run")
        server.advance(pause - 2)
        assert take() == 0
        server.advance(2)
        wait_for(lambda: take() == 1, what="a retry")
    wait_for(lambda: _errors(server) == 0, what="the end of the run")
    server.advance(3_600)
    assert take() == 0


def _errors(server):
    """How many runs of the function have begun and not ended, by its log."""
    events = server.client("logs").filter_log_events(logGroupName="/aws/lambda/marked")["events"]
    texts = [event["message"] for event in events]
    return sum(text.startswith("START") for text in texts) - sum(text.startswith("REPORT") for text in texts)


def test_a_running_invocation_is_not_killed_by_a_jump(server, function):
    functions, take = function
    answers = []
    payload = json.dumps({"seconds": 1})
    thread = threading.Thread(target=lambda: answers.append(functions.invoke(FunctionName="marked", Payload=payload)))
    thread.start()
    wait_for(lambda: take() == 1, what="the run")
    for _ in range(3):
        server.advance(86_400)
    thread.join(30)
    assert "FunctionError" not in answers[0] and json.loads(answers[0]["Payload"].read()) == "done"


def test_a_jump_over_a_year_is_quick_with_loops_that_wait(server, function):
    functions, _ = function
    sqs = server.client("sqs")
    url = sqs.create_queue(QueueName="mapped")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    functions.create_event_source_mapping(EventSourceArn=arn, FunctionName="marked")
    sqs.send_message(QueueUrl=url, MessageBody="bad for a handler that expects seconds", DelaySeconds=900)
    spent = []
    for span in (YEAR_S / 12, YEAR_S):
        began = time.monotonic()
        server.advance(span)
        spent.append(time.monotonic() - began)
    assert spent[1] < 6 * spent[0], "the way is long, the number of stops on it is not"


def test_the_offset_survives_a_stop_and_a_kill(fresh):
    server = fresh
    sqs = server.client("sqs")
    url = sqs.create_queue(QueueName="q", Attributes={"VisibilityTimeout": "0"})["QueueUrl"]
    server.advance(10_000)
    sqs.send_message(QueueUrl=url, MessageBody="sent in the future")
    last = read(server)["now"]
    for end in (server.stop, server.kill):
        end()
        server.start()
        clock = read(server)
        assert clock["offset"] == pytest.approx(10_000, abs=0.5) and clock["now"] >= last
        last = clock["now"]
        assert sqs.receive_message(QueueUrl=url)["Messages"][0]["Body"] == "sent in the future"
    server.advance(5)
    assert read(server)["offset"] == pytest.approx(10_005, abs=0.5)


@pytest.fixture
def fresh(tmp_path):
    server = LiveServer(tmp_path / "state").start()
    yield server
    server.stop()


def test_a_system_clock_moves_forward_only():
    clock = SystemClock(5.0)
    with pytest.raises(ValueError, match="forward"):
        clock.advance(-1)
    before, work = clock.now(), clock.monotonic()
    clock.advance(100)
    assert clock.offset == 105.0
    assert clock.now() - before >= 100 > clock.monotonic() - work
    assert clock.now() - clock.peer_now() == pytest.approx(105, abs=1)


def test_a_manual_clock_moves_forward_only():
    clock = ManualClock(10.0)
    clock.advance(2)
    clock.move_to(11.0)
    assert clock.now() == 12.0 and clock.monotonic() == 2.0
    clock.move_to(15.0)
    assert clock.now() == clock.peer_now() == 15.0
    with pytest.raises(ValueError, match="forward"):
        clock.advance(-0.1)

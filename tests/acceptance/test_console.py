"""The web console: a page, and views that call the same operations."""

import json


def test_the_page_and_its_overview(aws):
    aws.client("sqs").create_queue(QueueName="console-queue")
    status, headers, page = aws.get("/_preheat/console")
    assert status == 200 and headers["Content-Type"].startswith("text/html") and b"Preheat console" in page
    status, _, body = aws.get("/_preheat/console/overview")
    view = json.loads(body)
    assert status == 200 and set(view) >= {"stacks", "queues", "functions", "outbox"}
    row = next(one for one in view["queues"] if one["name"] == "console-queue")
    assert row == {"name": "console-queue", "waiting": 0, "in_flight": 0, "delayed": 0, "dead_letters": False}


def test_what_is_not_there(aws):
    assert aws.get("/_preheat/console/nothing")[0] == 404
    assert aws.get("/_preheat/console", "POST")[0] == 405

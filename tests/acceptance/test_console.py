"""The web console: a page, and views that call the same operations."""

import json

import pytest


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


def line(correlation, step, ms=None, **more):
    timed = {} if ms is None else {"step": step, "ms": ms}
    return json.dumps({"level": "INFO", "message": step, "correlation": correlation, **timed, **more})


@pytest.fixture(scope="module")
def logged(aws):
    """Two functions that logged two correlation ids, and lines that are not about any. When the first line was
    written, in epoch milliseconds."""
    logs = aws.client("logs")
    now = 1_000 * int(json.loads(aws.get("/_preheat/clock")[2])["now"])
    lines = {
        "door": [
            (0, line("red-1", "queued")),
            (40, "START RequestId: 1"),
            (50, '["correlation", 1]'),
            (60, '{"correlation": broken'),
            (70, json.dumps({"correlation": 7})),
            (5_000, line("blue-2", "queued")),
        ],
        "worker": [
            (100, line("red-1", "retrieval", 60.5, passages={"a#0": 0.9, "b#1": 0.25, "c": "no number"})),
            (300, line("red-1", "generation", 200, tokens={"input": 30, "output": 4})),
            (310, line("red-1", "generation", 5, tokens={"input": 1, "output": 2})),
            (320, line("red-1", "the turn goes to the queue", level="WARN", error="Throttled: wait")),
            (330, line("red-10", "another")),
        ],
    }
    for name, rows in lines.items():
        group = f"/aws/lambda/traced-{name}"
        logs.create_log_group(logGroupName=group)
        logs.create_log_stream(logGroupName=group, logStreamName="s")
        events = [{"timestamp": now + at, "message": text} for at, text in rows]
        logs.put_log_events(logGroupName=group, logStreamName="s", logEvents=events)
    return now


def viewed(aws, path):
    status, _, body = aws.get(f"/_preheat/console/{path}")
    assert status == 200
    return json.loads(body)


def test_a_trace_is_every_line_of_its_id_over_all_functions_in_order(aws, logged):
    view = viewed(aws, "trace?correlation=red-1")
    steps = [(one["step"] or one["message"], one["function"], one["offset_ms"], one["ms"]) for one in view["lines"]]
    assert steps == [
        ("queued", "traced-door", 0, None),
        ("retrieval", "traced-worker", 39.5, 60.5),
        ("generation", "traced-worker", 100, 200),
        ("generation", "traced-worker", 305, 5),
        ("the turn goes to the queue", "traced-worker", 320, None),
    ]
    assert (view["started_ms"], view["total_ms"]) == (logged, 320)
    assert view["tokens"] == {"input": 31, "output": 6}
    assert view["passages"] == [{"id": "a#0", "score": 0.9}, {"id": "b#1", "score": 0.25}]
    assert view["lines"][-1]["level"] == "WARN" and view["lines"][-1]["details"] == {"error": "Throttled: wait"}


def test_a_trace_is_looked_for_around_the_time_that_is_named_then_everywhere(aws, logged):
    assert len(viewed(aws, f"trace?correlation=red-1&at={logged + 240_000}")["lines"]) == 5
    assert len(viewed(aws, f"trace?correlation=red-1&at={logged + 600_000}")["lines"]) == 5
    assert viewed(aws, "trace?correlation=unknown") == {
        "correlation": "unknown", "started_ms": 0, "total_ms": 0, "tokens": {}, "cost_usd": None, "lines": [],
        "passages": [],
    }  # fmt: skip
    assert viewed(aws, "trace")["lines"] == []


def test_recent_traces_are_listed_the_latest_first(aws, logged):
    ours = ("red-1", "blue-2", "red-10")
    found = [one for one in viewed(aws, "traces")["traces"] if one["correlation"] in ours]
    assert [one["correlation"] for one in found] == ["blue-2", "red-10", "red-1"]
    assert found[-1] == {
        "correlation": "red-1", "started_ms": logged, "total_ms": 320, "lines": 5,
        "functions": ["traced-door", "traced-worker"], "steps": ["generation", "retrieval"], "troubles": 1,
    }  # fmt: skip

"""The Telemetry API and the Logs API without sockets and processes."""

import json

import pytest

from preheat.execution.contract import Outcome
from preheat.execution.extensions import records
from preheat.execution.extensions.telemetry import SLOW, Destination, Invalid, read_subscription
from tests.support.extensions import HTTP, LOGS, TELEMETRY, World, refusal


@pytest.fixture
def make(tmp_path):
    return lambda *programs, **spec: World(tmp_path, *programs, **spec)


def delivered(carrier):
    return [(event["type"], event["record"]) for batch in carrier.batches for event in batch]


def test_events_since_the_start_of_initialisation_come_with_the_subscription(make):
    world = make("watch")
    world.extensions.begin("init")
    watch = world.register("watch", "INVOKE")
    assert world.subscribe(watch)[:2] == (200, "OK")
    assert world.lines == ["TELEMETRY\tName: watch\tState: Subscribed\tTypes: [Platform, Function, Extension]"]
    world.extensions.line("hello")
    world.next(watch)
    world.extensions.runtime_asks()
    world.extensions.initialised(12.3456)
    world.fire()
    (carrier,) = world.carriers
    assert carrier.destination == Destination(8080, path="/in")
    events = delivered(carrier)
    assert [kind for kind, _ in events] == [
        "platform.initStart", "platform.telemetrySubscription", "function", "platform.initRuntimeDone",
        "platform.initReport", "platform.extension",
    ]  # fmt: skip
    assert carrier.batches[0][0]["time"] == "2023-11-14T22:13:20.000Z"
    start = events[0][1]
    assert start["initializationType"] == "on-demand" and start["phase"] == "init"
    assert start["runtimeVersion"] == "python:3.12.preheat" and start["runtimeVersionArn"].startswith("arn:aws:lambda:")
    assert start["functionName"] == "f" and start["functionVersion"] == "7" and start["instanceId"] == "instance"
    assert start["instanceMaxMemory"] == 128 * 1024 * 1024
    assert events[1][1] == {"name": "watch", "state": "Subscribed", "types": ["platform", "function", "extension"]}
    assert events[3][1] == {"initializationType": "on-demand", "phase": "init", "status": "success"}
    assert events[4][1]["metrics"] == {"durationMs": 12.346}
    assert events[5][1] == {"name": "watch", "state": "Ready", "events": ["INVOKE"]}


def prepared(make, *programs, path=TELEMETRY, **changes):
    """A world whose `watch` has subscribed, after initialisation, with nothing waiting."""
    spec = changes.pop("spec", {})
    world = make("watch", *programs, **spec)
    watch = world.register("watch", "INVOKE")
    assert world.subscribe(watch, path, **changes)[0] == 200
    world.next(watch)
    world.extensions.runtime_asks()
    world.extensions.initialised(1.0)
    world.fire()
    carrier = world.carriers[0]
    if carrier.batches:
        carrier.done.pop()(True)
        carrier.batches.clear()
    return world, carrier, watch


def finish(world, error=None, status=None):
    outcome = Outcome(b"", error, duration_ms=5.4321, billed_ms=6, max_memory_mb=40, init_ms=2.5)
    world.extensions.reported(world.invocation, outcome, status, error if status else None, None)


def test_records_of_an_invocation(make):
    world, carrier, _ = prepared(make)
    world.invoke()
    begun = world.clock.monotonic()
    world.clock.advance(0.004)
    answered = world.clock.monotonic()
    world.clock.advance(0.001)
    world.extensions.runtime_done(world.invocation, "success", None, begun, answered, 0.0, 99)
    world.extensions.runtime_done(world.invocation, "timeout", None, begun, answered, 0.0, 99)
    finish(world)
    world.fire()
    events = dict(delivered(carrier))
    tracing = {"type": "X-Amzn-Trace-Id", "value": "Root=1-2;Parent=ab;Sampled=1", "spanId": "ab"}
    assert list(events) == ["platform.start", "platform.runtimeDone", "platform.report"]
    assert events["platform.start"] == {"requestId": "r-1", "version": "7", "tracing": tracing}
    done = events["platform.runtimeDone"]
    assert done["status"] == "success" and done["metrics"] == {"durationMs": 5.0, "producedBytes": 99}
    assert [(span["name"], span["durationMs"]) for span in done["spans"]] == [
        ("responseLatency", 4.0), ("responseDuration", 0.0),
    ]  # fmt: skip
    assert done["spans"][0]["start"] == "2023-11-14T22:13:20.000Z" and done["tracing"] == tracing
    assert events["platform.report"]["metrics"] == {
        "durationMs": 5.432, "billedDurationMs": 6, "memorySizeMB": 128, "maxMemoryUsedMB": 40, "initDurationMs": 2.5,
    }  # fmt: skip
    assert events["platform.report"]["status"] == "success"


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        ("ValueError", None, "error"),
        ("Sandbox.Timedout", "timeout", "timeout"),
        ("Runtime.ExitError", "error", "failure"),
    ],
)
def test_reports_of_failures(make, error, status, said):
    world, carrier, _ = prepared(make, types=["platform"])
    world.invoke()
    world.extensions.runtime_done(world.invocation, said, error, 0.0, 0.0, 0.0, 0)
    finish(world, error, status)
    world.fire()
    events = dict(delivered(carrier))
    for kind in ("platform.runtimeDone", "platform.report"):
        assert (events[kind]["status"], events[kind]["errorType"]) == (said, error)
    assert "spans" not in events["platform.runtimeDone"]


def test_types_select_and_extension_lines_are_theirs(make):
    world, carrier, _ = prepared(make, types=["extension"])
    world.invoke()
    world.extensions.line("function's")
    world.extensions.output("watch", b"one\ntw")
    world.extensions.output("watch", b"o\r\nthree")
    world.extensions.silent("watch")
    world.fire()
    assert delivered(carrier) == [("extension", "one"), ("extension", "two"), ("extension", "three")]
    assert world.lines[-3:] == ["one", "two", "three"] and world.told[-1] == "flush"


def test_json_lines_are_objects_in_the_json_log_format_only(make):
    spec = {"environment": (("AWS_LAMBDA_LOG_FORMAT", "JSON"),)}
    world, carrier, _ = prepared(make, types=["function"], spec=spec)
    for text in ('{"level": "INFO"}', "{broken", "[1]"):
        world.extensions.line(text)
    world.fire()
    assert delivered(carrier) == [("function", {"level": "INFO"}), ("function", "{broken"), ("function", "[1]")]
    assert records.line('{"a": 1}', False) == '{"a": 1}'


def test_a_batch_leaves_full_or_old(make):
    world, carrier, _ = prepared(make, types=["function"], buffering={"maxItems": 1000, "timeoutMs": 25})
    world.extensions.line("first")
    assert [timer[0] for timer in world.timers] == [0.025] and carrier.batches == []
    for number in range(999):
        world.extensions.line(str(number))
    assert [len(batch) for batch in carrier.batches] == [1000] and world.timers == []
    carrier.done[0](True)
    for _ in range(3):
        world.extensions.line("x" * 100_000)
    assert [len(batch) for batch in carrier.batches] == [1000, 2]


def test_one_batch_at_a_time_and_the_slow_are_told_what_they_lost(make):
    world, carrier, _ = prepared(make, types=["function"])
    for text in "abcdefg":
        world.extensions.line(text)
        world.fire()
    assert [event["record"] for event in carrier.batches[0]] == ["a"] and len(carrier.batches) == 1
    for _ in range(5):
        carrier.done[-1](True)
    assert [batch[0]["record"] for batch in carrier.batches] == ["a", "b", "c", "d", "e"]
    world.extensions.line("h")
    world.fire()
    dropped, after = carrier.batches[-1]
    assert dropped["type"] == "platform.logsDropped" and after["record"] == "h"
    assert dropped["record"]["droppedRecords"] == 2 and dropped["record"]["reason"] == SLOW
    assert dropped["record"]["droppedBytes"] > 100


def test_what_cannot_be_delivered_is_lost_and_said(make):
    world, carrier, _ = prepared(make, types=["function"])
    world.extensions.line("a")
    world.fire()
    carrier.done[-1](False)
    assert world.timers == []
    world.extensions.line("b")
    world.fire()
    assert [event["type"] for event in carrier.batches[-1]] == ["platform.logsDropped", "function"]


def test_flush_and_close(make):
    world, carrier, _ = prepared(make, types=["function"])
    world.extensions.line("a")
    world.extensions.telemetry.flush()
    assert len(carrier.batches) == 1 and world.timers == []
    world.extensions.line("b")
    world.extensions.telemetry.close()
    assert carrier.closed and world.timers == []
    world.extensions.line("c")
    assert len(carrier.batches) == 1


def test_subscribing_again_replaces_and_after_initialisation_is_refused(make):
    world = make("watch")
    watch = world.register("watch")
    world.subscribe(watch)
    world.subscribe(watch)
    assert len(world.carriers) == 1
    world.subscribe(watch, types=["function"])
    assert world.carriers[0].closed and len(world.carriers) == 2
    assert refusal(world.subscribe(watch, LOGS)) == (400, "ValidationError")
    world.next(watch)
    world.extensions.runtime_asks()
    world.extensions.initialised(1.0)
    assert refusal(world.subscribe(watch)) == (403, "Telemetry.SubscriptionClosed")
    assert refusal(world.subscribe(watch, LOGS)) == (403, "Logs.SubscriptionClosed")


def test_nobody_wants_events_after_initialisation_without_subscribers(make):
    world = make()
    world.extensions.begin("init")
    assert world.extensions.telemetry.wanted
    assert world.extensions.runtime_asks()
    world.extensions.initialised(1.0)
    assert not world.extensions.telemetry.wanted


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schemaVersion": "2019-01-01"}, "schemaVersion"),
        ({"schemaVersion": None}, "schemaVersion"),
        ({"types": []}, "types"),
        ({"types": ["platform", "x"]}, "types"),
        ({"types": "platform"}, "types"),
        ({"buffering": []}, "buffering"),
        ({"buffering": {"maxItems": 999}}, "buffering.maxItems"),
        ({"buffering": {"maxItems": 10_001}}, "buffering.maxItems"),
        ({"buffering": {"maxBytes": 262_143}}, "buffering.maxBytes"),
        ({"buffering": {"maxBytes": 1_048_577}}, "buffering.maxBytes"),
        ({"buffering": {"timeoutMs": 24}}, "buffering.timeoutMs"),
        ({"buffering": {"timeoutMs": 30_001}}, "buffering.timeoutMs"),
        ({"buffering": {"timeoutMs": True}}, "buffering.timeoutMs"),
        ({"destination": None}, "destination"),
        ({"destination": {"protocol": "UDP"}}, "destination.protocol"),
        ({"destination": {"protocol": "TCP", "port": 0}}, "destination.port"),
        ({"destination": {"protocol": "TCP"}}, "destination.port"),
        ({"destination": {"protocol": "HTTP"}}, "destination.URI"),
        ({"destination": {"protocol": "HTTP", "URI": "https://sandbox.localdomain"}}, "destination.URI"),
        ({"destination": {"protocol": "HTTP", "URI": "http://example.com:80"}}, "destination.URI"),
        ({"destination": {"protocol": "HTTP", "URI": "http://sandbox.localdomain:99999"}}, "destination.URI"),
        ({"destination": {**HTTP, "method": "GET"}}, "destination.method"),
        ({"destination": {**HTTP, "encoding": "XML"}}, "destination.encoding"),
    ],
)
def test_subscriptions_that_the_schema_does_not_allow(make, change, said):
    world = make("watch")
    status, document, _ = world.subscribe(world.register("watch"), **change)
    assert (status, document["errorType"]) == (400, "ValidationError")
    assert document["errorMessage"].startswith(f"{said} ")
    assert world.carriers == [] and world.lines == []


def test_a_subscription_that_is_no_json():
    for body in (b"{", b"[]", b'"x"'):
        with pytest.raises(Invalid):
            read_subscription("telemetry", body)


def test_defaults_and_destinations():
    tcp = {"protocol": "TCP", "port": 9}
    body = {"schemaVersion": "2022-07-01", "types": ["platform", "platform"], "destination": tcp}
    made = read_subscription("telemetry", json.dumps(body).encode())
    assert (made.types, made.max_items, made.max_bytes, made.timeout_s) == (("platform",), 1_000, 262_144, 1.0)
    assert made.destination == Destination(9, tcp=True)
    http = {"protocol": "HTTP", "URI": "http://sandbox:81/p?q=1", "method": "PUT"}
    body = {"types": ["function"], "destination": http}
    made = read_subscription("logs", json.dumps(body).encode())
    assert made.max_items == 10_000 and made.schema == "2020-08-15"
    assert made.destination == Destination(81, path="/p?q=1", method="PUT")


def test_the_logs_api_has_its_own_types_and_records(make):
    world, carrier, _ = prepared(make, path=LOGS)
    world.invoke()
    world.extensions.runtime_done(world.invocation, "success", None, 0.0, 0.0, 0.0, 0)
    world.extensions.line("text")
    finish(world)
    world.fire()
    events = dict(delivered(carrier))
    assert list(events) == [
        "platform.start", "platform.runtimeDone", "function", "platform.report", "platform.end",
    ]  # fmt: skip
    assert events["platform.start"] == {"requestId": "r-1", "version": "7"}
    assert events["platform.runtimeDone"] == {"requestId": "r-1", "status": "success"}
    assert set(events["platform.report"]) == {"requestId", "metrics"}
    assert world.lines[0] == "LOGS\tName: watch\tState: Subscribed\tTypes: [Platform, Function, Extension]"


def test_restores_have_their_own_events(make):
    world = make("watch")
    watch = world.register("watch")
    world.subscribe(watch)
    world.extensions.begin("restore")
    world.next(watch)
    world.extensions.runtime_asks()
    world.extensions.initialised(3.0)
    world.fire()
    events = dict(delivered(world.carriers[0]))
    assert events["platform.restoreStart"]["functionName"] == "f"
    assert "phase" not in events["platform.restoreStart"]
    assert events["platform.restoreRuntimeDone"] == {"status": "success"}
    assert events["platform.restoreReport"] == {"status": "success", "metrics": {"durationMs": 3.0}}


def test_an_initialisation_that_failed_says_so(make):
    world = make("watch")
    watch = world.register("watch")
    world.subscribe(watch)
    world.extensions.begin("init")
    world.extensions.not_initialised("error", 7.0, "Runtime.ExitError")
    world.extensions.not_initialised("error", 8.0, "Runtime.ExitError")
    world.fire()
    events = delivered(world.carriers[0])
    assert [kind for kind, _ in events].count("platform.initReport") == 1
    failed = {"initializationType": "on-demand", "phase": "init", "status": "error", "errorType": "Runtime.ExitError"}
    assert dict(events)["platform.initRuntimeDone"] == failed
    assert dict(events)["platform.initReport"] == {**failed, "metrics": {"durationMs": 7.0}}

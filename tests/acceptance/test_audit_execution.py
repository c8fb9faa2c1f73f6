"""What an outside tester found wrong once in the life of functions: what is left behind, what is lost, what grows."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from preheat.app import LOG_BACKLOG_BYTES, LogSink
from preheat.execution.contract import LogLine
from preheat.execution.workers.housing import NO_VIEW, Housing
from preheat.services.logs.service import build as build_logs
from tests.support.execution_driver import ExecutionDriver, FunctionMaker, alive, error_of
from tests.support.functions import ROLE, make_zip
from tests.support.inprocess import InProcess
from tests.support.server import wait_for

FORKS = """
import os, time

def daemon():
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        pid = os.fork()
        if pid:
            os.write(writing, str(pid).encode())
            os._exit(0)
        time.sleep(1000)
    return int(os.read(reading, 100))

def child():
    pid = os.fork()
    if pid == 0:
        time.sleep(1000)
    return pid

def handler(event, context):
    return [daemon(), child(), os.getpid()]
"""
RESTORED = """
from snapshot_restore_py import register_after_restore
import time

@register_after_restore
def restored():
    print("restored")

def handler(event, context):
    time.sleep(0.2)
"""


@pytest.fixture
def make(tmp_path):
    return FunctionMaker(tmp_path)


@pytest.fixture
def driver(tmp_path):
    driver = ExecutionDriver(tmp_path / "scratch")
    yield driver
    driver.close()


def create(server, name, source, **options):
    client = server.client("lambda")
    settings = {"Runtime": "python3.11", "Handler": "app.handler", "Timeout": 20, "MemorySize": 256, **options}
    client.create_function(FunctionName=name, Role=ROLE, Code={"ZipFile": make_zip({"app.py": source})}, **settings)
    wait_for(lambda: client.get_function_configuration(FunctionName=name)["State"] == "Active")
    return client


def invoke(client, name, **options):
    return json.loads(client.invoke(FunctionName=name, Payload=b"{}", **options)["Payload"].read())


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_the_end_of_the_server_leaves_no_process_behind(fresh_server, end):
    server = fresh_server()
    client = create(server, "forks", FORKS)
    pids = invoke(client, "forks")
    assert all(alive(pid) for pid in pids)
    getattr(server, end)()
    wait_for(lambda: not any(alive(pid) for pid in pids), what="the end of what the function had started")


def test_a_copy_that_returns_from_the_handler_answers_nothing(driver, make):
    spec = make(
        """
        import os
        def handler(event, context):
            me = os.getpid()
            if event == "fork":
                os.fork()
            elif event == "raise":
                if os.fork() == 0:
                    raise ValueError("the copy")
            return [event, os.getpid() == me]
        """
    )
    for number in range(4):
        assert json.loads(driver.invoke(spec, b'"fork"').payload) == ["fork", True]
        assert json.loads(driver.invoke(spec, b'"raise"').payload) == ["raise", True]
        assert json.loads(driver.invoke(spec, str(number).encode()).payload) == [number, True]


@pytest.mark.parametrize("how", ["os.close(1), os.close(2)", "sys.stdout.close()", "setattr(sys, 'stdout', None)"])
def test_an_error_is_answered_when_the_output_is_closed(driver, make, how):
    spec = make(
        f"""
        import os, sys
        def handler(event, context):
            if event == "close":
                {how}
                raise ValueError("after closing")
            return "unharmed"
        """
    )
    assert error_of(driver.invoke(spec, b'"close"')) == ("ValueError", "after closing")
    assert json.loads(driver.invoke(spec).payload) == "unharmed"


def test_the_log_tail_holds_no_half_characters(driver, make):
    spec = make(
        """
        def handler(event, context):
            print("x" * event + "\\u20ac" * 3000)
        """
    )
    for shift in range(3):
        tail = driver.invoke(spec, str(shift).encode(), tail=True).log_tail
        assert 4090 < len(tail) <= 4096 and "€" in tail.decode()


def test_functions_wait_in_their_writing_while_their_lines_cannot_be_written(tmp_path, make):
    crowded = [True]
    driver = ExecutionDriver(tmp_path / "scratch", crowded=lambda: crowded[0])
    try:
        spec = make(
            """
            def handler(event, context):
                for number in range(4000):
                    print(f"{number:099d}")
                return "written"
            """
        )
        outcomes = driver.start(spec)
        until = time.monotonic() + 0.5
        driver.until(lambda: time.monotonic() > until)
        assert not outcomes and len(driver.lines) < 2_000
        crowded[0] = False
        driver.until(lambda: outcomes)
        assert outcomes[0].payload == b'"written"'
        assert [line for line in driver.messages() if line.startswith("0")] == [f"{n:099d}" for n in range(4000)]
    finally:
        driver.close()


def test_the_log_sink_is_crowded_until_it_has_written():
    world = InProcess(build_logs)
    timers = []
    sink = LogSink(lambda delay, action: timers.append(action))
    sink.machine = world.machine
    lines = [LogLine("g", "s", 1_700_000_000_000, f"{number:01000d}") for number in range(LOG_BACKLOG_BYTES // 1_000)]
    sink(lines[:1_000])
    assert not sink.crowded()
    sink(lines[1_000:])
    assert sink.crowded()
    timers.pop()()
    while world.machine.has_work():
        world.machine.tick()
    assert not sink.crowded() and not timers
    found = world("logs", "GetLogEvents", logGroupName="g", logStreamName="s", startFromHead=True, limit=100)["events"]
    assert [event["message"] for event in found] == [line.message for line in lines[:100]]


def test_what_a_hook_prints_stands_before_the_start_of_the_invocation(aws):
    client = create(aws, "audit-restored", RESTORED, Runtime="python3.12", SnapStart={"ApplyOn": "PublishedVersions"})
    client.publish_version(FunctionName="audit-restored")
    of_version = {"FunctionName": "audit-restored", "Qualifier": "1"}
    wait_for(lambda: client.get_function_configuration(**of_version)["State"] == "Active")
    with ThreadPoolExecutor(6) as callers:
        for answer in callers.map(lambda _: client.invoke(**of_version), range(6)):
            assert "FunctionError" not in answer
    logs = aws.client("logs")

    def restored_streams():
        streams = logs.describe_log_streams(logGroupName="/aws/lambda/audit-restored")["logStreams"]
        texts = [
            [event["message"].split()[0] for event in logs.get_log_events(
                logGroupName="/aws/lambda/audit-restored", logStreamName=stream["logStreamName"], startFromHead=True,
            )["events"]]
            for stream in streams
        ]  # fmt: skip
        found = [text for text in texts if "RESTORE_START" in text]
        return found if len(found) == 6 and all("REPORT" in text for text in found) else None

    for text in wait_for(restored_streams, what="the log of six restored environments"):
        assert text == ["RESTORE_START", "restored", "RESTORE_REPORT", "START", "END", "REPORT"]


def test_a_kernel_that_gives_functions_no_view_is_named_in_a_notice(tmp_path):
    housing, told = Housing(), []
    housing.tell = told.append
    housing.pin(tmp_path, os.getpid(), ready=False)
    assert told == []
    housing.pin(tmp_path, os.getpid(), ready=True)
    assert told == [NO_VIEW] and housing.mounts(tmp_path) is None

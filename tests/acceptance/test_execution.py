"""Functions in real processes: what AWS answers for good and bad handlers, streams, logs."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from preheat.execution.contract import StreamFailed, StreamStart, Throttled
from preheat.execution.flow import Bandwidth
from preheat.execution.pool import PoolLimits
from preheat.execution.runtime_api import MAX_RESPONSE_BYTES
from tests.support.execution_driver import ExecutionDriver, alive, error_of

ARN = "arn:aws:lambda:us-east-1:000000000000:function:f"


# -- the good ones ------------------------------------------------------------------------------------------------


def test_an_event_goes_in_and_an_answer_comes_out(driver, make):
    spec = make(
        """
        def handler(event, context):
            return {"got": event, "id": context.aws_request_id, "name": context.function_name,
                    "arn": context.invoked_function_arn, "memory": context.memory_limit_in_mb,
                    "left": context.get_remaining_time_in_millis(), "version": context.function_version}
        """
    )
    outcome = driver.invoke(spec, b'{"a": [1, null]}', request_id="r-1", invoked_arn=ARN + ":live")
    answer = json.loads(outcome.payload)
    assert outcome.error is None and outcome.content_type == "application/json"
    left = answer.pop("left")
    assert 5_000 < left <= 10_000
    assert answer == {
        "got": {"a": [1, None]}, "id": "r-1", "name": "f", "arn": ARN + ":live", "memory": "256", "version": "$LATEST",
    }  # fmt: skip


def test_answers_are_encoded_as_aws_encodes_them(driver, make):
    spec = make(
        """
        from decimal import Decimal
        def handler(event, context):
            return {"none": None, "decimal": Decimal("1.10"), "bytes": b"\\x00\\xff", "text": "\\u00fc",
                    "set": {1}}[event]
        """
    )
    assert driver.invoke(spec, b'"none"').payload == b"null"
    assert driver.invoke(spec, b'"decimal"').payload == b"1.10"
    assert driver.invoke(spec, b'"text"').payload == b'"\\u00fc"'
    assert driver.invoke(replace(spec, runtime="python3.12", revision="2"), b'"text"').payload == '"ü"'.encode()
    raw = driver.invoke(spec, b'"bytes"')
    assert (raw.payload, raw.content_type) == (b"\x00\xff", "application/unknown")
    assert error_of(driver.invoke(spec, b'"set"')) == (
        "Runtime.MarshalError", "Unable to marshal response: Object of type set is not JSON serializable",
    )  # fmt: skip


def test_an_environment_is_reused_and_keeps_its_tmp(driver, make):
    spec = make(
        """
        import os, tempfile
        count = 0
        def handler(event, context):
            global count
            count += 1
            path = os.path.join(tempfile.gettempdir(), "kept")
            with open(path, "a") as file:
                file.write("x")
            return [count, os.path.getsize(path), os.getpid()]
        """
    )
    first, second = driver.invoke(spec), driver.invoke(spec)
    one, two = json.loads(first.payload), json.loads(second.payload)
    assert one[:2] == [1, 1] and two[:2] == [2, 2] and one[2] == two[2]
    assert first.init_ms is not None and second.init_ms is None
    assert first.billed_ms >= first.duration_ms + first.init_ms
    assert driver.pool.usage().idle == 1


def task_root(spec, env) -> str:
    """AWS's directory, or the real one where the kernel allows no view of its own."""
    return "/var/task" if env["LAMBDA_TASK_ROOT"] == "/var/task" else str(spec.code)


def test_the_environment_variables_are_those_of_aws(driver, make):
    spec = make(
        """
        import os, sys
        def handler(event, context):
            return {"env": dict(os.environ), "cwd": os.getcwd(), "path": sys.path}
        """,
        environment=(("MINE", "yes"), ("AWS_REGION", "mars-1")),
        region="eu-west-1",
    )
    answer = json.loads(driver.invoke(spec, trace_id="Root=1-2-3;Parent=4;Sampled=0").payload)
    env = answer["env"]
    task = task_root(spec, env)
    expected = {
        "MINE": "yes", "AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-1", "_HANDLER": "app.handler",
        "AWS_LAMBDA_FUNCTION_NAME": "f", "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST", "TZ": ":UTC",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256", "AWS_EXECUTION_ENV": "AWS_Lambda_python3.11",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/f", "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:4566", "AWS_ACCESS_KEY_ID": "test", "LAMBDA_TASK_ROOT": task,
        "_X_AMZN_TRACE_ID": "Root=1-2-3;Parent=4;Sampled=0",
    }  # fmt: skip
    assert {name: env.get(name) for name in expected} == expected
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", env["AWS_LAMBDA_LOG_STREAM_NAME"])
    assert answer["cwd"] == task and answer["path"][0] == task
    assert "TMPDIR" not in env if task == "/var/task" else Path(env["TMPDIR"]).is_dir()


def test_layers_are_found_and_later_ones_win(driver, make, tmp_path):
    for name in ("one", "two"):
        folder = tmp_path / name / "python"
        folder.mkdir(parents=True)
        (folder / "shared_thing.py").write_text(f"NAME = {name!r}\n")
    spec = make(
        "import shared_thing\ndef handler(event, context):\n    return shared_thing.NAME\n",
        layers=(tmp_path / "one", tmp_path / "two"),
    )
    assert driver.invoke(spec).payload == b'"two"'


def test_a_function_cannot_import_preheat_but_may_have_its_own(driver, make):
    spec = make("def handler(event, context):\n    import preheat\n    return preheat.WHO\n")
    assert error_of(driver.invoke(spec)) == ("ModuleNotFoundError", "No module named 'preheat'")
    (spec.code / "preheat.py").write_text("WHO = 'mine'\n")
    assert driver.invoke(replace(spec, revision="2")).payload == b'"mine"'


def test_a_function_own_copy_of_a_preloaded_package_wins(driver, make):
    spec = make("import boto3\ndef handler(event, context):\n    return boto3.WHO\n")
    (spec.code / "boto3.py").write_text("WHO = 'bundled'\n")
    assert driver.invoke(spec).payload == b'"bundled"'


def test_a_hundred_cold_environments_at_once(driver, make):
    spec = make("import os, time\ndef handler(event, context):\n    time.sleep(0.3)\n    return os.getpid()\n")
    running = [driver.start(spec) for _ in range(100)]
    driver.until(lambda: all(running))
    outcomes = [outcomes[0] for outcomes in running]
    assert [outcome.error for outcome in outcomes] == [None] * 100
    assert len({outcome.payload for outcome in outcomes}) > 50


def test_a_large_event_and_a_large_answer_pass(driver, make):
    spec = make("def handler(event, context):\n    return event * 2\n")
    event = json.dumps("x" * 3_000_000).encode()
    assert len(driver.invoke(spec, event).payload) == 6_000_002


def test_boto3_and_numpy_are_there_and_talk_to_the_endpoint(driver, make):
    spec = make(
        """
        import boto3, numpy
        s3 = boto3.client("s3")
        def handler(event, context):
            return [s3.meta.endpoint_url, s3.meta.region_name, float(numpy.ones(3).sum()), numpy.random.rand()]
        """
    )
    first = json.loads(driver.invoke(spec).payload)
    assert first[:3] == ["http://127.0.0.1:4566", "us-east-1", 3.0]
    assert json.loads(driver.invoke(replace(spec, revision="2")).payload)[3] != first[3]


# -- the bad ones -------------------------------------------------------------------------------------------------


def test_an_exception_has_awss_document_and_is_logged(driver, make):
    spec = make("def helper():\n    raise KeyError('k')\ndef handler(event, context):\n    helper()\n")
    outcome = driver.invoke(spec, request_id="r-9")
    document = json.loads(outcome.payload)
    place = document["stackTrace"][0].split('"')[1].removesuffix("/app.py")
    assert place in ("/var/task", str(spec.code))
    assert outcome.error == "KeyError"
    assert list(document) == ["errorMessage", "errorType", "requestId", "stackTrace"]
    assert document["errorMessage"] == "'k'" and document["requestId"] == "r-9"
    assert document["stackTrace"] == [
        f'  File "{place}/app.py", line 4, in handler\n    helper()\n',
        f'  File "{place}/app.py", line 2, in helper\n    raise KeyError(\'k\')\n',
    ]
    logged = next(message for message in driver.messages() if message.startswith("[ERROR]"))
    assert logged.startswith("[ERROR] KeyError: 'k'\nTraceback (most recent call last):\n\xa0\xa0File ")
    assert driver.pool.usage().idle == 1


def test_a_timeout_kills_and_resets_the_environment(driver, make):
    spec = make(
        """
        import os, tempfile, time
        def handler(event, context):
            if event == "sleep":
                print("before")
                time.sleep(60)
            path = os.path.join(tempfile.gettempdir(), "kept")
            known = os.path.exists(path)
            open(path, "w").close()
            return [os.getpid(), known]
        """,
        timeout_s=1.0,
    )
    first = json.loads(driver.invoke(spec).payload)
    outcome = driver.invoke(spec, b'"sleep"', request_id="r-2", tail=True)
    assert error_of(outcome) == ("Sandbox.Timedout", "RequestId: r-2 Error: Task timed out after 1.00 seconds")
    tail = outcome.log_tail.decode()
    assert "before\n" in tail and "\tStatus: timeout\t" in tail
    assert "Duration: 1000.00 ms\tBilled Duration: 1000 ms" in tail
    again = driver.invoke(spec)
    after = json.loads(again.payload)
    assert again.error is None and again.init_ms is None
    assert after[0] != first[0] and after[1] is True
    assert len(driver.pool.environments()) == 1 and not alive(first[0])


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("os._exit(3)", "Runtime exited with error: exit status 3"),
        ("os._exit(0)", "Runtime exited without providing a reason"),
        ("sys.exit(7)", "Runtime exited with error: exit status 7"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "Runtime exited with error: signal: segmentation fault"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "Runtime exited with error: signal: killed"),
    ],
)
def test_a_process_that_ends_is_an_exit_error(driver, make, statement, message):
    spec = make(
        f"import os, signal, sys\ndef handler(event, context):\n    if event == 1:\n        {statement}\n"
        "    return 'alive'\n"
    )
    outcome = driver.invoke(spec, b"1", request_id="r-3")
    assert error_of(outcome) == ("Runtime.ExitError", f"RequestId: r-3 Error: {message}")
    report = next(line for line in driver.messages() if line.startswith("REPORT"))
    assert "\tStatus: error\tError Type: Runtime.ExitError\t" in report
    assert driver.invoke(spec, b"2").payload == b'"alive"'


def test_a_memory_hog_is_killed(driver, make):
    spec = make(
        """
        import time
        def handler(event, context):
            hog = []
            while True:
                hog.append(bytearray(b"x") * 1_000_000)
                time.sleep(0.001)
        """,
        memory_mb=128,
    )
    outcome = driver.invoke(spec, request_id="r-4", tail=True)
    assert error_of(outcome) == ("Runtime.ExitError", "RequestId: r-4 Error: Runtime exited with error: signal: killed")
    assert outcome.max_memory_mb == 128
    assert b"Max Memory Used: 128 MB" in outcome.log_tail and b"Error Type: Runtime.OutOfMemory" in outcome.log_tail


def test_an_answer_that_is_too_large(driver, make):
    spec = make("def handler(event, context):\n    return 'x' * event\n")
    outcome = driver.invoke(spec, str(MAX_RESPONSE_BYTES).encode())
    assert error_of(outcome) == (
        "Function.ResponseSizeTooLarge",
        "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
    )
    assert driver.invoke(spec, str(MAX_RESPONSE_BYTES - 2).encode()).error is None
    assert len(driver.pool.environments()) == 1


@pytest.mark.parametrize(
    ("source", "handler", "error_type", "message"),
    [
        ("import nowhere_to_be_found", "app.handler", "Runtime.ImportModuleError",
         "Unable to import module 'app': No module named 'nowhere_to_be_found'"),
        ("x = 1", "app.handler", "Runtime.HandlerNotFound", "Handler 'handler' missing on module 'app'"),
        ("x = 1", "handler", "Runtime.MalformedHandlerName",
         "Bad handler 'handler': not enough values to unpack (expected 2, got 1)"),
        ("x = 1", "sys.handler", "Runtime.BuiltInModuleConflict", "Cannot use built-in module sys as a handler module"),
        ("def (", "app.handler", "Runtime.UserCodeSyntaxError",
         "Syntax error in module 'app': invalid syntax (app.py, line 1)"),
        ("1 / 0", "app.handler", "ZeroDivisionError", "division by zero"),
    ],
)  # fmt: skip
def test_errors_of_initialisation(driver, make, source, handler, error_type, message):
    spec = make(source + "\n", handler=handler)
    outcome = driver.invoke(spec)
    assert error_of(outcome) == (error_type, message)
    assert json.loads(outcome.payload)["requestId"] == ""
    reports = [line for line in driver.messages() if line.startswith("INIT_REPORT")]
    assert [f"Phase: {phase}\tStatus: error\tError Type: {error_type}" in line for phase, line in
            zip(("init", "invoke"), reports, strict=True)] == [True, True]  # fmt: skip
    driver.until(lambda: not driver.pool.environments())


def test_initialisation_runs_outside_the_timeout_once(driver, make):
    spec = make(
        """
        import time
        time.sleep(0.5)
        def handler(event, context):
            return context.get_remaining_time_in_millis()
        """,
        timeout_s=0.4,
    )
    outcome = driver.invoke(spec)
    assert outcome.error is None and 300 < int(outcome.payload) <= 400
    assert outcome.init_ms is not None and outcome.init_ms >= 500.0


def test_reserved_concurrency_of_zero_stops_a_function(driver, make):
    spec = make("def handler(event, context):\n    return 1\n")
    driver.pool.set_reserved(spec.arn, 0)
    assert driver.start(spec) == Throttled("ReservedFunctionConcurrentInvocationLimitExceeded")
    driver.pool.set_reserved(spec.arn, None)
    assert driver.invoke(spec).payload == b"1"


def test_the_ceiling_makes_invocations_wait_and_says_so(tmp_path, make):
    driver = ExecutionDriver(tmp_path / "scratch", PoolLimits(max_environments=2))
    try:
        spec = make("import time\ndef handler(event, context):\n    time.sleep(0.05)\n    return event\n")
        other = make("def handler(event, context):\n    return 'other'\n", name="g")
        running = [driver.start(spec, str(n).encode()) for n in range(6)] + [driver.start(other)]
        assert driver.pool.usage().waiting == 5
        driver.until(lambda: all(running))
        assert [outcomes[0].payload for outcomes in running] == [b"0", b"1", b"2", b"3", b"4", b"5", b'"other"']
        assert len(driver.notices) == 1 and "max_environments" in driver.notices[0]
        assert driver.pool.usage().waiting == 0
    finally:
        driver.close()


# -- streams ------------------------------------------------------------------------------------------------------


class Received:
    def __init__(self) -> None:
        self.content_type = ""
        self.chunks: list[bytes] = []
        self.ended: list[BaseException | None] = []

    def begin(self, stream: StreamStart) -> None:
        self.content_type = stream.content_type
        stream.chunks.attach(self.chunks.append, self.ended.append)


def test_a_chunk_leaves_before_the_next_is_made(driver, make):
    spec = make(
        """
        import os, time
        def handler(event, context):
            yield {"statusCode": 201, "headers": {"x": "y"}, "cookies": ["a=b"]}
            yield "first"
            while not os.path.exists("gate"):
                time.sleep(0.002)
            yield b"second"
        """
    )
    received = Received()
    outcomes = driver.start(spec, on_stream=received.begin)
    driver.until(lambda: b"first" in b"".join(received.chunks))
    assert outcomes == [] and received.ended == []
    (spec.code / "gate").touch()
    driver.until(lambda: outcomes)
    assert received.content_type == "application/vnd.awslambda.http-integration-response"
    prelude, _, body = b"".join(received.chunks).partition(bytes(8))
    assert json.loads(prelude) == {"statusCode": 201, "headers": {"x": "y"}, "cookies": ["a=b"]}
    assert body == b"firstsecond" and received.ended == [None]
    assert outcomes[0].streamed and outcomes[0].payload == b"" and outcomes[0].error is None


def test_an_error_before_the_first_chunk_is_an_ordinary_error(driver, make):
    spec = make("def handler(event, context):\n    raise ValueError('early')\n    yield b'never'\n")
    received = Received()
    outcomes = driver.start(spec, on_stream=received.begin)
    driver.until(lambda: outcomes)
    assert error_of(outcomes[0]) == ("ValueError", "early")
    assert received.chunks == [] and received.ended == [] and not outcomes[0].streamed


def test_an_error_in_mid_stream_comes_in_the_trailers(driver, make):
    spec = make("def handler(event, context):\n    yield b'some'\n    raise ValueError('late')\n")
    received = Received()
    outcomes = driver.start(spec, on_stream=received.begin)
    driver.until(lambda: outcomes)
    assert received.chunks == [b"some"]
    failure = received.ended[0]
    assert isinstance(failure, StreamFailed) and failure.error_type == "ValueError"
    assert json.loads(failure.error_body)["errorMessage"] == "late"
    assert outcomes[0].error == "ValueError" and outcomes[0].streamed
    assert driver.invoke(make("def handler(event, context):\n    return 1\n", name="g")).payload == b"1"


def test_a_stream_cut_off_by_the_timeout_fails(driver, make):
    spec = make("import time\ndef handler(event, context):\n    yield b'some'\n    time.sleep(60)\n", timeout_s=0.5)
    received = Received()
    outcomes = driver.start(spec, on_stream=received.begin)
    driver.until(lambda: outcomes)
    assert outcomes[0].error == "Sandbox.Timedout"
    assert received.chunks == [b"some"] and received.ended[0].error_type == "Sandbox.Timedout"


def test_a_streamed_answer_is_held_to_the_bandwidth_that_is_set(tmp_path, make):
    limits = PoolLimits(bandwidth=Bandwidth(free_bytes=200_000, per_second=1_000_000))
    driver = ExecutionDriver(tmp_path / "scratch", limits=limits)
    try:
        spec = make("def handler(event, context):\n    return (bytes(50_000) for _ in range(14))\n")
        driver.invoke(spec)
        received = Received()
        began = driver.clock.monotonic()
        outcomes = driver.start(spec, on_stream=received.begin)
        driver.until(lambda: outcomes)
        assert driver.clock.monotonic() - began >= 0.4
        assert sum(map(len, received.chunks)) == 700_000 and outcomes[0].error is None
    finally:
        driver.close()


def test_streams_are_buffered_for_callers_that_do_not_stream(driver, make):
    spec = make(
        """
        async def produce(event):
            for n in range(event):
                yield str(n)
        def handler(event, context):
            return produce(event)
        """
    )
    outcome = driver.invoke(spec, b"4")
    assert (outcome.payload, outcome.content_type, outcome.streamed) == (b"0123", "application/octet-stream", False)


# -- logs ---------------------------------------------------------------------------------------------------------


def test_the_log_of_an_invocation_is_complete_and_in_order(driver, make):
    spec = make(
        """
        import logging, os, subprocess, sys
        logger = logging.getLogger()
        def handler(event, context):
            print("out")
            print("err", file=sys.stderr)
            logger.warning("two\\nlines")
            logger.info("too low")
            subprocess.run(["echo", "child"])
            sys.stdout.write("unfinished")
        """
    )
    outcome = driver.invoke(spec, request_id="r-5", tail=True)
    messages = driver.messages()
    assert messages[0].startswith("INIT_START Runtime Version: python:3.11")
    assert messages[1:4] == ["START RequestId: r-5 Version: $LATEST", "out", "err"]
    assert re.fullmatch(r"\[WARNING\]\t\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\tr-5\ttwo\nlines", messages[4])
    assert messages[5:8] == ["child", "unfinished", "END RequestId: r-5"]
    assert re.fullmatch(
        r"REPORT RequestId: r-5\tDuration: \d+\.\d\d ms\tBilled Duration: \d+ ms\tMemory Size: 256 MB\t"
        r"Max Memory Used: \d+ MB\tInit Duration: \d+\.\d\d ms\t",
        messages[8],
    )
    assert len(messages) == 9
    assert outcome.log_tail.startswith(b"START RequestId: r-5")
    assert outcome.log_tail.endswith(messages[8].encode() + b"\n")
    assert {line.log_group for line in driver.lines} == {"/aws/lambda/f"}
    assert len({line.log_stream for line in driver.lines}) == 1


def test_the_tail_is_the_last_four_kilobytes(driver, make):
    spec = make("def handler(event, context):\n    for n in range(2000):\n        print('line', n)\n")
    outcome = driver.invoke(spec, tail=True)
    assert len(outcome.log_tail) == 4096 and b"line 1999\nEND RequestId" in outcome.log_tail
    assert sum(message.startswith("line ") for message in driver.messages()) == 2000

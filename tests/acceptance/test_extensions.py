"""Extensions in real processes, from real layers."""

import io
import json
import os
import re
import socket
import zipfile
from dataclasses import replace

import pytest
import uvloop

from tests.support.clients import have, node_runtime
from tests.support.execution_driver import ExecutionDriver, error_of
from tests.support.extension_layers import PYTHON, SHELL, WATCH
from tests.support.functions import ROLE, make_zip
from tests.support.server import free_port, wait_for

ARN = "arn:aws:lambda:us-east-1:000000000000:function:f"
TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
ECHO = """
def handler(event, context):
    print("handled", event)
    return event
"""


def position(driver, start):
    """Of the first line that begins so."""
    return next(index for index, message in enumerate(driver.messages()) if message.startswith(start))


def said(driver, start):
    return any(message.startswith(start) for message in driver.messages())


def at_rest(driver):
    """Until the invocation and its extensions are done."""
    driver.until(lambda: driver.pool.usage().running == 0 and driver.pool.usage().starting == 0)


def end(driver, spec):
    at_rest(driver)
    driver.pool.retire(spec.arn)
    driver.until(lambda: not driver.pool.environments())


# -- the life of an environment with extensions -----------------------------------------------------------------------


def test_two_extensions_of_two_layers_live_through_init_invoke_and_shutdown(driver, make, layer):
    spec = make(
        """
        import os
        print("function initialises", sorted(os.listdir("/opt/extensions")) if os.path.isdir("/opt/extensions") else "")
        def handler(event, context):
            return os.environ["AWS_LAMBDA_RUNTIME_API"]
        """,
        layers=(layer(watch=WATCH), layer(shell=SHELL)),
    )
    address = json.loads(driver.invoke(spec, request_id="r-1", invoked_arn=ARN + ":live", trace_id=TRACE).payload)
    assert re.fullmatch(r"127\.0\.0\.1:\d+", address)
    at_rest(driver)
    driver.invoke(spec, request_id="r-2")
    end(driver, spec)
    messages = driver.messages()
    assert position(driver, "watch registered") < position(driver, "function initialises")
    assert messages.count("EXTENSION\tName: watch\tState: Ready\tEvents: [INVOKE,SHUTDOWN]") == 1
    assert messages.count("EXTENSION\tName: shell\tState: Ready\tEvents: [INVOKE]") == 1
    assert position(driver, "function initialises") < position(driver, "EXTENSION") < position(driver, "START ")
    assert f"watch INVOKE r-1 {ARN}:live {TRACE}" in messages
    assert f"watch INVOKE r-2 {ARN} " in messages
    seen = [json.loads(message.removeprefix("shell saw ")) for message in messages if message.startswith("shell saw")]
    assert [event["requestId"] for event in seen] == ["r-1", "r-2"]
    assert seen[0]["eventType"] == "INVOKE" and seen[0]["invokedFunctionArn"] == ARN + ":live"
    assert messages[-1] == "watch SHUTDOWN spindown in time"
    assert len({line.log_stream for line in driver.lines}) == 1


def test_an_extension_lives_where_its_function_lives(driver, make, layer):
    source = """
me = register("INVOKE")
say(json.dumps(dict(os.environ)), os.getcwd())
next_event()
say("tmp", sorted(os.listdir(os.environ.get("TMPDIR", "/tmp"))))
next_event()
"""
    spec = make(
        """
        import os, tempfile
        open(os.path.join(tempfile.gettempdir(), "mark"), "w").close()
        def handler(event, context):
            return dict(os.environ)
        """,
        layers=(layer(look=source),),
        environment=(("MINE", "yes"),),
    )
    own = json.loads(driver.invoke(spec).payload)
    at_rest(driver)
    said_of = next(message for message in driver.messages() if message.startswith("look {"))
    theirs, _ = json.JSONDecoder().raw_decode(said_of.removeprefix("look "))
    assert theirs["MINE"] == "yes" and theirs["AWS_LAMBDA_RUNTIME_API"] == own["AWS_LAMBDA_RUNTIME_API"]
    hidden = {name for name in own if name not in theirs}
    assert hidden >= {
        "AWS_EXECUTION_ENV", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_XRAY_DAEMON_ADDRESS",
        "AWS_XRAY_CONTEXT_MISSING", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR", "_HANDLER",
    }  # fmt: skip
    assert not {name for name in theirs if name not in own}
    assert "look tmp ['mark']" in driver.messages()


def test_the_answer_does_not_wait_for_extensions_but_the_environment_does(driver, make, layer, tmp_path):
    gate = free_port()
    slow = f"""
me = register("INVOKE")
next_event()
socket.create_connection(("127.0.0.1", {gate})).recv(1)
next_event()
"""
    with socket.create_server(("127.0.0.1", gate)) as server:
        server.setblocking(False)
        spec = make(ECHO, layers=(layer(slow=slow),))
        assert driver.invoke(spec, b"1").payload == b"1"
        assert driver.pool.usage().running == 1 and not said(driver, "REPORT")
        connections = []

        def accepted():
            try:
                connections.append(server.accept()[0])
            except BlockingIOError:
                return False
            return True

        driver.until(accepted)
        assert driver.pool.usage().running == 1
        connections[0].send(b"x")
        at_rest(driver)
        connections[0].close()
    assert said(driver, "REPORT")
    samples = [(series, sample) for (series, _), sample in driver.pool.meter.take().items()
               if series.name == "PostRuntimeExtensionsDuration"]  # fmt: skip
    assert {series.dimensions for series, _ in samples} == {(), (("FunctionName", "f"),)}
    assert all(series.unit == "Milliseconds" and sample.count == 1 and sample.total > 0 for series, sample in samples)


def test_functions_without_extensions_measure_nothing_of_them(driver, make):
    driver.invoke(make(ECHO))
    assert not [1 for series, _ in driver.pool.meter.take() if series.name == "PostRuntimeExtensionsDuration"]


# -- ends -------------------------------------------------------------------------------------------------------------


def test_an_extension_that_is_too_slow_uses_up_the_functions_timeout(driver, make, layer):
    slow = """
me = register("INVOKE", "SHUTDOWN")
next_event()
time.sleep(2.2)
say(next_event()["shutdownReason"])
"""
    spec = make(ECHO, layers=(layer(slow=slow),), timeout_s=2.0)
    assert driver.invoke(spec, b"1").payload == b"1"
    driver.until(lambda: said(driver, "REPORT"))
    driver.until(lambda: "slow timeout" in driver.messages())
    report = next(message for message in driver.messages() if message.startswith("REPORT"))
    assert "\tStatus: timeout" in report and "Duration: 2000.00 ms" in report
    assert driver.invoke(spec, b"2").payload == b"2"
    assert sum(message.startswith("EXTENSION") for message in driver.messages()) == 2


@pytest.mark.parametrize(
    ("body", "error", "reason"),
    [("import time; time.sleep(60)", "Sandbox.Timedout", "timeout"), ("os._exit(3)", "Runtime.ExitError", "failure")],
)
def test_the_reason_of_a_shutdown(driver, make, layer, body, error, reason):
    spec = make(
        f"""
        import os
        def handler(event, context):
            if event:
                {body}
        """,
        layers=(layer(watch=WATCH),),
        timeout_s=2.0,
    )
    driver.invoke(spec)
    at_rest(driver)
    outcome = driver.invoke(spec, b"1")
    assert error_of(outcome)[0] == error
    driver.until(lambda: f"watch SHUTDOWN {reason} in time" in driver.messages())
    assert driver.invoke(spec).error is None
    assert driver.messages().count("watch registered") == 2
    assert len(driver.pool.environments()) == 1


def test_an_extension_that_does_not_leave_is_killed_after_two_seconds(driver, make, layer):
    stays = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
me = register("INVOKE", "SHUTDOWN")
while True:
    if next_event()["eventType"] == "SHUTDOWN":
        say("pid", os.getpid())
        time.sleep(60)
"""
    spec = make(ECHO, layers=(layer(stays=stays),))
    driver.invoke(spec)
    begun = driver.clock.monotonic()
    end(driver, spec)
    assert 1.9 < driver.clock.monotonic() - begun < 20
    pid = int(next(message for message in driver.messages() if message.startswith("stays pid")).split()[2])
    assert not os.path.exists(f"/proc/{pid}")


def test_the_runtime_gets_a_moment_to_end_when_there_are_extensions(driver, make, layer):
    source = """
        import signal, sys
        def leave(number, frame):
            print("the runtime ends")
            sys.exit(0)
        signal.signal(signal.SIGTERM, leave)
        def handler(event, context):
            return 1
        """
    with_one, without = make(source, "f", layers=(layer(watch=WATCH),)), make(source, "g")
    for spec in (with_one, without):
        driver.invoke(spec)
        end(driver, spec)
    assert driver.messages().count("the runtime ends") == 1
    assert position(driver, "the runtime ends") < position(driver, "watch SHUTDOWN spindown")


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("say('hm'); sys.exit(3)", "Extension.Crash", "exit status 3"),
        ("me = register(); sys.exit(0)", "Extension.Crash", "exit code 0"),
        ("me = register(); os.kill(os.getpid(), 9)", "Extension.Crash", "signal: killed"),
        ("me = register(); report('init', 'My.Reason')", "Extension.InitError", "My.Reason"),
        ("me = register(); report('exit', 'My.Reason'); time.sleep(5)", "Extension.ExitError", "My.Reason"),
        ("#!/nowhere/interpreter", "Extension.LaunchError", "fork/exec /opt/extensions/bad: exec format error"),
    ],
)
def test_extensions_that_fail_initialisation(driver, make, layer, source, error, message):
    spec = make(ECHO, layers=(layer(bad=source),))
    found, text = error_of(driver.invoke(spec, request_id="r-1"))
    assert found == error and text.startswith("RequestId: r-1 Error: ") and message in text
    reports = [message for message in driver.messages() if message.startswith("INIT_REPORT")]
    assert [re.search(r"Phase: (\w+)", report)[1] for report in reports] == ["init", "invoke"]
    assert all(report.endswith(f"\tStatus: error\tError Type: {error}") for report in reports)
    assert said(driver, "EXTENSION\tName: bad\tState: ")
    assert not any("handled" in message for message in driver.messages())


def test_a_file_that_is_not_executable_fails_initialisation(driver, make, layer):
    spec = make(ECHO, layers=(layer(mode=0o644, bad=WATCH),))
    message = "RequestId: r-1 Error: fork/exec /opt/extensions/bad: permission denied"
    assert error_of(driver.invoke(spec, request_id="r-1")) == ("Extension.LaunchError", message)
    assert "EXTENSION\tName: bad\tState: LaunchError\tEvents: []\tError Type: PermissionDenied" in driver.messages()


def test_eleven_extensions_are_too_many(driver, make, layer):
    spec = make(ECHO, layers=(layer(**{f"e{number:02}": WATCH for number in range(11)}),))
    assert error_of(driver.invoke(spec))[0] == "Extension.LaunchError"
    assert "EXTENSION\tName: e10\tState: LaunchError\tEvents: []\tError Type: TooManyExtensions" in driver.messages()


@pytest.mark.parametrize(
    ("source", "error"),
    [("sys.exit(1)", "Extension.Crash"), ("report('exit', 'My.Reason'); time.sleep(60)", "Extension.ExitError")],
)
def test_an_extension_that_fails_in_an_invocation_fails_it(driver, make, layer, source, error):
    bad = f"""
me = register("INVOKE")
next_event()
{source}
"""
    spec = make("import time\ndef handler(event, context):\n    time.sleep(60)", layers=(layer(bad=bad),))
    outcome = driver.invoke(spec)
    assert error_of(outcome)[0] == error
    report = next(message for message in driver.messages() if message.startswith("REPORT"))
    assert report.rstrip("\t").endswith(f"Status: error\tError Type: {error}")
    assert error_of(driver.invoke(spec))[0] == error


def test_initialisation_is_limited_together(driver, make, layer):
    never = "me = register(); time.sleep(60)"
    spec = make(ECHO, layers=(layer(never=never),), timeout_s=0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("preheat.execution.environment.INIT_LIMIT_S", 0.5)
        assert error_of(driver.invoke(spec))[0] == "Sandbox.Timedout"
    first, second = (message for message in driver.messages() if message.startswith("INIT_REPORT"))
    assert first.endswith("\tPhase: init\tStatus: timeout") and second.endswith("\tPhase: invoke\tStatus: timeout")


# -- internal extensions ----------------------------------------------------------------------------------------------

INTERNAL = """
import json, os, threading, urllib.error, urllib.request
API = "http://" + os.environ["AWS_LAMBDA_RUNTIME_API"]

def call(path, method="GET", body=None, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(API + path, body, headers, method=method)) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()

def register(events, name="inner"):
    return call("/2020-01-01/extension/register", "POST", json.dumps({"events": events}).encode(),
                Lambda_Extension_Name=name)
"""


def test_an_internal_extension_needs_no_layer(driver, make):
    spec = make(
        INTERNAL
        + """
refused = register(["SHUTDOWN"])[2].decode()
me = register(["INVOKE"])[1]["Lambda-Extension-Identifier"]
seen = []
def listen():
    while True:
        event = call("/2020-01-01/extension/event/next", Lambda_Extension_Identifier=me)[2]
        seen.append(json.loads(event)["requestId"])
        print("inner done")
threading.Thread(target=listen, daemon=True).start()
def handler(event, context):
    return [seen, json.loads(refused)["errorType"], register([], "late")[0]]
""",
        timeout_s=5.0,
    )
    driver.invoke(spec, request_id="r-1")
    at_rest(driver)
    seen, refused, late = json.loads(driver.invoke(spec, request_id="r-2").payload)
    assert seen[0] == "r-1" and refused == "Extension.InvalidEventType" and late == 403
    assert "EXTENSION\tName: inner\tState: Ready\tEvents: [INVOKE]" in driver.messages()
    end(driver, spec)


def test_the_runtime_api_answers_on_the_same_address(driver, make):
    spec = make(
        INTERNAL
        + """
def handler(event, context):
    return [(status, body.decode()) for status, _, body in (
        call("/ping"), call("/2018-06-01/runtime/invocation/next"), call("/2020-01-01/extension/nothing"),
        call("/2018-06-01/runtime/invocation/x/response", "POST", b"1"), call("/2018-06-01/runtime/restore/next"),
    )]
"""
    )
    ping, following, nothing, answer, restore = json.loads(driver.invoke(spec).payload)
    assert ping == [200, "pong"]
    assert following[0] == 403 and json.loads(following[1])["errorType"] == "InvalidStateTransition"
    assert nothing[0] == 404 and restore[0] == 404
    assert answer[0] == 400 and json.loads(answer[1])["errorType"] == "InvalidRequestID"


# -- SnapStart, provided runtimes, wrappers ---------------------------------------------------------------------------


def test_extensions_around_a_restored_environment(driver, make, layer):
    spec = replace(
        make(
            "import os\nprint('initialises')\ndef handler(event, context):\n    return 1", layers=(layer(watch=WATCH),)
        ),
        version="1",
        snap_start=True,
    )
    prepared = []
    driver.pool.prepare(spec, prepared.append)
    driver.until(lambda: prepared)
    assert prepared[0].error_type is None
    outcome = driver.invoke(spec, request_id="r-1")
    assert outcome.payload == b"1" and outcome.restore_ms is not None
    end(driver, spec)
    assert driver.messages().count("initialises") == 1
    assert f"watch INVOKE r-1 {ARN} " in driver.messages()
    assert driver.messages()[-1] == "watch SHUTDOWN spindown in time"


BOOTSTRAP = """#!/bin/sh
api="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation"
while true; do
    head=$(curl -s -D - -o /tmp/event "$api/next") || exit 1
    id=$(echo "$head" | tr -d '\\r' | sed -n 's/^[Ll]ambda-[Rr]untime-[Aa]ws-[Rr]equest-[Ii]d: //p')
    trace=$(echo "$head" | tr -d '\\r' | sed -n 's/^[Ll]ambda-[Rr]untime-[Tt]race-[Ii]d: //p')
    curl -s -o /dev/null -X POST -d "\\"$WRAPPED $trace\\"" "$api/$id/response"
done
"""


def test_a_provided_runtime_has_extensions_and_no_wrapper(driver, make, layer):
    spec = make(
        "", runtime="provided.al2023", layers=(layer(watch=WATCH),),
        environment=(("AWS_LAMBDA_EXEC_WRAPPER", "/var/task/wrap"), ("WRAPPED", "no")),
    )  # fmt: skip
    for name, text in (("bootstrap", BOOTSTRAP), ("wrap", '#!/bin/sh\nexport WRAPPED=yes\nexec "$@"\n')):
        (spec.code / name).write_text(text)
        (spec.code / name).chmod(0o755)
    assert json.loads(driver.invoke(spec, trace_id=TRACE).payload) == f"no {TRACE}"
    end(driver, spec)
    assert driver.messages()[-1] == "watch SHUTDOWN spindown in time"


def test_a_wrapper_starts_a_python_runtime(driver, make, layer):
    spec = make(
        """
        import os
        def handler(event, context):
            return [os.environ.get("WRAPPED"), os.environ["_X_AMZN_TRACE_ID"]]
        """,
        layers=(layer(watch=WATCH),),
        environment=(("AWS_LAMBDA_EXEC_WRAPPER", "/var/task/wrap"),),
    )
    (spec.code / "wrap").write_text('#!/bin/sh\nexport WRAPPED=yes\nexec "$@"\n')
    (spec.code / "wrap").chmod(0o755)
    assert json.loads(driver.invoke(spec, trace_id=TRACE).payload) == ["yes", TRACE]
    end(driver, spec)
    assert driver.messages()[-1] == "watch SHUTDOWN spindown in time"


def test_a_node_function_has_a_wrapper_and_extensions(make, layer, tmp_path):
    tools = have(node_runtime)
    driver = ExecutionDriver(tmp_path / "node-scratch", loop=uvloop.new_event_loop(), tools=tools)
    try:
        spec = make(
            "", runtime="nodejs22.x", handler="index.handler", layers=(layer(watch=WATCH),),
            environment=(("AWS_LAMBDA_EXEC_WRAPPER", "/var/task/wrap"),),
        )  # fmt: skip
        text = "exports.handler = async () => [process.env.WRAPPED, process.env._X_AMZN_TRACE_ID];"
        (spec.code / "index.js").write_text(text)
        (spec.code / "wrap").write_text('#!/bin/sh\nexport WRAPPED=yes\nexec "$@"\n')
        (spec.code / "wrap").chmod(0o755)
        assert json.loads(driver.invoke(spec, trace_id=TRACE).payload) == ["yes", TRACE]
        end(driver, spec)
        assert driver.messages()[-1] == "watch SHUTDOWN spindown in time"
    finally:
        driver.close()


# -- through the public API -------------------------------------------------------------------------------------------


def layer_zip(**programs):
    """A layer's zip whose programs are executable."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, source in programs.items():
            entry = zipfile.ZipInfo(f"extensions/{name}", (2024, 1, 1, 0, 0, 0))
            entry.external_attr = 0o100755 << 16
            archive.writestr(entry, PYTHON + source)
    return buffer.getvalue()


def send_trace(request, **arguments):
    request.headers["X-Amzn-Trace-Id"] = TRACE


def test_a_published_layer_and_a_trace_header_through_the_api(aws):
    client, logs = aws.client("lambda"), aws.client("logs")
    published = client.publish_layer_version(LayerName="watch", Content={"ZipFile": layer_zip(watch=WATCH)})
    source = "import os\ndef handler(event, context):\n    return os.environ.get('_X_AMZN_TRACE_ID')\n"
    client.create_function(
        FunctionName="watched", Runtime="python3.11", Handler="app.handler", Role=ROLE, Timeout=10,
        Code={"ZipFile": make_zip({"app.py": source})}, Layers=[published["LayerVersionArn"]],
    )  # fmt: skip
    client.get_waiter("function_active_v2").wait(FunctionName="watched", WaiterConfig={"Delay": 1})
    client.meta.events.register("before-sign.lambda.Invoke", send_trace)
    answer = client.invoke(FunctionName="watched", Payload=b"{}")
    trace = json.loads(answer["Payload"].read())
    assert "FunctionError" not in answer and trace.startswith("Root=1-5759e988-bd862e3fe1be46a994272793;")
    client.invoke(FunctionName="watched", InvocationType="Event", Payload=b"{}")

    def seen(text):
        events = logs.filter_log_events(logGroupName="/aws/lambda/watched")["events"]
        return [event["message"] for event in events if event["message"].startswith(text)]

    wait_for(lambda: len(seen("watch INVOKE")) == 2)
    assert all(" Root=1-5759e988-bd862e3fe1be46a994272793;" in message for message in seen("watch INVOKE"))
    client.delete_function(FunctionName="watched")
    wait_for(lambda: seen("watch SHUTDOWN spindown in time"))

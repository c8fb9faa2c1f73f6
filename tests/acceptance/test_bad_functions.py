"""Functions that misbehave, at the API: what Invoke answers, and that neither the next invocation, nor another
function, nor the server is the worse for it. What happens inside the pool stands in test_execution_bad.py."""

import base64
import re

import pytest
from botocore.exceptions import ClientError

from tests.support.functions import make_zip
from tests.support.lab import Lab
from tests.support.server import LiveServer, wait_for

GOOD = "def handler(event, context):\n    return {'good': event}\n"
BAD = """
import json, os, signal, subprocess, sys, time
kept = []

def handler(event, context):
    what = event.get("what")
    if what == "set":
        return {"a": {1, 2}}
    if what == "bytes":
        return b"raw"
    if what == "close":
        print("before", flush=True)
        sys.stdout.close()
        os.close(2)
        return "still here"
    if what == "fork":
        return [subprocess.Popen(["sleep", "600"]).pid for _ in range(10)]
    if what == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    if what == "hog":
        while True:
            kept.append(bytearray(b"x" * (8 * 1024 * 1024)))
    if what == "chatter":
        line = "x" * 1023
        for _ in range(100 * 1024):
            print(line)
        return "said"
    if what == "size":
        return "x" * event["size"]
    if what == "exit":
        sys.exit(3)
    if what == "abort":
        os.abort()
    return os.getpid()
"""
MIB = 1024 * 1024
SERVER_MB = 350
"""More than the server may ever hold here; 100 MB of output and answers of 7 MB pass through it."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of its own: its memory is measured."""
    server = LiveServer(tmp_path_factory.mktemp("bad") / "state").start()
    yield server
    assert server.stop() == 0
    assert "defect in" not in server.log.read_text(), server.log.read_text()[-4000:]


@pytest.fixture(scope="module")
def neighbour(server):
    lab = Lab(server, "neighbour")
    lab.function(GOOD)
    return lab


@pytest.fixture
def lab(server, neighbour, request):
    lab = Lab.of(server, request)
    yield lab
    assert neighbour.ask("neighbour", {"n": 1}) == {"good": {"n": 1}}
    assert peak_mb(server) < SERVER_MB


def peak_mb(server):
    """The most memory that the server has held."""
    with open(f"/proc/{server.process.pid}/status") as file:
        return int(re.search(r"VmHWM:\s+(\d+) kB", file.read())[1]) // 1024


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def report(lab, name, count):
    """The count-th REPORT line of a function."""
    return wait_for(
        lambda: (found := lab.lines(name, "REPORT ")) and len(found) >= count and found[count - 1], what="the report"
    )


@pytest.mark.parametrize(
    ("source", "handler", "kind", "message"),
    [
        ("x = 1\n", "index.missing", "Runtime.HandlerNotFound", "Handler 'missing' missing on module 'index'"),
        ("def handler(:\n", "index.handler", "Runtime.UserCodeSyntaxError", "Syntax error in module 'index': "),
        ("import nothing_here\n", "index.handler", "Runtime.ImportModuleError",
         "Unable to import module 'index': No module named 'nothing_here'"),
        ("", "nowhere.handler", "Runtime.ImportModuleError",
         "Unable to import module 'nowhere': No module named 'nowhere'"),
        ("handler = print\n", "handler", "Runtime.MalformedHandlerName", "Bad handler 'handler'"),
        ("raise ValueError('at import')\n", "index.handler", "ValueError", "at import"),
        ("import sys\nsys.exit(4)\n", "index.handler", "Runtime.ExitError",
         "Error: Runtime exited with error: exit status 4"),
    ],
    ids=["handler", "syntax", "import", "module", "name", "raises", "exits"],
)  # fmt: skip
def test_a_function_that_does_not_initialise_answers_why_and_can_be_mended(lab, source, handler, kind, message):
    name = lab.function(source, Handler=handler)
    for _ in range(2):
        answer, response = lab.invoke(name, LogType="Tail")
        assert (response["StatusCode"], response["FunctionError"]) == (200, "Unhandled")
        assert answer["errorType"] == kind and message in answer["errorMessage"], answer
        assert response["ExecutedVersion"] == "$LATEST"
        assert "REPORT RequestId: " in base64.b64decode(response["LogResult"]).decode()
    lab.functions.update_function_code(FunctionName=name, ZipFile=make_zip({"index.py": GOOD}))
    lab.functions.update_function_configuration(FunctionName=name, Handler="index.handler")
    assert lab.ask(name, {"n": 2}) == {"good": {"n": 2}}


def test_answers_that_are_no_json_or_too_large(lab):
    name = lab.function(BAD)
    pid = lab.ask(name)
    answer = lab.fails(name, {"what": "set"})
    assert answer["errorType"] == "Runtime.MarshalError"
    assert answer["errorMessage"] == "Unable to marshal response: Object of type set is not JSON serializable"
    response = lab.functions.invoke(FunctionName=name, Payload=b'{"what": "bytes"}')
    assert "FunctionError" not in response and response["Payload"].read() == b"raw"
    assert lab.ask(name) == pid
    assert len(lab.ask(name, {"what": "size", "size": 5 * MIB})) == 5 * MIB
    answer = lab.fails(name, {"what": "size", "size": 7 * MIB})
    assert answer == {
        "errorType": "Function.ResponseSizeTooLarge",
        "errorMessage": "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
    }
    assert isinstance(lab.ask(name), int)


def test_requests_that_are_no_json_or_too_large(lab):
    name = lab.function(GOOD)
    with pytest.raises(lab.functions.exceptions.InvalidRequestContentException):
        lab.functions.invoke(FunctionName=name, Payload=b"{no json")
    with pytest.raises(ClientError) as caught:
        lab.functions.invoke(FunctionName=name, Payload=b'"' + b"x" * (7 * MIB) + b'"')
    assert caught.value.response["Error"]["Code"] == "RequestTooLargeException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413
    assert lab.ask(name, {"n": 3}) == {"good": {"n": 3}}


def test_one_that_closes_its_output_still_answers(lab):
    name = lab.function(BAD)
    assert lab.ask(name, {"what": "close"}) == "still here"
    assert report(lab, name, 1) and lab.lines(name, "before")
    assert isinstance(lab.ask(name), int)


def test_what_it_forked_ends_with_it(lab):
    name = lab.function(BAD)
    children = lab.ask(name, {"what": "fork"})
    assert len(children) == 10 and isinstance(lab.ask(name), int)
    lab.functions.delete_function(FunctionName=name)
    with pytest.raises(lab.functions.exceptions.ResourceNotFoundException):
        lab.ask(name)
    wait_for(lambda: not any(alive(child) for child in children), what="the end of what it forked")


def test_one_that_ignores_sigterm_ends_at_its_timeout(lab):
    name = lab.function(BAD, Timeout=1)
    pid = lab.ask(name)
    answer, response = lab.invoke(name, {"what": "deaf"})
    assert response["FunctionError"] == "Unhandled"
    request = response["ResponseMetadata"]["RequestId"]
    assert answer["errorType"] == "Sandbox.Timedout"
    assert answer["errorMessage"].endswith("Task timed out after 1.00 seconds")
    assert f"RequestId: {request} " in answer["errorMessage"]
    wait_for(lambda: not alive(pid), what="the end of the deaf one")
    assert lab.ask(name) != pid


def test_one_that_allocates_without_end_is_killed(lab):
    name = lab.function(BAD, memory=128)
    pid = lab.ask(name)
    answer, response = lab.invoke(name, {"what": "hog"})
    assert response["FunctionError"] == "Unhandled"
    request = response["ResponseMetadata"]["RequestId"]
    assert answer == {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: {request} Error: Runtime exited with error: signal: killed",
    }
    line = report(lab, name, 2)
    assert "Memory Size: 128 MB\tMax Memory Used: 128 MB" in line and "Runtime.OutOfMemory" in line
    assert lab.ask(name) != pid


@pytest.mark.parametrize(("what", "ending"), [("exit", "exit status 3"), ("abort", "signal: aborted")])
def test_one_that_ends_its_process(lab, what, ending):
    name = lab.function(BAD)
    pid = lab.ask(name)
    answer = lab.fails(name, {"what": what})
    assert answer["errorType"] == "Runtime.ExitError" and ending in answer["errorMessage"], answer
    assert lab.ask(name) != pid


def test_a_hundred_megabytes_of_output_are_kept_and_the_tail_is_4_kb(lab, neighbour):
    name = lab.function(BAD, Timeout=120)
    before = peak_mb(lab.server)
    answer, response = lab.invoke(name, {"what": "chatter"}, LogType="Tail")
    assert answer == "said" and "FunctionError" not in response
    tail = base64.b64decode(response["LogResult"])
    assert len(tail) <= 4096 and b"REPORT RequestId" in tail and b"xxxx" in tail
    assert neighbour.ask("neighbour", {"n": 4}) == {"good": {"n": 4}}
    assert peak_mb(lab.server) - before < 150
    assert isinstance(lab.ask(name), int)
    group = {"logGroupName": f"/aws/lambda/{name}"}
    stream = wait_for(lambda: lab.logs.describe_log_streams(**group)["logStreams"], what="its log")[0]["logStreamName"]
    last = {**group, "logStreamName": stream, "limit": 10}
    assert wait_for(
        lambda: any(event["message"].startswith("REPORT") for event in lab.logs.get_log_events(**last)["events"]),
        what="the end of the log",
    )

"""Functions that misbehave: each is answered as AWS answers it, and the next invocation is none the worse."""

import json
import os
import re
import resource

import pytest

from preheat.execution.runtime_api import MAX_RESPONSE_BYTES
from preheat.execution.workers import groups
from preheat.execution.workers.housing import Choices
from tests.support.execution_driver import ExecutionDriver, FunctionMaker, alive, error_of

MIB = 1024 * 1024


@pytest.fixture
def driver(tmp_path):
    driver = ExecutionDriver(tmp_path / "scratch")
    yield driver
    driver.close()


@pytest.fixture
def make(tmp_path):
    return FunctionMaker(tmp_path)


@pytest.fixture(scope="module")
def grouped() -> bool:
    found = groups.find()
    if found is not None:
        found.close()
    return found is not None


def report_of(driver) -> str:
    return [message for message in driver.messages() if message.startswith("REPORT ")][-1]


def used_mb(driver) -> int:
    return int(re.search(r"Max Memory Used: (\d+) MB", report_of(driver))[1])


BAD = """
import json, os, signal, subprocess, sys, time
kept = []
def handler(event, context):
    what = event.get("what")
    if what == "set":
        return {1, 2}
    if what == "close":
        print("before", flush=True)
        os.close(1)
        os.close(2)
    if what == "fork":
        for _ in range(20):
            subprocess.Popen(["sleep", "600"])
    if what == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    if what == "hog":
        while True:
            kept.append(bytearray(16 * 1024 * 1024))
    if what == "litter":
        code = "x = bytearray(400 * 1024 * 1024)\\nimport time\\ntime.sleep(600)"
        subprocess.run([sys.executable, "-c", code])
    if what == "chatter":
        line = "x" * 1023
        for _ in range(event["lines"]):
            print(line)
    if what == "size":
        return "x" * event["size"]
    if what == "die":
        os._exit(7)
    if what == "threads":
        import threading
        stop = threading.Event()
        started = 0
        try:
            for _ in range(3000):
                threading.Thread(target=stop.wait, daemon=True).start()
                started += 1
        except RuntimeError:
            pass
        stop.set()
        return started
    if what == "files":
        held = []
        try:
            while True:
                held.append(open("/dev/null"))
        except OSError as error:
            return [len(held), error.errno]
    if what == "spin":
        begun = time.process_time()
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            pass
        return time.process_time() - begun
    return os.getpid()
"""


def ask(driver, spec, **event):
    return driver.invoke(spec, json.dumps(event).encode())


@pytest.mark.parametrize(
    ("source", "handler", "error_type", "message"),
    [
        ("x = 1\n", "app.missing", "Runtime.HandlerNotFound", "Handler 'missing' missing on module 'app'"),
        ("def handler(:\n", "app.handler", "Runtime.UserCodeSyntaxError", "Syntax error in module 'app': "),
        ("import nothing_here\n", "app.handler", "Runtime.ImportModuleError",
         "Unable to import module 'app': No module named 'nothing_here'"),
        ("", "nowhere.handler", "Runtime.ImportModuleError",
         "Unable to import module 'nowhere': No module named 'nowhere'"),
        ("raise ValueError('at import')\n", "app.handler", "ValueError", "at import"),
    ],
)  # fmt: skip
def test_a_function_that_does_not_initialise_says_why_every_time(driver, make, source, handler, error_type, message):
    spec = make(source, handler=handler)
    for _ in range(2):
        kind, text = error_of(driver.invoke(spec))
        assert kind == error_type and text.startswith(message)
    good = make("def handler(event, context):\n    return 1\n", name="good")
    assert driver.invoke(good).payload == b"1"


def test_an_answer_that_is_no_json_is_a_marshal_error_and_the_process_goes_on(driver, make):
    spec = make(BAD)
    before = ask(driver, spec).payload
    kind, text = error_of(ask(driver, spec, what="set"))
    assert kind == "Runtime.MarshalError"
    assert text == "Unable to marshal response: Object of type set is not JSON serializable"
    assert ask(driver, spec).payload == before


@pytest.mark.parametrize("runtime", ["python2.7", "java21", "ruby3.3", "dotnet8"])
def test_a_runtime_that_is_not_run_here_is_named(driver, make, runtime):
    kind, text = error_of(driver.invoke(make("", runtime=runtime)))
    assert kind == "Runtime.InvalidEntrypoint" and runtime in text


def test_a_handler_that_closes_its_output_still_answers(driver, make):
    spec = make(BAD)
    first = ask(driver, spec, what="close")
    assert first.error is None and "before" in driver.messages()
    assert ask(driver, spec).payload == first.payload


def test_what_it_forked_is_gone_with_the_environment(driver, make):
    spec = make(BAD)
    pid = int(ask(driver, spec, what="fork").payload)
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        children = [int(child) for child in file.read().split()]
    assert len(children) == 20 and all(alive(child) for child in children)
    driver.pool.retire(spec.arn)
    driver.until(lambda: not any(alive(child) for child in [pid, *children]))


def test_one_that_ignores_sigterm_is_killed_at_its_timeout(driver, make):
    spec = make(BAD, timeout_s=0.5)
    kind, text = error_of(ask(driver, spec, what="deaf"))
    assert kind == "Sandbox.Timedout" and text.endswith("Task timed out after 0.50 seconds")
    assert ask(driver, spec).error is None


def test_one_that_allocates_without_end_is_killed_as_aws_kills(driver, make):
    spec = make(BAD, memory_mb=256)
    kind, text = error_of(ask(driver, spec, what="hog"))
    assert kind == "Runtime.ExitError" and text.endswith("Error: Runtime exited with error: signal: killed")
    assert "Memory Size: 256 MB\tMax Memory Used: 256 MB" in report_of(driver)
    assert "Status: error\tError Type: Runtime.OutOfMemory" in report_of(driver)
    assert ask(driver, spec).error is None


def test_the_memory_of_what_it_started_counts(driver, make):
    spec = make(BAD, memory_mb=256)
    kind, text = error_of(ask(driver, spec, what="litter"))
    assert kind == "Runtime.ExitError" and text.endswith("signal: killed")
    assert used_mb(driver) == 256
    assert ask(driver, spec).error is None


def test_the_memory_of_one_that_dies_at_once_is_reported(driver, make):
    assert error_of(ask(driver, make(BAD), what="die"))[1].endswith("exit status 7")
    assert 0 < used_mb(driver) <= 256


def test_a_hundred_megabytes_of_output_are_kept_and_cost_the_server_little(driver, make):
    lines = 100 * 1024
    seen = [0, 0]

    def count(batch):
        seen[0] += sum(line.message.startswith("xxx") for line in batch)
        seen[1] = max(seen[1], sum(len(line.message) for line in batch))

    driver.pool._on_log = count
    spec = make(BAD, timeout_s=60.0)
    ask(driver, spec)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome = ask(driver, spec, what="chatter", lines=lines)
    assert outcome.error is None and seen[0] == lines
    assert seen[1] < 32 * MIB and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 96 * 1024
    assert ask(driver, spec).payload == outcome.payload


def test_an_answer_of_seven_megabytes_is_refused_with_awss_words(driver, make):
    spec = make(BAD)
    kind, text = error_of(ask(driver, spec, what="size", size=7 * MIB))
    assert kind == "Function.ResponseSizeTooLarge"
    assert text == f"Response payload size exceeded maximum allowed payload size ({MAX_RESPONSE_BYTES} bytes)."
    assert ask(driver, spec).error is None


def test_open_files_are_limited(driver, make):
    held, number = json.loads(ask(driver, make(BAD), what="files").payload)
    assert 1000 < held < 1024 and number == 24


def test_threads_are_limited_where_there_are_control_groups(driver, make, grouped):
    if not grouped:
        pytest.skip("no control groups are ours to make here")
    spec = make(BAD, memory_mb=512)
    pid = int(ask(driver, spec).payload)
    driver.until(lambda: grouped_now(pid))
    started = int(ask(driver, spec, what="threads").payload)
    assert 900 < started < 1024
    assert ask(driver, spec).error is None


def test_the_processor_share_follows_the_memory_size(tmp_path, make, grouped):
    if not grouped:
        pytest.skip("no control groups are ours to make here")
    used = {}
    for share in ("memory", "whole"):
        driver = ExecutionDriver(tmp_path / share, choices=Choices(cpu_share=share))
        try:
            spec = make(BAD, name=share, memory_mb=177)
            pid = int(ask(driver, spec).payload)
            driver.until(lambda: grouped_now(pid))  # noqa: B023
            used[share] = json.loads(ask(driver, spec, what="spin").payload)
            for _ in range(10 if share == "whole" else 0):
                if used[share] > 2 * used["memory"]:
                    break
                used[share] = max(used[share], json.loads(ask(driver, spec, what="spin").payload))
        finally:
            driver.close()
    assert used["memory"] < 0.3 and used["whole"] > 2 * used["memory"], "the best of eleven on a busy machine"


def grouped_now(pid: int) -> bool:
    """Whether the process has been moved into every group of its own."""
    with open(f"/proc/{pid}/cgroup") as file:
        text = file.read()
    return text.count("/preheat-") >= (3 if ":memory:/" in text else 1)


def test_no_group_is_left_behind(tmp_path, make, grouped):
    if not grouped:
        pytest.skip("no control groups are ours to make here")
    driver = ExecutionDriver(tmp_path / "scratch")
    spec = make(BAD)
    pid = int(ask(driver, spec).payload)
    driver.until(lambda: grouped_now(pid))
    with open(f"/proc/{pid}/cgroup") as file:
        paths = [line.strip().split(":", 2)[1:] for line in file if "/preheat-" in line]
    folders = [f"/sys/fs/cgroup/{name}{path}".rpartition("/")[0] for name, path in paths]
    assert folders and all(os.path.isdir(folder) for folder in folders)
    driver.close()
    assert not any(os.path.isdir(folder) for folder in folders)

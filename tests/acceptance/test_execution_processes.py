"""Functions in real processes: edits, other runtimes, and nothing left behind."""

import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.execution_driver import ExecutionDriver, FunctionMaker, alive, error_of

# -- code that changes --------------------------------------------------------------------------------------------


def test_an_edit_of_watched_code_runs_at_the_next_invocation(driver, make):
    spec = make("import helper\ndef handler(event, context):\n    return helper.VALUE\n", watch=True)
    helper = spec.code / "helper.py"
    for value in (1, 2, 3):
        helper.write_text(f"VALUE = {value}\n")
        driver.until(lambda: driver.clock.monotonic() >= driver.pool.looks_again_at(spec))
        assert driver.invoke(spec).payload == str(value).encode()
        assert driver.invoke(spec).init_ms is None
    driver.until(lambda: len(driver.pool.environments()) == 1)


def test_a_retired_function_leaves_nothing(driver, make):
    spec = make("import os, time\ndef handler(event, context):\n    time.sleep(event)\n    return os.getpid()\n")
    running = [driver.start(spec, b"0.3"), driver.start(spec, b"0")]
    driver.until(lambda: running[1])
    driver.pool.retire(spec.arn)
    driver.until(lambda: running[0])
    driver.until(lambda: not driver.pool.environments())
    assert not any(alive(int(outcomes[0].payload)) for outcomes in running)


def test_slash_tmp_is_private_where_nothing_of_the_function_lies_in_it():
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        directory = Path(name)
        driver = ExecutionDriver(directory / "scratch")
        try:
            source = (
                "import os, tempfile\ndef handler(event, context):\n    before = os.listdir('/tmp')\n"
                "    open('/tmp/preheat-' + event, 'w').close()\n    return [before, tempfile.gettempdir()]\n"
            )
            one, two = FunctionMaker(directory)(source), FunctionMaker(directory)(source, name="g")
            mark = directory.name
            events = [(one, f"a{mark}"), (two, f"b{mark}"), (one, f"c{mark}")]
            answers = [driver.invoke(spec, json.dumps(event).encode()) for spec, event in events]
            seen = [json.loads(answer.payload) for answer in answers]
        finally:
            driver.close()
    if seen[0][1] != "/tmp":
        pytest.skip("this kernel allows no mount namespaces")
    assert seen == [[[], "/tmp"], [[], "/tmp"], [[f"preheat-a{mark}"], "/tmp"]]
    assert not any(Path(f"/tmp/preheat-{event}").exists() for _, event in events)


# -- other runtimes -----------------------------------------------------------------------------------------------


def bootstrap(code: Path, text: str) -> None:
    path = code / "bootstrap"
    path.write_text(textwrap.dedent(text).lstrip())
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_code_may_be_named_by_a_relative_path(driver, make, monkeypatch):
    spec = make("import os\ndef handler(event, context):\n    return os.environ['LAMBDA_TASK_ROOT'] == os.getcwd()\n")
    monkeypatch.chdir(spec.code.parent)
    assert driver.invoke(replace(spec, code=Path("f"))).payload == b"true"


def test_awss_own_python_client_runs_unmodified(driver, make):
    spec = make(
        """
        import os
        def handler(event, context):
            print("in the handler")
            if event == "fail":
                raise ValueError("no")
            return {"event": event, "id": context.aws_request_id, "env": os.environ.get("AWS_EXECUTION_ENV")}
        """,
        runtime="provided.al2023",
        memory_mb=512,
    )
    bootstrap(spec.code, f'#!/bin/sh\nexec {sys.executable} -m awslambdaric "$_HANDLER"\n')
    answer = driver.invoke(spec, b'{"n": 1}', request_id="12345678-1234-4123-8123-123456789012")
    assert json.loads(answer.payload) == {
        "event": {"n": 1}, "id": "12345678-1234-4123-8123-123456789012", "env": None,
    }  # fmt: skip
    assert driver.invoke(spec, b'"fail"').error == "ValueError"
    assert driver.invoke(spec, b"2").init_ms is None
    assert "in the handler" in driver.messages()


def test_a_wrapper_script_starts_the_runtime(driver, make):
    spec = make(
        """
        import os
        def handler(event, context):
            if event == "import":
                import preheat
            yield os.environ["WRAPPED"]
        """,
        environment=(("AWS_LAMBDA_EXEC_WRAPPER", "/var/task/wrap.sh"),),
    )
    missing = driver.invoke(spec)
    assert missing.error == "Runtime.ExitError" and error_of(missing)[1].endswith("exit status 127")
    assert any("wrap.sh" in message for message in driver.messages())
    script = spec.code / "wrap.sh"
    script.write_text('#!/bin/sh\nexport WRAPPED=yes\nexec "$@"\n')
    script.chmod(0o755)
    assert driver.invoke(spec).payload == b"yes"
    assert driver.invoke(spec, b'"import"').error == "ModuleNotFoundError"


NODE_CLIENT = """
const base = `http://${process.env.AWS_LAMBDA_RUNTIME_API}/2018-06-01/runtime/invocation/`;
(async () => {
  for (;;) {
    const next = await fetch(base + "next");
    const event = await next.json();
    const id = next.headers.get("lambda-runtime-aws-request-id");
    await fetch(base + id + "/response", {method: "POST", body: JSON.stringify({node: process.argv[2], event})});
  }
})();
"""


def test_a_node_bootstrap_serves(driver, make):
    spec = make("", runtime="provided.al2023", memory_mb=512)
    bootstrap(spec.code, "#!/usr/bin/env node\n" + NODE_CLIENT)
    for n in (1, 2):
        assert json.loads(driver.invoke(spec, str(n).encode()).payload) == {"event": n}


def test_our_runtime_streams_over_the_network_as_on_aws(driver, make):
    import preheat.execution.workers.runtime as runtime

    spec = make("def handler(event, context):\n    yield 'a'\n    yield 'b'\n", runtime="provided.al2023")
    copy = spec.code / "streamer"
    copy.mkdir()
    for source in Path(runtime.__file__).parent.glob("*.py"):
        (copy / source.name).write_text(source.read_text())
    bootstrap(spec.code, f"#!/bin/sh\nexec {sys.executable} -P -m streamer\n")
    outcome = driver.invoke(replace(spec, environment=(("PYTHONPATH", str(spec.code)),)))
    assert outcome.payload == b"ab"


def test_node_functions_use_awss_client_where_it_is_installed(driver, make):
    spec = make("", runtime="nodejs22.x", handler="index.handler", memory_mb=512)
    failure = driver.invoke(spec)
    assert failure.error == "Runtime.InvalidEntrypoint" and "npm install aws-lambda-ric" in error_of(failure)[1]
    client = spec.code / "node_modules" / ".bin" / "aws-lambda-ric"
    client.parent.mkdir(parents=True)
    client.write_text(NODE_CLIENT)
    answer = driver.invoke(spec, b"5")
    assert json.loads(answer.payload) == {"node": "index.handler", "event": 5}


def test_a_bootstrap_without_permission_is_named(driver, make):
    spec = make("", runtime="provided.al2023")
    (spec.code / "bootstrap").write_text("#!/bin/sh\n")
    error_type, message = error_of(driver.invoke(spec))
    assert error_type == "Runtime.InvalidEntrypoint" and message.endswith("bootstrap: permission denied")


@pytest.mark.parametrize(
    ("runtime", "message"),
    [
        ("provided.al2023", "Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]"),
        ("java21", "Preheat runs python3.x, nodejs and provided runtimes, not java21"),
    ],
)
def test_runtimes_that_cannot_start_say_why(driver, make, runtime, message):
    outcome = driver.invoke(make("", runtime=runtime))
    assert outcome.error == "Runtime.InvalidEntrypoint" and message in error_of(outcome)[1]


def test_another_python_version_is_announced_once(driver, make):
    spec = make("def handler(event, context):\n    return 1\n", runtime="python3.99")
    assert driver.invoke(spec).payload == b"1"
    driver.invoke(replace(spec, revision="2"))
    assert len(driver.notices) == 1 and driver.notices[0].startswith("python3.99 is not installed here")


# -- the end ------------------------------------------------------------------------------------------------------


def test_nothing_lives_after_close(tmp_path, make):
    driver = ExecutionDriver(tmp_path / "scratch")
    sleeper = make(
        """
        import os, subprocess, time
        child = subprocess.Popen(["sleep", "600"])
        def handler(event, context):
            if event == "pids":
                return [os.getpid(), child.pid]
            time.sleep(600)
        """,
        timeout_s=900.0,
    )
    pids = json.loads(driver.invoke(sleeper, b'"pids"').payload)
    running = driver.start(sleeper)
    driver.until(lambda: driver.pool.usage().running == 1)
    zygotes = driver.pool._factory.pids()
    assert all(alive(pid) for pid in pids + zygotes)
    driver.close()
    assert running == []
    assert not any(alive(pid) for pid in pids + zygotes)
    assert list((tmp_path / "scratch").iterdir()) == []


SERVER = """
import sys
from pathlib import Path
from preheat.execution.contract import FunctionSpec
from tests.support.execution_driver import ExecutionDriver
directory = Path(sys.argv[1])
driver = ExecutionDriver(directory / "scratch")
spec = FunctionSpec("arn:f", "f", "$LATEST", "1", "python3.11", "app.handler", directory / "f", timeout_s=900.0)
driver.start(spec)
driver.until(lambda: driver.pool.usage().running)
print(*driver.pool._factory.pids(), flush=True)
driver.until(lambda: False, 600.0)
"""


def test_when_the_server_is_killed_its_functions_die(make, tmp_path):
    make("import time\ndef handler(event, context):\n    time.sleep(600)\n")
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", SERVER, str(tmp_path)], stdout=subprocess.PIPE, cwd=root) as server:
        pids = [int(pid) for pid in server.stdout.readline().split()]
        assert len(pids) == 2 and all(alive(pid) for pid in pids)
        server.kill()
    end = time.monotonic() + 60.0
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < end, "the functions outlive their server"


def test_a_killed_zygote_is_replaced(driver, make):
    spec = make("import os\ndef handler(event, context):\n    return os.getpid()\n")
    pid = int(driver.invoke(spec).payload)
    zygote = driver.pool._factory.pids()[0]
    os.kill(zygote, signal.SIGKILL)
    driver.until(lambda: not driver.pool.environments())
    driver.until(lambda: not alive(pid))
    assert int(driver.invoke(spec).payload) != pid


def test_environments_inherit_no_descriptors(driver, make):
    spec = make("import os, time\ndef handler(event, context):\n    time.sleep(0.1)\n"
                "    return sorted(os.readlink(f'/proc/self/fd/{fd}').split(':')[0] for fd in (0, 1, 2, 3, 4, 5)"
                " if os.path.exists(f'/proc/self/fd/{fd}'))\n")  # fmt: skip
    driver.invoke(spec)
    running = [driver.start(spec) for _ in range(5)]
    driver.until(lambda: all(running))
    held = [json.loads(outcomes[0].payload) for outcomes in running]
    assert all(names.count("socket") == 1 and names.count("pipe") == 2 for names in held), held

"""What a function sees of the machine, and what it may use of it."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from preheat.execution.workers.housing import Choices
from preheat.execution.workers.interpreters import Interpreters
from tests.support.execution_driver import ExecutionDriver, FunctionMaker, alive, error_of

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def allowed() -> bool:
    """Whether this kernel lets this user have a mount namespace at all."""
    who = [] if os.getuid() == 0 else ["--user"]
    return subprocess.run(["unshare", "--mount", *who, "true"], capture_output=True, check=False).returncode == 0


def started(tmp_path: Path, choices: Choices | None = None) -> ExecutionDriver:
    return ExecutionDriver(tmp_path / "scratch", choices=choices)


@pytest.fixture
def driver(tmp_path, allowed):
    if not allowed:
        pytest.skip("this kernel allows no mount namespaces")
    driver = started(tmp_path)
    yield driver
    driver.close()


@pytest.fixture
def make(tmp_path):
    return FunctionMaker(tmp_path)


LOOK = """
import os
def attempt(action):
    try:
        return action()
    except OSError as error:
        return error.strerror
def handler(event, context):
    if "list" in event:
        return attempt(lambda: sorted(os.listdir(event["list"])))
    if "read" in event:
        return attempt(lambda: open(event["read"]).read())
    if "write" in event:
        with open(event["write"], "ab") as file:
            return attempt(lambda: file.write(bytes(event["size"])))
    return attempt(lambda: open(event["make"], "w").close())
"""


def ask(driver, spec, **event):
    return json.loads(driver.invoke(spec, json.dumps(event).encode()).payload)


def test_code_is_at_var_task_and_read_only_even_in_edit(driver, make):
    for watch in (False, True):
        spec = make(LOOK, name=f"f{watch}", watch=watch)
        assert "app.py" in ask(driver, spec, list="/var/task")
        for place in ("/var/task/x", "/opt/x", "/etc/x", "/x"):
            assert ask(driver, spec, make=place) == "Read-only file system"


def test_layers_are_merged_under_opt_and_later_ones_win(driver, make, tmp_path):
    for name, files in (("one", {"a": "1", "both": "1", "bin/x": "1"}), ("two", {"b": "2", "both": "2", "bin/y": "2"})):
        for path, text in files.items():
            place = tmp_path / name / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
    spec = make(LOOK, layers=(tmp_path / "one", tmp_path / "two"))
    assert ask(driver, spec, list="/opt") == ["a", "b", "bin", "both"]
    assert ask(driver, spec, list="/opt/bin") == ["x", "y"]
    assert ask(driver, spec, read="/opt/both") == "2"
    assert ask(driver, spec, make="/opt/new") == "Read-only file system"


def test_nothing_of_the_state_the_home_or_other_functions_is_seen(driver, make, tmp_path):
    (tmp_path / "state.db").write_text("secret")
    other = make(LOOK, name="other")
    spec = make(LOOK)
    for place in (tmp_path / "state.db", other.code / "app.py", spec.code / "app.py"):
        assert ask(driver, spec, read=str(place)) == "No such file or directory"
    home = Path.home()
    if not Path(sys.prefix).is_relative_to(home) and not Path(sys.base_prefix).is_relative_to(home):
        assert ask(driver, spec, list=str(home)) == "No such file or directory"
    else:
        assert set(ask(driver, spec, list=str(home))) < set(os.listdir(home))
    for place in (f"/proc/{os.getpid()}/root", f"/proc/{os.getpid()}/environ"):
        assert ask(driver, spec, **{"list" if place.endswith("root") else "read": place}) == "Permission denied"


def test_functions_do_not_read_each_others_variables(driver, make):
    source = "import os\ndef handler(event, context):\n    return os.getpid()\n"
    pid = json.loads(driver.invoke(make(source, name="g", environment=(("SECRET", "x"),))).payload)
    assert ask(driver, make(LOOK), read=f"/proc/{pid}/environ") == "Permission denied"


def test_tmp_has_the_size_that_was_configured(driver, make):
    spec = make(LOOK, ephemeral_mb=512)
    assert ask(driver, spec, write="/tmp/a", size=300 * MIB) == 300 * MIB
    assert ask(driver, spec, write="/tmp/b", size=200 * MIB) == 200 * MIB
    assert ask(driver, spec, write="/tmp/c", size=20 * MIB) == "No space left on device"
    larger = make(LOOK, name="g", ephemeral_mb=600)
    assert ask(driver, larger, write="/tmp/a", size=560 * MIB) == 560 * MIB


def test_tmp_survives_a_timeout_and_a_crash_and_is_gone_with_the_environment(driver, make, tmp_path):
    spec = make(
        """
        import os, time
        def handler(event, context):
            open(f"/tmp/{event}", "w").close()
            if event == "slow":
                time.sleep(60)
            if event == "crash":
                os._exit(3)
            return sorted(os.listdir("/tmp"))
        """,
        timeout_s=1.0,
    )
    assert driver.invoke(spec, b'"slow"').error == "Sandbox.Timedout"
    assert driver.invoke(spec, b'"crash"').error == "Runtime.ExitError"
    assert json.loads(driver.invoke(spec, b'"last"').payload) == ["crash", "last", "slow"]
    assert len(driver.pool.environments()) == 1
    fresh = replace(spec, revision="2")
    assert json.loads(driver.invoke(fresh, b'"new"').payload) == ["new"]
    driver.pool.retire(spec.arn)
    driver.until(lambda: not driver.pool.environments())
    assert not list((tmp_path / "scratch").iterdir())


def test_what_a_function_started_dies_with_its_environment(driver, make):
    spec = make(
        """
        import os, subprocess, time
        def handler(event, context):
            stray = subprocess.Popen(["sleep", "600"], start_new_session=True)
            if event == "crash":
                print(stray.pid, flush=True)
                os._exit(1)
            return stray.pid
        """
    )
    pid = json.loads(driver.invoke(spec, b"0").payload)
    assert alive(pid)
    assert driver.invoke(spec, b'"crash"').error == "Runtime.ExitError"
    crashed = int(next(message for message in driver.messages() if message.isdigit()))
    driver.until(lambda: not alive(pid) and not alive(crashed))


def test_without_a_sandbox_the_machine_is_as_it_is(tmp_path, make):
    driver = started(tmp_path, Choices(sandbox="off"))
    try:
        spec = make(LOOK)
        assert "app.py" in ask(driver, spec, list=str(spec.code))
    finally:
        driver.close()


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_bubblewrap_gives_the_same_view_and_process_ids_of_its_own(tmp_path, make):
    driver = started(tmp_path, Choices(sandbox="bwrap"))
    try:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            (tmp_path / name / name).write_text(name)
        spec = make(LOOK, layers=(tmp_path / "one", tmp_path / "two"))
        outcome = driver.invoke(spec, json.dumps({"list": "/var/task"}).encode())
        assert outcome.error is None, (outcome.payload, driver.messages())
        assert "app.py" in json.loads(outcome.payload)
        assert ask(driver, spec, list="/opt") == ["one", "two"] and ask(driver, spec, read="/opt/two") == "two"
        assert ask(driver, spec, read=str(spec.code / "app.py")) == "No such file or directory"
        assert ask(driver, spec, make="/var/task/x") == "Read-only file system"
        assert ask(driver, spec, make="/tmp/x") is None
        assert str(os.getpid()) not in ask(driver, spec, list="/proc")
        crash = make("import os, signal\ndef handler(event, context):\n    os.kill(os.getpid(), signal.SIGKILL)\n", "k")
        assert error_of(driver.invoke(crash))[1].endswith("signal: killed")
    finally:
        driver.close()


# -- interpreters -------------------------------------------------------------------------------------------------


def found_versions() -> list[str]:
    interpreters = Interpreters()
    names = [f"python3.{minor}" for minor in range(9, 15)]
    return [name for name in names if (chosen := interpreters.choose(name)).exact and chosen.path is not None]


def test_a_runtime_runs_on_that_very_interpreter(tmp_path, make):
    versions = found_versions()
    if not versions:
        pytest.skip("there is no Python here beside the one that runs the tests")
    driver = started(tmp_path)
    source = (
        "import asyncio, json, logging, sys\nasync def slowly():\n    yield 'a'\n    yield 'b'\n"
        "def handler(event, context):\n    logging.warning('w')\n    if event == 'stream':\n        return slowly()\n"
        "    return sys.version_info[:2]\n"
    )
    try:
        for name in versions:
            spec = make(source, name=name.replace(".", "-"), runtime=name)
            outcome = driver.invoke(spec)
            assert outcome.error is None, (name, outcome.payload, driver.messages())
            assert json.loads(outcome.payload) == [3, int(name[8:])]
            assert driver.invoke(spec, b'"stream"').payload == b"ab"
            broken = driver.invoke(make("def handler(:\n", name=name.replace(".", "-") + "b", runtime=name))
            assert broken.error == "Runtime.UserCodeSyntaxError"
    finally:
        driver.close()

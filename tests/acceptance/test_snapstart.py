"""SnapStart through the API and in real processes: snapshots at publish, hooks, what two environments share."""

import json
import os
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from botocore.exceptions import ClientError, WaiterError

from tests.support.execution_driver import FunctionMaker, alive
from tests.support.functions import ROLE, make_zip
from tests.support.server import wait_for

HOOKS = """
import os, random, secrets, tempfile, time, uuid
from snapshot_restore_py import register_after_restore, register_before_snapshot

time.sleep({pause})
made = uuid.uuid4().hex
seen = []
key_at_start = os.environ["AWS_ACCESS_KEY_ID"]
open("/tmp/made", "w").close()
register_before_snapshot(seen.append, "before 1")
register_before_snapshot(seen.append, "before 2")

@register_after_restore
def again():
    seen.append("after 1")

register_after_restore(lambda word: seen.append(word), word="after 2")

def handler(event, context):
    if event == "wait":
        time.sleep(0.5)
    return {{
        "made": made, "seen": seen, "pid": os.getpid(), "tmp": sorted(os.listdir("/tmp")),
        "drawn": [random.random(), uuid.uuid4().hex, uuid.uuid1().hex, secrets.token_hex(8), tempfile.mktemp()],
        "kind": os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"], "stream": os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME"),
        "key": os.environ["AWS_ACCESS_KEY_ID"], "version": context.function_version,
    }}
"""


@pytest.fixture
def make(tmp_path):
    maker = FunctionMaker(tmp_path)
    return lambda source, **options: replace(maker(source, snap_start=True, **options), version="1")


def create(server, name: str, source: str, **settings):
    functions = server.client("lambda")
    settings = {"Runtime": "python3.12", "Timeout": 10, "MemorySize": 512, **settings}
    functions.create_function(
        FunctionName=name, Role=ROLE, Handler="app.handler", Code={"ZipFile": make_zip({"app.py": source})},
        SnapStart={"ApplyOn": "PublishedVersions"}, **settings,
    )  # fmt: skip
    return functions


def published(functions, name: str) -> str:
    """The number of a new version that is active."""
    version = functions.publish_version(FunctionName=name)
    assert version["State"] == "Pending"
    functions.get_waiter("published_version_active").wait(
        FunctionName=name, Qualifier=version["Version"], WaiterConfig={"Delay": 0, "MaxAttempts": 2_000}
    )
    return version["Version"]


def invoke(functions, name: str, event=None):
    answer = functions.invoke(FunctionName=name, Payload=json.dumps(event))
    return json.loads(answer["Payload"].read())


def lines_of(server, name: str) -> list[tuple[str, str]]:
    found = server.client("logs").filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
    return [(event["logStreamName"], event["message"].rstrip("\n")) for event in found]


# -- through the API ----------------------------------------------------------------------------------------------


def test_a_published_version_is_restored_from_its_snapshot(aws):
    functions = create(aws, "snapped", HOOKS.format(pause=0.4))
    version = functions.publish_version(FunctionName="snapped")
    assert (version["State"], version["StateReasonCode"]) == ("Pending", "Creating")
    with pytest.raises(functions.exceptions.SnapStartNotReadyException) as refused:
        functions.invoke(FunctionName="snapped:1")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 409
    functions.get_waiter("function_active_v2").wait(
        FunctionName="snapped", Qualifier="1", WaiterConfig={"Delay": 0, "MaxAttempts": 2_000}
    )
    shown = functions.get_function_configuration(FunctionName="snapped", Qualifier="1")
    assert shown["State"] == "Active" and "StateReason" not in shown
    assert shown["SnapStart"] == {"ApplyOn": "PublishedVersions", "OptimizationStatus": "On"}
    latest = functions.get_function_configuration(FunctionName="snapped")
    assert latest["SnapStart"]["OptimizationStatus"] == "Off"
    functions.create_alias(FunctionName="snapped", Name="live", FunctionVersion="1")
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda name: invoke(functions, name, "wait"), ["snapped:1", "snapped:live"])
    assert one["seen"] == two["seen"] == ["before 2", "before 1", "after 1", "after 2"]
    assert one["made"] == two["made"] and one["pid"] != two["pid"]
    assert not set(map(str, one["drawn"])) & set(map(str, two["drawn"]))
    assert (one["kind"], one["stream"], one["version"]) == ("snap-start", None, "1")
    assert one["tmp"] == two["tmp"] == ["made"]
    plain = invoke(functions, "snapped")
    assert plain["kind"] == "on-demand" and plain["seen"] == [] and plain["made"] != one["made"]


def test_the_log_tells_init_restore_and_report_apart(aws):
    functions = create(aws, "told", "print('made')\ndef handler(event, context):\n    print('handled')\n")
    published(functions, "told")
    invoke(functions, "told:1")
    wait_for(lambda: any("REPORT RequestId" in line for _, line in lines_of(aws, "told")))
    streams: dict[str, list[str]] = {}
    for stream, line in lines_of(aws, "told"):
        streams.setdefault(stream, []).append(line)
    making, restored = streams.values()
    assert [line.split(":")[0].split(" ")[0] for line in making] == ["INIT_START", "made", "INIT_REPORT"]
    assert making[2].endswith(" ms\tPhase: init\tStatus: success")
    assert [line.split(" ")[0] for line in restored] == [
        "RESTORE_START", "RESTORE_REPORT", "START", "handled", "END", "REPORT",
    ]  # fmt: skip
    fields = dict(field.split(": ", 1) for field in restored[5].split("\t") if field)
    assert "Init Duration" not in fields
    assert restored[1] == f"RESTORE_REPORT Restore Duration: {fields['Restore Duration']}"
    taken, billed = (float(fields[name].removesuffix(" ms")) for name in ("Duration", "Billed Duration"))
    restore, restore_billed = (
        float(fields[name].removesuffix(" ms")) for name in ("Restore Duration", "Billed Restore Duration")
    )
    assert 0 < restore < 5_000 and 1 <= restore_billed <= restore + 1
    assert taken + restore_billed <= billed <= taken + restore_billed + 1


@pytest.mark.parametrize(
    ("name", "source", "reason"),
    [
        ("badinit", "raise KeyError('no such thing')\n", "KeyError: 'no such thing'"),
        ("badexit", "import os\nos._exit(7)\n", "exit status 7"),
        (
            "badhook",
            "import snapshot_restore_py as s\n@s.register_before_snapshot\ndef stop():\n"
            "    raise ValueError('not now')\ndef handler(event, context):\n    return 1\n",
            "Runtime.BeforeSnapshotError: not now",
        ),
    ],
)
def test_a_version_that_cannot_be_initialised_fails(aws, name, source, reason):
    functions = create(aws, name, source)
    with pytest.raises(WaiterError):
        published(functions, name)
    shown = functions.get_function_configuration(FunctionName=name, Qualifier="1")
    assert (shown["State"], shown["StateReasonCode"]) == ("Failed", "FunctionError")
    assert reason in shown["StateReason"]
    assert shown["SnapStart"]["OptimizationStatus"] == "Off"
    for call in (
        lambda: functions.invoke(FunctionName=f"{name}:1"),
        lambda: functions.create_alias(FunctionName=name, Name="live", FunctionVersion="1"),
    ):
        with pytest.raises(functions.exceptions.ResourceConflictException, match="'Failed'"):
            call()


def test_an_after_restore_hook_that_fails_is_the_callers_error(aws):
    source = (
        "import snapshot_restore_py as s\n@s.register_after_restore\ndef stop():\n    raise ValueError('no way back')\n"
        "def handler(event, context):\n    return 1\n"
    )
    functions = create(aws, "noway", source)
    published(functions, "noway")
    for _ in range(2):
        with pytest.raises(ClientError) as refused:
            functions.invoke(FunctionName="noway:1")
        assert refused.value.response["Error"]["Code"] == "SnapStartException"
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    with pytest.raises(ClientError, match="afterRestore"):
        functions.invoke_with_response_stream(FunctionName="noway:1")
    lines = [line for _, line in lines_of(aws, "noway")]
    assert any(line.startswith("RESTORE_REPORT") and "Runtime.AfterRestoreError" in line for line in lines)
    assert any("ValueError: no way back" in line for line in lines)
    assert not any(line.startswith("START") for line in lines)


def test_snapshots_are_taken_again_after_a_restart(fresh_server):
    server = fresh_server()
    functions = create(server, "kept", HOOKS.format(pause=0))
    published(functions, "kept")
    first = invoke(functions, "kept:1")
    functions.update_function_configuration(FunctionName="kept", Description="other")
    functions.update_function_code(FunctionName="kept", ZipFile=make_zip({"app.py": HOOKS.format(pause=1)}))
    functions.publish_version(FunctionName="kept")
    server.kill()
    server.start()
    again = invoke(functions, "kept:1")
    assert again["seen"] == first["seen"] and again["made"] != first["made"]
    functions.get_waiter("published_version_active").wait(
        FunctionName="kept", Qualifier="2", WaiterConfig={"Delay": 0, "MaxAttempts": 5_000}
    )
    assert invoke(functions, "kept:2")["kind"] == "snap-start"


def test_sixty_cold_invocations_at_once(aws):
    source = "import time\ndef handler(event, context):\n    time.sleep(0.3)\n    return context.aws_request_id\n"
    functions = create(aws, "crowd", source, MemorySize=128)
    published(functions, "crowd")
    functions = aws.client("lambda", max_pool_connections=60)
    for name in ("crowd", "crowd:1"):
        with ThreadPoolExecutor(60) as pool:
            answers = list(pool.map(lambda number, name=name: invoke(functions, name, number), range(60)))
        assert len(set(answers)) == 60


def test_a_client_made_at_initialisation_works_in_every_environment(aws):
    aws.client("s3").create_bucket(Bucket="restored-things")
    source = (
        "import boto3, time\nclient = boto3.client('s3')\nclient.list_buckets()\n"
        "def handler(event, context):\n    time.sleep(0.3)\n"
        "    return 'restored-things' in [b['Name'] for b in client.list_buckets()['Buckets']]\n"
    )
    functions = create(aws, "clients", source)
    published(functions, "clients")
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: invoke(functions, "clients:1"), range(4)))
    assert answers == [True] * 4


# -- in processes -------------------------------------------------------------------------------------------------


def prepare(driver, spec):
    got = []
    driver.pool.prepare(spec, got.append)
    driver.until(lambda: got)
    return got[0]


def together(driver, spec, count: int) -> list:
    runs = [driver.start(spec) for _ in range(count)]
    driver.until(lambda: all(runs))
    assert all(run[0].error is None for run in runs), runs[0][0].payload
    return [json.loads(run[0].payload) for run in runs]


def test_an_event_loop_made_at_initialisation_is_each_environments_own(driver, make):
    spec = make(
        """
        import asyncio, time
        loop = asyncio.new_event_loop()
        async def work():
            return await asyncio.get_running_loop().run_in_executor(None, lambda: time.sleep(0.02) or 7)
        loop.run_until_complete(asyncio.sleep(0))
        def handler(event, context):
            return sum(loop.run_until_complete(work()) for _ in range(10))
        """
    )
    assert prepare(driver, spec).error_type is None
    assert together(driver, spec, 4) == [70] * 4


def test_a_connection_made_at_initialisation_is_closed(driver, make):
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    spec = make(
        f"""
        import socket
        connection = socket.create_connection(("127.0.0.1", {port}))
        def handler(event, context):
            return connection.recv(1) == b""
        """
    )
    ends = []
    thread = threading.Thread(target=lambda: ends.append(server.accept()[0]))
    thread.start()
    assert prepare(driver, spec).error_type is None
    thread.join(60)
    ends[0].settimeout(5)
    assert ends[0].recv(1) == b""
    assert together(driver, spec, 2) == [True, True]
    for end in (*ends, server):
        end.close()


def test_numpy_draws_differ_and_its_arrays_are_shared(driver, make):
    spec = make(
        """
        import numpy
        table = numpy.arange(1000)
        def handler(event, context):
            return [float(numpy.random.rand()), int(table.sum())]
        """
    )
    prepare(driver, spec)
    one, two = together(driver, spec, 2)
    assert one[0] != two[0] and one[1] == two[1] == 499_500


def test_threads_that_a_copy_cannot_have_are_named_in_the_log(driver, make):
    spec = make(
        """
        import threading, time
        threading.Thread(target=time.sleep, args=(60,), daemon=True, name="beat").start()
        def handler(event, context):
            return threading.active_count()
        """
    )
    prepare(driver, spec)
    assert together(driver, spec, 1) == [1]
    assert any("started 1 thread (beat)" in line for line in driver.messages())


def test_a_function_may_bring_the_hooks_module_itself(driver, make):
    spec = make("import snapshot_restore_py\ndef handler(event, context):\n    return snapshot_restore_py.MARK\n")
    (spec.code / "snapshot_restore_py.py").write_text(
        "MARK = []\ndef get_before_snapshot():\n    return [(MARK.append, ('b',), {})] if not MARK else []\n"
        "def get_after_restore():\n    return [(MARK.append, ('a',), {})]\n"
    )
    prepare(driver, spec)
    assert together(driver, spec, 1) == [["b", "a"]]


def test_an_environment_that_timed_out_is_restored_again_with_its_tmp(driver, make):
    spec = make(
        """
        import os, tempfile, time
        open(tempfile.gettempdir() + "/made", "w").close()
        def handler(event, context):
            if event == "hang":
                open(tempfile.gettempdir() + "/mine", "w").close()
                time.sleep(60)
            return sorted(os.listdir(tempfile.gettempdir()))
        """,
        timeout_s=0.5,
    )
    prepare(driver, spec)
    assert driver.invoke(spec, b'"hang"').error == "Sandbox.Timedout"
    after = driver.invoke(spec)
    assert after.restore_ms is not None and json.loads(after.payload) == ["made", "mine"]
    assert len({line.log_stream for line in driver.lines}) == 2
    assert prepare(driver, replace(spec, version="2")).error_type is None
    assert json.loads(driver.invoke(replace(spec, version="2")).payload) == ["made"]


def test_the_death_of_a_snapshot_ends_its_environments_and_the_next_takes_another(driver, make):
    spec = make("import os\ndef handler(event, context):\n    return [os.getppid(), os.getpid()]\n")
    prepare(driver, spec)
    parent, child = together(driver, spec, 1)[0]
    os.kill(parent, 9)
    driver.until(lambda: not alive(child) and not driver.pool.environments())
    new_parent, _ = together(driver, spec, 1)[0]
    assert new_parent != parent
    assert any("had to be taken again" in notice for notice in driver.notices)


def test_nothing_is_left_of_a_deleted_version(driver, make):
    spec = make("import os\ndef handler(event, context):\n    return [os.getppid(), os.getpid()]\n")
    prepare(driver, spec)
    pids = together(driver, spec, 1)[0]
    driver.pool.retire(spec.arn)
    driver.pool.forget(spec.arn, "1")
    driver.until(lambda: not any(alive(pid) for pid in pids))


def test_what_runs_below_a_wrapper_script_initialises_in_full_and_runs_its_hooks(driver, make):
    source = """
        import os, snapshot_restore_py
        seen = []
        snapshot_restore_py.register_before_snapshot(seen.append, "before")
        snapshot_restore_py.register_after_restore(seen.append, "after")
        def handler(event, context):
            return seen
        """
    for number, command in enumerate(('exec "$@"', f'exec {sys.executable} -m awslambdaric "$_HANDLER"')):
        spec = make(source, name=f"wrapped{number}", environment=(("AWS_LAMBDA_EXEC_WRAPPER", "/var/task/wrap.sh"),))
        script = spec.code / "wrap.sh"
        script.write_text(f"#!/bin/sh\n{command}\n")
        script.chmod(0o755)
        assert prepare(driver, spec).error_type is None
        assert together(driver, spec, 1) == [["before", "after"]]
    assert sum("cannot be copied here" in line for line in driver.messages()) == 2

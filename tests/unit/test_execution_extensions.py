"""The Extensions API without sockets and processes."""

import json

import pytest

from preheat.execution.extensions.house import find_programs
from tests.support.extensions import ARN, NEXT, REGISTER, TELEMETRY, Line, World, refusal


@pytest.fixture
def make(tmp_path):
    return lambda *programs, **spec: World(tmp_path, *programs, **spec)


# -- registration ---------------------------------------------------------------------------------------------------


def test_programs_are_the_files_in_extensions_and_later_layers_win(tmp_path):
    for layer, names in (("one", ("b", "a")), ("two", ("b",))):
        (tmp_path / layer / "extensions" / "data").mkdir(parents=True)
        for name in names:
            (tmp_path / layer / "extensions" / name).write_text("")
    found = find_programs((tmp_path / "one", tmp_path / "two", tmp_path / "none"))
    assert list(found) == ["a", "b"]
    assert found["a"].endswith("one/extensions/a") and found["b"].endswith("two/extensions/b")


def test_registering_tells_about_the_function(make):
    world = make("watch")
    status, document, headers = world.ask(b"POST", REGISTER, {"events": []}, Lambda_Extension_Name="watch")
    assert (status, document) == (200, {"functionName": "f", "functionVersion": "7", "handler": "app.handler"})
    assert len(headers["Lambda-Extension-Identifier"]) == 36
    assert world.told == ["registered"]
    _, document, _ = world.ask(
        b"POST", REGISTER, {"events": ["INVOKE"]}, Lambda_Extension_Name="inner",
        Lambda_Extension_Accept_Feature="other, accountId",
    )  # fmt: skip
    assert document["accountId"] == "123456789012"


def test_the_runtime_waits_for_all_external_extensions(make):
    world = make("one", "two")
    world.register("two", "INVOKE")
    assert world.told == []
    world.register("inner", "INVOKE")
    assert world.told == []
    world.register("one")
    assert world.told == ["registered"]


@pytest.mark.parametrize(
    ("name", "body", "error"),
    [
        ("", {"events": []}, "Extension.InvalidExtensionName"),
        ("watch", b"{", "InvalidRequestFormat"),
        ("watch", [], "InvalidRequestFormat"),
        ("watch", {"events": [1]}, "InvalidRequestFormat"),
        ("watch", {"events": [], "configurationKeys": ["A"]}, "InvalidRequestFormat"),
        ("watch", {"events": ["SLEEP"]}, "Extension.InvalidEventType"),
        ("inner", {"events": ["SHUTDOWN"]}, "Extension.InvalidEventType"),
    ],
)
def test_registrations_that_are_refused(make, name, body, error):
    world = make("watch")
    assert refusal(world.ask(b"POST", REGISTER, body, Lambda_Extension_Name=name)) == (403, error)
    assert [member.state for member in world.extensions.registry.members] == ["Started"]
    world.register("watch", "INVOKE", "SHUTDOWN")


def test_a_name_registers_once(make):
    world = make("watch")
    world.register("watch")
    again = world.ask(b"POST", REGISTER, {"events": []}, Lambda_Extension_Name="watch")
    assert refusal(again) == (403, "Extension.InvalidExtensionState")
    assert again[1]["errorMessage"] == (
        "State transition from Registered to Registered failed for extension watch. "
        "Error: State transition is not allowed"
    )
    world.register("inner")
    again = world.ask(b"POST", REGISTER, {"events": []}, Lambda_Extension_Name="inner")
    assert again[1]["errorMessage"] == "Extension with this name already registered"


def test_ten_extensions_and_none_after_initialisation(make):
    world = make("watch")
    for number in range(9):
        world.register(f"inner-{number}")
    eleventh = world.ask(b"POST", REGISTER, {"events": []}, Lambda_Extension_Name="inner-9")
    assert refusal(eleventh) == (403, "Extension.TooManyExtensions")
    assert eleventh[1]["errorMessage"] == "Extension limit (10) reached"
    world.extensions.runtime_asks()
    late = world.ask(b"POST", REGISTER, {"events": []}, Lambda_Extension_Name="late")
    assert refusal(late) == (403, "Extension.RegistrationClosed")


@pytest.mark.parametrize(
    ("identifier", "error"),
    [
        ("", "Extension.MissingExtensionIdentifier"),
        ("x", "Extension.InvalidExtensionIdentifier"),
        ("zzzzzzzz-0000-4000-8000-000000000000", "Extension.InvalidExtensionIdentifier"),
        ("00000000-0000-4000-8000-000000000000", "Extension.UnknownExtensionIdentifier"),
    ],
)
def test_identifiers_that_are_refused(make, identifier, error):
    world = make("watch")
    assert refusal(world.next(identifier)) == (403, error)
    assert refusal(world.subscribe(identifier)) == (403, error)
    headers = {"Lambda_Extension_Identifier": identifier, "Lambda_Extension_Function_Error_Type": "X.Y"}
    assert refusal(world.ask(b"POST", "/2020-01-01/extension/init/error", **headers)) == (403, error)


def test_paths_that_do_not_exist(make):
    world = make()
    for method, path in ((b"GET", REGISTER), (b"POST", NEXT), (b"GET", TELEMETRY), (b"GET", "/2020-01-01/extension/x"),
                         (b"GET", "/")):  # fmt: skip
        assert not world.api.take(Line(), method, path, {}, b"")


# -- events ---------------------------------------------------------------------------------------------------------


def test_initialisation_ends_with_the_last_of_runtime_and_extensions(make):
    world = make("watch", "sleeper")
    watch, sleeper = world.register("watch", "INVOKE"), world.register("sleeper")
    assert isinstance(world.next(watch), Line)
    assert not world.extensions.runtime_asks()
    assert "settled" not in world.told
    world.next(sleeper)
    assert world.told[-1] == "settled"


def test_an_invocation_goes_to_those_who_asked_and_ends_with_the_last(make):
    world = make("watch", "sleeper")
    watch, sleeper = world.register("watch", "INVOKE"), world.register("sleeper", "SHUTDOWN")
    line, quiet = world.next(watch), world.next(sleeper)
    assert world.extensions.runtime_asks()
    world.invoke()
    status, event, headers = line.answers[0]
    assert status == 200 and len(headers["Lambda-Extension-Event-Identifier"]) == 36
    assert event == {
        "eventType": "INVOKE", "deadlineMs": 1_700_000_003_000, "requestId": "r-1", "invokedFunctionArn": ARN,
        "tracing": {"type": "X-Amzn-Trace-Id", "value": "Root=1-2"},
    }  # fmt: skip
    assert quiet.answers == []
    assert not world.extensions.runtime_asks()
    world.clock.advance(0.25)
    world.next(watch)
    assert world.told[-1] == "settled" and world.measures == [250.0]


def test_an_extension_that_is_faster_than_the_runtime(make):
    world = make("watch")
    watch = world.register("watch", "INVOKE")
    world.next(watch)
    world.extensions.runtime_asks()
    world.invoke()
    world.next(watch)
    assert "settled" not in world.told
    assert world.extensions.runtime_asks()
    assert world.measures == [0.0]


def test_without_interest_in_invocations_nothing_is_measured(make):
    world = make("watch")
    world.next(world.register("watch", "SHUTDOWN"))
    assert world.extensions.runtime_asks()
    world.invoke()
    assert world.extensions.runtime_asks() and world.measures == []


def test_asking_twice_is_refused(make):
    world = make("watch")
    watch = world.register("watch", "INVOKE")
    world.next(watch)
    answer = world.next(watch)
    assert refusal(answer) == (403, "Extension.InvalidExtensionState")
    assert answer[1]["errorMessage"].startswith("State transition from Ready to Ready failed for extension ")


def test_shutdown_reaches_the_waiting_and_the_busy(make):
    world = make("waits", "works", "deaf")
    waits, works = world.register("waits", "INVOKE", "SHUTDOWN"), world.register("works", "INVOKE", "SHUTDOWN")
    deaf = world.register("deaf", "INVOKE")
    lines = [world.next(one) for one in (waits, works, deaf)]
    world.extensions.runtime_asks()
    world.invoke()
    line, quiet = world.next(waits), world.next(deaf)
    world.extensions.shut_down("timeout", 2.0)
    expected = {"eventType": "SHUTDOWN", "shutdownReason": "timeout", "deadlineMs": 1_700_000_002_000}
    assert line.answers[0][1] == expected and quiet.answers == []
    assert lines[1].answers[0][1]["eventType"] == "INVOKE"
    assert world.next(works)[1] == expected


def test_an_extension_says_that_it_cannot_go_on(make):
    world = make("watch")
    watch = world.register("watch", "INVOKE")
    path = "/2020-01-01/extension/init/error"
    headers = {"Lambda_Extension_Identifier": watch}
    assert refusal(world.ask(b"POST", path, **headers)) == (403, "Extension.MissingHeader")
    headers["Lambda_Extension_Function_Error_Type"] = "Extension.NoConfig"
    assert world.ask(b"POST", path, **headers)[:2] == (202, {"status": "OK"})
    assert world.ask(b"POST", path, **headers)[0] == 202
    assert world.told.count(("failed", "watch", "InitError", "Extension.NoConfig")) == 1
    assert refusal(world.next(watch)) == (403, "Extension.InvalidExtensionState")
    world.extensions.not_initialised("error", 5.0, "Extension.InitError")
    assert world.lines == ["EXTENSION\tName: watch\tState: InitError\tEvents: [INVOKE]\tError Type: Extension.NoConfig"]


def test_exit_error_is_for_any_time_and_init_error_for_initialisation(make):
    world = make("watch")
    watch = world.register("watch", "INVOKE")
    world.next(watch)
    headers = {"Lambda_Extension_Identifier": watch, "Lambda_Extension_Function_Error_Type": "E.X"}
    late = world.ask(b"POST", "/2020-01-01/extension/init/error", **headers)
    assert refusal(late) == (403, "Extension.InvalidExtensionState")
    assert world.ask(b"POST", "/2020-01-01/extension/exit/error", **headers)[0] == 202
    assert world.told[-1] == ("failed", "watch", "ExitError", "E.X")


def test_the_first_fault_stays(make):
    world = make("watch")
    assert world.extensions.fault_document("r-1") is None
    world.extensions.blame("Extension.InitError", "one")
    world.extensions.blame("Extension.Crash", "two")
    document = json.loads(world.extensions.fault_document("r-1"))
    assert document == {"errorType": "Extension.InitError", "errorMessage": "RequestId: r-1 Error: one"}

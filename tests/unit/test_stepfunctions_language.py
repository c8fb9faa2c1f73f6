"""The states language: paths, intrinsic functions, choice rules, definitions."""

import json

import pytest

from preheat.kernel.entropy import SeededEntropy
from preheat.services.stepfunctions.language import definition, intrinsics, paths
from preheat.services.stepfunctions.language.choices import holds
from preheat.services.stepfunctions.language.errors import StateError, matches
from preheat.services.stepfunctions.language.paths import PathError, Scope
from preheat.services.stepfunctions.language.resources import parse as parse_resource
from preheat.services.stepfunctions.language.retrying import pause_before
from preheat.services.stepfunctions.language.templates import fill, placed

DATA = {
    "a": {"b": [1, 2, {"c": "x"}], "odd key": True},
    "books": [{"t": "A", "p": 8}, {"t": "B", "p": 12, "sale": True}, {"t": "C", "p": 30}],
    "s": "text", "n": 3, "nothing": None,
}  # fmt: skip


def scope(data=None, **variables):
    return Scope(DATA if data is None else data, {"Execution": {"Name": "e"}}, variables)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("$", DATA),
        ("$.a.b[0]", 1),
        ("$.a.b[-1].c", "x"),
        ("$['a']['odd key']", True),
        ("$.books[*].t", ["A", "B", "C"]),
        ("$.books[0,2].p", [8, 30]),
        ("$.books[1:].t", ["B", "C"]),
        ("$.books[:-1].t", ["A", "B"]),
        ("$..c", ["x"]),
        ("$.books[?(@.p < 13)].t", ["A", "B"]),
        ("$.books[?(@.p > 10 && @.sale)].t", ["B"]),
        ("$.books[?(@.t == 'C' || @.p == 8)].p", [8, 30]),
        ("$.books[?(!(@.sale))].t", ["A", "C"]),
        ("$.books[?(@.p > 99)]", []),
        ("$$.Execution.Name", "e"),
        ("$v.k[1]", 6),
        ("$.nothing", None),
    ],
)
def test_paths(path, value):
    assert paths.read(path, scope(v={"k": [5, 6]})) == value


@pytest.mark.parametrize("path", ["$.none", "$.a.b[9]", "$.s.x", "$other", "$$.Task.Token"])
def test_paths_to_nothing(path):
    with pytest.raises(PathError):
        paths.read(path, scope())


@pytest.mark.parametrize("path", ["a.b", "$.", "$.a[", "$.a[x]", "$.a b", "$.books[?(p)]"])
def test_no_paths(path):
    with pytest.raises(PathError):
        paths.parse(path)


def test_writing_at_a_reference_path():
    assert paths.write("$.x.y", {"a": 1}, 5) == {"a": 1, "x": {"y": 5}}
    assert paths.write("$", {"a": 1}, 5) == 5
    assert paths.write("$.l[0]", {"l": [1, 2]}, 9) == {"l": [9, 2]}
    with pytest.raises(PathError):
        paths.write("$.x", [1], 5)
    with pytest.raises(PathError):
        paths.reference("$.a[*]")
    with pytest.raises(StateError) as caught:
        placed({"ResultPath": "$.x"}, "text", 1)
    assert caught.value.name == "States.ResultPathMatchFailure"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("States.Format('Hello {}, {} \\{\\} it\\'s {}', $.s, $.n, $.a.b)", 'Hello text, 3 {} it\'s [1,2,{"c":"x"}]'),
        ("States.StringToJson('{\"k\": [1]}')", {"k": [1]}),
        ("States.JsonToString($.a.b)", '[1,2,{"c":"x"}]'),
        ("States.Array(1, 'b', null, true, -2.5)", [1, "b", None, True, -2.5]),
        ("States.ArrayPartition(States.ArrayRange(1, 5, 1), 2)", [[1, 2], [3, 4], [5]]),
        ("States.ArrayRange(5, 1, -2)", [5, 3, 1]),
        ("States.ArrayContains($.a.b, 2)", True),
        ("States.ArrayContains(States.Array(1), true)", False),
        ("States.ArrayGetItem($.a.b, 1)", 2),
        ("States.ArrayLength($.books[*])", 3),
        ("States.ArrayUnique(States.Array(1, 1, 'a', 'a', true))", [1, "a", True]),
        ("States.Base64Encode('Zürich')", "WsO8cmljaA=="),
        ("States.Base64Decode('WsO8cmljaA==')", "Zürich"),
        ("States.Hash('abc', 'SHA-1')", "a9993e364706816aba3e25717850c26c9cd0d89d"),
        ("States.JsonMerge($.a, States.StringToJson('{\"b\": 0}'), false)", {"b": 0, "odd key": True}),
        ("States.MathAdd($.n, -4)", -1),
        ("States.StringSplit('1,2;3', ',;')", ["1", "2", "3"]),
        ("States.Format('{}', $.books[?(@.t == 'A')].p)", "[8]"),
    ],
)
def test_intrinsics(text, value):
    assert intrinsics.evaluate(text, scope(), SeededEntropy(1)) == value


def test_chance_in_intrinsics():
    entropy = SeededEntropy(1)
    assert len(intrinsics.evaluate("States.UUID()", scope(), entropy)) == 36
    drawn = {intrinsics.evaluate("States.MathRandom(1, 4)", scope(), entropy) for _ in range(100)}
    assert drawn == {1, 2, 3}
    seeded = {intrinsics.evaluate("States.MathRandom(1, 999, 7)", scope(), entropy) for _ in range(5)}
    assert len(seeded) == 1


@pytest.mark.parametrize(
    "text",
    [
        "States.ArrayRange(1, 2000, 1)", "States.ArrayRange(1, 2, 0)", "States.ArrayGetItem($.a.b, 7)",
        "States.StringToJson('{')", "States.Format('{}')", "States.Format('x', 1)", "States.MathAdd('a', 1)",
        "States.JsonMerge($.a, $.a, true)", "States.Hash('a', 'CRC')", "States.Base64Decode('*')",
        "States.MathAdd(1)", "States.ArrayLength('text')",
    ],
)  # fmt: skip
def test_intrinsics_that_fail(text):
    with pytest.raises(StateError) as caught:
        intrinsics.evaluate(text, scope(), SeededEntropy(1))
    assert caught.value.name == "States.IntrinsicFailure"


@pytest.mark.parametrize("text", ["States.Nope()", "States.Format('a'", "Format('a')", "States.Array(1 2)", "x"])
def test_no_intrinsics(text):
    with pytest.raises(PathError):
        intrinsics.parse(text)


def test_templates():
    given = {"p.$": "$.a.b[1]", "plain": {"f.$": "States.MathAdd($.n, 1)"}, "l": [{"v.$": "$v"}]}
    expected = {"p": 2, "plain": {"f": 4}, "l": [{"v": 9}]}
    assert fill(given, scope(v=9), SeededEntropy(1)) == expected
    with pytest.raises(StateError) as caught:
        fill({"x.$": "$.none"}, scope({"a": 1}), SeededEntropy(1))
    assert caught.value.name == "States.ParameterPathFailure"
    words = "The JSONPath '$.none' specified for the field 'x.$' could not be found in the input '{\"a\":1}'"
    assert caught.value.cause == words


def rule(operator, value, variable="$.v"):
    return {"Variable": variable, operator: value}


@pytest.mark.parametrize(
    ("data", "given", "expected"),
    [
        ("abc", rule("StringEquals", "abc"), True),
        ("abc", rule("StringLessThan", "abd"), True),
        (1, rule("StringEquals", "1"), False),
        (2, rule("NumericGreaterThanEquals", 2.0), True),
        (True, rule("NumericEquals", 1), False),
        (True, rule("BooleanEquals", True), True),
        ("2024-01-01T00:00:00Z", rule("TimestampLessThan", "2024-01-01T01:30:00+01:00"), True),
        ("2024-01-01", rule("TimestampEquals", "2024-01-01T00:00:00Z"), False),
        ("log-7.txt", rule("StringMatches", "log-*.txt"), True),
        ("a*b", rule("StringMatches", "a\\*b"), True),
        ("axb", rule("StringMatches", "a\\*b"), False),
        (None, rule("IsNull", True), True),
        (1, rule("IsPresent", False, "$.other"), True),
        (1, rule("IsPresent", True), True),
        (1.5, rule("IsNumeric", True), True),
        (True, rule("IsNumeric", False), True),
        ("2024-01-01T00:00:00Z", rule("IsTimestamp", True), True),
        (False, rule("IsBoolean", True), True),
        ("x", rule("IsString", False), False),
        (5, rule("NumericEqualsPath", "$.limit"), True),
        (5, {"And": [rule("NumericGreaterThan", 1), rule("NumericLessThan", 9)]}, True),
        (5, {"Or": [rule("NumericEquals", 1), rule("NumericEquals", 5)]}, True),
        (5, {"Not": rule("NumericEquals", 5)}, False),
    ],
)
def test_choice_rules(data, given, expected):
    assert holds(given, scope({"v": data, "limit": 5})) is expected


def test_a_choice_over_nothing():
    with pytest.raises(StateError) as caught:
        holds(rule("NumericEquals", 1, "$.none"), scope({}))
    assert caught.value.name == "States.Runtime"


def test_which_errors_match():
    assert matches(["States.ALL"], "Boom") and matches(["States.TaskFailed"], "Boom")
    assert not matches(["States.ALL"], "States.DataLimitExceeded") and not matches(["States.ALL"], "States.Runtime")
    assert matches(["States.Runtime"], "States.Runtime") and not matches(["States.TaskFailed"], "States.Timeout")


def test_pauses_of_a_retrier():
    given = {"IntervalSeconds": 3, "BackoffRate": 2, "MaxDelaySeconds": 20}
    assert [pause_before(given, count, lambda: 0.5) for count in range(4)] == [3, 6, 12, 20]
    assert [pause_before({**given, "JitterStrategy": "FULL"}, count, lambda: 0.5) for count in (0, 9)] == [1.5, 10]
    assert [pause_before({}, count, lambda: 0.5) for count in range(3)] == [1, 2, 4]
    assert pause_before({"BackoffRate": 10.0}, 100_000, lambda: 0.5) == 99_999_999


def test_resources():
    found = parse_resource("arn:aws:states:::states:startExecution.sync:2")
    assert found is not None and (found.kind, found.action, found.pattern) == ("call", "startExecution", "sync:2")
    assert parse_resource("arn:aws:lambda:us-east-1:000000000000:function:f:live").kind == "function"
    assert parse_resource("arn:aws:states:us-east-1:000000000000:activity:a").kind == "activity"
    assert parse_resource("arn:aws:states:::aws-sdk:dynamodb:getItem").error_prefix == "DynamoDb"
    assert parse_resource("arn:aws:states:::dynamodb:getItem").error_prefix == "DynamoDB"
    for bad in ("arn:aws:states:::dynamodb:getItem.sync", "arn:aws:states:::glue:startJobRun", "nothing"):
        assert parse_resource(bad) is None


def problems(states, kind="STANDARD", **top):
    text = json.dumps({"StartAt": next(iter(states)), "States": states, **top})
    return [str(one) for one in definition.check(text, lambda resource: resource.service != "glue", kind)]


END = {"Type": "Succeed"}


@pytest.mark.parametrize(
    ("states", "part"),
    [
        ({"A": {"Type": "Pass", "Next": "B"}}, "MISSING_TRANSITION_TARGET: Missing 'Next' target: B at /States/A/Next"),
        ({"A": {"Type": "Pass"}}, "needs Next or End"),
        ({"A": {"Type": "Pas", "End": True}}, "The field 'Type' should have one of these values"),
        ({"A": {"Type": "Pass", "End": True, "Nextt": "A"}}, "Field 'Nextt' is not supported"),
        ({"A": {"Type": "Task", "Resource": "arn:aws:states:::aws-sdk:glue:x", "End": True}}, "is not recognized"),
        ({"A": {"Type": "Wait", "Seconds": 1, "SecondsPath": "$.a", "End": True}}, "one of Seconds"),
        ({"A": {"Type": "Wait", "Timestamp": "noon", "End": True}}, "RFC 3339"),
        ({"A": {"Type": "Pass", "Parameters": {"x.$": "no"}, "End": True}}, "valid JSONPath or a valid intrinsic"),
        ({"A": {"Type": "Pass", "ResultPath": "$.a[*]", "End": True}}, "Reference Path"),
        ({"A": {"Type": "Choice", "Choices": [{"Variable": "$.a", "Next": "A"}]}}, "exactly one comparison"),
        ({"A": {"Type": "Choice", "Choices": [{**rule("StringEquals", 1), "Next": "A"}]}}, "does not fit StringEquals"),
        ({"A": {"Type": "Pass", "QueryLanguage": "JSONata", "End": True}}, "QueryLanguage JSONPath only"),
        ({"A": {"Type": "Map", "Label": "x", "ItemProcessor": {"StartAt": "I", "States": {"I": END}}, "End": True}},
         "distributed maps"),
        ({"A": {"Type": "Map", "End": True, "ItemProcessor": {"ProcessorConfig": {"Mode": "DISTRIBUTED"},
                                                             "StartAt": "I", "States": {"I": END}}}}, "DISTRIBUTED"),
        ({"A": {"Type": "Parallel", "End": True, "Branches": [{"StartAt": "A", "States": {"A": END}}]}},
         "DUPLICATE_STATE_NAME"),
        ({"A": {"Type": "Parallel", "End": True, "Branches": [{"StartAt": "B", "States": {"B": END}}],
                "Retry": [{"ErrorEquals": ["States.ALL", "X"]}]}}, "must appear alone"),
        ({"A": {"Type": "Parallel", "End": True, "Branches": [{"StartAt": "B", "States": {"B": END}}],
                "Retry": [{"ErrorEquals": ["X"], "BackoffRate": 0.5}]}}, "BackoffRate"),
        ({"A": {"Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken", "End": True,
                "Parameters": {}}}, "$$.Task.Token"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_definitions(states, part):
    assert any(part in one for one in problems(states)), problems(states)


def test_definitions_that_are_none():
    for text in ("{", "[]", '"x"'):
        assert [one.code for one in definition.check(text, lambda resource: True)] == ["INVALID_JSON_DESCRIPTION"]
    assert problems({"A": END}) == []
    activity = {"A": {"Type": "Task", "Resource": "arn:aws:states:us-east-1:000000000000:activity:a", "End": True}}
    assert problems(activity) == [] and "Express" in problems(activity, "EXPRESS")[0]
    assert "Field 'Extra' is not supported" in problems({"A": END}, Extra=1)[0]

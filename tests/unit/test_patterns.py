"""The pattern language: what matches, and what is refused with which words and where."""

import pytest

from preheat.services.patterns import PatternError, compile_leaf, compile_pattern

MATCHES = [
    ({"a": ["x"]}, {"a": "x"}, True),
    ({"a": ["x"]}, {"A": "x"}, False),
    ({"a": ["x"]}, {"a": "X"}, False),
    ({"a": [""]}, {"a": ""}, True),
    ({"a": ["x", "y"], "b": [1]}, {"a": "y", "b": 1}, True),
    ({"a": ["x"], "b": [1]}, {"a": "x"}, False),
    ({"a": {"b": ["x"]}}, {"a": "x"}, False),
    ({"a": [None]}, {"a": None}, True),
    ({"a": [None]}, {}, False),
    ({"a": [None]}, {"a": []}, False),
    ({"a": [True]}, {"a": 1}, False),
    ({"a": [1]}, {"a": True}, False),
    ({"a": [False]}, {"a": False}, True),
    ({"a": ["1"]}, {"a": 1}, False),
    ({"a": [300]}, {"a": 300.0}, True),
    ({"a": [3.0e2]}, {"a": 300}, True),
    # arrays
    ({"a": ["x"]}, {"a": ["z", "x"]}, True),
    ({"a": ["x"]}, {"a": [["z"], ["x"]]}, True),
    ({"a": ["x"]}, {"a": []}, False),
    ({"a": {"b": ["x"]}}, {"a": [{"b": "y"}, {"b": "x"}]}, True),
    ({"a": {"b": ["x"], "c": ["y"]}}, {"a": [{"b": "x"}, {"c": "y"}]}, False),
    ({"a": {"b": ["x"], "c": ["y"]}}, {"a": [{"b": "x", "c": "n"}, {"b": "x", "c": "y"}]}, True),
    ({"a": {"b": ["x"]}, "d": {"c": ["y"]}}, {"a": [{"b": "x"}], "d": [{"c": "n"}, {"c": "y"}]}, True),
    (
        {"a": {"n": ["1"], "in": {"x": ["p"], "y": ["q"]}}},
        {"a": [{"n": "1", "in": [{"x": "p"}]}, {"n": "2", "in": [{"x": "p", "y": "q"}]}]},
        False,
    ),
    (
        {"a": {"n": ["2"], "in": {"x": ["p"], "y": ["q"]}}},
        {"a": [{"n": "1", "in": [{"x": "p"}]}, {"n": "2", "in": [{"x": "o"}, {"x": "p", "y": "q"}]}]},
        True,
    ),
    # joined names
    ({"a": {"b.c": ["x"]}}, {"a": {"b": {"c": "x"}}}, True),
    ({"a": {"b": {"c": ["x"]}}}, {"a": {"b.c": "x"}}, True),
    ({"a": {"b.c": {"c": ["x"]}}}, {"a": {"b": {"c": "x"}}}, False),
    # prefix, suffix, equals-ignore-case
    ({"a": [{"prefix": "us-"}]}, {"a": "us-east-1"}, True),
    ({"a": [{"prefix": ""}]}, {"a": "anything"}, True),
    ({"a": [{"prefix": "us-"}]}, {"a": 5}, False),
    ({"a": [{"prefix": {"equals-ignore-case": "US-"}}]}, {"a": "us-east-1"}, True),
    ({"a": [{"suffix": ".pdf"}]}, {"a": "x.PDF"}, False),
    ({"a": [{"suffix": {"equals-ignore-case": ".pDf"}}]}, {"a": "x.PDF"}, True),
    ({"a": [{"equals-ignore-case": "Yes"}]}, {"a": "yES"}, True),
    ({"a": [{"equals-ignore-case": ""}]}, {"a": ""}, True),
    ({"a": [{"equals-ignore-case": ""}]}, {"a": " "}, False),
    # wildcard
    ({"a": [{"wildcard": "a*z"}]}, {"a": "az"}, True),
    ({"a": [{"wildcard": "a*z"}]}, {"a": "a"}, False),
    ({"a": [{"wildcard": "ab*ba"}]}, {"a": "aba"}, False),
    ({"a": [{"wildcard": "*"}]}, {"a": ""}, True),
    ({"a": [{"wildcard": "*"}]}, {"a": 5}, False),
    ({"a": [{"wildcard": "/Users/*/dir/dir/doc.txt"}]}, {"a": "/Users/me/dir/dir/dir/doc.txt"}, True),
    ({"a": [{"wildcard": "*x*y*"}]}, {"a": "1x2y3"}, True),
    ({"a": [{"wildcard": "*x*y*"}]}, {"a": "1y2x3"}, False),
    ({"a": [{"wildcard": "a\\*z"}]}, {"a": "a*z"}, True),
    ({"a": [{"wildcard": "a\\*z"}]}, {"a": "abz"}, False),
    ({"a": [{"wildcard": "a\\\\*"}]}, {"a": "a\\b"}, True),
    # exists
    ({"a": [{"exists": True}]}, {"a": None}, True),
    ({"a": [{"exists": True}]}, {"a": []}, False),
    ({"a": [{"exists": True}]}, {"a": {"b": 1}}, False),
    ({"a": [{"exists": False}]}, {}, True),
    ({"a": [{"exists": False}]}, {"a": 1}, False),
    ({"a": {"b": [{"exists": False}]}}, {}, True),
    ({"a": {"b": [{"exists": False}]}}, {"a": [{"b": 1}, {"c": 1}]}, False),
    ({"a": ["x", {"exists": False}]}, {}, True),
    # numeric
    ({"a": [{"numeric": ["=", 5]}]}, {"a": 5.0}, True),
    ({"a": [{"numeric": [">", 0, "<=", 5]}]}, {"a": 5}, True),
    ({"a": [{"numeric": [">", 0, "<=", 5]}]}, {"a": 0}, False),
    ({"a": [{"numeric": ["<", -1.5]}]}, {"a": -2}, True),
    ({"a": [{"numeric": ["=", 5]}]}, {"a": "5"}, False),
    ({"a": [{"numeric": ["=", 0]}]}, {"a": None}, False),
    ({"a": [{"numeric": ["=", 1]}]}, {"a": True}, False),
    # cidr
    ({"a": [{"cidr": "10.0.0.0/24"}]}, {"a": "10.0.0.255"}, True),
    ({"a": [{"cidr": "10.0.0.0/24"}]}, {"a": "10.0.1.0"}, False),
    ({"a": [{"cidr": "10.0.0.0/24"}]}, {"a": "ten"}, False),
    ({"a": [{"cidr": "10.0.0.0/24"}]}, {"a": 10}, False),
    ({"a": [{"cidr": "2001:db8::/32"}]}, {"a": "2001:db8:1::1"}, True),
    ({"a": [{"cidr": "2001:db8::/32"}]}, {"a": "10.0.0.1"}, False),
    # anything-but
    ({"a": [{"anything-but": "x"}]}, {"a": "y"}, True),
    ({"a": [{"anything-but": "x"}]}, {"a": "x"}, False),
    ({"a": [{"anything-but": "x"}]}, {"a": None}, True),
    ({"a": [{"anything-but": "x"}]}, {}, False),
    ({"a": [{"anything-but": "x"}]}, {"a": ["x", "y"]}, True),
    ({"a": [{"anything-but": 0}]}, {"a": 1}, True),
    ({"a": [{"anything-but": [1, 2]}]}, {"a": 2}, False),
    ({"a": [{"anything-but": ["x", "y"]}]}, {"a": 2}, True),
    ({"a": [{"anything-but": {"prefix": "x"}}]}, {"a": "xy"}, False),
    ({"a": [{"anything-but": {"prefix": "1"}}]}, {"a": 1}, True),
    ({"a": [{"anything-but": {"prefix": ["x", "z"]}}]}, {"a": "y"}, True),
    ({"a": [{"anything-but": {"suffix": ["x", "y"]}}]}, {"a": "xy"}, False),
    ({"a": [{"anything-but": {"equals-ignore-case": ["Init", "Stop"]}}]}, {"a": "STOP"}, False),
    ({"a": [{"anything-but": {"equals-ignore-case": "Init"}}]}, {}, False),
    ({"a": [{"anything-but": {"wildcard": "*/x/*"}}]}, {"a": "1/x/2"}, False),
    ({"a": [{"anything-but": {"wildcard": ["*.txt", "*.md"]}}]}, {"a": "a.py"}, True),
    ({"a": [{"anything-but": {"wildcard": ""}}]}, {"a": "a"}, True),
    # $or
    ({"$or": [{"a": ["x"]}, {"b": ["y"]}]}, {"b": "y"}, True),
    ({"$or": [{"a": ["x"]}, {"b": ["y"]}]}, {"a": "y", "b": "x"}, False),
    ({"s": ["1"], "$or": [{"a": ["x"]}, {"b": ["y"]}]}, {"b": "y"}, False),
    ({"d": {"$or": [{"a": [{"numeric": [">", 5]}]}, {"b": [{"exists": False}]}]}}, {"d": {"a": 1}}, True),
    ({"$or": [{"a": ["x"]}, {"$or": [{"b": ["y"]}, {"c": ["z"]}]}]}, {"c": "z"}, True),
    (
        {"$or": [{"a": ["1"]}, {"a": ["2"]}], "d": {"$or": [{"b": ["3"]}, {"b": ["4"]}]}},
        {"a": "2", "d": {"b": "4"}},
        True,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("pattern", "event", "expected"), MATCHES)
def test_matches(pattern, event, expected):
    assert compile_pattern(pattern).matches(event) is expected


REFUSED = [
    ('{"int": 42}', '"int" must be an object or an array', 11),
    ('{"string": "my-value"}', '"string" must be an object or an array', 13),
    ('{"resources": []}', "Empty arrays are not allowed", 17),
    ('{"detail": {"equal": [{"NUMERIC": ["=", 5]}]}}', "Unrecognized match type NUMERIC", 36),
    ('{"my_key": [{"EXISTS": true}]}', "Unrecognized match type EXISTS", 28),
    ('{"detail": {"c-count": [{"numeric": [">", 0, ">", 0]}]}}', "Bad numeric range operator: >", 49),
    ('{"detail": {"c-count": [{"numeric": [">", 0, "<"]}]}}', "Value of < must be numeric", 50),
    ('{"detail-type": [{"equals-ignore-case": ["x"]}]}', "equals-ignore-case match pattern must be a string", 42),
    (
        '{"detail": {"state": [{"anything-but": {"equals-ignore-case": 123}}]}}',
        "Inside anything-but/equals-ignore-case list, number|start|null|boolean is not supported.",
        66,
    ),
    ('{"EventBusArn": [{"wildcard": 123}]}', "wildcard match pattern must be a string", 34),
    (
        '{"EventBusArn": [{"wildcard": "arn:aws:events:us-east-1:**:event-bus/*"}]}',
        "Consecutive wildcard characters at pos 26",
        72,
    ),
    ('{"time": [{"prefix": ["2022-07-13"]}]}', "prefix match pattern must be a string", 23),
    ('{"FileName": [{"suffix": 123}]}', "suffix match pattern must be a string", 29),
    (
        '{"detail": {"state": [{"anything-but": {"prefix": 123}}]}}',
        "prefix/suffix match pattern must be a string",
        54,
    ),
    (
        '{"detail": {"FileName": [{"anything-but": {"prefix": {"equals-ignore-case": "file"}}}]}}',
        "Value of anything-but must be an array or single string/number value.",
        55,
    ),
    ('{"detail": {"sourceIPAddress": [{"cidr": ["bad-type"]}]}}', "prefix match pattern must be a string", 43),
    (
        "this is no json",
        "Unrecognized token 'this': was expecting (JSON String, Number, Array, Object or token 'null', 'true' or "
        "'false')",
        5,
    ),
    ("{'bad': 'x'}", "Unexpected character (''' (code 39)): was expecting double-quote to start field name", 2),
    ('["not", "a", "dict"]', "Filter is not an object", 2),
    ("{}", "Empty objects are not allowed", 3),
    ('{"a": {}}', "Empty objects are not allowed", 9),
    ('{"a": [["x"]]}', "Match value must be String, number, true, false, or null", 9),
    ('{"$or": [{"a": ["x"]}]}', "There must have at least 2 Objects in $or relationship.", 23),
    ('{"$or": {"a": ["x"]}}', "It must be an Array followed with $or.", 10),
    ('{"a": [{"prefix": "x", "suffix": "y"}]}', "Only one key allowed in match expression", 35),
    ('{"a": [{"anything-but": {"suffix": ""}}]}', "Null prefix/suffix not allowed", 38),
    ('{"a": [{"exists": "yes"}]}', "exists match pattern must be either true or false.", 20),
    ('{"a": [{"numeric": ["!", 1]}]}', "Unrecognized numeric range operator: !", 27),
    ('{"a": [{"numeric": [">", 5, "<", 1]}]}', "Bottom must be less than top", 36),
]


@pytest.mark.parametrize(("text", "reason", "column"), REFUSED)
def test_refused_with_reason_and_place(text, reason, column):
    with pytest.raises(PatternError) as caught:
        compile_pattern(text)
    assert caught.value.reason == reason
    assert (caught.value.line, caught.value.column) == (1, column)
    assert str(caught.value) == f'{reason}\n at [Source: (String)"{text}"; line: 1, column: {column}]'


@pytest.mark.parametrize(
    ("operand", "reason"),
    [
        ({"cidr": "10.0.0.0"}, "Malformed CIDR, one '/' required"),
        ({"cidr": "10.0.0.0/x"}, "Malformed CIDR, mask bits must be an integer"),
        ({"cidr": "xx.11.xx/8"}, "Nonstandard IP address: xx.11.xx"),
        (
            {"wildcard": "*:*:*:*:*:event-bus/*"},
            "Rule is too complex - try using fewer wildcard characters or fewer repeating character sequences after a "
            "wildcard character",
        ),
    ],
)
def test_refused_without_a_place(operand, reason):
    with pytest.raises(PatternError) as caught:
        compile_pattern({"a": [operand]})
    assert str(caught.value) == caught.value.reason == reason


@pytest.mark.parametrize(
    ("operand", "column"), [({"prefix": [123, "test"]}, 55), ({"wildcard": [123, "*/dir/*"]}, 57)]
)
def test_a_list_inside_anything_but_names_the_place_twice(operand, column):
    with pytest.raises(PatternError) as caught:
        compile_pattern({"detail": {"state": [{"anything-but": operand}]}})
    assert str(caught.value).count(f"line: 1, column: {column}]") == 2


def test_the_place_counts_lines():
    with pytest.raises(PatternError) as caught:
        compile_pattern('{\n  "a": [\n    {"nonsense": 1}\n  ]\n}')
    assert (caught.value.line, caught.value.column) == (3, 19)


def test_a_leaf_by_itself():
    assert compile_leaf({"prefix": "x"}).test("xy")
    assert compile_leaf({"exists": False}).absent
    assert not compile_leaf("x").absent
    with pytest.raises(PatternError):
        compile_leaf({"numeric": "5"})

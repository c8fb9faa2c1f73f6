"""Filter criteria: what is Lambda's own about them. The language itself is tested with its module."""

import json

import pytest

from preheat.services.awslambda.patterns import PatternError, check_filter, compile_filters

ORDER = '{"kind":"order","total":50}'


def matches(body, *patterns, **record):
    return compile_filters(tuple(json.dumps(pattern) for pattern in patterns))({"body": body, **record})


@pytest.mark.parametrize(
    ("body", "pattern", "expected"),
    [
        (ORDER, {"body": {"kind": ["order"]}}, True),
        (ORDER, {"body": {"kind": ["note"]}}, False),
        (ORDER, {"body": {"total": [{"numeric": [">", 10, "<=", 50]}]}}, True),
        (ORDER, {"body": {"kind": [{"anything-but": ["note"]}], "total": [50]}}, True),
        (ORDER, {"body": {"missing": [{"exists": False}]}}, True),
        ("order", {"body": ["order"]}, True),
        ("order", {"body": [{"prefix": "or"}]}, True),
        ("order", {"body": [{"suffix": {"equals-ignore-case": "DER"}}]}, True),
        ("order", {"body": [{"wildcard": "o*r"}]}, True),
        ("10.0.0.7", {"body": [{"cidr": "10.0.0.0/24"}]}, True),
        ("10.0.1.7", {"body": [{"cidr": "10.0.0.0/24"}]}, False),
        # a JSON body never matches a text filter, nor text a JSON filter, whatever they say
        (ORDER, {"body": [{"anything-but": "order"}]}, False),
        (ORDER, {"body": [{"prefix": "{"}]}, False),
        (ORDER, {"body": [{"exists": True}]}, False),
        ("order", {"body": {"kind": [{"exists": False}]}}, False),
        ("{broken", {"body": {"kind": [{"exists": False}]}}, False),
        ("{broken", {"body": [{"prefix": "{"}]}, True),
        # without a body filter only the rest of the record counts
        (ORDER, {"eventSource": ["aws:sqs"]}, True),
        ("order", {"eventSource": ["aws:sqs"]}, True),
        ("order", {"eventSource": ["aws:s3"]}, False),
        ("order", {"body": ["order"], "eventSource": ["aws:s3"]}, False),
    ],
)
def test_body_and_metadata(body, pattern, expected):
    assert matches(body, pattern, eventSource="aws:sqs") is expected


def test_any_pattern_suffices():
    patterns = ({"body": ["a"]}, {"body": {"a": [1]}}, {"attributes": {"SenderId": ["me"]}})
    assert matches("a", *patterns) and matches('{"a":1}', *patterns) and matches("z", *patterns, attributes={
        "SenderId": "me"
    })  # fmt: skip
    assert not matches("z", *patterns) and not matches('{"a":2}', *patterns)


@pytest.mark.parametrize(
    "text", ["{a:", "[]", "5", '{"body": []}', '{"body": "x"}', '{"body": [{"numeric": ["~", 5]}]}',
             '{"body": [{"PREFIX": "x"}]}', '{"$or": [{"body": ["x"]}]}']
)  # fmt: skip
def test_what_is_no_pattern(text):
    with pytest.raises(PatternError):
        check_filter(text)

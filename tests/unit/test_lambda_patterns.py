"""The event pattern language."""

import pytest

from preheat.services.awslambda.patterns import PatternError, compile_pattern, compile_text

MATCHES = [
    ({"a": ["x"]}, {"a": "x"}, True),
    ({"a": ["x"]}, {"a": "y"}, False),
    ({"a": ["x"]}, {}, False),
    ({"a": ["x", "y"], "b": [1]}, {"a": "y", "b": 1}, True),
    ({"a": ["x"], "b": [1]}, {"a": "x"}, False),
    ({"a": {"b": ["x"]}}, {"a": {"b": "x"}}, True),
    ({"a": {"b": ["x"]}}, {"a": "x"}, False),
    ({"a": [None]}, {"a": None}, True),
    ({"a": [None]}, {}, False),
    ({"a": [True]}, {"a": 1}, False),
    ({"a": [1]}, {"a": True}, False),
    ({"a": [300]}, {"a": 300.0}, True),
    ({"a": ["x"]}, {"a": ["z", "x"]}, True),
    ({"a": ["x"]}, {"a": []}, False),
    ({"a": {"b": ["x"]}}, {"a": [{"b": "y"}, {"b": "x"}]}, True),
    ({"a": {"b": ["x"], "c": ["y"]}}, {"a": [{"b": "x"}, {"c": "y"}]}, False),
    ({"a": [{"prefix": "us-"}]}, {"a": "us-east-1"}, True),
    ({"a": [{"prefix": ""}]}, {"a": "anything"}, True),
    ({"a": [{"prefix": "us-"}]}, {"a": 5}, False),
    ({"a": [{"prefix": {"equals-ignore-case": "US-"}}]}, {"a": "us-east-1"}, True),
    ({"a": [{"suffix": ".pdf"}]}, {"a": "x.pdf"}, True),
    ({"a": [{"suffix": ".pdf"}]}, {"a": "x.PDF"}, False),
    ({"a": [{"equals-ignore-case": "Yes"}]}, {"a": "yES"}, True),
    ({"a": [{"wildcard": "a*z"}]}, {"a": "a to z"}, True),
    ({"a": [{"wildcard": "a\\*z"}]}, {"a": "a*z"}, True),
    ({"a": [{"wildcard": "a\\*z"}]}, {"a": "abz"}, False),
    ({"a": [{"exists": True}]}, {"a": None}, True),
    ({"a": [{"exists": True}]}, {}, False),
    ({"a": [{"exists": False}]}, {}, True),
    ({"a": [{"exists": False}]}, {"a": 1}, False),
    ({"a": {"b": [{"exists": False}]}}, {}, True),
    ({"a": [{"numeric": ["=", 5]}]}, {"a": 5.0}, True),
    ({"a": [{"numeric": [">", 0, "<=", 5]}]}, {"a": 5}, True),
    ({"a": [{"numeric": [">", 0, "<=", 5]}]}, {"a": 0}, False),
    ({"a": [{"numeric": ["<", 5]}]}, {"a": "3"}, False),
    ({"a": [{"anything-but": "x"}]}, {"a": "y"}, True),
    ({"a": [{"anything-but": ["x", "y"]}]}, {"a": "y"}, False),
    ({"a": [{"anything-but": "x"}]}, {}, False),
    ({"a": [{"anything-but": "x"}]}, {"a": None}, True),
    ({"a": [{"anything-but": {"prefix": "init"}}]}, {"a": "initial"}, False),
    ({"a": [{"anything-but": {"suffix": [".a", ".b"]}}]}, {"a": "x.c"}, True),
    ({"a": [{"anything-but": [1, 2]}]}, {"a": 3}, True),
    ({"$or": [{"a": [1]}, {"b": [2]}]}, {"b": 2}, True),
    ({"$or": [{"a": [1]}, {"b": [2]}]}, {"a": 2, "b": 1}, False),
    ({"c": {"$or": [{"a": [1]}, {"b": [2]}]}}, {"c": {"a": 1}}, True),
]


@pytest.mark.parametrize(("pattern", "event", "expected"), MATCHES)
def test_matches(pattern, event, expected):
    assert compile_pattern(pattern)(event) is expected


@pytest.mark.parametrize(
    "pattern",
    [
        [], {}, "x", {"a": []}, {"a": "x"}, {"a": 5}, {"a": [["x"]]}, {"a": [{"NUMERIC": ["=", 1]}]},
        {"$or": [{"a": [1]}]},
        {"a": [{"prefix": 5}]}, {"a": [{"prefix": ["a"]}]}, {"a": [{"exists": "yes"}]}, {"a": [{"numeric": ["~", 5]}]},
        {"a": [{"numeric": ["=", "5"]}]}, {"a": [{"numeric": ["<", 5, ">", 0]}]}, {"a": [{"anything-but": []}]},
        {"a": [{"anything-but": ["x", 1]}]}, {"a": [{"anything-but": {"prefix": ""}}]}, {"a": [{"wildcard": "a**b"}]},
        {"a": [{"anything-but": {"numeric": ["=", 1]}}]}, {"a": [{"prefix": "a", "suffix": "b"}]},
    ],
)  # fmt: skip
def test_patterns_that_are_none(pattern):
    with pytest.raises(PatternError):
        compile_pattern(pattern)


def test_text_that_is_no_json():
    with pytest.raises(PatternError):
        compile_text("{a:")

"""Filter patterns."""

import json

import pytest

from preheat.services.logs.patterns import BadPattern, compile_pattern

DOCUMENT = json.dumps(
    {
        "eventType": "UpdateTrail",
        "n": 5,
        "ok": True,
        "none": None,
        "user": {"name": "anna", "tags": [{"flag": 1}, {"flag": 2}]},
        "a-b": "dash",
    }
)


@pytest.mark.parametrize(
    ("pattern", "message", "expected"),
    [
        ("", "anything", True),
        ("ERROR", "an ERROR here", True),
        ("ERROR", "an error here", False),
        ("ERROR timeout", "ERROR: timeout", True),
        ("ERROR timeout", "ERROR: refused", False),
        ('"task timed out"', "the task timed out", True),
        ('"task timed out"', "task was timed out", False),
        ("ERROR -Exit", "ERROR Exit 1", False),
        ("ERROR -Exit", "ERROR 1", True),
        ('ERROR -"Exit 1"', "ERROR Exit 2", True),
        ("?ERROR ?WARN", "WARN low", True),
        ("?ERROR ?WARN", "INFO low", False),
        ("%4[0-9]{2}%", "status 404", True),
        ("%4[0-9]{2}%", "status 504", False),
        ('"say \\"x\\""', 'say "x"', True),
    ],
)
def test_terms(pattern, message, expected):
    assert compile_pattern(pattern)(message) is expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ('{ $.eventType = "UpdateTrail" }', True),
        ('{ $.eventType = "Update*" }', True),
        ('{ $.eventType != "Update*" }', False),
        ("{ $.eventType = UpdateTrail }", True),
        ("{ $.eventType = * }", True),
        ("{ $.missing = * }", False),
        ("{ $.eventType = %^Upd% }", True),
        ("{ $.n = 5 }", True),
        ("{ $.n > 4.5 && $.n <= 5 }", True),
        ("{ $.n < 1e2 }", True),
        ("{ $.n != 5 }", False),
        ("{ $.ok IS TRUE }", True),
        ("{ $.ok IS FALSE }", False),
        ("{ $.none IS NULL }", True),
        ("{ $.missing IS NULL }", False),
        ("{ $.missing NOT EXISTS }", True),
        ("{ $.n NOT EXISTS }", False),
        ("{ $.user.tags[1].flag = 2 }", True),
        ("{ $.user.tags[0].flag = 2 }", False),
        ("{ $.user.tags[*].flag = 2 }", True),
        ("{ $.a-b = dash }", True),
        ('{ $["user"]["name"] = "anna" }', True),
        ("{ $.n = 1 || $.n = 5 && $.ok IS TRUE }", True),
        ("{ ($.n = 5 || $.n = 1) && $.ok IS FALSE }", False),
        ("{ $.n = 5 || $.n = 1 && $.ok IS FALSE }", True),
    ],
)
def test_json(pattern, expected):
    assert compile_pattern(pattern)(DOCUMENT) is expected


def test_a_json_pattern_never_matches_text():
    assert compile_pattern("{ $.x NOT EXISTS }")("plain text") is False
    assert compile_pattern("{ $.x NOT EXISTS }")("{broken") is False


@pytest.mark.parametrize(
    "pattern",
    [
        "{ $.a = }",
        "{ a = 1 }",
        "{ $.a > x }",
        "{ ($.a = 1 }",
        "{ $.a = 1",
        "[a, b",
        "[a, b = ]",
        "[..., a, ...]",
        "[1a]",
        "[a, b = 1 && c = 2]",
        "%(%",
        "%(a+)+b%",
        "{ " + "(" * 400 + "}",
    ],
)
def test_unreadable(pattern):
    with pytest.raises(BadPattern):
        compile_pattern(pattern)


LINE = '127.0.0.1 Prod frank [10/Oct/2000:13:25:15 -0700] "GET /index.html HTTP/1.0" 404 1534'


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("[ip, user, name, time, request = *.html*, status = 4*, bytes]", True),
        ("[ip, user, name, time, request, status, bytes > 1000]", True),
        ("[ip, user, name, time, request, status, bytes < 1000]", False),
        ("[ip, user, name, time, request, status = 404 || status = 410, bytes]", True),
        ("[..., request = *.html*, status = 4*, bytes]", True),
        ('[ip, user = "Prod", ...]', True),
        ("[ip, user != Prod, ...]", False),
        ("[ip, (user = Prod || user = Test) && user != Test, ...]", True),
        (r"[ip = %127\.0\.0\.[0-9]%, ...]", True),
        ("[ip, ..., bytes]", True),
        ("[a, b]", False),
        ("[...]", True),
        ("[user > 5, ...]", False),
    ],
)
def test_words(pattern, expected):
    assert compile_pattern(pattern)(LINE) is expected

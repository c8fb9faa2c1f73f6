"""What targets are sent: Input, InputPath, InputTransformer."""

import json

import pytest

from preheat.kernel.errors import AwsError
from preheat.services.events import transform

EVENT = {
    "version": "0", "id": "i-1", "detail-type": "order", "source": "shop", "account": "1", "time": "T", "region": "r",
    "resources": ["arn:a", "arn:b"],
    "detail": {
        "command": 'say "hi"\n', "n": 5, "ok": True, "none": None, "list": [{"x": 1}, {"x": 2}, {"y": 3}],
        "inner": {"a": 1, "b": "two"}, "a-b": "dash",
    },
}  # fmt: skip


def sent(template=None, paths=None, **target):
    if template is not None:
        target["InputTransformer"] = {"InputTemplate": template, "InputPathsMap": paths or {}}
    target = {"Id": "t", **target}
    transform.check(target)
    return transform.body(target, EVENT, json.dumps(EVENT), "arn:rule", "rule", "2026-01-01T00:00:00Z")


def test_nothing_given_is_the_event():
    assert json.loads(sent()) == EVENT


def test_a_constant_is_sent_as_it_is():
    assert sent(Input='{"a": 1}') == '{"a": 1}'


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("$", EVENT),
        ("$.detail.inner", {"a": 1, "b": "two"}),
        ("$.detail.inner.b", "two"),
        ("$.detail['a-b']", "dash"),
        ("$.detail.a-b", "dash"),
        ("$.detail-type", "order"),
        ("$.resources[1]", "arn:b"),
        ("$.detail.list[*].x", [1, 2]),
        ("$.detail.none", None),
    ],
)
def test_a_part(path, expected):
    assert json.loads(sent(InputPath=path)) == expected


@pytest.mark.parametrize(
    ("template", "paths", "expected"),
    [
        ('"An <t> event of <s>, n is <n>"', {"t": "$.detail-type", "s": "$.source", "n": "$.detail.n"},
         '"An order event of shop, n is 5"'),
        ('"missing: <m>"', {"m": "$.detail.nowhere"}, '"missing: "'),
        ('"first <a>"\n"second <b>"', {"a": "$.id", "b": "$.source"}, '"first i-1"\n"second shop"'),
        ('{"a": <a>, "n": <n>, "ok": <o>}', {"a": "$.source", "n": "$.detail.n", "o": "$.detail.ok"},
         '{"a": "shop", "n": 5, "ok": true}'),
        ('{"whole": <i>, "list": <l>}', {"i": "$.detail.inner", "l": "$.resources"},
         '{"whole": {"a":1,"b":"two"}, "list": ["arn:a","arn:b"]}'),
        ('{"text": "<a> costs <n>"}', {"a": "$.source", "n": "$.detail.n"}, '{"text": "shop costs 5"}'),
        ('{"text": "<i>"}', {"i": "$.detail.inner"}, '{"text": "{a:1,b:two}"}'),
        ('{"none": <x>}', {"x": "$.detail.none"}, '{"none": null}'),
        ('{"arn": "<aws.events.rule-arn>", "name": <aws.events.rule-name>}', {}, '{"arn": "arn:rule", "name": "rule"}'),
        ('{"at": <aws.events.event.ingestion-time>}', {}, '{"at": "2026-01-01T00:00:00Z"}'),
        ("<v>", {"v": "$.detail.n"}, "5"),
    ],
)  # fmt: skip
def test_templates(template, paths, expected):
    assert sent(template, paths) == expected


def test_a_text_is_escaped_inside_quotes():
    assert json.loads(sent('{"c": "<c>", "d": <c>}', {"c": "$.detail.command"})) == {
        "c": 'say "hi"\n', "d": 'say "hi"\n'
    }  # fmt: skip


def test_the_event_in_a_template():
    assert json.loads(sent('{"e": <aws.events.event.json>}')) == {"e": EVENT}
    without = {name: value for name, value in EVENT.items() if name not in ("detail", "detail-type")}
    without["detailType"] = EVENT["detail-type"]
    assert json.loads(sent('{"e": <aws.events.event>}')) == {"e": without}


@pytest.mark.parametrize(
    ("template", "paths"),
    [
        ("plain text", {}),
        ('{"a": }', {}),
        ('"unclosed', {}),
        ('"a" and more', {}),
        ('"<a>"', {"a": "detail"}),
        ('"<a>"', {"a": "$.x["}),
    ],
)
def test_templates_that_are_refused(template, paths):
    with pytest.raises(AwsError) as caught:
        sent(template, paths)
    assert caught.value.code == "ValidationException"


def test_paths_that_are_refused():
    with pytest.raises(AwsError):
        sent(InputPath="detail")

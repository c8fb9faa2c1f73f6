"""Expressions: what holds of an item, what an update makes of it, and how mistakes are told."""

import pytest

from preheat.kernel.errors import AwsError
from preheat.services.dynamodb.expressions import ExpressionCache, bind
from preheat.services.dynamodb.paths import project

ITEM = {
    "pk": {"S": "a"},
    "n": {"N": "5"},
    "words": {"S": "hello world"},
    "bin1": {"B": b"\x01\x02\x03"},
    "yes": {"BOOL": True},
    "tags": {"SS": ["blue", "red"]},
    "nums": {"NS": ["1", "2"]},
    "list1": {"L": [{"S": "x"}, {"N": "2"}, {"M": {"deep": {"N": "7"}}}]},
    "m": {"M": {"a": {"N": "1"}, "b": {"M": {"c": {"S": "end"}}}}},
}
VALUES = {
    ":five": {"N": "5.0"},
    ":six": {"N": "6"},
    ":ten": {"N": "10"},
    ":hello": {"S": "hello"},
    ":red": {"S": "red"},
    ":one": {"N": "1"},
    ":x": {"S": "x"},
    ":S": {"S": "S"},
    ":bytes": {"B": b"\x01\x02"},
    ":set": {"SS": ["red", "blue"]},
    ":true": {"BOOL": True},
    ":three": {"N": "3"},
}


def used(text, values=VALUES):
    names = [name for name in values if any(part == name for part in split(text))]
    return {name: values[name] for name in names}


def split(text):
    for mark in "(),=<>+-[]":
        text = text.replace(mark, " ")
    return text.split()


def holds(text, item=ITEM):
    params = {"ConditionExpression": text}
    values = used(text)
    if values:
        params["ExpressionAttributeValues"] = values
    bindings = bind(ExpressionCache(), params)
    condition = bindings.condition()
    bindings.close()
    return condition.holds(item)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n = :five", True),
        ("n <> :five", False),
        ("absent <> :five", True),
        ("absent = :five", False),
        ("NOT absent = :five", True),
        ("n < :ten", True),
        ("n > :hello", False),
        ("n >= :five AND n <= :five", True),
        ("n BETWEEN :one AND :ten", True),
        ("n BETWEEN :six AND :ten", False),
        ("n IN (:one, :five)", True),
        ("pk IN (:x, :red)", False),
        ("attribute_exists(m.b.c)", True),
        ("attribute_exists(m.b.d)", False),
        ("attribute_not_exists(zzz)", True),
        ("attribute_type(pk, :S)", True),
        ("attribute_type(n, :S)", False),
        ("begins_with(words, :hello)", True),
        ("begins_with(bin1, :bytes)", True),
        ("contains(tags, :red)", True),
        ("contains(nums, :one)", True),
        ("contains(list1, :x)", True),
        ("contains(bin1, :bytes)", True),
        ("tags = :set", True),
        ("yes = :true", True),
        ("size(list1) = :three", True),
        ("size(tags) < :three", True),
        ("size(n) = :one", False),
        ("list1[2].deep > :six", True),
        ("m.a = :one", True),
        ("n = :one OR n = :five AND m.a = :one", True),
        ("(n = :one OR n = :five) AND m.a = :ten", False),
        ("NOT (n = :one) AND n = :five", True),
        ("m.a = list1[5]", False),
    ],
)
def test_conditions(text, expected):
    assert holds(text) is expected


def problem(kind, text, values=None, names=None):
    params = {kind: text}
    if values is not None:
        params["ExpressionAttributeValues"] = values
    if names is not None:
        params["ExpressionAttributeNames"] = names
    with pytest.raises(AwsError) as caught:
        bindings = bind(ExpressionCache(), params)
        if kind == "UpdateExpression":
            bindings.update()
        elif kind == "ProjectionExpression":
            bindings.projection()
        else:
            bindings.condition(kind)
        bindings.close()
    assert caught.value.code == "ValidationException"
    return caught.value.message


@pytest.mark.parametrize(
    ("text", "values", "names", "message"),
    [
        ("", None, None, "Invalid ConditionExpression: The expression can not be empty;"),
        ("a =", None, None, 'Invalid ConditionExpression: Syntax error; token: "<EOF>", near: "="'),
        ("a ; b", None, None, 'Invalid ConditionExpression: Syntax error; token: ";", near: "a ; b"'),
        (
            "name = :v",
            {":v": {"S": "x"}},
            None,
            "Invalid ConditionExpression: Attribute name is a reserved keyword; reserved keyword: name",
        ),
        (
            "#a = :v",
            {":v": {"S": "x"}},
            None,
            "Invalid ConditionExpression: An expression attribute name used in the document path is not defined; "
            "attribute name: #a",
        ),
        (
            "a = :v",
            None,
            None,
            "Invalid ConditionExpression: An expression attribute value used in expression is not defined; "
            "attribute value: :v",
        ),
        (
            "a = :v",
            {":v": {"S": "x"}, ":w": {"S": "y"}},
            None,
            "Value provided in ExpressionAttributeValues unused in expressions: keys: {:w}",
        ),
        (
            "a = :v",
            {":v": {"S": "x"}},
            {"#b": "b"},
            "Value provided in ExpressionAttributeNames unused in expressions: keys: {#b}",
        ),
        ("foo(a)", None, None, "Invalid ConditionExpression: Invalid function name; function: foo"),
        (
            "size(a)",
            None,
            None,
            "Invalid ConditionExpression: The function is not allowed to be used this way in an expression; "
            "function: size",
        ),
        (
            "if_not_exists(a, b) = c",
            None,
            None,
            "Invalid ConditionExpression: The function is not allowed in a condition expression; "
            "function: if_not_exists",
        ),
        (
            "attribute_exists(:v)",
            {":v": {"S": "x"}},
            None,
            "Invalid ConditionExpression: Operator or function requires a document path; "
            "operator or function: attribute_exists",
        ),
        (
            "begins_with(a)",
            None,
            None,
            "Invalid ConditionExpression: Incorrect number of operands for operator or function; "
            "operator or function: begins_with, number of operands: 1",
        ),
        (
            "begins_with(a, :v)",
            {":v": {"N": "1"}},
            None,
            "Invalid ConditionExpression: Incorrect operand type for operator or function; "
            "operator or function: begins_with, operand type: N",
        ),
        (
            "a < :v",
            {":v": {"BOOL": True}},
            None,
            "Invalid ConditionExpression: Incorrect operand type for operator or function; "
            "operator or function: <, operand type: BOOL",
        ),
        (
            "a BETWEEN :v AND :w",
            {":v": {"N": "2"}, ":w": {"N": "1"}},
            None,
            "Invalid ConditionExpression: The BETWEEN operator requires upper bound to be greater than or equal to "
            "lower bound; lower bound operand: AttributeValue: {N:2}, upper bound operand: AttributeValue: {N:1}",
        ),
        (
            "a = a",
            None,
            None,
            "Invalid ConditionExpression: The first operand must be distinct from the remaining operands for this "
            "operator or function; operator: =, first operand: [a]",
        ),
        (
            "((a = :v))",
            {":v": {"N": "2"}},
            None,
            "Invalid ConditionExpression: The expression has redundant parentheses;",
        ),
        ("a = :v", {}, None, "ExpressionAttributeValues must not be empty"),
        (
            "a = :v",
            {"v": {"N": "1"}},
            None,
            'ExpressionAttributeValues contains invalid key: Syntax error; key: "v"',
        ),
        (
            "a = :v",
            {":v": {"N": "x"}},
            None,
            "ExpressionAttributeValues contains invalid value: The parameter cannot be converted to a numeric value: x "
            "for key :v",
        ),
    ],
)
def test_mistakes_in_conditions(text, values, names, message):
    assert problem("ConditionExpression", text, values, names) == message


@pytest.mark.parametrize(
    "text", ["(" * 1_000 + "a", "NOT " * 900 + "a = :v", "a = " + "(" * 1_000 + ":v", "a" + ".b" * 40 + " = :v"]
)
def test_depth_is_bounded(text):
    assert "nest" in problem("ConditionExpression", text, {":v": {"N": "1"}})
    assert "nest" in problem("UpdateExpression", "SET a = " + "(" * 1_000 + ":v", {":v": {"N": "1"}})


def apply(text, item=ITEM, values=VALUES):
    params = {"UpdateExpression": text, "ExpressionAttributeValues": used(text, values)}
    if not params["ExpressionAttributeValues"]:
        del params["ExpressionAttributeValues"]
    bindings = bind(ExpressionCache(), params)
    update = bindings.update()
    bindings.close()
    before = repr(item)
    new = update.plan.apply(item, update.values)
    assert repr(item) == before, "the stored item must not change"
    return new


def test_set():
    new = apply("SET n = n + :one, a = :hello, m.b.z = :x, list1[9] = :x, c = if_not_exists(c, :ten) - :one")
    assert new["n"] == {"N": "6"}
    assert new["a"] == {"S": "hello"}
    assert new["m"]["M"]["b"] == {"M": {"c": {"S": "end"}, "z": {"S": "x"}}}
    assert new["list1"]["L"][3] == {"S": "x"}
    assert new["c"] == {"N": "9"}


def test_set_reads_the_item_before_the_update():
    new = apply("SET n = :ten, copy1 = n")
    assert (new["n"], new["copy1"]) == ({"N": "10"}, {"N": "5"})


def test_list_append_keeps_order():
    zero = {":l": {"L": [{"N": "0"}]}}
    new = apply("SET list1 = list_append(:l, list1), again = list_append(list1, :l)", values=zero)
    assert new["list1"]["L"][0] == {"N": "0"}
    assert new["again"]["L"][-1] == {"N": "0"}


def test_remove_uses_the_places_before_the_update():
    new = apply("REMOVE list1[0], list1[1], m.b.c, zzz")
    assert new["list1"] == {"L": [{"M": {"deep": {"N": "7"}}}]}
    assert new["m"]["M"]["b"] == {"M": {}}


def test_add_and_delete():
    sets = {":more": {"SS": ["green", "red"]}, ":gone": {"NS": ["1", "2"]}}
    new = apply("ADD n :one, fresh :ten, tags :more DELETE nums :gone", values=VALUES | sets)
    assert new["n"] == {"N": "6"}
    assert new["fresh"] == {"N": "10"}
    assert new["tags"] == {"SS": ["blue", "green", "red"]}
    assert "nums" not in new


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SET n = zzz + :one", "The provided expression refers to an attribute that does not exist in the item"),
        ("SET n = pk + :one", "An operand in the update expression has an incorrect data type"),
        ("SET zzz.a = :one", "The document path provided in the update expression is invalid for update"),
        ("SET pk[0] = :one", "The document path provided in the update expression is invalid for update"),
        ("ADD pk :one", "An operand in the update expression has an incorrect data type"),
    ],
)
def test_updates_that_do_not_fit_the_item(text, message):
    with pytest.raises(AwsError) as caught:
        apply(text)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("text", "values", "message"),
    [
        (
            "SET a = :v SET b = :v",
            {":v": {"N": "1"}},
            'Invalid UpdateExpression: The "SET" section can only be used once in an update expression;',
        ),
        (
            "SET a = :v, a.b = :v",
            {":v": {"N": "1"}},
            "Invalid UpdateExpression: Two document paths overlap with each other; must remove or rewrite one of "
            "these paths; path one: [a], path two: [a, b]",
        ),
        (
            "SET a.b = :v, a[0] = :v",
            {":v": {"N": "1"}},
            "Invalid UpdateExpression: Two document paths conflict with each other; must remove or rewrite one of "
            "these paths; path one: [a, b], path two: [a, [0]]",
        ),
        (
            "ADD a :v",
            {":v": {"S": "x"}},
            "Invalid UpdateExpression: Incorrect operand type for operator or function; operator: ADD, "
            "operand type: STRING, typeSet: ALLOWED_FOR_ADD_OPERAND",
        ),
        (
            "DELETE a :v",
            {":v": {"N": "1"}},
            "Invalid UpdateExpression: Incorrect operand type for operator or function; operator: DELETE, "
            "operand type: NUMBER, typeSet: ALLOWED_FOR_DELETE_OPERAND",
        ),
        (
            "SET a = b + :v",
            {":v": {"S": "x"}},
            "Invalid UpdateExpression: Incorrect operand type for operator or function; operator or function: +, "
            "operand type: S",
        ),
        ("FOO a = :v", {":v": {"N": "1"}}, 'Invalid UpdateExpression: Syntax error; token: "FOO", near: "FOO a"'),
    ],
)
def test_mistakes_in_updates(text, values, message):
    assert problem("UpdateExpression", text, values) == message


def test_projection_keeps_places():
    bindings = bind(
        ExpressionCache(),
        {"ProjectionExpression": "n, m.b.c, list1[2], list1[0], #z", "ExpressionAttributeNames": {"#z": "zzz"}},
    )
    wanted = bindings.projection()
    bindings.close()
    assert project(ITEM, wanted) == {
        "n": {"N": "5"},
        "m": {"M": {"b": {"M": {"c": {"S": "end"}}}}},
        "list1": {"L": [{"S": "x"}, {"M": {"deep": {"N": "7"}}}]},
    }
    assert "overlap" in problem("ProjectionExpression", "a, a.b")
    assert "Syntax error" in problem("ProjectionExpression", "a b")


def test_compiled_expressions_are_reused():
    cache = ExpressionCache()
    for _ in range(3):
        bind(cache, {"ProjectionExpression": "a, b"}).projection()
    assert cache.compiled.cache_info().hits == 2

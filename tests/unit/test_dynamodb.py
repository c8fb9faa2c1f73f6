"""DynamoDB, operation by operation, under a clock that the test moves."""

import pytest

from preheat.kernel.errors import AwsError
from preheat.services.dynamodb.service import build
from tests.support.inprocess import InProcess

WIDE = {
    "TableName": "wide",
    "AttributeDefinitions": [
        {"AttributeName": "pk", "AttributeType": "S"},
        {"AttributeName": "sk", "AttributeType": "N"},
        {"AttributeName": "g", "AttributeType": "S"},
        {"AttributeName": "l", "AttributeType": "S"},
    ],
    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
    "BillingMode": "PAY_PER_REQUEST",
    "GlobalSecondaryIndexes": [
        {
            "IndexName": "by-g",
            "KeySchema": [{"AttributeName": "g", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
            "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["title"]},
        }
    ],
    "LocalSecondaryIndexes": [
        {
            "IndexName": "by-l",
            "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "l", "KeyType": "RANGE"}],
            "Projection": {"ProjectionType": "KEYS_ONLY"},
        }
    ],
}
SLIM = {
    "TableName": "slim",
    "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
    "BillingMode": "PAY_PER_REQUEST",
}


@pytest.fixture
def ddb():
    world = InProcess(build)
    for loop in world.machine.services["dynamodb"].loops:
        world.machine.add_loop(loop)

    def call(operation, **params):
        return world("dynamodb", operation, **params)

    call.world = world
    call("CreateTable", **SLIM)
    call("CreateTable", **WIDE)
    return call


def refused(ddb, operation, **params):
    with pytest.raises(AwsError) as caught:
        ddb(operation, **params)
    return caught.value.code, caught.value.message


def item(pk, sk, **more):
    return {"pk": {"S": pk}, "sk": {"N": str(sk)}, **{name: {"S": value} for name, value in more.items()}}


def put(ddb, pk, sk, **more):
    ddb("PutItem", TableName="wide", Item=item(pk, sk, **more))


def query(ddb, condition="pk = :p", values=None, **more):
    values = {":p": {"S": "a"}} if values is None else values
    return ddb(
        "Query", TableName="wide", KeyConditionExpression=condition, ExpressionAttributeValues=values, **more
    )


def numbers_of(reply):
    return [int(entry["sk"]["N"]) for entry in reply["Items"]]


# -- tables -----------------------------------------------------------------------------------------------------------


def test_a_table_is_described(ddb):
    put(ddb, "a", 1, g="x", l="y")
    table = ddb("DescribeTable", TableName="wide")["Table"]
    assert (table["TableStatus"], table["ItemCount"], table["TableSizeBytes"]) == ("ACTIVE", 1, 11)
    assert table["TableArn"] == "arn:aws:dynamodb:us-east-1:000000000000:table/wide"
    assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    (index,) = table["GlobalSecondaryIndexes"]
    assert (index["IndexStatus"], index["ItemCount"]) == ("ACTIVE", 1)
    assert table["LocalSecondaryIndexes"][0]["IndexArn"].endswith("table/wide/index/by-l")
    assert ddb("DescribeTable", TableName=table["TableArn"])["Table"]["TableName"] == "wide"
    assert ddb("ListTables", Limit=1) == {"TableNames": ["slim"], "LastEvaluatedTableName": "slim"}
    assert ddb("ListTables", ExclusiveStartTableName="slim") == {"TableNames": ["wide"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"TableName": "x"}, "TableName must be at least 3 characters long and at most 255 characters long"),
        (
            {"AttributeDefinitions": []},
            "One or more parameter values were invalid: Some index key attributes are not defined in "
            "AttributeDefinitions. Keys: [pk], AttributeDefinitions: []",
        ),
        (
            {"BillingMode": "PROVISIONED"},
            "One or more parameter values were invalid: ReadCapacityUnits and WriteCapacityUnits must both be "
            "specified when BillingMode is PROVISIONED",
        ),
        (
            {"ProvisionedThroughput": {"ReadCapacityUnits": 1, "WriteCapacityUnits": 1}},
            "One or more parameter values were invalid: Neither ReadCapacityUnits nor WriteCapacityUnits can be "
            "specified when BillingMode is PAY_PER_REQUEST",
        ),
        (
            {"AttributeDefinitions": [*SLIM["AttributeDefinitions"], {"AttributeName": "b", "AttributeType": "S"}]},
            "One or more parameter values were invalid: Number of attributes in KeySchema does not exactly match "
            "number of attributes defined in AttributeDefinitions",
        ),
        (
            {"LocalSecondaryIndexes": WIDE["LocalSecondaryIndexes"]},
            "One or more parameter values were invalid: Table KeySchema does not have a range key, which is required "
            "when specifying a LocalSecondaryIndex",
        ),
        (
            {"StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"}},
            "One or more parameter values were invalid: Preheat does not support table streams yet: "
            "StreamSpecification must not be enabled",
        ),
    ],
)
def test_tables_that_cannot_be(ddb, change, message):
    assert refused(ddb, "CreateTable", **{**SLIM, "TableName": "third", **change}) == ("ValidationException", message)
    assert ddb("ListTables")["TableNames"] == ["slim", "wide"]


def test_names_are_taken_and_freed(ddb):
    assert refused(ddb, "CreateTable", **SLIM) == ("ResourceInUseException", "Table already exists: slim")
    ddb("PutItem", TableName="slim", Item={"pk": {"S": "old"}})
    assert ddb("DeleteTable", TableName="slim")["TableDescription"]["TableStatus"] == "DELETING"
    assert refused(ddb, "DescribeTable", TableName="slim") == (
        "ResourceNotFoundException",
        "Requested resource not found: Table: slim not found",
    )
    assert refused(ddb, "GetItem", TableName="slim", Key={"pk": {"S": "old"}}) == (
        "ResourceNotFoundException",
        "Requested resource not found",
    )
    ddb("CreateTable", **SLIM)
    assert "Item" not in ddb("GetItem", TableName="slim", Key={"pk": {"S": "old"}})
    ddb.world.settle()
    assert ddb.world.db.value("SELECT COUNT(*) FROM dynamodb_items") == 0


def test_a_failed_creation_is_not_remembered(ddb):
    """The definition cache must not keep what a rolled-back operation wrote."""
    machine = ddb.world.machine

    def create_and_fail(ctx):
        machine.services["dynamodb"].operations["CreateTable"](ctx, {**SLIM, "TableName": "ghost"})
        machine.services["dynamodb"].operations["DescribeTable"](ctx, {"TableName": "ghost"})
        raise AwsError("Boom", "after the fact")

    replies = []
    machine.perform(create_and_fail, replies.append)
    ddb.world.settle()
    assert replies[0].code == "Boom"
    assert refused(ddb, "DescribeTable", TableName="ghost")[0] == "ResourceNotFoundException"


def test_an_index_added_later_is_filled_in_steps(ddb):
    for number in range(1_200):
        ddb("PutItem", TableName="slim", Item={"pk": {"S": f"k{number}"}, "kind": {"S": "ab"[number % 2]}})
    create = {
        "IndexName": "by-kind",
        "KeySchema": [{"AttributeName": "kind", "KeyType": "HASH"}],
        "Projection": {"ProjectionType": "ALL"},
    }
    machine = ddb.world.machine
    replies = []
    machine.submit(
        "dynamodb",
        "UpdateTable",
        {
            "TableName": "slim",
            "AttributeDefinitions": [{"AttributeName": "kind", "AttributeType": "S"}],
            "GlobalSecondaryIndexUpdates": [{"Create": create}],
        },
        replies.append,
    )
    machine.submit("dynamodb", "Query", by_kind("a"), replies.append)
    machine.tick()
    described = replies[0].output["TableDescription"]["GlobalSecondaryIndexes"][0]
    assert (described["IndexStatus"], described["Backfilling"]) == ("CREATING", True)
    assert replies[1].message == "Cannot read from backfilling global secondary index: by-kind"
    ddb.world.settle()
    index = ddb("DescribeTable", TableName="slim")["Table"]["GlobalSecondaryIndexes"][0]
    assert (index["IndexStatus"], index["ItemCount"]) == ("ACTIVE", 1_200)
    assert ddb("Query", **by_kind("a"))["Count"] == 600
    ddb("UpdateTable", TableName="slim", GlobalSecondaryIndexUpdates=[{"Delete": {"IndexName": "by-kind"}}])
    assert refused(ddb, "Query", **by_kind("a"))[1] == "The table does not have the specified index: by-kind"
    ddb.world.settle()
    assert ddb.world.db.value("SELECT COUNT(*) FROM dynamodb_entries") == 0


def by_kind(value):
    return {
        "TableName": "slim",
        "IndexName": "by-kind",
        "KeyConditionExpression": "kind = :k",
        "ExpressionAttributeValues": {":k": {"S": value}},
        "Select": "COUNT",
    }


# -- items ------------------------------------------------------------------------------------------------------------


def test_every_type_comes_back(ddb):
    whole = {
        "pk": {"S": "a"},
        "empty": {"S": ""},
        "n": {"N": "1.50"},
        "b": {"B": b"\x00\xff"},
        "yes": {"BOOL": False},
        "none": {"NULL": True},
        "ss": {"SS": ["b", "a"]},
        "ns": {"NS": ["10", "9"]},
        "l": {"L": [{"M": {}}, {"L": []}]},
    }
    ddb("PutItem", TableName="slim", Item=whole)
    got = ddb("GetItem", TableName="slim", Key={"pk": {"S": "a"}})["Item"]
    assert got == {**whole, "n": {"N": "1.5"}, "ss": {"SS": ["a", "b"]}, "ns": {"NS": ["9", "10"]}}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({}, "One or more parameter values were invalid: Missing the key pk in the item"),
        (
            {"pk": {"N": "1"}},
            "One or more parameter values were invalid: Type mismatch for key pk expected: S actual: N",
        ),
        (
            {"pk": {"S": ""}},
            "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an "
            "empty string value. Key: pk",
        ),
        (
            {"pk": {"S": "x" * 2_049}},
            "One or more parameter values were invalid: Size of hashkey has exceeded the maximum size limit of2048 "
            "bytes",
        ),
        (
            {"pk": {"S": "a"}, "s": {"SS": []}},
            "One or more parameter values were invalid: An string set  may not be empty",
        ),
        (
            {"pk": {"S": "a"}, "s": {"NS": ["1", "1.0"]}},
            "One or more parameter values were invalid: Input collection [1, 1] contains duplicates.",
        ),
        (
            {"pk": {"S": "a"}, "s": {"NULL": False}},
            "One or more parameter values were invalid: Null attribute value types must have the value of true",
        ),
        (
            {"pk": {"S": "a"}, "s": {}},
            "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes",
        ),
        (
            {"pk": {"S": "a"}, "s": {"S": "a", "N": "1"}},
            "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported "
            "datatypes",
        ),
        ({"pk": {"S": "a"}, "s": {"S": "x" * 409_600}}, "Item size has exceeded the maximum allowed size"),
    ],
)
def test_items_that_cannot_be(ddb, bad, message):
    assert refused(ddb, "PutItem", TableName="slim", Item=bad) == ("ValidationException", message)
    assert ddb("Scan", TableName="slim")["Count"] == 0


def test_the_largest_item_fits(ddb):
    body = "x" * (409_600 - len("pk") - 1 - len("s"))
    ddb("PutItem", TableName="slim", Item={"pk": {"S": "a"}, "s": {"S": body}})
    assert refused(
        ddb,
        "UpdateItem",
        TableName="slim",
        Key={"pk": {"S": "a"}},
        UpdateExpression="SET t = :t",
        ExpressionAttributeValues={":t": {"S": "x"}},
    ) == ("ValidationException", "Item size to update has exceeded the maximum allowed size")


def test_keys_must_fit_the_schema(ddb):
    for key in ({}, {"pk": {"N": "1"}}, {"pk": {"S": "a"}, "x": {"S": "a"}}, {"x": {"S": "a"}}):
        assert refused(ddb, "GetItem", TableName="slim", Key=key)[1] == (
            "The provided key element does not match the schema"
        )


def test_conditions_guard_writes(ddb):
    once = {"TableName": "slim", "Item": {"pk": {"S": "a"}, "v": {"N": "1"}}}
    guard = {"ConditionExpression": "attribute_not_exists(pk)"}
    ddb("PutItem", **once, **guard)
    with pytest.raises(AwsError) as caught:
        ddb("PutItem", **once, **guard, ReturnValuesOnConditionCheckFailure="ALL_OLD")
    assert (caught.value.code, caught.value.message) == (
        "ConditionalCheckFailedException",
        "The conditional request failed",
    )
    assert caught.value.fields == {"Item": once["Item"]}
    assert refused(
        ddb, "DeleteItem", TableName="slim", Key={"pk": {"S": "none"}}, ConditionExpression="attribute_exists(pk)"
    )[0] == "ConditionalCheckFailedException"


def test_return_values(ddb):
    def update(wanted, expression="SET v = :v, m.#a = :v", **more):
        return ddb(
            "UpdateItem",
            TableName="slim",
            Key={"pk": {"S": "a"}},
            UpdateExpression=expression,
            ExpressionAttributeNames={"#a": "a"},
            ExpressionAttributeValues={":v": {"N": "2"}},
            ReturnValues=wanted,
            **more,
        ).get("Attributes")

    old = {"pk": {"S": "a"}, "v": {"N": "1"}, "m": {"M": {"a": {"N": "1"}, "b": {"N": "1"}}}}
    new = {"pk": {"S": "a"}, "v": {"N": "2"}, "m": {"M": {"a": {"N": "2"}, "b": {"N": "1"}}}}
    for wanted, expected in [
        ("NONE", None),
        ("ALL_OLD", old),
        ("ALL_NEW", new),
        ("UPDATED_OLD", {"v": {"N": "1"}, "m": {"M": {"a": {"N": "1"}}}}),
        ("UPDATED_NEW", {"v": {"N": "2"}, "m": {"M": {"a": {"N": "2"}}}}),
    ]:
        ddb("PutItem", TableName="slim", Item=old)
        assert update(wanted) == expected
    assert ddb("PutItem", TableName="slim", Item=old, ReturnValues="ALL_OLD")["Attributes"] == new
    assert refused(ddb, "PutItem", TableName="slim", Item=old, ReturnValues="ALL_NEW")[1] == (
        "Return values set to invalid value"
    )
    assert ddb("DeleteItem", TableName="slim", Key={"pk": {"S": "a"}}, ReturnValues="ALL_OLD")["Attributes"] == old
    assert "Attributes" not in ddb("DeleteItem", TableName="slim", Key={"pk": {"S": "a"}}, ReturnValues="ALL_OLD")


def test_update_makes_and_refuses(ddb):
    made = ddb("UpdateItem", TableName="slim", Key={"pk": {"S": "new"}}, ReturnValues="ALL_NEW")
    assert made["Attributes"] == {"pk": {"S": "new"}}
    assert refused(
        ddb, "UpdateItem", TableName="slim", Key={"pk": {"S": "a"}}, UpdateExpression="REMOVE pk"
    )[1] == (
        "One or more parameter values were invalid: Cannot update attribute pk. This attribute is part of the key"
    )


def test_legacy_parameters(ddb):
    key = {"pk": {"S": "a"}}
    ddb("PutItem", TableName="slim", Item=key, Expected={"pk": {"Exists": False}})
    code, _ = refused(ddb, "PutItem", TableName="slim", Item=key, Expected={"pk": {"Exists": False}})
    assert code == "ConditionalCheckFailedException"
    ddb(
        "UpdateItem",
        TableName="slim",
        Key=key,
        AttributeUpdates={
            "n": {"Action": "ADD", "Value": {"N": "2"}},
            "s": {"Value": {"S": "x"}},
            "l": {"Action": "ADD", "Value": {"L": [{"N": "1"}]}},
        },
    )
    got = ddb("GetItem", TableName="slim", Key=key, AttributesToGet=["n", "l"])["Item"]
    assert got == {"n": {"N": "2"}, "l": {"L": [{"N": "1"}]}}
    found = ddb(
        "Scan",
        TableName="slim",
        ScanFilter={
            "n": {"ComparisonOperator": "GT", "AttributeValueList": [{"N": "5"}]},
            "s": {"ComparisonOperator": "BEGINS_WITH", "AttributeValueList": [{"S": "x"}]},
        },
        ConditionalOperator="OR",
    )
    assert found["Count"] == 1
    put(ddb, "a", 4)
    old_query = {
        "pk": {"ComparisonOperator": "EQ", "AttributeValueList": [{"S": "a"}]},
        "sk": {"ComparisonOperator": "BETWEEN", "AttributeValueList": [{"N": "1"}, {"N": "9"}]},
    }
    assert numbers_of(ddb("Query", TableName="wide", KeyConditions=old_query)) == [4]
    assert refused(
        ddb, "Scan", TableName="slim", AttributesToGet=["n"], ProjectionExpression="n"
    )[1] == (
        "Can not use both expression and non-expression parameters in the same request: "
        "Non-expression parameters: {AttributesToGet} Expression parameters: {ProjectionExpression}"
    )


# -- queries and scans ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "values", "expected"),
    [
        ("pk = :p", {}, [-3, -1, 0, 2, 10]),
        ("pk = :p AND sk > :x", {":x": "-1"}, [0, 2, 10]),
        ("pk = :p AND sk >= :x", {":x": "-1"}, [-1, 0, 2, 10]),
        ("pk = :p AND sk < :x", {":x": "0"}, [-3, -1]),
        ("pk = :p AND sk <= :x", {":x": "0"}, [-3, -1, 0]),
        ("pk = :p AND sk = :x", {":x": "2.0"}, [2]),
        ("sk BETWEEN :x AND :y AND pk = :p", {":x": "-1", ":y": "2"}, [-1, 0, 2]),
        (":p = pk AND :x < sk", {":x": "1"}, [2, 10]),
    ],
)
def test_key_conditions(ddb, condition, values, expected):
    for number in (10, -1, 2, -3, 0):
        put(ddb, "a", number)
        put(ddb, "b", number)
    bound = {":p": {"S": "a"}, **{name: {"N": value} for name, value in values.items()}}
    assert numbers_of(query(ddb, condition, bound)) == expected
    assert numbers_of(query(ddb, condition, bound, ScanIndexForward=False)) == expected[::-1]


@pytest.mark.parametrize(
    ("condition", "values", "message"),
    [
        ("sk = :x", {":x": {"N": "1"}}, "Query condition missed key schema element: pk"),
        ("pk > :p", {":p": {"S": "a"}}, "Query key condition not supported"),
        (
            "pk = :p OR sk = :x",
            {":p": {"S": "a"}, ":x": {"N": "1"}},
            "Invalid operator used in KeyConditionExpression: OR",
        ),
        (
            "pk = :p AND other_one = :x",
            {":p": {"S": "a"}, ":x": {"N": "1"}},
            "Query condition missed key schema element: sk",
        ),
        (
            "pk = :p AND sk > :x AND sk < :x",
            {":p": {"S": "a"}, ":x": {"N": "1"}},
            "KeyConditionExpressions must only contain one condition per key",
        ),
        (
            "pk = :p",
            {":p": {"N": "1"}},
            "One or more parameter values were invalid: Condition parameter type does not match schema type",
        ),
    ],
)
def test_key_conditions_that_cannot_be(ddb, condition, values, message):
    with pytest.raises(AwsError) as caught:
        query(ddb, condition, values)
    assert caught.value.message == message


def pages(ddb, operation, **params):
    """Items of every page, and how many pages there were."""
    out, count, start = [], 0, None
    while True:
        reply = ddb(operation, **params, **({"ExclusiveStartKey": start} if start else {}))
        out += reply["Items"]
        count += 1
        start = reply.get("LastEvaluatedKey")
        if start is None:
            return out, count


@pytest.mark.parametrize("forward", [True, False])
def test_pages_by_limit_cover_all_once(ddb, forward):
    for number in range(25):
        put(ddb, "a", number, g="x")
    params = {
        "TableName": "wide",
        "Limit": 7,
        "ScanIndexForward": forward,
        "ExpressionAttributeValues": {":p": {"S": "a"}},
    }
    found, count = pages(ddb, "Query", KeyConditionExpression="pk = :p", **params)
    order = list(range(25))
    assert [int(entry["sk"]["N"]) for entry in found] == (order if forward else order[::-1])
    assert count == 4
    params["ExpressionAttributeValues"] = {":p": {"S": "x"}}
    found, _ = pages(ddb, "Query", KeyConditionExpression="g = :p", IndexName="by-g", **params)
    assert [int(entry["sk"]["N"]) for entry in found] == (order if forward else order[::-1])


def test_equal_index_keys_page_without_loss(ddb):
    for number in range(10):
        put(ddb, f"p{number}", 5, g="same")
    params = {"KeyConditionExpression": "g = :p", "ExpressionAttributeValues": {":p": {"S": "same"}}}
    found, count = pages(ddb, "Query", TableName="wide", IndexName="by-g", Limit=3, **params)
    assert sorted(entry["pk"]["S"] for entry in found) == [f"p{number}" for number in range(10)]
    assert count == 4


def test_a_page_holds_one_megabyte(ddb):
    for number in range(30):
        put(ddb, "a", number, body="x" * 100_000)
    reply = query(ddb)
    assert reply["Count"] == 10
    assert reply["LastEvaluatedKey"] == {"pk": {"S": "a"}, "sk": {"N": "9"}}
    found, count = pages(ddb, "Scan", TableName="wide")
    assert (len(found), count) == (30, 3)


def test_filters_count_what_was_read(ddb):
    for number in range(10):
        put(ddb, "a", number, title="even" if number % 2 == 0 else "odd")
    values = {":p": {"S": "a"}, ":t": {"S": "even"}}
    reply = query(ddb, values=values, FilterExpression="title = :t", Limit=5)
    assert (numbers_of(reply), reply["Count"], reply["ScannedCount"]) == ([0, 2, 4], 3, 5)
    assert reply["LastEvaluatedKey"] == {"pk": {"S": "a"}, "sk": {"N": "4"}}
    counted = query(ddb, values=values, FilterExpression="title = :t", Select="COUNT")
    assert (counted["Count"], counted["ScannedCount"], "Items" in counted) == (5, 10, False)
    with pytest.raises(AwsError) as caught:
        query(ddb, values=values, FilterExpression="pk = :t")
    assert caught.value.message == (
        "Filter Expression can only contain non-primary key attributes: Primary key attribute: pk"
    )


def test_indexes_follow_their_items(ddb):
    def in_index(group):
        values = {":p": {"S": group}}
        return query(ddb, "g = :p", values, IndexName="by-g")["Items"]

    put(ddb, "a", 1, g="x", title="t", body="b")
    assert in_index("x") == [item("a", 1, g="x", title="t")]
    put(ddb, "a", 1, g="y", title="t2")
    assert (in_index("x"), in_index("y")) == ([], [item("a", 1, g="y", title="t2")])
    ddb("UpdateItem", TableName="wide", Key=item("a", 1), UpdateExpression="REMOVE g")
    assert in_index("y") == []
    put(ddb, "a", 1, g="z", l="q")
    by_l = query(ddb, "pk = :p AND begins_with(l, :q)", {":p": {"S": "a"}, ":q": {"S": "q"}}, IndexName="by-l")
    assert by_l["Items"] == [item("a", 1, l="q")]
    ddb("DeleteItem", TableName="wide", Key=item("a", 1))
    assert in_index("z") == []
    index = ddb("DescribeTable", TableName="wide")["Table"]["GlobalSecondaryIndexes"][0]
    assert (index["ItemCount"], index["IndexSizeBytes"]) == (0, 0)
    assert refused(ddb, "PutItem", TableName="wide", Item={**item("a", 1), "g": {"N": "1"}})[1] == (
        "One or more parameter values were invalid: Type mismatch for Index Key g Expected: S Actual: N IndexName: by-g"
    )


def test_selects(ddb):
    put(ddb, "a", 1, g="x", title="t", body="b")
    values = {":p": {"S": "x"}}
    for more, part in [
        ({"ConsistentRead": True}, "Consistent reads are not supported on global secondary indexes"),
        ({"Select": "ALL_ATTRIBUTES"}, "Select type ALL_ATTRIBUTES is not supported for global secondary index by-g"),
        ({"ProjectionExpression": "body"}, "Global secondary index by-g does not project [body]"),
    ]:
        with pytest.raises(AwsError) as caught:
            query(ddb, "g = :p", values, IndexName="by-g", **more)
        assert part in caught.value.message
    local = {":p": {"S": "a"}}
    put(ddb, "a", 1, l="x", body="b")
    assert query(ddb, values=local, IndexName="by-l", Select="ALL_ATTRIBUTES")["Items"][0]["body"] == {"S": "b"}


def test_starting_keys_are_checked(ddb):
    for number in range(3):
        put(ddb, "a", number)
    for start, message in [
        ({"pk": {"S": "a"}}, "The provided starting key is invalid"),
        (item("b", 1), "The provided starting key is outside query boundaries based on provided conditions"),
    ]:
        with pytest.raises(AwsError) as caught:
            query(ddb, ExclusiveStartKey=start)
        assert caught.value.message == message


def test_segments_share_a_table(ddb):
    for number in range(200):
        ddb("PutItem", TableName="slim", Item={"pk": {"S": f"k{number}"}})
    seen = []
    for segment in range(7):
        found, _ = pages(ddb, "Scan", TableName="slim", TotalSegments=7, Segment=segment, Limit=10)
        assert found
        seen += [entry["pk"]["S"] for entry in found]
    assert sorted(seen) == sorted(f"k{number}" for number in range(200))
    assert refused(ddb, "Scan", TableName="slim", TotalSegments=2, Segment=2)[1] == (
        "The Segment parameter is zero-based and must be less than parameter TotalSegments: "
        "Segment: 2 is not less than TotalSegments: 2"
    )

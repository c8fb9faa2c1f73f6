"""DynamoDB: batches, transactions, capacity, throttling, time to live."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preheat.kernel.errors import AwsError
from preheat.services.dynamodb.service import build
from preheat.services.dynamodb.values import item_size
from tests.support.inprocess import InProcess

ON_DEMAND = {"BillingMode": "PAY_PER_REQUEST"}
KEYS = {
    "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
}
INDEXED = {
    "AttributeDefinitions": [*KEYS["AttributeDefinitions"], {"AttributeName": "g", "AttributeType": "S"}],
    "KeySchema": KEYS["KeySchema"],
    "GlobalSecondaryIndexes": [
        {
            "IndexName": "by-g",
            "KeySchema": [{"AttributeName": "g", "KeyType": "HASH"}],
            "Projection": {"ProjectionType": "KEYS_ONLY"},
        }
    ],
}


@pytest.fixture
def ddb():
    world = InProcess(build)
    for loop in world.machine.services["dynamodb"].loops:
        world.machine.add_loop(loop)

    def call(operation, **params):
        return world("dynamodb", operation, **params)

    call.world = world
    call("CreateTable", TableName="one", **KEYS, **ON_DEMAND)
    call("CreateTable", TableName="two", **INDEXED, **ON_DEMAND)
    return call


def refused(ddb, operation, **params):
    with pytest.raises(AwsError) as caught:
        ddb(operation, **params)
    return caught.value


def key(text):
    return {"pk": {"S": text}}


def names(ddb, table="one"):
    return sorted(entry["pk"]["S"] for entry in ddb("Scan", TableName=table)["Items"])


# -- batches ----------------------------------------------------------------------------------------------------------


def test_a_batch_writes_and_deletes(ddb):
    ddb("PutItem", TableName="one", Item=key("old"))
    requests = {
        "one": [{"PutRequest": {"Item": key("new")}}, {"DeleteRequest": {"Key": key("old")}}],
        "two": [{"PutRequest": {"Item": key("other")}}],
    }
    assert ddb("BatchWriteItem", RequestItems=requests) == {"UnprocessedItems": {}}
    assert (names(ddb), names(ddb, "two")) == (["new"], ["other"])
    reply = ddb(
        "BatchGetItem",
        RequestItems={"one": {"Keys": [key("new"), key("old")]}, "two": {"Keys": [key("other")]}},
        ReturnConsumedCapacity="TOTAL",
    )
    assert reply["Responses"] == {"one": [key("new")], "two": [key("other")]}
    assert reply["UnprocessedKeys"] == {}
    assert [entry["CapacityUnits"] for entry in reply["ConsumedCapacity"]] == [1.0, 0.5]


def test_batches_have_limits(ddb):
    many = [{"PutRequest": {"Item": key(str(number))}} for number in range(26)]
    assert refused(ddb, "BatchWriteItem", RequestItems={"one": many}).message == (
        "Too many items requested for the BatchWriteItem call"
    )
    keys = [key(str(number)) for number in range(101)]
    assert refused(ddb, "BatchGetItem", RequestItems={"one": {"Keys": keys}}).message == (
        "Too many items requested for the BatchGetItem call"
    )
    twice = [{"PutRequest": {"Item": key("a")}}, {"DeleteRequest": {"Key": key("a")}}]
    assert refused(ddb, "BatchWriteItem", RequestItems={"one": twice}).message == (
        "Provided list of item keys contains duplicates"
    )
    mixed = {"one": [{"PutRequest": {"Item": key("a")}}], "none": [{"PutRequest": {"Item": key("a")}}]}
    assert refused(ddb, "BatchWriteItem", RequestItems=mixed).code == "ResourceNotFoundException"
    assert refused(ddb, "BatchWriteItem", RequestItems={}).code == "ValidationException"
    assert names(ddb) == []


def test_a_batch_get_stops_at_16_megabytes(ddb):
    for number in range(45):
        ddb("PutItem", TableName="one", Item={**key(f"k{number}"), "body": {"S": "x" * 400_000}})
    keys = [key(f"k{number}") for number in range(45)]
    asked = {"one": {"Keys": keys, "ProjectionExpression": "pk"}}
    reply = ddb("BatchGetItem", RequestItems=asked)
    left = reply["UnprocessedKeys"]["one"]
    assert len(reply["Responses"]["one"]) == 41
    assert (len(left["Keys"]), left["ProjectionExpression"]) == (4, "pk")
    reply = ddb("BatchGetItem", RequestItems=reply["UnprocessedKeys"])
    assert (len(reply["Responses"]["one"]), reply["UnprocessedKeys"]) == (4, {})


# -- transactions -----------------------------------------------------------------------------------------------------


def step(kind, name, table="one", **more):
    where = {"Item": key(name)} if kind == "Put" else {"Key": key(name)}
    return {kind: {"TableName": table, **where, **more}}


def test_a_transaction_is_all_or_nothing(ddb):
    ddb("PutItem", TableName="one", Item={**key("a"), "n": {"N": "1"}})
    steps = [
        step("Put", "new"),
        step(
            "Update",
            "a",
            UpdateExpression="SET n = n + :n",
            ExpressionAttributeValues={":n": {"N": "1"}},
        ),
        step(
            "ConditionCheck",
            "a",
            table="two",
            ConditionExpression="attribute_exists(pk)",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        ),
    ]
    error = refused(ddb, "TransactWriteItems", TransactItems=steps)
    assert (error.code, error.message) == (
        "TransactionCanceledException",
        "Transaction cancelled, please refer cancellation reasons for specific reasons "
        "[None, None, ConditionalCheckFailed]",
    )
    assert error.fields["CancellationReasons"] == [
        {"Code": "None"},
        {"Code": "None"},
        {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed"},
    ]
    assert names(ddb) == ["a"]
    ddb("PutItem", TableName="two", Item=key("a"))
    reply = ddb("TransactWriteItems", TransactItems=steps, ReturnConsumedCapacity="TOTAL")
    used = {entry["TableName"]: entry["CapacityUnits"] for entry in reply["ConsumedCapacity"]}
    assert used == {"one": 4.0, "two": 2.0}
    assert ddb("GetItem", TableName="one", Key=key("a"))["Item"]["n"] == {"N": "2"}
    assert names(ddb) == ["a", "new"]


def test_a_failing_update_cancels_with_its_reason(ddb):
    steps = [
        step("Put", "new"),
        step("Update", "a", UpdateExpression="SET n = n + :n", ExpressionAttributeValues={":n": {"N": "1"}}),
    ]
    error = refused(ddb, "TransactWriteItems", TransactItems=steps)
    assert error.fields["CancellationReasons"][1] == {
        "Code": "ValidationError",
        "Message": "The provided expression refers to an attribute that does not exist in the item",
    }
    assert names(ddb) == []


def test_transactions_have_rules(ddb):
    assert refused(ddb, "TransactWriteItems", TransactItems=[step("Put", "a"), step("Delete", "a")]).message == (
        "Transaction request cannot include multiple operations on one item"
    )
    assert refused(
        ddb, "TransactWriteItems", TransactItems=[{**step("Put", "a"), **step("Delete", "b")}]
    ).message == "TransactItems can only contain one of Check, Put, Update or Delete"
    assert refused(ddb, "TransactWriteItems", TransactItems=[]).code == "ValidationException"


def test_a_token_makes_a_transaction_happen_once(ddb):
    steps = [
        step("Update", "a", UpdateExpression="ADD n :n", ExpressionAttributeValues={":n": {"N": "1"}}),
    ]
    for _ in range(3):
        ddb("TransactWriteItems", TransactItems=steps, ClientRequestToken="t")
    assert ddb("GetItem", TableName="one", Key=key("a"))["Item"]["n"] == {"N": "1"}
    error = refused(ddb, "TransactWriteItems", TransactItems=[step("Put", "b")], ClientRequestToken="t")
    assert error.code == "IdempotentParameterMismatchException"
    ddb.world.advance(601)
    ddb("TransactWriteItems", TransactItems=steps, ClientRequestToken="t")
    assert ddb("GetItem", TableName="one", Key=key("a"))["Item"]["n"] == {"N": "2"}


def test_a_cancelled_transaction_does_not_use_up_its_token(ddb):
    steps = [step("Delete", "a", ConditionExpression="attribute_exists(pk)")]
    assert refused(ddb, "TransactWriteItems", TransactItems=steps, ClientRequestToken="t").code == (
        "TransactionCanceledException"
    )
    ddb("PutItem", TableName="one", Item=key("a"))
    ddb("TransactWriteItems", TransactItems=steps, ClientRequestToken="t")
    assert names(ddb) == []


def test_transact_get(ddb):
    ddb("PutItem", TableName="one", Item={**key("a"), "n": {"N": "1"}})
    reply = ddb(
        "TransactGetItems",
        TransactItems=[
            {"Get": {"TableName": "one", "Key": key("a"), "ProjectionExpression": "n"}},
            {"Get": {"TableName": "two", "Key": key("none")}},
        ],
        ReturnConsumedCapacity="TOTAL",
    )
    assert reply["Responses"] == [{"Item": {"n": {"N": "1"}}}, {}]
    assert [entry["CapacityUnits"] for entry in reply["ConsumedCapacity"]] == [2.0, 2.0]


# -- capacity ---------------------------------------------------------------------------------------------------------


def test_units_are_true(ddb):
    def units(operation, **params):
        return ddb(operation, TableName="two", ReturnConsumedCapacity="INDEXES", **params)["ConsumedCapacity"]

    body = {**key("a"), "g": {"S": "x"}, "body": {"S": "x" * 2_500}}
    made = units("PutItem", Item=body)
    assert (made["CapacityUnits"], made["Table"]["CapacityUnits"]) == (4.0, 3.0)
    assert made["GlobalSecondaryIndexes"] == {"by-g": {"CapacityUnits": 1.0}}
    assert units("PutItem", Item={**body, "body": {"S": "y"}})["CapacityUnits"] == 3.0
    moved = units("PutItem", Item={**body, "g": {"S": "z"}})
    assert moved["GlobalSecondaryIndexes"]["by-g"]["CapacityUnits"] == 2.0
    assert units("GetItem", Key=key("a"))["CapacityUnits"] == 0.5
    assert units("GetItem", Key=key("a"), ConsistentRead=True)["CapacityUnits"] == 1.0
    assert units("GetItem", Key=key("none"))["CapacityUnits"] == 0.5
    for number in range(4):
        ddb("PutItem", TableName="two", Item={**key(f"b{number}"), "body": {"S": "x" * 3_000}})
    assert units("Scan")["CapacityUnits"] == 2.0
    assert units("DeleteItem", Key=key("a"))["CapacityUnits"] == 4.0
    error = refused(ddb, "GetItem", TableName="two", Key=key("a"), ReturnConsumedCapacity="SOME")
    assert error.code == "ValidationException"


def test_provisioned_throughput_acts(ddb):
    ddb(
        "CreateTable",
        TableName="small",
        **KEYS,
        ProvisionedThroughput={"ReadCapacityUnits": 1, "WriteCapacityUnits": 1},
    )
    written = 0
    with pytest.raises(AwsError) as caught:
        for _ in range(1_000):
            ddb("PutItem", TableName="small", Item=key("a"))
            written += 1
    assert written == 300
    assert caught.value.code == "ProvisionedThroughputExceededException"
    assert caught.value.message.startswith("The level of configured provisioned throughput for the table was exceeded.")
    assert caught.value.fields["ThrottlingReasons"] == [
        {
            "reason": "TableWriteProvisionedThroughputExceeded",
            "resource": "arn:aws:dynamodb:us-east-1:000000000000:table/small",
        }
    ]
    ddb("GetItem", TableName="small", Key=key("a"))
    ddb.world.advance(2)
    requests = {"small": [{"PutRequest": {"Item": key(name)}} for name in "abcd"]}
    left = ddb("BatchWriteItem", RequestItems=requests)["UnprocessedItems"]
    assert len(left["small"]) == 2
    assert refused(ddb, "BatchWriteItem", RequestItems=left).code == "ProvisionedThroughputExceededException"
    ddb("UpdateTable", TableName="small", BillingMode="PAY_PER_REQUEST")
    ddb("PutItem", TableName="small", Item=key("a"))


def test_a_maximum_of_on_demand_units_acts(ddb):
    provisioned = {
        "BillingMode": "PROVISIONED",
        "ProvisionedThroughput": {"ReadCapacityUnits": 1, "WriteCapacityUnits": 1},
        "OnDemandThroughput": {"MaxReadRequestUnits": 1},
    }
    assert refused(ddb, "CreateTable", TableName="both", **KEYS, **provisioned).code == "ValidationException"
    ddb("UpdateTable", TableName="one", OnDemandThroughput={"MaxReadRequestUnits": 1})
    described = ddb("DescribeTable", TableName="one")["Table"]["OnDemandThroughput"]
    assert described == {"MaxReadRequestUnits": 1, "MaxWriteRequestUnits": -1}
    with pytest.raises(AwsError) as caught:
        for _ in range(1_000):
            ddb("GetItem", TableName="one", Key=key("a"), ConsistentRead=True)
    assert caught.value.code == "ThrottlingException"
    ddb("PutItem", TableName="one", Item=key("a"))


# -- time to live -----------------------------------------------------------------------------------------------------


def expiring(name, moment):
    return {**key(name), "until": {"N": str(moment)}, "g": {"S": "x"}}


def test_time_to_live_deletes(ddb):
    now = int(ddb.world.clock.now())
    ddb("PutItem", TableName="two", Item=expiring("before", now + 100))
    spec = {"Enabled": True, "AttributeName": "until"}
    assert ddb("UpdateTimeToLive", TableName="two", TimeToLiveSpecification=spec)["TimeToLiveSpecification"] == spec
    assert ddb("DescribeTimeToLive", TableName="two")["TimeToLiveDescription"] == {
        "TimeToLiveStatus": "ENABLED",
        "AttributeName": "until",
    }
    ddb("PutItem", TableName="two", Item=expiring("after", now + 200))
    ddb("PutItem", TableName="two", Item=expiring("ancient", now - 6 * 365 * 86_400))
    ddb("PutItem", TableName="two", Item={**key("text"), "until": {"S": str(now)}})
    ddb("PutItem", TableName="two", Item=expiring("kept", now + 50))
    names_used = {"#u": "until"}
    ddb(
        "UpdateItem",
        TableName="two",
        Key=key("kept"),
        UpdateExpression="REMOVE #u",
        ExpressionAttributeNames=names_used,
    )
    ddb.world.advance(99)
    assert names(ddb, "two") == ["after", "ancient", "before", "kept", "text"]
    ddb.world.advance(2)
    assert names(ddb, "two") == ["after", "ancient", "kept", "text"]
    ddb.world.advance(100)
    assert names(ddb, "two") == ["ancient", "kept", "text"]
    index = ddb("DescribeTable", TableName="two")["Table"]["GlobalSecondaryIndexes"][0]
    assert index["ItemCount"] == 2


def test_time_to_live_can_be_taken_back(ddb):
    now = int(ddb.world.clock.now())
    spec = {"Enabled": True, "AttributeName": "until"}
    ddb("UpdateTimeToLive", TableName="one", TimeToLiveSpecification=spec)
    assert refused(ddb, "UpdateTimeToLive", TableName="one", TimeToLiveSpecification=spec).message == (
        "TimeToLive is already enabled"
    )
    other = {"Enabled": True, "AttributeName": "later"}
    assert refused(ddb, "UpdateTimeToLive", TableName="one", TimeToLiveSpecification=other).message == (
        "TimeToLive is active on a different AttributeName: current AttributeName is until"
    )
    ddb("PutItem", TableName="one", Item=expiring("a", now + 10))
    ddb("UpdateTimeToLive", TableName="one", TimeToLiveSpecification={**spec, "Enabled": False})
    ddb.world.advance(60)
    assert names(ddb) == ["a"]


# -- against a plain model -------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from(("put", "update", "delete")),
        st.sampled_from("abcd"),
        st.sampled_from(("x", "y", None)),
        st.integers(0, 3),
    ),
    max_size=30,
)


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_the_index_always_agrees_with_the_items(steps):
    world = InProcess(build)
    world("dynamodb", "CreateTable", TableName="two", **INDEXED, **ON_DEMAND)
    model: dict[str, dict] = {}
    for what, name, group, weight in steps:
        grouped = {} if group is None else {"g": {"S": group}}
        if what == "put":
            model[name] = {**key(name), **grouped, "w": {"N": str(weight)}}
            world("dynamodb", "PutItem", TableName="two", Item=model[name])
        elif what == "delete":
            model.pop(name, None)
            world("dynamodb", "DeleteItem", TableName="two", Key=key(name))
        else:
            model[name] = {**model.get(name, key(name)), **grouped}
            if group is not None:
                world(
                    "dynamodb",
                    "UpdateItem",
                    TableName="two",
                    Key=key(name),
                    UpdateExpression="SET g = :g",
                    ExpressionAttributeValues={":g": {"S": group}},
                )
            else:
                world("dynamodb", "UpdateItem", TableName="two", Key=key(name))

    def names_of(items):
        return sorted(entry["pk"]["S"] for entry in items)

    assert names_of(world("dynamodb", "Scan", TableName="two")["Items"]) == sorted(model)
    for group in "xy":
        found = world(
            "dynamodb",
            "Query",
            TableName="two",
            IndexName="by-g",
            KeyConditionExpression="g = :g",
            ExpressionAttributeValues={":g": {"S": group}},
        )
        assert names_of(found["Items"]) == [name for name in sorted(model) if model[name].get("g") == {"S": group}]
    table = world("dynamodb", "DescribeTable", TableName="two")["Table"]
    assert table["ItemCount"] == len(model)
    assert table["TableSizeBytes"] == sum(item_size(entry) for entry in model.values())
    assert table["GlobalSecondaryIndexes"][0]["ItemCount"] == sum("g" in entry for entry in model.values())


# -- tables -----------------------------------------------------------------------------------------------------------


def test_tags(ddb):
    arn = "arn:aws:dynamodb:us-east-1:000000000000:table/one"
    ddb("TagResource", ResourceArn=arn, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    ddb("UntagResource", ResourceArn=arn, TagKeys=["a"])
    assert ddb("ListTagsOfResource", ResourceArn=arn)["Tags"] == [{"Key": "b", "Value": "2"}]
    assert refused(ddb, "ListTagsOfResource", ResourceArn=arn + "x").code == "ResourceNotFoundException"


def test_deletion_protection_acts(ddb):
    ddb("UpdateTable", TableName="one", DeletionProtectionEnabled=True)
    assert refused(ddb, "DeleteTable", TableName="one").code == "ValidationException"
    ddb("UpdateTable", TableName="one", DeletionProtectionEnabled=False)
    ddb("DeleteTable", TableName="one")


# -- durability -------------------------------------------------------------------------------------------------------


def test_tables_and_items_are_there_after_a_restart(tmp_path):
    world = InProcess(build, directory=tmp_path)
    world("dynamodb", "CreateTable", TableName="kept", **INDEXED, **ON_DEMAND)
    world("dynamodb", "PutItem", TableName="kept", Item={**key("a"), "g": {"S": "x"}, "b": {"B": b"\x00"}})
    world.db.close()
    world = InProcess(build, directory=tmp_path)
    assert world("dynamodb", "Scan", TableName="kept", IndexName="by-g")["Items"] == [{**key("a"), "g": {"S": "x"}}]
    assert world("dynamodb", "GetItem", TableName="kept", Key=key("a"))["Item"]["b"] == {"B": b"\x00"}
    world.db.close()

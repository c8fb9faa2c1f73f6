"""A user of boto3 keeps a chat history in DynamoDB."""

from decimal import Decimal

import pytest
from boto3.dynamodb.conditions import Attr, Key
from botocore.exceptions import ClientError


@pytest.fixture(scope="module")
def resource(aws):
    return aws.resource("dynamodb")


@pytest.fixture(scope="module")
def client(aws):
    return aws.client("dynamodb")


@pytest.fixture(scope="module")
def chats(resource):
    table = resource.create_table(
        TableName="acceptance-chats",
        AttributeDefinitions=[
            {"AttributeName": "chat", "AttributeType": "S"},
            {"AttributeName": "turn", "AttributeType": "N"},
            {"AttributeName": "user", "AttributeType": "S"},
        ],
        KeySchema=[{"AttributeName": "chat", "KeyType": "HASH"}, {"AttributeName": "turn", "KeyType": "RANGE"}],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "by-user",
                "KeySchema": [{"AttributeName": "user", "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    table.wait_until_exists()
    yield table
    table.delete()
    table.wait_until_not_exists()


def test_the_client_waits_for_its_table(chats):
    chats.load()
    assert chats.table_status == "ACTIVE"
    assert chats.creation_date_time.tzinfo is not None


def test_every_type_travels(chats):
    item = {
        "chat": "types",
        "turn": Decimal("-1.5"),
        "big": Decimal("12345678901234567890123456789012345678"),
        "blob": b"\x00\x01\xff",
        "flags": {"a", "b"},
        "numbers": {Decimal(1), Decimal("2.5")},
        "nested": {"list": [1, "two", None, True, {"deep": []}]},
        "empty": "",
        "unicode": "café ☕ 🎉",
    }
    chats.put_item(Item=item)
    got = chats.get_item(Key={"chat": "types", "turn": Decimal("-1.5")}, ConsistentRead=True)["Item"]
    got["blob"] = bytes(got["blob"])
    assert got == item


def test_turns_come_back_in_order(chats):
    with chats.batch_writer() as batch:
        for turn in range(60):
            batch.put_item(Item={"chat": "long", "turn": turn, "user": "anna", "text": f"turn {turn}"})
    last = chats.query(KeyConditionExpression=Key("chat").eq("long"), ScanIndexForward=False, Limit=3)["Items"]
    assert [int(item["turn"]) for item in last] == [59, 58, 57]
    window = chats.query(KeyConditionExpression=Key("chat").eq("long") & Key("turn").between(10, 12))
    assert [item["text"] for item in window["Items"]] == ["turn 10", "turn 11", "turn 12"]
    some = chats.query(
        IndexName="by-user",
        KeyConditionExpression=Key("user").eq("anna"),
        FilterExpression=Attr("text").contains("5") & Attr("turn").gt(50),
    )
    assert (some["Count"], some["ScannedCount"]) == (9, 60)


def test_pages_through_the_paginator(client, chats):
    with chats.batch_writer() as batch:
        for turn in range(25):
            batch.put_item(Item={"chat": "paged", "turn": turn})
    pages = list(
        client.get_paginator("query").paginate(
            TableName=chats.name,
            KeyConditionExpression="chat = :c",
            ExpressionAttributeValues={":c": {"S": "paged"}},
            PaginationConfig={"PageSize": 10},
        )
    )
    assert [page["Count"] for page in pages] == [10, 10, 5]


def test_a_counter_and_a_guard(chats):
    key = {"chat": "counter", "turn": 0}
    for expected in (1, 2):
        reply = chats.update_item(
            Key=key,
            UpdateExpression="ADD hits :one SET history = list_append(if_not_exists(history, :none), :entry)",
            ExpressionAttributeValues={":one": 1, ":none": [], ":entry": [expected]},
            ReturnValues="ALL_NEW",
        )
        assert reply["Attributes"]["hits"] == expected
    assert reply["Attributes"]["history"] == [1, 2]
    with pytest.raises(ClientError) as caught:
        chats.put_item(
            Item=key,
            ConditionExpression=Attr("chat").not_exists(),
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    assert caught.value.response["Error"] == {
        "Code": "ConditionalCheckFailedException",
        "Message": "The conditional request failed",
    }
    assert caught.value.response["Item"]["hits"] == {"N": "2"}
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_a_transaction_tells_why_it_was_cancelled(client, chats):
    put = {"TableName": chats.name, "Item": {"chat": {"S": "tx"}, "turn": {"N": "1"}}}
    guard = {**put, "Item": {"chat": {"S": "tx"}, "turn": {"N": "2"}}, "ConditionExpression": "attribute_exists(chat)"}
    with pytest.raises(client.exceptions.TransactionCanceledException) as caught:
        client.transact_write_items(TransactItems=[{"Put": put}, {"Put": guard}])
    assert [reason["Code"] for reason in caught.value.response["CancellationReasons"]] == [
        "None",
        "ConditionalCheckFailed",
    ]
    assert "Item" not in client.get_item(TableName=chats.name, Key=put["Item"])


def test_errors_are_modelled(client):
    with pytest.raises(client.exceptions.ResourceNotFoundException) as caught:
        client.get_item(TableName="acceptance-none", Key={"a": {"S": "b"}})
    assert caught.value.response["Error"]["Message"] == "Requested resource not found"
    with pytest.raises(ClientError) as caught:
        client.execute_statement(Statement="SELECT * FROM x")
    assert caught.value.response["Error"]["Code"] == "UnsupportedOperation"


def test_items_survive_a_kill(fresh_server):
    server = fresh_server()
    client = server.client("dynamodb")
    client.create_table(
        TableName="kept",
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    for number in range(50):
        client.put_item(TableName="kept", Item={"pk": {"S": str(number)}})
    server.kill()
    server.start()
    assert server.client("dynamodb").scan(TableName="kept", Select="COUNT")["Count"] == 50

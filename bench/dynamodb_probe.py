"""Operations a second of DynamoDB at the operation level: no sockets, one commit per 64 operations, on disk.

    python -m bench.dynamodb_probe
"""

import json
import sys
import tempfile
import time
from pathlib import Path

from preheat.services.dynamodb.service import build
from tests.support.inprocess import InProcess

COUNT = 20_000
GROUP = 64


def rate(world: InProcess, operation: str, make) -> float:
    """Operations a second of `COUNT` calls with `make(i)` as their parameters, submitted in groups."""
    replies: list = []
    started = time.perf_counter()
    for first in range(0, COUNT, GROUP):
        for number in range(first, first + GROUP):
            world.machine.submit("dynamodb", operation, make(number), replies.append, request_id="r")
        world.machine.tick()
    elapsed = time.perf_counter() - started
    assert not world.defects, world.defects[0]
    assert all(hasattr(reply, "output") for reply in replies), replies[0]
    return len(replies) / elapsed


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        world = InProcess(build, directory=Path(directory))
        world(
            "dynamodb",
            "CreateTable",
            TableName="probe",
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
        )
        body = {"S": "x" * 900}

        def item(number: int) -> dict:
            return {"pk": {"S": f"item-{number}"}, "n": {"N": str(number)}, "body": body, "tags": {"SS": ["a", "b"]}}

        out = {
            "PutItem new": rate(world, "PutItem", lambda i: {"TableName": "probe", "Item": item(i)}),
            "PutItem over": rate(world, "PutItem", lambda i: {"TableName": "probe", "Item": item(i)}),
            "GetItem": rate(world, "GetItem", lambda i: {"TableName": "probe", "Key": {"pk": {"S": f"item-{i}"}}}),
            "UpdateItem": rate(
                world,
                "UpdateItem",
                lambda i: {
                    "TableName": "probe",
                    "Key": {"pk": {"S": f"item-{i}"}},
                    "UpdateExpression": "SET n = n + :one",
                    "ConditionExpression": "attribute_exists(pk)",
                    "ExpressionAttributeValues": {":one": {"N": "1"}},
                },
            ),
            "Query": rate(
                world,
                "Query",
                lambda i: {
                    "TableName": "probe",
                    "KeyConditionExpression": "pk = :p",
                    "ExpressionAttributeValues": {":p": {"S": f"item-{i}"}},
                },
            ),
        }
        world.db.close()
    json.dump({name: round(value) for name, value in out.items()}, sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()

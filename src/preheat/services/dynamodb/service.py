"""DynamoDB: the table of operations."""

from pathlib import Path

from preheat.services.contract import Loop, Operation, Platform
from preheat.services.dynamodb.capacity import Throttle
from preheat.services.dynamodb.catalog import Catalog
from preheat.services.dynamodb.expressions import ExpressionCache
from preheat.services.dynamodb.items import Items
from preheat.services.dynamodb.queries import Queries
from preheat.services.dynamodb.tables import Tables
from preheat.services.dynamodb.transactions import Transactions
from preheat.services.dynamodb.upkeep import ExpiryLoop, UpkeepLoop


class DynamoDBService:
    """`loops` go to `Machine.add_loop`."""

    name = "dynamodb"
    schema = (Path(__file__).parent / "schema.sql").read_text()

    def __init__(self) -> None:
        catalog, expressions, throttle = Catalog(), ExpressionCache(), Throttle()
        tables = Tables(catalog)
        items = Items(catalog, expressions, throttle)
        queries = Queries(catalog, expressions, throttle)
        transactions = Transactions(catalog, expressions, throttle)
        self.loops: list[Loop] = [ExpiryLoop(), UpkeepLoop(catalog)]
        self.operations: dict[str, Operation] = {
            "BatchGetItem": items.batch_get_item,
            "BatchWriteItem": items.batch_write_item,
            "CreateTable": tables.create_table,
            "DeleteItem": items.delete_item,
            "DeleteTable": tables.delete_table,
            "DescribeTable": tables.describe_table,
            "DescribeTimeToLive": tables.describe_time_to_live,
            "GetItem": items.get_item,
            "ListTables": tables.list_tables,
            "ListTagsOfResource": tables.list_tags_of_resource,
            "PutItem": items.put_item,
            "Query": queries.query,
            "Scan": queries.scan,
            "TagResource": tables.tag_resource,
            "TransactGetItems": transactions.transact_get_items,
            "TransactWriteItems": transactions.transact_write_items,
            "UntagResource": tables.untag_resource,
            "UpdateItem": items.update_item,
            "UpdateTable": tables.update_table,
            "UpdateTimeToLive": tables.update_time_to_live,
        }


def build(platform: Platform) -> DynamoDBService:
    return DynamoDBService()

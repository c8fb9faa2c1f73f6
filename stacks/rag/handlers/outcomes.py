"""How a job stands, in the jobs table; what cannot be written there goes to the turns queue and is written from it."""

import json
import os
from decimal import Decimal
from typing import Any

from botocore.exceptions import ClientError

from handlers import wiring


def change(job: str, values: dict[str, Any], gone: tuple[str, ...] = ()) -> None:
    """Change a job that is there and not done."""
    names = {f"#{index}": name for index, name in enumerate(values)}
    plain = json.loads(json.dumps(list(values.values())), parse_float=Decimal)
    given = {f":{index}": value for index, value in enumerate(plain)}
    changes = ", ".join(f"#{index} = :{index}" for index in range(len(values)))
    try:
        wiring.table("JOBS_TABLE").update_item(
            Key={"id": job},
            UpdateExpression=f"SET {changes}" + (f" REMOVE {', '.join(gone)}" if gone else ""),
            ConditionExpression="attribute_exists(id) AND #s <> :finished",
            ExpressionAttributeNames={**names, "#s": "status"},
            ExpressionAttributeValues={**given, ":finished": "done"},
        )
    except ClientError as error:
        if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
            raise


def failed(job: str, values: dict[str, Any], correlation: str) -> None:
    """Change a job whose last attempt has failed, now or as soon as the table takes it."""
    try:
        change(job, values)
    except Exception:
        body = json.dumps({"job": job, "values": values, "correlation": correlation})
        wiring.client("sqs").send_message(QueueUrl=os.environ["TURNS_QUEUE"], MessageBody=body)

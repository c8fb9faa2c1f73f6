"""How a job stands, in the jobs table; what cannot be written there goes to the turns queue and is written from it."""

import json
import os
import threading
from contextvars import copy_context
from decimal import Decimal
from typing import Any

from botocore.exceptions import ClientError
from ragkit.trace import Trace

from handlers import wiring

PART_S = 0.5


def change(job: str, values: dict[str, Any], gone: tuple[str, ...] = ()) -> None:
    """Change a job that is there and not done."""
    names = {f"#{index}": name for index, name in enumerate((*values, *gone))}
    plain = json.loads(json.dumps(list(values.values())), parse_float=Decimal)
    given = {f":{index}": value for index, value in enumerate(plain)}
    changes = ", ".join(f"#{index} = :{index}" for index in range(len(values)))
    try:
        wiring.table("JOBS_TABLE").update_item(
            Key={"id": job},
            UpdateExpression=f"SET {changes}" + (f" REMOVE {', '.join(list(names)[len(values) :])}" if gone else ""),
            ConditionExpression="attribute_exists(id) AND #s <> :finished",
            ExpressionAttributeNames={**names, "#s": "status"},
            ExpressionAttributeValues={**given, ":finished": "done"},
        )
    except ClientError as error:
        if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
            raise


class Progress:
    """A job's answer as far as it has come, for those who poll: written every `PART_S` beside the work, which waits for
    none of it, and not again once that failed."""

    def __init__(self, job: str) -> None:
        self._job = job
        self._text = ""
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, text: str) -> None:
        self._text += text
        if self._thread is None:
            self._thread = threading.Thread(target=copy_context().run, args=(self._write,), daemon=True)
            self._thread.start()

    def end(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _write(self) -> None:
        written = ""
        try:
            while not self._ended.wait(PART_S):
                if self._text != written:
                    written = self._text
                    change(self._job, {"partial": written})
        except Exception as error:
            Trace(job=self._job).warn("those who poll see no more of it", error=f"{type(error).__name__}: {error}")


def failed(job: str, values: dict[str, Any], correlation: str) -> None:
    """Change a job whose last attempt has failed, now or as soon as the table takes it."""
    try:
        change(job, values)
    except Exception:
        body = json.dumps({"job": job, "values": values, "correlation": correlation})
        wiring.client("sqs").send_message(QueueUrl=os.environ["TURNS_QUEUE"], MessageBody=body)

"""SQS queues as event sources: receive, filter, shape the records, delete what was done."""

import base64
import json
from collections.abc import Callable
from typing import Any

import msgspec

from preheat.execution.contract import Outcome
from preheat.kernel.scope import Arn
from preheat.services.awslambda.domain import Mapping
from preheat.services.awslambda.patterns import compile_pattern
from preheat.services.contract import Context, Params
from preheat.triggers.contract import Batch, Claim, Item, Prepared

RECEIVE_LIMIT = 10
VISIBILITY_REREAD_S = 1.0
WINDOW_MARGIN_S = 30


class SqsSource:
    service = "sqs"

    def prepare(self, mapping: Mapping) -> Prepared:
        patterns = mapping.config.patterns
        return Prepared(mapping, _filter(patterns) if patterns else None)

    def topics(self, mapping: Mapping) -> tuple[str, ...]:
        return f"sqs:{mapping.source_arn}", f"sqs:{mapping.source_arn}:later"

    def claim(self, ctx: Context, prepared: Prepared, limit: int, timeout_s: float) -> Claim:
        mapping = prepared.mapping
        url = _url(ctx, prepared)
        visibility_s = self._visibility(ctx, prepared, url)
        request: Params = {
            "QueueUrl": url,
            "MaxNumberOfMessages": min(limit, RECEIVE_LIMIT),
            "WaitTimeSeconds": 0,
            "MessageSystemAttributeNames": ["All"],
            "MessageAttributeNames": ["All"],
        }
        window_s = mapping.config.window_s
        if window_s and window_s + timeout_s > visibility_s:
            visibility_s = int(window_s + timeout_s + WINDOW_MARGIN_S)
            request["VisibilityTimeout"] = visibility_s
        messages = ctx.call("sqs", "ReceiveMessage", request).get("Messages") or []
        items, dropped = [], []
        for message in messages:
            record = _record(message, mapping)
            if prepared.match is not None and not prepared.match(record):
                dropped.append(message["ReceiptHandle"])
                continue
            items.append(
                Item(
                    message["MessageId"], message["ReceiptHandle"], msgspec.json.encode(record), ctx.now + visibility_s
                )
            )
        if dropped:
            _delete(ctx, url, dropped)
        short = len(messages) < request["MaxNumberOfMessages"]
        return Claim(items, len(messages), short and not mapping.source_arn.endswith(".fifo"))

    def next_at(self, ctx: Context, prepared: Prepared) -> float | None:
        return ctx.machine.services["sqs"].next_visible(ctx, prepared.mapping.source_arn)

    def has_backlog(self, ctx: Context, prepared: Prepared) -> bool:
        wanted = {"QueueUrl": _url(ctx, prepared), "AttributeNames": ["ApproximateNumberOfMessages"]}
        attributes = ctx.call("sqs", "GetQueueAttributes", wanted)["Attributes"]
        return attributes["ApproximateNumberOfMessages"] != "0"

    def settle(self, ctx: Context, batch: Batch, outcome: Outcome) -> bool:
        failed = failed_items(batch, outcome)
        done = [item.handle for item in batch.items if item.id not in failed]
        if done:
            _delete(ctx, _url_of(ctx, batch.mapping.source_arn), done)
        return not failed

    def _visibility(self, ctx: Context, prepared: Prepared, url: str) -> int:
        """The queue's visibility timeout in seconds, read again at most once a second."""
        known = prepared.memory.get("visibility")
        if known is None or ctx.now - known[1] >= VISIBILITY_REREAD_S:
            wanted = {"QueueUrl": url, "AttributeNames": ["VisibilityTimeout"]}
            attributes = ctx.call("sqs", "GetQueueAttributes", wanted)["Attributes"]
            known = prepared.memory["visibility"] = (int(attributes["VisibilityTimeout"]), ctx.now)
        return known[0]


def failed_items(batch: Batch, outcome: Outcome) -> set[str]:
    """The ids of the messages that stay in the queue. With ReportBatchItemFailures a successful answer may name some;
    an answer that cannot be read, or names a message that is not there, fails them all."""
    everything = {item.id for item in batch.items}
    if outcome.error is not None:
        return everything
    if not batch.mapping.config.report_item_failures or not outcome.payload:
        return set()
    try:
        answer = json.loads(outcome.payload)
    except ValueError:
        return everything
    if answer is None or answer == "":
        return set()
    failures = answer.get("batchItemFailures") if isinstance(answer, dict) else False
    if failures is None:
        return set()
    if not isinstance(failures, list):
        return everything
    named = {entry.get("itemIdentifier") if isinstance(entry, dict) else None for entry in _hashable(failures)}
    return named if named <= everything else everything


def _hashable(failures: list[Any]) -> list[Any]:
    """Entries whose identifier is no text count as an entry without one."""
    return [
        entry if isinstance(entry, dict) and isinstance(entry.get("itemIdentifier"), str) else None
        for entry in failures
    ]


def _url_of(ctx: Context, arn: str) -> str:
    return ctx.call("sqs", "GetQueueUrl", {"QueueName": Arn.parse(arn).resource})["QueueUrl"]


def _url(ctx: Context, prepared: Prepared) -> str:
    url = prepared.memory.get("url")
    if url is None:
        url = prepared.memory["url"] = _url_of(ctx, prepared.mapping.source_arn)
    return url


def _delete(ctx: Context, url: str, handles: list[str]) -> None:
    for start in range(0, len(handles), 10):
        entries = [
            {"Id": str(index), "ReceiptHandle": handle} for index, handle in enumerate(handles[start : start + 10])
        ]
        ctx.call("sqs", "DeleteMessageBatch", {"QueueUrl": url, "Entries": entries})


def _record(message: Params, mapping: Mapping) -> dict[str, Any]:
    record = {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message["Attributes"],
        "messageAttributes": {
            name: _attribute(value) for name, value in (message.get("MessageAttributes") or {}).items()
        },
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": mapping.source_arn,
        "awsRegion": mapping.scope.region,
    }
    if message.get("MD5OfMessageAttributes"):
        record["md5OfMessageAttributes"] = message["MD5OfMessageAttributes"]
    return record


def _attribute(value: Params) -> dict[str, Any]:
    shaped: dict[str, Any] = {}
    if value.get("StringValue") is not None:
        shaped["stringValue"] = value["StringValue"]
    if value.get("BinaryValue") is not None:
        shaped["binaryValue"] = base64.b64encode(value["BinaryValue"]).decode()
    return {**shaped, "stringListValues": [], "binaryListValues": [], "dataType": value["DataType"]}


def _filter(patterns: tuple[str, ...]) -> Callable[[dict[str, Any]], bool]:
    """Any pattern suffices. A body that is a JSON object or list is matched as such, any other as text; a pattern of
    the one kind never matches a body of the other."""
    decoded = [json.loads(text) for text in patterns]
    tests = [(compile_pattern(pattern), isinstance(pattern.get("body"), dict)) for pattern in decoded]

    def match(record: dict[str, Any]) -> bool:
        structured = None
        if record["body"].lstrip()[:1] in ("{", "["):
            try:
                structured = json.loads(record["body"])
            except ValueError:
                structured = None
        event = record if structured is None else {**record, "body": structured}
        return any(test(event) for test, wants_json in tests if structured is not None or not wants_json)

    return match

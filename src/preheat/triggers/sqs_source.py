"""SQS queues as event sources: receive, filter, shape the records, delete what was done."""

import base64
from dataclasses import replace
from typing import Any

import msgspec

from preheat.execution.contract import FunctionSpec, Outcome
from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn
from preheat.services.awslambda.advice import max_receive_count
from preheat.services.awslambda.domain import Mapping
from preheat.services.awslambda.patterns import compile_filters
from preheat.services.contract import Context, Params, Principal
from preheat.triggers.answers import failed_items
from preheat.triggers.contract import Batch, Claim, Item, Prepared, Settled

RECEIVE_LIMIT = 10
VISIBILITY_REREAD_S = 1.0
WINDOW_MARGIN_S = 30


class SqsSource:
    service = "sqs"
    ordered = False

    def prepare(self, mapping: Mapping) -> Prepared:
        patterns = mapping.config.patterns
        return Prepared(mapping, compile_filters(patterns) if patterns else None)

    def topics(self, mapping: Mapping) -> tuple[str, ...]:
        return f"sqs:{mapping.source_arn}", f"sqs:{mapping.source_arn}:later"

    def lanes(self, ctx: Context, prepared: Prepared) -> tuple[str, ...]:
        return ("",)

    def claim(
        self, ctx: Context, prepared: Prepared, lane: str, cursor: str | None, limit: int, spec: FunctionSpec
    ) -> Claim:
        mapping = prepared.mapping
        url = _url(ctx, prepared)
        _permitted(ctx, spec, "ReceiveMessage", url)
        request, visibility_s = self._request(ctx, prepared, url, limit, spec.timeout_s)
        messages = ctx.call("sqs", "ReceiveMessage", request).get("Messages") or []
        items, dropped, size = [], [], 0
        for message in messages:
            record = _record(message, mapping)
            size += len(message["Body"])
            if prepared.match is not None and not prepared.match(record):
                dropped.append(message["ReceiptHandle"])
                continue
            attributes = message["Attributes"]
            items.append(
                Item(
                    message["MessageId"], message["ReceiptHandle"], msgspec.json.encode(record), ctx.now + visibility_s,
                    attributes.get("MessageGroupId", "") if _fifo(mapping) else "",
                    int(attributes["ApproximateReceiveCount"]), trace=attributes.get("AWSTraceHeader"),
                )
            )  # fmt: skip
        if dropped:
            _permitted(ctx, spec, "DeleteMessage", url)
            _delete(ctx, url, dropped)
        short = len(messages) < request["MaxNumberOfMessages"]
        return Claim(items, len(messages), not messages or (short and not _fifo(mapping)), len(dropped), size)

    def next_at(self, ctx: Context, prepared: Prepared) -> float | None:
        return ctx.machine.services["sqs"].next_visible(ctx, prepared.mapping.source_arn)

    def has_backlog(self, ctx: Context, prepared: Prepared) -> bool:
        wanted = {"QueueUrl": _url(ctx, prepared), "AttributeNames": ["ApproximateNumberOfMessages"]}
        attributes = ctx.call("sqs", "GetQueueAttributes", wanted)["Attributes"]
        return attributes["ApproximateNumberOfMessages"] != "0"

    def settle(self, ctx: Context, batch: Batch, outcome: Outcome | None) -> Settled:
        failed = failed_items(batch, outcome)
        done = [item.handle for item in batch.items if item.id not in failed]
        blocked = frozenset(item.group for item in batch.items if item.id in failed and item.group)
        try:
            url = _url_of(ctx, batch.mapping.source_arn)
            if done:
                _permitted(ctx, batch.spec, "DeleteMessage", url)
                _delete(ctx, url, done)
        except AwsError as error:
            why = f"{error.code}: {error.message}"
            return Settled(0, len(batch.items), blocked=frozenset(batch.groups), denied=why)
        lost = self._lost(ctx, url, batch) if outcome is None else 0
        return Settled(len(done), len(failed), lost, blocked)

    def _lost(self, ctx: Context, url: str, batch: Batch) -> int:
        """How many of the messages go to the dead-letter queue at their next receive."""
        wanted = {"QueueUrl": url, "AttributeNames": ["RedrivePolicy"]}
        policy = ctx.call("sqs", "GetQueueAttributes", wanted).get("Attributes", {}).get("RedrivePolicy")
        most = max_receive_count(policy)
        return 0 if most is None else sum(item.receives >= most for item in batch.items)

    def _request(
        self, ctx: Context, prepared: Prepared, url: str, limit: int, timeout_s: float
    ) -> tuple[Params, int]:
        """(the receive, the visibility timeout it gets in seconds). With a window that together with the function's
        timeout exceeds the queue's visibility timeout, AWS takes both and 30 seconds."""
        visibility_s = self._visibility(ctx, prepared, url)
        request: Params = {
            "QueueUrl": url,
            "MaxNumberOfMessages": min(limit, RECEIVE_LIMIT),
            "WaitTimeSeconds": 0,
            "MessageSystemAttributeNames": ["All"],
            "MessageAttributeNames": ["All"],
        }
        window_s = prepared.mapping.config.window_s
        if window_s and window_s + timeout_s > visibility_s:
            visibility_s = request["VisibilityTimeout"] = int(window_s + timeout_s + WINDOW_MARGIN_S)
        return request, visibility_s

    def _visibility(self, ctx: Context, prepared: Prepared, url: str) -> int:
        """The queue's visibility timeout in seconds, read again at most once a second."""
        known = prepared.memory.get("visibility")
        if known is None or ctx.now - known[1] >= VISIBILITY_REREAD_S:
            wanted = {"QueueUrl": url, "AttributeNames": ["VisibilityTimeout"]}
            attributes = ctx.call("sqs", "GetQueueAttributes", wanted)["Attributes"]
            known = prepared.memory["visibility"] = (int(attributes["VisibilityTimeout"]), ctx.now)
        return known[0]


def _permitted(ctx: Context, spec: FunctionSpec, action: str, url: str) -> None:
    """When policies are enforced: the function's role may do this now. Raises AwsError."""
    authorize = ctx.machine.authorizer
    if authorize is None:
        return
    session = f"arn:aws:sts::{spec.account}:assumed-role/{spec.role.rpartition('/')[2]}/{spec.name}"
    role = replace(ctx, principal=Principal(session, spec.account, "role"))
    params: Params = {"QueueUrl": url}
    authorize(role, "sqs", action, params)


def _fifo(mapping: Mapping) -> bool:
    return mapping.source_arn.endswith(".fifo")


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
    """The record of one message. Where batches are gathered over a window AWS has null for a digest that is not."""
    record: dict[str, Any] = {
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
    digest = message.get("MD5OfMessageAttributes")
    if digest or mapping.config.window_s:
        record["md5OfMessageAttributes"] = digest
    return record


def _attribute(value: Params) -> dict[str, Any]:
    shaped: dict[str, Any] = {}
    if value.get("StringValue") is not None:
        shaped["stringValue"] = value["StringValue"]
    if value.get("BinaryValue") is not None:
        shaped["binaryValue"] = base64.b64encode(value["BinaryValue"]).decode()
    return {**shaped, "stringListValues": [], "binaryListValues": [], "dataType": value["DataType"]}



"""SQS's operations on messages."""

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec

from preheat.kernel.errors import AwsError
from preheat.services.contract import Context, Outcome, Params, Wait
from preheat.services.deliveries import trace_header
from preheat.services.sqs import domain
from preheat.services.sqs.domain import Queue
from preheat.services.sqs.repository import NewMessage, SqsRepository

SYSTEM_ATTRIBUTES = (
    "SenderId", "SentTimestamp", "ApproximateReceiveCount", "ApproximateFirstReceiveTimestamp", "SequenceNumber",
    "MessageDeduplicationId", "MessageGroupId", "AWSTraceHeader", "DeadLetterQueueSourceArn",
)  # fmt: skip
OWN_SEQUENCE_BASE = 10**19
FindQueue = Callable[[Context, Params], Queue]


class MessageOperations:
    """`find` resolves the QueueUrl of a request."""

    def __init__(self, repository: SqsRepository, find: FindQueue) -> None:
        self._rows = repository
        self._find = find

    # -- send -----------------------------------------------------------------------------------------------------

    def send_message(self, ctx: Context, params: Params) -> Outcome:
        queue = self._find(ctx, params)
        size = self._check(queue, params)
        if size > queue.max_bytes:
            raise domain.invalid_value(
                f"One or more parameters are invalid. Reason: Message must be shorter than {queue.max_bytes} bytes."
            )
        return self._store(ctx, queue, params)

    def send_message_batch(self, ctx: Context, params: Params) -> Outcome:
        queue = self._find(ctx, params)
        entries = params["Entries"]
        domain.check_entries(entries)
        done: list[Params] = []
        failed: list[Params] = []
        total = 0
        for entry in entries:
            total += len(entry.get("MessageBody", "").encode())
            total += domain.attributes_size(entry.get("MessageAttributes") or {})
        if total > domain.MAX_MESSAGE_BYTES:
            raise domain.simple("BatchRequestTooLong", f"Batch requests cannot be longer than "
                                f"{domain.MAX_MESSAGE_BYTES} bytes. You have sent {total} bytes.")  # fmt: skip
        for entry in entries:
            try:
                if self._check(queue, entry) > queue.max_bytes:
                    raise domain.invalid_value("One or more parameters are invalid. Reason: Message must be shorter "
                                               f"than {queue.max_bytes} bytes.")  # fmt: skip
                stored = self._store(ctx, queue, entry)
            except AwsError as error:
                failed.append(_failure(entry["Id"], error))
                continue
            stored["Id"] = entry["Id"]
            done.append(stored)
        return _batch(done, failed)

    def _check(self, queue: Queue, params: Params) -> int:
        """Validate one message; its size in bytes."""
        body = params.get("MessageBody", "")
        domain.check_body(body)
        size = len(body) if body.isascii() else len(body.encode())
        attributes = params.get("MessageAttributes")
        if attributes:
            domain.check_message_attributes(attributes)
            size += domain.attributes_size(attributes)
        system = params.get("MessageSystemAttributes")
        if system:
            domain.check_system_attributes(system)
        delay = params.get("DelaySeconds")
        if delay is not None:
            if queue.fifo and delay != 0:
                raise domain.invalid_value(f"Value {delay} for parameter DelaySeconds is invalid. Reason: The request "
                                           "include parameter that is not valid for this queue type.")  # fmt: skip
            domain.check_range("DelaySeconds", delay, 0, 900, "DelaySeconds must be >= 0 and <= 900.")
        group = params.get("MessageGroupId")
        if group is not None:
            domain.check_group_text("MessageGroupId", group)
        elif queue.fifo:
            raise domain.missing("MessageGroupId")
        dedup = params.get("MessageDeduplicationId")
        if dedup is not None:
            if not queue.fifo:
                raise domain.invalid_value(f"Value {dedup} for parameter MessageDeduplicationId is invalid. Reason: "
                                           "The request include parameter that is not valid for this queue type."
                                           )  # fmt: skip
            domain.check_group_text("MessageDeduplicationId", dedup)
        elif queue.fifo and queue.attributes.get("ContentBasedDeduplication") != "true":
            raise domain.invalid_value("The queue should either have ContentBasedDeduplication enabled or "
                                       "MessageDeduplicationId provided explicitly")  # fmt: skip
        return size

    def _store(self, ctx: Context, queue: Queue, params: Params) -> Params:
        now_ms = ctx.now_ms
        body = params["MessageBody"]
        md5 = domain.body_md5(body)
        delay = params.get("DelaySeconds")
        visible_at = now_ms + (queue.delay_ms if delay is None or queue.fifo else delay * 1_000)
        system = params.get("MessageSystemAttributes")
        attributes = params.get("MessageAttributes") or None
        sender = ctx.principal.user_id or ctx.principal.account
        message = NewMessage(
            ctx.entropy.uuid(), body, md5, sender, visible_at, now_ms, attributes,
            params.get("MessageGroupId"), params.get("MessageDeduplicationId"),
            system["AWSTraceHeader"]["StringValue"] if system and "AWSTraceHeader" in system else trace_header(ctx),
        )  # fmt: skip
        message_id, sequence = message.message_id, None
        if queue.fifo:
            message_id, sequence = self._store_fifo(queue, message, now_ms)
        else:
            self._rows.add(queue, message)
        if visible_at <= now_ms:
            ctx.db.notify(queue.topic)
        else:
            ctx.db.notify(queue.topic + ":later")
        output = {"MessageId": message_id, "MD5OfMessageBody": md5}
        if attributes:
            output["MD5OfMessageAttributes"] = domain.attributes_md5(attributes)
        if system:
            output["MD5OfMessageSystemAttributes"] = domain.attributes_md5(system)
        if sequence is not None:
            output["SequenceNumber"] = str(OWN_SEQUENCE_BASE + sequence)
        return output

    def _store_fifo(self, queue: Queue, message: NewMessage, now_ms: int) -> tuple[str, int]:
        """Store unless it is a duplicate; (message id, sequence) of the message that counts."""
        rows = self._rows
        group = message.group_id or ""
        dedup_id = message.dedup_id or hashlib.sha256(message.body.encode()).hexdigest()
        scope = group if queue.attributes.get("DeduplicationScope") == "messageGroup" else ""
        known = rows.duplicate(queue, scope, dedup_id, now_ms)
        if known is not None:
            return known
        sequence = rows.next_sequence(queue)
        rows.add(queue, message._replace(dedup_id=dedup_id), sequence)
        rows.remember(queue, scope, dedup_id, message.message_id, sequence, now_ms)
        rows.open_group(queue, group, message.visible_at)
        return message.message_id, sequence

    # -- receive --------------------------------------------------------------------------------------------------

    def receive_message(self, ctx: Context, params: Params) -> Outcome:
        queue = self._find(ctx, params)
        limit = params.get("MaxNumberOfMessages", 1)
        domain.check_range("MaxNumberOfMessages", limit, 1, 10, "Must be between 1 and 10, if provided.")
        wait = params.get("WaitTimeSeconds", queue.wait_s)
        domain.check_range("WaitTimeSeconds", wait, 0, 20, "Must be >= 0 and <= 20, if provided.")
        visibility = params.get("VisibilityTimeout")
        if visibility is not None:
            domain.check_range("VisibilityTimeout", visibility, 0, domain.MAX_VISIBILITY_S,
                               "Must be >= 0 and <= 43200, if provided.")  # fmt: skip
        deadline = ctx.now + wait
        wanted = _wanted_system_attributes(params)
        names = params.get("MessageAttributeNames")

        def again(ctx: Context) -> Outcome:
            current = self._find(ctx, params)
            messages = self.take(ctx, current, limit, visibility)
            if messages:
                return {"Messages": [_render(current, row, nonce, wanted, names) for row, nonce in messages]}
            if ctx.now >= deadline:
                return {}
            later = self._rows.next_visible(current, ctx.now_ms)
            until = deadline if later is None else min(deadline, later / 1_000)
            return Wait((current.topic, current.topic + ":later"), until, again)

        return again(ctx)

    def take(self, ctx: Context, queue: Queue, limit: int, visibility_s: int | None) -> list[tuple[Any, int]]:
        """Receive: rows and their nonce, dead-lettering those that were received too often before."""
        now_ms = ctx.now_ms
        visible_at = now_ms + (queue.visibility_ms if visibility_s is None else visibility_s * 1_000)
        nonce = int.from_bytes(ctx.entropy.bytes(7), "big") | 1
        if queue.fifo:
            return [(row, nonce) for row in self._take_fifo(ctx, queue, limit, now_ms, visible_at, nonce)]
        if queue.redrive is not None:
            self._dead_letter(ctx, queue, limit, now_ms)
        rows = self._rows.take(queue, limit, now_ms, visible_at, nonce)
        if visible_at <= now_ms and rows:
            ctx.db.notify(queue.topic)
        return [(row, nonce) for row in rows]

    def _dead_letter(self, ctx: Context, queue: Queue, limit: int, now_ms: int) -> None:
        redrive = queue.redrive
        assert redrive is not None
        while True:
            spent = self._rows.exhausted(queue, limit, now_ms, redrive.max_receive_count)
            target = self._dead_letter_queue(queue) if spent else None
            if target is None:
                return
            for row in spent:
                self._rows.move(row["id"], target, queue, now_ms)
            ctx.db.notify(target.topic)

    def _dead_letter_queue(self, queue: Queue) -> Queue | None:
        assert queue.redrive is not None
        name = queue.redrive.dead_letter_arn.rpartition(":")[2]
        return self._rows.queue(queue.scope, name)

    def _take_fifo(
        self, ctx: Context, queue: Queue, limit: int, now_ms: int, visible_at: int, nonce: int
    ) -> list[Any]:
        rows = self._rows
        taken: list[Any] = []
        for group_id in rows.ready_groups(queue, now_ms, limit):
            before = len(taken)
            for head in rows.group_head(queue, group_id, limit + 1):
                if len(taken) >= limit or head["visible_at"] > now_ms:
                    break
                redrive = queue.redrive
                if redrive is not None and head["receive_count"] >= redrive.max_receive_count:
                    target = self._dead_letter_queue(queue)
                    if target is not None:
                        rows.move(head["id"], target, queue, now_ms)
                        rows.open_group(target, group_id, now_ms)
                        ctx.db.notify(target.topic)
                        continue
                taken.append(rows.take_one(head["id"], now_ms, visible_at, nonce))
            rows.settle_group(queue, group_id, now_ms)
            if len(taken) == before:
                continue
            if len(taken) >= limit:
                break
        return taken

    # -- delete and visibility ------------------------------------------------------------------------------------

    def delete_message(self, ctx: Context, params: Params) -> Outcome:
        queue = self._find(ctx, params)
        self._delete(ctx, queue, [self._handle(queue, params["ReceiptHandle"])])
        return {}

    def delete_message_batch(self, ctx: Context, params: Params) -> Outcome:
        queue = self._find(ctx, params)
        entries = params["Entries"]
        domain.check_entries(entries)
        done: list[Params] = []
        failed: list[Params] = []
        handles = []
        for entry in entries:
            try:
                handles.append(self._handle(queue, entry.get("ReceiptHandle", "")))
            except AwsError as error:
                failed.append(_failure(entry["Id"], error))
                continue
            done.append({"Id": entry["Id"]})
        if handles:
            self._delete(ctx, queue, handles)
        return _batch(done, failed)

    def _handle(self, queue: Queue, handle: str) -> tuple[int, int]:
        owner, message, nonce = domain.parse_handle(handle)
        if owner != queue.id:
            raise domain.bad_handle(handle)
        return message, nonce

    def _delete(self, ctx: Context, queue: Queue, handles: list[tuple[int, int]]) -> None:
        if not queue.fifo:
            self._rows.delete(queue, handles)
            return
        now_ms = ctx.now_ms
        groups = set()
        for message, nonce in handles:
            row = self._rows.message(message, nonce)
            if row is None:
                continue
            if row["visible_at"] <= now_ms:
                handle = domain.receipt_handle(queue.id, message, nonce)
                raise domain.invalid_value(f"Value {handle} for parameter ReceiptHandle is invalid. Reason: The "
                                           "receipt handle has expired.")  # fmt: skip
            groups.add(row["group_id"])
        self._rows.delete(queue, handles)
        for group_id in groups:
            self._rows.settle_group(queue, group_id, now_ms)
            ctx.db.notify(queue.topic)

    def change_message_visibility(self, ctx: Context, params: Params) -> Outcome:
        queue = self._find(ctx, params)
        self._change(ctx, queue, params["ReceiptHandle"], params["VisibilityTimeout"])
        return {}

    def change_message_visibility_batch(self, ctx: Context, params: Params) -> Outcome:
        queue = self._find(ctx, params)
        entries = params["Entries"]
        domain.check_entries(entries)
        done: list[Params] = []
        failed: list[Params] = []
        for entry in entries:
            try:
                self._change(ctx, queue, entry.get("ReceiptHandle", ""), entry.get("VisibilityTimeout", 0))
            except AwsError as error:
                failed.append(_failure(entry["Id"], error))
                continue
            done.append({"Id": entry["Id"]})
        return _batch(done, failed)

    def _change(self, ctx: Context, queue: Queue, handle: str, timeout_s: int) -> None:
        domain.check_range("VisibilityTimeout", timeout_s, 0, domain.MAX_VISIBILITY_S,
                           "VisibilityTimeout must be between 0 and 43200.")  # fmt: skip
        message, nonce = self._handle(queue, handle)
        now_ms = ctx.now_ms
        row = self._rows.message(message, nonce)
        if row is None or row["visible_at"] <= now_ms:
            raise AwsError(
                "MessageNotInflight",
                f"Value {handle} for parameter ReceiptHandle is invalid. Reason: Message does not exist or is not "
                "available for visibility timeout change.",
                query_code="InvalidParameterValue",
            )
        longest = (row["first_received"] or now_ms) + domain.MAX_VISIBILITY_S * 1_000
        visible_at = now_ms + timeout_s * 1_000
        if visible_at > longest:
            raise domain.invalid_value(f"Value {timeout_s} for parameter VisibilityTimeout is invalid. Reason: Total "
                                       "VisibilityTimeout for the message is beyond the limit [43200 seconds]."
                                       )  # fmt: skip
        self._rows.set_visible(message, visible_at)
        if queue.fifo:
            self._rows.settle_group(queue, row["group_id"], now_ms)
        ctx.db.notify(queue.topic if timeout_s == 0 else queue.topic + ":later")


def _wanted_system_attributes(params: Params) -> frozenset[str]:
    names = [*(params.get("AttributeNames") or ()), *(params.get("MessageSystemAttributeNames") or ())]
    for name in names:
        if name != "All" and name not in SYSTEM_ATTRIBUTES:
            raise domain.invalid_attribute_name(f"Unknown Attribute {name}.")
    return frozenset(SYSTEM_ATTRIBUTES) if "All" in names else frozenset(names)


def _render(queue: Queue, row: Any, nonce: int, wanted: frozenset[str], names: list[str] | None) -> Params:
    message = {
        "MessageId": row["message_id"],
        "ReceiptHandle": domain.receipt_handle(queue.id, row["id"], nonce),
        "MD5OfBody": row["md5"],
        "Body": row["body"],
    }
    if wanted:
        message["Attributes"] = {
            name: value for name, value in _system_attributes(row).items() if value is not None and name in wanted
        }
    if names and row["attributes"]:
        attributes = _chosen(msgspec.json.decode(row["attributes"]), names)
        if attributes:
            message["MessageAttributes"] = attributes
            message["MD5OfMessageAttributes"] = domain.attributes_md5(attributes)
    return message


def _system_attributes(row: Any) -> dict[str, str | None]:
    sequence = row["sequence"]
    return {
        "SenderId": row["sender"],
        "SentTimestamp": str(row["sent_at"]),
        "ApproximateReceiveCount": str(row["receive_count"]),
        "ApproximateFirstReceiveTimestamp": str(row["first_received"]),
        "SequenceNumber": None if sequence is None else str(OWN_SEQUENCE_BASE + sequence),
        "MessageDeduplicationId": row["dedup_id"],
        "MessageGroupId": row["group_id"],
        "AWSTraceHeader": row["trace"],
        "DeadLetterQueueSourceArn": row["source_arn"],
    }


def _chosen(attributes: dict[str, Any], names: list[str]) -> dict[str, Any]:
    prefixes = tuple(name[:-2] for name in names if name.endswith(".*"))
    everything = "All" in names or ".*" in names
    chosen = {}
    for name, value in attributes.items():
        if everything or name in names or (prefixes and name.startswith(prefixes)):
            if isinstance(value.get("BinaryValue"), str):
                value["BinaryValue"] = msgspec.convert(value["BinaryValue"], bytes)
            chosen[name] = value
    return chosen


def _batch(done: list[Params], failed: list[Params]) -> Params:
    output: Params = {"Successful": done}
    if failed:
        output["Failed"] = failed
    return output


def _failure(entry_id: str, error: AwsError) -> Params:
    return {
        "Id": entry_id,
        "Code": error.query_code or error.code,
        "Message": error.message,
        "SenderFault": error.sender,
    }

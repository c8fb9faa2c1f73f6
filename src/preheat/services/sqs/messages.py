"""SQS's operations on messages but for receiving: send, delete, change visibility."""

import hashlib
from collections.abc import Callable

from preheat.kernel.errors import AwsError
from preheat.services.contract import Context, Outcome, Params
from preheat.services.deliveries import trace_header
from preheat.services.sqs import domain
from preheat.services.sqs.domain import Queue
from preheat.services.sqs.metrics import Metrics
from preheat.services.sqs.polls import Polls
from preheat.services.sqs.quotas import Quotas
from preheat.services.sqs.receiving import OWN_SEQUENCE_BASE, Receiver
from preheat.services.sqs.repository import NewMessage, SqsRepository

NOTHING_BUT_A_BODY = 2
"""Members of the plainest message: where it goes (or its place in the batch) and its body."""
ALONE, BATCHED = "are invalid", "cannot be validated"
"""What AWS says of a message that is too long."""
NO_DEDUPLICATION = (
    "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly"
)
FindQueue = Callable[[Context, Params], Queue]


class MessageOperations:
    """`find` resolves the QueueUrl of a request."""

    def __init__(
        self, repository: SqsRepository, find: FindQueue, receiver: Receiver, polls: Polls, metrics: Metrics,
        quotas: Quotas,
    ) -> None:  # fmt: skip
        self._rows = repository
        self._find = find
        self._receiver = receiver
        self._polls = polls
        self._metrics = metrics
        self._quotas = quotas

    # -- send -----------------------------------------------------------------------------------------------------

    def send_message(self, ctx: Context, params: Params) -> Outcome:
        queue = self._find(ctx, params)
        if len(params) == NOTHING_BUT_A_BODY and self._takes_plain(ctx, queue):
            body = params.get("MessageBody", "")
            row = self._plain_row(ctx, queue, body, *_measured(queue, body))
            self._rows.add_plain((row,))
            self.appears(ctx, queue, row[1])
            return {"MessageId": row[3], "MD5OfMessageBody": row[5]}
        size = self._check(queue, params)
        self._quotas.spend(ctx, queue, "send", (params.get("MessageGroupId"),))
        return self._store(ctx, queue, params, size)

    def send_message_batch(self, ctx: Context, params: Params) -> Outcome:
        queue = self._find(ctx, params)
        entries = params["Entries"]
        domain.check_entries(entries, "SendMessageBatch")
        total = sum(domain.message_size(entry) for entry in entries)
        if total > domain.MAX_MESSAGE_BYTES:
            raise domain.simple("BatchRequestTooLong", f"Batch requests cannot be longer than "
                                f"{domain.MAX_MESSAGE_BYTES} bytes. You have sent {total} bytes.")  # fmt: skip
        if queue.fifo:
            _check_fifo_batch(queue, entries)
        self._quotas.spend(ctx, queue, "send", (entry.get("MessageGroupId") for entry in entries))
        plain = self._takes_plain(ctx, queue) and all(len(entry) == NOTHING_BUT_A_BODY for entry in entries)
        rows: list[tuple] = []
        taken: list[str] = []
        done: list[Params] = []
        failed: list[Params] = []
        for entry in entries:
            try:
                if plain:
                    body = entry.get("MessageBody", "")
                    rows.append(self._plain_row(ctx, queue, body, *_measured(queue, body, BATCHED)))
                else:
                    done.append(self._store(ctx, queue, entry, self._check(queue, entry, BATCHED)))
            except AwsError as error:
                failed.append(_failure(entry["Id"], error))
                continue
            taken.append(entry["Id"])
        if rows:
            self._rows.add_plain(rows)
            self.appears(ctx, queue, rows[0][1], len(rows))
            done = [{"MessageId": row[3], "MD5OfMessageBody": row[5]} for row in rows]
        for entry_id, stored in zip(taken, done, strict=True):
            stored["Id"] = entry_id
        return _batch(done, failed)

    def _takes_plain(self, ctx: Context, queue: Queue) -> bool:
        """Whether a message with a body alone is stored with nothing else."""
        return not queue.fifo and not self._rows.tenants.fair(queue) and trace_header(ctx) is None

    def _plain_row(self, ctx: Context, queue: Queue, body: str, size: int, md5: str) -> tuple:
        """What `add_plain` takes, counted as sent."""
        now_ms, principal = ctx.now_ms, ctx.principal
        self._metrics.sent(ctx, queue, size)
        sender = principal.user_id or principal.account
        return queue.id, now_ms + queue.delay_ms, now_ms, ctx.machine.entropy.uuid(), sender, md5, body

    def _check(self, queue: Queue, params: Params, verdict: str = ALONE) -> int:
        """Validate one message; its size in bytes. `verdict` is said of one that is too long."""
        domain.check_body(params.get("MessageBody", ""))
        attributes = params.get("MessageAttributes")
        if attributes:
            domain.check_message_attributes(attributes)
        size = domain.message_size(params)
        if size > queue.max_bytes:
            raise _too_long(queue, verdict)
        system = params.get("MessageSystemAttributes")
        if system:
            domain.check_system_attributes(system)
        delay = params.get("DelaySeconds")
        if delay is not None:
            if queue.fifo and delay != 0:
                raise domain.wrong_queue_type("DelaySeconds", delay)
            domain.check_range("DelaySeconds", delay, 0, 900, "DelaySeconds must be >= 0 and <= 900.")
        group = params.get("MessageGroupId")
        if group is not None:
            domain.check_group_text("MessageGroupId", group)
        elif queue.fifo:
            raise domain.missing("MessageGroupId")
        dedup = params.get("MessageDeduplicationId")
        if dedup is not None:
            if not queue.fifo:
                raise domain.wrong_queue_type("MessageDeduplicationId", dedup)
            domain.check_group_text("MessageDeduplicationId", dedup)
        elif queue.fifo and queue.attributes.get("ContentBasedDeduplication") != "true":
            raise domain.invalid_value(NO_DEDUPLICATION)
        return size

    def _store(self, ctx: Context, queue: Queue, params: Params, size: int) -> Params:
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
            message_id, sequence = self._store_fifo(ctx, queue, message)
        else:
            self._rows.add(queue, message)
        self._metrics.sent(ctx, queue, size)
        self.appears(ctx, queue, visible_at)
        output = {"MessageId": message_id, "MD5OfMessageBody": md5}
        if attributes:
            output["MD5OfMessageAttributes"] = domain.attributes_md5(attributes)
        if system:
            output["MD5OfMessageSystemAttributes"] = domain.attributes_md5(system)
        if sequence is not None:
            output["SequenceNumber"] = str(OWN_SEQUENCE_BASE + sequence)
        return output

    def appears(self, ctx: Context, queue: Queue, visible_at: int, number: int = 1) -> None:
        """A message, or so many, may be received from `visible_at` on."""
        if visible_at <= ctx.now_ms:
            ctx.db.notify(queue.topic)
            self._polls.wake(ctx, queue.id, number)
        else:
            ctx.db.notify(queue.topic + ":later")
            self._polls.alarm(ctx, queue, visible_at)

    def _store_fifo(self, ctx: Context, queue: Queue, message: NewMessage) -> tuple[str, int]:
        """Store unless it is a duplicate; (message id, sequence) of the message that counts."""
        rows, now_ms = self._rows, ctx.now_ms
        group = message.group_id or ""
        dedup_id = message.dedup_id or hashlib.sha256(message.body.encode()).hexdigest()
        scope = group if queue.attributes.get("DeduplicationScope") == "messageGroup" else ""
        known = rows.duplicate(queue, scope, dedup_id, now_ms)
        if known is not None:
            self._metrics.duplicate(ctx, queue)
            return known
        sequence = rows.next_sequence(queue)
        rows.add(queue, message._replace(dedup_id=dedup_id), sequence)
        rows.remember(queue, scope, dedup_id, message.message_id, sequence, now_ms)
        rows.open_group(queue, group, message.visible_at)
        return message.message_id, sequence

    # -- delete and visibility ------------------------------------------------------------------------------------

    def delete_message(self, ctx: Context, params: Params) -> Outcome:
        queue = self._find(ctx, params)
        self._quotas.spend(ctx, queue, "delete")
        self._delete(ctx, queue, [self._deletable(ctx, queue, params["ReceiptHandle"])])
        return {}

    def delete_message_batch(self, ctx: Context, params: Params) -> Outcome:
        queue = self._find(ctx, params)
        entries = params["Entries"]
        domain.check_entries(entries, "DeleteMessageBatch")
        self._quotas.spend(ctx, queue, "delete")
        done: list[Params] = []
        failed: list[Params] = []
        handles = []
        for entry in entries:
            try:
                handles.append(self._deletable(ctx, queue, entry.get("ReceiptHandle", "")))
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

    def _deletable(self, ctx: Context, queue: Queue, handle: str) -> tuple[int, int]:
        """(message row, nonce); of a FIFO queue only while the receive still counts."""
        message, nonce = self._handle(queue, handle)
        if queue.fifo:
            row = self._rows.message(message)
            if row is None or row["queue_id"] != queue.id or domain.came_after(row, nonce):
                return message, nonce
            if row["receipt"] != nonce or row["visible_at"] <= ctx.now_ms:
                raise domain.invalid_value(f"Value {handle} for parameter ReceiptHandle is invalid. Reason: The "
                                           "receipt handle has expired.")  # fmt: skip
        return message, nonce

    def _delete(self, ctx: Context, queue: Queue, handles: list[tuple[int, int]]) -> None:
        rows = self._rows
        groups = set()
        if queue.fifo:
            found = [rows.message(message) for message, _ in handles]
            groups = {row["group_id"] for row in found if row is not None}
        gone = rows.delete(queue, handles)
        self._receiver.settled(ctx, queue, gone)
        self._metrics.deleted(ctx, queue, len(handles))
        for group_id in groups:
            rows.settle_group(queue, group_id)
        if groups:
            ctx.db.notify(queue.topic)
            self._polls.wake(ctx, queue.id, len(groups))

    def change_message_visibility(self, ctx: Context, params: Params) -> Outcome:
        queue = self._find(ctx, params)
        self._quotas.spend(ctx, queue, "visibility")
        self._change(ctx, queue, params["ReceiptHandle"], params["VisibilityTimeout"])
        return {}

    def change_message_visibility_batch(self, ctx: Context, params: Params) -> Outcome:
        queue = self._find(ctx, params)
        entries = params["Entries"]
        domain.check_entries(entries, "ChangeMessageVisibilityBatch")
        self._quotas.spend(ctx, queue, "visibility")
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
        row = self._rows.message(message)
        known = row is not None and row["queue_id"] == queue.id and not domain.came_after(row, nonce)
        if not known or (queue.fifo and (row["receipt"] != nonce or row["visible_at"] <= now_ms)):
            raise domain.invalid_value(f"Value {handle} for parameter ReceiptHandle is invalid. Reason: Message does "
                                       "not exist or is not available for visibility timeout change.")  # fmt: skip
        if row["visible_at"] <= now_ms:
            return
        longest = domain.received_at(row["receipt"]) + domain.MAX_VISIBILITY_S * 1_000
        visible_at = now_ms + timeout_s * 1_000
        if visible_at > longest:
            raise domain.invalid_value(f"Value {timeout_s} for parameter VisibilityTimeout is invalid. Reason: Total "
                                       "VisibilityTimeout for the message is beyond the limit [43200 seconds]."
                                       )  # fmt: skip
        self._rows.set_visible(message, visible_at)
        if queue.fifo:
            self._rows.settle_group(queue, row["group_id"])
        else:
            self._rows.tenants.hidden(queue, row["group_id"], row["visible_at"], visible_at)
        self.appears(ctx, queue, visible_at)


def _check_fifo_batch(queue: Queue, entries: list[Params]) -> None:
    """What an entry of a batch lacks refuses the whole batch. Raises InvalidParameterValue."""
    deduplicates = queue.attributes.get("ContentBasedDeduplication") == "true"
    for entry in entries:
        if "MessageGroupId" not in entry:
            raise domain.invalid_value("The request must contain the parameter MessageGroupId.")
        if not deduplicates and "MessageDeduplicationId" not in entry:
            raise domain.invalid_value(NO_DEDUPLICATION)


def _measured(queue: Queue, body: str, verdict: str = ALONE) -> tuple[int, str]:
    """(bytes, MD5) of a body that the queue takes. Raises AwsError."""
    size, md5 = domain.measured(body)
    if size > queue.max_bytes:
        raise _too_long(queue, verdict)
    return size, md5


def _too_long(queue: Queue, verdict: str) -> AwsError:
    return domain.invalid_value(
        f"One or more parameters {verdict}. Reason: Message must be shorter than {queue.max_bytes} bytes."
    )


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

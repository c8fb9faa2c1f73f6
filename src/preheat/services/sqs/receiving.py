"""Receiving: what may be taken, in which order, what goes to the dead-letter queue instead, and waiting for more."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from preheat.kernel.errors import AwsError
from preheat.services.contract import Context, Outcome, Params
from preheat.services.sqs import attributes as attributes_of
from preheat.services.sqs import domain
from preheat.services.sqs.domain import Queue
from preheat.services.sqs.metrics import Metrics
from preheat.services.sqs.polls import Polls
from preheat.services.sqs.quotas import Quotas
from preheat.services.sqs.repository import UNLIMITED, SqsRepository
from preheat.services.sqs.texts import Texts

SYSTEM_ATTRIBUTES = (
    "SenderId", "SentTimestamp", "ApproximateReceiveCount", "ApproximateFirstReceiveTimestamp", "SequenceNumber",
    "MessageDeduplicationId", "MessageGroupId", "AWSTraceHeader", "DeadLetterQueueSourceArn",
)  # fmt: skip
OWN_SEQUENCE_BASE = 10**19
IN_FLIGHT_LIMIT = 120_000
MOST_PER_RECEIVE = 10
RECOUNT_MS = 1_000
DEAD_PER_RECEIVE = 1_000
EVERYTHING = frozenset(("All", "*", ".*"))
FindQueue = Callable[[Context, Params], Queue]


@dataclass(frozen=True, slots=True)
class Request:
    """One ReceiveMessage, checked. `deadline` in epoch seconds, `visibility_s` None for the queue's own."""

    limit: int
    visibility_s: int | None
    deadline: float
    waits: bool
    wanted: frozenset[str]
    names: list[str] | None
    attempt_id: str | None


class Receiver:
    """`limit` is how many messages of one queue may be in flight."""

    def __init__(
        self, repository: SqsRepository, find: FindQueue, polls: Polls, metrics: Metrics, quotas: Quotas,
        texts: Texts, limit: int = IN_FLIGHT_LIMIT,
    ) -> None:  # fmt: skip
        self._rows = repository
        self._find = find
        self._polls = polls
        self._metrics = metrics
        self._quotas = quotas
        self._texts = texts
        self._limit = limit
        self._at_most: dict[int, int] = {}
        self._counted_ms: dict[int, int] = {}
        repository.db.on_undo.append(self._at_most.clear)

    def receive_message(self, ctx: Context, params: Params) -> Outcome:
        queue = self._find(ctx, params)
        limit = params.get("MaxNumberOfMessages", 1)
        domain.check_range("MaxNumberOfMessages", limit, 1, MOST_PER_RECEIVE, "Must be between 1 and 10, if provided.")
        wait = params.get("WaitTimeSeconds", queue.wait_s)
        domain.check_range("WaitTimeSeconds", wait, 0, 20, "Must be >= 0 and <= 20, if provided.")
        visibility = params.get("VisibilityTimeout")
        if visibility is not None:
            domain.check_range("VisibilityTimeout", visibility, 0, domain.MAX_VISIBILITY_S,
                               "Must be >= 0 and <= 43200, if provided.")  # fmt: skip
        attempt = params.get("ReceiveRequestAttemptId")
        if attempt is not None:
            if not queue.fifo:
                raise domain.wrong_queue_type("ReceiveRequestAttemptId", attempt)
            domain.check_group_text("ReceiveRequestAttemptId", attempt)
        wanted = _wanted_system_attributes(ctx, params)
        self._quotas.spend(ctx, queue, "receive")
        names = params.get("MessageAttributeNames")
        request = Request(limit, visibility, ctx.now + wait, wait > 0, wanted, names, attempt)
        return self._poll(params, request, ctx)

    def _poll(self, params: Params, request: Request, ctx: Context) -> Outcome:
        queue = self._find(ctx, params)
        messages = self._attempt(ctx, queue, request)
        if messages:
            self._metrics.received(ctx, queue, len(messages))
            return {"Messages": [self._render(queue, row, nonce, request) for row, nonce in messages]}
        if ctx.now >= request.deadline:
            self._metrics.received(ctx, queue, 0)
            return {}
        return self._polls.park(ctx, queue, request.deadline, partial(self._poll, params, request))

    def _render(self, queue: Queue, row: Any, nonce: int, request: Request) -> Params:
        body = row["body"]
        if isinstance(body, bytes):
            body = self._texts.whole(body)
        message = {
            "MessageId": row["message_id"],
            "ReceiptHandle": domain.receipt_handle(queue.id, row["id"], nonce),
            "MD5OfBody": row["md5"] or hashlib.md5(body.encode(), usedforsecurity=False).hexdigest(),
            "Body": body,
        }
        wanted = request.wanted
        if wanted:
            message["Attributes"] = {
                name: value for name, value in _system_attributes(row).items() if value is not None and name in wanted
            }
        if request.names and row["attributes"]:
            attributes = _chosen(msgspec.json.decode(row["attributes"]), request.names)
            if attributes:
                message["MessageAttributes"] = attributes
                message["MD5OfMessageAttributes"] = domain.attributes_md5(attributes)
        return message

    def _attempt(self, ctx: Context, queue: Queue, request: Request) -> list[tuple[Any, int]]:
        if request.attempt_id is None:
            return self.take(ctx, queue, request.limit, request.visibility_s, request.waits)
        again = self._repeated(ctx, queue, request.attempt_id, request.visibility_s)
        if again:
            return again
        messages = self.take(ctx, queue, request.limit, request.visibility_s, request.waits)
        if messages:
            visible_at = self._visible_at(ctx, queue, request.visibility_s)
            ids = [row["id"] for row, _ in messages]
            expires_at = ctx.now_ms + domain.DEDUPLICATION_WINDOW_MS
            self._rows.keep_attempt(queue, request.attempt_id, messages[0][1], visible_at, ids, expires_at)
        return messages

    def _repeated(
        self, ctx: Context, queue: Queue, attempt_id: str, visibility_s: int | None
    ) -> list[tuple[Any, int]]:
        """What the same attempt received before, hidden anew, unless something became of it meanwhile."""
        known = self._rows.attempt(queue, attempt_id, ctx.now_ms)
        if known is None:
            return []
        nonce, visible_at, ids = known
        rows = [self._rows.message(message) for message in ids]
        if visible_at <= ctx.now_ms or any(
            row is None or row["queue_id"] != queue.id or row["receipt"] != nonce or row["visible_at"] != visible_at
            for row in rows
        ):
            return []
        hidden_until = self._visible_at(ctx, queue, visibility_s)
        self._rows.hide_again(queue, attempt_id, ids, hidden_until)
        for group_id in {row["group_id"] for row in rows}:
            self._rows.settle_group(queue, group_id)
        self._appears(ctx, queue, hidden_until)
        return [(row, nonce) for row in rows]

    # -- taking ---------------------------------------------------------------------------------------------------

    def take(
        self, ctx: Context, queue: Queue, limit: int, visibility_s: int | None, waits: bool = False
    ) -> list[tuple[Any, int]]:
        """Receive: rows and their nonce, dead-lettering those that were received too often before. Raises OverLimit
        when a standard queue has too many in flight and the receive does not wait."""
        now_ms = ctx.now_ms
        if self._at_most.get(queue.id, self._limit) + limit > self._limit:
            limit = min(limit, self._room(queue, now_ms))
            if limit <= 0:
                if queue.fifo or waits:
                    return []
                raise AwsError("OverLimit", "The maximum number of messages in flight is reached: "
                               f"{self._limit}.", 403, query_code="OverLimit")  # fmt: skip
        visible_at = self._visible_at(ctx, queue, visibility_s)
        nonce = domain.receipt_nonce(now_ms, int.from_bytes(ctx.entropy.bytes(3), "big"))
        if queue.fifo:
            rows = self._take_fifo(ctx, queue, limit, visible_at, nonce)
        else:
            target = None if queue.redrive is None else self._dead_letter_queue(queue)
            receives = UNLIMITED
            if target is not None and queue.redrive is not None:
                receives = queue.redrive.max_receive_count
                self._dead_letter(ctx, queue, target, limit, receives)
            rows = self._rows.take(queue, limit, now_ms, visible_at, nonce, receives)
        if rows:
            self._at_most[queue.id] = self._at_most.get(queue.id, 0) + len(rows)
            self._appears(ctx, queue, visible_at)
        return [(row, nonce) for row in rows]

    def _visible_at(self, ctx: Context, queue: Queue, visibility_s: int | None) -> int:
        return ctx.now_ms + (queue.visibility_ms if visibility_s is None else visibility_s * 1_000)

    def _appears(self, ctx: Context, queue: Queue, visible_at: int) -> None:
        """Messages that were taken come back then."""
        if visible_at <= ctx.now_ms:
            ctx.db.notify(queue.topic)
            self._polls.wake(ctx, queue.id, 1)
        else:
            self._polls.alarm(ctx, queue, visible_at)

    def _room(self, queue: Queue, now_ms: int) -> int:
        """How many more may be in flight. What is kept is never less than what is: it is counted again at most once in
        a while."""
        if abs(now_ms - self._counted_ms.get(queue.id, -RECOUNT_MS)) >= RECOUNT_MS:
            self._counted_ms[queue.id] = now_ms
            self._at_most[queue.id] = self._rows.in_flight(queue, now_ms)
        return self._limit - self._at_most.get(queue.id, 0)

    def settled(self, ctx: Context, queue: Queue, number: int) -> None:
        """Messages were deleted."""
        before = self._at_most.get(queue.id, 0)
        if before:
            self._at_most[queue.id] = max(0, before - number)
        if before + MOST_PER_RECEIVE > self._limit:
            self._polls.wake(ctx, queue.id, number)

    # -- dead letters ---------------------------------------------------------------------------------------------

    def _dead_letter(self, ctx: Context, queue: Queue, target: Queue, limit: int, receives: int) -> None:
        """Move what the receive would otherwise give once too often."""
        moved = 0
        while moved < DEAD_PER_RECEIVE:
            spent = self._rows.exhausted(queue, limit, ctx.now_ms, receives)
            if not spent:
                break
            for row in spent:
                self._rows.move(row["id"], target, queue, ctx.now_ms)
            moved += len(spent)
        if moved:
            ctx.db.notify(target.topic)
            ctx.db.notify("sqs:queues")
            self._polls.wake(ctx, target.id, moved)

    def _dead_letter_queue(self, queue: Queue) -> Queue | None:
        """Where dead letters go; None when that queue is gone, is this one, or no longer lets this one in."""
        assert queue.redrive is not None
        name = queue.redrive.dead_letter_arn.rpartition(":")[2]
        target = self._rows.queue(queue.scope, name)
        usable = target is not None and target.id != queue.id and attributes_of.lets_in(target, queue.arn)
        return target if usable else None

    # -- FIFO -----------------------------------------------------------------------------------------------------

    def _take_fifo(self, ctx: Context, queue: Queue, limit: int, visible_at: int, nonce: int) -> list[Any]:
        rows, now_ms = self._rows, ctx.now_ms
        target = None if queue.redrive is None else self._dead_letter_queue(queue)
        taken: list[Any] = []
        looked_at = 0
        while len(taken) < limit and looked_at < DEAD_PER_RECEIVE:
            groups = rows.ready_groups(queue, now_ms, limit)
            before = len(taken)
            for group_id in groups:
                if len(taken) < limit:
                    looked_at += self._take_group(ctx, queue, target, group_id, limit, taken, visible_at, nonce)
            if not groups or (len(taken) == before and target is None) or visible_at <= now_ms:
                break
        return taken

    def _take_group(
        self, ctx: Context, queue: Queue, target: Queue | None, group_id: str, limit: int, taken: list[Any],
        visible_at: int, nonce: int,
    ) -> int:  # fmt: skip
        """Add what the group gives to `taken`; how many messages were looked at."""
        rows, now_ms = self._rows, ctx.now_ms
        heads = rows.group_head(queue, group_id, limit + 1)
        horizon = now_ms - queue.retention_ms
        dead = 0
        for head in heads:
            if len(taken) >= limit or head["visible_at"] > now_ms:
                break
            if head["sent_at"] <= horizon:
                continue
            spent = queue.redrive is not None and head["receive_count"] >= queue.redrive.max_receive_count
            if spent and target is not None:
                rows.move(head["id"], target, queue, now_ms)
                rows.open_group(target, group_id, now_ms)
                dead += 1
                continue
            taken.append(rows.take_one(head["id"], now_ms, visible_at, nonce))
        rows.settle_group(queue, group_id)
        if dead and target is not None:
            ctx.db.notify(target.topic)
            self._polls.wake(ctx, target.id, dead)
        return len(heads) or 1


def _wanted_system_attributes(ctx: Context, params: Params) -> frozenset[str]:
    """Over the older protocol the older of the two lists counts when both are given."""
    older, newer = params.get("AttributeNames"), params.get("MessageSystemAttributeNames")
    both = older and newer and not domain.is_query(ctx.request)
    names = [*older, *newer] if both else older or newer or ()
    for name in names:
        if name != "All" and name not in SYSTEM_ATTRIBUTES:
            raise domain.invalid_attribute_name(f"Unknown Attribute {name}.")
    return frozenset(SYSTEM_ATTRIBUTES) if "All" in names else frozenset(names)


def _system_attributes(row: Any) -> dict[str, str | None]:
    sequence = row["sequence"]
    return {
        "SenderId": row["sender"],
        "SentTimestamp": str(row["sent_at"]),
        "ApproximateReceiveCount": str(row["receive_count"]),
        "ApproximateFirstReceiveTimestamp": str(row["first_received"]),
        "SequenceNumber": None if sequence is None else str(OWN_SEQUENCE_BASE + sequence),
        "MessageDeduplicationId": row["dedup_id"],
        "MessageGroupId": row["group_id"] or None,
        "AWSTraceHeader": row["trace"],
        "DeadLetterQueueSourceArn": row["source_arn"],
    }


def _chosen(attributes: dict[str, Any], names: list[str]) -> dict[str, Any]:
    prefixes = tuple(name[:-2] for name in names if name.endswith(".*"))
    everything = not EVERYTHING.isdisjoint(names)
    chosen = {}
    for name, value in attributes.items():
        if everything or name in names or (prefixes and name.startswith(prefixes)):
            if isinstance(value.get("BinaryValue"), str):
                value["BinaryValue"] = msgspec.convert(value["BinaryValue"], bytes)
            chosen[name] = value
    return chosen

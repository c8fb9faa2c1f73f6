"""One message to many queues, as a topic sends it: one statement for all of them."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Scope
from preheat.services.contract import Context
from preheat.services.sqs import domain
from preheat.services.sqs.domain import Queue
from preheat.services.sqs.metrics import Metrics
from preheat.services.sqs.polls import Polls
from preheat.services.sqs.repository import SqsRepository
from preheat.services.sqs.texts import Texts, reference

LEAST_AUDIENCE = 4
LEAST_SHARED = 400
"""Characters from which on a text is stored once instead of with each message."""
MAX_PLACES = 100_000
"""Queues that stand in `sqs_audiences` at a time, counted once for each audience: some 25 MB."""
ID_ENDING = 12
"""Digits at the end of a message's id that stay the same for a queue in an audience; the 24 characters before them are
drawn for every message of the topic, and hold 74 bits of chance."""
STRIDE = 0x5DEECE66D
"""Between those endings: odd, so that they differ."""

PLACE = "INSERT INTO sqs_audiences (audience, place, queue_id, delay_ms, ending, part) VALUES (?, ?, ?, ?, ?, ?)"

INSERT_ALL = """
INSERT INTO sqs_messages (queue_id, visible_at, receive_count, receipt, sent_at, message_id, sender, md5, body)
SELECT queue_id, ?1 + delay_ms, 0, 0, ?1, ?2 || ending, ?3, ?4, %s
FROM sqs_audiences WHERE audience = ?5"""
WHOLE = INSERT_ALL % "?6 || part || ?7"
LEANING = INSERT_ALL % "CAST(CAST(?6 AS TEXT) || part AS BLOB)"


@dataclass(slots=True, eq=False)
class Audience:
    """Queues that get the same messages: the account and region, the name and the own part of each. `number` is 0 until
    they stand in `sqs_audiences` as `queues`, of which no message may be larger than `limit`; `sizes` are those of the
    parts in bytes."""

    scopes: Sequence[Scope]
    names: Sequence[str]
    parts: Sequence[str]
    sizes: Sequence[int]
    number: int = 0
    queues: Sequence[Queue] = ()
    limit: int = 0


class Copies:
    """`appears(ctx, queue, visible_at)` tells who waits for a queue."""

    def __init__(
        self, rows: SqsRepository, metrics: Metrics, polls: Polls, texts: Texts,
        appears: Callable[[Context, Queue, int], None],
    ) -> None:  # fmt: skip
        self._rows = rows
        self._metrics = metrics
        self._polls = polls
        self._texts = texts
        self._appears = appears
        self._placed: list[Audience] = []
        self._numbers = self._places = 0
        rows.db.on_undo.append(self._forget)

    def __call__(
        self, ctx: Context, wanted: Iterable[tuple[Scope, str, str]], sender: str, head: str = ""
    ) -> list[bool]:
        """Store a body without attributes, group or trace in each queue: (its account and region, its name, what the
        body has after the `head` of all). False for those that need or allow more than that (no such queue, a FIFO or
        fair queue, a body that is refused): nothing is stored for them, and SendMessage tells why."""
        now_ms, uuid = ctx.now_ms, ctx.entropy.uuid
        find, fair = self._rows.queue, self._rows.tenants.fair
        head_size, digest_head = _size(head), hashlib.md5(head.encode(), usedforsecurity=False)
        rows: list[tuple] = []
        stored: list[tuple[Queue, int, int]] = []
        answers: list[bool] = []
        known: str | None = None
        size, md5, body = 0, "", ""
        for scope, name, part in wanted:
            queue = find(scope, name)
            if queue is None or queue.fifo or fair(queue):
                answers.append(False)
                continue
            if part is not known:
                known, part_size = part, _size(part)
                size = 0 if head_size is None or part_size is None else head_size + part_size
                if size:
                    digest = digest_head.copy()
                    digest.update(part.encode())
                    md5, body = digest.hexdigest(), head + part
            if not 0 < size <= queue.max_bytes:
                answers.append(False)
                continue
            visible_at = now_ms + queue.delay_ms
            rows.append((queue.id, visible_at, now_ms, uuid(), sender, md5, body))
            stored.append((queue, visible_at, size))
            answers.append(True)
        if rows:
            self._rows.add_plain(rows)
        for queue, visible_at, size in stored:
            self._metrics.sent(ctx, queue, size)
            self._appears(ctx, queue, visible_at)
        return answers

    # -- the same queues again and again --------------------------------------------------------------------------

    def audience(self, wanted: Sequence[tuple[Scope, str, str]]) -> Audience | None:
        """Queues for `to_all`: (account and region, name, what only the queue's own messages hold). None for so few
        that it is not worth it, or for a part that no message may hold."""
        if len(wanted) < LEAST_AUDIENCE:
            return None
        scopes, names, parts = zip(*wanted, strict=True)
        sizes = [_size(part) for part in parts]
        return None if None in sizes else Audience(scopes, names, parts, sizes)

    def to_all(self, ctx: Context, audience: Audience, sender: str, head: str, tail: str = "") -> bool:
        """Store `head`, the queue's own part and `tail` in every queue. False, with nothing stored, when one of them
        needs or allows more than that."""
        common = _size(head + tail)
        if common is None or not self._ready(ctx, audience):
            return False
        if not 0 < common + min(audience.sizes) <= common + max(audience.sizes) <= audience.limit:
            return False
        self._store(ctx, audience, sender, head, tail)
        self._metrics.sent_to(ctx, audience.queues, [common + size for size in audience.sizes])
        notify, idle, now_ms = ctx.db.notify, self._polls.idle, ctx.now_ms
        for queue in audience.queues:
            if idle and not queue.delay_ms:
                notify(queue.topic)
            else:
                self._appears(ctx, queue, now_ms + queue.delay_ms)
        return True

    def _store(self, ctx: Context, audience: Audience, sender: str, head: str, tail: str) -> None:
        db, start = self._rows.db, ctx.entropy.uuid()[:-ID_ENDING]
        md5 = "" if any(audience.sizes) else hashlib.md5((head + tail).encode(), usedforsecurity=False).hexdigest()
        values = (ctx.now_ms, start, sender, md5, audience.number)
        count = self._rows.count
        for queue in audience.queues:
            count(queue.id, 1)
        if len(head) + len(tail) < LEAST_SHARED:
            db.later(WHOLE, (*values, head, tail))
            return
        number = self._texts.keep(ctx, head, tail)
        last = db.insert(LEANING, *values, reference(number))
        self._texts.used(number, last - len(audience.queues) + 1, last)

    def _ready(self, ctx: Context, audience: Audience) -> bool:
        """Whether the audience stands in its table as its queues are now."""
        queues = list(map(self._rows.queue, audience.scopes, audience.names))
        if not audience.number or audience.queues != queues:
            if any(queue is None or queue.fifo for queue in queues):
                return False
            self._place(ctx, audience, queues)
        return not any(map(self._rows.tenants.fair, queues))

    def _place(self, ctx: Context, audience: Audience, queues: Sequence[Queue]) -> None:
        db = self._rows.db
        if not self._placed or self._places + len(queues) > MAX_PLACES:
            self._forget()
            db.run("DELETE FROM sqs_audiences")
        self._numbers += 1
        self._places += len(queues)
        first = int(ctx.entropy.uuid()[-ID_ENDING:], 16)
        rows = [
            (self._numbers, place, queue.id, queue.delay_ms, f"{(first + place * STRIDE) % 16**ID_ENDING:012x}", part)
            for place, (queue, part) in enumerate(zip(queues, audience.parts, strict=True))
        ]
        db.many(PLACE, rows)
        audience.number, audience.queues = self._numbers, queues
        audience.limit = min(queue.max_bytes for queue in queues)
        self._placed.append(audience)

    def _forget(self) -> None:
        for audience in self._placed:
            audience.number = 0
        self._placed.clear()
        self._places = 0


def _size(text: str) -> int | None:
    """Bytes, or None for a text that SendMessage refuses."""
    try:
        domain.check_text(text)
    except AwsError:
        return None
    return len(text) if text.isascii() else len(text.encode())

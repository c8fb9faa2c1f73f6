"""SQS's SQL. Times in epoch milliseconds; every method runs inside the machine's transaction."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from preheat.kernel.scope import Scope
from preheat.services.sqs.domain import DEDUPLICATION_WINDOW_MS, Queue, make_queue
from preheat.store.database import Database

INSERT = """
INSERT INTO sqs_messages (queue_id, visible_at, receive_count, receipt, sent_at, message_id, sender, md5, group_id,
                          sequence, dedup_id, trace, attributes, body)
VALUES (?, ?, 0, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""

INSERT_PLAIN = """
INSERT INTO sqs_messages (queue_id, visible_at, receive_count, receipt, sent_at, message_id, sender, md5, body)
VALUES (?, ?, 0, 0, ?, ?, ?, ?, ?)"""
"""A message with a body and nothing else: binding a None costs more than binding a string."""

COLUMNS = """id, message_id, body, md5, attributes, receive_count, first_received, sent_at, sender, group_id,
             sequence, dedup_id, trace, source_arn"""

TAKE = f"""
UPDATE sqs_messages
SET visible_at = ?, receive_count = receive_count + 1, first_received = ifnull(first_received, ?), receipt = ?
WHERE id IN (SELECT id FROM sqs_messages INDEXED BY sqs_by_visibility
             WHERE queue_id = ? AND visible_at <= ? AND sent_at > ? ORDER BY visible_at LIMIT ?)
RETURNING {COLUMNS}"""

TAKE_ONE = f"""
UPDATE sqs_messages
SET visible_at = ?, receive_count = receive_count + 1, first_received = ifnull(first_received, ?), receipt = ?
WHERE id = ? RETURNING {COLUMNS}"""


class NewMessage(NamedTuple):
    message_id: str
    body: str
    md5: str
    sender: str
    visible_at: int
    sent_at: int
    attributes: dict[str, Any] | None = None
    group_id: str | None = None
    dedup_id: str | None = None
    trace: str | None = None


NOTHING_MORE = (None, None, None, None)


class SqsRepository:
    """Queues are cached, message totals too; both are forgotten when writes are taken back."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self._queues: dict[tuple[Scope, str], Queue] = {}
        self._totals: dict[int, int] = {}
        db.on_undo.append(self._forget)

    def _forget(self) -> None:
        self._queues.clear()
        self._totals.clear()

    # -- queues ---------------------------------------------------------------------------------------------------

    def queue(self, scope: Scope, name: str) -> Queue | None:
        key = (scope, name)
        found = self._queues.get(key)
        if found is None:
            row = self.db.one(
                "SELECT * FROM sqs_queues WHERE account = ? AND region = ? AND name = ?",
                scope.account, scope.region, name,
            )  # fmt: skip
            if row is None:
                return None
            found = self._queues[key] = make_queue(row)
        return found

    def queues(self, scope: Scope, prefix: str = "", after: str = "", limit: int = -1) -> list[Queue]:
        rows = self.db.all(
            """SELECT * FROM sqs_queues WHERE account = ? AND region = ? AND substr(name, 1, ?) = ? AND name > ?
               ORDER BY name LIMIT ?""",
            scope.account, scope.region, len(prefix), prefix, after, limit,
        )  # fmt: skip
        return [make_queue(row) for row in rows]

    def all_queues(self) -> list[Queue]:
        return [make_queue(row) for row in self.db.all("SELECT * FROM sqs_queues")]

    def create_queue(
        self, scope: Scope, name: str, attributes: dict[str, str], tags: dict[str, str], now_s: int
    ) -> Queue:
        self.db.insert(
            """INSERT INTO sqs_queues (account, region, name, created_s, modified_s, attributes, tags)
               VALUES (?, ?, ?, ?, ?, ?, ?)""",
            scope.account, scope.region, name, now_s, now_s, _json(attributes), _json(tags),
        )  # fmt: skip
        queue = self.queue(scope, name)
        assert queue is not None
        return queue

    def set_attributes(self, queue: Queue, attributes: dict[str, str], now_s: int) -> None:
        self.db.run(
            "UPDATE sqs_queues SET attributes = ?, modified_s = ? WHERE id = ?", _json(attributes), now_s, queue.id
        )
        self._queues.pop((queue.scope, queue.name), None)

    def tags(self, queue: Queue) -> dict[str, str]:
        return msgspec.json.decode(self.db.value("SELECT tags FROM sqs_queues WHERE id = ?", queue.id))

    def set_tags(self, queue: Queue, tags: dict[str, str]) -> None:
        self.db.run("UPDATE sqs_queues SET tags = ? WHERE id = ?", _json(tags), queue.id)

    def delete_queue(self, queue: Queue) -> None:
        self.purge(queue)
        self.db.run("DELETE FROM sqs_deduplication WHERE queue_id = ?", queue.id)
        self.db.run("DELETE FROM sqs_queues WHERE id = ?", queue.id)
        self._queues.pop((queue.scope, queue.name), None)
        self._totals.pop(queue.id, None)

    def purge(self, queue: Queue) -> None:
        self.db.run("DELETE FROM sqs_messages WHERE queue_id = ?", queue.id)
        self.db.run("DELETE FROM sqs_groups WHERE queue_id = ?", queue.id)
        self._totals[queue.id] = 0

    def purged_at(self, queue: Queue) -> float | None:
        return self.db.value("SELECT purged_at FROM sqs_queues WHERE id = ?", queue.id)

    def set_purged_at(self, queue: Queue, now: float) -> None:
        self.db.run("UPDATE sqs_queues SET purged_at = ? WHERE id = ?", now, queue.id)

    # -- sending --------------------------------------------------------------------------------------------------

    def add(self, queue: Queue, message: NewMessage, sequence: int | None = None) -> None:
        attributes = message.attributes
        if message[6:] == NOTHING_MORE:
            self.db.run(
                INSERT_PLAIN, queue.id, message.visible_at, message.sent_at, message.message_id, message.sender,
                message.md5, message.body,
            )  # fmt: skip
            self._count(queue.id, 1)
            return
        self.db.run(
            INSERT, queue.id, message.visible_at, message.sent_at, message.message_id, message.sender, message.md5,
            message.group_id, sequence, message.dedup_id, message.trace,
            None if attributes is None else _json(attributes), message.body,
        )  # fmt: skip
        self._count(queue.id, 1)

    def next_sequence(self, queue: Queue) -> int:
        return self.db.returning(
            "UPDATE sqs_queues SET sequence = sequence + 1 WHERE id = ? RETURNING sequence", queue.id
        )[0][0]

    def duplicate(self, queue: Queue, scope: str, dedup_id: str, now_ms: int) -> tuple[str, int] | None:
        """(message id, sequence) of the message sent with this deduplication id within the window."""
        row = self.db.one(
            """SELECT message_id, sequence FROM sqs_deduplication
               WHERE queue_id = ? AND scope = ? AND dedup_id = ? AND expires_at > ?""",
            queue.id, scope, dedup_id, now_ms,
        )  # fmt: skip
        return None if row is None else (row[0], row[1])

    def remember(self, queue: Queue, scope: str, dedup_id: str, message_id: str, sequence: int, now_ms: int) -> None:
        self.db.run(
            "INSERT OR REPLACE INTO sqs_deduplication VALUES (?, ?, ?, ?, ?, ?)",
            queue.id, scope, dedup_id, message_id, sequence, now_ms + DEDUPLICATION_WINDOW_MS,
        )  # fmt: skip

    def open_group(self, queue: Queue, group_id: str, available_at: int) -> None:
        self.db.run("INSERT OR IGNORE INTO sqs_groups VALUES (?, ?, ?)", queue.id, group_id, available_at)

    # -- receiving ------------------------------------------------------------------------------------------------

    def take(self, queue: Queue, limit: int, now_ms: int, visible_at: int, nonce: int) -> list[Any]:
        """Up to `limit` receivable messages, now in flight until `visible_at`."""
        return self.db.returning(
            TAKE, visible_at, now_ms, nonce, queue.id, now_ms, now_ms - queue.retention_ms, limit
        )

    def take_one(self, message: int, now_ms: int, visible_at: int, nonce: int) -> Any:
        return self.db.returning(TAKE_ONE, visible_at, now_ms, nonce, message)[0]

    def exhausted(self, queue: Queue, limit: int, now_ms: int, max_receive_count: int) -> list[Any]:
        """Of the next `limit` receivable messages, those that have been received often enough."""
        return self.db.all(
            """SELECT id, group_id FROM (SELECT id, group_id, receive_count
                   FROM sqs_messages INDEXED BY sqs_by_visibility
                   WHERE queue_id = ? AND visible_at <= ? ORDER BY visible_at LIMIT ?)
               WHERE receive_count >= ?""",
            queue.id, now_ms, limit, max_receive_count,
        )  # fmt: skip

    def ready_groups(self, queue: Queue, now_ms: int, limit: int) -> list[str]:
        rows = self.db.all(
            "SELECT group_id FROM sqs_groups WHERE queue_id = ? AND available_at <= ? ORDER BY available_at LIMIT ?",
            queue.id, now_ms, limit,
        )  # fmt: skip
        return [row[0] for row in rows]

    def group_head(self, queue: Queue, group_id: str, limit: int) -> list[Any]:
        """The oldest messages of a group: id, receive_count, visible_at, sent_at."""
        return self.db.all(
            """SELECT id, receive_count, visible_at, sent_at FROM sqs_messages INDEXED BY sqs_by_group
               WHERE queue_id = ? AND group_id = ? AND sequence IS NOT NULL ORDER BY sequence LIMIT ?""",
            queue.id, group_id, limit,
        )  # fmt: skip

    def settle_group(self, queue: Queue, group_id: str, now_ms: int) -> None:
        """Set when the group may be received from again: when nothing of it is in flight and its head is visible."""
        row = self.db.one(
            """SELECT max(CASE WHEN receive_count > 0 THEN visible_at ELSE 0 END), count(*) FROM
                   (SELECT receive_count, visible_at FROM sqs_messages INDEXED BY sqs_by_group
                    WHERE queue_id = ? AND group_id = ? AND sequence IS NOT NULL ORDER BY sequence LIMIT 20)""",
            queue.id, group_id,
        )  # fmt: skip
        if row is None or row[1] == 0:
            self.db.run("DELETE FROM sqs_groups WHERE queue_id = ? AND group_id = ?", queue.id, group_id)
            return
        head = self.group_head(queue, group_id, 1)[0]
        self.db.run(
            "UPDATE sqs_groups SET available_at = ? WHERE queue_id = ? AND group_id = ?",
            max(row[0], head["visible_at"]), queue.id, group_id,
        )  # fmt: skip

    def move(self, message: int, target: Queue, source: Queue, now_ms: int) -> None:
        """To the dead-letter queue: visible at once, its original send time kept (FIFO: starts anew)."""
        sequence = self.next_sequence(target) if target.fifo else None
        self.db.run(
            """UPDATE sqs_messages SET queue_id = ?, visible_at = ?, receipt = 0, source_arn = ?, sequence = ?,
                      sent_at = CASE WHEN ? THEN ? ELSE sent_at END,
                      dedup_id = CASE WHEN ? THEN message_id ELSE dedup_id END
               WHERE id = ?""",
            target.id, now_ms, source.arn, sequence, target.fifo, now_ms, target.fifo, message,
        )  # fmt: skip
        self._count(source.id, -1)
        self._count(target.id, 1)

    def next_visible(self, queue: Queue, now_ms: int) -> int | None:
        """When the next message that is not receivable now becomes so."""
        if queue.fifo:
            return self.db.value(
                "SELECT min(available_at) FROM sqs_groups WHERE queue_id = ? AND available_at > ?", queue.id, now_ms
            )
        return self.db.value(
            "SELECT min(visible_at) FROM sqs_messages WHERE queue_id = ? AND visible_at > ?", queue.id, now_ms
        )

    # -- settling -------------------------------------------------------------------------------------------------

    def delete(self, queue: Queue, handles: Sequence[tuple[int, int]]) -> None:
        """Delete messages by (row, nonce); a handle of an earlier receive no longer counts."""
        gone = self.db.many("DELETE FROM sqs_messages WHERE id = ? AND receipt = ?", handles)
        self._count(queue.id, -gone)

    def message(self, message: int, nonce: int) -> Any:
        return self.db.one(
            """SELECT id, queue_id, visible_at, group_id, first_received FROM sqs_messages
               WHERE id = ? AND receipt = ?""",
            message, nonce,
        )  # fmt: skip

    def set_visible(self, message: int, visible_at: int) -> None:
        self.db.run("UPDATE sqs_messages SET visible_at = ? WHERE id = ?", visible_at, message)

    # -- counting and expiry --------------------------------------------------------------------------------------

    def _count(self, queue_id: int, change: int) -> None:
        totals = self._totals
        if queue_id in totals:
            totals[queue_id] += change

    def total(self, queue: Queue) -> int:
        known = self._totals.get(queue.id)
        if known is None:
            known = self.db.value("SELECT count(*) FROM sqs_messages WHERE queue_id = ?", queue.id)
            self._totals[queue.id] = known
        return known

    def depth(self, queue: Queue, now_ms: int) -> tuple[int, int, int]:
        """(visible, in flight, delayed)."""
        row = self.db.one(
            """SELECT count(*), sum(receive_count > 0 AND source_arn IS NULL OR receipt <> 0)
               FROM sqs_messages WHERE queue_id = ? AND visible_at > ?""",
            queue.id, now_ms,
        )  # fmt: skip
        hidden, in_flight = row[0], row[1] or 0
        return self.total(queue) - hidden, in_flight, hidden - in_flight

    def expire(self, queue: Queue, now_ms: int, limit: int) -> tuple[int, int | None]:
        """Delete messages past retention; (how many, when the next may be, epoch ms)."""
        horizon = now_ms - queue.retention_ms
        rows = self.db.returning(
            """DELETE FROM sqs_messages WHERE id IN
                   (SELECT id FROM sqs_messages INDEXED BY sqs_by_visibility
                    WHERE queue_id = ? AND visible_at <= ? ORDER BY visible_at LIMIT ?) RETURNING group_id""",
            queue.id, horizon, limit,
        )  # fmt: skip
        self._count(queue.id, -len(rows))
        for group_id in {row[0] for row in rows if row[0] is not None}:
            self.settle_group(queue, group_id, now_ms)
        first = self.db.value("SELECT min(visible_at) FROM sqs_messages WHERE queue_id = ?", queue.id)
        return len(rows), None if first is None else first + queue.retention_ms

    def forget_duplicates(self, now_ms: int, limit: int) -> int | None:
        """Drop deduplication ids past their window; when the next expires (epoch ms)."""
        self.db.run(
            """DELETE FROM sqs_deduplication WHERE (queue_id, scope, dedup_id) IN
                   (SELECT queue_id, scope, dedup_id FROM sqs_deduplication WHERE expires_at <= ? LIMIT ?)""",
            now_ms, limit,
        )  # fmt: skip
        return self.db.value("SELECT min(expires_at) FROM sqs_deduplication")


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()

"""SQS's SQL. Times in epoch milliseconds; every method runs inside the machine's transaction."""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import msgspec

from preheat.kernel.scope import Scope
from preheat.services.sqs.domain import DEDUPLICATION_WINDOW_MS, Queue, make_queue
from preheat.services.sqs.tenants import Tenants
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
             WHERE queue_id = ? AND visible_at <= ? AND sent_at > ? AND receive_count < ? ORDER BY visible_at LIMIT ?)
RETURNING {COLUMNS}"""

TAKE_ONE = f"""
UPDATE sqs_messages
SET visible_at = ?, receive_count = receive_count + 1, first_received = ifnull(first_received, ?), receipt = ?
WHERE id = ? RETURNING {COLUMNS}"""

NEW_ROW = "(SELECT max(id) + 1 FROM sqs_messages)"
"""Of a message that changes its queue: what is still to be purged there has smaller ones."""

UNLIMITED = 2**31
PURGED_AT_ONCE = 20_000
NO_QUEUE = 0


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
        self.by_url: dict[tuple[str, Scope], Queue] = {}
        """What QueueUrls meant to callers of an account and region; emptied whenever a queue changes."""
        self._totals: dict[int, int] = {}
        self.tenants = Tenants(db)
        db.on_undo.append(self._forget)

    def _forget(self) -> None:
        self._queues.clear()
        self.by_url.clear()
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
        self.by_url.clear()

    def tags(self, queue: Queue) -> dict[str, str]:
        return msgspec.json.decode(self.db.value("SELECT tags FROM sqs_queues WHERE id = ?", queue.id))

    def set_tags(self, queue: Queue, tags: dict[str, str]) -> None:
        self.db.run("UPDATE sqs_queues SET tags = ? WHERE id = ?", _json(tags), queue.id)

    def delete_queue(self, queue: Queue, now: float) -> None:
        self.purge(queue)
        self.db.run("DELETE FROM sqs_queues WHERE id = ?", queue.id)
        self.db.run(
            "INSERT OR REPLACE INTO sqs_deleted VALUES (?, ?, ?, ?)",
            queue.scope.account, queue.scope.region, queue.name, now,
        )  # fmt: skip
        self._queues.pop((queue.scope, queue.name), None)
        self.by_url.clear()
        self._totals.pop(queue.id, None)

    def deleted_at(self, scope: Scope, name: str) -> float | None:
        """When a queue of this name was deleted (epoch seconds), if that was lately."""
        return self.db.value(
            "SELECT deleted_at FROM sqs_deleted WHERE account = ? AND region = ? AND name = ?",
            scope.account, scope.region, name,
        )  # fmt: skip

    def forget_deleted(self, before: float) -> None:
        self.db.run("DELETE FROM sqs_deleted WHERE deleted_at <= ?", before)

    def purge(self, queue: Queue) -> None:
        """Delete all messages, and what deduplicates: the first at once, those of a deep queue by and by
        (`drop_leftovers`)."""
        self.tenants.forget_queue(queue)
        for table in ("sqs_deduplication", "sqs_attempts"):
            self.db.run(f"DELETE FROM {table} WHERE queue_id = ?", queue.id)
        if self.holds_messages(queue):
            through = self.db.insert(INSERT_PLAIN, NO_QUEUE, 0, 0, "", "", "", "")
            self.db.run("INSERT OR REPLACE INTO sqs_leftovers VALUES (?, ?)", queue.id, through)
            self._drop(queue.id, through, PURGED_AT_ONCE)

    def drop_leftovers(self, limit: int) -> bool:
        """Delete some of what was purged; whether more is left."""
        row = self.db.one("SELECT queue_id, through FROM sqs_leftovers LIMIT 1")
        if row is None:
            return False
        self._drop(row[0], row[1], limit)
        return self.db.value("SELECT 1 FROM sqs_leftovers LIMIT 1") is not None

    def _drop(self, queue_id: int, through: int, limit: int) -> None:
        gone = self.db.returning(
            """DELETE FROM sqs_messages WHERE id IN
                   (SELECT id FROM sqs_messages INDEXED BY sqs_by_visibility WHERE queue_id = ? AND id <= ? LIMIT ?)
               RETURNING CASE WHEN sequence IS NULL THEN NULL ELSE group_id END""",
            queue_id, through, limit,
        )  # fmt: skip
        self.count(queue_id, -len(gone))
        for group_id in {item[0] for item in gone} - {None}:
            self._settle(queue_id, group_id)
        if len(gone) < limit:
            self.db.run("DELETE FROM sqs_leftovers WHERE queue_id = ?", queue_id)
        self.db.run(
            "DELETE FROM sqs_messages WHERE queue_id = ? AND id NOT IN (SELECT through FROM sqs_leftovers)", NO_QUEUE
        )

    def purged_at(self, queue: Queue) -> float | None:
        return self.db.value("SELECT purged_at FROM sqs_queues WHERE id = ?", queue.id)

    def set_purged_at(self, queue: Queue, now: float) -> None:
        self.db.run("UPDATE sqs_queues SET purged_at = ? WHERE id = ?", now, queue.id)

    # -- sending --------------------------------------------------------------------------------------------------

    def add(self, queue: Queue, message: NewMessage, sequence: int | None = None) -> None:
        attributes = message.attributes
        if message[6:] == NOTHING_MORE and not self.tenants.fair(queue):
            self.db.later(INSERT_PLAIN, (
                queue.id, message.visible_at, message.sent_at, message.message_id, message.sender, message.md5,
                message.body,
            ))  # fmt: skip
            self.count(queue.id, 1)
            return
        self.db.run(
            INSERT, queue.id, message.visible_at, message.sent_at, message.message_id, message.sender, message.md5,
            self._group(queue, message), sequence, message.dedup_id, message.trace,
            None if attributes is None else _json(attributes), message.body,
        )  # fmt: skip
        self.count(queue.id, 1)

    def add_plain(self, rows: Sequence[tuple]) -> None:
        """Messages with a body alone, of queues that are neither FIFO nor fair: (queue id, visible at, sent at, message
        id, sender, MD5, body)."""
        if len(rows) == 1:
            self.db.later(INSERT_PLAIN, rows[0])
        else:
            self.db.many(INSERT_PLAIN, rows)
        for row in rows:
            self.count(row[0], 1)

    def _group(self, queue: Queue, message: NewMessage) -> str | None:
        if queue.fifo:
            return message.group_id
        if message.group_id is not None:
            self.tenants.joined(queue)
        return "" if message.group_id is None and self.tenants.fair(queue) else message.group_id

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

    def take(
        self, queue: Queue, limit: int, now_ms: int, visible_at: int, nonce: int, receives: int = UNLIMITED
    ) -> list[Any]:
        """Up to `limit` receivable messages with fewer than `receives` receives, now in flight until `visible_at`."""
        tenants = self.tenants
        if tenants.fair(queue):
            chosen = tenants.choose(queue, limit, now_ms)
            if chosen is not None:
                chosen = [row["id"] for row in self._messages(chosen) if row["receive_count"] < receives]
                rows = [self.take_one(message, now_ms, visible_at, nonce) for message in chosen]
                tenants.taken(queue, rows, visible_at)
                return rows
        rows = self.db.returning(
            TAKE, visible_at, now_ms, nonce, queue.id, now_ms, now_ms - queue.retention_ms, receives, limit
        )
        if tenants.fair(queue):
            tenants.taken(queue, rows, visible_at)
        return rows

    def take_one(self, message: int, now_ms: int, visible_at: int, nonce: int) -> Any:
        return self.db.returning(TAKE_ONE, visible_at, now_ms, nonce, message)[0]

    def exhausted(self, queue: Queue, limit: int, now_ms: int, max_receive_count: int) -> list[Any]:
        """Of the next `limit` receivable messages, those that have been received often enough."""
        chosen = self.tenants.choose(queue, limit, now_ms, peek=True) if self.tenants.fair(queue) else None
        if chosen is not None:
            return [row for row in self._messages(chosen) if row["receive_count"] >= max_receive_count]
        return self.db.all(
            """SELECT id, group_id FROM (SELECT id, group_id, receive_count
                   FROM sqs_messages INDEXED BY sqs_by_visibility
                   WHERE queue_id = ? AND visible_at <= ? AND sent_at > ? ORDER BY visible_at LIMIT ?)
               WHERE receive_count >= ?""",
            queue.id, now_ms, now_ms - queue.retention_ms, limit, max_receive_count,
        )  # fmt: skip

    def _messages(self, ids: list[int]) -> list[Any]:
        """In the order of `ids`: id, group_id, receive_count."""
        return [self.db.one("SELECT id, group_id, receive_count FROM sqs_messages WHERE id = ?", each) for each in ids]

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

    def settle_group(self, queue: Queue, group_id: str) -> None:
        """Set when the group may be received from again: when its head is visible."""
        self._settle(queue.id, group_id)

    def _settle(self, queue_id: int, group_id: str) -> None:
        head = self.db.value(
            """SELECT visible_at FROM sqs_messages INDEXED BY sqs_by_group
               WHERE queue_id = ? AND group_id = ? AND sequence IS NOT NULL ORDER BY sequence LIMIT 1""",
            queue_id, group_id,
        )  # fmt: skip
        if head is None:
            self.db.run("DELETE FROM sqs_groups WHERE queue_id = ? AND group_id = ?", queue_id, group_id)
            return
        self.db.run(
            "UPDATE sqs_groups SET available_at = ? WHERE queue_id = ? AND group_id = ?", head, queue_id, group_id
        )

    def delay_anew(self, queue: Queue, now_ms: int) -> None:
        """A FIFO queue's delay was changed: it holds for the messages that lie in it, too."""
        delayed = self.db.returning(
            """UPDATE sqs_messages SET visible_at = sent_at + ?
               WHERE queue_id = ? AND receive_count = 0 AND (visible_at > ? OR sent_at + ? > ?) RETURNING group_id""",
            queue.delay_ms, queue.id, now_ms, queue.delay_ms, now_ms,
        )  # fmt: skip
        for group_id in {row[0] for row in delayed}:
            self._settle(queue.id, group_id)

    def move(self, message: int, target: Queue, source: Queue, now_ms: int) -> None:
        """To the dead-letter queue: visible at once, its original send time kept (FIFO: starts anew)."""
        sequence = self.next_sequence(target) if target.fifo else None
        self.db.run(
            f"""UPDATE sqs_messages SET id = {NEW_ROW}, queue_id = ?, visible_at = ?, receipt = 0, source_arn = ?,
                      sequence = ?,
                      sent_at = CASE WHEN ? THEN ? ELSE sent_at END,
                      dedup_id = CASE WHEN ? THEN message_id ELSE dedup_id END
               WHERE id = ?""",
            target.id, now_ms, source.arn, sequence, target.fifo, now_ms, target.fifo, message,
        )  # fmt: skip
        self._changed_queue(source, target)

    def _changed_queue(self, source: Queue, target: Queue) -> None:
        self.count(source.id, -1)
        self.count(target.id, 1)
        if self.tenants.fair(source):
            self.tenants.forget_queue(target)

    def movable(self, queue: Queue, now_ms: int, limit: int) -> list[Any]:
        """Visible messages for a move task: id, group_id, source_arn; of FIFO queues by group and in order."""
        if not queue.fifo:
            return self.db.all(
                """SELECT id, group_id, source_arn FROM sqs_messages INDEXED BY sqs_by_visibility
                   WHERE queue_id = ? AND visible_at <= ? ORDER BY visible_at LIMIT ?""",
                queue.id, now_ms, limit,
            )  # fmt: skip
        found: list[Any] = []
        for group_id in self.ready_groups(queue, now_ms, limit):
            if len(found) < limit:
                rows = self.db.all(
                    """SELECT id, group_id, source_arn, visible_at FROM sqs_messages INDEXED BY sqs_by_group
                       WHERE queue_id = ? AND group_id = ? AND sequence IS NOT NULL ORDER BY sequence LIMIT ?""",
                    queue.id, group_id, limit - len(found),
                )  # fmt: skip
                found += takewhile(lambda row: row["visible_at"] <= now_ms, rows)
        return found

    def redrive(self, row: Any, target: Queue, source: Queue, message_id: str, now_ms: int) -> None:
        """By a move task: as if the message had just been sent to `target`."""
        sequence = self.next_sequence(target) if target.fifo else None
        self.db.run(
            f"""UPDATE sqs_messages SET id = {NEW_ROW}, queue_id = ?, visible_at = ?, receipt = 0, receive_count = 0,
                      sequence = ?,
                      first_received = NULL, source_arn = NULL, sent_at = ?, message_id = ? WHERE id = ?""",
            target.id, now_ms, sequence, now_ms, message_id, row["id"],
        )  # fmt: skip
        self._changed_queue(source, target)
        if target.fifo:
            self.open_group(target, row["group_id"], now_ms)
            self.settle_group(source, row["group_id"])

    def ready(self, queue: Queue, now_ms: int, limit: int) -> int:
        """How many messages (of a FIFO queue: groups) may be received, counted up to `limit`."""
        if queue.fifo:
            return len(self.ready_groups(queue, now_ms, limit))
        return self.db.value(
            """SELECT count(*) FROM (SELECT 1 FROM sqs_messages INDEXED BY sqs_by_visibility
                                     WHERE queue_id = ? AND visible_at <= ? LIMIT ?)""",
            queue.id, now_ms, limit,
        )  # fmt: skip

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

    def delete(self, queue: Queue, handles: Sequence[tuple[int, int]]) -> int:
        """Delete messages by (row, nonce), how many; a handle of an earlier receive no longer counts."""
        if self.tenants.fair(queue):
            gone = 0
            for handle in handles:
                for row in self.db.returning(
                    "DELETE FROM sqs_messages WHERE id = ? AND receipt = ? RETURNING group_id, visible_at", *handle
                ):
                    self.tenants.left(queue, row[0], row[1])
                    gone += 1
        else:
            gone = self.db.many("DELETE FROM sqs_messages WHERE id = ? AND receipt = ?", handles)
        self.count(queue.id, -gone)
        return gone

    def message(self, message: int) -> Any:
        return self.db.one(
            f"SELECT {COLUMNS}, queue_id, visible_at, receipt FROM sqs_messages WHERE id = ?", message
        )

    def set_visible(self, message: int, visible_at: int) -> None:
        self.db.run("UPDATE sqs_messages SET visible_at = ? WHERE id = ?", visible_at, message)

    # -- repeated receives ----------------------------------------------------------------------------------------

    def attempt(self, queue: Queue, attempt_id: str, now_ms: int) -> tuple[int, int, list[int]] | None:
        """(nonce, visible_at, message rows) of a receive that may still be repeated."""
        row = self.db.one(
            """SELECT receipt, visible_at, messages FROM sqs_attempts
               WHERE queue_id = ? AND attempt_id = ? AND expires_at > ?""",
            queue.id, attempt_id, now_ms,
        )  # fmt: skip
        return None if row is None else (row[0], row[1], msgspec.json.decode(row[2]))

    def keep_attempt(
        self, queue: Queue, attempt_id: str, nonce: int, visible_at: int, messages: list[int], expires_at: int
    ) -> None:
        self.db.run(
            "INSERT OR REPLACE INTO sqs_attempts VALUES (?, ?, ?, ?, ?, ?)",
            queue.id, attempt_id, nonce, visible_at, expires_at, _json(messages),
        )  # fmt: skip

    def hide_again(self, queue: Queue, attempt_id: str, messages: list[int], visible_at: int) -> None:
        """A repeated receive starts the visibility timeout anew."""
        self.db.many("UPDATE sqs_messages SET visible_at = ? WHERE id = ?", [(visible_at, each) for each in messages])
        self.db.run(
            "UPDATE sqs_attempts SET visible_at = ? WHERE queue_id = ? AND attempt_id = ?",
            visible_at, queue.id, attempt_id,
        )  # fmt: skip

    def forget_attempts(self, now_ms: int) -> None:
        self.db.run("DELETE FROM sqs_attempts WHERE expires_at <= ?", now_ms)

    # -- counting and expiry --------------------------------------------------------------------------------------

    def count(self, queue_id: int, change: int) -> None:
        totals = self._totals
        if queue_id in totals:
            totals[queue_id] += change

    def total(self, queue: Queue) -> int:
        known = self._totals.get(queue.id)
        if known is None:
            known = self.db.value("SELECT count(*) FROM sqs_messages WHERE queue_id = ?", queue.id)
            self._totals[queue.id] = known
        return known

    def holds_messages(self, queue: Queue) -> bool:
        return self.db.value("SELECT 1 FROM sqs_messages WHERE queue_id = ? LIMIT 1", queue.id) is not None

    def depth(self, queue: Queue, now_ms: int) -> tuple[int, int, int]:
        """(visible, in flight, delayed)."""
        hidden = self.db.value(
            "SELECT count(*) FROM sqs_messages WHERE queue_id = ? AND visible_at > ?", queue.id, now_ms
        )
        in_flight = self.in_flight(queue, now_ms) if hidden else 0
        return self.total(queue) - hidden, in_flight, hidden - in_flight

    def in_flight(self, queue: Queue, now_ms: int) -> int:
        return self.db.value(
            """SELECT count(*) FROM sqs_messages INDEXED BY sqs_received
               WHERE queue_id = ? AND receive_count > 0 AND visible_at > ?""",
            queue.id, now_ms,
        )  # fmt: skip

    def locked_groups(self, queue: Queue, now_ms: int) -> int:
        """How many groups of a FIFO queue have messages in flight."""
        return self.db.value(
            """SELECT count(DISTINCT group_id) FROM sqs_messages INDEXED BY sqs_received
               WHERE queue_id = ? AND receive_count > 0 AND visible_at > ?""",
            queue.id, now_ms,
        )  # fmt: skip

    def oldest(self, queue: Queue) -> int | None:
        """Since when (epoch ms) the oldest message waits: in a dead-letter queue since it came there, in a standard
        queue without those that were received three times."""
        row = self.db.one(
            """SELECT CASE WHEN source_arn IS NULL THEN sent_at ELSE visible_at END, receive_count
               FROM sqs_messages INDEXED BY sqs_by_visibility WHERE queue_id = ? ORDER BY visible_at LIMIT 1""",
            queue.id,
        )  # fmt: skip
        times = [] if row is None or (row[1] >= 3 and not queue.fifo) else [row[0]]
        returned = self.db.value(
            """SELECT sent_at FROM sqs_messages INDEXED BY sqs_received
               WHERE queue_id = ? AND receive_count > 0 AND receive_count < ? AND source_arn IS NULL
               ORDER BY sent_at LIMIT 1""",
            queue.id, UNLIMITED if queue.fifo else 3,
        )  # fmt: skip
        return min(times if returned is None else [*times, returned], default=None)

    def expire(self, queue: Queue, now_ms: int, limit: int) -> tuple[int, int | None]:
        """Delete messages past retention; (how many, when the next may be, epoch ms)."""
        horizon = now_ms - queue.retention_ms
        ways = (("sqs_by_visibility", "visible_at"), ("sqs_received", "receive_count > 0 AND sent_at"))
        rows = [
            row
            for index, condition in ways
            for row in self.db.returning(
                f"""DELETE FROM sqs_messages WHERE id IN
                       (SELECT id FROM sqs_messages INDEXED BY {index} WHERE queue_id = ? AND {condition} <= ? LIMIT ?)
                    RETURNING group_id, visible_at""",
                queue.id, horizon, limit,
            )
        ]  # fmt: skip
        self.count(queue.id, -len(rows))
        for row in rows:
            self.tenants.left(queue, row[0], row[1])
        if queue.fifo:
            for group_id in {row[0] for row in rows}:
                self.settle_group(queue, group_id)
        firsts = (
            self.db.value("SELECT min(visible_at) FROM sqs_messages WHERE queue_id = ?", queue.id),
            self.db.value(
                """SELECT min(sent_at) FROM sqs_messages INDEXED BY sqs_received
                   WHERE queue_id = ? AND receive_count > 0""",
                queue.id,
            ),
        )
        first = min((each for each in firsts if each is not None), default=None)
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

"""Fair queues: on a standard queue MessageGroupId names a tenant, and noisy tenants are served after the quiet ones.

A tenant is noisy while it has at least 30 messages and more than a tenth of all in flight (so AWS's guide on fair
queues); several noisy ones come in the order of how few they have. A message without a group is a tenant of its own,
thus quiet; on a queue that has tenants it is stored with the group "".
"""

from typing import Any

from preheat.services.sqs.domain import Queue
from preheat.store.database import Database

NOISY_AT_LEAST = 30
NOISY_SHARE = 10
GROUPS_PER_RECEIVE = 1_000

FAIR = "sequence IS NULL AND group_id IS NOT NULL"
FIRST_GROUP = f"""
SELECT group_id, visible_at FROM sqs_messages INDEXED BY sqs_by_tenant
WHERE {FAIR} AND queue_id = ? AND group_id > ? ORDER BY group_id, visible_at LIMIT 1"""


class InFlight:
    """How many messages each tenant of one queue has in flight, counted at `swept_ms`: a message counts while its
    visible_at is later than that."""

    def __init__(self, counts: dict[str, int], swept_ms: int) -> None:
        self.counts = counts
        self.swept_ms = swept_ms
        self.total = sum(counts.values())
        self.cursor = ""

    def change(self, group_id: str, by: int) -> None:
        left = self.counts.get(group_id, 0) + by
        self.total += by
        if left > 0:
            self.counts[group_id] = left
        else:
            self.counts.pop(group_id, None)

    def noisy(self) -> list[str]:
        """The noisy tenants, those with fewest in flight first."""
        if self.total < NOISY_AT_LEAST:
            return []
        least = max(NOISY_AT_LEAST, self.total // NOISY_SHARE + 1)
        found = [(count, group) for group, count in self.counts.items() if group and count >= least]
        return [group for _, group in sorted(found)]


class Tenants:
    """The counts are kept in memory, made from the rows when they are first wanted and after writes were taken back."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._fair: dict[int, bool] = {}
        self._known: dict[int, InFlight] = {}
        db.on_undo.append(self.forget)

    def forget(self) -> None:
        self._fair.clear()
        self._known.clear()

    def forget_queue(self, queue: Queue) -> None:
        """After messages were moved or dropped in numbers."""
        self._fair.pop(queue.id, None)
        self._known.pop(queue.id, None)

    def fair(self, queue: Queue) -> bool:
        """Whether the queue has messages of tenants."""
        known = self._fair.get(queue.id)
        if known is None:
            known = self._fair[queue.id] = not queue.fifo and bool(
                self._db.value(
                    f"SELECT 1 FROM sqs_messages INDEXED BY sqs_by_tenant WHERE {FAIR} AND queue_id = ? LIMIT 1",
                    queue.id,
                )
            )
        return known

    def joined(self, queue: Queue) -> None:
        """A message with a group was sent to a standard queue."""
        self._fair[queue.id] = True

    def in_flight(self, queue: Queue, now_ms: int) -> InFlight:
        """The counts, right at `now_ms`."""
        known = self._known.get(queue.id)
        if known is None:
            rows = self._db.all(
                f"""SELECT group_id, count(*) FROM sqs_messages INDEXED BY sqs_by_visibility
                    WHERE {FAIR} AND receive_count > 0 AND queue_id = ? AND visible_at > ? GROUP BY group_id""",
                queue.id, now_ms,
            )  # fmt: skip
            known = self._known[queue.id] = InFlight({row[0]: row[1] for row in rows}, now_ms)
        elif known.swept_ms < now_ms:
            ended = self._db.all(
                f"""SELECT group_id FROM sqs_messages INDEXED BY sqs_by_visibility
                    WHERE {FAIR} AND receive_count > 0 AND queue_id = ? AND visible_at > ? AND visible_at <= ?""",
                queue.id, known.swept_ms, now_ms,
            )  # fmt: skip
            for row in ended:
                known.change(row[0], -1)
            known.swept_ms = now_ms
        return known

    def taken(self, queue: Queue, rows: list[Any], visible_at: int) -> None:
        """These messages were received and are hidden until `visible_at`."""
        known = self._known[queue.id]
        if visible_at > known.swept_ms:
            for row in rows:
                if row["group_id"] is not None:
                    known.change(row["group_id"], 1)

    def left(self, queue: Queue, group_id: str | None, visible_at: int) -> None:
        """A message that was hidden until `visible_at` is gone."""
        known = self._known.get(queue.id)
        if known is not None and group_id is not None and visible_at > known.swept_ms:
            known.change(group_id, -1)

    def hidden(self, queue: Queue, group_id: str | None, before: int, after: int) -> None:
        """The visibility of a received message was changed."""
        known = self._known.get(queue.id)
        if known is not None and group_id is not None:
            known.change(group_id, (after > known.swept_ms) - (before > known.swept_ms))

    def choose(self, queue: Queue, limit: int, now_ms: int, peek: bool = False) -> list[int] | None:
        """The messages to receive, or None when nobody is noisy and the oldest come first. `peek`: the next choice is
        the same."""
        known = self.in_flight(queue, now_ms)
        noisy = known.noisy()
        if not noisy:
            return None
        cursor = known.cursor
        chosen = self._ungrouped(queue, limit, now_ms)
        self._quiet(queue, known, frozenset(noisy), limit, now_ms, chosen)
        for group_id in noisy:
            if len(chosen) < limit:
                chosen += self._of(queue, group_id, limit - len(chosen), now_ms)
        if peek:
            known.cursor = cursor
        return chosen

    def _ungrouped(self, queue: Queue, limit: int, now_ms: int) -> list[int]:
        """Those that were sent before the queue had tenants stand before all others."""
        rows = self._db.all(
            """SELECT id, group_id, sent_at FROM sqs_messages INDEXED BY sqs_by_visibility
               WHERE queue_id = ? AND visible_at <= ? ORDER BY visible_at LIMIT ?""",
            queue.id, now_ms, limit,
        )  # fmt: skip
        return [row[0] for row in rows if row[1] is None and row[2] > now_ms - queue.retention_ms]

    def _quiet(
        self, queue: Queue, known: InFlight, noisy: frozenset[str], limit: int, now_ms: int, chosen: list[int]
    ) -> None:
        """Fill `chosen` with messages of quiet tenants, one after the other from where the last receive ended."""
        start, wrapped = known.cursor, known.cursor == ""
        group_id: str = start
        if group_id == "" and len(chosen) < limit:
            chosen += self._of(queue, "", limit - len(chosen), now_ms)
        for _ in range(GROUPS_PER_RECEIVE):
            if len(chosen) >= limit:
                break
            row = self._db.one(FIRST_GROUP, queue.id, group_id)
            if row is None:
                if wrapped:
                    group_id = ""
                    break
                group_id, wrapped = "", True
                chosen += self._of(queue, "", limit - len(chosen), now_ms)
                continue
            if wrapped and start and row[0] > start:
                break
            group_id = row[0]
            if row[1] <= now_ms and group_id not in noisy:
                chosen += self._of(queue, group_id, limit - len(chosen), now_ms)
        known.cursor = group_id

    def _of(self, queue: Queue, group_id: str, limit: int, now_ms: int) -> list[int]:
        rows = self._db.all(
            f"""SELECT id FROM sqs_messages INDEXED BY sqs_by_tenant
                WHERE {FAIR} AND queue_id = ? AND group_id = ? AND visible_at <= ? AND sent_at > ?
                ORDER BY visible_at LIMIT ?""",
            queue.id, group_id, now_ms, now_ms - queue.retention_ms, limit,
        )  # fmt: skip
        return [row[0] for row in rows]

    def counts(self, queue: Queue, group_id: str, now_ms: int) -> tuple[int, int, int]:
        """(visible, in flight, delayed) of one tenant."""
        total, hidden = self._db.one(
            f"""SELECT count(*), sum(visible_at > ?) FROM sqs_messages INDEXED BY sqs_by_tenant
                WHERE {FAIR} AND queue_id = ? AND group_id = ?""",
            now_ms, queue.id, group_id,
        )  # fmt: skip
        in_flight = self.in_flight(queue, now_ms).counts.get(group_id, 0)
        return total - (hidden or 0), in_flight, (hidden or 0) - in_flight

"""Texts that many messages have in common, kept once.

The body of such a message is a BLOB: the number of its text in 16 digits, then its own part, which stands between the
text's `head` and `tail`. A message that changes its queue gets its whole body back (a trigger in `schema.sql`), so that
those that lean on a text lie between the rows `first` and `last` as long as they do.
"""

from preheat.services.contract import Context
from preheat.store.database import Database

DIGITS = 16
SWEPT = 500
PACE_S = 0.05
LEAST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 64.0
REMEMBERED = 64


class Texts:
    """A Loop, too: it deletes the texts on which no message leans any more, some time after the last of them went."""

    name = "sqs texts"
    topics = ()

    def __init__(self, db: Database) -> None:
        self._db = db
        self._known: dict[bytes, tuple[str, str]] = {}
        self._asleep = False
        self._after = 0
        self._found = False
        self._pause_s = LEAST_PAUSE_S
        db.on_undo.append(self._known.clear)

    def keep(self, ctx: Context, head: str, tail: str) -> int:
        """Store a text; its number."""
        if self._asleep:
            self._asleep = False
            ctx.machine.wake(self)
        return self._db.insert("INSERT INTO sqs_texts (first, last, head, tail) VALUES (0, 0, ?, ?)", head, tail)

    def used(self, number: int, first: int, last: int) -> None:
        """By the messages of these rows."""
        self._db.run("UPDATE sqs_texts SET first = ?, last = ? WHERE id = ?", first, last, number)

    def whole(self, body: bytes) -> str:
        """The body of a message that leans on a text."""
        number = body[:DIGITS]
        known = self._known.get(number)
        if known is None:
            row = self._db.one("SELECT head, tail FROM sqs_texts WHERE id = ?", int(number))
            if row is None:
                raise RuntimeError(f"a message leans on text {int(number)}, which is not there")
            if len(self._known) >= REMEMBERED:
                del self._known[next(iter(self._known))]
            known = self._known[number] = (row[0], row[1])
        return f"{known[0]}{body[DIGITS:].decode()}{known[1]}"

    def step(self, ctx: Context) -> float | None:
        """Look at some texts; after a round in which nothing was found, less soon."""
        after = self._after
        rows = self._db.all("SELECT id, first, last FROM sqs_texts WHERE id > ? ORDER BY id LIMIT ?", after, SWEPT)
        idle = [(row[0],) for row in rows if not self._needed(*row)]
        if idle:
            self._found = True
            self._db.many("DELETE FROM sqs_texts WHERE id = ?", idle)
        if len(rows) == SWEPT:
            self._after = rows[-1][0]
            return ctx.now if 2 * len(idle) > SWEPT else ctx.now + PACE_S
        if not rows and not after:
            self._asleep = True
            return None
        self._pause_s = LEAST_PAUSE_S if self._found else min(2 * self._pause_s, LONGEST_PAUSE_S)
        self._after, self._found = 0, False
        return ctx.now + self._pause_s

    def _needed(self, number: int, first: int, last: int) -> bool:
        found = self._db.value(
            "SELECT 1 FROM sqs_messages WHERE id BETWEEN ? AND ? AND substr(body, 1, ?) = ? LIMIT 1",
            first, last, DIGITS, reference(number),
        )  # fmt: skip
        return found is not None


def reference(number: int) -> bytes:
    """How the body of a message that leans on a text begins."""
    return b"%0*d" % (DIGITS, number)

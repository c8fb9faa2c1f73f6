"""Embedding requests that arrive while a batch runs share the next one.

Everything here happens on the core's thread except the embedding itself. Each batch takes one text of every waiting
request in turn, so a short question does not wait behind a long document.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from preheat.kernel.stream import Background
from preheat.models.contract import Embedder, Kind

BATCH_TEXTS = 16


class Embedded(NamedTuple):
    """A text's vector (float32) and its tokens before it was cut."""

    vector: Any
    tokens: int


@dataclass(slots=True, eq=False)
class Ticket:
    """One request's place in the queue. `cancel()` drops what has not been started."""

    texts: Sequence[str]
    kind: Kind
    done: Callable[[Any], None]
    rows: list[Any] = field(default_factory=list)
    taken: int = 0
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


class Batcher:
    def __init__(self, background: Background, embedder: Embedder, batch_texts: int = BATCH_TEXTS) -> None:
        self._background = background
        self._embedder = embedder
        self._batch_texts = batch_texts
        self._waiting: deque[Ticket] = deque()
        self._running = False
        self.batches = 0

    def submit(self, texts: Sequence[str], kind: Kind, done: Callable[[Any], None]) -> Ticket:
        """`done` gets a list with one Embedded for each text, or the exception."""
        ticket = Ticket(texts, kind, done, [None] * len(texts))
        if not texts:
            done([])
            return ticket
        self._waiting.append(ticket)
        self._start()
        return ticket

    def _start(self) -> None:
        if self._running:
            return
        parts = self._pick()
        if not parts:
            return
        self._running = True
        self.batches += 1
        self._background.run(lambda: _embed(self._embedder, parts), lambda value: self._finish(parts, value))

    def _pick(self) -> "list[tuple[Ticket, int, int]]":
        """(ticket, first, last) ranges of texts for the next batch, shared out one text at a time."""
        self._waiting = deque(ticket for ticket in self._waiting if not ticket.cancelled)
        shares: dict[Ticket, int] = {}
        room = self._batch_texts
        while room:
            open_tickets = [t for t in self._waiting if t.taken + shares.get(t, 0) < len(t.texts)]
            if not open_tickets:
                break
            for ticket in open_tickets[:room]:
                shares[ticket] = shares.get(ticket, 0) + 1
                room -= 1
        parts = []
        for ticket, share in shares.items():
            parts.append((ticket, ticket.taken, ticket.taken + share))
            ticket.taken += share
        self._waiting = deque(ticket for ticket in self._waiting if ticket.taken < len(ticket.texts))
        return parts

    def _finish(self, parts: "list[tuple[Ticket, int, int]]", value: Any) -> None:
        self._running = False
        answers = [value] * len(parts) if isinstance(value, Exception) else value
        finished: list[tuple[Ticket, Any]] = []
        for (ticket, first, last), rows in zip(parts, answers):
            if isinstance(rows, Exception):
                if not ticket.cancelled:
                    ticket.cancelled = True
                    finished.append((ticket, rows))
                continue
            ticket.rows[first:last] = rows
            if last == len(ticket.texts) and not ticket.cancelled:
                finished.append((ticket, ticket.rows))
        self._start()
        for ticket, answer in finished:
            ticket.done(answer)


def _embed(embedder: Embedder, parts: "list[tuple[Ticket, int, int]]") -> list[Any]:
    """Rows (or the exception) for each part. One model run per kind; when a shared run fails each part is run alone,
    so that one request's bad text is not another's error."""
    answers: list[Any] = [None] * len(parts)
    for kind in sorted({ticket.kind for ticket, _, _ in parts}):
        members = [index for index, part in enumerate(parts) if part[0].kind == kind]
        texts = [text for index in members for text in parts[index][0].texts[parts[index][1] : parts[index][2]]]
        try:
            rows = embedder.embed(texts, kind)
        except Exception as error:
            if len(members) == 1:
                answers[members[0]] = error
                continue
            for index in members:
                answers[index] = _embed(embedder, [parts[index]])[0]
            continue
        at = 0
        for index in members:
            size = parts[index][2] - parts[index][1]
            ticket, first, last = parts[index]
            counts = [embedder.count_tokens(text) for text in ticket.texts[first:last]]
            answers[index] = [Embedded(row, count) for row, count in zip(rows[at : at + size], counts)]
            at += size
    return answers

"""Embedding requests that arrive while a batch runs share the next one.

Everything here happens on the core's thread except the embedding itself. A batch is of questions or of documents, in
turn when both wait: a question waits for one run of the model, and documents are never held up for good. Questions
share a batch text by text. Documents go first come, first served: whoever sent the oldest request writes it and reads
what comes next while the model is busy with the others', instead of all of them waiting for the same last batch.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from preheat.kernel.stream import Background
from preheat.models.contract import Embedder, Kind

BATCH_TEXTS = 32
BATCH_CHARACTERS = 8_000
"""Of a batch of several texts: about what MiniLM runs at once."""
FAR_BATCH_CHARACTERS = 64_000
"""For a model on a server elsewhere, where each batch costs a round trip."""


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


Part = tuple[Ticket, int, int]
"""The texts of a ticket from the first to before the last."""


class Batcher:
    def __init__(
        self,
        background: Background,
        embedder: Embedder,
        batch_texts: int = BATCH_TEXTS,
        batch_characters: int = BATCH_CHARACTERS,
    ) -> None:
        self._background = background
        self._embedder = embedder
        self._batch_texts = batch_texts
        self._batch_characters = batch_characters
        self._waiting: dict[Kind, deque[Ticket]] = {"query": deque(), "document": deque()}
        self._last: Kind = "document"
        self._running = False
        self.batches = 0

    def submit(self, texts: Sequence[str], kind: Kind, done: Callable[[Any], None]) -> Ticket:
        """`done` gets a list with one Embedded for each text, or the exception."""
        ticket = Ticket(texts, kind, done, [None] * len(texts))
        if not texts:
            done([])
            return ticket
        self._waiting[kind].append(ticket)
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

    def _pick(self) -> list[Part]:
        """The next batch: of the kind that the last one was not, where any of it waits."""
        for tickets in self._waiting.values():
            kept = [ticket for ticket in tickets if not ticket.cancelled]
            tickets.clear()
            tickets.extend(kept)
        turn: tuple[Kind, ...] = ("document", "query") if self._last == "query" else ("query", "document")
        kind = next((one for one in turn if self._waiting[one]), None)
        if kind is None:
            return []
        self._last = kind
        tickets = self._waiting[kind]
        shares = self._in_turn(tickets) if kind == "query" else self._oldest_first(tickets)
        parts = []
        for ticket, share in shares.items():
            parts.append((ticket, ticket.taken, ticket.taken + share))
            ticket.taken += share
        kept = [ticket for ticket in tickets if ticket.taken < len(ticket.texts)]
        tickets.clear()
        tickets.extend(kept)
        return parts

    def _in_turn(self, tickets: "deque[Ticket]") -> dict[Ticket, int]:
        """How many texts of each, shared out one at a time."""
        shares: dict[Ticket, int] = {}
        room = self._batch_texts
        while room:
            open_tickets = [t for t in tickets if t.taken + shares.get(t, 0) < len(t.texts)]
            if not open_tickets:
                break
            for ticket in open_tickets[:room]:
                shares[ticket] = shares.get(ticket, 0) + 1
                room -= 1
        return shares

    def _oldest_first(self, tickets: "deque[Ticket]") -> dict[Ticket, int]:
        """How many texts of each, in the order they came: one at least, and no more characters than a batch has."""
        shares: dict[Ticket, int] = {}
        texts, characters = 0, 0
        for ticket in tickets:
            for text in ticket.texts[ticket.taken :]:
                characters += len(text)
                if texts == self._batch_texts or (texts and characters > self._batch_characters):
                    return shares
                shares[ticket] = shares.get(ticket, 0) + 1
                texts += 1
        return shares

    def _finish(self, parts: list[Part], value: Any) -> None:
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


def _embed(embedder: Embedder, parts: list[Part]) -> list[Any]:
    """Rows (or the exception) for each part, in one run of the model. When a shared run fails each part is run alone,
    so that one request's bad text is not another's error."""
    texts = [text for ticket, first, last in parts for text in ticket.texts[first:last]]
    try:
        rows = embedder.embed(texts, parts[0][0].kind)
    except Exception as error:
        return [error] if len(parts) == 1 else [_embed(embedder, [part])[0] for part in parts]
    made = [Embedded(row, embedder.count_tokens(text)) for row, text in zip(rows, texts)]
    answers: list[Any] = []
    at = 0
    for _, first, last in parts:
        answers.append(made[at : at + last - first])
        at += last - first
    return answers

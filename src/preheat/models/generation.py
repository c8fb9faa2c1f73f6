"""Turns a stream of text pieces into a `Generation`: counts tokens, stops at `max_tokens` and at stop sequences."""

from collections.abc import Callable, Iterator, Sequence

from preheat.models.contract import StopReason, Usage


class TextGeneration:
    """Pieces of `source`, cut before the first stop sequence and after `max_tokens` tokens (as `count` counts them,
    piece by piece). Text that may be the beginning of a stop sequence is held back until it is certain."""

    def __init__(
        self,
        source: Iterator[str],
        count: Callable[[str], int],
        input_tokens: int,
        max_tokens: int,
        stop: Sequence[str] = (),
    ) -> None:
        self.usage = Usage(input_tokens=input_tokens)
        self.stop_reason: StopReason = "end_turn"
        self.stop_sequence: str | None = None
        self._source = source
        self._count = count
        self._max_tokens = max_tokens
        self._stop = tuple(text for text in stop if text)
        self._pieces = self._run()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    def close(self) -> None:
        self._pieces.close()
        close = getattr(self._source, "close", None)
        if close is not None:
            close()

    def _run(self) -> Iterator[str]:
        held = ""
        for piece in self._source:
            tokens = self._count(piece)
            if self.usage.output_tokens + tokens > self._max_tokens:
                self.stop_reason = "max_tokens"
                break
            self.usage.output_tokens += tokens
            held += piece
            at, found = _first(held, self._stop)
            if found:
                self.stop_reason, self.stop_sequence = "stop_sequence", found
                held = held[:at]
                break
            keep = _overhang(held, self._stop)
            ready, held = held[: len(held) - keep], held[len(held) - keep :]
            if ready:
                yield ready
        if held:
            yield held


def _first(text: str, stop: Sequence[str]) -> tuple[int, str]:
    """Where the earliest stop sequence begins, and which; (-1, "") without one."""
    hits = [(at, sequence) for sequence in stop if (at := text.find(sequence)) >= 0]
    return min(hits) if hits else (-1, "")


def _overhang(text: str, stop: Sequence[str]) -> int:
    """How many last characters of `text` could begin a stop sequence."""
    longest = 0
    for sequence in stop:
        for length in range(min(len(sequence) - 1, len(text)), longest, -1):
            if text.endswith(sequence[:length]):
                longest = length
                break
    return longest

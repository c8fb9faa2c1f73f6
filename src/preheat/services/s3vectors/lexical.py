"""BM25 over one searchable metadata key: an inverted index that grows with the writes.

Documents are numbered by slot, the same slots as the vectors'. A removed document leaves its postings behind, and is
taken out of every count at once, so scores are those of the live documents. What was read from a file stays there
(`_base`); what is added since lies in an array for every term. score = sum over the query's terms of
idf * tf / (tf + k1 * (1 - b + b * length / average length)), idf = ln(1 + (N - df + 0.5) / (df + 0.5)).
"""

import math
from array import array
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from preheat.services.s3vectors.analysis import Analyzer
from preheat.services.s3vectors.saved import Section, Stored, listed, unlisted

if TYPE_CHECKING:
    import numpy as np

K1 = 1.2
B = 0.75
KEPT_POSTINGS = 4_000_000
"""Of how many postings the term frequency part of the score is kept between writes."""
JOINED, MOVED = 5_000, 500_000
"""How many arrays, or numbers, are copied at a time: nothing else runs meanwhile."""


class _Base(NamedTuple):
    """Postings term by term (`slots`, `counts`, from `ends[term - 1]` to `ends[term]`), and the numbers of each
    document's terms slot by slot (`terms`, likewise by `term_ends`)."""

    ends: "np.ndarray"
    slots: "np.ndarray"
    counts: "np.ndarray"
    term_ends: "np.ndarray"
    terms: "np.ndarray"

    def of(self, term: int) -> slice:
        return slice(self.ends[term - 1] if term else 0, self.ends[term]) if term < len(self.ends) else slice(0)

    def document(self, slot: int) -> slice:
        if slot >= len(self.term_ends):
            return slice(0)
        return slice(self.term_ends[slot - 1] if slot else 0, self.term_ends[slot])


class TextIndex:
    def __init__(self, analyze: Analyzer) -> None:
        self._analyze = analyze
        self._term_ids: dict[str, int] = {}
        self._slots: list[array | None] = []
        self._counts: list[array | None] = []
        self._frequency = array("i")
        self._lengths = array("i")
        self._forward: dict[int, array] = {}
        self._total = 0
        self._postings = 0
        self._base: _Base | None = None
        self._shares: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._kept = 0
        self.documents = 0

    @property
    def bytes(self) -> int:
        """A rough size in memory."""
        return len(self._term_ids) * 400 + self._postings * 12 + len(self._lengths) * 100 + self._kept * 4

    def add(self, slot: int, text: str) -> None:
        """Index `text` under `slot`; slots only grow. Text without a term is not a document."""
        terms = self._analyze(text)
        if not terms:
            return
        self._shares.clear()
        ids = self._term_ids
        forward = array("i")
        for term, count in Counter(terms).items():
            number = ids.get(term)
            if number is None:
                number = ids[term] = len(ids)
                self._slots.append(None)
                self._counts.append(None)
                self._frequency.append(0)
            slots, counts = self._slots[number], self._counts[number]
            if slots is None or counts is None:
                slots, counts = self._slots[number], self._counts[number] = array("i"), array("i")
            slots.append(slot)
            counts.append(count)
            self._frequency[number] += 1
            forward.append(number)
        if len(self._lengths) <= slot:
            self._lengths.extend([0] * (slot + 1 - len(self._lengths)))
        self._lengths[slot] = len(terms)
        self._forward[slot] = forward
        self.documents += 1
        self._total += len(terms)
        self._postings += len(forward)

    def remove(self, slot: int) -> None:
        """Take a document out; a slot is removed once."""
        forward: Any = self._forward.pop(slot, None)
        if forward is None and self._base is not None:
            forward = self._base.terms[self._base.document(slot)].tolist()
        if not forward:
            return
        self._shares.clear()
        self.documents -= 1
        for number in forward:
            self._frequency[number] -= 1
        self._total -= self._lengths[slot]

    def scores(self, text: str, slots: int) -> "np.ndarray":
        """float32[slots]: the BM25 score of every slot, 0 where no term matches. Removed slots are not cleared."""
        import numpy as np

        result = np.zeros(slots, dtype=np.float32)
        documents = self.documents
        if not documents:
            return result
        for term, weight in Counter(self._analyze(text)).items():
            number = self._term_ids.get(term)
            if number is None or not self._frequency[number]:
                continue
            frequency = self._frequency[number]
            idf = math.log(1 + (documents - frequency + 0.5) / (frequency + 0.5))
            at, share = self._share(number)
            result[at] += (weight * idf) * share
        return result

    def _share(self, number: int) -> "tuple[np.ndarray, np.ndarray]":
        """A term's slots, and tf / (tf + k1 * (1 - b + b * length / average length)) for each, kept until the next
        write changes the average."""
        import numpy as np

        known = self._shares.get(number)
        if known is not None:
            return known
        at, counts = self._postings_of(number)
        lengths = np.frombuffer(self._lengths, dtype=np.int32)[at]
        share = counts / (counts + K1 * (1 - B + B * lengths * (self.documents / self._total)))
        self._kept = len(at) + (self._kept if self._shares else 0)
        if self._kept > KEPT_POSTINGS:
            self._shares.clear()
            self._kept = len(at)
        found = self._shares[number] = at, share.astype(np.float32)
        return found

    def _postings_of(self, number: int) -> "tuple[np.ndarray, np.ndarray]":
        """A term's slots and counts."""
        import numpy as np

        slots, counts = self._slots[number], self._counts[number]
        added = [np.frombuffer(one or array("i"), dtype=np.int32) for one in (slots, counts)] if slots else []
        if self._base is None:
            return added[0], added[1]
        place = self._base.of(number)
        kept = self._base.slots[place], self._base.counts[place]
        if not added:
            return kept
        return np.concatenate((kept[0], added[0])), np.concatenate((kept[1], added[1]))

    # -- in files -------------------------------------------------------------------------------------------------

    def capture(self) -> tuple[dict[str, Any], dict[str, Section]]:
        """What a copy is made of: what changes later is copied now, the rest is done when a section is asked for."""
        base, terms = self._base, list(self._term_ids)
        slots, counts = _joined(self._slots), _joined(self._counts)
        sizes = array("q", (0 if one is None else len(one) for one in self._slots))
        first = 0 if base is None else len(base.term_ends)
        forward = [self._forward.get(slot) for slot in range(first, len(self._lengths))]
        widths = array("q", (0 if one is None else len(one) for one in forward))
        numbers, frequency, lengths = _joined(forward), self._frequency.tobytes(), self._lengths.tobytes()
        meta = {"documents": self.documents, "total": self._total, "postings": self._postings}
        return meta, {
            "terms": lambda: listed(terms),
            "frequency": lambda: (frequency,),
            "lengths": lambda: (lengths,),
            "ends": lambda: (_ends(None if base is None else base.ends, sizes),),
            "slots": lambda: _merged(base, None if base is None else base.slots, sizes, slots),
            "counts": lambda: _merged(base, None if base is None else base.counts, sizes, counts),
            "term_ends": lambda: _continued(None if base is None else base.term_ends, widths),
            "document_terms": lambda: numbers if base is None else (base.terms, *numbers),
        }

    @classmethod
    def restored(cls, analyze: Analyzer, meta: dict[str, Any], stored: Stored, prefix: str) -> "TextIndex":
        """The index of a copy; `prefix` is before the names of its sections."""
        self = cls(analyze)
        self.documents, self._total, self._postings = meta["documents"], meta["total"], meta["postings"]
        for number, term in enumerate(unlisted(stored.section(prefix + "terms"))):
            self._term_ids[term] = number
        self._slots, self._counts = [None] * len(self._term_ids), [None] * len(self._term_ids)
        self._frequency.frombytes(stored.section(prefix + "frequency"))
        self._lengths.frombytes(stored.section(prefix + "lengths"))
        kinds = {"ends": "i8", "slots": "i4", "counts": "i4", "term_ends": "i8", "document_terms": "i4"}
        self._base = _Base(*(stored.numbers(prefix + name, kind) for name, kind in kinds.items()))
        return self


def _joined(arrays: "list[array | None]") -> list[bytes]:
    return [
        b"".join(one for one in arrays[at : at + JOINED] if one is not None) for at in range(0, len(arrays), JOINED)
    ]


def _ends(old: "np.ndarray | None", sizes: array) -> "np.ndarray":
    """Where each term's postings end when `sizes` are added to those of the base."""
    import numpy as np

    widths = np.array(sizes, dtype=np.int64)
    if old is not None:
        widths[: len(old)] += np.diff(old, prepend=0)
    return np.cumsum(widths)


def _continued(old: "np.ndarray | None", widths: array) -> "Iterable[np.ndarray]":
    import numpy as np

    last = 0 if old is None or not len(old) else old[-1]
    added = np.cumsum(np.array(widths, dtype=np.int64)) + last
    return (added,) if old is None else (old, added)


def _merged(base: _Base | None, old: "np.ndarray | None", sizes: array, added: list[bytes]) -> Iterable[Any]:
    """Postings of the base and those added since, term by term."""
    import numpy as np

    if base is None or old is None:
        return added
    ends, widths = _ends(base.ends, sizes), np.array(sizes, dtype=np.int64)
    result = np.empty(ends[-1] if len(ends) else 0, dtype=np.int32)
    kept = np.diff(base.ends, prepend=0)
    starts = ends - widths
    _place(result, starts[: len(kept)] - kept, kept, old)
    _place(result, starts, widths, np.frombuffer(b"".join(added), dtype=np.int32))
    return (result,)


def _place(result: "np.ndarray", starts: "np.ndarray", sizes: "np.ndarray", values: "np.ndarray") -> None:
    """Runs of `values`, `sizes` long, to the places `starts`."""
    import numpy as np

    ends, first = np.cumsum(sizes), 0
    while first < len(sizes):
        begun = ends[first] - sizes[first]
        last = max(first + 1, int(np.searchsorted(ends, begun + MOVED, side="right")))
        some, over = slice(first, last), ends[last - 1]
        shift = np.repeat(starts[some] - (ends[some] - sizes[some]), sizes[some])
        result[shift + np.arange(begun, over)] = values[begun:over]
        first = last

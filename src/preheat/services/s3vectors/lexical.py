"""BM25 over one searchable metadata key: an inverted index that grows with the writes.

Documents are numbered by slot, the same slots as the vectors'. A removed document leaves its postings behind, and is
taken out of every count at once, so scores are those of the live documents. score = sum over the query's terms of
idf * tf / (tf + k1 * (1 - b + b * length / average length)), idf = ln(1 + (N - df + 0.5) / (df + 0.5)).
"""

import math
from array import array
from collections import Counter
from typing import TYPE_CHECKING

from preheat.services.s3vectors.analysis import Analyzer

if TYPE_CHECKING:
    import numpy as np

K1 = 1.2
B = 0.75
KEPT_POSTINGS = 4_000_000
"""Of how many postings the term frequency part of the score is kept between writes."""


class TextIndex:
    def __init__(self, analyze: Analyzer) -> None:
        self._analyze = analyze
        self._term_ids: dict[str, int] = {}
        self._slots: list[array] = []
        self._counts: list[array] = []
        self._frequency = array("i")
        self._lengths = array("i")
        self._forward: dict[int, array] = {}
        self._total = 0
        self._postings = 0
        self._shares: dict[int, np.ndarray] = {}
        self._kept = 0

    @property
    def documents(self) -> int:
        return len(self._forward)

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
                self._slots.append(array("i"))
                self._counts.append(array("i"))
                self._frequency.append(0)
            self._slots[number].append(slot)
            self._counts[number].append(count)
            self._frequency[number] += 1
            forward.append(number)
        if len(self._lengths) <= slot:
            self._lengths.extend([0] * (slot + 1 - len(self._lengths)))
        self._lengths[slot] = len(terms)
        self._forward[slot] = forward
        self._total += len(terms)
        self._postings += len(forward)

    def remove(self, slot: int) -> None:
        forward = self._forward.pop(slot, None)
        if forward is None:
            return
        self._shares.clear()
        for number in forward:
            self._frequency[number] -= 1
        self._total -= self._lengths[slot]

    def scores(self, text: str, slots: int) -> "np.ndarray":
        """float32[slots]: the BM25 score of every slot, 0 where no term matches. Removed slots are not cleared."""
        import numpy as np

        result = np.zeros(slots, dtype=np.float32)
        documents = len(self._forward)
        if not documents:
            return result
        for term, weight in Counter(self._analyze(text)).items():
            number = self._term_ids.get(term)
            if number is None or not self._frequency[number]:
                continue
            frequency = self._frequency[number]
            idf = math.log(1 + (documents - frequency + 0.5) / (frequency + 0.5))
            at = np.frombuffer(self._slots[number], dtype=np.int32)
            result[at] += (weight * idf) * self._share(number, at)
        return result

    def _share(self, number: int, at: "np.ndarray") -> "np.ndarray":
        """tf / (tf + k1 * (1 - b + b * length / average length)) for the postings `at` of a term, kept until the next
        write changes the average."""
        import numpy as np

        known = self._shares.get(number)
        if known is not None:
            return known
        lengths = np.frombuffer(self._lengths, dtype=np.int32)[at]
        counts = np.frombuffer(self._counts[number], dtype=np.int32)
        share = counts / (counts + K1 * (1 - B + B * lengths * (len(self._forward) / self._total)))
        self._kept = len(at) + (self._kept if self._shares else 0)
        if self._kept > KEPT_POSTINGS:
            self._shares.clear()
            self._kept = len(at)
        share = self._shares[number] = share.astype(np.float32)
        return share

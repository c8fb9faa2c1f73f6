"""Filterable metadata as columns: per key, pairs (slot, number of a distinct value), appended as vectors are added.

A filter is decided once per distinct value and then looked up for all slots at once. What one condition lets through is
kept, and continued for the slots that were added since: a slot's metadata never changes.
"""

import math
from array import array
from typing import TYPE_CHECKING, Any, NamedTuple

from preheat.services.s3vectors.filters import MISSING, ORDERED, Filter, Test
from preheat.services.s3vectors.saved import Section, Stored, listed, unlisted

if TYPE_CHECKING:
    import numpy as np

EXACT_FLOAT = 2.0**53
KEPT_MASKS = 32


class _Mask(NamedTuple):
    """What a condition lets through of the first `len(bits)` slots, which are the column's first `pairs`; `passing` is
    the verdict on each distinct value so far."""

    bits: "np.ndarray"
    pairs: int
    passing: "np.ndarray"


class _Column:
    def __init__(self) -> None:
        self.slots = array("i")
        self.codes = array("i")
        self.values: list[Any] = []
        self._numbers: dict[Any, int] | None = {}
        self.floats = array("d")
        self.has_lists = False
        self.has_huge = False

    @property
    def numbers(self) -> dict[Any, int]:
        """The number of each value by its type and itself; made when it is first needed."""
        if self._numbers is None:
            self._numbers = {_name(value): number for number, value in enumerate(self.values)}
        return self._numbers

    def add(self, slot: int, value: Any) -> None:
        if isinstance(value, list):
            value = tuple(value)
            self.has_lists = True
        name = _name(value)
        number = self.numbers.get(name)
        if number is None:
            number = self.numbers[name] = len(self.values)
            self.values.append(value)
            plain = type(value) in (int, float) and abs(value) <= EXACT_FLOAT
            self.floats.append(value if plain else math.nan)
            self.has_huge = self.has_huge or (type(value) in (int, float) and not plain)
        self.slots.append(slot)
        self.codes.append(number)

    def passing(self, test: Test, first: int) -> "np.ndarray":
        """bool per distinct value from number `first` on: does it pass? Comparisons of plain numbers are made all at
        once; equal values are looked up."""
        import numpy as np

        compare = ORDERED.get(test.operator)
        if test.operator in ("$eq", "$in") and not self.has_lists:
            result = np.zeros(len(self.values), dtype=bool)
            result[[number for number in self._equal(test) if number is not None]] = True
            return result[first:]
        if compare is None or self.has_lists or self.has_huge or abs(test.operand) > EXACT_FLOAT:
            values = self.values[first:]
            return np.fromiter((test.holds(value) for value in values), dtype=bool, count=len(values))
        return compare(np.frombuffer(self.floats)[first:], test.operand)

    def _equal(self, test: Test) -> "list[int | None]":
        """Numbers of the values that equal one of the operands; 1 and 1.0 are equal, 1 and true are not."""
        wanted = test.operand if test.operator == "$in" else (test.operand,)
        kinds = [(int, float) if type(one) in (int, float) else (type(one),) for one in wanted]
        return [self.numbers.get((kind, one)) for one, its in zip(wanted, kinds) for kind in its]

    def capture(self) -> tuple[dict[str, Any], dict[str, Section]]:
        slots, codes, floats, values = self.slots.tobytes(), self.codes.tobytes(), self.floats.tobytes(), [*self.values]
        return {"lists": self.has_lists, "huge": self.has_huge}, {
            "slots": lambda: (slots,),
            "codes": lambda: (codes,),
            "floats": lambda: (floats,),
            "values": lambda: listed(values),
        }

    @classmethod
    def restored(cls, meta: dict[str, Any], stored: Stored, prefix: str) -> "_Column":
        self = cls()
        self.has_lists, self.has_huge = meta["lists"], meta["huge"]
        self.slots.frombytes(stored.section(prefix + "slots"))
        self.codes.frombytes(stored.section(prefix + "codes"))
        self.floats.frombytes(stored.section(prefix + "floats"))
        values = unlisted(stored.section(prefix + "values"))
        self.values = [tuple(one) if isinstance(one, list) else one for one in values] if self.has_lists else values
        self._numbers = None
        return self


def _name(value: Any) -> tuple:
    """1, 1.0 and true are different values."""
    if isinstance(value, tuple):
        return ("list", *((type(member), member) for member in value))
    return (type(value), value)


class Columns:
    """`non_filterable` keys are not kept."""

    def __init__(self, non_filterable: tuple[str, ...]) -> None:
        self._non_filterable = frozenset(non_filterable)
        self._columns: dict[str, _Column] = {}
        self._pairs = 0
        self._masks: dict[tuple[str, str, str], _Mask] = {}

    @property
    def bytes(self) -> int:
        """A rough size in memory."""
        masks = sum(len(mask.bits) for mask in self._masks.values())
        return self._pairs * 8 + masks + sum(len(column.values) for column in self._columns.values()) * 250

    def add(self, slot: int, metadata: dict[str, Any]) -> None:
        for key, value in metadata.items():
            if key not in self._non_filterable:
                column = self._columns.get(key)
                if column is None:
                    column = self._columns[key] = _Column()
                column.add(slot, value)
                self._pairs += 1

    def mask(self, tree: Filter, slots: int) -> "np.ndarray":
        """bool[slots]: which slots pass the filter; removed slots have the value they had."""
        import numpy as np

        if isinstance(tree, Test):
            return self._test(tree, slots)
        masks = [self.mask(member, slots) for member in tree.members]
        combine = np.logical_and if tree.kind == "all" else np.logical_or
        return combine.reduce(masks)

    def _test(self, test: Test, slots: int) -> "np.ndarray":
        import numpy as np

        name = (test.key, test.operator, repr(test.operand))
        known = self._masks.pop(name, None) or _Mask(np.zeros(0, dtype=bool), 0, np.zeros(0, dtype=bool))
        if len(known.bits) < slots:
            known = self._continued(known, test, slots)
        self._masks[name] = known
        if len(self._masks) > KEPT_MASKS:
            del self._masks[next(iter(self._masks))]
        return known.bits

    def _continued(self, known: _Mask, test: Test, slots: int) -> _Mask:
        import numpy as np

        bits = np.full(slots, test.holds(MISSING), dtype=bool)
        bits[: len(known.bits)] = known.bits
        column = self._columns.get(test.key)
        if column is None or len(column.slots) == known.pairs:
            return _Mask(bits, known.pairs, known.passing)
        passing = np.concatenate((known.passing, column.passing(test, len(known.passing))))
        added = np.frombuffer(column.slots, dtype=np.int32)[known.pairs :]
        bits[added] = passing[np.frombuffer(column.codes, dtype=np.int32)[known.pairs :]]
        return _Mask(bits, len(column.slots), passing)

    # -- in files -------------------------------------------------------------------------------------------------

    def capture(self) -> tuple[list[Any], dict[str, Section]]:
        """What a copy is made of."""
        meta: list[Any] = []
        sections: dict[str, Section] = {}
        for at, (key, column) in enumerate(self._columns.items()):
            its, parts = column.capture()
            meta.append([key, its])
            sections |= {f"{at}/{name}": make for name, make in parts.items()}
        return meta, sections

    @classmethod
    def restored(
        cls, non_filterable: tuple[str, ...], meta: list[Any], stored: Stored, prefix: str
    ) -> "Columns":
        """The columns of a copy; `prefix` is before the names of their sections."""
        self = cls(non_filterable)
        for at, (key, its) in enumerate(meta):
            column = self._columns[key] = _Column.restored(its, stored, f"{prefix}{at}/")
            self._pairs += len(column.slots)
        return self

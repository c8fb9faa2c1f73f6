"""Filterable metadata as columns: per key, pairs (slot, number of a distinct value), appended as vectors are added.

A filter is decided once per distinct value and then looked up for all slots at once.
"""

import math
from array import array
from typing import TYPE_CHECKING, Any

from preheat.services.s3vectors.filters import MISSING, ORDERED, Filter, Test

if TYPE_CHECKING:
    import numpy as np

EXACT_FLOAT = 2.0**53


class _Column:
    def __init__(self) -> None:
        self.slots = array("i")
        self.codes = array("i")
        self.values: list[Any] = []
        self.numbers: dict[Any, int] = {}
        self.floats = array("d")
        self.has_lists = False
        self.has_huge = False

    def add(self, slot: int, value: Any) -> None:
        if isinstance(value, list):
            value = tuple(value)
            self.has_lists = True
            name = ("list", *((type(member), member) for member in value))
        else:
            name = (type(value), value)
        number = self.numbers.get(name)
        if number is None:
            number = self.numbers[name] = len(self.values)
            self.values.append(value)
            plain = type(value) in (int, float) and abs(value) <= EXACT_FLOAT
            self.floats.append(value if plain else math.nan)
            self.has_huge = self.has_huge or (type(value) in (int, float) and not plain)
        self.slots.append(slot)
        self.codes.append(number)

    def passing(self, test: Test) -> "np.ndarray":
        """bool per distinct value: does it pass? Comparisons of plain numbers are made all at once."""
        import numpy as np

        compare = ORDERED.get(test.operator)
        if compare is None or self.has_lists or self.has_huge or abs(test.operand) > EXACT_FLOAT:
            return np.fromiter((test.holds(value) for value in self.values), dtype=bool, count=len(self.values))
        return compare(np.frombuffer(self.floats), test.operand)


class Columns:
    """`non_filterable` keys are not kept."""

    def __init__(self, non_filterable: tuple[str, ...]) -> None:
        self._non_filterable = frozenset(non_filterable)
        self._columns: dict[str, _Column] = {}
        self._pairs = 0

    @property
    def bytes(self) -> int:
        """A rough size in memory."""
        return self._pairs * 8 + sum(len(column.values) for column in self._columns.values()) * 250

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

        result = np.full(slots, test.holds(MISSING), dtype=bool)
        column = self._columns.get(test.key)
        if column is not None and len(column.slots):
            passing = column.passing(test)
            result[np.frombuffer(column.slots, dtype=np.int32)] = passing[np.frombuffer(column.codes, dtype=np.int32)]
        return result

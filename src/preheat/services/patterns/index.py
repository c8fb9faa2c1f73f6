"""Many patterns asked at once: only those are looked at whose rarest exact value or prefix the event has.

Every alternative of a pattern is filed under one of its fields, the one whose values the fewest others share; a pattern
whose fields are all of other kinds (numeric, suffix, anything-but...) is asked each time.
"""

from collections import Counter
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

from preheat.services.patterns.compiler import Alternative, Pattern, holds
from preheat.services.patterns.fields import Fields, flatten
from preheat.services.patterns.leaves import Exact, IgnoreCase, Leaf, Prefix

Key = TypeVar("Key", bound=Hashable)


def _typed(value: Any) -> Any:
    """A dictionary key that tells true from 1 and null from nothing."""
    return (type(value).__name__, value) if value is None or isinstance(value, bool) else value


def _token(leaf: Leaf) -> tuple[Any, Any] | None:
    if isinstance(leaf, Exact):
        return ("exact", _typed(leaf.value))
    if isinstance(leaf, IgnoreCase):
        return ("folded", leaf.text)
    if isinstance(leaf, Prefix) and leaf.text and not leaf.fold:
        return (len(leaf.text), leaf.text)
    return None


class RuleIndex(Generic[Key]):
    """`add` and `remove` patterns under keys, then `matching(event)` gives the keys of those that match, in the order
    in which they were added. Filing is done when it is first asked after a change."""

    def __init__(self) -> None:
        self._patterns: dict[Key, Pattern] = {}
        self._filed: dict[str, dict[Any, dict[Any, list[tuple[int, Alternative]]]]] = {}
        self._always: list[tuple[int, Alternative]] = []
        self._keys: list[Key] = []
        self._stale = False

    def __len__(self) -> int:
        return len(self._patterns)

    def add(self, key: Key, pattern: Pattern) -> None:
        self._patterns[key] = pattern
        self._stale = True

    def remove(self, key: Key) -> None:
        """A key that is not there is no mistake."""
        if self._patterns.pop(key, None) is not None:
            self._stale = True

    def matching(self, event: dict[str, Any]) -> list[Key]:
        return self.matching_fields(flatten(event))

    def matching_fields(self, fields: Fields) -> list[Key]:
        if self._stale:
            self._file()
        found: set[int] = set()
        for number, alternative in self._candidates(fields):
            if number not in found and holds(alternative, fields):
                found.add(number)
        return [self._keys[number] for number in sorted(found)]

    def _candidates(self, fields: Fields) -> list[tuple[int, Alternative]]:
        candidates = list(self._always)
        filed = self._filed
        paths = filed.keys() & fields.keys()
        for path in paths:
            kinds = filed[path]
            for value, _ in fields[path]:
                for kind, buckets in kinds.items():
                    if kind == "exact":
                        wanted = _typed(value)
                    elif not isinstance(value, str):
                        continue
                    else:
                        wanted = value.lower() if kind == "folded" else value[:kind]
                    hit = buckets.get(wanted)
                    if hit is not None:
                        candidates.extend(hit)
        return candidates

    def _file(self) -> None:
        self._keys = list(self._patterns)
        self._filed, self._always, self._stale = {}, [], False
        entries = [
            (number, alternative, _places(alternative))
            for number, pattern in enumerate(self._patterns.values())
            for alternative in pattern.alternatives
        ]
        shared: Counter = Counter(
            (path, token) for _, _, places in entries for path, tokens in places.items() for token in tokens
        )
        for number, alternative, places in entries:
            if not places:
                self._always.append((number, alternative))
                continue
            path = min(places, key=lambda name: sum(shared[name, token] for token in places[name]))
            for kind, value in dict.fromkeys(places[path]):
                buckets = self._filed.setdefault(path, {}).setdefault(kind, {})
                buckets.setdefault(value, []).append((number, alternative))


def _places(alternative: Alternative) -> dict[str, list[tuple[Any, Any]]]:
    """The fields under which an alternative may be filed, with their tokens: those all of whose leaves have one."""
    places = {}
    for path, leaves in alternative.items():
        tokens = [token for leaf in leaves if (token := _token(leaf)) is not None]
        if len(tokens) == len(leaves):
            places[path] = tokens
    return places

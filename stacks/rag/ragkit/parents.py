"""A passage with its neighbours: chunks before and after it in the same section of the same document."""

from collections.abc import Sequence
from dataclasses import replace

from ragkit.chunking import chunk_id
from ragkit.store import Filter, Passage, VectorStore

LEAST_OVERLAP = 15
"""Characters; less is chance."""


def expanded(
    store: VectorStore, passages: Sequence[Passage], reach: int, vector: Sequence[float], model: str,
    where: Filter | None = None,
) -> list[Passage]:  # fmt: skip
    """Each passage's text with up to `reach` chunks before and after it; a chunk is shown once, with the best passage
    that reaches it, and a passage that has become part of a better one is gone. Which neighbours may be seen the store
    decides, in a search under `where`; `vector` is what that search is made with."""
    wanted = {
        chunk_id(one.document, number): (one.document, number)
        for one in passages
        for number in range(max(0, one.number - reach), one.number + reach + 1)
    }
    shown = {one.id: one for one in passages}
    missing = {key: place for key, place in wanted.items() if key not in shown}
    allowed = [key for key, _ in store.dense(vector, len(missing), model, _these(missing, where))] if missing else []
    around = {**shown, **{one.id: one for one in store.passages(allowed)}}
    used: set[str] = set()
    result = []
    for one in passages:
        if one.id in used:
            continue
        parts = _run(one, around, reach, used)
        used.update(part.id for part in parts)
        result.append(replace(one, text=joined([part.text for part in parts])))
    return result


def joined(texts: Sequence[str]) -> str:
    """Texts in a row; what one ends with and the next begins with (chunks overlap by whole sentences) stands once."""
    whole = ""
    for text in texts:
        rest = text[_overlap(whole, text) :].strip()
        whole = f"{whole}\n\n{rest}" if whole and rest else whole or rest
    return whole


def _overlap(before: str, text: str) -> int:
    """Characters, up to a white space, that `text` begins with and `before` ends with."""
    for size in range(min(len(before), len(text)), LEAST_OVERLAP - 1, -1):
        if (size == len(text) or text[size].isspace()) and before.endswith(text[:size]):
            return size
    return 0


def _these(places: dict[str, tuple[str, int]], where: Filter | None) -> Filter:
    """The filter that lets these chunks through, as far as `where` does."""
    numbers: dict[str, list[int]] = {}
    for document, number in places.values():
        numbers.setdefault(document, []).append(number)
    each = [{"$and": [{"document": key}, {"number": {"$in": some}}]} for key, some in numbers.items()]
    these = each[0] if len(each) == 1 else {"$or": each}
    return {"$and": [where, these]} if where else these


def _run(one: Passage, around: dict[str, Passage], reach: int, used: set[str]) -> list[Passage]:
    """The passage and the unbroken row of chunks around it that are of its section and not used yet."""
    row = [one]
    for step in (-1, 1):
        for distance in range(1, reach + 1):
            beside = around.get(chunk_id(one.document, one.number + step * distance))
            if beside is None or beside.context != one.context or beside.id in used:
                break
            row.insert(0, beside) if step < 0 else row.append(beside)
    return row

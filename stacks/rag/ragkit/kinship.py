"""How much passages say the same, and what follows: passages near to other good ones gain (the cluster hypothesis), or,
where diversity is wanted, passages near to one that is already taken lose.

The similarity is the cosine of the passages' words, weighted by their rarity among the passages at hand, so it needs no
vectors, no corpus statistics, and works with any store.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

RIVALS = 5
COMMON = 0.5
"""A word in more than this share of the passages tells nothing apart."""

Matrix = list[list[float]]

_WORD = re.compile(r"[^\W_]{2,}")


def similarities(texts: Sequence[str]) -> Matrix:
    """Cosines of the texts, 0 to 1; 0 on the diagonal."""
    return _cosines(texts, math.log, COMMON)


def overlaps(texts: Sequence[str]) -> Matrix:
    """The same for diversity: what most of the texts say counts too, so that many copies of one text are alike."""
    return _cosines(texts, math.log1p, 1.0)


def _cosines(texts: Sequence[str], rarity: Callable[[float], float], most: float) -> Matrix:
    """`rarity` of how many texts there are for each with the word; a word in more than `most` of them is not shared."""
    counts = [Counter(_plain(word) for word in _WORD.findall(text.lower())) for text in texts]
    spread = Counter(word for one in counts for word in one)
    rare = {word: rarity(len(texts) / found) for word, found in spread.items()}
    postings: dict[str, list[tuple[int, float]]] = {}
    lengths = [0.0] * len(texts)
    for row, one in enumerate(counts):
        for word, count in one.items():
            weight = (1 + math.log(count)) * rare[word]
            lengths[row] += weight * weight
            if 1 < spread[word] <= most * len(texts):
                postings.setdefault(word, []).append((row, weight))
    matrix = [[0.0] * len(texts) for _ in texts]
    for places in postings.values():
        for at, (row, weight) in enumerate(places):
            target = matrix[row]
            for other, beside in places[at + 1 :]:
                target[other] += weight * beside
    for row in range(len(texts)):
        for other in range(row + 1, len(texts)):
            if matrix[row][other]:
                matrix[row][other] /= math.sqrt(lengths[row] * lengths[other])
                matrix[other][row] = matrix[row][other]
    return matrix


def supported(scores: Sequence[float], matrix: Matrix, share: float) -> list[float]:
    """Scores (0 to 1) with what each passage's neighbours score, mixed in by up to `share`: all of it where the best
    passages score alike, none where one stands out. Neighbours count by the cube of their likeness, so that many
    distant ones do not outvote a near one."""
    if len(scores) < 3 or share <= 0:
        return list(scores)
    best, *others = sorted(scores, reverse=True)[: RIVALS + 1]
    share *= 1 - (best - sum(others) / len(others))
    told = []
    for row in matrix:
        near = [one * one * one for one in row]
        total = sum(near)
        told.append(sum(weight * score for weight, score in zip(near, scores)) / total if total else 0.0)
    low, high = min(told), max(told)
    if high <= low:
        return list(scores)
    return [(1 - share) * score + share * (one - low) / (high - low) for score, one in zip(scores, told)]


def diverse(scores: Sequence[float], matrix: Matrix, count: int, diversity: float) -> list[int]:
    """Rows of `count` passages, best first, by maximal marginal relevance: (1 - diversity) times the score less
    diversity times the highest similarity to one already taken."""
    left = sorted(range(len(scores)), key=lambda row: -scores[row])
    nearest = [0.0] * len(scores)
    taken: list[int] = []
    while left and len(taken) < count:
        row = max(left, key=lambda one: (1 - diversity) * scores[one] - diversity * nearest[one])
        left.remove(row)
        taken.append(row)
        nearest = [max(known, near) for known, near in zip(nearest, matrix[row])]
    return taken


def _plain(word: str) -> str:
    """Without the s of a plural."""
    return word[:-1] if len(word) > 3 and word[-1] == "s" and word[-2] != "s" else word

"""BM25 for stores that are SQL databases: terms of a text, rows for a postings table, and the query that scores.

The postings table has the columns FIELD, TERM, ID, TF, LENGTH (terms in the field); the passages table has ID and the
lengths of the two fields. Scores of the fields are added, as S3 Vectors does; k1 1.2, b 0.75, Lucene's idf.
"""

import re
from collections import Counter
from collections.abc import Iterator

from ragkit.chunking import Chunk

K1 = 1.2
B = 0.75
LONGEST_TERM = 100
MOST_TERMS = 64
CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
RUN = re.compile(rf"[{CJK}]+|(?:(?![{CJK}])\w)+(?:['’](?:(?![{CJK}])\w)+)*")
WIDE = re.compile(rf"[{CJK}]")
STOP = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be but by for from has have if in into is it its no not of on or such that the their then"
        " there these they this to was were what when where which who will with",
    )
)


def terms(text: str) -> list[str]:
    """Lower-case words, plurals cut, English stop words left out; pairs of characters for Chinese, Japanese, Korean."""
    found: list[str] = []
    for run in RUN.findall(text.lower()):
        if WIDE.match(run):
            found += [run] if len(run) == 1 else [run[at : at + 2] for at in range(len(run) - 1)]
            continue
        word = re.split("['’]", run)[0]
        if word and word not in STOP:
            found.append(singular(word)[:LONGEST_TERM])
    return found


def singular(word: str) -> str:
    """An English plural's singular, by Harman's three rules; other words as they are."""
    if len(word) > 3 and word.endswith("ies") and word[-4] not in "ae":
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("es") and word[-3] not in "aeo":
        return word[:-1]
    if len(word) > 2 and word.endswith("s") and word[-2] not in "us":
        return word[:-1]
    return word


def lengths(chunk: Chunk) -> dict[str, int]:
    """Terms in each field."""
    return {field: len(terms(getattr(chunk, field))) for field in ("text", "context")}


def postings(chunk: Chunk) -> Iterator[tuple[str, str, str, int, int]]:
    """(field, term, id, how often, terms in the field)."""
    for field in ("text", "context"):
        found = terms(getattr(chunk, field))
        for term, times in Counter(found).items():
            yield field, term, chunk.id, times, len(found)


def question(text: str) -> list[str]:
    """The distinct terms of a query, at most MOST_TERMS."""
    return list(dict.fromkeys(terms(text)))[:MOST_TERMS]


def score_sql(passages: str, postings: str, marks: str, where: str, stats: str = "", fence: str = "") -> str:
    """(ID, SCORE), best first. `marks` are the placeholders of the query's terms, which stand in it once; `where` is a
    condition on the passages table, named M; the limit is the last placeholder's. Any SQL database. `stats` is a query
    of N, TEXT_MEAN and CONTEXT_MEAN for a store that keeps them; else they are counted. A `fence` makes the condition
    wait until the hits are sorted, so that it is asked of few."""
    scored = f"(SELECT ID, SCORE FROM SCORED ORDER BY SCORE DESC, ID {fence})" if fence else "SCORED"
    stats = stats or (
        "SELECT CAST(COUNT(*) AS FLOAT) AS N, CAST(AVG(TEXT_LENGTH) AS FLOAT) AS TEXT_MEAN,"
        f" CAST(AVG(CONTEXT_LENGTH) AS FLOAT) AS CONTEXT_MEAN FROM {passages}"
    )
    mean = "CASE P.FIELD WHEN 'text' THEN S.TEXT_MEAN ELSE S.CONTEXT_MEAN END"
    return f"""WITH HITS AS (SELECT FIELD, TERM, ID, TF, LENGTH FROM {postings} WHERE TERM IN ({marks})),
STATS AS ({stats}),
FREQUENCIES AS (SELECT FIELD, TERM, CAST(COUNT(*) AS FLOAT) AS DF FROM HITS GROUP BY FIELD, TERM),
SCORED AS (SELECT P.ID AS ID, SUM(LN(1 + (S.N - F.DF + 0.5) / (F.DF + 0.5)) * P.TF
 / (P.TF + {K1} * ({1 - B} + {B} * P.LENGTH / ({mean})))) AS SCORE
 FROM HITS P JOIN FREQUENCIES F ON F.FIELD = P.FIELD AND F.TERM = P.TERM CROSS JOIN STATS S GROUP BY P.ID)
SELECT C.ID AS ID, C.SCORE AS SCORE FROM {scored} C JOIN {passages} M ON M.ID = C.ID WHERE {where}
 ORDER BY C.SCORE DESC, C.ID LIMIT ?"""

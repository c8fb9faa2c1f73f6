"""S3 Vectors' rules without the service: text analysis, BM25, filters, nearest vectors."""

import math
import subprocess
import sys
from array import array

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preheat.kernel.errors import AwsError
from preheat.services.s3vectors import filters
from preheat.services.s3vectors.analysis import analyzer, bigrams, words
from preheat.services.s3vectors.columns import Columns
from preheat.services.s3vectors.dense import DenseIndex, best
from preheat.services.s3vectors.lexical import TextIndex

# -- analysis ---------------------------------------------------------------------------------------------------------


def test_words_follow_unicode():
    assert words("Don't e-mail U.S.A. 3.14, foo.bar2. Ünïcode_x") == [
        "don't", "e", "mail", "u.s.a", "3.14", "foo.bar2", "ünïcode_x",
    ]  # fmt: skip
    assert words("日本go 1.x") == ["日", "本", "go", "1", "x"]
    assert words("") == words(" …!? ") == []


@pytest.mark.parametrize(
    ("language", "text", "terms"),
    [
        ("en", "The runner's running, and they will be generalizing dogs", ["runner", "run", "general", "dog"]),
        ("fr", "L'amour des chevaux", ["amour", "cheval"]),
        ("es", "Las canciones y los perros", ["cancion", "perr"]),
        ("pt", "As canções e os gatos", ["cançõ", "gat"]),
        ("it", "L'amico delle città", ["amic", "citt"]),
        ("de", "Die Häuser und der Hund", ["haus", "hund"]),
        ("nl", "De katten en het huis", ["kat", "huis"]),
        ("ja", "東京都 API", ["東京", "京都", "api"]),
        ("ko", "한국", ["한국"]),
        ("zh", "中", ["中"]),
        (None, "The Dogs", ["the", "dogs"]),
    ],
)
def test_each_language_has_its_analyzer(language, text, terms):
    assert analyzer(language)(text) == terms


def test_bigrams_leave_other_words_alone():
    assert bigrams("使用 lambda.invoke 函数") == ["使用", "lambda.invoke", "函数"]


# -- BM25 -------------------------------------------------------------------------------------------------------------


def plain_bm25(documents, query):
    """The formula, written straight down."""
    count, average = len(documents), sum(map(len, documents.values())) / len(documents)
    scores = {}
    for slot, terms in documents.items():
        score = 0.0
        for term in query:
            frequency = sum(term in other for other in documents.values())
            tf = terms.count(term)
            if tf:
                idf = math.log(1 + (count - frequency + 0.5) / (frequency + 0.5))
                score += idf * tf / (tf + 1.2 * (0.25 + 0.75 * len(terms) / average))
        scores[slot] = score
    return scores


TERMS = st.lists(st.sampled_from("abcdef"), max_size=8)


@settings(max_examples=80, deadline=None)
@given(st.lists(TERMS, min_size=1, max_size=12), st.sets(st.integers(0, 11)), TERMS)
def test_bm25_is_the_formula_whatever_was_added_and_removed(texts, gone, query):
    index = TextIndex(str.split)
    for slot, terms in enumerate(texts):
        index.add(slot, " ".join(terms))
    for slot in gone:
        index.remove(slot)
    live = {slot: terms for slot, terms in enumerate(texts) if terms and slot not in gone}
    scores = index.scores(" ".join(query), len(texts))
    assert index.documents == len(live)
    if live:
        expected = plain_bm25(live, query)
        assert {slot: pytest.approx(score, abs=1e-5) for slot, score in expected.items()} == {
            slot: float(scores[slot]) for slot in live
        }
    else:
        assert not scores.any()


# -- filters ----------------------------------------------------------------------------------------------------------


def passes(document, metadata, mode="ENHANCED"):
    """By the plain evaluation and by columns, which must agree."""
    tree = filters.parse(document, ("hidden",), mode)
    columns = Columns(("hidden",))
    columns.add(0, {"other": 1})
    columns.add(1, metadata)
    answer = filters.matches(tree, metadata)
    assert bool(columns.mask(tree, 2)[1]) == answer
    return answer


@pytest.mark.parametrize(
    ("document", "metadata", "expected"),
    [
        ({"a": "x"}, {"a": "x"}, True),
        ({"a": "x"}, {"a": ["y", "x"]}, True),
        ({"a": {"$eq": 1}}, {"a": 1.0}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": True}, {"a": 1}, False),
        ({"a": {"$ne": "x"}}, {"a": "y"}, True),
        ({"a": {"$ne": "x"}}, {"a": ["x", "y"]}, False),
        ({"a": {"$ne": "x"}}, {}, True),
        ({"a": {"$gt": 1, "$lte": 3}}, {"a": 3}, True),
        ({"a": {"$gt": 1, "$lte": 3}}, {"a": 1}, False),
        ({"a": {"$gte": 1}}, {"a": "5"}, False),
        ({"a": {"$lt": 1}}, {}, False),
        ({"a": {"$in": ["x", 2]}}, {"a": 2}, True),
        ({"a": {"$in": ["x", 2]}}, {}, False),
        ({"a": {"$nin": ["x", 2]}}, {"a": 3}, True),
        ({"a": {"$nin": ["x", 2]}}, {"a": "x"}, False),
        ({"a": {"$exists": True}}, {"a": False}, True),
        ({"a": {"$exists": False}}, {"a": 0}, False),
        ({"a": {"$startsWith": "ab"}}, {"a": "abc"}, True),
        ({"a": {"$startsWith": "ab"}}, {"a": 5}, False),
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, False),
        ({"$or": [{"a": 1}, {"$and": [{"b": 2}, {"c": 3}]}]}, {"b": 2, "c": 3}, True),
        ({"$and": [{"$or": [{"a": 1}, {"a": 2}]}, {"b": 2}]}, {"a": 2}, False),
    ],
)
def test_filters(document, metadata, expected):
    assert passes(document, metadata) is expected


@pytest.mark.parametrize(
    "document",
    [
        {}, [], "x", {"a": {}}, {"a": None}, {"a": ["x"]}, {"$and": []}, {"$or": {}}, {"$not": [{"a": 1}]},
        {"a": {"$in": []}}, {"a": {"$in": [None]}}, {"a": {"$gt": "1"}}, {"a": {"$gt": True}}, {"a": {"$exists": 1}},
        {"a": {"$like": "x"}}, {"hidden": 1}, {"a": {"$startsWith": ""}}, {"$and": [{"a": n} for n in range(101)]},
    ],
)  # fmt: skip
def test_bad_filters_are_refused(document):
    with pytest.raises(AwsError) as caught:
        filters.parse(document, ("hidden",), "ENHANCED")
    assert caught.value.code == "ValidationException"


def test_a_filter_nested_without_end_is_refused():
    document = {"a": 1}
    for _ in range(5_000):
        document = {"$and": [document]}
    with pytest.raises(AwsError, match="nested"):
        filters.parse(document, (), "CLASSIC")


def test_starts_with_and_the_limit_belong_to_the_enhanced_mode():
    with pytest.raises(AwsError, match="ENHANCED"):
        filters.parse({"a": {"$startsWith": "x"}}, (), "CLASSIC")
    assert filters.keys(filters.parse({"$and": [{"a": n} for n in range(101)]}, (), "CLASSIC")) == {"a"}


VALUES = st.one_of(st.integers(-2, 2), st.booleans(), st.sampled_from("xy"), st.lists(st.integers(0, 2), max_size=2))
METADATA = st.dictionaries(st.sampled_from("ab"), VALUES, max_size=2)
TEST = st.one_of(
    st.tuples(st.sampled_from(["$eq", "$ne"]), st.one_of(st.integers(-2, 2), st.booleans(), st.sampled_from("xy"))),
    st.tuples(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), st.integers(-2, 2)),
    st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(st.integers(-2, 2), min_size=1, max_size=2)),
    st.tuples(st.just("$exists"), st.booleans()),
).map(lambda pair: {pair[0]: pair[1]})
DOCUMENT = st.recursive(
    st.dictionaries(st.sampled_from("ab"), TEST, min_size=1, max_size=2),
    lambda inner: st.dictionaries(
        st.sampled_from(["$and", "$or"]), st.lists(inner, min_size=1, max_size=2), min_size=1, max_size=2
    ),
    max_leaves=4,
)


@settings(max_examples=100, deadline=None)
@given(DOCUMENT, st.lists(METADATA, min_size=1, max_size=6))
def test_columns_decide_as_the_plain_evaluation(document, rows):
    tree = filters.parse(document, (), "CLASSIC")
    columns = Columns(())
    for slot, metadata in enumerate(rows):
        columns.add(slot, metadata)
    assert columns.mask(tree, len(rows)).tolist() == [filters.matches(tree, metadata) for metadata in rows]


# -- nearest vectors --------------------------------------------------------------------------------------------------


def blob(row):
    return array("f", row).tobytes()


def filled(rows, metric, exact_limit=200_000):
    dense = DenseIndex(rows.shape[1], metric, exact_limit)
    for row in rows:
        dense.add(row.astype("<f4").tobytes())
    return dense


def plain_distances(rows, query, metric):
    rows, query = rows.astype(np.float64), query.astype(np.float64)
    if metric == "euclidean":
        return np.linalg.norm(rows - query, axis=1)
    return 1 - rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("share", [1.0, 0.6, 0.05])
def test_the_scan_is_exact(metric, share):
    rng = np.random.default_rng(3)
    rows = (rng.normal(size=(3_000, 12)) * rng.uniform(0.1, 30, size=(3_000, 1))).astype(np.float32)
    dense = filled(rows, metric)
    alive = rng.uniform(size=len(rows)) < share
    for query in rng.normal(size=(5, 12)).astype(np.float32):
        slots, distances = dense.search(blob(query), alive, 20)
        expected = np.where(alive, plain_distances(rows, query, metric), np.inf)
        np.testing.assert_allclose(distances, np.sort(expected)[:20], atol=1e-6, rtol=1e-6)
        np.testing.assert_allclose(expected[slots], distances, atol=1e-6, rtol=1e-6)


def test_equal_vectors_come_in_the_order_of_writing():
    dense = filled(np.ones((1_000, 3), dtype=np.float32), "cosine")
    slots, _ = dense.search(blob([1, 1, 1]), np.ones(1_000, dtype=bool), 5)
    assert slots.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_the_graph_finds_what_the_scan_finds_and_knows_its_tail(metric):
    rng = np.random.default_rng(5)
    centres = rng.normal(size=(60, 16)) * 3
    rows = (centres[rng.integers(0, 60, 4_000)] + rng.normal(size=(4_000, 16))).astype(np.float32)
    dense = filled(rows, metric, exact_limit=1_000)
    alive = np.ones(len(rows), dtype=bool)
    alive[::7] = False
    dense.extend_graph(alive, 2_500)
    assert dense.pending_graph() == 1_500
    alive[::5] = False
    hits = 0
    for query in rows[rng.integers(0, 4_000, 50)] + 0.1:
        found, distances = dense.search_graph(blob(query), alive, 10)
        expected, _ = dense.search(blob(query), alive, 10)
        assert alive[found].all()
        assert (np.diff(distances) >= 0).all()
        hits += len(set(found.tolist()) & set(expected.tolist()))
    assert hits >= 0.95 * 500


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(1, 35))
def test_best_takes_the_highest_and_of_equals_the_first(scores, count):
    taken = sorted(best(np.array(scores, dtype=np.float32), count).tolist())
    assert taken == sorted(sorted(range(len(scores)), key=lambda at: (-scores[at], at))[:count])


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
def test_a_filter_costs_the_graph_neither_recall_nor_results(metric, share):
    rng = np.random.default_rng(11)
    centres = rng.normal(size=(40, 24)) * 2
    rows = (centres[rng.integers(0, 40, 6_000)] + rng.normal(size=(6_000, 24))).astype(np.float32)
    dense = filled(rows, metric, exact_limit=1_000)
    dense.extend_graph(np.ones(len(rows), dtype=bool), len(rows))
    alive = rng.uniform(size=len(rows)) < share
    far = np.argsort(plain_distances(rows, rows[0], metric))[3_000:]
    elsewhere = np.zeros(len(rows), dtype=bool)
    elsewhere[far] = True
    for mask in (alive, elsewhere):
        hits = 0
        for query in (rows[0], *rows[rng.integers(0, 6_000, 30)]):
            found, _ = dense.search_graph(blob(query), mask, 10)
            expected, _ = dense.search(blob(query), mask, 10)
            assert len(found) == min(10, mask.sum()) and mask[found].all()
            hits += len(set(found.tolist()) & set(expected.tolist()))
        assert hits >= 0.95 * 310


def test_numbers_of_any_size_reach_the_graph():
    rng = np.random.default_rng(12)
    rows = rng.normal(size=(3_000, 8)).astype(np.float32)
    rows[:, 0] *= 1_000
    dense = filled(rows, "cosine", exact_limit=500)
    alive = np.ones(len(rows), dtype=bool)
    dense.extend_graph(alive, len(rows))
    query = rows[17] * 3
    assert dense.search_graph(blob(query), alive, 5)[0][0] == 17


def test_the_embedders_engine_loads_after_a_graph_was_made():
    code = (
        "import numpy; from preheat.services.s3vectors.dense import DenseIndex\n"
        "dense = DenseIndex(4, 'cosine', exact_limit=0)\n"
        "dense.add(numpy.ones(4, dtype='<f4').tobytes())\n"
        "dense.extend_graph(numpy.ones(1, dtype=bool))\n"
        "import onnxruntime\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_a_condition_that_was_asked_before_sees_what_was_added_since():
    columns = Columns(())
    asked = [filters.Test("n", *one) for one in (("$in", (1, "x")), ("$gte", 1), ("$ne", 1), ("$eq", True))]
    given = [{"n": 1}, {"n": True}, {}, {"n": 1.0}, {"n": ["x", 5]}, {"n": "x"}, {"n": 2**60}, {"n": False}, {"n": 1}]
    for slot, metadata in enumerate(given):
        columns.add(slot, metadata)
        for test in asked:
            expected = [filters.matches(test, one) for one in given[: slot + 1]]
            assert columns.mask(test, slot + 1).tolist() == expected


def test_scores_follow_the_writes_between_two_equal_questions():
    kept = TextIndex(str.split)
    for slot, text in enumerate(["a b", "a a c", "b c d e", "a"]):
        kept.add(slot, text)
        kept.scores("a b", slot + 1)
        fresh = TextIndex(str.split)
        for other, said in enumerate(["a b", "a a c", "b c d e", "a"][: slot + 1]):
            fresh.add(other, said)
        assert kept.scores("a b", slot + 1).tolist() == fresh.scores("a b", slot + 1).tolist()
    before = kept.scores("a b", 4)
    kept.remove(1)
    assert kept.scores("a b", 4)[0] != before[0]

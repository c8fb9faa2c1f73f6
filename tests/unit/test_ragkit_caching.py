"""Which questions are the same to the cache of answers."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "stacks" / "rag"))

from ragkit.asked import Asked, Turn, User
from ragkit.caching import CacheSettings, CachingAnswerer, cosine, packed, terms
from ragkit.trace import Trace

from preheat.models.registry import Registry

SAME = (
    ("What does the grey heron eat?", "what do grey herons eat"),
    ("When was the lighthouse built?", "Can you tell me when the lighthouse was built?"),
    ("How do I reset my password?", "how can i reset the password"),
    ("Where are the terns nesting?", "Where do terns nest?"),
    ("Which parameters limit concurrency?", "What parameters are limiting the concurrency"),
    ("Who wrote the report on tides?", "Please tell me who wrote this report on tides"),
    ("Why did the bridge collapse?", "Do you know why the bridge collapsed?"),
    ("What is the visibility timeout of the queue?", "the visibility timeouts of a queue?"),
)
OTHER = (
    ("Which bird eats the eel?", "Which eel eats the bird?"),
    ("Flights from Paris to London", "flights to London from Paris"),
    ("What was the revenue in 2023?", "What was the revenue in 2024?"),
    ("What is the population of France?", "what is the population of spain"),
    ("Is dosing with food safe?", "Is dosing without food safe?"),
    ("Can herons swim?", "Can't herons swim?"),
    ("Who can give access?", "Who can I give access?"),
    ("Is version 1.2 supported?", "Is version 1.3 supported?"),
    ("How is Amazon doing?", "How does Amazon do this?"),
    ("Is it safe to eat here?", "Was it safe to eat?"),
)


@pytest.fixture(scope="module")
def model():
    model = Registry().minilm()
    if not model.available():
        pytest.skip("the weights of MiniLM are not installed")
    return model


def same(model, one, other):
    left, right = (packed([float(value) for value in vector]) for vector in model.embed([one, other], "query"))
    return terms(one) == terms(other) and cosine(left, right) >= CacheSettings().near


@pytest.mark.parametrize(("one", "other"), SAME)
def test_paraphrases_are_one_question(model, one, other):
    assert same(model, one, other)


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_near_misses_are_two(model, one, other):
    assert not same(model, one, other)


def test_vectors_compare_by_direction_and_only_with_their_kind():
    assert cosine(packed([3.0, 4.0]), packed([6.0, 8.0])) == pytest.approx(1.0)
    assert cosine(packed([1.0, 0.0]), packed([0.0, 1.0])) == 0.0
    assert cosine(packed([1.0, 0.0]), packed([1.0, 0.0, 0.0])) == 0.0


class Memory:
    """A cache in memory: what is asked of it, and whether it fails."""

    def __init__(self):
        self.rows, self.epoch, self.error = {}, 0, None

    def read(self, key):
        if self.error:
            raise self.error
        row = self.rows.get(key)
        return self.epoch, row if row and row["epoch"] == self.epoch else None

    def write(self, key, epoch, vector, events):
        import json

        self.rows[key] = {"epoch": epoch, "vector": vector, "events": json.dumps(events)}


class Answers:
    def __init__(self):
        self.count, self.mode, self.note, self.citations = 0, "hybrid", "", [{"n": 1}]

    def answer(self, asked, trace):
        self.count += 1
        yield "retrieval", {"mode": self.mode, "note": self.note, "passages": [{"n": 1}]}
        yield "token", {"text": "Eels."}
        yield "done", {"answer": "Eels.", "citations": self.citations, "mode": self.mode, "usage": {"input": 9},
                       "correlation": trace.correlation, "cancelled": False, "timing": {}}  # fmt: skip


class Vectors:
    model = "m"

    def query(self, text):
        return [1.0, float(len(text) % 2)] if "?" in text else [0.0, 1.0]


@pytest.fixture
def cached():
    made = CachingAnswerer(Answers(), Memory(), Vectors(), "recipe", lambda name: None)
    made.inner, made.memory = made._inner, made._cache
    return made


def done(cached, asked):
    return list(cached.answer(asked, Trace(write=lambda line: None)))[-1][1]


HERON = Asked("What do herons eat?")


def test_the_second_is_answered_from_the_first_and_says_so(cached):
    assert done(cached, HERON)["mode"] == "hybrid"
    again = done(cached, HERON)
    assert again["mode"] == "cached" and again["answer"] == "Eels." and again["usage"] == {"input": 0, "output": 0}
    assert cached.inner.count == 1


@pytest.mark.parametrize(
    "other",
    [
        Asked("What do herons eat?", User("x", ("public", "payroll"))),
        Asked("What do herons eat?", where={"team": "north"}),
        Asked("What do herons eat?", earlier=(Turn("What about terns?"),)),
        Asked("What do terns eat?"),
        Asked("What do herons eat"),
    ],
    ids=["labels", "filter", "conversation", "words", "meaning"],
)
def test_what_is_not_the_same_is_answered_anew(cached, other):
    done(cached, HERON)
    assert done(cached, other)["mode"] == "hybrid" and cached.inner.count == 2


@pytest.mark.parametrize("flaw", [{"note": "by words alone"}, {"mode": "passages"}, {"citations": []}])
def test_what_is_degraded_is_not_kept(cached, flaw):
    vars(cached.inner).update(flaw)
    done(cached, HERON)
    done(cached, HERON)
    assert cached.inner.count == 2 and not cached.memory.rows


def test_an_epoch_ends_what_was_kept_even_what_was_on_its_way(cached):
    done(cached, HERON)
    cached.memory.epoch = 1
    assert done(cached, HERON)["mode"] == "hybrid"
    events = cached.answer(Asked("What do terns eat?"), Trace(write=lambda line: None))
    next(events)
    cached.memory.epoch = 2
    list(events)
    assert done(cached, Asked("What do terns eat?"))["mode"] == "hybrid"


def test_a_cache_that_cannot_be_reached_is_done_without(cached):
    cached.memory.error = TimeoutError()
    assert done(cached, HERON)["mode"] == "hybrid" and not cached.memory.rows
    cached.memory.error = ValueError()
    with pytest.raises(ValueError):
        done(cached, HERON)

"""The offline reranker: what it prefers, what it keeps, how it compares with the definition."""

import numpy
import pytest

from preheat.models.late_interaction import LateInteraction, TokenCache, measured
from preheat.models.minilm import MiniLM, weights_folder
from preheat.models.registry import ModelConfigurationError, Registry
from preheat.models.token_store import TokenStore

ID = "preheat.late-interaction-v1"
needs_weights = pytest.mark.skipif(weights_folder() is None, reason="the weights package is not installed")
PASSAGES = [
    "The tower was finished in 1889 and is 330 metres high.",
    "A dead letter queue takes messages that could not be processed.",
    "Set the visibility timeout of the queue to six times the function's timeout.",
]


@pytest.fixture(scope="module")
def model():
    return MiniLM(threads=1)


@pytest.fixture
def reranker(model):
    return LateInteraction(ID, model)


@needs_weights
@pytest.mark.parametrize(
    ("question", "best"),
    [
        ("How high is the tower?", 0),
        ("Where do messages go that fail again and again?", 1),
        ("How long should a message stay hidden?", 2),
    ],
)
def test_the_passage_that_answers_is_first(reranker, question, best):
    scores = reranker.score(question, PASSAGES)
    assert scores.index(max(scores)) == best
    assert all(0 <= score <= 1 for score in scores)


@needs_weights
def test_scores_compare_between_questions(reranker):
    told = max(reranker.score("How high is the tower?", PASSAGES))
    foreign = max(reranker.score("Which wine goes with grilled salmon?", PASSAGES))
    assert told > foreign + 0.1
    assert reranker.score(PASSAGES[0], PASSAGES[:1])[0] > 0.99


def defined(model, question, passage):
    """The score by its definition, window by window, of vectors in full precision."""
    words = {id: token for token, id in model.vocabulary().items()}

    def counted(text):
        ids, vectors = model.token_ids([text])[0], model.token_vectors([text])[0]
        kept = [at for at, id in enumerate(ids) if words[id] not in ("[CLS]", "[SEP]", ",", "?", ".", "'")]
        return numpy.array(ids)[kept], vectors[kept]

    ids, asked = counted(question)
    weights = 0.2 + numpy.log(ids / 996)
    weights = weights / weights.sum()
    _, told = counted(passage)
    windows = [told[at : at + 32] for at in range(0, max(1, len(told) - 16), 16)]
    whole = (asked @ told.T).max(axis=1) @ weights
    best = max((asked @ one.T).max(axis=1) @ weights for one in windows)
    sense = weights @ asked / numpy.linalg.norm(weights @ asked)
    alike = max(one.sum(axis=0) @ sense / numpy.linalg.norm(one.sum(axis=0)) for one in windows)
    return 0.4 * whole + 0.4 * best + 0.2 * alike


LONG = [" ".join(f"{PASSAGES[at % 3]} The {at} other queues wait." for at in range(count)) for count in (2, 3, 5, 9)]


@needs_weights
def test_a_score_is_of_the_passage_and_of_its_best_windows(reranker, model):
    question = "Which queue, exactly?"
    texts = [*PASSAGES, *LONG, "queue"]
    expected = [defined(model, question, text) for text in texts]
    assert reranker.score(question, texts) == pytest.approx(expected, abs=5e-3)
    assert [reranker.score(question, [text])[0] for text in texts] == pytest.approx(expected, abs=5e-3)


@needs_weights
def test_words_that_stand_together_count_more_than_the_same_words_far_apart(reranker):
    filler = "Rain fell on the harbour all day and the boats stayed in. " * 4
    together = f"{filler}The tower is high: 330 metres. {filler}"
    apart = f"The tower. {filler}{filler}It is high: 330 metres."
    near, far = reranker.score("How high is the tower in metres?", [together, apart])
    assert near > far


@needs_weights
def test_tokens_from_disk_score_as_those_in_memory(model, tmp_path):
    def reranker():
        return LateInteraction(ID, model, 0, TokenStore(tmp_path, 2**22))

    first = reranker().score("Which queue?", LONG)
    assert reranker().score("Which queue?", LONG) == first


@needs_weights
def test_known_passages_cost_no_run_and_score_the_same(model):
    runs = []

    class Counting(MiniLM):
        def token_vectors(self, texts):
            runs.append(list(texts))
            return model.token_vectors(texts)

    reranker = LateInteraction(ID, Counting(threads=1))
    cold = reranker.score("queue", [*PASSAGES, PASSAGES[0]])
    assert cold[3] == cold[0]
    assert runs == [["queue"], PASSAGES]
    assert reranker.score("queue", PASSAGES) == cold[:3]
    assert runs[2:] == [["queue"]]


@needs_weights
@pytest.mark.parametrize("text", ["", "?!", " \n", "\ud800", "🙂"])
def test_texts_without_a_word_have_a_score(reranker, text):
    assert len(reranker.score(text, ["", "?", text, "queue"])) == 4


@needs_weights
def test_no_texts(reranker):
    assert reranker.score("queue", []) == []


def test_the_cache_is_bounded_by_bytes_and_drops_what_was_used_least_lately():
    def tokens():
        return measured(numpy.zeros((10, 384), numpy.int8), numpy.zeros(10, numpy.float32))

    size = tokens().bytes
    assert size == 10 * (384 + 4) + 4
    cache = TokenCache(2 * size)
    cache.put(b"a", tokens())
    cache.put(b"b", tokens())
    assert cache.get(b"a") is not None
    cache.put(b"c", tokens())
    assert (cache.get(b"b"), cache.bytes) == (None, 2 * size)
    cache.put(b"c", tokens())
    assert cache.bytes == 2 * size
    none = TokenCache(0)
    none.put(b"a", tokens())
    assert (none.get(b"a"), none.bytes) == (None, 0)


def test_it_is_registered_and_configured():
    model = Registry().find(ID)
    assert (model.backend, model.embedder, model.generator) == ("late-interaction", None, None)
    mapped = Registry({"cohere.rerank-v3-5:0": {"backend": "late-interaction", "options": {"cache_mb": 1}}})
    assert mapped.find("cohere.rerank-v3-5:0").reranker.id == "cohere.rerank-v3-5:0"
    for wrong in ({"cache_mb": -1}, {"cache_mb": "1"}, {"size": 1}):
        with pytest.raises(ModelConfigurationError):
            Registry({ID: {"options": wrong}})

"""Token vectors kept on disk: found again after a restart, bounded, and made by embedding what is reranked later."""

import hashlib

import numpy
import pytest

from preheat.models.minilm import weights_folder
from preheat.models.registry import Registry
from preheat.models.token_store import WIDTH, TokenStore

TEXTS = ["Terns eat sand eels near the harbour.", "Gulls steal chips from tourists.", "Swifts sleep while they fly."]


def record(number, count=5):
    rows = numpy.full((count, WIDTH), number, dtype=numpy.int8)
    return hashlib.sha256(bytes([number])).digest(), rows, numpy.full(count, number / 7, dtype=numpy.float32)


def test_what_is_kept_is_there_after_a_restart(tmp_path):
    store = TokenStore(tmp_path, 1 << 20)
    records = [record(number, count) for number, count in ((1, 5), (2, 1), (3, 40))]
    for one in records:
        store.put(*one)
    store.close()
    again = TokenStore(tmp_path, 1 << 20)
    for digest, rows, scales in records:
        found = again.get(digest)
        assert (found[0] == rows).all() and (found[1] == scales).all()
    assert again.get(hashlib.sha256(b"absent").digest()) is None
    again.put(*record(4))
    again.close()
    third = TokenStore(tmp_path, 1 << 20)
    assert third.get(record(4)[0]) is not None and third.get(record(1)[0]) is not None
    third.close()


def test_it_stays_within_its_bytes_and_the_oldest_go(tmp_path):
    store = TokenStore(tmp_path, 40_000, segment_bytes=8_000)
    for number in range(60):
        store.put(*record(number))
    used = sum(path.stat().st_size for path in tmp_path.glob("*.rows"))
    assert used <= 40_000 + 8_000
    assert store.get(record(0)[0]) is None and store.get(record(59)[0]) is not None
    store.close()


def test_a_torn_record_is_not_there(tmp_path):
    store = TokenStore(tmp_path, 1 << 20)
    store.put(*record(1))
    store.put(*record(2))
    store.close()
    rows = tmp_path / "0.rows"
    rows.write_bytes(rows.read_bytes()[:-10])
    again = TokenStore(tmp_path, 1 << 20)
    assert again.get(record(1)[0]) is not None and again.get(record(2)[0]) is None
    again.close()


@pytest.mark.skipif(weights_folder() is None, reason="the embedding weights are not installed")
def test_what_was_embedded_is_reranked_without_the_model(tmp_path):
    registry = Registry(folder=tmp_path)
    plain = Registry().find("preheat.late-interaction-v1").reranker.score("What do terns eat?", TEXTS)
    registry.find("preheat.minilm-l6-v2").embedder.embed(TEXTS)
    later = Registry(folder=tmp_path).find("preheat.late-interaction-v1").reranker
    runs = []
    embed = later._model.token_vectors
    later._model.token_vectors = lambda texts: runs.append(list(texts)) or embed(texts)
    scores = later.score("What do terns eat?", TEXTS)
    assert runs == [["What do terns eat?"]]
    assert scores == pytest.approx(plain, abs=0.02) and scores.index(max(scores)) == 0

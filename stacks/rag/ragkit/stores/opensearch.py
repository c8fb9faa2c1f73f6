"""An OpenSearch domain with k-NN as the vector store, over its REST API: HNSW with filters inside the search, BM25 with
an English analyzer.

Metadata are indexed as facts: `["color"]` says that there is a color, `["color", "red"]` that red is one of its values;
numbers stand in `numbers` as well, for ranges. So no document's attributes can disagree with another one's types. What
decides what is written is read by id, which sees the last write at once; searches see it after the index's refresh,
which a write waits for.
"""

import base64
import hashlib
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

from ragkit.chunking import Chunk, chunk_id
from ragkit.embed import NO_MODEL
from ragkit.store import FILTERABLE_TEXT, LONGEST_QUERY_TEXT, Embed, Filter, Passage, Stored, filterable
from ragkit.stores import StoreUnavailable

BATCH = 100
TIMEOUT_S = 4.0
ATTEMPTS = 3
PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
BUSY = frozenset((429, 502, 503, 504))
LONGEST_ID = 512
"""Bytes of an id that OpenSearch takes."""
ORDERED = {"$gt": "gt", "$gte": "gte", "$lt": "lt", "$lte": "lte"}
FIELDS = ("text", "context")
KNOWN = ("id", "digest", "model")
SHOWN = ("id", "document", "number", "title", "page", "labels", "context", "text")

Headers = dict[str, str]
Sign = Callable[[str, str, bytes, Headers], Headers]


class OpenSearchError(Exception):
    """What OpenSearch answered: `status`, its `type` and reason."""

    def __init__(self, status: int, type: str, reason: str) -> None:
        super().__init__(f"OpenSearch answered {status} {type}: {reason}")
        self.status, self.type = status, type


def basic(username: str, password: str) -> Sign:
    """Who calls, by name and password."""
    token = base64.b64encode(f"{username}:{password}".encode()).decode()
    return lambda method, url, body, headers: {**headers, "authorization": f"Basic {token}"}


def signed(credentials: Any, region: str) -> Sign:
    """Who calls, by AWS's signature, version 4. `credentials` are botocore's."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest

    def sign(method: str, url: str, body: bytes, headers: Headers) -> Headers:
        request = AWSRequest(method=method, url=url, data=body, headers=headers)
        SigV4Auth(credentials.get_frozen_credentials(), "es", region).add_auth(request)
        return dict(request.headers.items())

    return sign


class Rest:
    """Calls of one domain: connections are kept; what fails for now is tried again after a pause with full jitter.
    `sign` adds the headers that say who calls. Thread-safe."""

    def __init__(
        self,
        endpoint: str,
        sign: Sign,
        pause: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        import urllib3

        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("an OpenSearch store's endpoint is https://HOST")
        if parts.hostname.endswith(".aoss.amazonaws.com"):
            raise ValueError("OpenSearch Serverless gives vectors ids of its own: use a domain, or another store")
        self._endpoint = endpoint.rstrip("/")
        self._sign, self._pause, self._chance = sign, pause, chance
        self._pool = urllib3.PoolManager(
            maxsize=16, timeout=urllib3.Timeout(connect=1.0, read=TIMEOUT_S), retries=False
        )

    def __call__(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        """The answer's JSON. `body` is JSON, or the lines of NDJSON. Raises OpenSearchError, StoreUnavailable."""
        lines = isinstance(body, list)
        data = "".join(f"{_json(one)}\n" for one in body) if lines else "" if body is None else _json(body)
        kind = "application/x-ndjson" if lines else "application/json"
        url = f"{self._endpoint}{path}{'?' + urlencode(query) if query else ''}"
        for attempt in range(1, ATTEMPTS + 1):
            status, answer = self._once(method, url, data.encode(), {"content-type": kind})
            if status not in BUSY and status:
                return _checked(status, answer)
            if attempt < ATTEMPTS:
                self.wait(attempt)
        raise StoreUnavailable(f"OpenSearch cannot be used: {status or ''} {answer[:300]!r}")

    def wait(self, attempt: int) -> None:
        self._pause(self._chance() * min(LONGEST_PAUSE_S, PAUSE_S * 2**attempt))

    def _once(self, method: str, url: str, data: bytes, headers: Headers) -> tuple[int, bytes]:
        """(0, why) when there is no answer."""
        import urllib3

        try:
            answer = self._pool.request(
                method, url, body=data, headers=self._sign(method, url, data, headers), redirect=False
            )
        except urllib3.exceptions.HTTPError as error:
            return 0, f"{type(error).__name__}: {error}".encode()
        return answer.status, answer.data


def _checked(status: int, answer: bytes) -> Any:
    try:
        told = json.loads(answer) if answer else {}
    except ValueError:
        told = {"error": {"type": "no JSON", "reason": answer[:300].decode(errors="replace")}}
    if status < 300:
        return told
    error = told.get("error", told)
    error = error if isinstance(error, dict) else {"reason": str(error)}
    cause = (error.get("root_cause") or [{}])[0].get("reason", "")
    reason = str(error.get("reason", ""))
    raise OpenSearchError(status, str(error.get("type", "")), f"{reason} ({cause})" if cause != reason else reason)


class OpenSearchStore:
    """`rest` calls the domain; `index` is the index's name, `dimension` the vectors' length. `refresh` is what writes
    wait for: `wait_for` the next refresh, up to a second away, or `true` for one at once."""

    def __init__(self, rest: Rest, index: str, dimension: int, refresh: str = "wait_for") -> None:
        self._rest = rest
        self._path = f"/{index}"
        self._index = index
        self._dimension = dimension
        self._refresh = refresh

    # -- the index ----------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        try:
            self._rest("PUT", self._path, index_body(self._dimension))
        except OpenSearchError as error:
            if error.type != "resource_already_exists_exception":
                raise

    def drop(self) -> None:
        try:
            self._rest("DELETE", self._path)
        except OpenSearchError as error:
            if error.status != 404:
                raise

    # -- writing ------------------------------------------------------------------------------------------------------

    def replace(self, document: str, chunks: Sequence[Chunk], embed: Embed | None, model: str) -> Stored:
        model = model if embed is not None else NO_MODEL
        known = {found["id"]: (found["digest"], found["model"]) for found in self._sources([one.id for one in chunks])}
        fresh = [one for one in chunks if known.get(one.id) != (one.digest, model)]
        gone = self._following(document, len(chunks))
        for at in range(0, len(fresh), BATCH):
            some = fresh[at : at + BATCH]
            vectors = embed([one.embedded for one in some]) if embed is not None else [None] * len(some)
            rows = [self._row(one, vector, model) for one, vector in zip(some, vectors)]
            self._bulk([("index", row["id"], row) for row in rows], last=at + BATCH >= len(fresh) and not gone)
        self._delete(gone)
        return Stored(len(fresh), len(chunks) - len(fresh), len(gone))

    def delete(self, document: str) -> int:
        gone = self._following(document, 0)
        self._delete(gone)
        return len(gone)

    def _row(self, chunk: Chunk, vector: Sequence[float] | None, model: str) -> dict[str, Any]:
        if vector is not None and len(vector) != self._dimension:
            raise ValueError(f"the model makes vectors of {len(vector)} numbers, the index holds {self._dimension}")
        title = chunk.title[:FILTERABLE_TEXT]
        metadata = filterable(chunk, model)
        return {
            "id": chunk.id, "document": chunk.document, "number": chunk.number, "title": title, "page": chunk.page,
            "digest": chunk.digest, "model": model, "labels": list(chunk.labels), "context": chunk.context,
            "text": chunk.text, "facts": sorted(set(facts(metadata))), "numbers": numbers(metadata),
            **({"embedding": list(map(float, vector))} if vector is not None and any(vector) else {}),
        }  # fmt: skip

    def _following(self, document: str, number: int) -> list[str]:
        """The ids of the document's chunks from `number` on; their numbers have no gap."""
        keys: list[str] = []
        while True:
            asked = [chunk_id(document, number + len(keys) + at) for at in range(BATCH)]
            found = {one["id"] for one in self._sources(asked)}
            keys += [key for key in asked if key in found]
            if len(found) < BATCH:
                return keys

    def _delete(self, keys: list[str]) -> None:
        """The last first, so that none is left behind a gap when this breaks off."""
        for at in reversed(range(0, len(keys), BATCH)):
            self._bulk([("delete", key, None) for key in reversed(keys[at : at + BATCH])], last=at == 0)

    def _bulk(self, actions: list[tuple[str, str, dict[str, Any] | None]], last: bool) -> None:
        """Items that the domain is too busy for are sent again."""
        for attempt in range(1, ATTEMPTS + 1):
            lines: list[Any] = []
            for action, key, row in actions:
                lines += [{action: {"_id": row_id(key)}}, *([row] if row is not None else [])]
            refresh = {"refresh": self._refresh} if last else {}
            items = self._rest("POST", f"{self._path}/_bulk", lines, **refresh)["items"]
            told = [next(iter(item.values())) for item in items]
            for one in told:
                if "error" in one and one["status"] not in BUSY:
                    raise OpenSearchError(one["status"], one["error"].get("type", ""), one["error"].get("reason", ""))
            actions = [action for action, one in zip(actions, told) if one["status"] in BUSY]
            if not actions:
                return
            if attempt < ATTEMPTS:
                self._rest.wait(attempt)
        raise StoreUnavailable(f"OpenSearch is too busy: {len(actions)} of the chunks were refused")

    # -- reading ------------------------------------------------------------------------------------------------------

    def dense(self, vector: Sequence[float], count: int, model: str, where: Filter | None) -> list[tuple[str, float]]:
        if not any(vector):
            return []
        made = {"term": {"facts": _fact("model", model)}}
        condition = {"bool": {"filter": [made, *([condition_of(where)] if where else [])]}}
        near = {"vector": list(map(float, vector)), "k": count, "filter": condition}
        return [(key, 2 - 2 * score) for key, score in self._search({"knn": {"embedding": near}}, count)]

    def lexical(self, text: str, count: int, where: Filter | None) -> list[tuple[str, float]]:
        text = text.strip()[:LONGEST_QUERY_TEXT]
        if not text:
            return []
        words = {"multi_match": {"query": text, "fields": list(FIELDS), "type": "most_fields"}}
        return self._search({"bool": {"must": [words], "filter": [condition_of(where)] if where else []}}, count)

    def passages(self, ids: Sequence[str]) -> list[Passage]:
        found = {one["id"]: one for one in self._sources(ids, SHOWN)}
        return [
            Passage(
                one["id"], one["document"], int(one["number"]), one["title"], one["context"], one["text"],
                int(one["page"]), labels=tuple(one["labels"]),
            )
            for one in (found[key] for key in ids if key in found)
        ]  # fmt: skip

    def _search(self, query: dict[str, Any], count: int) -> list[tuple[str, float]]:
        body = {"query": query, "size": count, "_source": ["id"]}
        hits = self._rest("POST", f"{self._path}/_search", body)["hits"]["hits"]
        return [(hit["_source"]["id"], hit["_score"]) for hit in hits]

    def _sources(self, ids: Sequence[str], fields: Sequence[str] = KNOWN) -> Iterator[dict[str, Any]]:
        for at in range(0, len(ids), BATCH):
            body = {"ids": [row_id(key) for key in ids[at : at + BATCH]]}
            found = self._rest("POST", f"{self._path}/_mget", body, _source_includes=",".join(fields))["docs"]
            for one in found:
                if "error" in one:
                    raise OpenSearchError(404, one["error"].get("type", ""), one["error"].get("reason", ""))
                if one["found"]:
                    yield one["_source"]


def index_body(dimension: int) -> dict[str, Any]:
    """Settings and mapping of an index."""
    searched = {"type": "text", "analyzer": "english"}
    near = {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"}
    shown: Mapping[str, Any] = {"type": "keyword", "index": False, "doc_values": False}
    return {
        "settings": {"index": {"knn": True}},
        "mappings": {
            "dynamic": False,
            "properties": {
                **dict.fromkeys(("id", "document", "title", "digest", "model", "labels"), shown),
                "number": {"type": "integer"}, "page": {"type": "integer"}, "facts": {"type": "keyword"},
                "numbers": {"type": "object", "dynamic": True}, "text": searched, "context": searched,
                "embedding": {"type": "knn_vector", "dimension": dimension, "method": near},
            },
            "dynamic_templates": [{"numbers": {"path_match": "numbers.*", "mapping": {"type": "double"}}}],
        },
    }  # fmt: skip


def row_id(key: str) -> str:
    """A chunk's id as OpenSearch takes it: a long one ends in a hash."""
    given = key.encode()
    if len(given) <= LONGEST_ID:
        return key
    return f"{given[:400].decode(errors='ignore')}~{hashlib.sha256(given).hexdigest()}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


# -- metadata and filters ---------------------------------------------------------------------------------------------


def facts(metadata: Mapping[str, Any]) -> Iterator[str]:
    """What an index of exact words holds of metadata."""
    for key, value in metadata.items():
        yield _json([key])
        for one in value if isinstance(value, list | tuple) else [value]:
            yield _fact(key, one)


def numbers(metadata: Mapping[str, Any]) -> dict[str, list[float]]:
    """The numbers of metadata, by the name of their field."""
    found: dict[str, list[float]] = {}
    for key, value in metadata.items():
        given = value if isinstance(value, list | tuple) else [value]
        held = [float(one) for one in given if isinstance(one, int | float) and not isinstance(one, bool)]
        if held:
            found[_field(key)] = held
    return found


def _fact(key: str, value: Any) -> str:
    """A whole number is the same, written 5 or 5.0."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return _json([key, value])


def _field(key: str) -> str:
    """A key as the name of a field: letters, digits and `_` stay, all else is written by its code points."""
    return "".join(one if one.isascii() and (one.isalnum() or one == "_") else f"-{ord(one):x}-" for one in key) or "-"


def condition_of(where: Filter) -> dict[str, Any]:
    """S3 Vectors' metadata filter -> a query. Raises ValueError."""
    parts: list[dict[str, Any]] = []
    for key, want in where.items():
        if key == "$and":
            parts.append({"bool": {"filter": [condition_of(one) for one in want]}})
        elif key == "$or":
            parts.append({"bool": {"should": [condition_of(one) for one in want], "minimum_should_match": 1}})
        else:
            tests = want if isinstance(want, dict) else {"$eq": want}
            parts += [_test(key, operator, operand) for operator, operand in tests.items()]
    return parts[0] if len(parts) == 1 else {"bool": {"filter": parts}}


def _test(key: str, operator: str, operand: Any) -> dict[str, Any]:
    if operator in ORDERED:
        return {"range": {f"numbers.{_field(key)}": {ORDERED[operator]: float(operand)}}}
    if operator == "$exists":
        held: dict[str, Any] = {"term": {"facts": _json([key])}}
        return held if operand else {"bool": {"must_not": [held]}}
    if operator in ("$eq", "$ne", "$in", "$nin"):
        wanted = list(operand) if operator in ("$in", "$nin") else [operand]
        held = {"terms": {"facts": [_fact(key, one) for one in wanted]}}
        return held if operator in ("$eq", "$in") else {"bool": {"must_not": [held]}}
    raise ValueError(f"unknown operator {operator} in a metadata filter")

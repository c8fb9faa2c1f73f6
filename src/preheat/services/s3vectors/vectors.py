"""Operations on vectors: put, get, list, delete, query."""

import hashlib
import json
from typing import Any

import msgspec

from preheat.services.contract import Context, Outcome, Params
from preheat.services.s3vectors import domain, filters, repository
from preheat.services.s3vectors.desk import Desk, Found
from preheat.services.s3vectors.domain import IndexSpec
from preheat.services.s3vectors.lookup import bad_token, index_of, page_start, page_token
from preheat.services.s3vectors.search import Change, Hit, Query

LIST_DEFAULT, LIST_LIMIT, LIST_STEP = 500, 1_000, 100
SEGMENTS = 16
TOKEN_VALID_S = 300.0
QUERY_TEXTS = 10


class VectorOperations:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def put_vectors(self, ctx: Context, params: Params) -> Outcome:
        if ctx.request is not None:
            domain.check_payload(len(ctx.request.body))
        given = params.get("vectors")
        domain.check_length(given, "/vectors", 1, domain.PUT_LIMIT)
        spec = index_of(ctx, params)
        rows = [domain.vector_row(one, at, spec) for at, one in enumerate(given)]
        if len({row.key for row in rows}) != len(rows):
            text = "Vector keys must be unique within a request"
            raise domain.invalid(text, ("/vectors", text))
        repository.put_vectors(ctx.db, spec.id, rows)
        changes = [Change(row.key, row) for row in rows]
        ctx.db.after_commit(lambda: self._desk.follow(spec.id, changes))
        return {}

    def delete_vectors(self, ctx: Context, params: Params) -> Outcome:
        keys = _keys(params, domain.DELETE_LIMIT)
        spec = index_of(ctx, params)
        repository.delete_vectors(ctx.db, spec.id, keys)
        changes = [Change(key, None) for key in keys]
        ctx.db.after_commit(lambda: self._desk.follow(spec.id, changes))
        return {}

    def get_vectors(self, ctx: Context, params: Params) -> Outcome:
        keys = _keys(params, domain.GET_LIMIT)
        spec = index_of(ctx, params)
        found = repository.vectors(ctx.db, spec.id, keys, bool(params.get("returnData")))
        return {"vectors": [_shown(ctx, found[key], params) for key in dict.fromkeys(keys) if key in found]}

    def list_vectors(self, ctx: Context, params: Params) -> Outcome:
        limit = params.get("maxResults", LIST_DEFAULT)
        domain.check_range(limit, "/maxResults", 1, LIST_LIMIT)
        segments, segment = _segment(params)
        spec = index_of(ctx, params)
        if params.get("returnData") or params.get("returnMetadata"):
            _also_get_vectors(ctx, params)
        what = f"vectors:{spec.id}:{segments}:{segment}"
        after = page_start(params, what, 0)
        shown, size, more = [], 0, True
        while more and len(shown) < limit and size < domain.LIST_BYTES:
            step = min(LIST_STEP, limit - len(shown)) + 1
            rows = repository.rows_after(ctx.db, spec.id, after, step, segments, segment)
            more = len(rows) == step
            for number, row in rows[: step - 1]:
                shown.append(_shown(ctx, row, params))
                size += len(row.key) + len(row.data) + len(row.metadata)
                after = number
                if size >= domain.LIST_BYTES:
                    more = more or number != rows[-1][0]
                    break
        return {"vectors": shown} | ({"nextToken": page_token(what, after)} if more else {})

    def query_vectors(self, ctx: Context, params: Params) -> Outcome:
        """QueryVectors: by vector, by text, or both (reciprocal rank fusion)."""
        top_k = params.get("topK")
        domain.check_range(top_k, "/topK", 1, domain.MAX_TOP_K)
        if params.get("queryVector") is None and params.get("queryTexts") is None:
            raise domain.invalid("Must specify queryVector, queryTexts, or both")
        texts = _texts(params)
        spec = index_of(ctx, params)
        mode = _mode(params, spec)
        if texts:
            _check_texts(texts, spec, mode)
        given = params.get("filter")
        if given is not None or texts or params.get("returnMetadata"):
            _also_get_vectors(ctx, params)
        query = Query(
            top_k,
            None if params.get("queryVector") is None else domain.query_vector(params["queryVector"], spec),
            texts,
            None if given is None else filters.parse(given, spec.non_filterable, mode),
        )
        what = _fingerprint(spec, query, given, mode)
        start = _query_start(ctx, params, what)

        def then(ctx: Context, found: Found) -> Outcome:
            return _answer(ctx, params, spec, found.hits, start, what, self._desk.still(spec.id, found))

        return self._desk.search(spec.id, query, then)


def _answer(
    ctx: Context, params: Params, spec: IndexSpec, hits: list[Hit], start: int, what: str, still: bool
) -> Params:
    """One page of hits; a vector deleted since it was found is left out. `still`: none was."""
    page = hits[start : start + domain.QUERY_PAGE]
    whole, distances = bool(params.get("returnMetadata")), bool(params.get("returnDistance"))
    scores = bool(params.get("returnScores") and params.get("queryTexts"))
    told = None
    if whole or not still:
        told = repository.metadata(ctx.db, spec.id, [hit.key for hit in page], whole)
    shown, size, end = [], 0, start
    for hit in page:
        end += 1
        metadata = "" if told is None else told.get(hit.key)
        if metadata is None:
            continue
        one: Params = {"key": hit.key}
        if distances and hit.distance is not None:
            one["distance"] = hit.distance
        if scores:
            one["scores"] = _scores(hit)
        if whole:
            one["metadata"] = _document(ctx, metadata)
            size += len(metadata)
        shown.append(one)
        if size >= domain.LIST_BYTES:
            break
    output: Params = {"vectors": shown, "distanceMetric": spec.metric}
    if end < len(hits):
        output["nextToken"] = page_token(what, [end, ctx.now + TOKEN_VALID_S])
    return output


def _document(ctx: Context, metadata: str) -> Any:
    """Stored JSON for an output: as it stands where it goes out as JSON."""
    return json.loads(metadata) if ctx.request is None else msgspec.Raw(metadata.encode())


def _scores(hit: Hit) -> Params:
    scores: Params = {"bm25Scores": [{"metadataKey": key, "score": score} for key, score in hit.bm25]}
    if hit.fused is not None:
        scores["fused"] = hit.fused
    if hit.distance is not None:
        scores["vectorDistance"] = hit.distance
    return scores


def _texts(params: Params) -> tuple[tuple[str, str], ...]:
    given = params.get("queryTexts")
    if given is None:
        return ()
    domain.check_length(given, "/queryTexts", 1, QUERY_TEXTS)
    for at, one in enumerate(given):
        domain.check_length(one.get("text"), f"/queryTexts/{at}/text", 1, 1024)
        domain.check_length(one.get("metadataKey"), f"/queryTexts/{at}/metadataKey", 1, domain.METADATA_KEY_LENGTH)
    texts = tuple((one["metadataKey"], one["text"]) for one in given)
    if len({key for key, _ in texts}) != len(texts):
        text = "Each queryTexts entry must target a distinct metadata key"
        raise domain.invalid(text, ("/queryTexts", text))
    return texts


def _mode(params: Params, spec: IndexSpec) -> str:
    mode = params.get("queryMode")
    if mode is None:
        return spec.mode
    domain.check_choice(mode, "/queryMode", domain.MODES)
    if mode == "CLASSIC" and spec.mode == "ENHANCED":
        text = "queryMode CLASSIC cannot be specified for an index in ENHANCED mode"
        raise domain.invalid(text, ("/queryMode", text))
    return mode


def _check_texts(texts: tuple[tuple[str, str], ...], spec: IndexSpec, mode: str) -> None:
    if spec.mode != "ENHANCED":
        text = "Full-text and hybrid searches require a vector index in ENHANCED mode"
        raise domain.invalid(text, ("/queryTexts", text))
    searchable = {field.key for field in spec.text_fields}
    for key, _ in texts:
        if key not in searchable:
            text = f"Metadata key '{key}' is not configured for full-text search"
            raise domain.invalid(text, ("/queryTexts", text))


def _keys(params: Params, limit: int) -> list[str]:
    keys = params.get("keys")
    domain.check_length(keys, "/keys", 1, limit)
    for at, key in enumerate(keys):
        domain.check_length(key, f"/keys/{at}", 1, domain.KEY_LIMIT)
    return keys


def _segment(params: Params) -> tuple[int, int]:
    count, number = params.get("segmentCount"), params.get("segmentIndex")
    if (count is None) != (number is None):
        text = "segmentCount and segmentIndex must be specified together"
        raise domain.invalid(text, ("/segmentCount", text))
    if count is None:
        return 1, 0
    domain.check_range(count, "/segmentCount", 1, SEGMENTS)
    domain.check_range(number, "/segmentIndex", 0, SEGMENTS - 1)
    if number >= count:
        text = "segmentIndex must be less than segmentCount"
        raise domain.invalid(text, ("/segmentIndex", text))
    return count, number


def _shown(ctx: Context, row: domain.VectorRow, params: Params) -> Params:
    one: Params = {"key": row.key}
    if params.get("returnData"):
        one["data"] = {"float32": domain.unpack(row.data)}
    if params.get("returnMetadata"):
        one["metadata"] = _document(ctx, row.metadata)
    return one


def _query_start(ctx: Context, params: Params, what: str) -> int:
    place = page_start(params, what, [])
    if not place:
        return 0
    try:
        start, valid_until = place
        expired = ctx.now > valid_until
    except (TypeError, ValueError):
        raise bad_token() from None
    if expired:
        text = "The pagination token has expired"
        raise domain.invalid(text, ("/nextToken", text))
    return start


def _fingerprint(spec: IndexSpec, query: Query, given: object, mode: str) -> str:
    vector = hashlib.sha256(query.vector or b"").hexdigest()
    return f"query:{spec.id}:{query.count}:{mode}:{vector}:{json.dumps([query.texts, given], sort_keys=True)}"


def _also_get_vectors(ctx: Context, params: Params) -> None:
    """Reading metadata or data takes permission for GetVectors besides the operation's own."""
    if ctx.machine.authorizer is not None and ctx.request is not None:
        ctx.machine.authorizer(ctx, "s3vectors", "GetVectors", params)

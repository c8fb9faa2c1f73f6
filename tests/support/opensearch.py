"""A double of OpenSearch: the REST calls that `ragkit.stores.opensearch` makes, and no others.

It is not OpenSearch. Its k-NN compares every vector, its English analyzer only cuts plurals, its BM25 is computed here.
What it keeps to: documents are searched after a refresh and read by id at once; a mapping's types are enforced; queries
it does not know are refused; scores of k-NN are (1 + cosine) / 2; `must`, `filter`, `should`, `must_not` as documented.
"""

import base64
import json
import math
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

WORD = re.compile(r"\w+")
STOP = frozenset(["a", "an", "and", "are", "as", "at", "be", "in", "is", "of", "the", "to"])
K1, B = 1.2, 0.75


class Refused(Exception):
    def __init__(self, status: int, type: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.body = {
            "error": {"root_cause": [{"type": type, "reason": reason}], "type": type, "reason": reason},
            "status": status,
        }


def terms(text: str) -> list[str]:
    words = (word for word in WORD.findall(text.lower()) if word not in STOP)
    return [word[:-1] if word.endswith("s") and len(word) > 3 else word for word in words]


class Index:
    """`written` is what reading by id sees, `seen` what searches see."""

    def __init__(self, body: dict[str, Any]) -> None:
        if body.get("settings", {}).get("index", {}).get("knn") is not True:
            raise Refused(400, "mapper_parsing_exception", "knn_vector fields need index.knn")
        self.fields = body["mappings"]["properties"]
        self.written: dict[str, dict[str, Any]] = {}
        self.seen: dict[str, dict[str, Any]] = {}

    def check(self, row: dict[str, Any]) -> None:
        for name, value in row.items():
            kind = self.fields.get(name, {}).get("type")
            if kind == "knn_vector":
                wanted = self.fields[name]["dimension"]
                if len(value) != wanted:
                    raise Refused(400, "mapper_parsing_exception", f"Vector dimension mismatch. Expected: {wanted}")
                if not any(value):
                    raise Refused(400, "mapper_parsing_exception", "zero vector is not supported [cosinesimil]")
            held = value if isinstance(value, list) else [value]
            if kind == "keyword" and any(len(one.encode()) > 32_766 for one in held):
                raise Refused(400, "illegal_argument_exception", f"immense term in field {name}")
            if kind == "integer" and not all(isinstance(one, int) for one in held):
                raise Refused(400, "mapper_parsing_exception", f"failed to parse field [{name}] of type [integer]")

    # -- queries ------------------------------------------------------------------------------------------------------

    def search(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        scores = self._scores(body["query"])
        best = sorted(scores, key=lambda key: (-scores[key], key))[: body.get("size", 10)]
        shown = body["_source"]
        return [
            {"_id": key, "_score": scores[key], "_source": {name: self.seen[key][name] for name in shown}}
            for key in best
        ]

    def _scores(self, query: dict[str, Any]) -> dict[str, float]:
        ((kind, given),) = query.items()
        known = {"bool": self._bool, "knn": self._knn, "multi_match": self._words}
        if kind in known:
            return known[kind](given)
        if kind in ("term", "terms"):
            ((field, wanted),) = given.items()
            if self.fields.get(field, {}).get("type") != "keyword" or self.fields[field].get("index") is False:
                raise Refused(400, "query_shard_exception", f"Cannot search on field [{field}]")
            held = {wanted} if kind == "term" else set(wanted)
            return {key: 1.0 for key, row in self.seen.items() if held & set(row.get(field, []))}
        if kind == "range":
            return self._range(given)
        raise Refused(400, "parsing_exception", f"unknown query [{kind}]")

    def _bool(self, given: dict[str, Any]) -> dict[str, float]:
        if unknown := given.keys() - {"must", "filter", "should", "must_not", "minimum_should_match"}:
            raise Refused(400, "x_content_parse_exception", f"[bool] unknown field {sorted(unknown)}")
        scores = dict.fromkeys(self.seen, 0.0)
        for one in given.get("must", []):
            found = self._scores(one)
            scores = {key: score + found[key] for key, score in scores.items() if key in found}
        for one in given.get("filter", []):
            found = self._scores(one)
            scores = {key: score for key, score in scores.items() if key in found}
        for one in given.get("must_not", []):
            found = self._scores(one)
            scores = {key: score for key, score in scores.items() if key not in found}
        if given.get("minimum_should_match"):
            any_of = set().union(*(self._scores(one) for one in given["should"]))
            scores = {key: score for key, score in scores.items() if key in any_of}
        return scores

    def _range(self, given: dict[str, Any]) -> dict[str, float]:
        ((field, bounds),) = given.items()
        outer, _, inner = field.partition(".")
        signs = {
            "gt": lambda have, want: have > want, "gte": lambda have, want: have >= want,
            "lt": lambda have, want: have < want, "lte": lambda have, want: have <= want,
        }  # fmt: skip
        return {
            key: 1.0
            for key, row in self.seen.items()
            if any(all(signs[sign](one, want) for sign, want in bounds.items()) for one in row[outer].get(inner, []))
        }

    def _knn(self, given: dict[str, Any]) -> dict[str, float]:
        ((field, near),) = given.items()
        wanted = np.array(near["vector"], "f4")
        if len(wanted) != self.fields[field]["dimension"]:
            raise Refused(400, "query_shard_exception", "Query vector has invalid dimension")
        if not wanted.any():
            raise Refused(400, "illegal_argument_exception", "zero vector is not supported [cosinesimil]")
        allowed = self._scores(near["filter"]) if "filter" in near else self.seen
        keys = [key for key in allowed if field in self.seen[key]]
        if not keys:
            return {}
        rows = np.array([self.seen[key][field] for key in keys], "f4")
        cosines = rows @ wanted / (np.linalg.norm(rows, axis=1) * np.linalg.norm(wanted))
        best = sorted(zip(keys, cosines.tolist()), key=lambda pair: (-pair[1], pair[0]))[: near["k"]]
        return {key: (1 + cosine) / 2 for key, cosine in best}

    def _words(self, given: dict[str, Any]) -> dict[str, float]:
        if given.get("type") != "most_fields":
            raise Refused(400, "parsing_exception", "this double adds the fields' scores: most_fields")
        scores: Counter[str] = Counter()
        for field in given["fields"]:
            rows = {key: Counter(terms(row[field])) for key, row in self.seen.items() if row.get(field)}
            mean = sum(found.total() for found in rows.values()) / max(1, len(rows))
            for term in set(terms(given["query"])):
                hits = {key: found[term] for key, found in rows.items() if found[term]}
                rare = math.log(1 + (len(rows) - len(hits) + 0.5) / (len(hits) + 0.5))
                for key, times in hits.items():
                    scores[key] += rare * times / (times + K1 * (1 - B + B * rows[key].total() / mean))
        return dict(scores)


class OpenSearch:
    """On a free port. `busy` holds what the next requests meet instead of an answer: a status for the whole request, or
    ("item", status, how many) for that many items of a bulk. `calls` are (method, path, headers) of each request."""

    def __init__(self, username: str = "", password: str = "") -> None:
        self.indexes: dict[str, Index] = {}
        self.busy: list[Any] = []
        self.calls: list[tuple[str, str, dict[str, str]]] = []
        self._lock = threading.Lock()
        self._token = base64.b64encode(f"{username}:{password}".encode()).decode() if username else ""
        double = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                data = self.rfile.read(int(self.headers.get("content-length", 0)))
                status, body = double.take(self.command, self.path, dict(self.headers.items()), data)
                told = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json; charset=UTF-8")
                self.send_header("content-length", str(len(told)))
                self.end_headers()
                self.wfile.write(told)

            do_PUT = do_POST = do_DELETE = do_GET = answer

            def log_message(self, *arguments: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take(self, method: str, target: str, headers: dict[str, str], data: bytes) -> tuple[int, Any]:
        parts = urlsplit(target)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        headers = {name.lower(): value for name, value in headers.items()}
        with self._lock:
            self.calls.append((method, parts.path, headers))
            if self._token and headers.get("authorization") != f"Basic {self._token}":
                return 401, {"message": "Unauthorized"}
            fault = self.busy.pop(0) if self.busy else None
            if isinstance(fault, int):
                return fault, {"error": {"type": "rejected_execution_exception", "reason": "busy"}, "status": fault}
            try:
                _, name, *rest = unquote(parts.path).split("/")
                return 200, self._do(method, name, "/".join(rest), query, data, fault)
            except Refused as refused:
                return refused.status, refused.body

    def _do(self, method: str, name: str, call: str, query: dict[str, str], data: bytes, fault: Any) -> Any:
        if (method, call) == ("PUT", ""):
            if name in self.indexes:
                raise Refused(400, "resource_already_exists_exception", f"index [{name}] already exists")
            self.indexes[name] = Index(json.loads(data))
            return {"acknowledged": True, "shards_acknowledged": True, "index": name}
        if (method, call) == ("POST", "_mget"):
            return {"docs": [self._get(name, key, query) for key in json.loads(data)["ids"]]}
        if name not in self.indexes:
            raise Refused(404, "index_not_found_exception", f"no such index [{name}]")
        if (method, call) == ("DELETE", ""):
            del self.indexes[name]
            return {"acknowledged": True}
        if (method, call) == ("POST", "_search"):
            return {"hits": {"hits": self.indexes[name].search(json.loads(data))}}
        if (method, call) == ("POST", "_bulk"):
            return self._bulk(self.indexes[name], query, data, fault)
        raise Refused(405, "", f"this double does not have {method} /INDEX/{call}")

    def _get(self, name: str, key: str, query: dict[str, str]) -> dict[str, Any]:
        if len(key.encode()) > 512:
            raise Refused(400, "illegal_argument_exception", "id is too long")
        if name not in self.indexes:
            error = {"type": "index_not_found_exception", "reason": f"no such index [{name}]"}
            return {"_index": name, "_id": key, "error": error}
        row = self.indexes[name].written.get(key)
        if row is None:
            return {"_index": name, "_id": key, "found": False}
        shown = query["_source_includes"].split(",")
        return {"_index": name, "_id": key, "found": True, "_source": {one: row[one] for one in shown}}

    def _bulk(self, index: Index, query: dict[str, str], data: bytes, fault: Any) -> dict[str, Any]:
        if not data.endswith(b"\n"):
            raise Refused(400, "illegal_argument_exception", "The bulk request must be terminated by a newline [\\n]")
        lines = [json.loads(line) for line in data.splitlines()]
        items: list[dict[str, Any]] = []
        left = fault[2] if fault else 0
        while lines:
            ((action, where),) = lines.pop(0).items()
            key = where["_id"]
            row = lines.pop(0) if action == "index" else None
            if left:
                left -= 1
                error = {"type": "rejected_execution_exception", "reason": "rejected execution of operation"}
                items.append({action: {"_id": key, "status": fault[1], "error": error}})
                continue
            items.append({action: self._one(index, key, row)})
        if query.get("refresh") in ("true", "wait_for"):
            index.seen = dict(index.written)
        return {"took": 1, "errors": any("error" in one for item in items for one in item.values()), "items": items}

    def _one(self, index: Index, key: str, row: dict[str, Any] | None) -> dict[str, Any]:
        if len(key.encode()) > 512:
            error = {"type": "illegal_argument_exception", "reason": "id is too long"}
            return {"_id": key, "status": 400, "error": error}
        if row is None:
            known = index.written.pop(key, None)
            return {"_id": key, "status": 200 if known else 404, "result": "deleted" if known else "not_found"}
        try:
            index.check(row)
        except Refused as refused:
            return {"_id": key, "status": refused.status, "error": refused.body["error"]}
        known = key in index.written
        index.written[key] = row
        return {"_id": key, "status": 200 if known else 201, "result": "updated" if known else "created"}

"""Which operation a REST request is for: a tree of path segments, then the query literals and required parameters."""

from typing import Any, NamedTuple
from urllib.parse import unquote

from preheat.wire.model import Model, OperationModel


class Candidate(NamedTuple):
    """One operation at one place of the tree. `literals` are query parameters of its URI (value None: any)."""

    operation: str
    labels: tuple[str, ...]
    literals: tuple[tuple[str, str | None], ...]
    query: tuple[str, ...]
    headers: tuple[str, ...]
    deprecated: bool

    def rank(self, query: dict[str, list[str]], headers: dict[str, str]) -> tuple[int, int, int, int] | None:
        """None where a literal is absent; otherwise higher is more specific."""
        for name, value in self.literals:
            if name not in query or (value is not None and value not in query[name]):
                return None
        missing = sum(name not in query for name in self.query) + sum(name not in headers for name in self.headers)
        return len(self.literals), -missing, len(self.query) + len(self.headers), -int(self.deprecated)


class Node:
    __slots__ = ("children", "greedy", "here", "label")

    def __init__(self) -> None:
        self.children: dict[str, Node] = {}
        self.label: Node | None = None
        self.greedy: list[Candidate] = []
        self.here: list[Candidate] = []


class Match(NamedTuple):
    """`operation` None: the path exists, but not with this method or these parameters."""

    operation: str | None
    labels: dict[str, str]


class Routes:
    """All operations of one REST service. `by_headers`: some are told apart by the headers that they require."""

    def __init__(self, model: Model) -> None:
        self._roots: dict[str, Node] = {}
        self.by_headers = False
        for operation in model.operations.values():
            self._add(model, operation)

    def _add(self, model: Model, operation: OperationModel) -> None:
        path, _, query = operation.http.request_uri.partition("?")
        node = self._roots.setdefault(operation.http.method, Node())
        labels: list[str] = []
        greedy = False
        for segment in path.strip("/").split("/"):
            if not segment:
                continue
            if not segment.startswith("{"):
                node = node.children.setdefault(segment, Node())
                continue
            greedy = segment.endswith("+}")
            labels.append(segment[1:-2] if greedy else segment[1:-1])
            if not greedy:
                if node.label is None:
                    node.label = Node()
                node = node.label
        candidate = _candidate(model, operation, tuple(labels), query)
        self.by_headers = self.by_headers or bool(candidate.headers)
        (node.greedy if greedy else node.here).append(candidate)

    def match(self, method: str, path: str, query: dict[str, list[str]], headers: dict[str, str]) -> Match | None:
        """None when no operation has this path. Labels come percent-decoded."""
        root = self._roots.get(method)
        found = None if root is None else _walk(root, path[1:].split("/"), (), query, headers)
        if found is not None:
            return found
        for other, node in self._roots.items():
            if other != method and _walk(node, path[1:].split("/"), (), query, headers) is not None:
                return Match(None, {})
        return None


def _candidate(model: Model, operation: OperationModel, labels: tuple[str, ...], query: str) -> Candidate:
    literals: list[tuple[str, str | None]] = []
    for part in filter(None, query.split("&")):
        name, equals, value = part.partition("=")
        literals.append((name, value if equals else None))
    needed: dict[str, list[str]] = {"querystring": [], "header": []}
    if operation.input is not None:
        shape = model.shapes[operation.input.shape]
        for own in shape.required:
            ref = shape.members[own]
            if ref.location in needed:
                needed[ref.location].append(ref.location_name or own)
    lowered = tuple(name.lower() for name in needed["header"])
    return Candidate(
        operation.name, labels, tuple(literals), tuple(needed["querystring"]), lowered, operation.deprecated
    )


def _walk(node: Node, rest: list[str], values: tuple[str, ...], query: Any, headers: Any) -> Match | None:
    if not rest or rest == [""]:
        return _choose(node.here, values, query, headers)
    segment = rest[0]
    child = node.children.get(segment)
    if child is not None:
        found = _walk(child, rest[1:], values, query, headers)
        if found is not None:
            return found
    if node.label is not None and segment:
        found = _walk(node.label, rest[1:], (*values, unquote(segment)), query, headers)
        if found is not None:
            return found
    return _choose(node.greedy, (*values, unquote("/".join(rest))), query, headers) if node.greedy else None


def _choose(candidates: list[Candidate], values: tuple[str, ...], query: Any, headers: Any) -> Match | None:
    best: Candidate | None = None
    best_rank: tuple[int, int, int, int] | None = None
    for candidate in candidates:
        rank = candidate.rank(query, headers)
        if rank is not None and (best_rank is None or rank > best_rank):
            best, best_rank = candidate, rank
    if best is not None:
        return Match(best.operation, dict(zip(best.labels, values)))
    return Match(None, {}) if candidates else None

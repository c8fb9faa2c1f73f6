"""From an HTTP request to a Call, and from an output or an error to an HTTP response. Sans-IO.

    X-Amz-Target                      awsJson
    smithy-protocol: rpc-v2-cbor      CBOR
    Action=, Version=                 query
    signing name, host, path          rest-json and rest-xml; what is left is S3's
"""

import re
import zlib
from typing import Any, NamedTuple
from urllib.parse import parse_qs, parse_qsl, unquote

from preheat.kernel.errors import AwsError
from preheat.kernel.http import Call, HttpRequest, HttpResponse
from preheat.kernel.scope import DEFAULT_REGION
from preheat.wire.failures import render
from preheat.wire.model import load_quirks
from preheat.wire.rest import RestJsonOperation, RestOperation, RestXmlOperation
from preheat.wire.routes import Match
from preheat.wire.rpc import Operation, QueryOperation, TreeOperation
from preheat.wire.service import Service

CBOR = "smithy-rpc-v2-cbor"
CBOR_PATH = re.compile(r"^.*/service/([^/]+)/operation/([^/]+)/?$")
QUEUE_PATH = re.compile(r"^/\d{12}/[^/]+$")
S3_HOST = re.compile(r"^(.+)\.s3[.-][^/]*$")
FORM = "application/x-www-form-urlencoded"
CONNECTIONS = "/@connections"
MAX_UNZIPPED_BYTES = 16 * 1024 * 1024
SIGNED_START = "AWS4-HMAC-SHA256 Credential="
KNOWN_RESOURCES = 4_096
KNOWN_CREDENTIALS = 4_096
OPERATIONS: dict[str, type[Operation]] = {
    "json": TreeOperation,
    CBOR: TreeOperation,
    "query": QueryOperation,
    "rest-json": RestJsonOperation,
    "rest-xml": RestXmlOperation,
}


class Credential(NamedTuple):
    """The scope of a SigV4 credential; empty for requests that are not signed."""

    region: str = ""
    service: str = ""


class Plan(NamedTuple):
    """Where a request belongs: the protocol, the services it may be for in order, and the operation where it is named.
    `pairs` are the parameters of the query protocol."""

    protocol: str
    services: tuple[str, ...]
    operation: str = ""
    pairs: list[tuple[str, str]] | None = None


def credential_of(request: HttpRequest) -> Credential:
    """From the Authorization header or a presigned query, else empty."""
    text = request.headers.get("authorization")
    if text is not None:
        start = text.find("Credential=")
        if start >= 0:
            end = text.find(",", start)
            parts = text[start + 11 : end if end > 0 else None].strip().split("/")
            if len(parts) >= 5:
                return Credential(parts[-3], parts[-2])
    elif "X-Amz-Credential=" in request.query:
        start = request.query.index("X-Amz-Credential=") + 17
        parts = unquote(request.query[start:].partition("&")[0]).split("/")
        if len(parts) >= 5:
            return Credential(parts[-3], parts[-2])
    return Credential()


def host_of(request: HttpRequest) -> str:
    host = request.headers.get("host", "")
    return host.rpartition(":")[0].lower() if ":" in host and not host.endswith("]") else host.lower()


def bucket_of(host: str) -> str | None:
    """The bucket of a virtual-hosted S3 address: `bucket.s3.<anything>` or `bucket.localhost`."""
    if "s3-website" in host:
        return None
    found = S3_HOST.match(host)
    if found is not None:
        return found.group(1)
    if host.endswith(".localhost") and host != "s3.localhost" and not host.startswith("s3."):
        return host.removesuffix(".localhost")
    return None


def _is_rpc(request: HttpRequest) -> bool:
    headers = request.headers
    return (
        "x-amz-target" in headers or "smithy-protocol" in headers or headers.get("content-type", "").startswith(FORM)
    )


def unzipped(request: HttpRequest) -> HttpRequest:
    """The request with its body as it was before the SDK compressed it. Raises AwsError."""
    inflater = zlib.decompressobj(wbits=31)
    try:
        body = inflater.decompress(request.body, MAX_UNZIPPED_BYTES)
    except zlib.error as error:
        raise AwsError("SerializationException", f"The body is not gzip, as Content-Encoding says: {error}.") from error
    if inflater.unconsumed_tail or not inflater.eof:
        raise AwsError(
            "RequestEntityTooLargeException" if inflater.unconsumed_tail else "SerializationException",
            f"The compressed body is cut off, or longer than {MAX_UNZIPPED_BYTES:,} bytes when unpacked.", 413,
        )  # fmt: skip
    return type(request)(request.method, request.target, request.headers, body, request.peer)


class Wire:
    """The AWS protocols. Models are loaded and operations compiled on first use, then kept."""

    def __init__(self) -> None:
        routing = load_quirks("routing")
        self._common = load_quirks("common")
        self._table: dict[str, dict[str, str]] = routing["services"]
        self._paths: list[tuple[str, str]] = [(prefix, name) for prefix, name in routing["paths"]]
        self._by_target = {entry["target"]: name for name, entry in self._table.items() if "target" in entry}
        self._by_version = {entry["version"]: name for name, entry in self._table.items() if "version" in entry}
        self._by_signing: dict[str, list[str]] = {}
        self._by_host: dict[str, list[str]] = {}
        for name, entry in self._table.items():
            self._by_signing.setdefault(entry["signing"], []).append(name)
            self._by_host.setdefault(entry["host"], []).append(name)
        self._services: dict[tuple[str, str], Service] = {}
        self._operations: dict[tuple[str, str, str], Operation] = {}
        self._targets: dict[str, TreeOperation] = {}
        self._credentials: dict[str, Credential] = {}
        self._resources: dict[tuple[str, str, str], tuple[RestOperation, dict[str, str]]] = {}

    # -- what there is --------------------------------------------------------------------------------------------

    def services(self) -> list[str]:
        """Services whose requests are recognised."""
        return list(self._table)

    def operations(self, service: str) -> list[str]:
        """All operations in the model of `service`. Raises KeyError for a service that is not routed."""
        return list(self._service(service, self._table[service]["protocol"]).model.operations)

    def _service(self, name: str, protocol: str) -> Service:
        found = self._services.get((name, protocol))
        if found is None:
            found = self._services[name, protocol] = Service(name, protocol, self._common)
        return found

    def _operation(self, name: str, protocol: str, operation: str) -> Any:
        """Raises AwsError when the service has no such operation."""
        found = self._operations.get((name, protocol, operation))
        if found is None:
            service = self._service(name, protocol)
            model = service.model.operations.get(operation)
            if model is None:
                raise service.unknown_operation(operation)
            found = self._operations[name, protocol, operation] = OPERATIONS[protocol](service, model)
        return found

    # -- in -------------------------------------------------------------------------------------------------------

    def understand(self, request: HttpRequest) -> Call:
        """Raises AwsError; answer it with `error(None, request, ...)`."""
        if request.headers.get("content-encoding") == "gzip" and _is_rpc(request):
            call = self._understand(unzipped(request))
            call.request = request
            return call
        return self._understand(request)

    def _understand(self, request: HttpRequest) -> Call:
        credential = self._credential(request)
        region = credential.region or DEFAULT_REGION
        target = request.headers.get("x-amz-target")
        if target is not None:
            known = self._targets.get(target)
            if known is not None:
                return Call(known.service_name, known.name, known.parse(request), region, request, known)
        resource = self._resources.get((credential.service, request.method, request.path))
        if resource is not None and not request.query and target is None and "smithy-protocol" not in request.headers:
            rest, labels = resource
            return Call(rest.service_name, rest.name, rest.parse(request, labels, {}), region, request, rest)
        plan = self._plan(request, credential)
        if plan.protocol in ("rest-json", "rest-xml"):
            rest, match, query = self._match(request, plan)
            params = rest.parse(request, match.labels, query)
            if not request.query:
                self._remember(request, credential, rest, match)
            return Call(rest.service_name, rest.name, params, region, request, rest)
        name = plan.services[0] if plan.services else ""
        operation = self._operation(name, plan.protocol, plan.operation)
        if plan.protocol == "query":
            params = operation.parse(self._with_path(request, operation.service, plan.pairs or []))
        else:
            params = operation.parse(request)
            if target is not None:
                self._targets[target] = operation
        return Call(name, operation.name, params, region, request, operation)

    def _remember(self, request: HttpRequest, credential: Credential, rest: RestOperation, match: Match) -> None:
        """What a method and a path mean, where neither host nor headers have a say in it."""
        name = rest.service_name
        if self._by_signing.get(credential.service) == [name] and not rest.service.routes.by_headers:
            if len(self._resources) >= KNOWN_RESOURCES:
                self._resources.clear()
            self._resources[credential.service, request.method, request.path] = (rest, match.labels)

    def _credential(self, request: HttpRequest) -> Credential:
        """`credential_of`; a client's header is the same but for its signature all day."""
        text = request.headers.get("authorization", "")
        end = text.find(",")
        if end < 0 or not text.startswith(SIGNED_START):
            return credential_of(request)
        start = text[:end]
        known = self._credentials.get(start)
        if known is None:
            if len(self._credentials) >= KNOWN_CREDENTIALS:
                self._credentials.clear()
            known = self._credentials[start] = credential_of(request)
        return known

    def _plan(self, request: HttpRequest, credential: Credential) -> Plan:
        headers = request.headers
        target = headers.get("x-amz-target")
        if target is not None:
            prefix, _, operation = target.rpartition(".")
            name = self._by_target.get(prefix)
            return Plan("json", () if name is None else (name,), operation)
        if headers.get("smithy-protocol") == "rpc-v2-cbor":
            found = CBOR_PATH.match(request.path)
            prefix, operation = found.groups() if found is not None else ("", request.path)
            name = self._by_target.get(prefix.rpartition(".")[2])
            return Plan(CBOR, () if name is None else (name,), unquote(operation))
        signed = self._by_signing.get(credential.service, [])
        query = self._query_plan(request, signed)
        if query is not None:
            return query
        if credential.service and not signed and not credential.service.startswith("s3"):
            return Plan("rest-json", ())
        return self._rest_plan(request, signed)

    def _query_plan(self, request: HttpRequest, signed: list[str]) -> Plan | None:
        if signed and not any("version" in self._table[name] for name in signed):
            return None
        pairs = request.arguments() if "Action=" in request.query else []
        if request.body and request.headers.get("content-type", "").startswith(FORM):
            pairs += parse_qsl(request.body.decode("utf-8", "replace"), keep_blank_values=True)
        named = dict(pairs)
        name = self._by_version.get(named.get("Version", ""))
        if name is None and signed:
            name = signed[0]
        if name is None and "Action" in named and QUEUE_PATH.match(request.path):
            name = "sqs"
        if name is None and "Action" in named and "Version" in named:
            return Plan("query", (), named["Action"], pairs)
        if name is None and "Action" in named and request.method == "POST" and not signed:
            name = self._by_action(named["Action"])
        if name is None or ("Action" not in named and not signed):
            return None
        return Plan("query", (name,), named.get("Action", ""), pairs)

    def _by_action(self, action: str) -> str | None:
        """The first query service that has this action, for a form that says neither version nor signature."""
        for name in self._by_version.values():
            if action in self._service(name, "query").model.operations:
                return name
        return None

    def _rest_plan(self, request: HttpRequest, signed: list[str]) -> Plan:
        names = signed
        if len(names) != 1:
            by_host = self._by_host.get(host_of(request).partition(".")[0], [])
            both = [name for name in by_host if not names or name in names]
            names = both or names
        if not names:
            names = [name for prefix, name in self._paths if request.path.startswith(prefix)]
            if CONNECTIONS in request.path:
                names = ["apigatewaymanagementapi"]
        if not names or names == ["s3"]:
            return Plan("rest-xml", ("s3",))
        protocol = self._table[names[0]]["protocol"]
        return Plan(protocol, tuple(dict.fromkeys(names)))

    def _match(self, request: HttpRequest, plan: Plan) -> tuple[RestOperation, Match, dict[str, list[str]]]:
        query = parse_qs(request.query, keep_blank_values=True) if request.query else {}
        headers = request.headers
        for name in plan.services:
            service = self._service(name, self._table[name]["protocol"])
            match = service.routes.match(request.method, self._path(request, name), query, headers)
            if match is not None and match.operation is not None:
                return self._operation(name, service.protocol, match.operation), match, query
        if "authorization" not in headers and plan.services and plan.services != ("s3",):
            return self._match(request, Plan("rest-xml", ("s3",)))
        name = plan.services[0] if plan.services else ""
        raise self._service(name, plan.protocol).unknown_operation(f"{request.method} {request.path}")

    def _path(self, request: HttpRequest, service: str) -> str:
        if service == "s3":
            bucket = bucket_of(host_of(request))
            return f"/{bucket}{request.path}" if bucket else request.path
        if service == "apigatewaymanagementapi":
            return request.path[max(request.path.find(CONNECTIONS), 0) :]
        return request.path

    def _with_path(
        self, request: HttpRequest, service: Service, pairs: list[tuple[str, str]]
    ) -> list[tuple[str, str]]:
        """SQS takes the queue from the path as well."""
        parameter = service.quirks.get("path_parameter")
        if parameter is None or not QUEUE_PATH.match(request.path) or any(key == parameter for key, _ in pairs):
            return pairs
        host = request.headers.get("host", "localhost")
        return [*pairs, (parameter, f"http://{host}{request.path}")]

    # -- out ------------------------------------------------------------------------------------------------------

    def reply(
        self,
        call: Call,
        output: dict[str, Any],
        request_id: str,
        status: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> HttpResponse:
        """`status` and `headers` go before the operation's own."""
        return call.context.reply(output, request_id, status, headers)

    def error(self, call: Call | None, request: HttpRequest, error: AwsError, request_id: str) -> HttpResponse:
        """Without a call, in the protocol that the request speaks."""
        if call is not None and call.context is not None:
            return call.context.error(request.method, error, request_id)
        plan = self._plan(request, credential_of(request))
        name = plan.services[0] if plan.services else ""
        return render(self._service(name, plan.protocol), request.method, error, request_id)

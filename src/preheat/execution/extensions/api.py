"""The Extensions API (2020-01-01), the Telemetry API (2022-07-01) and the Logs API (2020-08-15), server side, without
sockets: a parsed request in, an answer on its connection. Errors as AWS's Runtime Interface Emulator words them."""

from preheat.execution.contract import FunctionSpec
from preheat.execution.extensions.registry import Extension, Refused, Registry, Reply
from preheat.execution.extensions.telemetry import Invalid, Rim, Telemetry, read_subscription

EXTENSION = "/2020-01-01/extension/"
SUBSCRIBE = {"/2022-07-01/telemetry": "telemetry", "/2020-08-15/logs": "logs"}
CLOSED = {
    "telemetry": ("Telemetry.SubscriptionClosed", "Telemetry API subscription is closed"),
    "logs": ("Logs.SubscriptionClosed", "Logs API subscription is closed"),
}


class ExtensionApi:
    """Answers the extensions of one environment."""

    def __init__(self, spec: FunctionSpec, registry: Registry, telemetry: Telemetry, rim: Rim) -> None:
        self._spec = spec
        self._registry = registry
        self._telemetry = telemetry
        self._rim = rim

    def take(self, reply: Reply, method: bytes, target: str, headers: dict[str, str], body: bytes) -> bool:
        """False when there is no such endpoint. `headers` with names in lower case."""
        path = target.partition("?")[0].rstrip("/")
        try:
            if path.startswith(EXTENSION):
                return self._extension(reply, method, path.removeprefix(EXTENSION), headers, body)
            if path in SUBSCRIBE and method == b"PUT":
                self._subscribe(reply, SUBSCRIBE[path], self._caller(headers), body)
                return True
        except Refused as refused:
            reply.answer(403, {"errorMessage": str(refused), "errorType": refused.error_type})
            return True
        except Invalid as invalid:
            reply.answer(400, {"errorMessage": str(invalid), "errorType": "ValidationError"})
            return True
        return False

    def _extension(self, reply: Reply, method: bytes, what: str, headers: dict[str, str], body: bytes) -> bool:
        registry = self._registry
        if (method, what) == (b"POST", "register"):
            self._register(reply, headers, body)
        elif (method, what) == (b"GET", "event/next"):
            registry.next(self._caller(headers), reply)
        elif method == b"POST" and what in ("init/error", "exit/error"):
            error_type = headers.get("lambda-extension-function-error-type", "")
            state = "InitError" if what == "init/error" else "ExitError"
            registry.fail(self._caller(headers), state, error_type)
            reply.answer(202, {"status": "OK"})
        else:
            return False
        return True

    def _caller(self, headers: dict[str, str]) -> Extension:
        return self._registry.identify(headers.get("lambda-extension-identifier", ""))

    def _register(self, reply: Reply, headers: dict[str, str], body: bytes) -> None:
        spec = self._spec
        member = self._registry.register(headers.get("lambda-extension-name", ""), body)
        document = {"functionName": spec.name, "functionVersion": spec.version, "handler": spec.handler}
        features = headers.get("lambda-extension-accept-feature", "").split(",")
        if "accountId" in (feature.strip() for feature in features):
            document["accountId"] = spec.account
        reply.answer(200, document, {"Lambda-Extension-Identifier": member.identifier})

    def _subscribe(self, reply: Reply, api: str, member: Extension, body: bytes) -> None:
        if not self._telemetry.open:
            raise Refused(*CLOSED[api])
        self._telemetry.subscribe(member.name, read_subscription(api, body), self._rim)
        reply.answer(200, "OK")

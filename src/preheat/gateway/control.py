"""The platform's own paths: `/_preheat/health`, `/_preheat/clock/advance`, `/_preheat/status`."""

from collections.abc import Callable
from typing import Any

import msgspec

from preheat.gateway.connection import Exchange
from preheat.kernel.http import HttpRequest, HttpResponse

PREFIX = "/_preheat/"
Action = Callable[[HttpRequest], dict[str, Any]]


class ControlError(Exception):
    """A request to the control paths that cannot be served; `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class ControlDoor:
    """`actions` maps (method, path below /_preheat/) to a function of the request that returns a JSON document."""

    def __init__(self, actions: dict[tuple[str, str], Action]) -> None:
        self._actions = actions

    def matches(self, request: HttpRequest) -> bool:
        return request.path.startswith(PREFIX)

    def handle(self, exchange: Exchange) -> None:
        request = exchange.request
        name = request.path[len(PREFIX) :]
        action = self._actions.get((request.method, name))
        try:
            if action is None:
                allowed = sorted(method for method, path in self._actions if path == name)
                if allowed:
                    raise ControlError(405, f"{request.path} takes {' or '.join(allowed)}")
                known = ", ".join(sorted({PREFIX + path for _, path in self._actions}))
                raise ControlError(404, f"no such control path {request.path}; there are {known}")
            status, document = 200, action(request)
        except ControlError as error:
            status, document = error.status, {"message": error.message}
        body = msgspec.json.encode(document)
        exchange.respond(HttpResponse(status, [("Content-Type", "application/json")], body))


def seconds_argument(request: HttpRequest) -> float:
    """The `seconds` query argument, >= 0. Raises ControlError 400."""
    text = dict(request.arguments()).get("seconds")
    try:
        seconds = float(text) if text is not None else None
    except ValueError:
        seconds = None
    if seconds is None or not 0 <= seconds <= 366 * 86_400:
        raise ControlError(400, "seconds must be a number from 0 to 31622400, as in /_preheat/clock/advance?seconds=60")
    return seconds

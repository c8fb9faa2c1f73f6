"""A static page and its views, each view a function of the query string's arguments that runs in one transaction."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from preheat.gateway.connection import Exchange
from preheat.gateway.invoking import answer, plain, run_step
from preheat.kernel.errors import AwsError
from preheat.kernel.http import HttpRequest, HttpResponse
from preheat.services.contract import Context, Outcome
from preheat.services.machine import Machine

View = Callable[[Context, dict[str, str]], dict[str, Any]]
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"


class PageDoor:
    """`<prefix>` is the page, `<prefix>/<name>` a view's JSON."""

    def __init__(self, machine: Machine, prefix: str, page: Path, views: dict[str, View]) -> None:
        self._machine = machine
        self._prefix = prefix
        self._page = page
        self._views = views

    def matches(self, request: HttpRequest) -> bool:
        return request.path == self._prefix or request.path.startswith(self._prefix + "/")

    def handle(self, exchange: Exchange) -> None:
        name = exchange.request.path[len(self._prefix) :].strip("/")

        def step(ctx: Context) -> Outcome:
            if exchange.request.method not in ("GET", "HEAD"):
                raise AwsError("MethodNotAllowed", "The console is read with GET", 405)
            if not name:
                headers = [("Content-Type", "text/html; charset=utf-8"), ("Content-Security-Policy", POLICY)]
                return answer(HttpResponse(200, headers, self._page.read_bytes()))
            view = self._views.get(name)
            if view is None:
                raise AwsError("NotFound", f"The console has no view {name}; there are {', '.join(self._views)}", 404)
            return answer(plain(200, view(ctx, dict(exchange.request.arguments()))))

        run_step(self._machine, exchange, step, lambda error: plain(error.status, {"message": error.message}))

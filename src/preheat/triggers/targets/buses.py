"""What EventBridge's ARNs may stand for as targets: an event bus, an API destination."""

import json
from collections.abc import Callable, Iterable
from typing import Any

from preheat.kernel.errors import AwsError
from preheat.kernel.stream import Background
from preheat.services.contract import Context, Deferred, Outcome
from preheat.services.deliveries import Delivery
from preheat.services.events.connections import HttpCall
from preheat.triggers.targets import messaging, permission, web

REFUSED = frozenset({401, 407})
RETRIED = REFUSED | {409, 429}
TOKEN_S = 300.0
"""How long an access token is used whose answer does not say it."""


def to_events(ctx: Context, delivery: Delivery, background: Background) -> Outcome:
    """Options: `http` for an API destination (path, headers, query of the target), `event` to hand an event on from bus
    to bus as it is (with `hop`, for one that came from a bus, that is refused); otherwise those of
    `messaging.to_events`."""
    if ":api-destination/" in delivery.target:
        return _to_api_destination(ctx, delivery, background)
    if "event" not in delivery.options:
        return messaging.to_events(ctx, delivery, background)
    if "hop" in delivery.options:
        raise AwsError("THIRD_ACCOUNT_HOP_DETECTED", "An event that came from another event bus goes to no third.")
    permission.check(ctx, delivery, "events:PutEvents")
    if ctx.machine.authorizer is not None and delivery.role:
        ctx.machine.authorizer(ctx, "events", "PutEvents", {"Entries": [{"EventBusName": delivery.target}]})
    ctx.machine.services["events"].receive(ctx, delivery.target, delivery.options["event"], delivery.trace)
    return {}


def _to_api_destination(ctx: Context, delivery: Delivery, background: Background) -> Outcome:
    """One HTTP request from a thread, after one for an access token where the connection needs a new one."""
    events = ctx.machine.services["events"]
    call: HttpCall = events.http_call(ctx, delivery.target, delivery.options.get("http", {}), delivery.body)

    def work() -> Iterable[Any]:
        yield _perform(call)

    def start(resolve: Callable[[Any], None]) -> None:
        answers: list[Any] = []

        def end(error: BaseException | None) -> None:
            resolve(answers[0] if answers else (None, ConnectionError(str(error))))

        background.stream(work).attach(answers.append, end)

    def then(inner: Context, value: tuple[dict[str, Any] | None, Any]) -> Outcome:
        token, answer = value
        if token is not None:
            events.keep_token(call.connection, token["access_token"], inner.now + token["expires_in"])
        return _judge(inner, call, answer)

    return Deferred(start, then)


def _perform(call: HttpCall) -> tuple[dict[str, Any] | None, Any]:
    """(the access token that was fetched, what `web.request` answers or an AwsError). Blocks."""
    headers, fetched = dict(call.headers), None
    if call.token_from is not None:
        token = call.token
        if token is None:
            fetched = _fetch(call.token_from)
            if isinstance(fetched, AwsError):
                return None, fetched
            token = fetched["access_token"]
        headers["Authorization"] = f"Bearer {token}"
    return fetched, web.request(call.method, call.url, headers, call.body, call.timeout_s)


def _fetch(call: HttpCall) -> dict[str, Any] | AwsError:
    answer = web.request(call.method, call.url, call.headers, call.body, call.timeout_s)
    if isinstance(answer, str):
        return AwsError("ConnectionFailure", f"The authorization endpoint could not be reached: {answer}", 503)
    status, body = answer
    try:
        given = json.loads(body)
        token, seconds = given["access_token"], float(given.get("expires_in", TOKEN_S))
    except (ValueError, TypeError, KeyError):
        token, seconds = None, 0.0
    if not 200 <= status < 300 or not isinstance(token, str):
        code = 503 if status >= 500 else 400
        return AwsError("AuthorizationFailure", f"The authorization endpoint answered {status} without a token.", code)
    return {"access_token": token, "expires_in": seconds}


def _judge(ctx: Context, call: HttpCall, answer: Any) -> Outcome:
    if isinstance(answer, AwsError):
        raise answer
    if isinstance(answer, Exception | str):
        raise AwsError("ConnectionFailure", f"The endpoint could not be reached: {answer}", 503)
    status, body = answer
    if 200 <= status < 300:
        return {}
    if status in REFUSED:
        ctx.machine.services["events"].drop_token(call.connection)
    text = body[:200].decode("utf-8", "replace")
    retried = status >= 500 or status in RETRIED
    raise AwsError(f"HTTP_{status}", f"The endpoint answered {status}: {text}", max(status, 500) if retried else 400)

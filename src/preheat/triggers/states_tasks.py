"""Does the work of Task states (`services/stepfunctions/tasks.py`): one operation as the machine's role, in a
transaction of its own, whose answer or error goes back into the execution with the same commit.

An operation that is answered later (a function's run) is begun again after a crash. The handler's events are settled
with the answer, so that operations of the platform itself are done exactly once.
"""

import base64
import json
from datetime import datetime
from typing import Any

import msgspec

from preheat.kernel.errors import AwsError
from preheat.kernel.stream import Background, Channel, FileSlice
from preheat.services.contract import Context, Deferred, Outcome, Params, Wait
from preheat.services.deliveries import Delivery
from preheat.services.stepfunctions.language.errors import DATA_LIMIT, PERMISSIONS, RUNTIME, TASK_FAILED
from preheat.services.stepfunctions.language.resources import SDK_NAMES, SERVICES, Resource
from preheat.services.stepfunctions.language.templates import MAX_DATA, compact, decode
from preheat.services.stepfunctions.service import StepFunctionsService
from preheat.services.stepfunctions.tasks import TaskRequest
from preheat.triggers.outbox import Event
from preheat.triggers.targets import permission, universal
from preheat.triggers.targets.contract import acting, answered, operate

SERVICE = "states.amazonaws.com"
NOT_STORED_PAUSE_S = 1.0
_DENIED = ("AccessDenied", "AuthorizationError", "FAILED_TO_ASSUME_ROLE")
_QUERY_PREFIX = "AWS.SimpleQueueService."


class TaskFailed(AwsError):
    """The work was done and failed: `code` is the error's name in the execution, as it is."""


class StatesTasks:
    """The handler of events of kind "states.task"."""

    def __init__(self, background: Background) -> None:
        self._background = background

    def __call__(self, ctx: Context, event: Event) -> Outcome:
        request = msgspec.json.decode(event.payload, type=TaskRequest)
        running = _service(ctx).running
        turn = running.pending(ctx, request.frame, request.attempt)
        if turn is None:
            event.settle(ctx)
            return {}
        running.begin(turn)
        delivery = _delivery(request, turn.resource)
        permission.check_role(ctx, delivery)
        inner = acting(ctx, delivery)
        if turn.resource.kind == "function":
            function = {"FunctionName": request.resource, "Payload": request.input.encode()}
            outcome = operate(inner, "lambda", "Invoke", function)
        else:
            outcome = universal.to_operation(inner, delivery, self._background)
        return self._end(ctx, event, request, turn.resource, outcome)

    def _end(
        self, ctx: Context, event: Event, request: TaskRequest, resource: Resource, outcome: Outcome
    ) -> Outcome:
        """Hand the answer over, now or in a later transaction."""
        if isinstance(outcome, Deferred):
            deferred = outcome

            def then(inner: Context, value: object) -> Outcome:
                again = deferred.then(acting(inner, _delivery(request, resource)), value)
                return self._end(inner, event, request, resource, again)

            return Deferred(deferred.start, then, deferred.cancelled)
        if isinstance(outcome, Wait):
            waiting = outcome

            def later(inner: Context) -> Outcome:
                again = waiting.again(acting(inner, _delivery(request, resource)))
                return self._end(inner, event, request, resource, again)

            return Wait(waiting.topics, waiting.until, later)
        text = compact(_result(ctx, resource, answered(outcome)))
        event.settle(ctx)
        service = _service(ctx)
        turn = service.running.pending(ctx, request.frame, request.attempt)
        if turn is None:
            return {}
        if not resource.pattern:
            service.running.succeed(turn, text)
            return {}
        if resource.pattern != "token":
            service.wait_for(ctx, request.frame, request.attempt, answered(outcome)["executionArn"])
        service.running.submit(turn, text)
        return {}

    def failed(self, ctx: Context, event: Event, error: AwsError) -> Outcome:
        """After an attempt that was taken back: the task failed, unless only the disk refused."""
        request = msgspec.json.decode(event.payload, type=TaskRequest)
        if error.code == "ServiceUnavailable" and error.status == 503:
            event.retry(ctx, ctx.now + NOT_STORED_PAUSE_S)
            return {}
        event.settle(ctx)
        running = _service(ctx).running
        turn = running.pending(ctx, request.frame, request.attempt)
        if turn is not None:
            running.begin(turn)
            running.fail(turn, _name(turn.resource, error), error.message)
        return {}


def _service(ctx: Context) -> StepFunctionsService:
    found = ctx.machine.services["stepfunctions"]
    assert isinstance(found, StepFunctionsService)
    return found


def _delivery(request: TaskRequest, resource: Resource) -> Delivery:
    """A function's run, or a call as `universal` takes it."""
    if resource.kind == "function":
        return Delivery(request.resource, request.input, request.execution, SERVICE, request.role, trace=request.trace)
    service = resource.service
    if not resource.sdk:
        service = SERVICES.get(service, service)
        service = SDK_NAMES.get(service, service)
    body = request.input
    if service == "lambda":
        body = _payload_as_text(body, resource)
    return Delivery(
        f"arn:aws:scheduler:::aws-sdk:{service}:{resource.action}", body, request.execution, SERVICE, request.role,
        trace=request.trace,
    )  # fmt: skip


def _payload_as_text(body: str, resource: Resource) -> str:
    """A function's Payload is any JSON; in an SDK integration a string is JSON text already."""
    given = json.loads(body)
    if isinstance(given, dict) and "Payload" in given and not (resource.sdk and isinstance(given["Payload"], str)):
        given["Payload"] = compact(given["Payload"])
    return compact(given)


def _name(resource: Resource, error: AwsError) -> str:
    """An error as a state's Retry and Catch see it."""
    if isinstance(error, TaskFailed):
        return error.code
    if error.code.startswith(_DENIED):
        return PERMISSIONS
    prefix = "Lambda" if resource.kind == "function" else resource.error_prefix
    code = error.code.removeprefix(_QUERY_PREFIX).replace(".", "")
    if not code.endswith(("Exception", "Error", "Fault")):
        code += "Exception"
    return f"{prefix}.{code}"


def _result(ctx: Context, resource: Resource, output: Params) -> Any:
    """An operation's output as the state's result. Raises TaskFailed."""
    if resource.kind == "function" or (resource.service, resource.action) == ("lambda", "invoke"):
        payload = output.get("Payload") or b"null"
        if output.get("FunctionError"):
            raise _function_failed(payload)
        result = _parsed(payload)
        if resource.kind == "function":
            return result
        output = {**output, "Payload": result}
    if resource.service == "events" and output.get("FailedEntryCount"):
        raise TaskFailed("EventBridge.FailedEntry", compact(_plain(output)))
    shown = _pascal(output)
    if resource.sdk:
        return shown
    if resource.service == "states":
        shown["StartDate"] = int(output["startDate"].timestamp() * 1_000)
    metadata = {"RequestId": ctx.request_id}
    return {**shown, "SdkHttpMetadata": {"HttpStatusCode": 200}, "SdkResponseMetadata": metadata}


def _parsed(payload: bytes) -> Any:
    try:
        return decode(payload)
    except ValueError:
        raise TaskFailed(RUNTIME, "The function's answer is no JSON.") from None


def _function_failed(payload: bytes) -> TaskFailed:
    text = payload.decode("utf-8", "replace")
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    name = document.get("errorType") if isinstance(document, dict) else None
    return TaskFailed(str(name or "Lambda.Unknown"), text)


def _pascal(output: Params) -> dict[str, Any]:
    """With capitals, as integrations show an output."""
    return {name[:1].upper() + name[1:]: _plain(value) for name, value in output.items()}


def _plain(value: Any) -> Any:
    """As JSON: moments in ISO 8601, bytes as text or, where they are none, in Base64."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple) and not isinstance(value, FileSlice):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, FileSlice):
        value = _read(value)
    if isinstance(value, Channel):
        raise TaskFailed(TASK_FAILED, "A stream cannot be the result of a task.")
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            return base64.b64encode(bytes(value)).decode()
    return value


def _read(part: FileSlice) -> bytes:
    if part.length > MAX_DATA:
        raise TaskFailed(DATA_LIMIT, f"The state/task result is larger than {MAX_DATA} bytes.")
    with part.path.open("rb") as file:
        file.seek(part.offset)
        return file.read(part.length)

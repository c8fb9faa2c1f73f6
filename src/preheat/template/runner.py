"""Carries out one step of a stack's operation: runs the resource's script, one command per transaction.

A step's journal holds what its commands gave so far. The script is run from the start each time and fed the journal,
until it yields a command that has no entry yet. An operation and the journal entry of its result commit together, so
that a crash between two commands repeats nothing; one that was on its way when the process died is asked again, and
then "it exists already" means that it was made.
"""

from collections.abc import Callable
from typing import Any

from preheat.kernel.errors import AwsError
from preheat.services.contract import Context, Deferred, Outcome, Reply, Wait
from preheat.services.machine import Machine
from preheat.template import repository
from preheat.template.definition import (
    Answer,
    Call,
    Failed,
    Made,
    Pause,
    Resource,
    ResourceType,
    Script,
    is_conflict,
    is_not_found,
)
from preheat.template.intrinsics import dynamic
from preheat.template.naming import caller, dynamic_reader
from preheat.template.plan import Types
from preheat.template.repository import Stack, Step
from preheat.template.shapes import Shapes, handler_message, plain

TOPIC = "cloudformation"
ATTEMPTS = 5
RETRIED = frozenset(
    ("Throttling", "ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded", "SlowDown")
)


class Finished(dict):
    """The attributes a script returned."""


class Runner:
    """`ended(ctx, stack, step, attributes, reason)` is told how a step ended: `reason` None is success."""

    def __init__(self, types: Types, shapes: Shapes, endpoint: str, ended: Callable[..., None]) -> None:
        self._types = types
        self._shapes = shapes
        self._endpoint = endpoint
        self._ended = ended
        self._in_flight: set[int] = set()
        self._leaving: set[int] = set()

    def forget_unsent(self) -> None:
        """What was about to be asked in a transaction that did not commit was not asked."""
        self._leaving.clear()

    def proceed(self, ctx: Context, stack: Stack, step: Step, stop: str | None = None) -> None:
        """Go on with a running step. With `stop` nothing new is begun: what was made is noted, then it ends so."""
        if step.seq in self._in_flight or step.seq in self._leaving:
            return
        while True:
            command = self._next(ctx, stack, step)
            if isinstance(command, Made):
                self._made(ctx, stack, step, command.physical_id)
                step.journal.append({})
            elif isinstance(command, Finished):
                self._ended(ctx, stack, step, dict(command), None)
                return
            elif isinstance(command, str):
                self._ended(ctx, stack, step, {}, command)
                return
            elif isinstance(command, Call):
                if stop is not None and step.issued is None:
                    break
                self._issue(ctx, stack, step, command)
                return
            elif stop is not None:
                break
            elif not self._waited(ctx, step, command):
                repository.save_step(ctx.db, step)
                return
        self._ended(ctx, stack, step, {}, stop)

    def _next(self, ctx: Context, stack: Stack, step: Step) -> Any:
        """The command that has no answer yet, Finished, or the reason of a failure."""
        definition = self._types[step.doc["type"]]
        try:
            script = self._script(ctx, stack, step, definition)
            command: Any = next(script)
            for entry in step.journal:
                if "error" in entry:
                    command = script.throw(AwsError(*entry["error"]))
                else:
                    command = script.send(entry.get("value"))
        except StopIteration as end:
            return Finished(end.value or {})
        except Failed as failure:
            return str(failure)
        except AwsError as error:
            if step.action == "delete" and is_not_found(error):
                return Finished()
            if not step.journal or "error" not in step.journal[-1]:
                return error.message
            last = step.journal[-1]
            return handler_message(last["service"], error, last["request_id"], step.doc["token"])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            return f"Properties validation failed for resource {step.logical_id} with message:\n#: {error!r}"
        return command

    def _script(self, ctx: Context, stack: Stack, step: Step, definition: ResourceType) -> Script:
        doc = step.doc
        read = dynamic_reader(ctx, caller(stack))
        resource = Resource(
            step.logical_id,
            doc["type"],
            stack.id,
            stack.name,
            stack.scope,
            doc.get("name", ""),
            dynamic(doc["properties"], read),
            doc["token"],
            doc.get("physical_id") or "",
            doc.get("old", {}),
            doc.get("attributes", {}),
            self._endpoint,
        )
        mode = doc["mode"]
        if mode == "delete":
            return definition.delete(resource)
        if mode == "update":
            assert definition.update is not None
            return definition.update(resource)
        return definition.create(resource)

    def _made(self, ctx: Context, stack: Stack, step: Step, physical_id: str) -> None:
        row = repository.resource(ctx.db, stack.id, step.logical_id)
        if row is None or row.physical_id == physical_id:
            return
        row.physical_id = physical_id
        row.updated_at = ctx.now
        if step.doc["mode"] in ("create", "replace"):
            row.reason = "Resource creation Initiated"
            repository.add_event(
                ctx, stack, row.logical_id, physical_id, row.type, row.status, row.reason, step.doc.get("shown", "")
            )
        repository.save_resource(ctx.db, row)

    def _waited(self, ctx: Context, step: Step, command: Pause | Answer) -> bool:
        """Whether a wait is over; its answer is then in the journal."""
        if isinstance(command, Answer):
            repository.expect_response(ctx.db, step.doc["token"], step.seq)
            body = repository.response(ctx.db, step.doc["token"])
            if body is not None:
                step.journal.append({"value": body})
                step.wake_at = None
                return True
        if step.wake_at is None:
            step.wake_at = ctx.now + (command.timeout_s if isinstance(command, Answer) else command.seconds)
        if ctx.now < step.wake_at:
            return False
        step.wake_at = None
        step.journal.append({"value": None})
        return True

    # -- one call -----------------------------------------------------------------------------------------------

    def _issue(self, ctx: Context, stack: Stack, step: Step, call: Call) -> None:
        if step.wake_at is not None:
            if ctx.now < step.wake_at:
                return
            step.wake_at = None
        try:
            params = self._shapes.fit(call.service, call.operation, call.params)
        except Failed as failure:
            self._ended(ctx, stack, step, {}, str(failure))
            return
        again = step.issued is not None
        step.issued = len(step.journal)
        repository.save_step(ctx.db, step)
        machine, seq = ctx.machine, step.seq
        self._leaving.add(seq)

        def run(context: Context) -> Outcome:
            inner = Context(
                stack.scope, context.now, context.db, caller(stack), context.request_id, machine, None
            )
            service = machine.services.get(call.service)
            function = None if service is None else service.operations.get(call.operation)
            if function is None:
                raise AwsError(
                    "UnsupportedOperation", f"Preheat does not implement {call.service}:{call.operation}", 501
                )
            if machine.authorizer is not None:
                machine.authorizer(inner, call.service, call.operation, params)
            return self._follow(context, function(inner, params), seq, call)

        def reply(result: Reply | AwsError) -> None:
            self._in_flight.discard(seq)
            if isinstance(result, AwsError):
                self._record_error(machine, seq, call, result, again)

        def send() -> None:
            self._in_flight.add(seq)
            machine.perform(run, reply, stack.scope)

        ctx.db.after_commit(send)

    def _follow(self, ctx: Context, outcome: Outcome, seq: int, call: Call) -> Outcome:
        """Write the result down in the transaction that produces it."""
        if isinstance(outcome, Wait):
            again = outcome.again
            return Wait(outcome.topics, outcome.until, lambda context: self._follow(context, again(context), seq, call))
        if isinstance(outcome, Deferred):
            then = outcome.then
            return Deferred(
                outcome.start,
                lambda context, value: self._follow(context, then(context, value), seq, call),
                outcome.cancelled,
            )
        output = outcome.output if isinstance(outcome, Reply) else outcome
        self._note(ctx, seq, {"value": {name: plain(output[name]) for name in call.keep if name in output}})
        return {}

    def _note(self, ctx: Context, seq: int, entry: dict[str, Any]) -> None:
        step = repository.step(ctx.db, seq)
        if step is not None and step.status == "running" and step.issued == len(step.journal):
            step.journal.append(entry)
            step.issued, step.attempts = None, 0
            repository.save_step(ctx.db, step)
        ctx.db.notify(TOPIC)

    def _record_error(self, machine: Machine, seq: int, call: Call, error: AwsError, again: bool) -> None:
        def record(ctx: Context) -> Outcome:
            step = repository.step(ctx.db, seq)
            if step is None:
                return {}
            retry = error.code in RETRIED or (error.status >= 500 and error.status != 501)
            if retry and step.attempts < ATTEMPTS:
                step.wake_at = ctx.now + 2.0**step.attempts
                step.attempts += 1
                step.issued = None
                repository.save_step(ctx.db, step)
                ctx.db.notify(TOPIC)
            elif again and is_conflict(error):
                self._note(ctx, seq, {"value": {}})
            else:
                self._note(ctx, seq, {
                    "error": [error.code, error.message, error.status],
                    "service": call.service,
                    "request_id": ctx.request_id,
                })  # fmt: skip
            return {}

        def recorded(result: Reply | AwsError) -> None:
            if isinstance(result, AwsError):
                machine.wake_all()

        machine.perform(record, recorded)

"""The machine at the centre: runs operations and loops, groups their commits, parks what must wait.

It has no thread, no socket and no timer. The live server calls `tick` when there is work and again at `wake_at()`; the
simulator calls the same two under a virtual clock. One tick is: answer and start what needs no transaction (`Prompt`);
open a transaction; run what was submitted, what was woken, and the loops that are due; commit once; then run the
after-commit actions and hand out the replies.
"""

import heapq
import itertools
import sys
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from preheat.kernel.clock import Clock
from preheat.kernel.entropy import Entropy
from preheat.kernel.errors import AwsError
from preheat.kernel.http import HttpRequest
from preheat.kernel.meter import Meter
from preheat.kernel.scope import DEFAULT_ACCOUNT, Scope
from preheat.kernel.stream import Background
from preheat.services.contract import (
    Context,
    Deferred,
    Loop,
    Operation,
    Outcome,
    Params,
    Principal,
    Reply,
    Service,
    Wait,
)
from preheat.store.database import Database
from preheat.store.errors import StoreError, StoreFull

MAX_PER_COMMIT = 512
HOME = Scope()
ROOT = Principal(arn=f"arn:aws:iam::{DEFAULT_ACCOUNT}:root", account=DEFAULT_ACCOUNT, user_id=DEFAULT_ACCOUNT)

OnReply = Callable[[Reply | AwsError], None]
Authorizer = Callable[[Context, str, str, Params], None]


class Prompt(Deferred):
    """A Deferred whose `then` neither reads nor writes the database: the next tick calls it
    outside the transaction."""


Shortcut = Callable[[Context, Params], Prompt | None]
"""What an operation answers when it needs no database for this call; None when it does. It has no effect of its own,
and what it raises is raised again by the operation."""


@dataclass(slots=True, eq=False)
class Task:
    """One call on its way: `run` is the operation, or what continues it."""

    run: Callable[[Context], Outcome]
    context: Context
    on_reply: OnReply
    cancelled: bool = False
    parked: Wait | None = None
    on_cancel: Callable[[], None] | None = None
    result: Reply | AwsError | None = None
    deferred: Deferred | None = None
    timer: float | None = None
    """The moment for which a timer of this task is in the heap."""


@dataclass(slots=True, eq=False)
class _LoopState:
    loop: Loop
    due: float | None = 0.0
    woken: bool = True


class Machine:
    def __init__(self, db: Database, clock: Clock, entropy: Entropy, background: Background) -> None:
        self.db = db
        self.clock = clock
        self.entropy = entropy
        self.background = background
        self.meter = Meter(clock.now)
        self.services: dict[str, Service] = {}
        self.authorizer: Authorizer | None = None
        self._shortcuts: dict[tuple[str, str], Shortcut] = {}
        self.on_work: Callable[[], None] = lambda: None
        self.on_defect: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)
        self._ready: deque[Task] = deque()
        self._hurried: list[tuple[Task, Prompt]] = []
        self._settled: list[tuple[Task, Deferred, Any]] = []
        self._waiting: dict[str, dict[Task, None]] = {}
        self._timers: list[tuple[float, int, Task]] = []
        self._sequence = itertools.count()
        self._loops: list[_LoopState] = []
        self._loops_by_topic: dict[str, list[_LoopState]] = {}

    # -- composition ----------------------------------------------------------------------------------------------

    def add_service(self, service: Service) -> None:
        self.db.apply_schema(service.name, service.schema)
        self.services[service.name] = service
        for name, shortcut in getattr(service, "shortcuts", {}).items():
            self._shortcuts[service.name, name] = shortcut

    def add_loop(self, loop: Loop) -> None:
        state = _LoopState(loop)
        self._loops.append(state)
        for topic in loop.topics:
            self.watch(topic, loop)

    def watch(self, topic: str, loop: Loop) -> None:
        """Wake `loop` when `topic` is notified, from now on."""
        state = next(state for state in self._loops if state.loop is loop)
        watchers = self._loops_by_topic.setdefault(topic, [])
        if state not in watchers:
            watchers.append(state)

    def wake(self, loop: Loop) -> None:
        """Let `loop` run in the next tick."""
        for state in self._loops:
            if state.loop is loop:
                state.woken = True
                self.on_work()

    def wake_all(self) -> None:
        for state in self._loops:
            state.woken = True

    # -- entrances ------------------------------------------------------------------------------------------------

    def submit(
        self,
        service: str,
        operation: str,
        params: Params,
        on_reply: OnReply,
        *,
        scope: Scope = HOME,
        principal: Principal = ROOT,
        request: HttpRequest | None = None,
        request_id: str | None = None,
    ) -> Task:
        """Queue one call; `on_reply` gets its Reply or AwsError after the commit that carries it."""
        context = Context(
            scope, 0.0, self.db, principal, request_id or self.entropy.uuid(), self, request
        )
        shortcut = self._shortcuts.get((service, operation))
        if shortcut is not None and not self._ready and self.authorizer is None and not self.db.in_transaction:
            task = self._hurry(shortcut, context, params, on_reply)
            if task is not None:
                return task
        function = self._find(service, operation)
        if isinstance(function, AwsError):
            error = function

            def run(ctx: Context) -> Outcome:
                raise error
        elif self.authorizer is not None:
            authorize = self.authorizer

            def run(ctx: Context) -> Outcome:
                authorize(ctx, service, operation, params)
                return function(ctx, params)
        else:

            def run(ctx: Context) -> Outcome:
                return function(ctx, params)

        task = Task(run, context, on_reply)
        self._ready.append(task)
        self.on_work()
        return task

    def _hurry(self, shortcut: Shortcut, context: Context, params: Params, on_reply: OnReply) -> Task | None:
        """Have the next tick start a call that nothing is before, without a transaction. None: the usual way it is."""
        context.now = self.clock.now()
        try:
            prompt = shortcut(context, params)
        except Exception:
            return None
        if prompt is None:
            return None
        task = Task(_nothing, context, on_reply)
        self._hurried.append((task, prompt))
        self.on_work()
        return task

    def perform(self, run: Callable[[Context], Outcome], on_reply: OnReply, scope: Scope = HOME) -> Task:
        """Queue a function of the platform's own (a trigger settling a batch) as one transaction."""
        task = Task(run, Context(scope, 0.0, self.db, ROOT, self.entropy.uuid(), self), on_reply)
        self._ready.append(task)
        self.on_work()
        return task

    def call_inside(
        self, ctx: Context, service: str, operation: str, params: Params, principal: Principal | None = None
    ) -> Params:
        function = self._find(service, operation)
        if isinstance(function, AwsError):
            raise function
        inner = Context(
            ctx.scope, ctx.now, ctx.db, principal or ctx.principal, ctx.request_id, self, None
        )
        outcome = function(inner, params)
        if isinstance(outcome, Reply):
            return outcome.output
        if isinstance(outcome, dict):
            return outcome
        raise RuntimeError(f"{service}:{operation} cannot answer at once; emit an event instead")

    def cancel(self, task: Task) -> None:
        """The client went away: forget a parked call, tell a deferred one."""
        task.cancelled = True
        if task.parked is not None:
            self._unpark(task)
        if task.on_cancel is not None:
            task.on_cancel()

    def _find(self, service: str, operation: str) -> Operation | AwsError:
        found = self.services.get(service)
        function = None if found is None else found.operations.get(operation)
        if function is not None:
            return function
        return AwsError(
            "UnknownOperationException" if found is None else "UnsupportedOperation",
            f"Preheat does not implement {service}:{operation}; `preheat services` lists what it does.",
            501,
        )

    # -- the tick -------------------------------------------------------------------------------------------------

    def has_work(self) -> bool:
        return bool(self._ready or self._hurried or self._settled) or any(state.woken for state in self._loops)

    def wake_at(self) -> float | None:
        """When the next tick must be if nothing is submitted before (epoch seconds), or None."""
        if self.has_work():
            return self.clock.now()
        times = [state.due for state in self._loops if state.due is not None]
        while self._timers and self._timers[0][2].parked is None:
            heapq.heappop(self._timers)[2].timer = None
        if self._timers:
            times.append(self._timers[0][0])
        return min(times, default=None)

    def tick(self) -> None:
        """Run everything that is ready now, once; see the module's text."""
        if self._settled:
            self._answer_prompt()
        if self._hurried:
            self._start_prompt()
        now = self.clock.now()
        self._expire(now)
        tasks: list[Task] = []
        ready = self._ready
        while ready and len(tasks) < MAX_PER_COMMIT:
            task = ready.popleft()
            if not task.cancelled:
                tasks.append(task)
        loops = [state for state in self._loops if state.woken or (state.due is not None and state.due <= now)]
        if not tasks and not loops:
            return
        try:
            self.db.begin()
            for task in tasks:
                self._run(task, now)
            for state in loops:
                self._step(state, now)
            self.db.commit()
        except StoreError as error:
            self.db.rollback()
            failure = AwsError("ServiceUnavailable", f"The write was not stored: {error}", 503)
            for task in tasks:
                if not isinstance(task.result, AwsError):
                    task.result, task.parked, task.deferred = failure, None, None
            for state in loops:
                state.due = now + 1.0
        for task in tasks:
            if task.parked is not None:
                self._park(task)
        self._publish()
        for task in tasks:
            if task.parked is None and not task.cancelled:
                self._finish(task)
        if self._ready:
            self.on_work()

    def _run(self, task: Task, now: float) -> None:
        db = self.db
        context = task.context
        context.now = now
        task.result = task.deferred = None
        mark = db.mark()
        try:
            outcome = task.run(context)
            db.keep()
        except AwsError as error:
            db.undo(mark)
            task.result = error
            return
        except StoreFull:
            raise
        except Exception:
            db.undo(mark)
            task.result = self._defect(context)
            return
        if isinstance(outcome, dict):
            task.result = Reply(outcome)
        elif isinstance(outcome, Reply):
            task.result = outcome
        elif isinstance(outcome, Wait):
            task.parked = outcome
        else:
            task.deferred = outcome

    def _step(self, state: _LoopState, now: float) -> None:
        state.woken = False
        db = self.db
        mark = db.mark()
        context = Context(Scope(), now, db, ROOT, "", self)
        try:
            state.due = state.loop.step(context)
            db.keep()
        except StoreFull:
            raise
        except Exception:
            db.undo(mark)
            self._defect(context, f"loop {state.loop.name}")
            state.due = now + 1.0

    def _finish(self, task: Task) -> None:
        deferred, task.deferred = task.deferred, None
        if deferred is not None:
            self._start(task, deferred)
        elif task.result is not None:
            result, task.result = task.result, None
            self._answer(task, result)

    def _answer(self, task: Task, result: Reply | AwsError) -> None:
        """A mistake in one answer keeps no other back; its caller gets an InternalFailure if nothing was said yet."""
        try:
            task.on_reply(result)
        except Exception:
            failure = self._defect(task.context, "an answer")
            if isinstance(result, Reply):
                self._answer(task, failure)

    def _start(self, task: Task, deferred: Deferred) -> None:
        def resolve(value: Any) -> None:
            if task.cancelled:
                return
            if isinstance(value, Exception):

                def run(ctx: Context) -> Outcome:
                    raise value
            else:

                def run(ctx: Context) -> Outcome:
                    return deferred.then(ctx, value)

            task.run, task.on_cancel = run, None
            self._ready.append(task)
            self.on_work()

        def settle(value: Any) -> None:
            self._settled.append((task, deferred, value))
            self.on_work()

        task.on_cancel = deferred.cancelled
        try:
            deferred.start(settle if isinstance(deferred, Prompt) else resolve)
        except AwsError as error:
            resolve(error)
        except Exception:
            resolve(self._defect(task.context))

    def _start_prompt(self) -> None:
        hurried, self._hurried = self._hurried, []
        for task, prompt in hurried:
            if not task.cancelled:
                self._start(task, prompt)

    def _answer_prompt(self) -> None:
        """Every prompt answer that has come, without a transaction."""
        settled, self._settled = self._settled, []
        for task, prompt, value in settled:
            if task.cancelled:
                continue
            task.on_cancel = None
            try:
                if isinstance(value, Exception):
                    raise value
                result = prompt.then(task.context, value)
            except AwsError as error:
                result = error
            except Exception:
                result = self._defect(task.context)
            self._answer(task, result)

    def _publish(self) -> None:
        db = self.db
        for topic in db.take_topics():
            waiting = self._waiting.get(topic)
            if waiting:
                for task in list(waiting):
                    self._resume(task)
            for state in self._loops_by_topic.get(topic, ()):
                if not state.woken:
                    state.woken = True
                    self.on_work()
        for action in db.take_actions():
            try:
                action()
            except Exception:
                self.on_defect(f"defect after a commit:\n{traceback.format_exc()}")

    # -- waiting --------------------------------------------------------------------------------------------------

    def _park(self, task: Task) -> None:
        wait = task.parked
        assert wait is not None
        for topic in wait.topics:
            self._waiting.setdefault(topic, {})[task] = None
        if task.timer != wait.until:
            task.timer = wait.until
            heapq.heappush(self._timers, (wait.until, next(self._sequence), task))
        self.on_work()

    def _unpark(self, task: Task) -> None:
        wait = task.parked
        assert wait is not None
        task.parked = None
        for topic in wait.topics:
            waiting = self._waiting.get(topic)
            if waiting is not None:
                waiting.pop(task, None)
                if not waiting:
                    del self._waiting[topic]

    def _resume(self, task: Task) -> None:
        wait = task.parked
        assert wait is not None
        self._unpark(task)
        task.run = wait.again
        self._ready.append(task)
        self.on_work()

    def _expire(self, now: float) -> None:
        timers = self._timers
        while timers and timers[0][0] <= now:
            task = heapq.heappop(timers)[2]
            task.timer = None
            if task.parked is not None and task.parked.until <= now:
                self._resume(task)

    def _defect(self, context: Context, where: str = "an operation") -> AwsError:
        """Our own mistake: the trace goes to the server's log, the client gets a clean InternalFailure."""
        self.on_defect(f"defect in {where} (request {context.request_id}):\n{traceback.format_exc()}")
        return AwsError("InternalFailure", "The request processing has failed because of an unknown error.", 500)


def _nothing(ctx: Context) -> Outcome:
    """What a task runs that has no transaction."""
    return {}

"""Sessions, their queries, and the lock of writers. All of it is kept on the core's thread; DuckDB works on threads of
its own (`Background`).

A session's statements run one after the other. One transaction writes at a time: a statement that may write waits for
the transaction that does, up to LOCK_TIMEOUT.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from preheat.kernel.clock import Clock
from preheat.kernel.entropy import Entropy
from preheat.kernel.stream import Background
from preheat.snowflake.engine import Engine, MissingDependency, Query, Session
from preheat.snowflake.errors import TIMED_OUT, SnowflakeError, canceled
from preheat.snowflake.results import Outcome
from preheat.snowflake.statements import writes

TOKEN_S = 3_600
MASTER_S = 14_400
INTERRUPT_S = 0.05
KEPT_S = 86_400
KEPT_QUERIES = 1_000
KEPT_BYTES = 1024 * 1024 * 1024
KEPT_HELD = 32 * 1024 * 1024
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
Later = Callable[[float, Callable[[], None]], Any]


@dataclass(eq=False)
class Job:
    """One request for a query. `outcome` is None while it is not done; `answers` are told then."""

    query: Query
    live: "Live"
    request: str
    started: float
    answers: list[Callable[[Outcome], None]] = field(default_factory=list)
    outcome: Outcome | None = None
    running: bool = False
    reason: SnowflakeError | None = None
    timer: Any = None
    ended: float = 0.0


@dataclass(eq=False)
class Live:
    """A session of a driver; times are the clock's, epoch seconds."""

    session: Session
    token: str
    master: str
    token_ends: float
    master_ends: float
    queue: deque[Job] = field(default_factory=deque)
    job: Job | None = None
    closed: bool = False


class Desk:
    def __init__(
        self, engine: Engine, clock: Clock, entropy: Entropy, later: Later, background: Callable[[], Background]
    ) -> None:
        self.engine = engine
        self._clock = clock
        self._entropy = entropy
        self._later = later
        self._make_background = background
        self._background: Any = None
        self._tokens: dict[str, Live] = {}
        self._masters: dict[str, Live] = {}
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._children: dict[str, Outcome] = {}
        self._requests: dict[tuple[int, str], Job] = {}
        self._writer: Live | None = None
        self._waiting: deque[Job] = deque()
        self._numbers = 0
        engine.lookup = self.outcome

    # -- sessions -------------------------------------------------------------------------------------------------

    def login(self, data: dict[str, Any], wanted: dict[str, Any], done: Callable[[Any], None]) -> None:
        """`done` gets the Live session, or a SnowflakeError."""
        self._sweep()
        self._numbers += 1
        number = int(self._clock.now() * 1_000) * 1_000 + self._numbers % 1_000

        def work() -> Session:
            from preheat.snowflake.login import identified

            self.engine.open()
            user = identified(self.engine, data)
            return self.engine.session(number, user, str(data.get("ACCOUNT_NAME") or "LOCAL").upper(), wanted)

        def finish(value: Any) -> None:
            if isinstance(value, MissingDependency):
                value = SnowflakeError(390400, "08001", str(value))
            if isinstance(value, Session):
                now = self._clock.now()
                value = Live(value, self._secret(), self._secret(), now + TOKEN_S, now + MASTER_S)
                self._tokens[value.token] = self._masters[value.master] = value
            elif not isinstance(value, SnowflakeError):
                value = SnowflakeError(390400, "08001", f"The login failed: {value}")
            done(value)

        self._run(work, finish)

    def _secret(self) -> str:
        return "ver:1-hint:0-ETMsDgAAA" + "".join(ALPHABET[one % len(ALPHABET)] for one in self._entropy.bytes(40))

    def session(self, token: str) -> Live:
        """Raises 390111 for a token that was never given or whose session is gone, 390112 for one that has expired."""
        live = self._tokens.get(token)
        if live is None:
            text = "Session no longer exists. New login required to access the service."
            raise SnowflakeError(390111, "08001", text)
        now = self._clock.now()
        if now > live.master_ends:
            self.close_session(live)
            raise SnowflakeError(390114, "08001", "Authentication token has expired. The user must authenticate again.")
        if now > live.token_ends or token != live.token:
            raise SnowflakeError(390112, "08001", "Your session has expired. Please login again.")
        return live

    def renew(self, master: str) -> Live:
        """A new session token for the master token. Raises 390113, 390114."""
        live = self._masters.get(master)
        if live is None:
            raise SnowflakeError(390113, "08001", "Master token is not found.")
        now = self._clock.now()
        if now > live.master_ends:
            self.close_session(live)
            raise SnowflakeError(390114, "08001", "Authentication token has expired. The user must authenticate again.")
        live.token = self._secret()
        live.token_ends, live.master_ends = now + TOKEN_S, now + MASTER_S
        self._tokens[live.token] = live
        return live

    def heartbeat(self, live: Live) -> None:
        live.master_ends = self._clock.now() + MASTER_S

    def close_session(self, live: Live) -> None:
        """What runs is interrupted, what waits is canceled, an open transaction is rolled back."""
        live.closed = True
        for job in list(live.queue):
            self._finish(job, self._failed(job, canceled()))
        live.queue.clear()
        for table in (self._tokens, self._masters):
            for key in [key for key, one in table.items() if one is live]:
                del table[key]
        if live.job is not None:
            self._interrupt(live.job, canceled())
            return
        self._end_session(live)

    def _end_session(self, live: Live) -> None:
        def done(value: Any) -> None:
            self._release(live)

        self._run(live.session.close, done)

    def _sweep(self) -> None:
        now = self._clock.now()
        for live in [one for one in self._masters.values() if now > one.master_ends]:
            self.close_session(live)

    # -- queries --------------------------------------------------------------------------------------------------

    def submit(self, live: Live, query: Query, request: str) -> Job:
        """Run it in its turn. A request that is sent again is the same job."""
        known = self._requests.get((live.session.number, request))
        if known is not None:
            return known
        job = Job(query, live, request, self._clock.now())
        self._jobs[query.id] = job
        self._requests[(live.session.number, request)] = job
        live.queue.append(job)
        self._forget()
        self._pump(live)
        return job

    def _pump(self, live: Live) -> None:
        if live.job is not None or not live.queue:
            return
        job = live.queue[0]
        if not job.query.describe_only and writes(job.query.text):
            if self._writer not in (None, live):
                if job not in self._waiting:
                    self._waiting.append(job)
                    limit = live.session.parameters["LOCK_TIMEOUT"]
                    job.timer = self._later(limit, lambda: self._lock_timed_out(job))
                return
            self._writer = live
        live.queue.popleft()
        self._stop_timer(job)
        live.job, job.running = job, True
        limit = live.session.parameters["STATEMENT_TIMEOUT_IN_SECONDS"]
        if limit:
            job.timer = self._later(limit, lambda: self._timed_out(job, limit))

        def work() -> Outcome:
            from preheat.snowflake.execution import execute

            return execute(live.session, job.query, self.new_id)

        self._run(work, lambda value: self._done(job, value))

    def _done(self, job: Job, value: Any) -> None:
        live = job.live
        live.job, job.running = None, False
        if not isinstance(value, Outcome):
            text = f"SQL execution internal error: {type(value).__name__}: {value}"
            value = self._failed(job, SnowflakeError(603, "XX000", text))
        if job.reason is not None and value.error is not None:
            value.error = job.reason
        for child in value.children:
            child.final = value.final
            self._children[child.query] = child
        self._finish(job, value)
        if live.closed:
            self._end_session(live)
            return
        if not live.session.in_transaction:
            self._release(live)
        self._pump(live)

    def _release(self, live: Live) -> None:
        """The lock goes to who has waited longest."""
        if self._writer is not live:
            return
        self._writer = None
        if self._waiting:
            self._pump(self._waiting.popleft().live)

    def _finish(self, job: Job, outcome: Outcome) -> None:
        self._stop_timer(job)
        if job in self._waiting:
            self._waiting.remove(job)
        job.outcome, job.ended = outcome, self._clock.now()
        answers, job.answers = job.answers, []
        for answer in answers:
            answer(outcome)

    def _failed(self, job: Job, error: SnowflakeError) -> Outcome:
        return Outcome(job.query.id, job.query.text, error=error)

    def abort(self, live: Live, request: str) -> bool:
        """Cancel the query of a request; whether there was one to cancel."""
        job = self._requests.get((live.session.number, request))
        return job is not None and self.cancel(job)

    def cancel(self, job: Job, reason: SnowflakeError | None = None) -> bool:
        reason = reason or canceled()
        if job.outcome is not None:
            return False
        if job.running:
            self._interrupt(job, reason)
            return True
        live = job.live
        live.queue.remove(job)
        self._finish(job, self._failed(job, reason))
        self._pump(live)
        return True

    def _interrupt(self, job: Job, reason: SnowflakeError) -> None:
        """Again and again until it ends: DuckDB forgets an interrupt that comes before it has begun."""
        job.reason = job.reason or reason
        if job.running:
            job.live.session.connection.interrupt()
            self._later(INTERRUPT_S, lambda: self._interrupt(job, reason))

    def _timed_out(self, job: Job, limit: int) -> None:
        text = f"Statement reached its statement or warehouse timeout of {limit} second(s) and was canceled."
        self.cancel(job, SnowflakeError(630, "57014", text))

    def _lock_timed_out(self, job: Job) -> None:
        self.cancel(job, SnowflakeError(625, "57014", TIMED_OUT.format(query=job.query.id)))

    def _stop_timer(self, job: Job) -> None:
        if job.timer is not None:
            job.timer.cancel()
            job.timer = None

    # -- results --------------------------------------------------------------------------------------------------

    def new_id(self) -> str:
        return "01" + self._entropy.uuid()[2:]

    def job(self, query: str) -> Job | None:
        return self._jobs.get(query)

    def outcome(self, query: str) -> Outcome | None:
        job = self._jobs.get(query)
        return job.outcome if job is not None else self._children.get(query)

    def _forget(self) -> None:
        """Results are kept for a day, the last KEPT_QUERIES of them, up to KEPT_BYTES in files, KEPT_HELD in memory."""
        done = [job.outcome for job in self._jobs.values() if job.outcome is not None]
        size, held = sum(one.size for one in done), sum(one.held for one in done)
        now = self._clock.now()
        for query, job in list(self._jobs.items()):
            full = len(self._jobs) > KEPT_QUERIES or size > KEPT_BYTES or held > KEPT_HELD
            old = full or now - job.started > KEPT_S
            if not old:
                return
            if job.outcome is not None:
                size, held = size - job.outcome.size, held - job.outcome.held
                for one in (job.outcome, *job.outcome.children):
                    one.forget()
                    self._children.pop(one.query, None)
                del self._jobs[query]
                self._requests.pop((job.live.session.number, job.request), None)

    def _run(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        if self._background is None:
            self._background = self._make_background()
        self._background.run(work, done)

    def close(self) -> None:
        """The server ends: what runs is interrupted, nothing is committed any more."""
        for live in list(self._masters.values()):
            if live.job is not None:
                live.session.connection.interrupt()
        if self._background is not None:
            self._background.close()
        for live in self._masters.values():
            live.session.close()
        self._masters, self._tokens, self._jobs, self._requests = {}, {}, OrderedDict(), {}
        self.engine.close()

"""EventBridge: buses, rules, targets, events, archives, replays, connections, API destinations; and its clocks."""

from pathlib import Path
from typing import Any

from preheat.kernel.scope import Scope
from preheat.services.contract import Context, Loop, Operation, Platform
from preheat.services.events import repository
from preheat.services.events.archives import ARCHIVES, REPLAYS, Archives
from preheat.services.events.buses import Buses
from preheat.services.events.connections import Connections, HttpCall
from preheat.services.events.domain import MAX_RULES, Rule
from preheat.services.events.routing import Router
from preheat.services.events.rules import SCHEDULES, Rules, next_due

FIRES_PER_STEP = 100
LEAST_WINDOW_S = 86_400.0


class Schedules:
    """Fires rules at their times. Times that passed while no server ran count once, as the latest of them; times that
    pass while one runs are all kept, however far the clock jumps."""

    name = "events-schedules"
    topics = (SCHEDULES,)

    def __init__(self, router: Router) -> None:
        self._router = router
        self._alive_since: float | None = None

    def step(self, ctx: Context) -> float | None:
        if self._alive_since is None:
            self._alive_since = ctx.now
        rules = repository.due_rules(ctx.db, ctx.now, FIRES_PER_STEP)
        for rule in rules:
            at = rule.next_at
            if at is None:
                continue
            following = next_due(rule.schedule, rule.anchor, at)
            if at < self._alive_since:
                at, following = self._latest_missed(rule, at, following)
            self._router.scheduled(ctx, rule, at)
            repository.set_next(ctx.db, rule.row, following)
        return repository.next_due(ctx.db)

    def _latest_missed(self, rule: Rule, at: float, following: float | None) -> tuple[float, float | None]:
        """(the last due time before the start of this server, the one after it)."""
        alive = self._alive_since or 0.0
        window = LEAST_WINDOW_S
        while alive - window > at:
            near = next_due(rule.schedule, rule.anchor, alive - window)
            if near is not None and near < alive:
                at, following = near, next_due(rule.schedule, rule.anchor, near)
                break
            window *= 2
        while following is not None and following <= alive:
            at, following = following, next_due(rule.schedule, rule.anchor, following)
        return at, following


class Replays:
    """Carries replays on, a little at a time."""

    name = "events-replays"
    topics = (REPLAYS,)

    def __init__(self, archives: Archives) -> None:
        self._archives = archives

    def step(self, ctx: Context) -> float | None:
        return ctx.now if self._archives.advance(ctx) else None


class Expiry:
    """Empties archives of what is older than they keep."""

    name = "events-expiry"
    topics = (ARCHIVES,)

    def __init__(self, archives: Archives) -> None:
        self._archives = archives

    def step(self, ctx: Context) -> float | None:
        return self._archives.expire(ctx)


class EventsService:
    name = "events"
    schema = (Path(__file__).parent / "schema.sql").read_text()

    def __init__(self, platform: Platform) -> None:
        self._connections = Connections()
        router = Router(platform.db, self._connections.slot)
        rules = Rules(router, getattr(platform.settings, "event_rules", MAX_RULES))
        self._buses = Buses(router)
        self._archives = Archives(router, rules)
        self.loops: tuple[Loop, ...] = (Schedules(router), Replays(self._archives), Expiry(self._archives))
        self.operations: dict[str, Operation] = {
            **self._buses.operations,
            **rules.operations,
            **self._archives.operations,
            **self._connections.operations,
        }

    # -- for the rest of the platform -------------------------------------------------------------------------------

    def publish(
        self, ctx: Context, scope: Scope, source: str, detail_type: str, detail: dict[str, Any], resources: list[str]
    ) -> None:
        """An event of an AWS service (`source` "aws.s3") on the default bus of an account and region."""
        self._buses.publish(ctx, scope, source, detail_type, detail, resources)

    def receive(self, ctx: Context, bus: str | None, event: dict[str, Any], trace: str | None = None) -> None:
        """An event that a rule sends from one bus to another (its name or ARN), unchanged."""
        self._buses.receive(ctx, bus, event, trace)

    def http_call(self, ctx: Context, arn: str, http: dict[str, Any], body: str) -> HttpCall:
        """The request that invokes an API destination. Raises AwsError."""
        return self._connections.http_call(ctx, arn, http, body)

    def keep_token(self, arn: str, token: str, expires_at: float) -> None:
        self._connections.keep_token(arn, token, expires_at)

    def drop_token(self, arn: str) -> None:
        self._connections.drop_token(arn)


def build(platform: Platform) -> EventsService:
    return EventsService(platform)

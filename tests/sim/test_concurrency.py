"""Concurrency for simulated days: reserved, unreserved and provisioned, loaded beyond what they have in every way, with
settings changed while it runs, a server that dies and processes that die. The checkers watch from outside."""

from collections import Counter

import pytest

from preheat.execution.gate import Gate
from preheat.execution.pool import PoolLimits
from preheat.execution.provision import Provision
from preheat.execution.workers.scripted import InitScript, Script
from preheat.simulate.checkers import (
    AccountKept,
    Answered,
    DeliveredAtMost,
    EventsConserved,
    NewEnvironments,
    ProvisionedKept,
    RequestRate,
    ReservedKept,
)
from preheat.simulate.faults import Behaviour
from preheat.simulate.workloads import (
    ask,
    change,
    check,
    crashes_at_random,
    create_function,
    find_events,
    queue_with_worker,
    tell,
    workers_die_at_random,
)
from preheat.simulate.world import World

DAY_S = 86_400
HOUR_S = 3_600
LIMIT = 140
PLACES = {"ok": "succeeded", "failed": "destination", "letters": "DLQ"}
QUEUE = "arn:aws:sqs:us-east-1:000000000000:"


class Mixed:
    """Functions fail, crash and hang now and then; `slow` ones take long."""

    slow = ("alpha", "beta", "events")

    def script(self, plan, request, chance):
        mean_s = 5.0 if plan.spec.name in self.slow else 1.5
        return Behaviour(mean_s, error_rate=0.1, crash_rate=0.03, hang_rate=0.01).script(plan, request, chance)


def unsteady(plan, chance):
    """An initialisation that sometimes fails, dies, or is slow."""
    draw = chance.uniform()
    if draw < 0.02:
        return InitScript(0.3, "Runtime.ImportModuleError", b'{"errorType":"Runtime.ImportModuleError"}')
    return InitScript(0.2 + chance.uniform() * 0.5)


class Days:
    """An account of `LIMIT` with seven functions; `checkers` by name."""

    def __init__(self, tmp_path, seed, behaviour=None, initialise=unsteady):
        self.world = world = World(
            seed, tmp_path / f"w{seed}", behaviour or Mixed(), initialise=initialise,
            limits=PoolLimits(account_concurrency=LIMIT),
        )  # fmt: skip
        self.number = 0
        self.changes = Counter()
        self.reserved, self.account, self.rate = ReservedKept(), AccountKept(LIMIT), RequestRate(LIMIT)
        self.environments, self.provisioned = NewEnvironments(), ProvisionedKept()
        self.answered, self.events, self.receives = Answered(), EventsConserved(), DeliveredAtMost(4)
        self.checkers = [self.reserved, self.account, self.rate, self.environments, self.provisioned, self.answered,
                         self.events, self.receives]  # fmt: skip
        check(world, self.checkers)
        world.watchers.append(self._note)
        self.queue = queue_with_worker(world, reserved=4, max_receives=4, batch=2, visibility_s=60).queue
        for name in PLACES:
            world.call("sqs", "CreateQueue", QueueName=name)
        for name, reserved in (("api", 10), ("alpha", None), ("beta", None), ("chat", None), ("search", 8)):
            create_function(world, name, reserved, Timeout=10)
        create_function(world, "events", 2, Timeout=10)
        create_function(world, "late", 1, Timeout=10, DeadLetterConfig={"TargetArn": f"{QUEUE}letters"})
        ok, failed = {"Destination": f"{QUEUE}ok"}, {"Destination": f"{QUEUE}failed"}
        for name, config in (("events", {"OnSuccess": ok, "OnFailure": failed}), ("late", {"OnSuccess": ok})):
            world.call("lambda", "PutFunctionEventInvokeConfig", FunctionName=name, DestinationConfig=config,
                       MaximumEventAgeInSeconds=90, MaximumRetryAttempts=1)  # fmt: skip
        for name in ("chat", "search"):
            world.call("lambda", "PublishVersion", FunctionName=name)
            world.call("lambda", "UpdateFunctionConfiguration", FunctionName=name, MemorySize=256)
            world.call("lambda", "PublishVersion", FunctionName=name)
            world.call("lambda", "CreateAlias", FunctionName=name, Name="live", FunctionVersion="1")

    def _note(self, kind, at, details):
        if kind == "changed":
            self.changes[details["operation"], details["said"]] += 1

    def burst(self):
        """Everything at once, more of it than there is room for."""
        world = self.world
        start = world.clock.now()
        for name, qualifier, count in (
            ("api", None, 30), ("alpha", None, 90), ("beta", None, 90), ("chat", "live", 20), ("search", "live", 20),
            ("search", "2", 4),
        ):  # fmt: skip
            for _ in range(count):
                moment = start + world.chance.uniform() * 4
                world.at(moment, lambda name=name, qualifier=qualifier: self._ask(name, qualifier))
        for index in range(12):
            world.at(start + index / 4, lambda: self._tell("events"))
            world.at(start + index / 4, lambda: self._tell("late"))
            body = {"QueueUrl": self.queue, "MessageBody": f"m{self._next()}"}
            world.at(start, lambda body=body: world.machine.submit("sqs", "SendMessage", body, lambda reply: None))

    def _next(self):
        self.number += 1
        return self.number

    def _ask(self, name, qualifier):
        ask(self.world, self._next(), name, qualifier)

    def _tell(self, name):
        tell(self.world, self._next(), name)

    def settings(self):
        """A change, drawn from all that there are."""
        draw = self.world.chance.uniform

        def one():
            name = ("chat", "search")[int(draw() * 2)]
            live, count = {"FunctionName": name, "Qualifier": "live"}, 1 + int(draw() * 8)
            choices = (
                ("PutFunctionConcurrency", {"FunctionName": "api", "ReservedConcurrentExecutions": int(draw() * 12)}),
                ("PutFunctionConcurrency", {"FunctionName": name, "ReservedConcurrentExecutions": 4 + int(draw() * 8)}),
                ("DeleteFunctionConcurrency", {"FunctionName": name}),
                ("PutProvisionedConcurrencyConfig", {**live, "ProvisionedConcurrentExecutions": count}),
                ("PutProvisionedConcurrencyConfig", {**live, "ProvisionedConcurrentExecutions": count}),
                ("PutProvisionedConcurrencyConfig",
                 {"FunctionName": name, "Qualifier": "2", "ProvisionedConcurrentExecutions": count}),
                ("DeleteProvisionedConcurrencyConfig", live),
                ("DeleteProvisionedConcurrencyConfig", {**live, "Qualifier": "2"}),
                ("UpdateAlias", {"FunctionName": name, "Name": "live", "FunctionVersion": "12"[int(draw() * 2)]}),
                ("UpdateAlias", {"FunctionName": name, "Name": "live", "FunctionVersion": "1",
                                 "RoutingConfig": {"AdditionalVersionWeights": {"2": 0.3}}}),
                ("UpdateAlias", {"FunctionName": name, "Name": "live", "FunctionVersion": "1",
                                 "RoutingConfig": {"AdditionalVersionWeights": {}}}),
            )  # fmt: skip
            operation, params = choices[int(draw() * len(choices))]
            change(self.world, operation, **params)

        return one

    def live(self, days, every_s, crashes, deaths):
        """Bursts, with changes of the settings before and in the middle of each."""
        world, start = self.world, self.world.clock.now()
        for number in range(int(days * DAY_S / every_s)):
            moment = start + number * every_s
            world.at(moment, self.burst)
            for _ in range(6):
                world.at(moment + (world.chance.uniform() - 0.5) * 16, self.settings())
            if number < crashes:
                statement = 1 + int(world.chance.uniform() * 300)
                world.at(moment + world.chance.uniform() * 8, lambda statement=statement: world.db.arm(statement))
            for _ in range(deaths):
                world.at(moment + world.chance.uniform() * 8, self.kill)
        crashes_at_random(world, days * DAY_S, crashes)
        workers_die_at_random(world, days * DAY_S, 40)
        for _ in range(int(days * DAY_S / every_s)):
            world.run(6)
            find_events(world, PLACES)
            world.run(every_s - 6)
        world.db.disarm()
        world.run(HOUR_S)
        find_events(world, PLACES)

    def kill(self):
        alive = self.world.factory.alive
        if alive:
            alive[int(self.world.chance.uniform() * len(alive))].perish()

    def violations(self):
        return [found for checker in self.checkers for found in checker.violations()]


@pytest.mark.parametrize("seed", [1, 2])
def test_two_days_of_everything(tmp_path, seed):
    days = Days(tmp_path, seed)
    days.live(2, 4 * HOUR_S, crashes=9, deaths=3)
    assert days.violations() == []
    assert days.world.crashes >= 9 and days.answered.broken > 0
    assert days.account.peak >= LIMIT - 5 and days.account.refusals > 0
    assert [days.reserved.peaks[name] for name in ("worker", "events", "late")] == [4, 2, 1]
    assert days.provisioned.used > 50 and days.provisioned.spilled > 20
    for operation in ("UpdateAlias", "PutProvisionedConcurrencyConfig", "DeleteProvisionedConcurrencyConfig",
                      "PutFunctionConcurrency", "DeleteFunctionConcurrency"):  # fmt: skip
        assert days.changes[operation, "ok"] > 2
    places = Counter(where[0] for where in days.events.places.values())
    assert places.keys() == {"succeeded", "destination", "DLQ", "expired"}
    usage = days.world.pool.usage()
    assert usage.by_function == {} and usage.running == usage.starting == usage.waiting == 0
    sql = "SELECT count(*) FROM sqs_messages WHERE queue_id = (SELECT id FROM sqs_queues WHERE name = 'work')"
    assert days.world.db.value(sql) == 0


def test_same_seed_same_days_of_everything(tmp_path):
    traces = []
    for number, seed in enumerate((51, 51, 52)):
        days = Days(tmp_path / str(number), seed)
        days.live(0.125, 3 * HOUR_S, crashes=3, deaths=3)
        traces.append(days.world.trace())
    assert traces[0] == traces[1] != traces[2]


# -- one rule at a time -----------------------------------------------------------------------------------------------


def world_of(tmp_path, limit=1_000, mean_s=1.0, behaviour=None, initialise=None):
    limits = PoolLimits(account_concurrency=limit, max_environments=20_000)
    world = World(7, tmp_path / "w", behaviour or Behaviour(mean_s), limits=limits, initialise=initialise)
    checkers = {
        one.__class__: one
        for one in (ReservedKept(), AccountKept(limit), RequestRate(limit), NewEnvironments(), ProvisionedKept(),
                    Answered())
    }  # fmt: skip
    check(world, list(checkers.values()))
    return world, checkers


def all_at_once(world, function, count, over_s=0.0, qualifier=None):
    start = world.clock.now()
    for index in range(count):
        world.at(start + over_s * index / count, lambda: ask(world, world.entropy.uuid(), function, qualifier))


def found(checkers):
    return [line for one in checkers.values() for line in one.violations()]


def published(world, name="chat", count=None, **settings):
    """A function with a version 1, an alias `live` and so much provisioned concurrency."""
    create_function(world, name, **settings)
    world.call("lambda", "PublishVersion", FunctionName=name)
    world.call("lambda", "CreateAlias", FunctionName=name, Name="live", FunctionVersion="1")
    if count is not None:
        provide(world, count, name)


def provide(world, count, name="chat"):
    world.call("lambda", "PutProvisionedConcurrencyConfig", FunctionName=name, Qualifier="live",
               ProvisionedConcurrentExecutions=count)  # fmt: skip


def provided(world, name="chat"):
    return world.call("lambda", "GetProvisionedConcurrencyConfig", FunctionName=name, Qualifier="live")


def test_a_thousand_environments_and_a_hundred_more_a_second(tmp_path):
    world, checkers = world_of(tmp_path, limit=3_000, behaviour=Lasting(60.0))
    create_function(world, "f", Timeout=100)
    all_at_once(world, "f", 1_500)
    world.run(0.5)
    started, answers = checkers[NewEnvironments].started, checkers[Answered].answers
    assert started["f"] == 1_000 and answers["FunctionInvocationRateLimitExceeded"] == 500
    world.run(1.5)
    all_at_once(world, "f", 1_500, 3.0)
    world.run(200)
    assert started["f"] == pytest.approx(1_000 + 500, abs=3) and found(checkers) == []


class Lasting:
    """Every invocation takes as long as the last."""

    def __init__(self, seconds):
        self._seconds = seconds

    def script(self, plan, request, chance):
        return Script(self._seconds)


def test_requests_are_held_to_ten_a_second_for_each_unit(tmp_path):
    """Functions that take no time: concurrency is never short, the rate is."""
    world, checkers = world_of(tmp_path, behaviour=Lasting(0.001))
    create_function(world, "f", 3)
    published(world, count=2)
    world.run(5)
    all_at_once(world, "f", 400, 4.0)
    all_at_once(world, "chat", 400, 4.0, "live")
    world.run(10)
    answers = checkers[Answered].answers
    assert answers["ok"] - 400 == pytest.approx(30 + 4 * 30, abs=5)
    assert answers["ReservedFunctionInvocationRateLimitExceeded"] > 200
    assert checkers[ProvisionedKept].used == pytest.approx(20 + 4 * 20, abs=3)
    assert checkers[ProvisionedKept].spilled + checkers[ProvisionedKept].used == 400
    assert found(checkers) == []


def test_a_hundred_stay_for_functions_without_a_reservation(tmp_path):
    """Reservations and provisioned concurrency take all that may be taken, and an alias with it moves."""
    world, checkers = world_of(tmp_path, limit=150, behaviour=Lasting(8.0))
    create_function(world, "kept", 20, Timeout=60)
    create_function(world, "f", Timeout=60)
    published(world, count=30, Timeout=60)
    world.run(5)
    world.call("lambda", "UpdateFunctionConfiguration", FunctionName="chat", MemorySize=256)
    world.call("lambda", "PublishVersion", FunctionName="chat")
    all_at_once(world, "chat", 40, 0.1, "live")
    world.run(1)
    world.call("lambda", "UpdateAlias", FunctionName="chat", Name="live", FunctionVersion="2")
    for _ in range(6):
        all_at_once(world, "f", 110, 0.1)
        all_at_once(world, "kept", 30, 0.1)
        all_at_once(world, "chat", 50, 0.1, "live")
        world.run(4.0)
    world.run(100)
    assert found(checkers) == [] and checkers[AccountKept].peak == 150


def test_what_provisioned_versions_run_counts_against_the_reservation(tmp_path):
    """The old version's invocations still run when the new version is ready."""
    world, checkers = world_of(tmp_path, behaviour=Lasting(8.0))
    published(world, count=6, reserved=6, Timeout=60)
    world.run(5)
    all_at_once(world, "chat", 6, 0.1, "live")
    world.run(1)
    world.call("lambda", "UpdateFunctionConfiguration", FunctionName="chat", MemorySize=256)
    world.call("lambda", "PublishVersion", FunctionName="chat")
    world.call("lambda", "UpdateAlias", FunctionName="chat", Name="live", FunctionVersion="2")
    world.run(2)
    assert provided(world)["Status"] == "READY"
    all_at_once(world, "chat", 6, 0.1, "live")
    world.run(60)
    assert checkers[Answered].answers == {"ok": 6, "ReservedFunctionConcurrentInvocationLimitExceeded": 6}
    assert found(checkers) == [] and checkers[ReservedKept].peaks["chat"] == 6


def test_provisioned_environments_come_back_whatever_kills_them(tmp_path):
    """Killed while idle and while busy, and with the server; never more than asked for, never fewer for long."""
    world, checkers = world_of(tmp_path, behaviour=Behaviour(2.0, crash_rate=0.2, hang_rate=0.05))
    published(world, count=5)
    workers_die_at_random(world, DAY_S, 300)
    crashes_at_random(world, DAY_S, 6)
    for _ in range(24):
        all_at_once(world, "chat", 30, 60.0, "live")
        world.run(HOUR_S)
    world.db.disarm()
    world.run(60)
    state = provided(world)
    assert (state["Status"], state["AvailableProvisionedConcurrentExecutions"]) == ("READY", 5)
    assert found(checkers) == [] and checkers[ProvisionedKept].used > 300 and world.crashes >= 4


def test_an_allocation_that_cannot_initialise_fails_and_leaves_what_was_there(tmp_path):
    broken = [False]

    def initialise(plan, chance):
        return InitScript(0.5, "Runtime.ImportModuleError") if broken[0] else InitScript(0.5)

    world, checkers = world_of(tmp_path, initialise=initialise)
    published(world, count=3)
    world.run(5)
    broken[0] = True
    provide(world, 6)
    world.run(30)
    state = provided(world)
    assert (state["Status"], state["StatusReason"]) == ("FAILED", "FUNCTION_ERROR_INIT_FAILURE")
    assert state["AvailableProvisionedConcurrentExecutions"] == 3
    all_at_once(world, "chat", 3, 0.1, "live")
    world.run(30)
    broken[0] = False
    provide(world, 6)
    world.run(5)
    assert provided(world)["Status"] == "READY" and found(checkers) == []
    assert checkers[ProvisionedKept].used == 3


# -- the checkers find what is wrong ----------------------------------------------------------------------------------


class OneTooMany(Gate):
    """Reserved concurrency and the account's limit are each off by one."""

    def admit(self, function, now, synchronous=True):
        account = self.function(function)
        self.account_limit += 1
        if account.reserved is not None:
            account.reserved += 1
        try:
            return super().admit(function, now, synchronous)
        finally:
            self.account_limit -= 1
            if account.reserved is not None:
                account.reserved -= 1


class Greedy(Gate):
    """Reservations eat of the hundred that everybody shares."""

    @property
    def unreserved_limit(self):
        return super().unreserved_limit - 60


class Boundless(Gate):
    """Neither requests nor new environments are limited in rate."""

    def admit(self, function, now, synchronous=True):
        return super().admit(function, now, synchronous=False)

    def admit_provisioned(self, function, version, now, synchronous=True):
        return super().admit_provisioned(function, version, now, synchronous=False)

    def admit_start(self, function, now):
        return None


class Miserly(Gate):
    """Half of what is provisioned is never given out."""

    def admit_provisioned(self, function, version, now, synchronous=True):
        lane = self.function(function).provisioned.get(version)
        if lane is not None and lane.in_flight >= lane.limit // 2:
            return None
        return super().admit_provisioned(function, version, now, synchronous)


class Forgetful(Provision):
    """What dies is not replaced."""

    def gone(self, environment):
        self._remove(environment)
        self.host.buried(environment)

    def fill(self):
        if not self._usable:
            super().fill()


class Hasty(Provision):
    """Each is used as soon as it is ready."""

    def available(self, environment):
        super().available(environment)
        if environment in self._warm:
            self._warm.remove(environment)
            self._usable[environment] = None
            self._idle.append(environment)


class Lavish(Provision):
    """One more than was asked for."""

    def set(self, count):
        super().set(count + 1 if count else 0)


def loaded(tmp_path):
    """Every limit is reached once; what the checkers say."""
    world, checkers = world_of(
        tmp_path, limit=150, behaviour=Lasting(3.0), initialise=lambda plan, chance: InitScript(0.2 + chance.uniform())
    )
    create_function(world, "kept", 20, Timeout=60)
    create_function(world, "quick", 2, Timeout=60)
    create_function(world, "f", Timeout=60)
    published(world, count=6, Timeout=60)
    all_at_once(world, "chat", 10, 1.0, "live")
    world.run(10)
    all_at_once(world, "chat", 10, 0.1, "live")
    all_at_once(world, "f", 140, 0.1)
    all_at_once(world, "kept", 40, 0.1)
    all_at_once(world, "quick", 4, 0.1)
    world.run(10)
    for worker in world.factory.alive[:3]:
        worker.perish()
    world.run(30)
    world.behaviour = Lasting(0.0)
    all_at_once(world, "quick", 300, 1.0)
    world.run(30)
    return {one.__name__ for one, checker in checkers.items() if checker.violations()}


def test_what_is_right_passes(tmp_path):
    assert loaded(tmp_path) == set()


@pytest.mark.parametrize(("mutant", "caught"), [
    (OneTooMany, {"ReservedKept", "AccountKept"}), (Greedy, {"AccountKept"}), (Boundless, {"RequestRate"}),
    (Miserly, {"ProvisionedKept"}),
])  # fmt: skip
def test_a_gate_that_is_wrong_is_caught(tmp_path, monkeypatch, mutant, caught):
    monkeypatch.setattr("preheat.execution.pool.Gate", mutant)
    assert caught <= loaded(tmp_path)


@pytest.mark.parametrize("mutant", [Forgetful, Hasty, Lavish])
def test_provisioned_concurrency_that_is_wrong_is_caught(tmp_path, monkeypatch, mutant):
    monkeypatch.setattr("preheat.execution.provision.Provision", mutant)
    assert loaded(tmp_path) == {"ProvisionedKept"}


def test_scaling_without_a_limit_is_caught(tmp_path, monkeypatch):
    monkeypatch.setattr("preheat.execution.pool.Gate", Boundless)
    world, checkers = world_of(tmp_path, limit=3_000, behaviour=Lasting(60.0))
    create_function(world, "f", Timeout=100)
    all_at_once(world, "f", 1_200)
    world.run(0.5)
    assert checkers[NewEnvironments].violations()


def test_requests_left_open_or_answered_twice_are_caught(tmp_path):
    world, checkers = world_of(tmp_path)
    create_function(world, "f")
    ask(world, 1, "f")
    world.run(0.1)
    assert checkers[Answered].violations() == ["request 1 was never answered"]
    world.run(10)
    assert checkers[Answered].violations() == []
    world.record("answered", number=1, answer="ok")
    assert "twice" in checkers[Answered].violations()[0]


@pytest.mark.parametrize(("wrong", "said"), [
    ("DELETE FROM due WHERE kind = 'lambda.async'", "is lost"),
    ("INSERT INTO due (due_at, kind, payload) SELECT due_at, kind, payload FROM due", "is in ['queue', 'queue']"),
])  # fmt: skip
def test_events_that_are_lost_or_doubled_are_caught(tmp_path, wrong, said):
    world, _ = world_of(tmp_path)
    events = EventsConserved()
    check(world, [events])
    create_function(world, "f", 1)
    tell(world, 1, "f")
    tell(world, 2, "f")
    world.run(0.1)
    find_events(world, PLACES)
    assert events.violations() == [] and events.accepted == {1, 2}
    world.db.begin()
    world.db.run(wrong)
    world.db.commit()
    find_events(world, PLACES)
    assert any(said in line for line in events.violations())

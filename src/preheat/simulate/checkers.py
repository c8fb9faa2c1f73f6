"""Invariants, one class each. A checker watches the trace and says at the end what was violated."""

import json
from collections import Counter
from typing import Any, Protocol


class Checker(Protocol):
    def watch(self, kind: str, at: float, details: dict[str, Any]) -> None: ...

    def violations(self) -> list[str]: ...


def bodies(payload: bytes) -> list[str]:
    """The message bodies of an SQS event."""
    return [record["body"] for record in json.loads(payload).get("Records", [])]


class NothingLost:
    """Every acknowledged message was processed to its end, or is still in a queue or a dead-letter queue."""

    def __init__(self) -> None:
        self.acknowledged: set[str] = set()
        self.processed: set[str] = set()
        self.resting: set[str] = set()

    def watch(self, kind: str, at: float, details: dict[str, Any]) -> None:
        if kind == "sent":
            self.acknowledged.add(details["body"])
        elif kind == "invoke":
            self.processed.update(bodies(details["payload"]))
        elif kind == "resting":
            self.resting.add(details["body"])

    def violations(self) -> list[str]:
        return [f"lost: {body}" for body in sorted(self.acknowledged - self.processed - self.resting)]


class NoneAfterDelete:
    """A message whose deletion has committed is not delivered again."""

    def __init__(self) -> None:
        self._deleted: set[str] = set()
        self._found: list[str] = []

    def watch(self, kind: str, at: float, details: dict[str, Any]) -> None:
        if kind == "deleted":
            self._deleted.add(details["body"])
        elif kind == "invoke":
            self._found += [f"delivered after its deletion: {body}" for body in bodies(details["payload"])
                            if body in self._deleted]  # fmt: skip

    def violations(self) -> list[str]:
        return self._found


class ConcurrencyBound:
    """Never more than `limit` invocations at once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._ends: list[float] = []
        self.peak = 0

    def watch(self, kind: str, at: float, details: dict[str, Any]) -> None:
        if kind == "crash":
            self._ends.clear()
        elif kind == "invoke":
            self._ends = [end for end in self._ends if end > at + 1e-6]
            self._ends.append(at + details["seconds"])
            self.peak = max(self.peak, len(self._ends))

    def violations(self) -> list[str]:
        return [f"{self.peak} invocations at once, the limit is {self._limit}"] if self.peak > self._limit else []


class DeliveredAtMost:
    """No message is delivered more than `count` times: the receive after that moves it to the dead-letter queue."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.deliveries: Counter[str] = Counter()

    def watch(self, kind: str, at: float, details: dict[str, Any]) -> None:
        if kind == "invoke":
            self.deliveries.update(bodies(details["payload"]))

    def violations(self) -> list[str]:
        return [f"{body} delivered {times} times" for body, times in self.deliveries.items() if times > self._count]


class OnePlace:
    """No message rests in two queues at the end."""

    def __init__(self) -> None:
        self._places: dict[str, list[str]] = {}

    def watch(self, kind: str, at: float, details: dict[str, Any]) -> None:
        if kind == "resting":
            self._places.setdefault(details["body"], []).append(details["queue"])

    def violations(self) -> list[str]:
        return [f"{body} rests in {places}" for body, places in self._places.items() if len(places) > 1]


# -- concurrency ------------------------------------------------------------------------------------------------------

REQUESTS_PER_UNIT = 10.0
NEW_ENVIRONMENTS = 1_000.0
NEW_ENVIRONMENTS_PER_S = 100.0
MIN_UNRESERVED = 100
_ROUNDING = 1e-3


class Window:
    """At most `burst` events at once, and `rate` a second on top of that, however the window is laid."""

    def __init__(self, burst: float, rate: float) -> None:
        self.burst = burst
        self.rate = rate
        self._number = 0
        self._floor = float("inf")

    def add(self, at: float) -> bool:
        """One more; whether that is still allowed. `at` does not go back."""
        lead = self._number - self.rate * at
        self._number += 1
        self._floor = min(self._floor, lead)
        return lead - self._floor + 1 <= self.burst + _ROUNDING


class InFlight:
    """Keeps count of what is admitted and not finished. `held` is the provisioned concurrency by (function, version),
    `limits` the reserved concurrency: both outlive the server, what runs does not."""

    def __init__(self) -> None:
        self.running: dict[str, tuple[str, str, str]] = {}
        self.counts: Counter[tuple[str, str]] = Counter()
        self.limits: dict[str, int] = {}
        self.held: dict[tuple[str, str], int] = {}
        self.found: list[str] = []

    def watch(self, kind: str, at: float, details: dict[str, Any]) -> None:
        if kind == "admitted":
            function = details["function"]
            pool = "ahead" if details["ahead"] else "reserved" if function in self.limits else "unreserved"
            self.running[details["request"]] = function, details["version"], pool
            self.counts.update((("total", ""), ("function", function), (pool, function), (pool, "")))
            self.admitted(at, details)
        elif kind == "finished":
            function, _, pool = self.running.pop(details["request"])
            self.counts.subtract((("total", ""), ("function", function), (pool, function), (pool, "")))
        elif kind == "refused":
            self.refused(at, details)
        elif kind == "reserved":
            self.limits.pop(details["function"], None)
            if details["limit"] is not None:
                self.limits[details["function"]] = details["limit"]
        elif kind == "provision":
            self.held = {key: count for key, count in self.held.items() if key[0] != details["function"]}
            for version, (count, _) in details["counts"].items():
                self.held[details["function"], version] = count
        elif kind == "crash":
            self.running.clear()
            self.counts.clear()

    def allocated(self, function: str) -> int:
        """The provisioned units of a function: those asked for, and those in use beyond that."""
        used = Counter(version for name, version, pool in self.running.values() if name == function and pool == "ahead")
        asked = {version: count for (name, version), count in self.held.items() if name == function}
        return sum(max(used[version], asked.get(version, 0)) for version in {*used, *asked})

    def admitted(self, at: float, details: dict[str, Any]) -> None: ...

    def refused(self, at: float, details: dict[str, Any]) -> None: ...

    def violations(self) -> list[str]:
        return self.found


class ReservedKept(InFlight):
    """Never more than the reserved concurrency of a function runs, and never less is refused. `peaks` by function."""

    def __init__(self) -> None:
        super().__init__()
        self.peaks: Counter[str] = Counter()

    def admitted(self, at: float, details: dict[str, Any]) -> None:
        function = details["function"]
        count, limit = self.counts["function", function], self.limits.get(function)
        self.peaks[function] = max(self.peaks[function], count)
        if limit is not None and count > limit:
            self.found.append(f"{at}: {count} of {function} run, {limit} are reserved")

    def refused(self, at: float, details: dict[str, Any]) -> None:
        function = details["function"]
        if details["reason"] != "ReservedFunctionConcurrentInvocationLimitExceeded":
            return
        used = self.counts["reserved", function] + self.counts["unreserved", function] + self.allocated(function)
        if used < self.limits.get(function, 0):
            self.found.append(f"{at}: {function} was refused with {used} of {self.limits[function]} reserved in use")


class AccountKept(InFlight):
    """Never more than the account's limit runs; while there is room in it, a hundred stay for functions without a
    reservation. `peak` altogether, `refusals` for want of the account's concurrency."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self.peak = 0
        self.refusals = 0

    def admitted(self, at: float, details: dict[str, Any]) -> None:
        count = self.counts["total", ""]
        self.peak = max(self.peak, count)
        if count > self._limit:
            self.found.append(f"{at}: {count} run, the account's limit is {self._limit}")

    def refused(self, at: float, details: dict[str, Any]) -> None:
        if details["reason"] != "ConcurrentInvocationLimitExceeded":
            return
        self.refusals += 1
        used = self.counts["unreserved", ""]
        if self.counts["total", ""] < self._limit and used < MIN_UNRESERVED:
            self.found.append(f"{at}: {details['function']} was refused with {used} unreserved in use")


class RequestRate(InFlight):
    """Synchronous requests: at once as many as the units of concurrency allow in a second, and then ten a second for
    each unit."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self._windows: dict[tuple[str, str], Window] = {}

    def watch(self, kind: str, at: float, details: dict[str, Any]) -> None:
        super().watch(kind, at, details)
        if kind == "crash":
            self._windows.clear()

    def admitted(self, at: float, details: dict[str, Any]) -> None:
        if details["asynchronous"]:
            return
        function = details["function"]
        if details["ahead"]:
            key, units = (function, details["version"]), self.held.get((function, details["version"]), 0)
        elif function in self.limits:
            key, units = (function, ""), self.limits[function]
        else:
            key, units = ("", ""), self._limit
        rate = units * REQUESTS_PER_UNIT
        window = self._windows.get(key)
        if window is None or window.rate != rate:
            window = self._windows[key] = Window(rate, rate)
        if not window.add(at):
            self.found.append(f"{at}: more than {rate} requests a second for {key}")


class NewEnvironments:
    """A function gets no more than a thousand new environments at once, and a hundred a second after that."""

    def __init__(self) -> None:
        self._windows: dict[str, Window] = {}
        self._found: list[str] = []
        self.started: Counter[str] = Counter()

    def watch(self, kind: str, at: float, details: dict[str, Any]) -> None:
        if kind == "crash":
            self._windows.clear()
        if kind != "environment" or details["ahead"] or not details["fresh"]:
            return
        function = details["function"]
        self.started[function] += 1
        window = self._windows.setdefault(function, Window(NEW_ENVIRONMENTS, NEW_ENVIRONMENTS_PER_S))
        if not window.add(at):
            self._found.append(f"{at}: {function} scales faster than AWS lets it")

    def violations(self) -> list[str]:
        return self._found


class Ahead:
    """The provisioned environments of one version as seen from outside. `usable` may be used; `goal` differs from what
    was asked for after a failure; `leaving` bounds how many of `old`, busy when the number was lowered, end with it."""

    def __init__(self, key: tuple[str, str]) -> None:
        self.key = key
        self.requested = self.goal = self.leaving = 0
        self.token = self.said = ""
        self.complete = False
        self.alive: dict[str, None] = {}
        self.ready: dict[str, None] = {}
        self.usable: dict[str, None] = {}
        self.busy: dict[str, str] = {}
        self.old: set[str] = set()
        self.short_since: float | None = None
        self.taken: list[float] = []

    def ask(self, count: int, token: str) -> None:
        """What the settings say now."""
        if (count, token) == (self.requested, self.token):
            return
        surplus = len(self.ready) - count
        if surplus > 0:
            idle = len(self.ready) - len(self.busy)
            self.old |= self.busy.keys()
            self.leaving += max(0, surplus - idle)
        self.requested = self.goal = count
        self.token, self.said = token, ""
        self.complete = False
        self.see()

    def see(self) -> None:
        """Once all are ready all may be used, and replacements at once."""
        self.complete = self.complete or len(self.ready) >= self.goal
        if self.complete:
            self.usable.update(self.ready)

    def gone(self, name: str) -> None:
        for held in (self.alive, self.ready, self.usable, self.busy):
            held.pop(name, None)
        self.old.discard(name)

    def lost(self) -> None:
        """The server died, and all of them with it."""
        for held in (self.alive, self.ready, self.usable, self.busy, self.old, self.taken):
            held.clear()
        self.goal, self.leaving, self.complete, self.short_since = self.requested, 0, False, None
        self.said = ""

    @property
    def idle(self) -> int:
        """Units that an invocation could have: those of environments that leave with their work count until then."""
        return min(len(self.usable), self.goal) - len(self.busy)

    @property
    def most(self) -> int:
        return self.requested + min(self.leaving, len(self.old))


class ProvisionedKept:
    """None is used before all are ready; there are never more than asked for; the number is brought back within
    `restored_s` after a crash, also of the server; nothing runs on demand while one is idle (and its ten requests a
    second are not used up); READY is said when it is true. `used` and `spilled` count invocations."""

    def __init__(self, restored_s: float = 10.0) -> None:
        self._restored_s = restored_s
        self._versions: dict[tuple[str, str], Ahead] = {}
        self._of: dict[str, Ahead] = {}
        self._at = 0.0
        self._unsettled: dict[tuple[str, str], Ahead] = {}
        self.found: list[str] = []
        self.used = 0
        self.spilled = 0

    def watch(self, kind: str, at: float, details: dict[str, Any]) -> None:
        if at > self._at:
            self._end_of_moment()
            self._at = at
        react = getattr(self, f"_on_{kind}", None)
        if react is not None:
            react(at, details)

    def _of_version(self, function: str, version: str) -> Ahead:
        key = function, version
        ahead = self._unsettled[key] = self._versions.setdefault(key, Ahead(key))
        return ahead

    def _of_environment(self, name: str) -> Ahead | None:
        ahead = self._of.get(name)
        if ahead is not None:
            self._unsettled[ahead.key] = ahead
        return ahead

    def _on_provision(self, at: float, details: dict[str, Any]) -> None:
        function, counts = details["function"], details["counts"]
        for version in sorted({*counts, *(version for name, version in self._versions if name == function)}):
            self._of_version(function, version).ask(*counts.get(version, (0, "")))

    def _on_provisioned(self, at: float, details: dict[str, Any]) -> None:
        for version, (status, available) in details["states"].items():
            ahead = self._of_version(details["function"], version)
            if status == "FAILED":
                ahead.goal, ahead.complete = available, True
            elif status == "READY" != ahead.said and len(ahead.ready) < ahead.requested:
                self.found.append(f"{at}: {ahead.key} becomes READY with {len(ahead.ready)} of {ahead.requested}")
            ahead.said = status

    def _on_environment(self, at: float, details: dict[str, Any]) -> None:
        if details["ahead"]:
            ahead = self._of_version(details["function"], details["version"])
            ahead.alive[details["name"]] = None
            self._of[details["name"]] = ahead

    def _on_ready(self, at: float, details: dict[str, Any]) -> None:
        ahead = self._of_environment(details["name"])
        if ahead is not None:
            ahead.ready[details["name"]] = None
            ahead.see()

    def _on_working(self, at: float, details: dict[str, Any]) -> None:
        ahead = self._of_environment(details["name"])
        if ahead is None:
            return
        self.used += 1
        if details["name"] not in ahead.usable:
            self.found.append(f"{at}: one of {ahead.requested} was used when {len(ahead.ready)} were ready")
        ahead.busy[details["name"]] = details["request"]

    def _on_idle(self, at: float, details: dict[str, Any]) -> None:
        ahead = self._of_environment(details["name"])
        if ahead is not None:
            ahead.busy.pop(details["name"], None)
            ahead.old.discard(details["name"])

    def _on_gone(self, at: float, details: dict[str, Any]) -> None:
        ahead = self._of_environment(details["name"])
        if ahead is not None:
            del self._of[details["name"]]
            ahead.gone(details["name"])

    def _on_admitted(self, at: float, details: dict[str, Any]) -> None:
        ahead = self._versions.get((details["function"], details["version"]))
        if ahead is None or not ahead.usable:
            return
        recent = ahead.taken = [moment for moment in ahead.taken if moment > at - 1 - _ROUNDING]
        if details["ahead"]:
            if not details["asynchronous"]:
                recent.append(at)
            return
        self.spilled += 1
        worn_out = not details["asynchronous"] and len(recent) > ahead.goal * REQUESTS_PER_UNIT - 1
        if ahead.idle > 0 and not worn_out:
            self.found.append(f"{at}: {details['function']} runs on demand while {ahead.idle} provisioned are idle")

    def _on_crash(self, at: float, details: dict[str, Any]) -> None:
        self._of.clear()
        for key, ahead in self._versions.items():
            ahead.lost()
            self._unsettled[key] = ahead

    def _end_of_moment(self) -> None:
        """What must hold whenever time passes."""
        for key, ahead in list(self._unsettled.items()):
            if len(ahead.alive) > ahead.most:
                self.found.append(f"{self._at}: {key} has {len(ahead.alive)} environments ahead, not {ahead.most}")
            if len(ahead.ready) >= ahead.goal:
                ahead.short_since = None
                del self._unsettled[key]
            elif ahead.short_since is None:
                ahead.short_since = self._at
            elif self._at - ahead.short_since > self._restored_s:
                self.found.append(f"{self._at}: {key} has {len(ahead.ready)} of {ahead.goal} provisioned for too long")
                ahead.short_since = self._at

    def violations(self) -> list[str]:
        self._end_of_moment()
        return self.found


# -- events -----------------------------------------------------------------------------------------------------------


class Answered:
    """Every request ("asked", `number`) is answered once ("answered"), unless the server died under it."""

    def __init__(self) -> None:
        self._open: set[int | str] = set()
        self._found: list[str] = []
        self.answers: Counter[str] = Counter()
        self.broken = 0

    def watch(self, kind: str, at: float, details: dict[str, Any]) -> None:
        if kind == "asked":
            self._open.add(details["number"])
        elif kind == "answered":
            self.answers[details["answer"]] += 1
            if details["number"] not in self._open:
                self._found.append(f"{at}: request {details['number']} was answered twice")
            self._open.discard(details["number"])
        elif kind == "crash":
            self.broken += len(self._open)
            self._open.clear()

    def violations(self) -> list[str]:
        return [*self._found, *(f"request {number} was never answered" for number in sorted(map(str, self._open)))]


class EventsConserved:
    """Every accepted asynchronous event ("accepted", `number`) is found in exactly one place ("found", `place`) at each
    stocktaking ("stock")."""

    def __init__(self) -> None:
        self.accepted: set[int] = set()
        self.places: dict[int, list[str]] = {}
        self._found: list[str] = []

    def watch(self, kind: str, at: float, details: dict[str, Any]) -> None:
        if kind == "accepted":
            self.accepted.add(details["number"])
        elif kind == "found":
            self.places.setdefault(details["number"], []).append(details["place"])
        elif kind == "stock":
            self.places.clear()
        elif kind == "stock taken":
            self._found += [f"{at}: event {number} is lost" for number in sorted(self.accepted - self.places.keys())]
            self._found += [
                f"{at}: event {number} is in {places}" for number, places in self.places.items() if len(places) > 1
            ]

    def violations(self) -> list[str]:
        return self._found

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

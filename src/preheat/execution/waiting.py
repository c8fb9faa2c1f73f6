"""Invocations that wait for an environment while the machine's ceiling binds.

Each fleet (one function version) has a line of its own, first come first served. Among the lines the one whose fleet
has the fewest environments is next, so that a flood of one function does not keep the others away.
"""

import itertools
from collections import deque
from collections.abc import Sized
from typing import Generic, Protocol, TypeVar

from preheat.execution.environment import Job


class HasEnvironments(Protocol):
    environments: Sized


Line = TypeVar("Line", bound=HasEnvironments)


class Waiting(Generic[Line]):
    def __init__(self) -> None:
        self._lines: dict[Line, deque[tuple[int, Job]]] = {}
        self._numbers = itertools.count()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, line: Line, job: Job) -> None:
        self._lines.setdefault(line, deque()).append((next(self._numbers), job))
        self._count += 1

    def take(self) -> tuple[Line, Job]:
        """The next of all. Raises ValueError when nobody waits."""
        line = min(self._lines, key=self._turn)
        return line, self._pop(line)

    def take_for(self, line: Line) -> Job | None:
        """What an environment of `line` that has become free does next; None: it makes room for another line. It stays
        while no other has two environments fewer, nor waits longer with none at all."""
        own = self._lines.get(line)
        if own is None:
            return None
        other = min(self._lines, key=self._turn)
        theirs = len(other.environments)
        if theirs + 1 < len(line.environments) or (not theirs and self._lines[other][0][0] < own[0][0]):
            return None
        return self._pop(line)

    def clear(self) -> None:
        self._lines.clear()
        self._count = 0

    def _turn(self, line: Line) -> tuple[int, int]:
        return len(line.environments), self._lines[line][0][0]

    def _pop(self, line: Line) -> Job:
        jobs = self._lines[line]
        job = jobs.popleft()[1]
        if not jobs:
            del self._lines[line]
        self._count -= 1
        return job

"""The pipe into which a process writes its log."""

import os
import select
from collections.abc import Callable
from typing import Any

READ_BYTES = 65_536
READS = 16
"""As many as empty the largest pipe (1 MB) that a process can make of its own."""
CROWDED_S = 0.02


class OutputPipe:
    """`on_data` gets what comes, as it comes; `on_end` is told when nobody writes any more, or `close` was called.
    While `crowded()` nothing is read: the pipe fills, and who writes into it waits. `writing` is for the process; it is
    the caller's to close."""

    def __init__(
        self, loop: Any, on_data: Callable[[bytes], None], on_end: Callable[[], None], crowded: Callable[[], bool]
    ) -> None:
        self._loop = loop
        self._on_data = on_data
        self._on_end = on_end
        self._crowded = crowded
        self._descriptor, self.writing = os.pipe()
        os.set_blocking(self._descriptor, False)
        self._there = select.poll()
        self._there.register(self._descriptor, select.POLLIN)
        self._listen()

    def collect(self) -> None:
        """Read what is there now, and no more when somebody goes on writing."""
        for _ in range(READS):
            if self._descriptor < 0 or not self._there.poll(0) or not self._read():
                return

    def close(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
            self._on_end()

    def _listen(self) -> None:
        if self._descriptor >= 0:
            self._loop.add_reader(self._descriptor, self._ready)

    def _ready(self) -> None:
        if self._crowded():
            self._loop.remove_reader(self._descriptor)
            self._loop.call_later(CROWDED_S, self._listen)
        else:
            self._read()

    def _read(self) -> bool:
        if self._descriptor < 0:
            return False
        try:
            data = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return False
        if data:
            self._on_data(data)
        else:
            self.close()
        return bool(data)

"""An answer's events as server-sent events: numbered, and with a sign of life while nothing is said.

An event's id is `<number>-<characters of the answer up to and with it>`. A client whose connection broke asks the
same turn again with the last id it has seen in `last-event-id`: of a turn that was answered meanwhile it gets what it
has not seen; one that was not is answered anew, from its `session` event on.
"""

import contextvars
import json
import queue
import re
import threading
from collections.abc import Generator, Iterator
from typing import Any

from ragkit.answering import Event

QUIET_S = 5.0
"""Less than any proxy waits for a byte."""
LIFE = ": still here\n\n"
_ID = re.compile(r"[0-9]{1,9}-([0-9]{1,9})")

Waiting = queue.SimpleQueue[Event | BaseException | None]


def seen(headers: dict[str, str]) -> int | None:
    """Characters of the answer that the client has, by `last-event-id`; None where it has nothing. `headers` in lower
    case."""
    found = _ID.fullmatch(headers.get("last-event-id", ""))
    return int(found[1]) if found else None


def rest(events: Iterator[Event], characters: int) -> Iterator[Event]:
    """Of an answer that was kept: what follows on so many characters."""
    for name, data in events:
        if name == "token":
            data = {**data, "text": data["text"][characters:]}
        if name not in ("session", "retrieval") and data.get("text") != "":
            yield name, data


def blocks(events: Generator[Event, None, None], had: int = 0, quiet_s: float = QUIET_S) -> Iterator[str]:
    """The events as text. Nobody reads any more when this is closed: then so are `events`, when the model says its next
    word or nothing for too long, and this waits for it. `had` are the characters that the client has. Raises what
    `events` raise."""
    waiting: Waiting = queue.SimpleQueue()
    gone = threading.Event()
    run = contextvars.copy_context().run
    thread = threading.Thread(target=run, args=(_pump, events, waiting, gone))
    thread.start()
    number = 0
    try:
        while True:
            try:
                item = waiting.get(timeout=quiet_s)
            except queue.Empty:
                yield LIFE
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            name, data = item
            number += 1
            had += len(data["text"]) if name == "token" else 0
            yield block(name, data, f"{number}-{had}")
    finally:
        gone.set()
        thread.join()


def _pump(events: Generator[Event, None, None], waiting: Waiting, gone: threading.Event) -> None:
    try:
        for item in events:
            waiting.put(item)
            if gone.is_set():
                break
        events.close()
    except BaseException as error:
        waiting.put(error)
    finally:
        waiting.put(None)


def block(name: str, data: dict[str, Any], id: str) -> str:
    return f"id: {id}\nevent: {name}\ndata: {json.dumps(data)}\n\n"

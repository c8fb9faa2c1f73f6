"""Threads that take questions from a queue and give them to `handlers.worker.work`, as Lambda's poller would.

A message in work is hidden for `HIDDEN_S` and that is renewed while the work goes on, so a process that dies gives its
messages back soon. What failed stays hidden for a while that grows with its attempts, and goes to the dead-letter queue
after the last. `stop` takes no more; what is in work is finished, and what is not finished in time is given back.
"""

import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

HIDDEN_S = 60
LONGEST_S = 60
"""Of the work on one message, as WorkerFunction's timeout."""
RENEW_S = 15.0
POLL_S = 3
"""Less than the client's read timeout."""
LONGEST_PAUSE_S = 300
TROUBLE_S = 1.0

Work = Callable[[dict[str, Any], Any], dict[str, Any]]
Beat = Callable[[], Any]


@dataclass
class Context:
    """What Lambda tells a handler about its invocation, as far as there is an equivalent."""

    aws_request_id: str
    until: float
    function_name: str = "baseline"

    def get_remaining_time_in_millis(self) -> int:
        return int(max(0.0, self.until - time.monotonic()) * 1_000)


class Baseline:
    """`sqs` is boto3's client with room for `count` and one more connection; `beat` is called every `RENEW_S`."""

    def __init__(self, sqs: Any, queue: str, count: int, work: Work, beat: Beat, say: Callable[[str], Any]) -> None:
        self._sqs, self._queue, self._work, self._beat, self._say = sqs, queue, work, beat, say
        self._stopping = threading.Event()
        self._held: dict[str, str] = {}
        self._lock = threading.Lock()
        self.finished = 0
        self._threads = [threading.Thread(target=self._take, daemon=True) for _ in range(count)]
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def start(self) -> None:
        for thread in (self._keeper, *self._threads):
            thread.start()

    def stop(self, grace_s: float) -> int:
        """How many messages were given back unfinished after `grace_s`."""
        self._stopping.set()
        end = time.monotonic() + grace_s
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        with self._lock:
            left = list(self._held.values())
        for handle in left:
            self._hide(handle, 0)
        return len(left)

    def _take(self) -> None:
        while not self._stopping.is_set():
            try:
                found = self._sqs.receive_message(
                    QueueUrl=self._queue, MaxNumberOfMessages=1, WaitTimeSeconds=POLL_S, VisibilityTimeout=HIDDEN_S,
                    MessageSystemAttributeNames=["All"], MessageAttributeNames=["All"],
                ).get("Messages", [])  # fmt: skip
            except Exception as error:
                self._complain("the queue cannot be read", error)
                self._stopping.wait(TROUBLE_S)
                continue
            for message in found:
                if self._stopping.is_set():
                    self._hide(message["ReceiptHandle"], 0)
                else:
                    self._handle(message)

    def _handle(self, message: dict[str, Any]) -> None:
        """Work on one message; it is deleted when that went well."""
        key, handle = message["MessageId"], message["ReceiptHandle"]
        attempt = int(message["Attributes"]["ApproximateReceiveCount"])
        with self._lock:
            self._held[key] = handle
        try:
            answer = self._work({"Records": [record(message, self._queue)]}, Context(key, time.monotonic() + LONGEST_S))
            if answer["batchItemFailures"]:
                self._hide(handle, pause_s(attempt, random.random()))
            else:
                self._sqs.delete_message(QueueUrl=self._queue, ReceiptHandle=handle)
                with self._lock:
                    self.finished += 1
        except Exception as error:
            self._complain("a message comes again", error, messageId=key)
        finally:
            with self._lock:
                self._held.pop(key, None)

    def _keep(self) -> None:
        """Say that we live, and renew the hiding of what is in work; until the process ends."""
        while True:
            try:
                if not self._stopping.is_set():
                    self._beat()
            except Exception as error:
                self._complain("nobody was told that we live", error)
            with self._lock:
                held = list(self._held.values())
            for handle in held:
                self._hide(handle, HIDDEN_S)
            time.sleep(RENEW_S)

    def _hide(self, handle: str, seconds: int) -> None:
        try:
            self._sqs.change_message_visibility(
                QueueUrl=self._queue, ReceiptHandle=handle, VisibilityTimeout=seconds
            )
        except Exception as error:
            self._complain("a message's time was not changed", error)

    def _complain(self, what: str, error: Exception, **more: Any) -> None:
        line = {"level": "WARN", "message": what, "function": "baseline", "error": f"{type(error).__name__}: {error}"}
        self._say(json.dumps({**line, **more}))


def pause_s(attempt: int, chance: float) -> int:
    """How long a message that failed stays away: grows with its attempts, spread so that they do not come together."""
    longest = min(LONGEST_PAUSE_S, 15 * 2**attempt)
    return int(longest / 2 + chance * longest / 2)


def record(message: dict[str, Any], queue: str) -> dict[str, Any]:
    """A received message in the form of Lambda's events."""
    return {
        "messageId": message["MessageId"], "receiptHandle": message["ReceiptHandle"], "body": message["Body"],
        "attributes": message["Attributes"], "messageAttributes": message.get("MessageAttributes", {}),
        "md5OfBody": message["MD5OfBody"], "eventSource": "aws:sqs", "eventSourceARN": queue, "awsRegion": "",
    }  # fmt: skip

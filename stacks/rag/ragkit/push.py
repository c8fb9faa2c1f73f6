"""Events of an answer pushed to a browser's WebSocket, by API Gateway's connections API.

Tokens that come close together leave as one message, because each message is a call.
"""

import json
import time
from collections.abc import Callable
from typing import Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from ragkit.trace import Trace

TOGETHER_S = 0.08
LONGEST_BYTES = 128 * 1024


class Push(Protocol):
    def send(self, name: str, data: dict[str, Any]) -> None:
        """Send an event, or keep it for the next; after a while, or with an event that is no token, all leave."""


class NoPush:
    """Nobody listens."""

    def send(self, name: str, data: dict[str, Any]) -> None:
        pass


class ConnectionPush:
    """`client` is boto3's apigatewaymanagementapi at the API's own endpoint; `connection` the id that the API gave.
    `job` goes with every event, because one connection may wait for several. Nothing is sent any more once the
    connection is gone, or could not be reached: the answer itself does not depend on who listens. `clock` gives
    seconds."""

    def __init__(self, client: Any, connection: str, job: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._connection = connection
        self._job = job
        self._clock = clock
        self._waiting = ""
        self._sent = float("-inf")
        self.gone = False

    def send(self, name: str, data: dict[str, Any]) -> None:
        if name == "token":
            self._waiting += data["text"]
            if self._clock() - self._sent >= TOGETHER_S:
                self._flush()
            return
        self._flush()
        self._post(name, data)

    def _flush(self) -> None:
        if self._waiting:
            self._post("token", {"text": self._waiting})
            self._waiting = ""
            self._sent = self._clock()

    def _post(self, name: str, data: dict[str, Any]) -> None:
        if self.gone:
            return
        message = json.dumps({"event": name, "id": self._job, **data}).encode()
        if len(message) > LONGEST_BYTES:
            message = json.dumps({"event": name, "id": self._job, "left_out": "too long to be pushed"}).encode()
        try:
            self._client.post_to_connection(ConnectionId=self._connection, Data=message)
        except (ClientError, BotoCoreError) as error:
            self.gone = True
            code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
            if code not in ("GoneException", "410"):
                Trace().warn("an answer is pushed no further", job=self._job, error=f"{type(error).__name__}: {error}")

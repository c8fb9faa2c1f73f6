"""Events of an answer pushed to a browser's WebSocket, by API Gateway's connections API.

Tokens that come close together leave as one message, because each message is a call.
"""

import json
import time
from collections.abc import Callable
from typing import Any, Protocol

from botocore.exceptions import ClientError

TOGETHER_S = 0.08


class Push(Protocol):
    def send(self, name: str, data: dict[str, Any]) -> None:
        """Send an event, or keep it for the next; after a while, or with an event that is no token, all leave."""


class NoPush:
    """Nobody listens."""

    def send(self, name: str, data: dict[str, Any]) -> None:
        pass


class ConnectionPush:
    """`client` is boto3's apigatewaymanagementapi at the API's own endpoint; `connection` the id that the API gave.
    Nothing is sent any more once the connection is gone. `clock` gives seconds."""

    def __init__(self, client: Any, connection: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._connection = connection
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
        self._post({"event": name, **data})

    def _flush(self) -> None:
        if self._waiting:
            self._post({"event": "token", "text": self._waiting})
            self._waiting = ""
            self._sent = self._clock()

    def _post(self, message: dict[str, Any]) -> None:
        if self.gone:
            return
        try:
            self._client.post_to_connection(ConnectionId=self._connection, Data=json.dumps(message).encode())
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("GoneException", "410"):
                raise
            self.gone = True

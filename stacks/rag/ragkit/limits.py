"""How much a user may ask: requests a minute, tokens a day. Counted in DynamoDB, so it holds over all environments.

Table: hash key `id`; counters of past windows expire.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MINUTE_S = 60
DAY_S = 86_400


class TooMuch(Exception):
    """The limit is reached; `retry_after_s` is when it may be tried again."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Allowance:
    """0 is no limit."""

    requests_a_minute: int = 0
    tokens_a_day: int = 0


class Limits:
    """`table` is boto3's Table; `now` gives epoch seconds."""

    def __init__(self, table: Any, now: Callable[[], float] = time.time) -> None:
        self._table = table
        self._now = now

    def take(self, user: str, allowance: Allowance) -> None:
        """Count one request. Raises TooMuch."""
        now = int(self._now())
        if allowance.tokens_a_day:
            key = {"id": self._window(user, "tokens", DAY_S, now)}
            item = self._table.get_item(Key=key).get("Item", {})
            if int(item.get("n", 0)) >= allowance.tokens_a_day:
                told = f"the budget of {allowance.tokens_a_day} tokens a day is used up"
                raise TooMuch(told, DAY_S - now % DAY_S)
        if allowance.requests_a_minute:
            count = self._add(self._window(user, "requests", MINUTE_S, now), 1, now + 2 * MINUTE_S)
            if count > allowance.requests_a_minute:
                told = f"{allowance.requests_a_minute} questions a minute are allowed"
                raise TooMuch(told, MINUTE_S - now % MINUTE_S)

    def spend(self, user: str, tokens: int, allowance: Allowance) -> None:
        """Count the tokens of an answer."""
        now = int(self._now())
        if allowance.tokens_a_day and tokens:
            self._add(self._window(user, "tokens", DAY_S, now), tokens, now + 2 * DAY_S)

    def _add(self, id: str, amount: int, expires: int) -> int:
        reply = self._table.update_item(
            Key={"id": id}, UpdateExpression="ADD n :n SET expires = :e",
            ExpressionAttributeValues={":n": amount, ":e": expires}, ReturnValues="UPDATED_NEW",
        )  # fmt: skip
        return int(reply["Attributes"]["n"])

    @staticmethod
    def _window(user: str, what: str, length: int, now: int) -> str:
        return f"{what}#{user}#{now // length}"

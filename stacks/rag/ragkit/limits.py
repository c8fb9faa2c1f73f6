"""How much a user may ask: requests a minute, tokens a day. Counted in DynamoDB, so it holds over all environments.

Table: hash key `id`; counters of past windows expire. A question holds tokens of the budget from when it is admitted
until its answer's tokens are counted, so that questions asked at once do not all pass on what is left for one: the
budget is exceeded by one answer at most. What a question held whose function was killed stays held until the day ends.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

MINUTE_S = 60
DAY_S = 86_400
HELD_TOKENS = 6_600
"""The most that a prompt and its answer take (`answering.Settings`)."""
HELD_RETRY_S = 5


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


@dataclass(frozen=True)
class Admitted:
    """A question that was let in: the counter of its budget ("" where there is none), and the tokens that it holds."""

    budget: str = ""
    held: int = 0


class Limits:
    """`table` is boto3's Table; `now` gives epoch seconds."""

    def __init__(self, table: Any, now: Callable[[], float] = time.time) -> None:
        self._table = table
        self._now = now

    def take(self, user: str, allowance: Allowance) -> Admitted:
        """Count one request, and hold tokens for it. Raises TooMuch."""
        now = int(self._now())
        self.count(user, allowance)
        if not allowance.tokens_a_day:
            return Admitted()
        budget = self._window(user, "tokens", DAY_S, now)
        try:
            self._table.update_item(
                Key={"id": budget}, UpdateExpression="ADD n :h, held :h SET expires = :e",
                ConditionExpression="attribute_not_exists(n) OR n < :most",
                ExpressionAttributeValues={":h": HELD_TOKENS, ":e": now + 2 * DAY_S, ":most": allowance.tokens_a_day},
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )  # fmt: skip
        except ClientError as error:
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise
            raise _used_up(error.response.get("Item", {}), allowance, DAY_S - now % DAY_S) from None
        return Admitted(budget, HELD_TOKENS)

    def count(self, user: str, allowance: Allowance) -> None:
        """Count one request that takes no tokens. Raises TooMuch."""
        if not allowance.requests_a_minute:
            return
        now = int(self._now())
        reply = self._table.update_item(
            Key={"id": self._window(user, "requests", MINUTE_S, now)}, UpdateExpression="ADD n :n SET expires = :e",
            ExpressionAttributeValues={":n": 1, ":e": now + 2 * MINUTE_S}, ReturnValues="UPDATED_NEW",
        )  # fmt: skip
        if int(reply["Attributes"]["n"]) > allowance.requests_a_minute:
            told = f"{allowance.requests_a_minute} questions a minute are allowed"
            raise TooMuch(told, MINUTE_S - now % MINUTE_S)

    def spend(self, admitted: Admitted, tokens: int) -> None:
        """Count the tokens of an answer in place of those that its question held."""
        if admitted.budget and (tokens or admitted.held):
            self._table.update_item(
                Key={"id": admitted.budget}, UpdateExpression="ADD n :n, held :h",
                ExpressionAttributeValues={":n": tokens - admitted.held, ":h": -admitted.held},
            )  # fmt: skip

    @staticmethod
    def _window(user: str, what: str, length: int, now: int) -> str:
        return f"{what}#{user}#{now // length}"


def _used_up(item: dict[str, Any], allowance: Allowance, left_s: int) -> TooMuch:
    """Of a counter as the client's error has it, in DynamoDB's own types."""
    counted, held = (int(item.get(name, {}).get("N", 0)) for name in ("n", "held"))
    if counted - held < allowance.tokens_a_day and held > 0:
        told = f"what is left of {allowance.tokens_a_day} tokens a day is held by questions under way"
        return TooMuch(told, HELD_RETRY_S)
    return TooMuch(f"the budget of {allowance.tokens_a_day} tokens a day is used up", left_s)

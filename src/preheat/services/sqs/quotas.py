"""AWS's request rates of FIFO queues, which `--service-quotas enforce` makes act.

Without high throughput a queue takes 300 calls a second of each action, thus 3,000 messages a second in batches of ten.
With FifoThroughputLimit perMessageGroupId the queue takes 70,000 calls a second of each action (the largest regions)
and each message group 300 sends a second, a batch counting once for each group in it. Standard queues have no rate.
"""

from collections.abc import Iterable

from preheat.kernel.errors import AwsError
from preheat.services.contract import Context
from preheat.services.sqs.domain import Queue

CALLS_PER_S = 300
HIGH_CALLS_PER_S = 70_000
MOST_KEPT = 10_000

Key = tuple[int, str, str | None]


class Quotas:
    """A bucket for each queue and action (and group): what a second allows may come at once, then at its rate."""

    def __init__(self, enforced: bool) -> None:
        self._enforced = enforced
        self._buckets: dict[Key, tuple[float, int]] = {}

    def spend(self, ctx: Context, queue: Queue, action: str, groups: Iterable[str | None] = ()) -> None:
        """Count one call of a client; `groups` are those it sends to. Raises ThrottlingException, counting nothing."""
        if not self._enforced or not queue.fifo or ctx.request is None:
            return
        if queue.attributes.get("FifoThroughputLimit") == "perMessageGroupId":
            wanted = [((queue.id, action, None), HIGH_CALLS_PER_S)]
            wanted += [((queue.id, action, group), CALLS_PER_S) for group in {*groups} - {None}]
        else:
            wanted = [((queue.id, action, None), CALLS_PER_S)]
        left = [(key, self._left(key, rate, ctx.now_ms)) for key, rate in wanted]
        if any(tokens < 1 for _, tokens in left):
            raise AwsError("ThrottlingException", "Request is throttled.", query_code="ThrottlingException")
        if len(self._buckets) > MOST_KEPT:
            self._drop_full(ctx.now_ms)
        for key, tokens in left:
            self._buckets[key] = (tokens - 1, ctx.now_ms)

    def _left(self, key: Key, rate: int, now_ms: int) -> float:
        known = self._buckets.get(key)
        return rate if known is None else min(rate, known[0] + max(0, now_ms - known[1]) * rate / 1_000)

    def _drop_full(self, now_ms: int) -> None:
        """Every bucket is full again after a second."""
        self._buckets = {key: kept for key, kept in self._buckets.items() if abs(now_ms - kept[1]) < 1_000}

"""One message to many queues, as a topic sends it: one statement for all of them."""

from collections.abc import Callable, Iterable

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Scope
from preheat.services.contract import Context
from preheat.services.sqs import domain
from preheat.services.sqs.domain import Queue
from preheat.services.sqs.metrics import Metrics
from preheat.services.sqs.repository import SqsRepository


class Copies:
    """`appears(ctx, queue, visible_at)` tells who waits for a queue."""

    def __init__(
        self, rows: SqsRepository, metrics: Metrics, appears: Callable[[Context, Queue, int], None]
    ) -> None:
        self._rows = rows
        self._metrics = metrics
        self._appears = appears

    def __call__(self, ctx: Context, wanted: Iterable[tuple[Scope, str, str]], sender: str) -> list[bool]:
        """Store a body without attributes, group or trace in each queue: (its account and region, its name, the body).
        False for those that need or allow more than that (no such queue, a FIFO or fair queue, a body that is refused):
        nothing is stored for them, and SendMessage tells why."""
        now_ms, uuid = ctx.now_ms, ctx.entropy.uuid
        rows: list[tuple] = []
        stored: list[tuple[Queue, int, int]] = []
        answers: list[bool] = []
        known: str | None = None
        size, md5 = None, ""
        for scope, name, body in wanted:
            queue = self._rows.queue(scope, name)
            if queue is None or queue.fifo or self._rows.tenants.fair(queue):
                answers.append(False)
                continue
            if body is not known:
                known, size = body, _size(body)
                md5 = domain.body_md5(body) if size is not None else ""
            if size is None or size > queue.max_bytes:
                answers.append(False)
                continue
            visible_at = now_ms + queue.delay_ms
            rows.append((queue.id, visible_at, now_ms, uuid(), sender, md5, body))
            stored.append((queue, visible_at, size))
            answers.append(True)
        if rows:
            self._rows.add_plain(rows)
        for queue, visible_at, size in stored:
            self._metrics.sent(ctx, queue, size)
            self._appears(ctx, queue, visible_at)
        return answers


def _size(body: str) -> int | None:
    """Bytes, or None for a body that SendMessage refuses."""
    try:
        domain.check_body(body)
    except AwsError:
        return None
    return domain.message_size({"MessageBody": body})

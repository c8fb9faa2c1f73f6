"""One message to many queues, as a topic sends it: one statement for all of them."""

import hashlib
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

    def __call__(
        self, ctx: Context, wanted: Iterable[tuple[Scope, str, str]], sender: str, head: str = ""
    ) -> list[bool]:
        """Store a body without attributes, group or trace in each queue: (its account and region, its name, what the
        body has after the `head` of all). False for those that need or allow more than that (no such queue, a FIFO or
        fair queue, a body that is refused): nothing is stored for them, and SendMessage tells why."""
        now_ms, uuid = ctx.now_ms, ctx.entropy.uuid
        find, fair = self._rows.queue, self._rows.tenants.fair
        head_size, digest_head = _size(head), hashlib.md5(head.encode(), usedforsecurity=False)
        rows: list[tuple] = []
        stored: list[tuple[Queue, int, int]] = []
        answers: list[bool] = []
        known: str | None = None
        size, md5, body = 0, "", ""
        for scope, name, part in wanted:
            queue = find(scope, name)
            if queue is None or queue.fifo or fair(queue):
                answers.append(False)
                continue
            if part is not known:
                known, part_size = part, _size(part)
                size = 0 if head_size is None or part_size is None else head_size + part_size
                if size:
                    digest = digest_head.copy()
                    digest.update(part.encode())
                    md5, body = digest.hexdigest(), head + part
            if not 0 < size <= queue.max_bytes:
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


def _size(text: str) -> int | None:
    """Bytes, or None for a text that SendMessage refuses."""
    try:
        domain.check_text(text)
    except AwsError:
        return None
    return len(text) if text.isascii() else len(text.encode())

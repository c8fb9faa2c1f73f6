"""Message move tasks: what lies in a dead-letter queue goes back to where it came from, or to another queue.

A task is a row; a Loop carries out what is running, a bounded piece at a time, so that a restart continues it.
"""

import base64
import binascii
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn
from preheat.services.contract import Context, Outcome, Params
from preheat.services.sqs.domain import Queue, check_range, invalid_value, unsupported
from preheat.services.sqs.repository import SqsRepository
from preheat.store.database import Database

MAX_RATE = 500
MAX_LISTED = 10
PER_STEP = 200
SLICES = 20
"""A task with a rate moves a share of it this often a second."""

Settle = Callable[[Context, Queue, Queue], None]


class Task(NamedTuple):
    """Times in epoch milliseconds. `rate`: messages a second."""

    id: int
    handle: str
    account: str
    region: str
    source: str
    destination: str | None
    rate: int | None
    status: str
    moved: int
    to_move: int
    failure: str | None
    started: int

    @property
    def source_arn(self) -> str:
        return f"arn:aws:sqs:{self.region}:{self.account}:{self.source}"


class MoveOperations:
    """`find` gives the queue of an ARN or None; `arrived` is called with (context, source, target) after messages
    changed their queue."""

    name = "sqs moves"
    topics = ("sqs:moves",)

    def __init__(self, repository: SqsRepository, find: Callable[[str], Queue | None], arrived: Settle) -> None:
        self._rows = repository
        self._db = repository.db
        self._find = find
        self._arrived = arrived

    # -- operations -----------------------------------------------------------------------------------------------

    def start(self, ctx: Context, params: Params) -> Outcome:
        source = self._resource(params["SourceArn"], "SourceArn")
        if not any(queue.redrive is not None and queue.redrive.dead_letter_arn == source.arn
                   for queue in self._rows.queues(source.scope)):  # fmt: skip
            raise invalid_value("Source queue must be configured as a Dead Letter Queue.")
        destination = params.get("DestinationArn")
        if destination is not None:
            target = self._resource(destination, "DestinationArn")
            if target.id == source.id:
                raise invalid_value("Source and destination queues must not be the same.")
            if target.fifo != source.fifo:
                raise invalid_value("Source and destination queues must be of the same type.")
        rate = params.get("MaxNumberOfMessagesPerSecond")
        if rate is not None:
            check_range("MaxNumberOfMessagesPerSecond", rate, 1, MAX_RATE, f"Must be between 1 and {MAX_RATE}.")
        if any(task.status == "RUNNING" for task in _tasks(self._db, source, MAX_LISTED)):
            raise invalid_value("There is already a task running. Only one active task is allowed for a source queue "
                                "arn at a given time.")  # fmt: skip
        handle = _handle(ctx.entropy.uuid(), source.arn)
        visible = self._rows.depth(source, ctx.now_ms)[0]
        self._db.run(
            """INSERT INTO sqs_moves (handle, account, region, source, destination, rate, status, moved, to_move,
                                      started, due) VALUES (?, ?, ?, ?, ?, ?, 'RUNNING', 0, ?, ?, ?)""",
            handle, source.scope.account, source.scope.region, source.name, destination, rate, visible, ctx.now_ms,
            ctx.now_ms,
        )  # fmt: skip
        ctx.db.notify("sqs:moves")
        return {"TaskHandle": handle}

    def cancel(self, ctx: Context, params: Params) -> Outcome:
        handle = params["TaskHandle"]
        self._resource(source_of(handle), "SourceArn")
        task = _task(self._db, "handle = ?", handle)
        if task is None:
            raise _gone("Task does not exist.")
        if task.status != "RUNNING":
            raise unsupported("Only active tasks can be cancelled.")
        self._end(task, "CANCELLED")
        return {"ApproximateNumberOfMessagesMoved": task.moved}

    def listing(self, ctx: Context, params: Params) -> Outcome:
        source = self._resource(params["SourceArn"], "SourceArn")
        limit = params.get("MaxResults", 1)
        check_range("MaxResults", limit, 1, MAX_LISTED, f"Must be between 1 and {MAX_LISTED}.")
        tasks = _tasks(self._db, source, limit)
        return {"Results": [_render(task) for task in tasks]}

    def _resource(self, arn: str, member: str) -> Queue:
        try:
            parsed = Arn.parse(arn)
        except ValueError:
            parsed = None
        if parsed is None or parsed.service != "sqs":
            raise invalid_value(f"Value {arn} for parameter {member} is invalid. Reason: You must use this format to "
                                "specify the ARN: arn:<partition>:<service>:<region>:<account-id>:<resource-id>"
                                )  # fmt: skip
        queue = self._find(arn)
        if queue is None:
            raise _gone(f"The resource that you specified for the {member} parameter doesn't exist.")
        return queue

    # -- carrying out ---------------------------------------------------------------------------------------------

    def step(self, ctx: Context) -> float | None:
        """One piece of the task that is due first."""
        task = _task(self._db, "status = 'RUNNING' AND due <= ? ORDER BY due LIMIT 1", ctx.now_ms)
        if task is not None:
            self._carry_on(ctx, task)
        due = self._db.value("SELECT min(due) FROM sqs_moves WHERE status = 'RUNNING'")
        return None if due is None else due / 1_000

    def _carry_on(self, ctx: Context, task: Task) -> None:
        source = self._find(task.source_arn)
        if source is None:
            self._end(task, "FAILED", "AWS.SimpleQueueService.NonExistentQueue")
            return
        most, pause_ms = PER_STEP, 0
        if task.rate is not None:
            most = max(1, task.rate // SLICES)
            pause_ms = 1_000 * most // task.rate
        rows = self._rows.movable(source, ctx.now_ms, min(most, task.to_move - task.moved))
        failure, moved = None, 0
        for row in rows:
            arn = task.destination or row["source_arn"]
            target = None if arn is None else self._find(arn)
            if target is None or target.fifo != source.fifo:
                failure = "CouldNotDetermineMessageSource" if arn is None else "AWS.SimpleQueueService.NonExistentQueue"
                break
            self._rows.redrive(row, target, source, ctx.entropy.uuid(), ctx.now_ms)
            self._arrived(ctx, source, target)
            moved += 1
        task = task._replace(moved=task.moved + moved)
        if failure is not None:
            self._end(task, "FAILED", failure)
        elif not rows or task.moved >= task.to_move:
            self._end(task, "COMPLETED")
        else:
            self._db.run(
                "UPDATE sqs_moves SET moved = ?, due = ? WHERE id = ?", task.moved, ctx.now_ms + pause_ms, task.id
            )

    def _end(self, task: Task, status: str, failure: str | None = None) -> None:
        self._db.run(
            "UPDATE sqs_moves SET status = ?, failure = ?, moved = ? WHERE id = ?", status, failure, task.moved, task.id
        )
        self._db.run(
            """DELETE FROM sqs_moves WHERE account = ?1 AND region = ?2 AND source = ?3 AND id NOT IN
                   (SELECT id FROM sqs_moves WHERE account = ?1 AND region = ?2 AND source = ?3
                    ORDER BY id DESC LIMIT ?4)""",
            task.account, task.region, task.source, MAX_LISTED,
        )  # fmt: skip


COLUMNS = "id, handle, account, region, source, destination, rate, status, moved, to_move, failure, started"


def _task(db: Database, where: str, *values: Any) -> Task | None:
    row = db.one(f"SELECT {COLUMNS} FROM sqs_moves WHERE {where}", *values)
    return None if row is None else Task(*row)


def _tasks(db: Database, queue: Queue, limit: int) -> list[Task]:
    """The most recent first."""
    rows = db.all(
        f"SELECT {COLUMNS} FROM sqs_moves WHERE account = ? AND region = ? AND source = ? ORDER BY id DESC LIMIT ?",
        queue.scope.account, queue.scope.region, queue.name, limit,
    )  # fmt: skip
    return [Task(*row) for row in rows]


def _render(task: Task) -> Params:
    shown = {
        "TaskHandle": task.handle if task.status == "RUNNING" else None,
        "Status": task.status,
        "SourceArn": task.source_arn,
        "DestinationArn": task.destination,
        "MaxNumberOfMessagesPerSecond": task.rate,
        "ApproximateNumberOfMessagesMoved": task.moved,
        "ApproximateNumberOfMessagesToMove": task.to_move,
        "FailureReason": task.failure,
        "StartedTimestamp": task.started,
    }
    return {name: value for name, value in shown.items() if value is not None}


def _handle(task_id: str, source_arn: str) -> str:
    return base64.b64encode(msgspec.json.encode({"taskId": task_id, "sourceArn": source_arn})).decode()


def source_of(handle: str) -> str:
    """The ARN of the queue that a task handle speaks of. Raises InvalidParameterValue."""
    try:
        return msgspec.json.decode(base64.b64decode(handle, validate=True))["sourceArn"]
    except (binascii.Error, ValueError, KeyError, TypeError) as error:
        raise invalid_value("Value for parameter TaskHandle is invalid.") from error


def _gone(message: str) -> AwsError:
    return AwsError("ResourceNotFoundException", message, 404, query_code="ResourceNotFoundException")

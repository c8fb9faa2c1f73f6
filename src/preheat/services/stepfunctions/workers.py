"""Operations on activities, and the answers of whoever works on a task."""

from preheat.kernel.errors import AwsError
from preheat.services.constraints import check_text
from preheat.services.contract import Context, Operation, Outcome, Params, Wait
from preheat.services.stepfunctions import domain, pages, repository
from preheat.services.stepfunctions.domain import moment
from preheat.services.stepfunctions.language.templates import MAX_DATA, compact, decode
from preheat.services.stepfunctions.machines import tags_of
from preheat.services.stepfunctions.running import ACTIVITIES, Running
from preheat.services.stepfunctions.turn import Turn

TOKEN_LENGTH = 192


class Workers:
    def __init__(self, running: Running) -> None:
        self._running = running
        self.operations: dict[str, Operation] = {
            "CreateActivity": self.create,
            "DeleteActivity": self.delete,
            "DescribeActivity": self.describe,
            "ListActivities": self.list,
            "GetActivityTask": self.take,
            "SendTaskSuccess": self.succeed,
            "SendTaskFailure": self.fail,
            "SendTaskHeartbeat": self.beat,
        }

    def create(self, ctx: Context, params: Params) -> Outcome:
        """Again under the same name: what stands."""
        name, tags = domain.check_name(params["name"]), tags_of(params)
        if (params.get("encryptionConfiguration") or {}).get("type", "AWS_OWNED_KEY") != "AWS_OWNED_KEY":
            raise AwsError("InvalidEncryptionConfiguration", "Preheat has no KMS: the type must be AWS_OWNED_KEY.")
        there = repository.activity(ctx.db, ctx.scope, name)
        created = ctx.now if there is None else there[1]
        if there is None:
            repository.put_activity(ctx.db, ctx.scope, name, compact(tags), created)
        return {"activityArn": ctx.scope.arn("states", f"activity:{name}"), "creationDate": moment(created)}

    def delete(self, ctx: Context, params: Params) -> Outcome:
        scope, name = domain.named(params["activityArn"], "activity")
        repository.remove_activity(ctx.db, scope, name)
        return {}

    def describe(self, ctx: Context, params: Params) -> Outcome:
        scope, name = domain.named(params["activityArn"], "activity")
        found = repository.activity(ctx.db, scope, name)
        if found is None:
            raise domain.activity_missing(params["activityArn"])
        return {
            "activityArn": scope.arn("states", f"activity:{name}"), "name": name, "creationDate": moment(found[1]),
            "encryptionConfiguration": {"type": "AWS_OWNED_KEY"},
        }  # fmt: skip

    def list(self, ctx: Context, params: Params) -> Outcome:
        most, after = pages.size(params), pages.read(params, "")
        found = repository.activities(ctx.db, ctx.scope, after, most + 1)
        output: Params = {
            "activities": [
                {"activityArn": ctx.scope.arn("states", f"activity:{name}"), "name": name, "creationDate": moment(at)}
                for name, at in found[:most]
            ]
        }
        if len(found) > most:
            output["nextToken"] = pages.write(found[most - 1][0])
        return output

    def take(self, ctx: Context, params: Params) -> Outcome:
        """The oldest task that waits; an empty answer after a minute without one."""
        check_text(params, "workerName", 80, least=1)
        self.describe(ctx, {"activityArn": params["activityArn"]})
        arn, until = params["activityArn"], ctx.now + domain.POLL_S

        def again(inner: Context) -> Outcome:
            frame = repository.waiting_for_worker(inner.db, arn)
            turn = None if frame is None else self._running.pending(inner, frame.row, frame.attempt)
            if turn is not None:
                self._running.begin(turn, params.get("workerName"))
                return {"taskToken": turn.frame.token, "input": turn.frame.request}
            return {} if inner.now >= until else Wait((ACTIVITIES + arn,), until, again)

        return again(ctx)

    # -- answers ----------------------------------------------------------------------------------------------------

    def _pending(self, ctx: Context, params: Params) -> Turn:
        """The task of a token. Raises InvalidToken, TaskTimedOut."""
        token = params["taskToken"]
        frame = repository.frame_of_token(ctx.db, token)
        turn = None if frame is None else self._running.pending(ctx, frame.row, frame.attempt)
        if turn is not None:
            return turn
        if len(token) != TOKEN_LENGTH or not token.isalnum():
            raise AwsError("InvalidToken", "Invalid Token: 'Invalid token'")
        raise AwsError("TaskTimedOut", "Task Timed Out: 'Provided task does not exist anymore'")

    def succeed(self, ctx: Context, params: Params) -> Outcome:
        text = params["output"]
        if len(text.encode()) > MAX_DATA:
            raise AwsError("InvalidOutput", f"Invalid Output: the output is larger than {MAX_DATA} bytes.")
        try:
            decode(text)
        except ValueError:
            raise AwsError("InvalidOutput", f"Invalid Output: '{text[:200]}' is no JSON.") from None
        self._running.succeed(self._pending(ctx, params), text)
        return {}

    def fail(self, ctx: Context, params: Params) -> Outcome:
        check_text(params, "error", domain.MAX_ERROR)
        check_text(params, "cause", domain.MAX_CAUSE)
        turn = self._pending(ctx, params)
        self._running.fail(turn, params.get("error") or "States.TaskFailed", params.get("cause") or "")
        return {}

    def beat(self, ctx: Context, params: Params) -> Outcome:
        self._running.beat(self._pending(ctx, params))
        return {}

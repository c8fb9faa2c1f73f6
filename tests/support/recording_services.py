"""A small Lambda that keeps functions in a table and writes down who called what: for tests of the stack engine."""

from typing import Any

from preheat.kernel.errors import AwsError
from preheat.services.contract import Context, Deferred, Outcome, Params


class RecordingLambda:
    """CreateFunction answers later (`Deferred`) when `slow`: its row is there, its reply comes with `release`. An
    operation named in `failures` fails that many times with a throttle."""

    name = "lambda"
    schema = "CREATE TABLE IF NOT EXISTS fake_functions (name TEXT PRIMARY KEY, timeout TEXT, state TEXT)"

    def __init__(self) -> None:
        self.calls: list[tuple[str, Params]] = []
        self.failures: dict[str, int] = {}
        self.slow = False
        self.state = "Active"
        self.remark = lambda runtime: None
        self.released: list[Any] = []
        self.operations = {
            name: self._recorded(name, function)
            for name, function in {
                "CreateFunction": self.create,
                "GetFunctionConfiguration": self.get,
                "UpdateFunctionConfiguration": self.update,
                "DeleteFunction": self.delete,
                "Invoke": self.invoke,
            }.items()
        }

    def names(self, operation: str) -> list[str]:
        return [params["FunctionName"] for name, params in self.calls if name == operation]

    def _recorded(self, name: str, function: Any) -> Any:
        def run(ctx: Context, params: Params) -> Outcome:
            self.calls.append((name, params))
            if self.failures.get(name, 0) > 0:
                self.failures[name] -= 1
                raise AwsError("TooManyRequestsException", "Rate exceeded", 429)
            return function(ctx, params)

        return run

    def create(self, ctx: Context, params: Params) -> Outcome:
        name = params["FunctionName"]
        if ctx.db.one("SELECT 1 FROM fake_functions WHERE name = ?", name):
            raise AwsError("ResourceConflictException", f"Function already exist: {name}", 409)
        if params.get("Handler") == "broken":
            raise AwsError("InvalidParameterValueException", "That handler is broken", 400)
        ctx.db.run("INSERT INTO fake_functions VALUES (?, ?, ?)", name, str(params.get("Timeout", 3)), self.state)
        if self.slow:
            return Deferred(self.released.append, lambda context, value: {"FunctionName": name})
        return {"FunctionName": name}

    def get(self, ctx: Context, params: Params) -> Outcome:
        row = self._row(ctx, params)
        arn = ctx.scope.arn("lambda", f"function:{row['name']}")
        return {"FunctionArn": arn, "State": row["state"], "StateReason": "as told", "LastUpdateStatus": "Successful"}

    def update(self, ctx: Context, params: Params) -> Outcome:
        self._row(ctx, params)
        if params.get("Timeout") == 900:
            raise AwsError("InvalidParameterValueException", "That is too long", 400)
        if "Timeout" in params:
            sql = "UPDATE fake_functions SET timeout = ? WHERE name = ?"
            ctx.db.run(sql, str(params["Timeout"]), params["FunctionName"])
        return {}

    def delete(self, ctx: Context, params: Params) -> Outcome:
        self._row(ctx, params)
        ctx.db.run("DELETE FROM fake_functions WHERE name = ?", params["FunctionName"])
        return {}

    def invoke(self, ctx: Context, params: Params) -> Outcome:
        return {"StatusCode": 202}

    def _row(self, ctx: Context, params: Params) -> Any:
        row = ctx.db.one("SELECT * FROM fake_functions WHERE name = ?", params["FunctionName"])
        if row is None:
            raise AwsError("ResourceNotFoundException", f"Function not found: {params['FunctionName']}", 404)
        return row

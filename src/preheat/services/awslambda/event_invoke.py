"""How asynchronous invocations are retried and where their results go."""

import json
import re

from preheat.kernel.scope import Arn
from preheat.services.awslambda import repository
from preheat.services.awslambda.core import Core, Operation, existing, marker, page
from preheat.services.awslambda.domain import LATEST, FunctionName, as_datetime, check_range, invalid, not_found
from preheat.services.contract import Context, Outcome, Params, Reply

_DESTINATIONS = ("sqs", "lambda")


def _destination(function: FunctionName, side: Params | None) -> Params:
    """OnSuccess or OnFailure, checked."""
    target = (side or {}).get("Destination")
    if not target:
        return {}
    try:
        service = Arn.parse(target).service
    except ValueError:
        raise invalid(f"The provided destination config DestinationConfig is invalid: {target}") from None
    if service == "lambda" and re.fullmatch(re.escape(function.arn) + r"(:.+)?", target):
        raise invalid("You can't specify the function as a destination for itself.")
    if service not in _DESTINATIONS:
        raise invalid(f"Preheat supports SQS queues and Lambda functions as destinations; {service} is not supported.")
    return {"Destination": target}


def _asked(function: FunctionName, params: Params) -> Params:
    config: Params = {}
    if params.get("MaximumRetryAttempts") is not None:
        config["MaximumRetryAttempts"] = check_range(params["MaximumRetryAttempts"], "maximumRetryAttempts", 0, 2)
    if params.get("MaximumEventAgeInSeconds") is not None:
        age = params["MaximumEventAgeInSeconds"]
        config["MaximumEventAgeInSeconds"] = check_range(age, "maximumEventAgeInSeconds", 60, 21_600)
    if "DestinationConfig" in params:
        given = params["DestinationConfig"] or {}
        config["DestinationConfig"] = {
            "OnSuccess": _destination(function, given.get("OnSuccess")),
            "OnFailure": _destination(function, given.get("OnFailure")),
        }
    if not config:
        raise invalid("You must specify at least one of error handling or destination setting.")
    return config


def _answer(function: FunctionName, config: Params, modified: float) -> Params:
    arn = f"{function.arn}:{function.qualifier or LATEST}"
    return {
        "LastModified": as_datetime(modified),
        "FunctionArn": arn,
        "DestinationConfig": {"OnSuccess": {}, "OnFailure": {}},
        **config,
    }


def put_function_event_invoke_config(core: Core, ctx: Context, params: Params) -> Outcome:
    function = existing(ctx, params)
    config = _asked(function, params)
    repository.save_event_invoke(ctx.db, function, config, ctx.now)
    return _answer(function, config, ctx.now)


def _existing_config(ctx: Context, params: Params) -> tuple[FunctionName, Params, float]:
    function = existing(ctx, params)
    found = repository.event_invoke(ctx.db, function)
    if found is None:
        raise not_found(f"The function {function.arn}:{function.qualifier or LATEST} doesn't have an EventInvokeConfig")
    return function, found[0], found[1]


def update_function_event_invoke_config(core: Core, ctx: Context, params: Params) -> Outcome:
    function, config, _ = _existing_config(ctx, params)
    merged = {**config, **_asked(function, params)}
    repository.save_event_invoke(ctx.db, function, merged, ctx.now)
    return _answer(function, merged, ctx.now)


def get_function_event_invoke_config(core: Core, ctx: Context, params: Params) -> Outcome:
    return _answer(*_existing_config(ctx, params))


def delete_function_event_invoke_config(core: Core, ctx: Context, params: Params) -> Outcome:
    function, _, _ = _existing_config(ctx, params)
    repository.delete_event_invoke(ctx.db, function)
    return Reply({}, 204)


def list_function_event_invoke_configs(core: Core, ctx: Context, params: Params) -> Outcome:
    function = existing(ctx, params, unqualified=True)
    key, limit = page(params)
    rows = repository.event_invokes(ctx.db, function, key, limit + 1)
    output: Params = {
        "FunctionEventInvokeConfigs": [
            _answer(
                FunctionName(function.scope, function.name, row["qualifier"]),
                json.loads(row["config"]),
                row["modified"],
            )
            for row in rows[:limit]
        ]
    }
    if len(rows) > limit:
        output["NextMarker"] = marker(rows[limit - 1]["qualifier"])
    return output


OPERATIONS: dict[str, Operation] = {
    "PutFunctionEventInvokeConfig": put_function_event_invoke_config,
    "GetFunctionEventInvokeConfig": get_function_event_invoke_config,
    "UpdateFunctionEventInvokeConfig": update_function_event_invoke_config,
    "DeleteFunctionEventInvokeConfig": delete_function_event_invoke_config,
    "ListFunctionEventInvokeConfigs": list_function_event_invoke_configs,
}

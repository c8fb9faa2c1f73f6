"""Function URLs: their configuration. The gateway serves them; it finds one by `find_url`."""

import json
import string
from dataclasses import dataclass
from typing import Any

from preheat.kernel.scope import Scope
from preheat.services.awslambda import repository
from preheat.services.awslambda.core import Core, Operation, existing, marker, page, resource_missing
from preheat.services.awslambda.domain import (
    FunctionName,
    check_range,
    conflict,
    invalid,
    parse_name,
    timestamp,
    violation,
)
from preheat.services.contract import Context, Outcome, Params, Reply
from preheat.store.database import Database

_ALPHABET = string.ascii_lowercase + string.digits
_LENGTHS = {"AllowOrigins": (1, 253), "AllowMethods": (0, 6), "AllowHeaders": (0, 1024), "ExposeHeaders": (0, 1024)}
"""The least and most characters of each entry."""
_LIMITS = {"AllowOrigins": 100, "AllowMethods": 6, "AllowHeaders": 100, "ExposeHeaders": 100}
NO_FUNCTION = "Function does not exist"
_METHODS = ("GET", "PUT", "HEAD", "POST", "PATCH", "DELETE", "*")


@dataclass(frozen=True, slots=True)
class FunctionUrl:
    """What the gateway needs to serve one: `cors` has the members of AWS's Cors, `qualifier` an alias or None."""

    url_id: str
    scope: Scope
    function_name: str
    qualifier: str | None
    auth_type: str
    invoke_mode: str
    cors: dict[str, Any] | None


def find_url(db: Database, url_id: str) -> FunctionUrl | None:
    row = repository.url_by_id(db, url_id)
    if row is None:
        return None
    return FunctionUrl(
        url_id, Scope(row["account"], row["region"]), row["name"], row["qualifier"] or None, row["auth_type"],
        row["invoke_mode"], json.loads(row["cors"]) if row["cors"] else None,
    )  # fmt: skip


def url_text(endpoint: str, url_id: str, region: str) -> str:
    """The URL as clients call it: the front door's port under a host name of the URL's own."""
    scheme, _, rest = endpoint.partition("://")
    port = rest.partition("/")[0].rpartition(":")[2]
    return f"{scheme}://{url_id}.lambda-url.{region}.localhost" + (f":{port}/" if port.isdigit() else "/")


def _answer(core: Core, row: Any) -> Params:
    scope = Scope(row["account"], row["region"])
    function = FunctionName(scope, row["name"], row["qualifier"] or None)
    output: Params = {
        "FunctionUrl": url_text(core.endpoint, row["url_id"], scope.region),
        "FunctionArn": function.qualified_arn,
        "AuthType": row["auth_type"],
        "InvokeMode": row["invoke_mode"],
        "CreationTime": timestamp(row["created"]),
        "LastModifiedTime": timestamp(row["modified"]),
    }
    if row["cors"]:
        output["Cors"] = json.loads(row["cors"])
    return output


def _check(auth: str, mode: str, cors: Params | None) -> None:
    if auth not in ("NONE", "AWS_IAM"):
        raise violation(auth, "authType", "Member must satisfy enum value set: [NONE, AWS_IAM]")
    if mode not in ("BUFFERED", "RESPONSE_STREAM"):
        raise violation(mode, "invokeMode", "Member must satisfy enum value set: [RESPONSE_STREAM, BUFFERED]")
    for member, limit in _LIMITS.items():
        if len((cors or {}).get(member) or []) > limit:
            raise violation(
                cors, f"cors.{member[0].lower()}{member[1:]}", f"Member must have length less than or equal to {limit}"
            )
        least, most = _LENGTHS[member]
        for entry in (cors or {}).get(member) or []:
            if not least <= len(entry) <= most:
                raise violation(
                    f"[{entry}]", f"cors.{member[0].lower()}{member[1:]}",
                    f"Member must satisfy constraint: [Member must have length less than or equal to {most}, "
                    f"Member must have length greater than or equal to {least}]",
                )  # fmt: skip
    for method in (cors or {}).get("AllowMethods") or []:
        if method not in _METHODS:
            raise invalid(f"Invalid value for AllowMethods: {method}")
    age = (cors or {}).get("MaxAge")
    if age is not None:
        check_range(age, "cors.maxAge", 0, 86_400)


def create_function_url_config(core: Core, ctx: Context, params: Params) -> Outcome:
    function = existing(ctx, params, otherwise=NO_FUNCTION)
    auth, mode = params["AuthType"], params.get("InvokeMode") or "BUFFERED"
    cors = params.get("Cors")
    _check(auth, mode, cors)
    if repository.url_of(ctx.db, function):
        raise conflict(
            f"Failed to create function url config for [functionArn = {function.qualified_arn}]. Error message:  "
            f"FunctionUrlConfig exists for this Lambda function"
        )
    text = json.dumps(cors) if cors else None
    url_id = ctx.entropy.token(32, _ALPHABET)
    repository.save_url(ctx.db, function, url_id, auth, mode, text, ctx.now, ctx.now)
    output = _answer(core, repository.url_of(ctx.db, function))
    del output["LastModifiedTime"]
    return Reply(_spoken(output, params), 201)


def _spoken(output: Params, params: Params) -> Params:
    """The answer to a change: a mode that nobody asked for is not spoken of."""
    if not params.get("InvokeMode") and output["InvokeMode"] == "BUFFERED":
        del output["InvokeMode"]
    return output


def _existing_url(ctx: Context, params: Params) -> tuple[FunctionName, Any]:
    function = parse_name(params["FunctionName"], ctx.scope, params.get("Qualifier"))
    row = repository.url_of(ctx.db, function)
    if row is None:
        raise resource_missing()
    return function, row


def get_function_url_config(core: Core, ctx: Context, params: Params) -> Outcome:
    return _answer(core, _existing_url(ctx, params)[1])


def update_function_url_config(core: Core, ctx: Context, params: Params) -> Outcome:
    existing(ctx, params, otherwise=NO_FUNCTION)
    function, row = _existing_url(ctx, params)
    auth = params.get("AuthType") or row["auth_type"]
    mode = params.get("InvokeMode") or row["invoke_mode"]
    text = row["cors"]
    if "Cors" in params:
        text = json.dumps(params["Cors"]) if params["Cors"] else None
    _check(auth, mode, params.get("Cors"))
    repository.save_url(ctx.db, function, row["url_id"], auth, mode, text, row["created"], ctx.now)
    return _spoken(_answer(core, repository.url_of(ctx.db, function)), params)


def delete_function_url_config(core: Core, ctx: Context, params: Params) -> Outcome:
    function, _ = _existing_url(ctx, params)
    repository.delete_url(ctx.db, function)
    return Reply({}, 204)


def list_function_url_configs(core: Core, ctx: Context, params: Params) -> Outcome:
    function = existing(ctx, params, unqualified=True, otherwise=NO_FUNCTION)
    key, limit = page(params)
    after = key.removeprefix("=") if key else ""
    found = repository.urls(ctx.db, function, after, limit + 1, inclusive=not key)
    output: Params = {"FunctionUrlConfigs": [_answer(core, row) for row in found[:limit]]}
    if len(found) > limit:
        output["NextMarker"] = marker("=" + found[limit - 1]["qualifier"])
    return output


OPERATIONS: dict[str, Operation] = {
    "CreateFunctionUrlConfig": create_function_url_config,
    "GetFunctionUrlConfig": get_function_url_config,
    "UpdateFunctionUrlConfig": update_function_url_config,
    "DeleteFunctionUrlConfig": delete_function_url_config,
    "ListFunctionUrlConfigs": list_function_url_configs,
}

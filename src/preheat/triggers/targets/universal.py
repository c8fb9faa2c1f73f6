"""Universal targets of schedules: any operation, as `arn:aws:scheduler:::aws-sdk:<service>:<operation>`."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Scope
from preheat.kernel.stream import Background
from preheat.services.contract import Context, Outcome
from preheat.services.deliveries import Delivery
from preheat.services.scheduler.domain import universal_operation
from preheat.triggers.targets.contract import operate

_SCALARS = {"integer": int, "long": int, "float": int | float, "double": int | float, "boolean": bool}


def to_operation(ctx: Context, delivery: Delivery, background: Background) -> Outcome:
    """The body is the operation's input as JSON, members by their names without regard to the first letter's case,
    blobs as text, times in ISO 8601."""
    found = universal_operation(ctx.machine.services, delivery.target)
    if found is None:
        name = delivery.target.rpartition(":aws-sdk:")[2]
        raise AwsError("UnsupportedOperation", f"Preheat does not implement {name}.", 501)
    service, operation = found
    parts = delivery.source_arn.split(":")
    inner = replace(ctx, scope=Scope(parts[4], parts[3])) if len(parts) > 5 else ctx
    return operate(inner, service, operation, _fit(_input_shape(service, operation), json.loads(delivery.body)))


@lru_cache(maxsize=64)
def _input_shape(service: str, operation: str) -> Any:
    from botocore.loaders import Loader
    from botocore.model import ServiceModel

    model = ServiceModel(Loader().load_service_model(service, "service-2"), service)
    return model.operation_model(operation).input_shape


def _member(shape: Any, name: str) -> str:
    return next((member for member in shape.members if member.lower() == name.lower()), name)


def _fit(shape: Any, value: Any) -> Any:
    """`value` with the model's types. Raises ValidationException for what it does not have."""
    if shape is None:
        return {}
    kind = shape.type_name
    try:
        if kind == "structure":
            needed = {name for name in shape.required_members if "idempotencyToken" not in shape.members[name].metadata}
            missing = sorted(needed - {_member(shape, name) for name in value})
            if missing:
                raise AwsError("ValidationException", f"The input lacks {', '.join(missing)}.")
            names = {name.lower(): name for name in shape.members}
            return {
                names[name.lower()]: _fit(shape.members[names[name.lower()]], item) for name, item in value.items()
            }
        if kind == "list":
            return [_fit(shape.member, item) for item in value]
        if kind == "map":
            return {name: _fit(shape.value, item) for name, item in value.items()}
        if kind == "blob":
            return (value if isinstance(value, str) else json.dumps(value)).encode()
        if kind == "timestamp":
            if isinstance(value, int | float):
                return datetime.fromtimestamp(value, UTC)
            return datetime.fromisoformat(value).astimezone(UTC)
        if kind == "string" and not isinstance(value, str):
            return json.dumps(value)
        fits = isinstance(value, _SCALARS.get(kind, object))
        if not fits or (isinstance(value, bool) and kind != "boolean"):
            raise TypeError(f"{json.dumps(value)} is no {kind}")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AwsError("ValidationException", f"The input does not fit the operation: {error}") from None
    return value

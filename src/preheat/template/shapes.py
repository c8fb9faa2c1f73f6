"""A template's loose values made into what an operation takes: "5" is 5 where the model says integer."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

from preheat.kernel.errors import AwsError
from preheat.template.definition import Failed
from preheat.template.parameters import text_of


class Shapes:
    """Input shapes of botocore's models, each service's model loaded when it is first needed."""

    def __init__(self) -> None:
        self._models: dict[str, Any] = {}
        self._loader: Any = None

    def fit(self, service: str, operation: str, params: dict[str, Any]) -> dict[str, Any]:
        """`params` with the model's types. Raises Failed for a member the model does not have and for a value that
        cannot be of its type."""
        shape = self._model(service).operation_model(operation).input_shape
        return {} if shape is None else _fit(shape, params)

    def _model(self, service: str) -> Any:
        model = self._models.get(service)
        if model is None:
            from botocore.loaders import Loader
            from botocore.model import ServiceModel

            self._loader = self._loader or Loader()
            model = ServiceModel(self._loader.load_service_model(service, "service-2"), service)
            self._models[service] = model
        return model


def _fit(shape: Any, value: Any, path: str = "") -> Any:
    kind = shape.type_name
    if kind == "structure":
        if getattr(shape, "is_document_type", False):
            return value
        if not isinstance(value, dict):
            raise _mismatch(path, "object", value)
        members = shape.members
        for name in value:
            if name not in members:
                raise Failed(f"Encountered unsupported property {name}")
        return {name: _fit(members[name], item, f"{path}/{name}") for name, item in value.items() if item is not None}
    if kind == "list":
        if not isinstance(value, list):
            raise _mismatch(path, "array", value)
        return [_fit(shape.member, item, f"{path}/{index}") for index, item in enumerate(value)]
    if kind == "map":
        if not isinstance(value, dict):
            raise _mismatch(path, "object", value)
        return {text_of(key): _fit(shape.value, item, f"{path}/{key}") for key, item in value.items()}
    return _scalar(kind, value, path)


def _scalar(kind: str, value: Any, path: str) -> Any:
    if isinstance(value, (dict, list)):
        if kind == "string":
            return json.dumps(value)
        raise _mismatch(path, kind, value)
    if kind == "string":
        return text_of(value)
    if kind == "blob":
        return value if isinstance(value, bytes) else text_of(value).encode()
    if kind == "timestamp":
        return value if isinstance(value, datetime) else datetime.fromisoformat(text_of(value)).astimezone(UTC)
    if kind == "boolean":
        if isinstance(value, bool):
            return value
        if text_of(value).lower() in ("true", "false"):
            return text_of(value).lower() == "true"
        raise _mismatch(path, "boolean", value)
    try:
        return int(text_of(value)) if kind in ("integer", "long") else float(value)
    except ValueError:
        raise _mismatch(path, "number", value) from None


def _mismatch(path: str, wanted: str, value: Any) -> Failed:
    found = {dict: "JSONObject", list: "JSONArray", str: "String", bool: "Boolean"}.get(type(value), "Number")
    return Failed(f"Properties validation failed with message:\n#{path}: expected type: {wanted}, found: {found}")


def plain(value: Any) -> Any:
    """An output as JSON can hold it: bytes in base64, times as ISO text; what streams is left out."""
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        return value.isoformat()
    return None


HANDLER_CODES = (
    ("Throttl", "Throttling"),
    ("TooManyRequests", "Throttling"),
    ("LimitExceeded", "ServiceLimitExceeded"),
    ("AccessDenied", "AccessDenied"),
    ("NotAuthorized", "AccessDenied"),
    ("NotFound", "NotFound"),
    ("NoSuch", "NotFound"),
    ("NonExistent", "NotFound"),
    ("AlreadyExist", "AlreadyExists"),
    ("QueueNameExists", "AlreadyExists"),
    ("ResourceConflict", "AlreadyExists"),
    ("Conflict", "ResourceConflict"),
    ("InUse", "ResourceConflict"),
)
SERVICE_TITLES = {
    "lambda": "Lambda", "s3": "S3", "sqs": "Sqs", "dynamodb": "DynamoDb", "iam": "Iam", "logs": "CloudWatchLogs",
    "ssm": "Ssm", "secretsmanager": "SecretsManager", "apigatewayv2": "ApiGatewayV2", "s3vectors": "S3Vectors",
}  # fmt: skip


def handler_message(service: str, error: AwsError, request_id: str, token: str) -> str:
    """An operation's error as the reason of a stack event."""
    if error.status >= 500:
        code = "GeneralServiceException" if error.status == 501 else "ServiceInternalError"
    else:
        code = next((name for mark, name in HANDLER_CODES if mark in error.code), "InvalidRequest")
    title = SERVICE_TITLES.get(service, service)
    return (
        f'Resource handler returned message: "{error.message} (Service: {title}, Status Code: {error.status}, '
        f'Request ID: {request_id})" (RequestToken: {token}, HandlerErrorCode: {code})'
    )

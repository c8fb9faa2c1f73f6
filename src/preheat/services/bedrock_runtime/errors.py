"""Bedrock's errors: of a request, of a backend, and inside a stream that has begun."""

from typing import Any

from preheat.kernel.errors import AwsError, ValidationError
from preheat.models.contract import (
    ModelDenied,
    ModelError,
    ModelFailed,
    ModelInputError,
    ModelThrottled,
    ModelTimeout,
    ModelUnavailable,
)

TOO_MANY = {
    "requests": "Too many requests, please wait before trying again.",
    "tokens": "Too many tokens, please wait before trying again.",
}
DEFECT = "The system encountered an unexpected error during processing. Try your request again."


def invalid(message: str) -> ValidationError:
    return ValidationError(message)


def malformed(detail: str) -> ValidationError:
    """A body that does not fit the model's schema."""
    return ValidationError(f"Malformed input request: {detail}, please reformat your input and try again.")


def out_of_range(value: Any, member: str, constraint: str) -> ValidationError:
    return ValidationError(
        f"1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: {constraint}"
    )


def throttled(limit: str) -> AwsError:
    return AwsError("ThrottlingException", TOO_MANY[limit], 429)


def to_aws(error: ModelError, model_id: str) -> AwsError:
    """A backend's failure before the first byte."""
    text = str(error)
    if isinstance(error, ModelInputError):
        return AwsError("ValidationException", text, 400)
    if isinstance(error, ModelDenied):
        return AwsError("AccessDeniedException", text, 403)
    if isinstance(error, ModelThrottled):
        return AwsError("ThrottlingException", text, 429)
    if isinstance(error, ModelTimeout):
        return AwsError("ModelTimeoutException", text, 408)
    if isinstance(error, ModelUnavailable):
        return AwsError("ServiceUnavailableException", text, 503)
    status = error.original_status if isinstance(error, ModelFailed) else 500
    fields = {"originalStatusCode": status, "resourceName": model_id}
    return AwsError("ModelErrorException", text, 424, fields=fields)


def to_event(error: ModelError, timeout_event: bool) -> dict[str, Any]:
    """A backend's failure after the first byte, as the stream's last event. Converse has no `timeout_event`."""
    text = str(error)
    if isinstance(error, ModelInputError):
        return {"validationException": {"message": text}}
    if isinstance(error, ModelThrottled):
        return {"throttlingException": {"message": text}}
    if isinstance(error, ModelUnavailable):
        return {"serviceUnavailableException": {"message": text}}
    if isinstance(error, ModelTimeout):
        if timeout_event:
            return {"modelTimeoutException": {"message": text}}
        status = 408
    elif isinstance(error, ModelDenied):
        status = 403
    else:
        status = error.original_status if isinstance(error, ModelFailed) else 500
    members = {"message": text, "originalStatusCode": status, "originalMessage": text}
    return {"modelStreamErrorException": members}

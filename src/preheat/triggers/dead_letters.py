"""What a dead letter says of its failure: EventBridge's own error codes, the fields that Scheduler adds."""

from preheat.kernel.errors import AwsError
from preheat.services.deliveries import Attributes, Delivery

MAX_REASON = 1_024
EVENTS = "events.amazonaws.com"
_CODES = {
    "ConnectionFailure": "CONNECTION_FAILURE",
    "FAILED_TO_ASSUME_ROLE": "FAILED_TO_ASSUME_ROLE",
    "LimitExceededException": "RESOURCE_LIMIT_EXCEEDED",
    "MalformedDetail": "INVALID_JSON",
    "THIRD_ACCOUNT_HOP_DETECTED": "THIRD_ACCOUNT_HOP_DETECTED",
}
_MISSING = ("NotFound", "DoesNotExist", "NonExistent", "NoSuch")
_REFUSED = ("AccessDenied", "AuthorizationError", "NotAuthorized")


def failure(delivery: Delivery, retries: int, error: AwsError, condition: str, throttled: bool) -> Attributes:
    """The message attributes about a failure in the style "events": EventBridge names a class of errors, Scheduler the
    target's own code."""
    events = delivery.source_service == EVENTS
    attributes: Attributes = {
        "ERROR_CODE": ("String", events_code(error, throttled) if events else error.code),
        "ERROR_MESSAGE": ("String", error.message[:MAX_REASON] or error.code),
        "RETRY_ATTEMPTS": ("Number", str(retries)),
    }
    if condition:
        attributes["EXHAUSTED_RETRY_CONDITION"] = ("String", condition)
    return attributes


def events_code(error: AwsError, throttled: bool) -> str:
    """One of the codes that EventBridge documents for dead letters (which error gets which code is assumed)."""
    if error.code in _CODES:
        return _CODES[error.code]
    if throttled:
        return "THROTTLING"
    if error.status == 403 or any(word in error.code for word in _REFUSED):
        return "NO_PERMISSIONS"
    if error.status == 404 or any(word in error.code for word in _MISSING):
        return "NO_RESOURCE"
    if error.code.startswith("HTTP_"):
        return "ERROR_FROM_TARGET" if error.status >= 500 else "SDK_CLIENT_ERROR"
    if error.status >= 500:
        return "ERROR_FROM_TARGET"
    return "INVALID_PARAMETER" if "Invalid" in error.code or "Validation" in error.code else "SDK_CLIENT_ERROR"

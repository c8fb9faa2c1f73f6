"""Delivery policies: the retries, throttle and content type of an http(s) endpoint, and the ladders they make."""

from typing import Any

import msgspec

from preheat.services.deliveries import Ladder, Phase
from preheat.services.sns.domain import invalid

HEALTHY = {
    "minDelayTarget": 20,
    "maxDelayTarget": 20,
    "numRetries": 3,
    "numMaxDelayRetries": 0,
    "numNoDelayRetries": 0,
    "numMinDelayRetries": 0,
    "backoffFunction": "linear",
}
CONTENT_TYPE = "text/plain; charset=UTF-8"
MAX_TOTAL_S = 3_600
MAX_RETRIES = 100
BACKOFFS = ("arithmetic", "exponential", "geometric", "linear")
CONTENT_TYPES = ("application/json", "text/plain")
RAW_CONTENT_TYPES = (
    *CONTENT_TYPES, "application/atom+xml", "application/octet-stream", "application/soap+xml",
    "application/x-www-form-urlencoded", "application/xhtml+xml", "application/xml", "text/css", "text/csv",
    "text/html", "text/xml",
)  # fmt: skip
JITTER = 0.1
MANAGED = Ladder(
    (Phase(3), Phase(2, 1.0, 1.0), Phase(10, 1.0, 20.0, "exponential"), Phase(100_000, 20.0, 20.0)),
    24 * 86_400.0,
    JITTER,
)
"""For endpoints of AWS's own, queues and functions: 100,015 retries, which take 23 days."""
RETRY_KEYS = frozenset(HEALTHY)
TOPIC_KEYS = {
    "defaultHealthyRetryPolicy", "disableSubscriptionOverrides", "defaultThrottlePolicy", "defaultRequestPolicy",
    "defaultSicklyRetryPolicy",
}  # fmt: skip
SUBSCRIPTION_KEYS = {"healthyRetryPolicy", "throttlePolicy", "requestPolicy", "sicklyRetryPolicy", "guaranteed"}


def check_topic_policy(text: str, prefix: str) -> None:
    """A topic's DeliveryPolicy. Raises InvalidParameter."""
    document = _document(text, prefix)
    _known(document, {"http"}, prefix)
    http = document.get("http") or {}
    _known(http, TOPIC_KEYS, prefix)
    _check_retries(http.get("defaultHealthyRetryPolicy"), "http.defaultHealthyRetryPolicy", prefix)
    _check_throttle(http.get("defaultThrottlePolicy"), "http.defaultThrottlePolicy", prefix)
    _check_request(http.get("defaultRequestPolicy"), CONTENT_TYPES, prefix)
    if not isinstance(http.get("disableSubscriptionOverrides") or False, bool):
        raise invalid(f"{prefix}DeliveryPolicy: http.disableSubscriptionOverrides must be a boolean")


def check_subscription_policy(text: str, prefix: str, raw: bool) -> None:
    """A subscription's DeliveryPolicy. Raises InvalidParameter."""
    document = _document(text, prefix)
    _known(document, SUBSCRIPTION_KEYS, prefix)
    _check_retries(document.get("healthyRetryPolicy"), "healthyRetryPolicy", prefix)
    _check_throttle(document.get("throttlePolicy"), "throttlePolicy", prefix)
    _check_request(document.get("requestPolicy"), RAW_CONTENT_TYPES if raw else CONTENT_TYPES, prefix)


def _document(text: str, prefix: str) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(text)
    except msgspec.DecodeError:
        document = None
    if not isinstance(document, dict):
        raise invalid(f"{prefix}DeliveryPolicy: failed to parse JSON")
    return document


def _known(document: Any, names: set[str], prefix: str) -> None:
    if not isinstance(document, dict):
        raise invalid(f"{prefix}DeliveryPolicy: failed to parse JSON")
    for name in document:
        if name not in names:
            raise invalid(f"{prefix}DeliveryPolicy: Unexpected JSON member: {name}")


def _check_retries(given: Any, path: str, prefix: str) -> None:
    if given is None:
        return
    _known(given, set(RETRY_KEYS), prefix)
    policy = {**HEALTHY, **given}
    if policy["backoffFunction"] not in BACKOFFS:
        raise invalid(f"{prefix}DeliveryPolicy: {path}.backoffFunction must be one of {', '.join(BACKOFFS)}")
    for name, value in policy.items():
        if name != "backoffFunction" and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise invalid(f"{prefix}DeliveryPolicy: {path}.{name} must be a non-negative integer")
    if policy["numRetries"] > MAX_RETRIES:
        raise invalid(f"{prefix}DeliveryPolicy: {path}.numRetries must be less than or equal to {MAX_RETRIES}")
    if policy["minDelayTarget"] < 1:
        raise invalid(f"{prefix}DeliveryPolicy: {path}.minDelayTarget must be greater than or equal to 1")
    if policy["maxDelayTarget"] > MAX_TOTAL_S:
        raise invalid(f"{prefix}DeliveryPolicy: {path}.maxDelayTarget must be less than or equal to {MAX_TOTAL_S}")
    if policy["minDelayTarget"] > policy["maxDelayTarget"]:
        raise invalid(f"{prefix}DeliveryPolicy: {path}.maxDelayTarget must not be less than minDelayTarget")
    fixed = policy["numNoDelayRetries"] + policy["numMinDelayRetries"] + policy["numMaxDelayRetries"]
    if fixed > policy["numRetries"]:
        raise invalid(
            f"{prefix}DeliveryPolicy: {path}.numRetries must be greater than or equal to the sum of "
            "numMinDelayRetries, numNoDelayRetries and numMaxDelayRetries"
        )
    ladder = _ladder(policy)
    pauses = sum(ladder.pause(failures, 0.0) or 0.0 for failures in range(1, ladder.max_attempts))
    if pauses > MAX_TOTAL_S:
        raise invalid(f"{prefix}DeliveryPolicy: {path}: the retries must not take longer than {MAX_TOTAL_S} seconds")


def _check_throttle(given: Any, path: str, prefix: str) -> None:
    if given is None:
        return
    _known(given, {"maxReceivesPerSecond"}, prefix)
    rate = given.get("maxReceivesPerSecond")
    if rate is not None and (not isinstance(rate, int) or isinstance(rate, bool) or rate < 1):
        raise invalid(f"{prefix}DeliveryPolicy: {path}.maxReceivesPerSecond must be greater than or equal to 1")


def _check_request(given: Any, types: tuple[str, ...], prefix: str) -> None:
    if given is None:
        return
    _known(given, {"headerContentType"}, prefix)
    content_type = given.get("headerContentType", CONTENT_TYPE)
    if not isinstance(content_type, str) or content_type.partition(";")[0].strip() not in types:
        raise invalid(f"{prefix}DeliveryPolicy: headerContentType is not supported")


def shown_topic_policy(text: str) -> dict[str, Any]:
    """A topic's delivery policy as AWS shows it again: what was given, without what is null (recorded 2024)."""
    given = msgspec.json.decode(text).get("http") or {}
    kept = {name: value for name, value in given.items() if value is not None}
    names = ("defaultHealthyRetryPolicy", "disableSubscriptionOverrides", "defaultThrottlePolicy",
             "defaultRequestPolicy")  # fmt: skip
    kept.setdefault("disableSubscriptionOverrides", False)
    return {"http": {name: kept[name] for name in names if name in kept}}


def shown_subscription_policy(text: str) -> dict[str, Any]:
    """A subscription's delivery policy as AWS shows it again: every part of it, null where none was given."""
    given = msgspec.json.decode(text)
    parts = ("healthyRetryPolicy", "sicklyRetryPolicy", "throttlePolicy", "requestPolicy")
    return {**{name: given.get(name) for name in parts}, "guaranteed": given.get("guaranteed", False)}


def effective_topic_policy(text: str | None) -> dict[str, Any]:
    """A topic's delivery policy with the system's defaults."""
    http = (msgspec.json.decode(text).get("http") or {}) if text else {}
    effective = {
        "defaultHealthyRetryPolicy": {**HEALTHY, **(http.get("defaultHealthyRetryPolicy") or {})},
        "disableSubscriptionOverrides": http.get("disableSubscriptionOverrides") or False,
        "defaultRequestPolicy": {"headerContentType": CONTENT_TYPE, **(http.get("defaultRequestPolicy") or {})},
    }
    if http.get("defaultThrottlePolicy"):
        effective["defaultThrottlePolicy"] = http["defaultThrottlePolicy"]
    return {"http": effective}


def effective_policy(topic: str | None, subscription: str | None) -> dict[str, Any]:
    """An http(s) subscription's delivery policy: its own, else its topic's, else the system's."""
    http = effective_topic_policy(topic)["http"]
    own = msgspec.json.decode(subscription) if subscription and not http["disableSubscriptionOverrides"] else {}
    healthy = own.get("healthyRetryPolicy")
    return {
        "healthyRetryPolicy": {**HEALTHY, **healthy} if healthy else http["defaultHealthyRetryPolicy"],
        "sicklyRetryPolicy": None,
        "throttlePolicy": own.get("throttlePolicy") or http.get("defaultThrottlePolicy"),
        "requestPolicy": own.get("requestPolicy") or http["defaultRequestPolicy"],
        "guaranteed": False,
    }


def http_ladder(policy: dict[str, Any]) -> Ladder:
    """The phases of an effective policy's retries."""
    return _ladder(policy["healthyRetryPolicy"])


def _ladder(retries: dict[str, Any]) -> Ladder:
    least, most = float(retries["minDelayTarget"]), float(retries["maxDelayTarget"])
    fixed = retries["numNoDelayRetries"] + retries["numMinDelayRetries"] + retries["numMaxDelayRetries"]
    phases = (
        Phase(retries["numNoDelayRetries"]),
        Phase(retries["numMinDelayRetries"], least, least),
        Phase(retries["numRetries"] - fixed, least, most, retries["backoffFunction"]),
        Phase(retries["numMaxDelayRetries"], most, most),
    )
    return Ladder(tuple(phase for phase in phases if phase.retries), float(MAX_TOTAL_S))

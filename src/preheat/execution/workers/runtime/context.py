"""The `context` argument of a Python handler, with AWS's attributes and methods."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import Any

TRACE_FIELDS = ("traceparent", "tracestate", "baggage")
FIXED = {
    "log_group_name": "AWS_LAMBDA_LOG_GROUP_NAME",
    "log_stream_name": "AWS_LAMBDA_LOG_STREAM_NAME",
    "function_name": "AWS_LAMBDA_FUNCTION_NAME",
    "memory_limit_in_mb": "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "function_version": "AWS_LAMBDA_FUNCTION_VERSION",
}
"""What stays the same in one environment: attributes of the context, and the variables that they come from."""


def fixed() -> dict[str, Any]:
    """The attributes that all contexts of this environment share."""
    return {name: os.environ.get(variable) for name, variable in FIXED.items()}


class CognitoIdentity:
    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.cognito_identity_id = fields.get("cognitoIdentityId")
        self.cognito_identity_pool_id = fields.get("cognitoIdentityPoolId")


class Client:
    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.installation_id = fields.get("installation_id")
        self.app_title = fields.get("app_title")
        self.app_version_name = fields.get("app_version_name")
        self.app_version_code = fields.get("app_version_code")
        self.app_package_name = fields.get("app_package_name")


class ClientContext:
    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.custom = fields.get("custom")
        self.env = fields.get("env")
        client = fields.get("client")
        self.client = None if client is None else Client(client)


class LambdaContext:
    def __init__(
        self,
        request_id: str,
        deadline_ms: int,
        invoked_function_arn: str,
        client_context: dict[str, Any] | None = None,
        identity: dict[str, Any] | None = None,
        tenant_id: str | None = None,
        shared: dict[str, Any] | None = None,
    ) -> None:
        """`shared`: what `fixed` found before, if it has been asked."""
        self.aws_request_id = request_id
        vars(self).update(fixed() if shared is None else shared)
        self.invoked_function_arn = invoked_function_arn
        self.tenant_id = tenant_id
        self._trace = {}
        self.client_context = None
        if client_context is not None:
            fields = dict(client_context or {})
            trace = fields.pop("w3c", None)
            if isinstance(trace, dict):
                self._trace = {key: trace[key] for key in TRACE_FIELDS if isinstance(trace.get(key), str)}
            self.client_context = ClientContext(fields)
        self.identity = CognitoIdentity(identity or {})
        self._deadline_ms = deadline_ms

    def get_remaining_time_in_millis(self) -> int:
        return max(0, self._deadline_ms - int(time.time() * 1000))

    def w3c(self) -> dict[str, str]:
        return dict(self._trace)

    def log(self, message: Any) -> None:
        sys.stdout.write(str(message))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value}" for name, value in vars(self).items() if not name.startswith("_"))
        return f"LambdaContext([{shown}])"

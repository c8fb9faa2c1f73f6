"""What a client may be told went wrong.

AwsError            an answer in AWS's own shape: code, message, HTTP status, extra modelled members
  ValidationError   the request does not fit the operation's model
"""

from typing import Any


class AwsError(Exception):
    """An error answer. `code` is the AWS error code, `status` the HTTP status, `fields` further members of the
    modelled error shape (they are serialised beside the message), `query_code` the older query-protocol code where a
    service has two (SQS), `sender` False for faults of the server, `headers` extra HTTP headers."""

    def __init__(
        self,
        code: str,
        message: str,
        status: int = 400,
        *,
        fields: dict[str, Any] | None = None,
        query_code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.fields = fields or {}
        self.query_code = query_code
        self.headers = headers or {}

    @property
    def sender(self) -> bool:
        return self.status < 500


class ValidationError(AwsError):
    """A request that does not fit its operation's model."""

    def __init__(self, message: str, code: str = "ValidationException", status: int = 400) -> None:
        super().__init__(code, message, status)

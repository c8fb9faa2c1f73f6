"""Real Amazon Bedrock behind a model id: calls are passed on through boto3 as they are."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

from preheat.models.contract import (
    ModelDenied,
    ModelError,
    ModelFailed,
    ModelInputError,
    ModelThrottled,
    ModelTimeout,
    ModelUnavailable,
)

_ERRORS: dict[str, type[ModelError]] = {
    "ValidationException": ModelInputError,
    "ResourceNotFoundException": ModelInputError,
    "AccessDeniedException": ModelDenied,
    "UnrecognizedClientException": ModelDenied,
    "ExpiredTokenException": ModelDenied,
    "ThrottlingException": ModelThrottled,
    "ModelNotReadyException": ModelThrottled,
    "ModelTimeoutException": ModelTimeout,
    "ServiceUnavailableException": ModelUnavailable,
}


class BedrockPassthrough:
    """`target` is Bedrock's model id. The endpoint is always named, so that AWS_ENDPOINT_URL, which points at Preheat,
    cannot send a call round in a circle; credentials are found as boto3 finds them (`profile`)."""

    def __init__(
        self,
        id: str,
        target: str,
        *,
        region: str = "us-east-1",
        profile: str | None = None,
        endpoint_url: str | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        self.id = id
        self.target = target
        self._region = region
        self._profile = profile
        self._endpoint_url = endpoint_url or f"https://bedrock-runtime.{region}.amazonaws.com"
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._client: Any = None

    def call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """boto3's `method` ("converse", ...) on the target; its answer. Raises ModelError."""
        return self._guard(lambda: getattr(self._connect(), method)(**{**params, "modelId": self.target}))

    def events(self, stream: Any) -> Iterator[dict[str, Any]]:
        """The events of a streamed answer as one-member dicts; the connection is closed at the end."""
        iterator = iter(stream)
        try:
            while True:
                event = self._guard(lambda: next(iterator, None))
                if event is None:
                    return
                yield event
        finally:
            stream.close()

    def _connect(self) -> Any:
        with self._lock:
            if self._client is None:
                import boto3
                from botocore.config import Config

                session = boto3.Session(profile_name=self._profile, region_name=self._region)
                config = Config(read_timeout=self._timeout_s, retries={"total_max_attempts": 1})
                self._client = session.client("bedrock-runtime", endpoint_url=self._endpoint_url, config=config)
            return self._client

    def _guard(self, action: Callable[[], Any]) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError, ReadTimeoutError

        try:
            return action()
        except ClientError as error:
            details = error.response.get("Error", {})
            message = details.get("Message", str(error))
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
            code = details.get("Code", "")
            kind = _ERRORS.get(code[:1].upper() + code[1:])
            raise ModelFailed(message, status) if kind is None else kind(message) from error
        except ReadTimeoutError as error:
            raise ModelTimeout(str(error)) from error
        except BotoCoreError as error:
            raise ModelUnavailable(str(error)) from error

"""Any server with OpenAI's API (chat completions, embeddings), through the standard library."""

import http.client
import json
import ssl
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from preheat.models.contract import (
    Kind,
    Message,
    ModelDenied,
    ModelError,
    ModelFailed,
    ModelInputError,
    ModelThrottled,
    ModelTimeout,
    ModelUnavailable,
    StopReason,
    Usage,
)

if TYPE_CHECKING:
    import numpy

LONGEST_ERROR = 2_000


class Server:
    """`base_url` as for the official clients, e.g. http://127.0.0.1:11434/v1. `timeout_s` bounds each wait."""

    def __init__(self, base_url: str, api_key: str = "", timeout_s: float = 60.0) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"base_url is not an http(s) URL: {base_url!r}")
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port
        self._path = parts.path.rstrip("/")
        self._api_key = api_key
        self._timeout_s = timeout_s

    def post(self, path: str, body: dict[str, Any]) -> "tuple[http.client.HTTPConnection, http.client.HTTPResponse]":
        """A response with status 200, unread. Raises ModelError."""
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        connection = self._connect()
        try:
            connection.request("POST", self._path + path, json.dumps(body).encode(), headers)
            response = connection.getresponse()
            if response.status != 200:
                raise _refusal(response.status, response.read(LONGEST_ERROR).decode(errors="replace"))
        except ModelError:
            connection.close()
            raise
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise _broken(error, self._host) from error
        return connection, response

    def lines(self, response: http.client.HTTPResponse) -> Iterator[str]:
        try:
            for line in response:
                yield line.decode(errors="replace").rstrip("\r\n")
        except (OSError, http.client.HTTPException) as error:
            raise _broken(error, self._host) from error

    def document(self, path: str, body: dict[str, Any]) -> Any:
        connection, response = self.post(path, body)
        try:
            return json.loads(response.read())
        except (OSError, http.client.HTTPException) as error:
            raise _broken(error, self._host) from error
        except ValueError as error:
            raise ModelFailed(f"the model server's answer is not JSON: {error}", 502) from error
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        if self._secure:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=context)
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)


class ChatGenerator:
    """`model` is the server's name for the model. Token counts before an answer are estimates (4 characters each);
    those in `usage` are the server's where it reports them."""

    def __init__(self, id: str, server: Server, model: str) -> None:
        self.id = id
        self._server = server
        self._model = model

    def generate(
        self,
        messages: Sequence[Message],
        system: str = "",
        max_tokens: int = 1_024,
        stop: Sequence[str] = (),
        temperature: float | None = None,
        top_p: float | None = None,
    ) -> "ChatGeneration":
        said = [{"role": "system", "content": system}] if system else []
        said += [{"role": message.role, "content": message.text} for message in messages]
        body: dict[str, Any] = {
            "model": self._model,
            "messages": said,
            "max_tokens": max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if stop:
            body["stop"] = list(stop)
        if temperature is not None:
            body["temperature"] = temperature
        if top_p is not None:
            body["top_p"] = top_p
        estimate = self.count_tokens(system) + sum(self.count_tokens(message.text) for message in messages)
        return ChatGeneration(self._server, body, estimate)

    def count_tokens(self, text: str) -> int:
        return (len(text) + 3) // 4


class ChatGeneration:
    """The request is sent when the first piece is asked for."""

    def __init__(self, server: Server, body: dict[str, Any], estimate: int) -> None:
        self.usage = Usage(input_tokens=estimate)
        self.stop_reason: StopReason = "end_turn"
        self.stop_sequence: str | None = None
        self._pieces = self._run(server, body)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    def close(self) -> None:
        self._pieces.close()

    def _run(self, server: Server, body: dict[str, Any]) -> Iterator[str]:
        connection, response = server.post("/chat/completions", body)
        ended = False
        try:
            for line in server.lines(response):
                if not line.startswith("data:"):
                    continue
                data = line[5:].strip()
                if data == "[DONE]":
                    ended = True
                    break
                text, finished = self._read(data)
                ended = ended or finished
                if text:
                    yield text
        finally:
            connection.close()
        if not ended:
            raise ModelFailed("the model server closed the stream before the answer ended", 502)

    def _read(self, data: str) -> tuple[str, bool]:
        """(text of one event, whether it says that the answer has ended)."""
        try:
            event = json.loads(data)
        except ValueError as error:
            raise ModelFailed(f"the model server sent an event that is not JSON: {error}", 502) from error
        if event.get("error"):
            raise ModelFailed(str(event["error"].get("message", event["error"])), 500)
        usage = event.get("usage")
        if usage:
            self.usage.input_tokens = usage.get("prompt_tokens", self.usage.input_tokens)
            self.usage.output_tokens = usage.get("completion_tokens", self.usage.output_tokens)
        choices = event.get("choices")
        if not choices:
            return "", False
        text = (choices[0].get("delta") or {}).get("content") or ""
        if text and not usage:
            self.usage.output_tokens += 1
        finish = choices[0].get("finish_reason")
        if finish == "length":
            self.stop_reason = "max_tokens"
        return text, finish is not None


class ServerEmbedder:
    """`dimension` is the length of the model's vectors; another length is an error. Rows are normalised."""

    max_tokens = 0

    def __init__(self, id: str, server: Server, model: str, dimension: int) -> None:
        self.id = id
        self.dimension = dimension
        self.dimensions = (dimension,)
        self._server = server
        self._model = model

    def embed(self, texts: Sequence[str], kind: Kind = "document") -> "numpy.ndarray":
        import numpy

        answer = self._server.document("/embeddings", {"model": self._model, "input": list(texts)})
        try:
            rows = sorted(answer["data"], key=lambda row: row["index"])
            vectors = numpy.array([row["embedding"] for row in rows], dtype=numpy.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFailed("the model server's answer has no embeddings", 502) from error
        if vectors.shape != (len(texts), self.dimension):
            raise ModelFailed(
                f"the model server gave vectors of shape {vectors.shape}, not {(len(texts), self.dimension)}", 502
            )
        lengths = numpy.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / numpy.where(lengths == 0, 1, lengths)

    def shorten(self, vector: "numpy.ndarray", dimension: int) -> "numpy.ndarray":
        return vector

    def count_tokens(self, text: str) -> int:
        return (len(text) + 3) // 4


def _refusal(status: int, text: str) -> ModelError:
    try:
        message = json.loads(text)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = text or f"status {status}"
    if status in (400, 413, 422):
        return ModelInputError(message)
    if status in (401, 403):
        return ModelDenied(message)
    if status == 429:
        return ModelThrottled(message)
    if status in (408, 504):
        return ModelTimeout(message)
    if status == 503:
        return ModelUnavailable(message)
    return ModelFailed(message, status)


def _broken(error: Exception, host: str) -> ModelError:
    if isinstance(error, TimeoutError):
        return ModelTimeout(f"the model server {host} did not answer in time")
    return ModelUnavailable(f"the model server {host} cannot be reached or broke off: {error}")

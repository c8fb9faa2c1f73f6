"""How commands reach a running platform: boto3 clients, plain HTTP, and errors told in one line."""

import http.client
import json
import os
from collections.abc import Iterator
from typing import Any, NoReturn
from urllib.parse import urlencode, urlsplit

import typer

DEFAULT_ENDPOINT = "http://127.0.0.1:4566"
REGION = "us-east-1"


def fail(message: str, code: int = 1) -> NoReturn:
    typer.echo(f"preheat: {message}", err=True)
    raise typer.Exit(code)


def endpoint_of(port: int | None) -> str:
    """The endpoint a command talks to: --port, else AWS_ENDPOINT_URL, else the default."""
    if port is not None:
        return f"http://127.0.0.1:{port}"
    return os.environ.get("AWS_ENDPOINT_URL", DEFAULT_ENDPOINT)


class Platform:
    """One running platform."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint.rstrip("/")
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        if service not in self._clients:
            import boto3
            from botocore.config import Config

            self._clients[service] = boto3.client(
                service,
                endpoint_url=self.endpoint,
                region_name=os.environ.get("AWS_DEFAULT_REGION", REGION),
                aws_access_key_id=os.environ.get("AWS_ACCESS_KEY_ID", "preheat"),
                aws_secret_access_key=os.environ.get("AWS_SECRET_ACCESS_KEY", "preheat"),
                aws_session_token=os.environ.get("AWS_SESSION_TOKEN"),
                config=Config(retries={"mode": "standard", "max_attempts": 3}, s3={"addressing_style": "path"}),
            )
        return self._clients[service]

    def outputs(self, stack: str) -> dict[str, str]:
        """The outputs of a deployed stack."""
        from botocore.exceptions import ClientError

        try:
            found = self.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
        except ClientError as error:
            fail(f"{error.response['Error']['Message']}; `preheat deploy` or `preheat up` makes it")
        return {one["OutputKey"]: one["OutputValue"] for one in found.get("Outputs", [])}

    def fidelity(self, stack: str, change_set: str = "") -> list[dict[str, str]]:
        """What each property of a stack's template (or of a change set's) does here."""
        wanted = urlencode({"stack": stack, "change-set": change_set})
        status, body = self.request("GET", f"/_preheat/fidelity?{wanted}")
        document = json.loads(body)
        if status != 200:
            fail(document["message"])
        return document["rows"]

    def at_path(self, url: str) -> str:
        """A function URL or API address as a path on the endpoint, for clients that cannot resolve *.localhost."""
        parts = urlsplit(url)
        name, _, rest = (parts.hostname or "").partition(".")
        kinds = {"lambda-url": "/_aws/lambda-url/", "execute-api": "/_aws/execute-api/"}
        prefix = kinds.get(rest.partition(".")[0])
        endpoint = self.endpoint.replace("http", "ws", 1) if parts.scheme in ("ws", "wss") else self.endpoint
        return url if prefix is None else f"{endpoint}{prefix}{name}{parts.path or '/'}"

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """One plain request; (status, body). Ends the command when nothing answers."""
        parts = urlsplit(self.endpoint)
        connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 80, timeout=60)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except OSError:
            fail(f"nothing answers at {self.endpoint}; start it with `preheat serve` or `preheat up`, or give --port")
        finally:
            connection.close()

    def events(self, url: str, document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """POST `document` and yield the server-sent events of the answer as they come."""
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 80, timeout=120)
        try:
            headers = {"content-type": "application/json"}
            connection.request("POST", parts.path, json.dumps(document).encode(), headers)
            answer = connection.getresponse()
            if answer.status != 200:
                fail(f"the service answered {answer.status}: {answer.read()[:500].decode(errors='replace')}")
            name = "message"
            for raw in answer:
                line = raw.decode().rstrip("\n")
                if line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data: "):
                    yield name, json.loads(line[6:])
        except OSError as error:
            fail(f"no answer from {url}: {error}")
        finally:
            connection.close()

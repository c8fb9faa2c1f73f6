"""Less work for boto3's clients.

QueryVectors: a client checks, copies and reads every member of a call by the service's model: 384 numbers on the way
out, keys and scores of 200 passages on the way back, which takes it longer than all the rest of the call. JSON as it is
says the same, so these members pass by, through the client's own events; signing, retries and errors stay the client's.

Any call: a client puts its `User-Agent` together twice a call from a dozen parts, about a seventh of what a small call
costs it. A configuration that has the text already (`AGENT`) spares it that.
"""

import json
from contextlib import suppress
from typing import Any

AGENT = "ragkit"
"""For `botocore.config.Config(user_agent=...)`; boto3 puts botocore's name and version behind it."""
OPERATION = "s3vectors.QueryVectors"
_VECTOR = "ragkit.vector"


def lean(client: Any) -> Any:
    """boto3's s3vectors client itself, from now on with fewer steps a query."""
    events = client.meta.events
    events.register(f"provide-client-params.{OPERATION}", _take, unique_id="ragkit-take")
    events.register(f"before-call.{OPERATION}", _put_back, unique_id="ragkit-put-back")
    events.register(f"before-parse.{OPERATION}", _read, unique_id="ragkit-read")
    return client


def _take(params: dict[str, Any], context: dict[str, Any], **_: Any) -> dict[str, Any] | None:
    """The vector passes by what looks at parameters one by one. What is no vector stays, to be refused."""
    vector = params.get("queryVector")
    if not isinstance(vector, dict) or vector.keys() != {"float32"} or not _numbers(vector["float32"]):
        return None
    context[_VECTOR] = vector
    return {name: value for name, value in params.items() if name != "queryVector"}


def _numbers(given: Any) -> bool:
    return isinstance(given, list) and set(map(type, given)) == {float}


def _put_back(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    vector = context.pop(_VECTOR, None)
    if vector is not None:
        params["body"] = json.dumps({**json.loads(params["body"]), "queryVector": vector}).encode()


def _read(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    """The answer as it came; what is an error, or no object, the client reads itself."""
    if response_dict["status_code"] != 200:
        return
    with suppress(ValueError):
        found = json.loads(response_dict["body"])
        if isinstance(found, dict):
            customized_response_dict.update(found)
            response_dict["body"] = b"{}"

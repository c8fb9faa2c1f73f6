"""The documents: how each fared, its passages in order, and where to put a new one."""

import base64
import os
import posixpath
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from ragkit.chunking import chunk_id
from ragkit.defence import visible
from ragkit.extract import supported
from ragkit.identity import Caller, folder_of
from ragkit.sessions import plain
from ragkit.trace import Trace, current

from handlers import wiring
from handlers.requests import Refusal, body_of, count

PAGE = 100
SCANNED = 1_000
STEP = 50
MOST_PASSAGES = 2_000
VALID_S = 600
LONGEST_NAME = 200
LONGEST_KEY = 1_024
PREFIX = "uploads/"
SHOWN = ("document", "status", "chunks", "reason", "note", "updated_ms", "correlation")


def documents(event: dict[str, Any], caller: Caller, _: str) -> dict[str, Any]:
    """A page of rows that the caller may see; `next` names the last of them, and so nothing that it may not see."""
    token = (event.get("queryStringParameters") or {}).get("next", "")
    start = {"ExclusiveStartKey": {"document": _from_token(token)}} if token else {}
    rows: list[dict[str, Any]] = []
    while len(rows) < PAGE:
        found = wiring.table("DOCUMENTS_TABLE").scan(Limit=SCANNED, **start)
        rows += [
            {name: plain(row[name]) for name in SHOWN if name in row}
            for row in found["Items"]
            if set(row.get("labels", ())) & set(caller.user.labels) and row["status"] != "deleted"
        ]
        if "LastEvaluatedKey" not in found:
            break
        start = {"ExclusiveStartKey": found["LastEvaluatedKey"]}
    more = len(rows) > PAGE or (len(rows) == PAGE and "LastEvaluatedKey" in found)
    last = base64.urlsafe_b64encode(rows[PAGE - 1]["document"].encode()).decode() if more else ""
    return {"documents": rows[:PAGE], "next": last}


def _from_token(token: str) -> str:
    try:
        key = base64.urlsafe_b64decode(token).decode()
    except ValueError:
        key = ""
    if not 0 < len(key.encode()) <= LONGEST_KEY:
        raise Refusal(400, "`next` is not one that this list gave")
    return key


def document(event: dict[str, Any], caller: Caller, key: str) -> dict[str, Any]:
    """The document as its passages in order, for a reader."""
    store = wiring.store(wiring.registry().current().live)
    passages: list[Any] = []
    while len(passages) < MOST_PASSAGES:
        asked = [chunk_id(key, number) for number in range(len(passages), len(passages) + STEP)]
        found = store.passages(asked)
        passages += found
        if len(found) < STEP:
            break
    seen = set(caller.user.labels)
    if not passages or any(not seen & set(one.labels) for one in passages):
        raise Refusal(404, f"there is no document {key}")
    shown = [
        {"id": one.id, "number": one.number, "headings": one.context, "text": one.text, "page": one.page}
        for one in passages
    ]
    return {"document": key, "title": passages[0].title, "passages": shown}


def upload(event: dict[str, Any], caller: Caller, _: str) -> dict[str, Any]:
    """An address that takes one file by PUT, straight into the documents bucket. The file gets the labels that its
    sender has beyond the public one, so that nobody else sees it; without any it is public. It carries the request's
    correlation id to whoever reads it in."""
    body = body_of(event)
    name = body.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME:
        raise Refusal(400, f'send {{"name": "FILE"}}, a name of up to {LONGEST_NAME} characters')
    name = posixpath.basename(name.replace("\\", "/")).strip()
    if not name.strip(".") or not supported(name) or visible(name) != name or "\n" in name or "\t" in name:
        raise Refusal(400, f"{name or 'this'} is not of a kind that can be read")
    key = f"{PREFIX}{folder_of(caller.user)}/{name}"
    if not caller.has_key and os.environ.get("OPEN_UPLOADS") != "true":
        raise Refusal(401, "an access key is needed to bring in documents")
    count(caller)
    own = [label for label in caller.user.labels if label != "public"]
    metadata = {"correlation": current(), **({"labels": ",".join(own)} if own else {})}
    url = wiring.client("s3").generate_presigned_url(
        "put_object", Params={"Bucket": os.environ["DOCUMENTS_BUCKET"], "Key": key, "Metadata": metadata},
        ExpiresIn=VALID_S,
    )  # fmt: skip
    Trace().info("a place for a document", document=key)
    headers = {f"x-amz-meta-{name}": value for name, value in metadata.items()}
    return {"key": key, "url": url, "method": "PUT", "headers": headers}


@lru_cache(maxsize=1)
def storage() -> str:
    """The origin of the addresses that `upload` gives."""
    names = {"Bucket": os.environ["DOCUMENTS_BUCKET"], "Key": PREFIX}
    parts = urlsplit(wiring.client("s3").generate_presigned_url("put_object", Params=names))
    return f"{parts.scheme}://{parts.netloc}"

"""The documents: how each fared, its passages in order, and where to put a new one."""

import base64
import math
import os
import posixpath
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from ragkit.chunking import chunk_id
from ragkit.defence import visible
from ragkit.extract import suffix, supported
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
MB = 1_000_000
TEXT = "text/plain"
TYPES = {
    ".pdf": "application/pdf", ".json": "application/json", ".csv": "text/csv", ".md": "text/markdown",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document", ".xml": "application/xml",
}  # fmt: skip
"""What an object is said to be; everything else is plain text, so that a browser never runs it."""
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
    """A form that takes one file, straight into the documents bucket: {key, url, method, fields, largest}. What it
    signs is the whole place: the key, the type, the metadata, and as many bytes as `size` says the file has, or as
    there may be. The file gets the labels that its sender has beyond the public one, so that nobody else sees it;
    without any it is public. It carries the request's correlation id to whoever reads it in."""
    body = body_of(event)
    name = _name_of(body)
    key = f"{PREFIX}{folder_of(caller.user)}/{name}"
    if not caller.has_key and os.environ.get("OPEN_UPLOADS") != "true":
        raise Refusal(401, "an access key is needed to bring in documents")
    largest = int(os.environ["LARGEST_UPLOAD_MB"]) * MB
    size = body.get("size", largest)
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise Refusal(400, "`size` is how many bytes the file has, 1 or more")
    if size > largest:
        most = largest // MB
        raise Refusal(413, f"{name} has {math.ceil(10 * size / MB) / 10:g} MB; a file may have {most} MB at most")
    count(caller)
    own = [label for label in caller.user.labels if label != "public"]
    metadata = {"correlation": current(), **({"labels": ",".join(own)} if own else {})}
    fields = {"Content-Type": TYPES.get(suffix(name), TEXT), "success_action_status": "204"}
    fields |= {f"x-amz-meta-{name}": value for name, value in metadata.items()}
    form = _signed(key, fields, [["content-length-range", 1, size]])
    Trace().info("a place for a document", document=key)
    return {"key": key, "url": form["url"], "method": "POST", "fields": form["fields"], "largest": largest}


def _name_of(body: dict[str, Any]) -> str:
    """The name that a file gets. Raises Refusal."""
    name = body.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME:
        raise Refusal(400, f'send {{"name": "FILE"}}, a name of up to {LONGEST_NAME} characters')
    name = posixpath.basename(name.replace("\\", "/")).strip()
    if not name.strip(".") or not supported(name) or visible(name) != name or "\n" in name or "\t" in name:
        raise Refusal(400, f"{name or 'this'} is not of a kind that can be read")
    return name


def _signed(key: str, fields: dict[str, str], more: list[Any]) -> dict[str, Any]:
    """An address and the fields to post to it; every field is a condition of the policy, and so is the key."""
    conditions = [*({name: value} for name, value in fields.items()), *more]
    return wiring.client("s3").generate_presigned_post(
        os.environ["DOCUMENTS_BUCKET"], key, dict(fields), conditions, VALID_S
    )  # fmt: skip


@lru_cache(maxsize=1)
def storage() -> str:
    """The origin of the addresses that `upload` gives."""
    parts = urlsplit(_signed(PREFIX, {}, [])["url"])
    return f"{parts.scheme}://{parts.netloc}"

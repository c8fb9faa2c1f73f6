"""Listing keys: one walk over the key index, four ways of writing the answer."""

import base64
from typing import Any, NamedTuple

from preheat.kernel.errors import AwsError
from preheat.services.contract import Context, Operation, Outcome, Params
from preheat.services.s3 import repository
from preheat.services.s3.domain import invalid_argument, moment, successor, url_encoded
from preheat.services.s3.repository import Bucket, Stored
from preheat.services.s3.shelf import Shelf, owner

MAX_KEYS = 1_000
_BATCH_WITH_DELIMITER = 64


class Page(NamedTuple):
    """`entries` in order: objects, or common prefixes as text. `last` is the last of them."""

    entries: list[Stored | str]
    truncated: bool

    @property
    def objects(self) -> list[Stored]:
        return [entry for entry in self.entries if not isinstance(entry, str)]

    @property
    def prefixes(self) -> list[str]:
        return [entry for entry in self.entries if isinstance(entry, str)]

    @property
    def last(self) -> str:
        entry = self.entries[-1]
        return entry if isinstance(entry, str) else entry.key


def walk(ctx: Context, bucket: Bucket, prefix: str, delimiter: str, after: str, limit: int) -> Page:
    """Keys that begin with `prefix`, above `after`, at most `limit` entries; keys with the delimiter beyond the prefix
    are rolled up, and a common prefix that `after` already lies in is passed over."""
    entries: list[Stored | str] = []
    if limit == 0:
        return Page(entries, False)
    end = successor(prefix)
    start, inclusive = (after, False) if after >= prefix else (prefix, True)
    if delimiter and after.startswith(prefix):
        common = common_prefix(after, prefix, delimiter)
        if common is not None:
            beyond = successor(common)
            if beyond is None:
                return Page(entries, False)
            start, inclusive = beyond, True
    while True:
        size = min(limit + 1 - len(entries), MAX_KEYS + 1)
        if delimiter:
            size = min(size, _BATCH_WITH_DELIMITER)
        rows = repository.page(ctx.db, bucket.id, start, inclusive, end, size)
        jumped = False
        for row in rows:
            key = row["key"]
            common = common_prefix(key, prefix, delimiter) if delimiter else None
            if len(entries) == limit:
                return Page(entries, True)
            if common is None:
                entries.append(repository.stored(row))
                start, inclusive = key, False
                continue
            entries.append(common)
            beyond = successor(common)
            if beyond is None:
                return Page(entries, False)
            start, inclusive, jumped = beyond, True, True
            break
        if not jumped and len(rows) < size:
            return Page(entries, False)


def common_prefix(key: str, prefix: str, delimiter: str) -> str | None:
    position = key.find(delimiter, len(prefix))
    return None if position < 0 else key[: position + len(delimiter)]


class Listing:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def operations(self) -> dict[str, Operation]:
        return {
            "ListObjectsV2": self.list_objects_v2,
            "ListObjects": self.list_objects,
            "ListObjectVersions": self.list_object_versions,
        }

    def list_objects_v2(self, ctx: Context, params: Params) -> Outcome:
        bucket = self._shelf.bucket(ctx, params)
        token = params.get("ContinuationToken")
        after = params.get("StartAfter", "") if token is None else _opened(token)
        page = self._page(ctx, bucket, params, after)
        encode = _encoder(params)
        output = _common(bucket, params, page, encode)
        output["KeyCount"] = len(page.entries)
        if "StartAfter" in params:
            output["StartAfter"] = encode(params["StartAfter"])
        if token is not None:
            output["ContinuationToken"] = token
        if page.truncated:
            output["NextContinuationToken"] = _sealed(page.last)
        with_owner = params.get("FetchOwner", False)
        if page.objects:
            output["Contents"] = [_entry(stored, encode, bucket if with_owner else None) for stored in page.objects]
        return output

    def list_objects(self, ctx: Context, params: Params) -> Outcome:
        bucket = self._shelf.bucket(ctx, params)
        marker = params.get("Marker", "")
        page = self._page(ctx, bucket, params, marker)
        encode = _encoder(params)
        output = _common(bucket, params, page, encode)
        output["Marker"] = encode(marker)
        if page.truncated and params.get("Delimiter"):
            output["NextMarker"] = encode(page.last)
        if page.objects:
            output["Contents"] = [_entry(stored, encode, bucket) for stored in page.objects]
        return output

    def list_object_versions(self, ctx: Context, params: Params) -> Outcome:
        """An unversioned bucket: one version of each key, named "null"."""
        bucket = self._shelf.bucket(ctx, params)
        marker = params.get("KeyMarker", "")
        if "VersionIdMarker" in params and not marker:
            raise invalid_argument(
                "A version-id marker cannot be specified without a key marker.",
                "version-id-marker",
                params["VersionIdMarker"],
            )
        page = self._page(ctx, bucket, params, marker)
        encode = _encoder(params)
        output = _common(bucket, params, page, encode)
        output["KeyMarker"] = encode(marker)
        output["VersionIdMarker"] = params.get("VersionIdMarker", "")
        if page.truncated:
            output["NextKeyMarker"] = encode(page.last)
            if not isinstance(page.entries[-1], str):
                output["NextVersionIdMarker"] = "null"
        if page.objects:
            output["Versions"] = [
                {**_entry(stored, encode, bucket), "VersionId": "null", "IsLatest": True} for stored in page.objects
            ]
        return output

    def _page(self, ctx: Context, bucket: Bucket, params: Params, after: str) -> Page:
        limit = params.get("MaxKeys", MAX_KEYS)
        if limit < 0:
            raise invalid_argument("Argument maxKeys must be an integer between 0 and 2147483647", "maxKeys", limit)
        return walk(ctx, bucket, params.get("Prefix", ""), params.get("Delimiter", ""), after, min(limit, MAX_KEYS))


def _encoder(params: Params) -> Any:
    encoding = params.get("EncodingType")
    if encoding is None:
        return str
    if encoding != "url":
        raise invalid_argument("Invalid Encoding Method specified in Request", "encoding-type", encoding)
    return url_encoded


def _common(bucket: Bucket, params: Params, page: Page, encode: Any) -> Params:
    output: Params = {
        "Name": bucket.name,
        "Prefix": encode(params.get("Prefix", "")),
        "MaxKeys": min(params.get("MaxKeys", MAX_KEYS), MAX_KEYS),
        "IsTruncated": page.truncated,
    }
    if params.get("Delimiter"):
        output["Delimiter"] = encode(params["Delimiter"])
    if "EncodingType" in params:
        output["EncodingType"] = params["EncodingType"]
    if page.prefixes:
        output["CommonPrefixes"] = [{"Prefix": encode(prefix)} for prefix in page.prefixes]
    return output


def _entry(stored: Stored, encode: Any, bucket: Bucket | None) -> Params:
    entry: Params = {
        "Key": encode(stored.key),
        "LastModified": moment(stored.modified),
        "ETag": f'"{stored.etag}"',
        "Size": stored.size,
        "StorageClass": stored.attributes.storage,
    }
    if stored.attributes.checksum is not None:
        entry["ChecksumAlgorithm"] = [stored.attributes.checksum[0]]
        entry["ChecksumType"] = stored.attributes.checksum[2]
    if bucket is not None:
        entry["Owner"] = owner(bucket.account)
    return entry


def _sealed(position: str) -> str:
    return base64.urlsafe_b64encode(b"1" + position.encode()).decode()


def _opened(token: str) -> str:
    error: AwsError = invalid_argument("The continuation token provided is incorrect", "continuation-token", token)
    try:
        raw = base64.urlsafe_b64decode(token.encode())
        if raw[:1] == b"1":
            return raw[1:].decode()
    except ValueError:
        raise error from None
    raise error

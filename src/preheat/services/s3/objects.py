"""Objects: put, get, head, delete, copy, attributes, tags."""

import base64
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from preheat.kernel.errors import AwsError
from preheat.services.contract import Context, Operation, Outcome, Params, Reply
from preheat.services.s3 import checksums, domain, notifications, repository
from preheat.services.s3.checksums import MEMBER, Buffer, Digest, Measured
from preheat.services.s3.domain import Attributes, Conditions, Piece, moment
from preheat.services.s3.repository import Bucket, Stored
from preheat.services.s3.shelf import Shelf, check_acl, check_owner

_SELF_COPY = (
    "This copy request is illegal because it is trying to copy an object to itself without changing the object's "
    "metadata, storage class, website redirect location or encryption attributes."
)
_REPLACED_HEADERS = {
    "ResponseCacheControl": "CacheControl",
    "ResponseContentDisposition": "ContentDisposition",
    "ResponseContentEncoding": "ContentEncoding",
    "ResponseContentLanguage": "ContentLanguage",
    "ResponseContentType": "ContentType",
    "ResponseExpires": "Expires",
}


class Meter:
    """Hashes what passes through it."""

    def __init__(self, algorithm: str | None) -> None:
        self._md5 = Digest("MD5")
        self._digest = None if algorithm is None else Digest(algorithm)
        self._size = 0

    def through(self, chunks: Iterable[Buffer]) -> Iterator[Buffer]:
        for chunk in chunks:
            self._size += len(chunk)
            self._md5.update(chunk)
            if self._digest is not None:
                self._digest.update(chunk)
            yield chunk

    def result(self) -> Measured:
        checksum = None if self._digest is None else self._digest.value()
        return Measured(self._size, base64.b64decode(self._md5.value()), checksum)


def sse_fields(attributes: Attributes) -> Params:
    output: Params = {"ServerSideEncryption": attributes.encryption}
    if attributes.kms_key is not None:
        output["SSEKMSKeyId"] = attributes.kms_key
    if attributes.bucket_key:
        output["BucketKeyEnabled"] = True
    return output


def checksum_fields(attributes: Attributes) -> Params:
    if attributes.checksum is None:
        return {}
    algorithm, value, kind = attributes.checksum
    return {MEMBER[algorithm]: value, "ChecksumType": kind}


class Objects:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def operations(self) -> dict[str, Operation]:
        return {
            "PutObject": self.put_object,
            "GetObject": self.get_object,
            "HeadObject": self.head_object,
            "DeleteObject": self.delete_object,
            "DeleteObjects": self.delete_objects,
            "CopyObject": self.copy_object,
            "GetObjectAttributes": self.get_object_attributes,
            "PutObjectTagging": self.put_object_tagging,
            "GetObjectTagging": self.get_object_tagging,
            "DeleteObjectTagging": self.delete_object_tagging,
        }

    # -- writing ------------------------------------------------------------------------------------------------------

    def put_object(self, ctx: Context, params: Params) -> Outcome:
        bucket = self._shelf.bucket(ctx, params)
        key = params["Key"]
        domain.check_key(key)
        check_acl(params)
        body: Buffer = domain.upload_body(params, None if ctx.request is None else ctx.request.headers)
        attributes = domain.attributes_of(params)
        if "ContentType" not in attributes.headers:
            attributes.headers["ContentType"] = "binary/octet-stream"
        algorithm, expected = checksums.requested(params)
        event = "Post" if ctx.request is not None and ctx.request.method == "POST" else "Put"

        def finish(inner: Context, measured: Measured, blob: str | None) -> Outcome:
            final = attributes
            if algorithm is not None and measured.checksum is not None:
                final = msgspec.structs.replace(attributes, checksum=(algorithm, measured.checksum, "FULL_OBJECT"))
            etag = measured.md5.hex()
            self.store(inner, bucket, params, measured.size, etag, final, blob, None if blob else bytes(body), event)
            return {"ETag": f'"{etag}"', **checksum_fields(final), **sse_fields(final)}

        if len(body) <= domain.INLINE_BYTES:
            measured = checksums.measure((body,), algorithm)
            checksums.verify(measured, algorithm, expected, params.get("ContentMD5"))
            return finish(ctx, measured, None)
        self._check_conditions(ctx, bucket, params)
        name = self._shelf.new_blob(ctx)

        def write() -> Measured:
            measured = checksums.measure((body,), algorithm)
            checksums.verify(measured, algorithm, expected, params.get("ContentMD5"))
            self._shelf.blobs.write(name, (body,))
            return measured

        return self._shelf.writing(ctx, name, write, lambda inner, measured: finish(inner, measured, name))

    def store(
        self, ctx: Context, bucket: Bucket, params: Params, size: int, etag: str, attributes: Attributes,
        blob: str | None, content: bytes | None, event: str,
    ) -> None:  # fmt: skip
        """Put the row in, in place of the key's present one; tell who wants to know. The bucket is looked up again
        when time has passed since."""
        key = params["Key"]
        if blob is not None:
            bucket = self._shelf.named(ctx, bucket.name)
        present = repository.present(ctx.db, bucket.id, key)
        if "IfMatch" in params or "IfNoneMatch" in params:
            domain.check_write_conditions(params, key, None if present is None else present["etag"])
        row_id = None
        if present is not None:
            row_id = present["id"]
            if present["blob"] is not None:
                self._shelf.garbage.discard(ctx, present["blob"])
        repository.put(ctx.db, row_id, bucket.id, key, size, etag, int(ctx.now), attributes, blob, content)
        notifications.notify(ctx, bucket, self._shelf.sequencer, f"s3:ObjectCreated:{event}", key, size, etag)

    def _check_conditions(self, ctx: Context, bucket: Bucket, params: Params) -> None:
        if "IfMatch" in params or "IfNoneMatch" in params:
            present = repository.present(ctx.db, bucket.id, params["Key"])
            domain.check_write_conditions(params, params["Key"], None if present is None else present["etag"])

    # -- reading ------------------------------------------------------------------------------------------------------

    def get_object(self, ctx: Context, params: Params) -> Outcome:
        return self._read(ctx, params, True)

    def head_object(self, ctx: Context, params: Params) -> Outcome:
        return self._read(ctx, params, False)

    def _read(self, ctx: Context, params: Params, with_body: bool) -> Outcome:
        found = self._found(ctx, params)
        conditions = Conditions.of(params)
        if conditions is not None:
            self._check_read(conditions, found)
        attributes = found.attributes
        if with_body and attributes.storage in domain.ARCHIVED:
            raise AwsError(
                "InvalidObjectState",
                "The operation is not valid for the object's storage class",
                403,
                fields={"StorageClass": attributes.storage},
            )
        piece = self._piece(params, found)
        wants_checksum = params.get("ChecksumMode") == "ENABLED" and not piece.partial
        if wants_checksum and attributes.checksum is None:
            return self._with_checksum(ctx, found, lambda inner: self._read(inner, params, with_body))
        output = self._described(found, piece)
        if wants_checksum:
            output |= checksum_fields(attributes)
        if "PartNumber" in params and attributes.parts:
            output["PartsCount"] = len(attributes.parts)
        for member, header in _REPLACED_HEADERS.items():
            if member in params:
                output[header] = params[member]
        if with_body:
            output["Body"] = self.content(ctx, found, piece)
        return Reply(output, status=206) if piece.partial else output

    def _found(self, ctx: Context, params: Params) -> Stored:
        bucket = self._shelf.bucket(ctx, params)
        domain.check_version(params.get("VersionId"))
        found = repository.find(ctx.db, bucket.id, params["Key"])
        if found is None:
            raise domain.no_such_key(params["Key"])
        return found

    def _check_read(self, conditions: Conditions, found: Stored) -> None:
        failed = conditions.failed(found.etag, found.modified)
        if failed == "304":
            headers = {
                "ETag": f'"{found.etag}"',
                "Last-Modified": moment(found.modified).strftime("%a, %d %b %Y %H:%M:%S GMT"),
            }
            raise AwsError("NotModified", "Not Modified", 304, headers=headers)
        if failed is not None:
            raise domain.precondition_failed(failed)

    def _piece(self, params: Params, found: Stored) -> Piece:
        if "PartNumber" in params:
            if "Range" in params:
                raise AwsError("InvalidRequest", "Cannot specify both Range header and partNumber query parameter")
            return domain.part_piece(params["PartNumber"], found.attributes.parts, found.size)
        return domain.byte_range(params.get("Range"), found.size)

    def _described(self, found: Stored, piece: Piece) -> Params:
        attributes = found.attributes
        output: Params = {
            "AcceptRanges": "bytes",
            "LastModified": moment(found.modified),
            "ContentLength": piece.length,
            "ETag": f'"{found.etag}"',
            "Metadata": attributes.metadata,
            **attributes.headers,
            **sse_fields(attributes),
        }
        if piece.partial and piece.size:
            output["ContentRange"] = piece.content_range
        if attributes.expires is not None:
            output["Expires"] = moment(attributes.expires)
        if attributes.storage != "STANDARD":
            output["StorageClass"] = attributes.storage
        if attributes.tags:
            output["TagCount"] = len(attributes.tags)
        return output

    def content(self, ctx: Context, found: Stored, piece: Piece) -> Any:
        """The piece's bytes, or where they lie."""
        if found.blob is not None:
            return self._shelf.blobs.slice(found.blob, piece.offset, piece.length)
        body = repository.body(ctx.db, found.id)
        return body if not piece.partial else body[piece.offset : piece.offset + piece.length]

    def pieces(self, ctx: Context, found: Stored, offset: int, length: int) -> Iterable[Buffer]:
        """The bytes of a range, chunk by chunk; iterate it on another thread when `found` has a blob."""
        if found.blob is not None:
            return self._shelf.blobs.chunks(found.blob, offset, length)
        return (memoryview(repository.body(ctx.db, found.id))[offset : offset + length],)

    def _with_checksum(self, ctx: Context, found: Stored, again: Callable[[Context], Outcome]) -> Outcome:
        """S3 keeps a CRC64NVME of what came without a checksum; it is made when first asked for."""

        def keep(inner: Context, measured: Measured) -> Outcome:
            present = repository.present(inner.db, found.bucket, found.key)
            if present is not None and (present["id"], present["etag"]) == (found.id, found.etag):
                checksum = ("CRC64NVME", measured.checksum or "", "FULL_OBJECT")
                attributes = msgspec.structs.replace(found.attributes, checksum=checksum)
                repository.set_attributes(inner.db, found.id, attributes)
            return again(inner)

        chunks = self.pieces(ctx, found, 0, found.size)
        if found.blob is None:
            return keep(ctx, checksums.measure(chunks, "CRC64NVME"))
        return ctx.offload(lambda: checksums.measure(chunks, "CRC64NVME"), keep)

    def get_object_attributes(self, ctx: Context, params: Params) -> Outcome:
        found = self._found(ctx, params)
        wanted = params["ObjectAttributes"]
        attributes = found.attributes
        if "Checksum" in wanted and attributes.checksum is None:
            return self._with_checksum(ctx, found, lambda inner: self.get_object_attributes(inner, params))
        output: Params = {"LastModified": moment(found.modified)}
        if "ETag" in wanted:
            output["ETag"] = found.etag
        if "ObjectSize" in wanted:
            output["ObjectSize"] = found.size
        if "StorageClass" in wanted:
            output["StorageClass"] = attributes.storage
        if "Checksum" in wanted:
            output["Checksum"] = checksum_fields(attributes)
        if "ObjectParts" in wanted and attributes.parts:
            output["ObjectParts"] = _object_parts(attributes, params)
        return output

    # -- deleting -----------------------------------------------------------------------------------------------------

    def delete_object(self, ctx: Context, params: Params) -> Outcome:
        bucket = self._shelf.bucket(ctx, params)
        domain.check_version(params.get("VersionId"))
        self._delete(ctx, bucket, params["Key"], params.get("IfMatch"), params)
        return Reply({}, status=204)

    def _delete(
        self, ctx: Context, bucket: Bucket, key: str, match: str | None, params: Params, size: str = "IfMatchSize"
    ) -> None:
        """Delete a key if the conditions hold; `size` is the name of the member that carries the size condition."""
        present = repository.present(ctx.db, bucket.id, key)
        if present is None:
            if match is not None:
                raise domain.no_such_key(key)
            return
        if match is not None and not domain.matches(match, present["etag"]):
            raise domain.precondition_failed("If-Match")
        if size in params and params[size] != present["size"]:
            raise domain.precondition_failed("x-amz-if-match-size")
        time = params.get("IfMatchLastModifiedTime", params.get("LastModifiedTime"))
        if time is not None and int(time.timestamp()) != present["modified"]:
            raise domain.precondition_failed("x-amz-if-match-last-modified-time")
        repository.delete(ctx.db, present["id"])
        if present["blob"] is not None:
            self._shelf.garbage.discard(ctx, present["blob"])
        notifications.notify(ctx, bucket, self._shelf.sequencer, "s3:ObjectRemoved:Delete", key, None, None)

    def delete_objects(self, ctx: Context, params: Params) -> Outcome:
        bucket = self._shelf.bucket(ctx, params)
        request = ctx.request
        if request is not None:
            headers = request.headers
            if "content-md5" not in headers and not any(name.startswith("x-amz-checksum-") for name in headers):
                raise AwsError(
                    "InvalidRequest", "Missing required header for this request: Content-MD5 OR x-amz-checksum-*"
                )
            if "content-md5" in headers:
                checksums.verify(checksums.measure((request.body,), None), None, None, headers["content-md5"])
        entries = params["Delete"].get("Objects", ())
        if not 1 <= len(entries) <= 1_000:
            raise domain.malformed_xml()
        deleted, errors = [], []
        for entry in entries:
            try:
                domain.check_version(entry.get("VersionId"))
                self._delete(ctx, bucket, entry["Key"], entry.get("ETag"), entry, "Size")
            except AwsError as error:
                errors.append({"Key": entry["Key"], "Code": error.code, "Message": error.message})
            else:
                deleted.append({"Key": entry["Key"]})
        output: Params = {}
        if deleted and not params["Delete"].get("Quiet", False):
            output["Deleted"] = deleted
        if errors:
            output["Errors"] = errors
        return output

    # -- copying ------------------------------------------------------------------------------------------------------

    def source(self, ctx: Context, params: Params) -> Stored:
        """The object a CopySource names, its conditions met."""
        named = domain.copy_source(params["CopySource"])
        bucket = self._shelf.named(ctx, named.bucket)
        check_owner(bucket, params.get("ExpectedSourceBucketOwner"))
        domain.check_version(named.version)
        found = repository.find(ctx.db, bucket.id, named.key)
        if found is None:
            raise domain.no_such_key(named.key)
        conditions = Conditions.of(params, "CopySource")
        failed = None if conditions is None else conditions.failed(found.etag, found.modified)
        if failed is not None:
            raise domain.precondition_failed("x-amz-copy-source-" + ("if-none-match" if failed == "304" else failed))
        if found.attributes.storage in domain.ARCHIVED:
            raise AwsError("InvalidObjectState", "Operation is not valid for the source object's storage class", 403)
        return found

    def copy_object(self, ctx: Context, params: Params) -> Outcome:
        bucket = self._shelf.bucket(ctx, params)
        domain.check_key(params["Key"])
        check_acl(params)
        found = self.source(ctx, params)
        if found.size > domain.MAX_PUT_BYTES:
            raise AwsError(
                "InvalidRequest",
                "The specified copy source is larger than the maximum allowable size for a copy source: "
                f"{domain.MAX_PUT_BYTES}",
            )
        self._check_conditions(ctx, bucket, params)
        attributes, algorithm = _copied_attributes(params, found, (bucket.id, params["Key"]))
        meter = Meter(algorithm)

        def finish(inner: Context, measured: Measured, blob: str | None, content: bytes | None) -> Outcome:
            final = attributes
            if algorithm is not None and measured.checksum is not None:
                final = msgspec.structs.replace(attributes, checksum=(algorithm, measured.checksum, "FULL_OBJECT"))
            etag = measured.md5.hex()
            self.store(inner, bucket, params, measured.size, etag, final, blob, content, "Copy")
            result = {"ETag": f'"{etag}"', "LastModified": moment(int(inner.now)), **checksum_fields(final)}
            return {"CopyObjectResult": result, **sse_fields(final)}

        if found.blob is None:
            content = repository.body(ctx.db, found.id)
            return finish(ctx, checksums.measure((content,), algorithm), None, content)
        name, source = self._shelf.new_blob(ctx), found.blob

        def write() -> Measured:
            blobs = self._shelf.blobs
            blobs.write(name, meter.through(blobs.chunks(source, 0, found.size)))
            return meter.result()

        return self._shelf.writing(ctx, name, write, lambda inner, measured: finish(inner, measured, name, None))

    # -- tags ---------------------------------------------------------------------------------------------------------

    def put_object_tagging(self, ctx: Context, params: Params) -> Outcome:
        tags = domain.tag_set(params["Tagging"]["TagSet"], domain.MAX_TAGS, "Object")
        self._retag(ctx, params, tags, "Put")
        return {}

    def get_object_tagging(self, ctx: Context, params: Params) -> Outcome:
        found = self._found(ctx, params)
        return {"TagSet": [{"Key": key, "Value": value} for key, value in found.attributes.tags]}

    def delete_object_tagging(self, ctx: Context, params: Params) -> Outcome:
        self._retag(ctx, params, (), "Delete")
        return Reply({}, status=204)

    def _retag(self, ctx: Context, params: Params, tags: tuple[tuple[str, str], ...], event: str) -> None:
        found = self._found(ctx, params)
        bucket = self._shelf.bucket(ctx, params)
        repository.set_attributes(ctx.db, found.id, msgspec.structs.replace(found.attributes, tags=tags))
        notifications.notify(
            ctx, bucket, self._shelf.sequencer, f"s3:ObjectTagging:{event}", found.key, found.size, found.etag
        )


def _copied_attributes(params: Params, found: Stored, target: tuple[int, str]) -> tuple[Attributes, str | None]:
    """The copy's attributes, and which checksum it gets. Raises InvalidRequest for a copy that changes nothing."""
    metadata_directive = params.get("MetadataDirective", "COPY")
    tagging_directive = params.get("TaggingDirective", "COPY")
    for header, value in (
        ("x-amz-metadata-directive", metadata_directive),
        ("x-amz-tagging-directive", tagging_directive),
    ):
        if value not in ("COPY", "REPLACE"):
            raise domain.invalid_argument(f"Unknown {header[6:].replace('-', ' ')}.", header, value)
    asked = domain.attributes_of(params)
    if (found.bucket, found.key) == target and not (
        metadata_directive == "REPLACE"
        or "WebsiteRedirectLocation" in params
        or "ServerSideEncryption" in params
        or ("StorageClass" in params and params["StorageClass"] != found.attributes.storage)
    ):
        raise AwsError("InvalidRequest", _SELF_COPY)
    if metadata_directive == "COPY":
        headers = {name: value for name, value in found.attributes.headers.items() if name != "WebsiteRedirectLocation"}
        if "WebsiteRedirectLocation" in params:
            headers["WebsiteRedirectLocation"] = params["WebsiteRedirectLocation"]
        asked = msgspec.structs.replace(
            asked, headers=headers, metadata=found.attributes.metadata, expires=found.attributes.expires
        )
    elif "ContentType" not in asked.headers:
        asked.headers["ContentType"] = "binary/octet-stream"
    if tagging_directive == "COPY":
        asked = msgspec.structs.replace(asked, tags=found.attributes.tags)
    algorithm = params.get("ChecksumAlgorithm")
    if algorithm is None and found.attributes.checksum is not None:
        algorithm = found.attributes.checksum[0]
    if algorithm is not None and algorithm not in MEMBER:
        raise domain.not_implemented("Preheat does not compute XXHASH checksums; use CRC64NVME.")
    return asked, algorithm


def _object_parts(attributes: Attributes, params: Params) -> Params:
    marker, limit = params.get("PartNumberMarker", 0), min(params.get("MaxParts", 1_000), 1_000)
    total = len(attributes.parts)
    last = min(marker + limit, total)
    output: Params = {
        "TotalPartsCount": total,
        "PartNumberMarker": marker,
        "NextPartNumberMarker": last,
        "MaxParts": limit,
        "IsTruncated": last < total,
    }
    if attributes.part_checksums and attributes.checksum is not None:
        member = MEMBER[attributes.checksum[0]]
        output["Parts"] = [
            {
                "PartNumber": number,
                "Size": attributes.parts[number - 1],
                member: attributes.part_checksums[number - 1],
            }
            for number in range(marker + 1, last + 1)
        ]
    return output

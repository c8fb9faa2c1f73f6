"""Multipart uploads: parts are kept like small objects, then joined into one body on another thread."""

import base64
import hashlib
import re
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import msgspec

from preheat.kernel.errors import AwsError
from preheat.kernel.secure import scheme_of
from preheat.services.contract import Context, Operation, Outcome, Params, Reply
from preheat.services.s3 import checksums, domain, repository
from preheat.services.s3.checksums import CRCS, FULL_ONLY, MEMBER, Buffer, Measured
from preheat.services.s3.domain import Attributes, invalid_argument, moment
from preheat.services.s3.listing import common_prefix
from preheat.services.s3.objects import Meter, Objects, checksum_fields, sse_fields
from preheat.services.s3.repository import Bucket, Part, Upload
from preheat.services.s3.shelf import Shelf, check_acl, owner

_ID_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._"
_COPY_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


def no_such_upload(upload_id: str) -> AwsError:
    return AwsError(
        "NoSuchUpload",
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or "
        "completed.",
        404,
        fields={"UploadId": upload_id},
    )


class Plan(NamedTuple):
    """What a CompleteMultipartUpload will make: the chosen parts and the finished object's attributes."""

    parts: list[Part]
    size: int
    etag: str
    attributes: Attributes


class Multipart:
    def __init__(self, shelf: Shelf, objects: Objects) -> None:
        self._shelf = shelf
        self._objects = objects

    def operations(self) -> dict[str, Operation]:
        return {
            "CreateMultipartUpload": self.create,
            "UploadPart": self.upload_part,
            "UploadPartCopy": self.upload_part_copy,
            "CompleteMultipartUpload": self.complete,
            "AbortMultipartUpload": self.abort,
            "ListParts": self.list_parts,
            "ListMultipartUploads": self.list_uploads,
        }

    def create(self, ctx: Context, params: Params) -> Outcome:
        bucket = self._shelf.bucket(ctx, params)
        domain.check_key(params["Key"])
        check_acl(params)
        attributes = domain.attributes_of(params)
        if "ContentType" not in attributes.headers:
            attributes.headers["ContentType"] = "binary/octet-stream"
        checksum = _announced(params)
        if checksum is not None:
            attributes = msgspec.structs.replace(attributes, checksum=checksum)
        upload = Upload(ctx.entropy.token(96, _ID_ALPHABET), bucket.id, params["Key"], int(ctx.now), attributes)
        repository.add_upload(ctx.db, upload)
        output = {
            "Bucket": bucket.name,
            "Key": upload.key,
            "UploadId": upload.id,
            **sse_fields(attributes),
        }
        if checksum is not None:
            output |= {"ChecksumAlgorithm": checksum[0], "ChecksumType": checksum[2]}
        return output

    def _upload(self, ctx: Context, params: Params) -> tuple[Bucket, Upload]:
        bucket = self._shelf.bucket(ctx, params)
        upload = repository.upload(ctx.db, params["UploadId"])
        if upload is None or (upload.bucket, upload.key) != (bucket.id, params["Key"]):
            raise no_such_upload(params["UploadId"])
        return bucket, upload

    # -- parts --------------------------------------------------------------------------------------------------------

    def upload_part(self, ctx: Context, params: Params) -> Outcome:
        _, upload = self._upload(ctx, params)
        _check_number(params["PartNumber"])
        body: Buffer = domain.upload_body(params, None if ctx.request is None else ctx.request.headers)
        algorithm, expected = checksums.requested(params)
        planned = upload.attributes.checksum
        if planned is not None:
            if algorithm is not None and algorithm != planned[0]:
                raise AwsError(
                    "InvalidRequest",
                    f"Checksum Type mismatch occurred, expected checksum Type: {planned[0].lower()}, "
                    f"actual checksum Type: {algorithm.lower()}",
                )
            algorithm = planned[0]

        def check() -> Measured:
            measured = checksums.measure((body,), algorithm)
            checksums.verify(measured, algorithm, expected, params.get("ContentMD5"))
            return measured

        def finish(inner: Context, measured: Measured, blob: str | None) -> Outcome:
            self._keep(inner, params, measured, blob, None if blob else bytes(body), planned is not None)
            output = {"ETag": f'"{measured.md5.hex()}"', **sse_fields(upload.attributes)}
            if algorithm is not None:
                output[MEMBER[algorithm]] = measured.checksum
            return output

        if len(body) <= domain.INLINE_BYTES:
            return finish(ctx, check(), None)
        name = self._shelf.new_blob(ctx)

        def write() -> Measured:
            measured = check()
            self._shelf.blobs.write(name, (body,))
            return measured

        return self._shelf.writing(ctx, name, write, lambda inner, measured: finish(inner, measured, name))

    def upload_part_copy(self, ctx: Context, params: Params) -> Outcome:
        _, upload = self._upload(ctx, params)
        _check_number(params["PartNumber"])
        source = self._objects.source(ctx, params)
        offset, length = _copy_range(params.get("CopySourceRange"), source.size)
        planned = upload.attributes.checksum
        meter = Meter(None if planned is None else planned[0])
        chunks = self._objects.pieces(ctx, source, offset, length)

        def finish(inner: Context, measured: Measured, blob: str | None, content: bytes | None) -> Outcome:
            self._keep(inner, params, measured, blob, content, planned is not None)
            result = {"ETag": f'"{measured.md5.hex()}"', "LastModified": moment(int(inner.now))}
            if planned is not None:
                result[MEMBER[planned[0]]] = measured.checksum
            return {"CopyPartResult": result, **sse_fields(upload.attributes)}

        if source.blob is None:
            content = b"".join(meter.through(chunks))
            return finish(ctx, meter.result(), None, content)
        name = self._shelf.new_blob(ctx)

        def write() -> Measured:
            self._shelf.blobs.write(name, meter.through(chunks))
            return meter.result()

        return self._shelf.writing(ctx, name, write, lambda inner, measured: finish(inner, measured, name, None))

    def _keep(
        self, ctx: Context, params: Params, measured: Measured, blob: str | None, content: bytes | None, summed: bool
    ) -> None:
        """Put a part's row in, in place of an earlier one with its number; the upload must still be there."""
        _, upload = self._upload(ctx, params)
        number = params["PartNumber"]
        present = repository.part(ctx.db, upload.id, number)
        if present is not None and present.blob is not None:
            self._shelf.garbage.discard(ctx, present.blob)
        checksum = measured.checksum if summed else None
        part = Part(number, measured.size, measured.md5.hex(), int(ctx.now), checksum, blob)
        repository.put_part(ctx.db, upload.id, part, content)

    # -- completion ---------------------------------------------------------------------------------------------------

    def complete(self, ctx: Context, params: Params) -> Outcome:
        bucket, upload = self._upload(ctx, params)
        plan = _plan(params, upload, {part.number: part for part in repository.parts(ctx.db, upload.id)})
        present = repository.present(ctx.db, bucket.id, upload.key)
        domain.check_write_conditions(params, upload.key, None if present is None else present["etag"])
        only = plan.parts[0]
        if len(plan.parts) == 1:
            content = None if only.blob else repository.part_body(ctx.db, upload.id, only.number)
            return self._finish(ctx, params, plan, only.blob, content)
        name = self._shelf.new_blob(ctx)
        bodies = {
            part.number: repository.part_body(ctx.db, upload.id, part.number)
            for part in plan.parts
            if part.blob is None
        }

        def write() -> int:
            return self._shelf.blobs.write(name, self._joined(plan.parts, bodies))

        return self._shelf.writing(ctx, name, write, lambda inner, _: self._finish(inner, params, plan, name, None))

    def _joined(self, parts: list[Part], bodies: dict[int, bytes]) -> Iterable[Buffer]:
        for part in parts:
            if part.blob is None:
                yield bodies[part.number]
            else:
                yield from self._shelf.blobs.chunks(part.blob, 0, part.size)

    def _finish(self, ctx: Context, params: Params, plan: Plan, blob: str | None, content: bytes | None) -> Outcome:
        bucket, upload = self._upload(ctx, params)
        for part in plan.parts:
            if repository.part(ctx.db, upload.id, part.number) != part:
                raise AwsError(
                    "ConditionalRequestConflict",
                    "The conditional request cannot succeed due to a conflicting operation against this resource.",
                    409,
                )
        for name in repository.delete_upload(ctx.db, upload.id):
            if name != blob:
                self._shelf.garbage.discard(ctx, name)
        self._objects.store(
            ctx, bucket, params, plan.size, plan.etag, plan.attributes, blob, content, "CompleteMultipartUpload"
        )
        host = "s3.amazonaws.com" if ctx.request is None else ctx.request.headers.get("host", "s3.amazonaws.com")
        return {
            "Location": f"{scheme_of(ctx.request)}://{host}/{bucket.name}/{domain.url_encoded(upload.key)}",
            "Bucket": bucket.name,
            "Key": upload.key,
            "ETag": f'"{plan.etag}"',
            **checksum_fields(plan.attributes),
            **sse_fields(plan.attributes),
        }

    def abort(self, ctx: Context, params: Params) -> Outcome:
        _, upload = self._upload(ctx, params)
        for name in repository.delete_upload(ctx.db, upload.id):
            self._shelf.garbage.discard(ctx, name)
        return Reply({}, status=204)

    # -- listings -----------------------------------------------------------------------------------------------------

    def list_parts(self, ctx: Context, params: Params) -> Outcome:
        bucket, upload = self._upload(ctx, params)
        marker, limit = params.get("PartNumberMarker", 0), min(params.get("MaxParts", 1_000), 1_000)
        found = repository.parts(ctx.db, upload.id, marker, limit + 1)
        shown = found[:limit]
        planned = upload.attributes.checksum
        output: Params = {
            "Bucket": bucket.name,
            "Key": upload.key,
            "UploadId": upload.id,
            "PartNumberMarker": marker,
            "NextPartNumberMarker": shown[-1].number if shown else 0,
            "MaxParts": limit,
            "IsTruncated": len(found) > limit,
            "StorageClass": upload.attributes.storage,
            "Owner": owner(bucket.account),
            "Initiator": owner(bucket.account),
        }
        if planned is not None:
            output |= {"ChecksumAlgorithm": planned[0], "ChecksumType": planned[2]}
        if shown:
            output["Parts"] = [
                {
                    "PartNumber": part.number,
                    "LastModified": moment(part.modified),
                    "ETag": f'"{part.etag}"',
                    "Size": part.size,
                    **({MEMBER[planned[0]]: part.checksum} if planned is not None and part.checksum else {}),
                }
                for part in shown
            ]
        return output

    def list_uploads(self, ctx: Context, params: Params) -> Outcome:
        bucket = self._shelf.bucket(ctx, params)
        prefix, delimiter = params.get("Prefix", ""), params.get("Delimiter", "")
        limit = min(params.get("MaxUploads", 1_000), 1_000)
        encode = domain.url_encoded if params.get("EncodingType") == "url" else str
        key_marker, id_marker = params.get("KeyMarker", ""), params.get("UploadIdMarker", "")
        shown: list[Upload] = []
        prefixes: dict[str, None] = {}
        truncated = False
        last = ("", "")
        for upload in repository.uploads(ctx.db, bucket.id, prefix, key_marker, id_marker, -1):
            common = common_prefix(upload.key, prefix, delimiter) if delimiter else None
            if common is not None and (common in prefixes or key_marker.startswith(common)):
                continue
            if len(shown) + len(prefixes) >= limit:
                truncated = limit > 0
                break
            if common is not None:
                prefixes[common] = None
                last = (common, "")
            else:
                shown.append(upload)
                last = (upload.key, upload.id)
        output: Params = {
            "Bucket": bucket.name,
            "KeyMarker": encode(key_marker),
            "UploadIdMarker": id_marker,
            "Prefix": encode(prefix),
            "MaxUploads": limit,
            "IsTruncated": truncated,
        }
        if delimiter:
            output["Delimiter"] = encode(delimiter)
        if "EncodingType" in params:
            output["EncodingType"] = params["EncodingType"]
        if truncated:
            output |= {"NextKeyMarker": encode(last[0]), "NextUploadIdMarker": last[1]}
        if prefixes:
            output["CommonPrefixes"] = [{"Prefix": encode(common)} for common in prefixes]
        if shown:
            output["Uploads"] = [_described(upload, bucket, encode(upload.key)) for upload in shown]
        return output


def _described(upload: Upload, bucket: Bucket, key: str) -> Params:
    entry: Params = {
        "UploadId": upload.id,
        "Key": key,
        "Initiated": moment(upload.initiated),
        "StorageClass": upload.attributes.storage,
        "Owner": owner(bucket.account),
        "Initiator": owner(bucket.account),
    }
    if upload.attributes.checksum is not None:
        entry |= {
            "ChecksumAlgorithm": upload.attributes.checksum[0],
            "ChecksumType": upload.attributes.checksum[2],
        }
    return entry


def _announced(params: Params) -> tuple[str, str, str] | None:
    """(algorithm, "", type) of an upload that names a checksum algorithm. Raises InvalidRequest."""
    algorithm, kind = params.get("ChecksumAlgorithm"), params.get("ChecksumType")
    if algorithm is None:
        if kind is not None:
            raise AwsError(
                "InvalidRequest",
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.",
            )
        return None
    if algorithm not in MEMBER:
        raise AwsError("NotImplemented", "Preheat does not compute XXHASH checksums; use CRC64NVME.", 501)
    if kind is None:
        kind = "FULL_OBJECT" if algorithm in FULL_ONLY else "COMPOSITE"
    if (kind == "FULL_OBJECT" and algorithm not in CRCS) or (kind == "COMPOSITE" and algorithm in FULL_ONLY):
        raise AwsError(
            "InvalidRequest",
            f"The {kind} checksum type cannot be used with the {algorithm.lower()} checksum algorithm.",
        )
    return algorithm, "", kind


def _check_number(number: int) -> None:
    if not 1 <= number <= domain.MAX_PARTS:
        raise invalid_argument("Part number must be an integer between 1 and 10000, inclusive", "partNumber", number)


def _copy_range(text: str | None, size: int) -> tuple[int, int]:
    if text is None:
        return 0, size
    found = _COPY_RANGE.fullmatch(text)
    if found is None:
        raise invalid_argument(
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the "
            "zero-based offsets of the first and last bytes to copy",
            "x-amz-copy-source-range",
            text,
        )
    first, last = int(found[1]), int(found[2])
    if last < first or last >= size:
        raise invalid_argument(
            f"Range specified is not valid for source object of size: {size}", "x-amz-copy-source-range", text
        )
    return first, last - first + 1


def _plan(params: Params, upload: Upload, present: dict[int, Part]) -> Plan:
    """Check the client's list of parts against what was uploaded. Raises what S3 raises."""
    listed = (params.get("MultipartUpload") or {}).get("Parts") or []
    if not listed:
        raise AwsError("InvalidRequest", "You must specify at least one part")
    if any("PartNumber" not in entry or "ETag" not in entry for entry in listed):
        raise domain.malformed_xml()
    numbers = [entry["PartNumber"] for entry in listed]
    if any(one >= other for one, other in pairwise(numbers)):
        raise AwsError(
            "InvalidPartOrder",
            "The list of parts was not in ascending order. Parts must be ordered by part number.",
            fields={"UploadId": upload.id},
        )
    chosen = _chosen(listed, upload, present)
    for part in chosen[:-1]:
        if part.size < domain.MIN_PART_BYTES:
            raise AwsError(
                "EntityTooSmall",
                "Your proposed upload is smaller than the minimum allowed size",
                fields={
                    "ETag": part.etag,
                    "MinSizeAllowed": str(domain.MIN_PART_BYTES),
                    "PartNumber": str(part.number),
                    "ProposedSize": str(part.size),
                },
            )
    size = sum(part.size for part in chosen)
    if params.get("MpuObjectSize", size) != size:
        raise AwsError(
            "InvalidRequest",
            f"The provided 'x-amz-mp-object-size' header value {params['MpuObjectSize']} does not match what was "
            f"computed: {size}",
        )
    digest = hashlib.md5(b"".join(bytes.fromhex(part.etag) for part in chosen), usedforsecurity=False).hexdigest()
    planned = upload.attributes.checksum
    attributes = msgspec.structs.replace(
        upload.attributes,
        parts=tuple(part.size for part in chosen),
        checksum=None if planned is None else _whole_checksum(params, planned, chosen),
        part_checksums=tuple(part.checksum or "" for part in chosen) if planned is not None else (),
    )
    return Plan(chosen, size, f"{digest}-{len(chosen)}", attributes)


def _chosen(listed: list[Params], upload: Upload, present: dict[int, Part]) -> list[Part]:
    """The uploaded parts that the client lists, each with the entity tag and checksum it claims."""
    planned = upload.attributes.checksum
    chosen: list[Part] = []
    for entry in listed:
        part = present.get(entry["PartNumber"])
        etag = entry["ETag"].strip('"')
        claimed = None if planned is None else entry.get(MEMBER[planned[0]])
        if part is None or part.etag != etag or (claimed is not None and claimed != part.checksum):
            raise AwsError(
                "InvalidPart",
                "One or more of the specified parts could not be found.  The part may not have been uploaded, or the "
                "specified entity tag may not match the part's entity tag.",
                fields={"ETag": etag, "PartNumber": str(entry["PartNumber"]), "UploadId": upload.id},
            )
        chosen.append(part)
    return chosen


def _whole_checksum(params: Params, planned: tuple[str, str, str], parts: list[Part]) -> tuple[str, str, str]:
    """The object's checksum out of its parts': joined (FULL_OBJECT) or a checksum of checksums (COMPOSITE)."""
    algorithm, _, kind = planned
    if params.get("ChecksumType", kind) != kind:
        raise AwsError(
            "InvalidRequest",
            f"The upload was created using the {kind} checksum mode. The complete request must use the same "
            "checksum mode.",
        )
    values = [part.checksum or "" for part in parts]
    if kind == "COMPOSITE":
        joined = checksums.measure((b"".join(base64.b64decode(value) for value in values),), algorithm)
        value = f"{joined.checksum}-{len(parts)}"
    else:
        total = checksums.decode_crc(values[0])
        for part, text in zip(parts[1:], values[1:], strict=True):
            total = checksums.combine(algorithm, total, checksums.decode_crc(text), part.size)
        value = checksums.encode_crc(algorithm, total)
    claimed = params.get(MEMBER[algorithm])
    if claimed is not None and claimed != value:
        raise AwsError("BadDigest", f"The {algorithm.lower()} you specified did not match the calculated checksum.")
    return algorithm, value, kind

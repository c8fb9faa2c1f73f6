"""S3 without a socket: bodies in rows and files, listings, multipart, refusals."""

import base64
import hashlib
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preheat.kernel.errors import AwsError
from preheat.kernel.http import HttpRequest
from preheat.kernel.stream import FileSlice
from preheat.services.s3 import checksums, domain
from preheat.services.s3.service import build
from tests.support.inprocess import InProcess

LARGE = bytes(range(256)) * 400


@pytest.fixture(params=["memory", "directory"])
def world(request, tmp_path):
    made = InProcess(build, directory=tmp_path if request.param == "directory" else None)
    made("s3", "CreateBucket", Bucket="bucket")
    return made


def s3(world, operation, **params):
    if operation not in ("ListBuckets",):
        params.setdefault("Bucket", "bucket")
    return world("s3", operation, **params)


def refused(world, operation, **params) -> AwsError:
    with pytest.raises(AwsError) as caught:
        s3(world, operation, **params)
    return caught.value


def body_of(output) -> bytes:
    body = output["Body"]
    if isinstance(body, FileSlice):
        with open(body.path, "rb") as file:
            file.seek(body.offset)
            return file.read(body.length)
    return bytes(body)


def stored_files(world):
    return sorted(world.machine.services["s3"].shelf.blobs.names())


# -- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 200_000])
def test_bodies_of_every_size(world, size):
    body = (LARGE * 4)[:size]
    put = s3(world, "PutObject", Key="k", Body=body)
    assert put["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
    assert body_of(s3(world, "GetObject", Key="k")) == body
    assert len(stored_files(world)) == (1 if size > 65_536 else 0)


def test_files_go_a_minute_after_their_rows(world):
    s3(world, "PutObject", Key="k", Body=LARGE)
    first = stored_files(world)
    s3(world, "PutObject", Key="k", Body=LARGE + b"2")
    assert len(stored_files(world)) == 2
    world.advance(61)
    assert len(stored_files(world)) == 1 and stored_files(world) != first
    s3(world, "DeleteObject", Key="k")
    world.advance(61)
    assert stored_files(world) == []


def test_orphans_are_swept_at_start(tmp_path):
    world = InProcess(build, directory=tmp_path)
    world("s3", "CreateBucket", Bucket="bucket")
    s3(world, "PutObject", Key="k", Body=LARGE)
    kept = stored_files(world)
    (tmp_path / "blobs" / "s3" / "zz").mkdir()
    (tmp_path / "blobs" / "s3" / "zz" / "zz-orphan").write_bytes(b"left over")
    world.db.close()
    again = InProcess(build, directory=tmp_path)
    assert stored_files(again) == kept
    assert body_of(s3(again, "GetObject", Key="k")) == LARGE


def test_a_refused_large_put_leaves_no_file(world):
    s3(world, "PutObject", Key="k", Body=b"1")
    assert refused(world, "PutObject", Key="k", Body=LARGE, IfNoneMatch="*").code == "PreconditionFailed"
    assert refused(world, "PutObject", Key="n", Body=LARGE, ChecksumCRC32="AAAAAA==").code == "BadDigest"
    assert refused(world, "PutObject", Key="n", Body=LARGE, Metadata={"a": "x" * 2_048}).code == "MetadataTooLarge"
    assert stored_files(world) == []
    assert refused(world, "GetObject", Key="n").code == "NoSuchKey"


def test_a_bucket_that_goes_while_a_body_is_written(world):
    """The machine is stopped between the file's write and the row's transaction by deleting the bucket first."""
    replies: list = []
    world.machine.submit("s3", "PutObject", {"Bucket": "bucket", "Key": "k", "Body": LARGE}, replies.append)
    world.machine.tick()
    gone: list = []
    world.machine.submit("s3", "DeleteBucket", {"Bucket": "bucket"}, gone.append)
    world.machine._ready.rotate(1)
    world.settle()
    assert gone[0].status == 204
    assert (replies[0].code, stored_files(world)) == ("NoSuchBucket", [])


# -- ranges and conditions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", (0, 1)), ("bytes=2-", (2, 8)), ("bytes=-3", (7, 3)), ("bytes=-50", (0, 10)),
        ("bytes=5-50", (5, 5)), ("bytes=3-2", None), ("bytes=0-1,3-4", None), ("items=0-1", None), ("bytes=-", None),
    ],
)  # fmt: skip
def test_ranges(header, expected):
    piece = domain.byte_range(header, 10)
    assert (piece.offset, piece.length) == (expected or (0, 10))
    assert piece.partial is (expected is not None)


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=-0", "bytes=11-12"])
def test_ranges_that_cannot_be(header):
    with pytest.raises(AwsError) as caught:
        domain.byte_range(header, 10)
    assert (caught.value.code, caught.value.status) == ("InvalidRange", 416)


@pytest.mark.parametrize("key", ["small", "large"])
def test_a_range_of_an_object(world, key):
    body = LARGE if key == "large" else b"0123456789"
    s3(world, "PutObject", Key=key, Body=body)
    part = s3(world, "GetObject", Key=key, Range="bytes=3-6")
    assert (body_of(part), part["ContentLength"]) == (body[3:7], 4)
    assert part["ContentRange"] == f"bytes 3-6/{len(body)}"


def test_read_conditions(world):
    etag = s3(world, "PutObject", Key="k", Body=b"1")["ETag"]
    then = s3(world, "HeadObject", Key="k")["LastModified"]
    earlier = domain.moment(then.timestamp() - 10)
    assert refused(world, "GetObject", Key="k", IfNoneMatch=etag).status == 304
    assert refused(world, "GetObject", Key="k", IfModifiedSince=then).headers["ETag"] == etag
    assert refused(world, "GetObject", Key="k", IfUnmodifiedSince=earlier).status == 412
    s3(world, "GetObject", Key="k", IfMatch=etag, IfUnmodifiedSince=earlier)
    assert refused(world, "GetObject", Key="k", IfNoneMatch=etag, IfModifiedSince=earlier).status == 304
    s3(world, "GetObject", Key="k", IfNoneMatch='"other"')


def test_write_conditions(world):
    assert refused(world, "PutObject", Key="k", IfMatch="x").code == "NoSuchKey"
    s3(world, "PutObject", Key="k", Body=b"1", IfNoneMatch="*")
    error = refused(world, "PutObject", Key="k", IfNoneMatch='"etag"')
    assert (error.code, error.fields["Header"]) == ("NotImplemented", "If-None-Match")
    assert refused(world, "DeleteObject", Key="k", IfMatch='"x"').code == "PreconditionFailed"
    assert refused(world, "DeleteObject", Key="n", IfMatch="*").code == "NoSuchKey"
    s3(world, "DeleteObject", Key="k", IfMatch="*")
    s3(world, "DeleteObject", Key="k")


# -- checksums --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "value"),
    [("CRC32", 0xCBF43926), ("CRC32C", 0xE3069283), ("CRC64NVME", 0xAE8B14860A799888)],
)
def test_crc_check_values(algorithm, value):
    assert checksums.crc(algorithm, b"123456789") == value


@settings(max_examples=25, deadline=None)
@given(data=st.binary(max_size=300), cut=st.integers(0, 300), algorithm=st.sampled_from(sorted(checksums.CRCS)))
def test_crcs_join(data, cut, algorithm):
    first, second = data[:cut], data[cut:]
    joined = checksums.combine(
        algorithm, checksums.crc(algorithm, first), checksums.crc(algorithm, second), len(second)
    )
    assert joined == checksums.crc(algorithm, data) == checksums.crc(algorithm, second, checksums.crc(algorithm, first))


@pytest.mark.parametrize("size", [16_384, 100_001, 1_200_003])
def test_the_lanes_give_what_the_bytes_give(size):
    data = (LARGE * 12)[:size]
    lanes = checksums._crc_lanes(checksums.POLYNOMIALS["CRC32"], memoryview(data)[: size // 2048 * 2048], 7)
    assert lanes == zlib.crc32(data[: size // 2048 * 2048], 7)
    assert checksums.crc("CRC32C", data) == checksums._crc_bytes(checksums.POLYNOMIALS["CRC32C"], data, 0)


@pytest.mark.parametrize("algorithm", sorted(checksums.MEMBER))
@pytest.mark.parametrize("body", [b"small", LARGE])
def test_every_checksum_is_verified_and_kept(world, algorithm, body):
    member = checksums.MEMBER[algorithm]
    value = checksums.measure((body,), algorithm).checksum
    put = s3(world, "PutObject", Key="k", Body=body, ChecksumAlgorithm=algorithm, **{member: value})
    assert (put[member], put["ChecksumType"]) == (value, "FULL_OBJECT")
    assert s3(world, "HeadObject", Key="k", ChecksumMode="ENABLED")[member] == value
    assert member not in s3(world, "GetObject", Key="k")
    error = refused(world, "PutObject", Key="k", Body=body + b"!", **{member: value})
    assert (error.code, error.message) == (
        "BadDigest", f"The {algorithm} you specified did not match the calculated checksum.",
    )  # fmt: skip


def test_an_object_without_a_checksum_gets_one_when_asked(world):
    for key, body in (("small", b"123456789"), ("large", LARGE)):
        s3(world, "PutObject", Key=key, Body=body)
        got = s3(world, "GetObject", Key=key, ChecksumMode="ENABLED")
        assert got["ChecksumCRC64NVME"] == checksums.measure((body,), "CRC64NVME").checksum
        assert body_of(got) == body


def test_malformed_checksums(world):
    assert "header is invalid" in refused(world, "PutObject", Key="k", ChecksumSHA1="abc").message
    both = refused(world, "PutObject", Key="k", ChecksumSHA1="a", ChecksumCRC32="b")
    assert both.message.startswith("Expecting a single x-amz-checksum- header")
    assert "no corresponding" in refused(world, "PutObject", Key="k", ChecksumAlgorithm="CRC32").message
    assert refused(world, "PutObject", Key="k", ChecksumXXHASH3="AAAA").code == "NotImplemented"
    assert refused(world, "PutObject", Key="k", ContentMD5="nonsense").code == "InvalidDigest"
    wrong = refused(world, "PutObject", Key="k", ContentMD5=base64.b64encode(b"x" * 16).decode())
    assert (wrong.code, "CalculatedDigest" in wrong.fields) == ("BadDigest", True)


# -- buckets and keys -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["ab", "Upper", "a_b", "-abc", "abc-", "a..b", "1.2.3.4", "xn--abc", "abc-s3alias", "a" * 64]
)
def test_bucket_names(world, name):
    assert refused(world, "CreateBucket", Bucket=name).code == "InvalidBucketName"


def test_buckets(world):
    s3(world, "CreateBucket")
    assert refused(world, "GetObject", Bucket="absent", Key="k").fields == {"BucketName": "absent"}
    s3(world, "CreateBucket", Bucket="west", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    assert s3(world, "GetBucketLocation", Bucket="west") == {"LocationConstraint": "eu-west-1"}
    assert refused(world, "CreateBucket", Bucket="west").code == "BucketAlreadyOwnedByYou"
    assert [entry["Name"] for entry in s3(world, "ListBuckets")["Buckets"]] == ["bucket", "west"]
    first = s3(world, "ListBuckets", MaxBuckets=1)
    rest = s3(world, "ListBuckets", MaxBuckets=1, ContinuationToken=first["ContinuationToken"])
    assert [entry["Name"] for entry in rest["Buckets"]] == ["west"] and "ContinuationToken" not in rest
    assert refused(world, "HeadBucket", ExpectedBucketOwner="111111111111").code == "AccessDenied"
    world.scope = world.scope._replace(region="eu-west-1")
    assert refused(world, "CreateBucket", Bucket="other").code == "IllegalLocationConstraintException"


def test_key_and_tag_limits(world):
    s3(world, "PutObject", Key="é" * 512)
    assert refused(world, "PutObject", Key="é" * 512 + "x").code == "KeyTooLongError"
    assert refused(world, "PutObject", Key="k", Tagging="&".join(f"k{n}=v" for n in range(11))).code == "BadRequest"
    assert refused(world, "PutObject", Key="k", Tagging="a=1&a=2").code == "InvalidArgument"
    assert refused(world, "PutObject", Key="k", Tagging="a=" + "v" * 257).code == "InvalidTag"


@pytest.mark.parametrize(
    ("member", "value", "code"),
    [
        ("SSECustomerAlgorithm", "AES256", "NotImplemented"),
        ("ObjectLockMode", "GOVERNANCE", "NotImplemented"),
        ("ACL", "public-read", "AccessControlListNotSupported"),
        ("GrantRead", "id=x", "AccessControlListNotSupported"),
        ("StorageClass", "COLD", "InvalidStorageClass"),
        ("ServerSideEncryption", "rot13", "InvalidArgument"),
    ],
)
def test_what_nothing_acts_on_is_refused(world, member, value, code):
    assert refused(world, "PutObject", Key="k", **{member: value}).code == code


def test_archived_objects_cannot_be_read(world):
    s3(world, "PutObject", Key="k", Body=b"1", StorageClass="DEEP_ARCHIVE")
    assert s3(world, "HeadObject", Key="k")["StorageClass"] == "DEEP_ARCHIVE"
    error = refused(world, "GetObject", Key="k")
    assert (error.code, error.status, error.fields) == ("InvalidObjectState", 403, {"StorageClass": "DEEP_ARCHIVE"})


# -- listings ---------------------------------------------------------------------------------------------------------


def listed(world, operation="ListObjectsV2", **params):
    found = s3(world, operation, **params)
    return (
        [entry["Key"] for entry in found.get("Contents", [])],
        [entry["Prefix"] for entry in found.get("CommonPrefixes", [])],
        found,
    )


@settings(max_examples=40, deadline=None)
@given(
    keys=st.sets(st.text("ab/é\U0010ffff", min_size=1, max_size=6), min_size=1, max_size=25),
    prefix=st.text("ab/", max_size=2),
    delimiter=st.sampled_from(["", "/", "b"]),
    limit=st.integers(1, 5),
)
def test_pages_add_up_to_what_a_plain_scan_gives(keys, prefix, delimiter, limit):
    world = InProcess(build)
    world("s3", "CreateBucket", Bucket="bucket")
    for key in keys:
        s3(world, "PutObject", Key=key)
    expected: list[str] = []
    for key in sorted(key for key in keys if key.startswith(prefix)):
        position = key.find(delimiter, len(prefix)) if delimiter else -1
        entry = key if position < 0 else key[: position + 1]
        if not expected or expected[-1] != entry:
            expected.append(entry)
    seen: list[str] = []
    more: dict = {}
    while True:
        found_keys, prefixes, found = listed(world, Prefix=prefix, Delimiter=delimiter, MaxKeys=limit, **more)
        assert found["KeyCount"] == len(found_keys) + len(prefixes) <= limit
        seen += sorted([*found_keys, *prefixes])
        if not found["IsTruncated"]:
            break
        more = {"ContinuationToken": found["NextContinuationToken"]}
    assert seen == expected


def test_listing_details(world):
    for key in ("a", "b/1", "b/2", "c d"):
        s3(world, "PutObject", Key=key)
    assert listed(world, StartAfter="a")[0] == ["b/1", "b/2", "c d"]
    assert listed(world, StartAfter="b/1", Delimiter="/")[:2] == (["c d"], [])
    assert listed(world, MaxKeys=0)[2]["IsTruncated"] is False
    assert listed(world, EncodingType="url")[0][-1] == "c%20d"
    assert listed(world, "ListObjects", Marker="b/", Delimiter="/")[:2] == (["c d"], [])
    assert (
        refused(world, "ListObjectsV2", ContinuationToken="!!").message
        == "The continuation token provided is incorrect"
    )
    assert refused(world, "ListObjectsV2", EncodingType="hex").code == "InvalidArgument"
    versions = s3(world, "ListObjectVersions", MaxKeys=1)
    assert (versions["NextKeyMarker"], versions["NextVersionIdMarker"]) == ("a", "null")


# -- deleting many, copying, tags -------------------------------------------------------------------------------------


def test_delete_objects(world):
    s3(world, "PutObject", Key="a", Body=LARGE)
    output = s3(world, "DeleteObjects", Delete={"Objects": [{"Key": "a"}, {"Key": "b", "VersionId": "7"}]})
    assert [entry["Key"] for entry in output["Deleted"]] == ["a"]
    assert [entry["Code"] for entry in output["Errors"]] == ["InvalidArgument"]
    assert s3(world, "DeleteObjects", Delete={"Objects": [{"Key": "a"}], "Quiet": True}) == {}
    many = [{"Key": str(number)} for number in range(1_001)]
    assert refused(world, "DeleteObjects", Delete={"Objects": many}).code == "MalformedXML"


def test_delete_objects_wants_a_digest(world):
    replies: list = []
    request = HttpRequest("POST", "/bucket?delete", {}, b"<Delete/>")
    params = {"Bucket": "bucket", "Delete": {"Objects": [{"Key": "a"}]}}
    world.machine.submit("s3", "DeleteObjects", params, replies.append, request=request)
    world.settle()
    assert (replies[0].code, "Content-MD5" in replies[0].message) == ("InvalidRequest", True)


@pytest.mark.parametrize("body", [b"small", LARGE])
def test_copying(world, body):
    s3(world, "PutObject", Key="ü x", Body=body, Metadata={"a": "1"}, ContentType="text/x", Tagging="t=1")
    copied = s3(world, "CopyObject", Key="copy", CopySource="/bucket/%C3%BC%20x?versionId=null")
    assert copied["CopyObjectResult"]["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
    got = s3(world, "GetObject", Key="copy")
    assert (body_of(got), got["Metadata"], got["ContentType"], got["TagCount"]) == (body, {"a": "1"}, "text/x", 1)
    s3(
        world, "CopyObject", Key="ü x", CopySource="bucket/%C3%BC%20x", MetadataDirective="REPLACE",
        Metadata={"b": "2"}, TaggingDirective="REPLACE", ChecksumAlgorithm="SHA256",
    )  # fmt: skip
    got = s3(world, "GetObject", Key="ü x", ChecksumMode="ENABLED")
    assert (body_of(got), got["Metadata"], "TagCount" in got) == (body, {"b": "2"}, False)
    assert got["ChecksumSHA256"] == base64.b64encode(hashlib.sha256(body).digest()).decode()
    assert "copy an object to itself" in refused(world, "CopyObject", Key="copy", CopySource="bucket/copy").message
    assert refused(world, "CopyObject", Key="x", CopySource="bucket").code == "InvalidArgument"
    assert refused(world, "CopyObject", Key="x", CopySource="bucket/absent").code == "NoSuchKey"
    error = refused(world, "CopyObject", Key="x", CopySource="bucket/copy", CopySourceIfNoneMatch="*")
    assert (error.code, error.status) == ("PreconditionFailed", 412)


def test_object_tags(world):
    s3(world, "PutObject", Key="k")
    tags = [{"Key": "a", "Value": "1"}]
    s3(world, "PutObjectTagging", Key="k", Tagging={"TagSet": tags})
    assert s3(world, "GetObjectTagging", Key="k") == {"TagSet": tags}
    s3(world, "DeleteObjectTagging", Key="k")
    assert s3(world, "GetObjectTagging", Key="k") == {"TagSet": []}
    assert refused(world, "PutObjectTagging", Key="k", Tagging={"TagSet": tags * 2}).code == "InvalidTag"


# -- multipart --------------------------------------------------------------------------------------------------------

PART = bytes(5 << 20)


def begin(world, **more):
    return s3(world, "CreateMultipartUpload", Key="mp", **more)["UploadId"]


def send(world, upload, number, body, **more):
    output = s3(world, "UploadPart", Key="mp", UploadId=upload, PartNumber=number, Body=body, **more)
    kept = {name: value for name, value in output.items() if name.startswith("Checksum")}
    return {"PartNumber": number, "ETag": output["ETag"], **kept}


def finish(world, upload, parts, **more):
    return s3(world, "CompleteMultipartUpload", Key="mp", UploadId=upload, MultipartUpload={"Parts": parts}, **more)


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [
        (None, None),
        ("CRC32", "COMPOSITE"),
        ("CRC32", "FULL_OBJECT"),
        ("CRC64NVME", "FULL_OBJECT"),
        ("SHA256", "COMPOSITE"),
    ],
)
def test_multipart(world, algorithm, kind):
    upload = begin(world, **({} if algorithm is None else {"ChecksumAlgorithm": algorithm, "ChecksumType": kind}))
    send(world, upload, 1, b"replaced by the next")
    parts = [send(world, upload, 1, PART), send(world, upload, 3, b"tail")]
    send(world, upload, 2, b"left out")
    shown = s3(world, "ListParts", Key="mp", UploadId=upload)
    assert [part["PartNumber"] for part in shown["Parts"]] == [1, 2, 3]
    done = finish(world, upload, parts)
    digests = b"".join(bytes.fromhex(part["ETag"].strip('"')) for part in parts)
    assert done["ETag"] == f'"{hashlib.md5(digests).hexdigest()}-2"'
    got = s3(world, "GetObject", Key="mp", ChecksumMode="ENABLED")
    assert body_of(got) == PART + b"tail"
    if algorithm is not None:
        whole = checksums.measure((PART, b"tail"), algorithm).checksum
        value = got[checksums.MEMBER[algorithm]]
        assert (value == whole, got["ChecksumType"]) == (kind == "FULL_OBJECT", kind)
        assert value.endswith("-2") is (kind == "COMPOSITE")
    assert body_of(s3(world, "GetObject", Key="mp", PartNumber=2)) == b"tail"
    assert refused(world, "GetObject", Key="mp", PartNumber=3).code == "InvalidPartNumber"
    world.advance(61)
    assert len(stored_files(world)) == 1
    assert refused(world, "ListParts", Key="mp", UploadId=upload).code == "NoSuchUpload"


def test_a_single_part_keeps_its_file(world):
    upload = begin(world)
    parts = [send(world, upload, 1, LARGE)]
    files = stored_files(world)
    assert finish(world, upload, parts)["ETag"].endswith('-1"')
    world.advance(61)
    assert stored_files(world) == files
    assert body_of(s3(world, "GetObject", Key="mp")) == LARGE


def test_multipart_refusals(world):
    upload = begin(world)
    parts = [send(world, upload, 1, b"small"), send(world, upload, 2, b"tail")]
    assert refused(world, "UploadPart", Key="mp", UploadId=upload, PartNumber=10_001).code == "InvalidArgument"
    assert refused(world, "UploadPart", Key="mp", UploadId="no", PartNumber=1).code == "NoSuchUpload"
    assert refused(world, "UploadPart", Key="other", UploadId=upload, PartNumber=1).code == "NoSuchUpload"

    def end(parts, **more):
        wanted = {"Parts": parts}
        return refused(world, "CompleteMultipartUpload", Key="mp", UploadId=upload, MultipartUpload=wanted, **more)

    error = end(parts)
    assert (error.code, error.fields["ProposedSize"], error.fields["PartNumber"]) == ("EntityTooSmall", "5", "1")
    assert end(parts[::-1]).code == "InvalidPartOrder"
    assert end([{**parts[0], "ETag": '"x"'}]).code == "InvalidPart"
    assert end([{**parts[0], "PartNumber": 9}]).code == "InvalidPart"
    assert end([]).code == "InvalidRequest"
    assert end(parts[1:], MpuObjectSize=5).code == "InvalidRequest"
    assert refused(world, "HeadObject", Key="mp").code == "NoSuchKey"
    finish(world, upload, parts[1:])
    assert body_of(s3(world, "GetObject", Key="mp")) == b"tail"
    assert refused(
        world, "CreateMultipartUpload", Key="k", ChecksumAlgorithm="SHA1", ChecksumType="FULL_OBJECT"
    ).code == ("InvalidRequest")


def test_parts_copied_from_objects_and_aborted(world):
    s3(world, "PutObject", Key="source", Body=LARGE)
    upload = begin(world)
    copied = s3(
        world, "UploadPartCopy", Key="mp", UploadId=upload, PartNumber=1, CopySource="bucket/source",
        CopySourceRange="bytes=10-99999",
    )  # fmt: skip
    assert copied["CopyPartResult"]["ETag"] == f'"{hashlib.md5(LARGE[10:100_000]).hexdigest()}"'
    bad = {"UploadId": upload, "PartNumber": 2, "CopySource": "bucket/source"}
    assert refused(world, "UploadPartCopy", Key="mp", CopySourceRange="bytes=5-", **bad).code == "InvalidArgument"
    assert refused(world, "UploadPartCopy", Key="mp", CopySourceRange="bytes=0-999999", **bad).code == "InvalidArgument"
    assert [entry["Key"] for entry in s3(world, "ListMultipartUploads")["Uploads"]] == ["mp"]
    s3(world, "AbortMultipartUpload", Key="mp", UploadId=upload)
    world.advance(61)
    assert len(stored_files(world)) == 1
    assert "Uploads" not in s3(world, "ListMultipartUploads")


def test_listing_uploads_in_pages(world):
    for key in ("a", "b/1", "b/2", "c"):
        s3(world, "CreateMultipartUpload", Key=key)
    first = s3(world, "ListMultipartUploads", Delimiter="/", MaxUploads=2)
    assert [entry["Key"] for entry in first["Uploads"]] == ["a"]
    assert [entry["Prefix"] for entry in first["CommonPrefixes"]] == ["b/"]
    assert first["IsTruncated"]
    rest = s3(world, "ListMultipartUploads", Delimiter="/", KeyMarker=first["NextKeyMarker"])
    assert [entry["Key"] for entry in rest["Uploads"]] == ["c"] and "CommonPrefixes" not in rest

"""The checksums S3 keeps beside an object: CRC32, CRC32C, CRC64NVME, SHA1, SHA256, SHA512, MD5.

Values travel base64-encoded, big-endian. The two CRCs that the standard library lacks are table-driven; a large buffer
is cut into equal lanes that numpy carries forward together, and the lanes are joined by the CRC's own arithmetic
(multiplication by a power of x modulo the polynomial), which also joins the parts of a multipart upload.
"""

import base64
import hashlib
import zlib
from collections.abc import Iterable
from typing import Any, NamedTuple

from preheat.kernel.errors import AwsError

Buffer = bytes | bytearray | memoryview
MEMBER = {name: "Checksum" + name for name in ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256", "SHA512", "MD5")}
UNAVAILABLE = ("ChecksumXXHASH64", "ChecksumXXHASH3", "ChecksumXXHASH128")
FULL_ONLY = frozenset({"CRC64NVME"})
CRCS = frozenset({"CRC32", "CRC32C", "CRC64NVME"})
_LANES = 2048
_VECTOR_BYTES = 1 << 20
_SMALL_BYTES = 16_384


class Polynomial(NamedTuple):
    """A reflected CRC with all-ones start and end."""

    width: int
    value: int
    table: tuple[int, ...]

    @classmethod
    def of(cls, width: int, value: int) -> "Polynomial":
        table = []
        for byte in range(256):
            crc = byte
            for _ in range(8):
                crc = (crc >> 1) ^ (value if crc & 1 else 0)
            table.append(crc)
        return cls(width, value, tuple(table))

    @property
    def ones(self) -> int:
        return (1 << self.width) - 1


POLYNOMIALS = {
    "CRC32": Polynomial.of(32, 0xEDB88320),
    "CRC32C": Polynomial.of(32, 0x82F63B78),
    "CRC64NVME": Polynomial.of(64, 0x9A6C9329AC4BC9B5),
}


def _times(a: int, b: int, polynomial: Polynomial) -> int:
    """a * b modulo the polynomial; the highest bit is the coefficient of x to the zero."""
    product, bit, value = 0, 1 << (polynomial.width - 1), polynomial.value
    while a:
        if a & bit:
            product ^= b
            a ^= bit
        bit >>= 1
        b = (b >> 1) ^ (value if b & 1 else 0)
    return product


def _shift(length: int, polynomial: Polynomial) -> int:
    """x to the power of 8 * length, modulo the polynomial: what `length` further bytes do to a CRC."""
    result, power, count = 1 << (polynomial.width - 1), 1 << (polynomial.width - 2), length * 8
    while count:
        if count & 1:
            result = _times(power, result, polynomial)
        power = _times(power, power, polynomial)
        count >>= 1
    return result


def combine(algorithm: str, first: int, second: int, second_length: int) -> int:
    """The CRC of two runs of bytes from the CRC of each."""
    polynomial = POLYNOMIALS[algorithm]
    return _times(_shift(second_length, polynomial), first, polynomial) ^ second


def crc(algorithm: str, data: Buffer, start: int = 0) -> int:
    """The CRC of `data` after bytes whose CRC is `start`."""
    if algorithm == "CRC32":
        return zlib.crc32(data, start)
    polynomial = POLYNOMIALS[algorithm]
    view = memoryview(data)
    while len(view) >= _SMALL_BYTES:
        taken = min(len(view), _VECTOR_BYTES) // _LANES * _LANES
        start = _crc_lanes(polynomial, view[:taken], start)
        view = view[taken:]
    return _crc_bytes(polynomial, view, start)


def _crc_bytes(polynomial: Polynomial, data: Buffer, start: int) -> int:
    value, table = start ^ polynomial.ones, polynomial.table
    for byte in data:
        value = (value >> 8) ^ table[(value ^ byte) & 0xFF]
    return value ^ polynomial.ones


def _crc_lanes(polynomial: Polynomial, data: memoryview, start: int) -> int:
    import numpy

    length = len(data) // _LANES
    columns = numpy.frombuffer(data, dtype=numpy.uint8).reshape(_LANES, length).T.astype(numpy.uint64)
    table = numpy.array(polynomial.table, dtype=numpy.uint64)
    state = numpy.full(_LANES, polynomial.ones, dtype=numpy.uint64)
    eight, low = numpy.uint64(8), numpy.uint64(0xFF)
    for column in columns:
        state = (state >> eight) ^ table[(state ^ column) & low]
    advance = _shift(length, polynomial)
    for lane in (state ^ numpy.uint64(polynomial.ones)).tolist():
        start = _times(advance, start, polynomial) ^ lane
    return start


class Digest:
    """One checksum fed piece by piece."""

    def __init__(self, algorithm: str) -> None:
        self.algorithm = algorithm
        self._crc = 0
        self._hash: Any = None if algorithm in CRCS else hashlib.new(algorithm.lower())

    def update(self, data: Buffer) -> None:
        if self._hash is not None:
            self._hash.update(data)
        else:
            self._crc = crc(self.algorithm, data, self._crc)

    def value(self) -> str:
        """Base64, as S3 writes it."""
        if self._hash is not None:
            return base64.b64encode(self._hash.digest()).decode()
        return encode_crc(self.algorithm, self._crc)


def encode_crc(algorithm: str, value: int) -> str:
    return base64.b64encode(value.to_bytes(POLYNOMIALS[algorithm].width // 8, "big")).decode()


def decode_crc(text: str) -> int:
    return int.from_bytes(base64.b64decode(text), "big")


def requested(params: dict[str, Any]) -> tuple[str | None, str | None]:
    """The checksum a request brings: (algorithm, its base64 value or None). Raises InvalidRequest."""
    found = None
    for algorithm, member in MEMBER.items():
        if member in params:
            if found is not None:
                raise AwsError(
                    "InvalidRequest",
                    "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
                )
            found = algorithm
    named = params.get("ChecksumAlgorithm")
    if found is None:
        if any(member in params for member in UNAVAILABLE) or (named and named not in MEMBER):
            raise AwsError("NotImplemented", "Preheat does not compute XXHASH checksums; use CRC64NVME.", 501)
        if named:
            raise AwsError(
                "InvalidRequest",
                "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* "
                "or x-amz-trailer headers were found.",
            )
        return None, None
    value = params[MEMBER[found]]
    if named and named != found:
        raise AwsError("InvalidRequest", "Value for x-amz-sdk-checksum-algorithm header is invalid.")
    if not well_formed(found, value):
        raise AwsError("InvalidRequest", f"Value for x-amz-checksum-{found.lower()} header is invalid.")
    return found, value


def well_formed(algorithm: str, value: str) -> bool:
    if algorithm in CRCS:
        size = POLYNOMIALS[algorithm].width // 8
    else:
        size = hashlib.new(algorithm.lower()).digest_size
    try:
        return len(base64.b64decode(value, validate=True)) == size
    except ValueError:
        return False


class Measured(NamedTuple):
    """What reading a body once tells: its MD5 and, if asked for, one checksum."""

    size: int
    md5: bytes
    checksum: str | None


def measure(chunks: Iterable[Buffer], algorithm: str | None) -> Measured:
    size, md5 = 0, hashlib.md5(usedforsecurity=False)
    digest = None if algorithm is None else Digest(algorithm)
    for chunk in chunks:
        size += len(chunk)
        md5.update(chunk)
        if digest is not None:
            digest.update(chunk)
    return Measured(size, md5.digest(), None if digest is None else digest.value())


def verify(measured: Measured, algorithm: str | None, expected: str | None, content_md5: str | None) -> None:
    """Raises InvalidDigest or BadDigest when the body is not what the request says."""
    if content_md5 is not None:
        try:
            claimed = base64.b64decode(content_md5, validate=True)
        except ValueError:
            claimed = b""
        if len(claimed) != 16:
            raise AwsError(
                "InvalidDigest", "The Content-MD5 you specified was invalid.", fields={"Content-MD5": content_md5}
            )
        if claimed != measured.md5:
            raise AwsError(
                "BadDigest",
                "The Content-MD5 you specified did not match what we received.",
                fields={
                    "ExpectedDigest": content_md5,
                    "CalculatedDigest": base64.b64encode(measured.md5).decode(),
                },
            )
    if expected is not None and expected != measured.checksum:
        raise AwsError("BadDigest", f"The {algorithm} you specified did not match the calculated checksum.")

"""Kinesis's rules without a store: names, hash keys, sequence numbers, iterators, limits.

A sequence number is 56 digits: a counter of the whole store, so that numbers grow with time, then the shard.
"""

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from preheat.kernel.errors import AwsError, ValidationError
from preheat.kernel.scope import Arn, Scope

HIGHEST_HASH = (1 << 128) - 1
NAME = r"[a-zA-Z0-9_.-]+"
SHARDS_OF_ON_DEMAND = 4
MOST_SHARDS = 500
LEAST_RETENTION_H, MOST_RETENTION_H = 24, 8_760
MOST_RECORDS, MOST_BATCH_BYTES = 500, 10 * 1024 * 1024
MOST_READ, MOST_READ_BYTES = 10_000, 10 * 1024 * 1024
WRITES_A_SECOND, WRITE_BYTES_A_SECOND = 1_000, 1024 * 1024
READS_A_SECOND, READ_BYTES_A_SECOND = 5, 2 * 1024 * 1024
ITERATOR_S = 300
MOST_TAGS = 50
KIB = 1024
_FORM = re.compile(r"49(\d{50})(\d{4})")


class Stream(NamedTuple):
    """A row. Until `active_at` (epoch seconds) the stream is being made or changed. `most_kib` is the largest record's
    size."""

    row: int
    account: str
    region: str
    name: str
    created: float
    active_at: float
    mode: str
    retention_h: int
    most_kib: int
    key_id: str | None
    metrics: str
    tags: str

    @property
    def scope(self) -> Scope:
        return Scope(self.account, self.region)

    @property
    def arn(self) -> str:
        return self.scope.arn("kinesis", f"stream/{self.name}")

    def status(self, now: float) -> str:
        if now >= self.active_at:
            return "ACTIVE"
        return "CREATING" if self.active_at - self.created < 1 else "UPDATING"


class Shard(NamedTuple):
    """A row. Hash keys are decimal; `starts` and `ends` are counter values, `ends` None while the shard is open."""

    stream: int
    number: int
    first_hash: str
    last_hash: str
    parent: int | None
    adjacent: int | None
    opened_at: float
    starts: int
    closed_at: float | None
    ends: int | None

    @property
    def id(self) -> str:
        return shard_id(self.number)


class Held(NamedTuple):
    """A record."""

    sequence: int
    arrived_ms: int
    partition_key: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Position:
    """Where an iterator stands: behind the counter value `after`."""

    stream: int
    shard: int
    after: int
    issued_at: float

    def token(self) -> str:
        fields = [self.stream, self.shard, self.after, self.issued_at]
        return base64.b64encode(json.dumps(fields).encode().ljust(64)).decode()


def invalid(message: str) -> AwsError:
    return AwsError("InvalidArgumentException", message)


def not_found(name: str, scope: Scope) -> AwsError:
    return AwsError("ResourceNotFoundException", f"Stream {name} under account {scope.account} not found.")


def in_use(message: str) -> AwsError:
    return AwsError("ResourceInUseException", message)


def limit_exceeded(message: str) -> AwsError:
    return AwsError("LimitExceededException", message)


def rate_exceeded(shard: Shard, name: str, account: str) -> AwsError:
    text = f"Rate exceeded for shard {shard.id} in stream {name} under account {account}."
    return AwsError("ProvisionedThroughputExceededException", text)


def shard_id(number: int) -> str:
    return f"shardId-{number:012d}"


def shard_number(text: str) -> int | None:
    """None for what is not a shard's id; the number alone will do, as on AWS."""
    digits = text.removeprefix("shardId-")
    return int(digits) if digits.isascii() and digits.isdigit() else None


def sequence_number(counter: int, shard: int) -> str:
    return f"49{counter:050d}{shard:04d}"


def counter_of(sequence: str, shard: int) -> int:
    """The counter in a sequence number of a shard. Raises InvalidArgumentException."""
    found = _FORM.fullmatch(sequence)
    if found is None or int(found[2]) != shard:
        raise invalid(f"StartingSequenceNumber {sequence} used on shard {shard_id(shard)} is invalid.")
    return int(found[1])


def hash_of(partition_key: str) -> int:
    """MD5 of the key, as AWS maps keys to shards."""
    return int.from_bytes(hashlib.md5(partition_key.encode(), usedforsecurity=False).digest(), "big")


def ranges(count: int) -> list[tuple[int, int]]:
    """The hash key space in `count` parts of one size."""
    size = (1 << 128) // count
    return [(at * size, HIGHEST_HASH if at == count - 1 else (at + 1) * size - 1) for at in range(count)]


def position_of(token: str, now: float) -> Position:
    """Raises InvalidArgumentException, ExpiredIteratorException."""
    try:
        stream, shard, after, issued_at = json.loads(base64.b64decode(token, validate=True))
        position = Position(int(stream), int(shard), int(after), float(issued_at))
    except (ValueError, TypeError):
        raise invalid("Invalid ShardIterator.") from None
    if now - position.issued_at > ITERATOR_S:
        text = (
            f"Iterator expired. The iterator was created at time {position.issued_at:.3f} while right now it is "
            f"{now:.3f} which is further in the future than the tolerated delay of {ITERATOR_S * 1000} milliseconds."
        )
        raise AwsError("ExpiredIteratorException", text)
    return position


def named(scope: Scope, params: dict[str, Any]) -> tuple[Scope, str]:
    """The stream that StreamName, StreamARN or ResourceARN names. Raises AwsError."""
    if params.get("StreamId"):
        raise invalid("Preheat names streams by StreamName and StreamARN, not by StreamId.")
    arn = params.get("StreamARN") or params.get("ResourceARN")
    if arn:
        try:
            parsed = Arn.parse(arn)
        except ValueError:
            raise invalid(f"The ARN {arn} is invalid.") from None
        if parsed.service != "kinesis" or not parsed.resource.startswith("stream/"):
            raise invalid(f"The ARN {arn} is invalid.")
        name = parsed.resource.removeprefix("stream/")
        if params.get("StreamName") not in (None, name):
            raise invalid("StreamARN and StreamName do not match.")
        return parsed.scope, name
    if not params.get("StreamName"):
        raise invalid("Either StreamARN or StreamName must be specified.")
    return scope, params["StreamName"]


def check_tags(tags: dict[str, str]) -> None:
    """Raises AwsError for more than 50 tags, or keys and values that AWS refuses."""
    if len(tags) > MOST_TAGS:
        raise invalid(f"Failed to add tags: a stream can have at most {MOST_TAGS} tags.")
    for key, value in tags.items():
        if not 1 <= len(key) <= 128 or len(value) > 256 or key.lower().startswith("aws:"):
            raise invalid(f"Some of the tags are invalid. Tag key: {key}")


def unsupported(what: str) -> ValidationError:
    return ValidationError(f"Preheat does not support {what}.")

"""Resharding: split, merge, a new number of shards. Closed shards stay readable until retention has passed them."""

from preheat.kernel.errors import AwsError
from preheat.services.contract import Context, Params
from preheat.services.kinesis import repository
from preheat.services.kinesis.domain import MOST_SHARDS, Shard, Stream, invalid, limit_exceeded, ranges, shard_number


def open_shards(ctx: Context, stream: Stream) -> list[Shard]:
    return [one for one in repository.shards(ctx.db, stream.row) if one.closed_at is None]


def shard_of(ctx: Context, stream: Stream, id: str) -> Shard:
    """Raises ResourceNotFoundException."""
    number = shard_number(id)
    found = None if number is None else repository.shard(ctx.db, stream.row, number)
    if found is None:
        text = f"Shard {id} in stream {stream.name} under account {stream.account} does not exist"
        raise AwsError("ResourceNotFoundException", text)
    return found


def open_one(ctx: Context, stream: Stream, id: str) -> Shard:
    held = shard_of(ctx, stream, id)
    if held.closed_at is not None:
        raise invalid(f"Shard {held.id} in stream {stream.name} under account {stream.account} is closed.")
    return held


def split(ctx: Context, stream: Stream, params: Params) -> None:
    held = open_one(ctx, stream, params["ShardToSplit"])
    middle, first, last = int(params["NewStartingHashKey"]), int(held.first_hash), int(held.last_hash)
    if not first + 1 < middle < last - 1:
        raise invalid(
            f"NewStartingHashKey {middle} used in SplitShard() on shard {held.id} in stream {stream.name} under "
            f"account {stream.account} is not both greater than one plus the shard's StartingHashKey {first} and less "
            f"than the shard's EndingHashKey {last - 1}."
        )
    if len(open_shards(ctx, stream)) >= MOST_SHARDS:
        raise limit_exceeded(f"This request would exceed the shard limit of {MOST_SHARDS}.")
    repository.close_shard(ctx.db, held, ctx.now)
    for span in ((first, middle - 1), (middle, last)):
        repository.open_shard(ctx.db, stream.row, span, ctx.now, held.number)


def merge(ctx: Context, stream: Stream, params: Params) -> None:
    one, other = (open_one(ctx, stream, params[name]) for name in ("ShardToMerge", "AdjacentShardToMerge"))
    low, high = sorted((one, other), key=lambda held: int(held.first_hash))
    if one.number == other.number or int(low.last_hash) + 1 != int(high.first_hash):
        raise invalid(
            f"Shards {one.id} and {other.id} in stream {stream.name} under account {stream.account} are not an "
            "adjacent pair of shards eligible for merging"
        )
    for held in (one, other):
        repository.close_shard(ctx.db, held, ctx.now)
    span = (int(low.first_hash), int(high.last_hash))
    repository.open_shard(ctx.db, stream.row, span, ctx.now, one.number, other.number)


def scale(ctx: Context, stream: Stream, wanted: int) -> int:
    """`wanted` shards of one size; how many there were. A shard that keeps its range stays as it is."""
    current = open_shards(ctx, stream)
    count = len(current)
    if wanted > 2 * count or 2 * wanted < count:
        raise invalid(
            "UpdateShardCount cannot scale up over double your current open shard count, or down below half of it. "
            f"Current open shard count: {count} Target shard count: {wanted}"
        )
    if wanted > MOST_SHARDS:
        raise limit_exceeded(f"This request would exceed the shard limit of {MOST_SHARDS}.")
    spans = ranges(wanted)
    replaced = [held for held in current if (int(held.first_hash), int(held.last_hash)) not in spans]
    kept = {(int(held.first_hash), int(held.last_hash)) for held in current if held not in replaced}
    for held in replaced:
        repository.close_shard(ctx.db, held, ctx.now)
    for span in spans:
        if span not in kept:
            before = [held.number for held in replaced if _overlaps(held, span)]
            repository.open_shard(ctx.db, stream.row, span, ctx.now, *before[:2])
    return count


def _overlaps(held: Shard, span: tuple[int, int]) -> bool:
    return int(held.first_hash) <= span[1] and span[0] <= int(held.last_hash)

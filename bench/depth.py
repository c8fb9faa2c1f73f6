"""A queue as it grows: what sending and receiving cost with many messages waiting, and what they cost in memory."""

from cases import BATCH, DRAIN, DRAIN_OTHERS, drain, fill, load, rate
from servers import Server

DEPTHS = {"preheat": (100_000, 1_000_000, 5_000_000), "ministack": (100_000,), "elasticmq": (100_000,)}
"""Peers hold their messages in memory and slow down or grow with them: they are asked for less."""
PATIENCE_S = 4
"""A drain of a slow server's deep queue lasts as many times `seconds`."""


def depth(server: Server, seconds: float, tag: str, repeats: int) -> dict[str, list[float]]:
    """Sending to and draining a queue with messages waiting, in turn with another that is almost empty."""
    out: dict[str, list[float]] = {}
    deep = server.create_queue(f"deep-{tag}")
    out["memory at 0 MB"] = [server.memory_mb()]
    held = 0
    for wanted in DEPTHS[server.name]:
        at = f"at {wanted:,}"
        out[f"sqs fill c=16 to {wanted:,} msg/s"] = [fill(server, deep, wanted - held)]
        held = wanted
        for number in range(1 if server.name in DRAIN else repeats):
            for figure, value in _compare(server, seconds, deep, f"{tag}-{wanted}-{number}", at).items():
                out.setdefault(figure, []).append(value)
    return out


def _compare(server: Server, seconds: float, deep: str, tag: str, at: str) -> dict[str, float]:
    """Each load on an almost empty queue and then on the deep one."""
    shallow = server.create_queue(f"shallow-{tag}")
    fill(server, shallow, DRAIN.get(server.name, DRAIN_OTHERS))
    near = drain(server, 16, seconds, shallow)
    far = drain(server, 16, PATIENCE_S * seconds if server.name in DRAIN else seconds, deep)
    server.settle()
    out = {
        f"sqs receive+delete c=16 {at} msg/s": far["rate"],
        f"sqs receive+delete c=16 {at}, share of almost empty": far["rate"] / near["rate"],
        f"sqs receive+delete c=16 {at} p99 ms": far["p99_ms"],
        "sqs receive+delete c=16 at 0 msg/s": near["rate"],
    }
    for kind, unit, size in (("send", "/s", 1), ("batch", "msg/s", BATCH)):
        before = rate(load(server, kind, 16, seconds, server.create_queue(f"{kind}-{tag}")))
        found = load(server, kind, 16, seconds, deep)
        out[f"sqs {kind} c=16 {at} {unit}"] = size * rate(found)
        out[f"sqs {kind} c=16 {at}, share of almost empty"] = rate(found) / before
        out[f"sqs {kind} c=16 {at} p99 ms"] = found["p99_ms"]
        out[f"sqs {kind} c=16 at 0 {unit}"] = size * before
    out[f"memory {at} MB"] = server.memory_mb()
    return out

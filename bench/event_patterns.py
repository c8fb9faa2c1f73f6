"""What matching one event costs as the rules on a bus grow: `python bench/event_patterns.py`.

Four kinds of rules. "types": one source, each rule its own detail type, one matches. "prefixes": each rule its own
object key prefix. "numeric": no field to file under, so every rule is asked. "one by one": the rules of "types" asked
in turn, without the index.
"""

import time

from preheat.services.patterns import Pattern, RuleIndex, compile_pattern

COUNTS = (1, 10, 100, 1_000, 10_000)
LEAST_S = 0.2
EVENT = {
    "version": "0", "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718", "detail-type": "type-0", "source": "shop",
    "account": "000000000000", "time": "2026-01-01T00:00:00Z", "region": "us-east-1",
    "resources": ["arn:aws:s3:::documents"],
    "detail": {"bucket": {"name": "documents"}, "object": {"key": "tenant-0/a.pdf", "size": 1234}, "amount": 7},
}  # fmt: skip


def rule(kind: str, number: int) -> Pattern:
    if kind == "prefixes":
        return compile_pattern({"source": ["shop"], "detail": {"object": {"key": [{"prefix": f"tenant-{number}/"}]}}})
    if kind == "numeric":
        return compile_pattern({"detail": {"amount": [{"numeric": [">", number + 7]}]}})
    return compile_pattern({"source": ["shop"], "detail-type": [f"type-{number}"]})


def per_event_us(match) -> float:
    match(EVENT)
    rounds, spent = 1, 0.0
    while spent < LEAST_S:
        rounds *= 2
        began = time.perf_counter()
        for _ in range(rounds):
            match(EVENT)
        spent = time.perf_counter() - began
    return spent / rounds * 1e6


def main() -> None:
    kinds = ("types", "prefixes", "numeric", "one by one")
    print("| rules | " + " | ".join(f"{kind}, µs" for kind in kinds) + " |")
    print("|---:|" + "---:|" * len(kinds))
    for count in COUNTS:
        cells = []
        for kind in kinds:
            patterns = [rule(kind, number) for number in range(count)]
            if kind == "one by one":
                cells.append(per_event_us(lambda event, rules=patterns: [one for one in rules if one.matches(event)]))
                continue
            index: RuleIndex[int] = RuleIndex()
            for number, pattern in enumerate(patterns):
                index.add(number, pattern)
            cells.append(per_event_us(index.matching))
        print(f"| {count:,} | " + " | ".join(f"{cell:,.1f}" for cell in cells) + " |", flush=True)


if __name__ == "__main__":
    main()

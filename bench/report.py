"""From figures to a table and to what was expected of them."""

import platform
import statistics
from collections.abc import Callable
from typing import NamedTuple

Figures = dict[str, dict[str, list[float]]]


class Expectation(NamedTuple):
    """`value` of the figures is compared with `bound`: at least it, or at most."""

    text: str
    value: Callable[[Figures], float | None]
    bound: float
    at_least: bool

    def met(self, figures: Figures) -> bool | None:
        """None when it was not measured."""
        value = self.value(figures)
        return None if value is None else (value >= self.bound if self.at_least else value <= self.bound)


def median(figures: Figures, server: str, figure: str) -> float | None:
    values = figures.get(server, {}).get(figure)
    return statistics.median(values) if values else None


def ratios(figures: Figures, figure: str, peer: str) -> list[float]:
    """Preheat over the peer, round by round; that of the medians where one has more rounds."""
    own, other = figures.get("preheat", {}).get(figure), figures.get(peer, {}).get(figure)
    if not own or not other or not all(other):
        return []
    if len(own) == len(other):
        return [mine / theirs for mine, theirs in zip(own, other, strict=True)]
    return [statistics.median(own) / statistics.median(other)]


def ratio(figures: Figures, figure: str, peer: str) -> float | None:
    """The median of `ratios`."""
    found = ratios(figures, figure, peer)
    return statistics.median(found) if found else None


def _own(figure: str) -> Callable[[Figures], float | None]:
    return lambda figures: median(figures, "preheat", figure)


def _against(figure: str, peer: str) -> Callable[[Figures], float | None]:
    return lambda figures: ratio(figures, figure, peer)


def _least(*figures: str) -> Callable[[Figures], float | None]:
    """The smallest of Preheat's medians; None when one of them was not measured."""

    def value(measured: Figures) -> float | None:
        values = [median(measured, "preheat", figure) for figure in figures]
        return None if None in values else min(value for value in values if value is not None)

    return value


class Power(NamedTuple):
    """Sends a second in "power" durability at so many connections, and what the disk's sync allows: as many sends take
    the time that they take without a sync, and that of one sync."""

    connections: int
    sends: float
    allowed: float


def power(figures: Figures, connections: int) -> Power | None:
    """None when something of it was not measured."""
    figure = f"sqs send c={connections} /s"
    plain, synced = median(figures, "preheat", figure), median(figures, "preheat-power", figure)
    sync_ms = median(figures, "preheat-power", "fdatasync ms")
    if plain is None or synced is None or sync_ms is None:
        return None
    return Power(connections, synced, connections / (connections / plain + sync_ms / 1_000))


def _power_share(figures: Figures) -> float | None:
    found = power(figures, 16)
    return None if found is None else found.sends / found.allowed


def _curve(figures: Figures) -> float | None:
    """What an entry costs with 1,000 rules over what it costs with none."""
    few, many = (median(figures, "preheat", f"events put, {count} rules, entries /s") for count in ("0", "1,000"))
    return few / many if few and many else None


SEND = "sqs send c=16 /s"
DEEP = "sqs receive+delete c=16 at 1,000,000, share of almost empty"
DEEP_SEND = "sqs send c=16 at 1,000,000, share of almost empty"
DEEP_BATCH = "sqs batch c=16 at 1,000,000, share of almost empty"
EXPECTED = (
    Expectation("SQS sends at 16 connections over MiniStack's, at least", _against(SEND, "ministack"), 5, True),
    Expectation("SQS sends at 16 connections over ElasticMQ's, at least", _against(SEND, "elasticmq"), 1, True),
    Expectation("SQS sends a second at 16 connections, at least", _own(SEND), 25_000, True),
    Expectation("SQS messages a second in batches at 16, at least", _own("sqs batch c=16 msg/s"), 60_000, True),
    Expectation("SQS messages received and deleted a second at 16, at least", _own("sqs receive+delete c=16 msg/s"),
                25_000, True),
    Expectation("sends in power durability over what the disk's sync allows, at least", _power_share, 0.85, True),
    Expectation("sends, batches and receives at 1,000,000 messages over an almost empty queue, the least, at least",
                _least(DEEP, DEEP_SEND, DEEP_BATCH), 0.8, True),
    Expectation("p99 of sends at 1,000,000, ms, at most", _own("sqs send c=16 at 1,000,000 p99 ms"), 10, False),
    Expectation("p99 of batches at 1,000,000, ms, at most", _own("sqs batch c=16 at 1,000,000 p99 ms"), 10, False),
    Expectation("p99 of receives and deletes at 1,000,000, ms, at most",
                _own("sqs receive+delete c=16 at 1,000,000 p99 ms"), 10, False),
    Expectation("memory at 5,000,000 messages, MB, at most", _own("memory at 5,000,000 MB"), 200, False),
    Expectation("SNS deliveries to 100 queues over MiniStack's, at least",
                _against("sns fan-out to 100, envelope, deliveries /s", "ministack"), 10, True),
    Expectation("events put against 1,000 rules over MiniStack's, at least",
                _against("events put, 1,000 rules, entries /s", "ministack"), 10, True),
    Expectation("SNS deliveries to 100 queues over moto's, at least",
                _against("sns fan-out to 100, envelope, deliveries /s", "moto"), 10, True),
    Expectation("events put against 1,000 rules over moto's, at least",
                _against("events put, 1,000 rules, entries /s", "moto"), 10, True),
    Expectation("an event's cost at 1,000 rules over that at none, at most", _curve, 2, False),
    Expectation("processor share of 10,000 parked receives, %, at most", _own("10,000 parked receives, processor %"),
                1, False),
    Expectation("send to answer of one of 10,000 parked receives p50, ms, at most",
                _own("10,000 parked receives, send to answer p50 ms"), 10, False),
    Expectation("acknowledged messages lost by SIGKILL, at most", _own("sqs acknowledged and lost"), 0, False),
    Expectation("warm invocation p50, ms, at most", _own("lambda warm c=1 p50 ms"), 0.5, False),
    Expectation("warm invocations a second at 16 connections, at least", _own("lambda warm c=16 /s"), 8_000, True),
    Expectation("the same over serverless-offline's, at least", _against("lambda warm c=16 /s", "serverless-offline"),
                1, True),
    Expectation("the same over MiniStack's, at least", _against("lambda warm c=16 /s", "ministack"), 100, True),
    Expectation("warm invocations of awslambdaric, at least", _own("lambda warm, awslambdaric c=16 /s"), 4_000, True),
    Expectation("SQS send to handler p50, ms, at most", _own("sqs to handler p50 ms"), 5, False),
    Expectation("300 messages of 100 ms at 50, over the ideal, at most", _own("sqs 300 x 100 ms at 50 over the ideal"),
                1.2, False),
    Expectation("cold invocation, light, ms, at most", _own("lambda cold light ms"), 20, False),
    Expectation("cold invocation with boto3 and numpy, ms, at most", _own("lambda cold boto3 and numpy ms"), 80, False),
    Expectation("idle memory, MB, at most", _own("idle memory MB"), 90, False),
    Expectation("first chunks read before the next was made, of 20", _own("lambda first chunks read before the next"),
                20, True),
    Expectation("start to first API answer, s, at most", _own("start to first CreateQueue s"), 0.6, False),
)  # fmt: skip


def document(figures: Figures, notes: list[str], about: dict) -> dict:
    """All there is, for other programs."""
    expected = [
        {"text": each.text, "bound": each.bound, "value": each.value(figures), "met": each.met(figures)}
        for each in EXPECTED
    ]
    return {"about": about, "expected": expected, "figures": figures, "notes": notes}


def verdicts(figures: Figures) -> list[str]:
    """One line for each expectation: met or not, what was measured, what was expected."""
    words = {True: "met", False: "NOT MET", None: "not measured"}
    lines = []
    for each in EXPECTED:
        value = each.value(figures)
        measured = "-" if value is None else number(value)
        lines.append(f"{words[each.met(figures)]:12}  {measured:>9}  {each.text} {each.bound:,g}")
    return lines


def markdown(figures: Figures, notes: list[str], about: dict) -> str:
    names = [name for name in figures if figures[name]]
    rows = list(dict.fromkeys(figure for name in names for figure in figures[name]))
    lines = [
        "# Results of `make bench`",
        "",
        f"{about['repeats']} rounds, {about['seconds']:g} s a load, servers interleaved, generator "
        f"{about['generator']}, Python {platform.python_version()}, {about['cores']} cores shared by server "
        f"and generator, {about['took_s']} s in all, load average {about['load_average']:g} before it. "
        "What is measured and how: [README.md](README.md).",
        "",
        "## Expected",
        "",
        "| expectation | bound | measured | |",
        "|---|---|---|---|",
    ]
    for each in EXPECTED:
        value = each.value(figures)
        verdict = {True: "met", False: "**not met**", None: "not measured"}[each.met(figures)]
        lines.append(f"| {each.text} | {each.bound:g} | {'-' if value is None else number(value)} | {verdict} |")
    lines += _power_table(figures)
    lines += [
        "",
        "## Figures",
        "",
        "Median (min to max); xN (min to max): Preheat's figure over that peer's, round by round.",
        "",
        "| figure | " + " | ".join(names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    for figure in rows:
        lines.append(f"| {figure} | " + " | ".join(cell(figures, figure, name) for name in names) + " |")
    if notes:
        lines += ["", "## What did not run", "", *(f"- {note}" for note in notes)]
    return "\n".join(lines) + "\n"


def _power_table(figures: Figures) -> list[str]:
    found = [each for each in (power(figures, connections) for connections in (1, 16, 64, 256)) if each is not None]
    if not found:
        return []
    lines = ["", "## Power durability beside the disk", "", "| connections | sends /s | the sync allows /s | share |"]
    lines.append("|---|---|---|---|")
    for each in found:
        share = f"{each.sends / each.allowed:.0%}"
        lines.append(f"| {each.connections} | {number(each.sends)} | {number(each.allowed)} | {share} |")
    return lines


def cell(figures: Figures, figure: str, name: str) -> str:
    values = figures[name].get(figure)
    if not values:
        return "-"
    text = number(statistics.median(values))
    if len(values) > 1:
        text += f" ({number(min(values))} to {number(max(values))})"
    times = [] if name == "preheat" else ratios(figures, figure, name)
    if times:
        text += f" x{statistics.median(times):.2g}"
    if len(times) > 1:
        text += f" ({min(times):.2g} to {max(times):.2g})"
    return text


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"

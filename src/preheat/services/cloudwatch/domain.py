"""What may be put and asked for, and the arithmetic of statistics over periods."""

import math
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from preheat.kernel.errors import AwsError
from preheat.kernel.meter import Dimensions, Sample
from preheat.services.contract import Params

MAX_DATUMS = 1_000
MAX_VALUES = 150
MAX_DIMENSIONS = 30
OLDEST_S = 14 * 86_400.0
NEWEST_S = 2 * 3_600.0
LARGEST = 2.0**360
BASIC = {
    "SampleCount": lambda sample: float(sample.count),
    "Sum": lambda sample: sample.total,
    "Average": lambda sample: sample.total / sample.count,
    "Minimum": lambda sample: sample.minimum,
    "Maximum": lambda sample: sample.maximum,
}
_PERCENTILE = re.compile(r"p(100|\d{1,2}(\.\d{1,10})?)")
_RANK = re.compile(r"PR\((-?\d+(?:\.\d+)?)?:(-?\d+(?:\.\d+)?)?\)")


def invalid(message: str) -> AwsError:
    return AwsError("InvalidParameterValueException", message, query_code="InvalidParameterValue")


def combination(message: str) -> AwsError:
    return AwsError("InvalidParameterCombinationException", message, query_code="InvalidParameterCombination")


def dimensions(given: Iterable[Params]) -> Dimensions:
    """Sorted pairs. Raises AwsError for too many, or a name that comes twice."""
    pairs = sorted((entry["Name"], entry["Value"]) for entry in given)
    if len(pairs) > MAX_DIMENSIONS:
        raise invalid(f"The collection Dimensions must not have a size greater than {MAX_DIMENSIONS}.")
    if len({name for name, _ in pairs}) < len(pairs):
        raise invalid("No two dimensions of a metric can have the same name.")
    for name, value in pairs:
        if name.startswith(":") or not name.strip() or not value.strip():
            raise invalid(f"The dimension {name!r} has a name or value that is empty, or begins with a colon.")
    return tuple(pairs)


def sample_of(datum: Params, where: str) -> Sample:
    """The statistics that one datum carries. `where` names it in errors."""
    kinds = [kind for kind in ("Value", "StatisticValues", "Values") if datum.get(kind) is not None]
    if len(kinds) != 1:
        text = "must have exactly one of Value, Values and StatisticValues"
        raise combination(f"The parameter {where} {text}." if kinds else f"The parameter {where} {text}; it has none.")
    sample = Sample()
    if kinds == ["StatisticValues"]:
        given = datum["StatisticValues"]
        for value in given.values():
            _check_number(value, where)
        if given["SampleCount"] <= 0 or given["Minimum"] > given["Maximum"]:
            raise invalid(f"The parameter {where}.StatisticValues must have samples, and Minimum not above Maximum.")
        sample.count, sample.total = given["SampleCount"], given["Sum"]
        sample.minimum, sample.maximum = given["Minimum"], given["Maximum"]
        return sample
    values = [datum["Value"]] if kinds == ["Value"] else datum["Values"]
    counts = datum.get("Counts") or [1.0] * len(values)
    if not values or len(values) > MAX_VALUES or len(counts) != len(values):
        raise invalid(f"The parameter {where} needs 1 to {MAX_VALUES} Values, and as many Counts if any.")
    for value, times in zip(values, counts):
        _check_number(value, where)
        _check_number(times, where)
        if times <= 0:
            raise invalid(f"The parameter {where}.Counts must be positive.")
        sample.add(value, times)
    return sample


def _check_number(value: float, where: str) -> None:
    if not math.isfinite(value) or abs(value) > LARGEST:
        raise invalid(f"The value {value} for parameter {where} is invalid: NaN, Infinity, beyond 2^360.")


def moment(datum: Params, now: float, where: str) -> float:
    """When a datum was measured, epoch seconds."""
    given = datum.get("Timestamp")
    at = now if given is None else given.timestamp()
    if not now - OLDEST_S <= at <= now + NEWEST_S:
        raise invalid(
            f"The parameter {where}.Timestamp must be within the past two weeks, or at most two hours ahead."
        )
    return at


def check_period(period: int) -> None:
    if period not in (1, 5, 10, 20, 30) and (period <= 0 or period % 60):
        raise invalid("The parameter Period must be 1, 5, 10, 20, 30, or a multiple of 60.")


def span(params: Params) -> tuple[float, float]:
    """(StartTime, EndTime) in epoch seconds."""
    start, end = _epoch(params["StartTime"]), _epoch(params["EndTime"])
    if start >= end:
        raise combination("The parameter StartTime must be less than the parameter EndTime.")
    return start, end


def _epoch(moment: datetime) -> float:
    return moment.timestamp()


def by_period(
    found: Iterable[tuple[str, int, int, Sample]], period: int, unit: str | None
) -> dict[tuple[int, str], Sample]:
    """Merge stored intervals into periods, by (start, unit). With a period below a minute only finer intervals count,
    as a minute's statistics cannot be divided."""
    merged: dict[tuple[int, str], Sample] = {}
    for its_unit, start, width, sample in found:
        if (unit is not None and its_unit != unit) or (period < 60 and width >= 60):
            continue
        slot = (start // period * period, its_unit)
        merged.setdefault(slot, Sample()).merge(sample)
    return merged


def statistic(name: str, sample: Sample) -> float | None:
    """The value of a statistic; None where it cannot be known (a percentile of a StatisticSet). Raises AwsError for
    one that does not exist or is not computed here."""
    if name in BASIC:
        return BASIC[name](sample)
    percentile = _PERCENTILE.fullmatch(name)
    if percentile:
        return _percentile(sample, float(percentile.group(1)))
    rank = _RANK.fullmatch(name)
    if rank:
        low, high = (float(edge) if edge else None for edge in rank.groups())
        inside = sum(
            times for value, times in sample.distribution.items()
            if (low is None or value > low) and (high is None or value <= high)
        )  # fmt: skip
        return 100.0 * inside / sample.count if sample.distribution else None
    raise invalid(
        f"The value {name} for parameter Stat is not supported here: SampleCount, Sum, Average, Minimum, Maximum, "
        "p0 to p100 and PR(low:high) are."
    )


def _percentile(sample: Sample, percent: float) -> float | None:
    """The smallest value that so many percent of the samples do not exceed, within minimum and maximum."""
    if not sample.distribution:
        return sample.minimum if sample.minimum == sample.maximum else None
    if percent == 100.0:
        return sample.maximum
    wanted = percent / 100.0 * sum(sample.distribution.values())
    passed = 0.0
    for value in sorted(sample.distribution):
        passed += sample.distribution[value]
        if passed >= wanted and passed > 0:
            return min(max(value, sample.minimum), sample.maximum)
    return sample.maximum


def wanted_dimensions(filters: Iterable[dict[str, Any]], present: Dimensions) -> bool:
    """Whether a metric has every dimension that ListMetrics asks for."""
    have = dict(present)
    return all(
        entry["Name"] in have and entry.get("Value") in (None, have[entry["Name"]]) for entry in filters
    )  # fmt: skip

"""Metric filters: events of a group that fit a pattern are counted in a CloudWatch metric."""

from collections.abc import Callable, Sequence
from typing import Any

from preheat.kernel.errors import AwsError
from preheat.kernel.meter import MINUTE_S, Meter, Sample, Series
from preheat.kernel.scope import Scope
from preheat.services.contract import Context
from preheat.services.logs import repository
from preheat.services.logs.domain import check_length, group_name, invalid, page_limit, read_place, violation
from preheat.services.logs.patterns import BadPattern, Test, compile_pattern, extracted, selected
from preheat.services.logs.repository import Filter

Params = dict[str, Any]
KIND = "metric"
MOST = 100
MAX_LISTED = 50
MAX_TESTED = 50
MAX_DIMENSIONS = 3
SHOWN = ("metricName", "metricNamespace", "metricValue", "defaultValue", "unit", "dimensions")
LIMIT = "Resource limit exceeded."


def checked_pattern(params: Params) -> str:
    """Raises InvalidParameterException for a pattern that cannot be read."""
    check_length(params, "filterPattern", 1_024, 0)
    pattern = params.get("filterPattern", "")
    try:
        compile_pattern(pattern)
    except BadPattern as error:
        raise invalid(f"Invalid filter pattern: {error}") from error
    return pattern


def check_filter_name(params: Params) -> None:
    check_length(params, "filterName", 512)
    if {":", "*"} & set(params["filterName"]):
        raise violation(params["filterName"], "filterName", "Member must satisfy regular expression pattern: [^:*]*")


def refuse_extras(params: Params, *members: str) -> None:
    for member in members:
        if params.get(member):
            raise invalid(f"Preheat does not support {member}")


def put_metric_filter(ctx: Context, params: Params) -> Params:
    name = group_name(params.get("logGroupName"))
    check_filter_name(params)
    pattern = checked_pattern(params)
    refuse_extras(params, "applyOnTransformedLogs", "fieldSelectionCriteria", "emitSystemFieldDimensions")
    given = params["metricTransformations"]
    if len(given) != 1:
        bound = "less than or equal to 1" if given else "greater than or equal to 1"
        raise violation(_spelled(given), "metricTransformations", f"Member must have length {bound}")
    _check_transformation(given[0], pattern)
    group = repository.require_group(ctx.db, ctx.scope, name)
    if repository.find_filter(ctx.db, group, KIND, params["filterName"]) is None and (
        repository.count_filters(ctx.db, group.id, KIND) >= MOST
    ):
        raise AwsError("LimitExceededException", LIMIT)
    repository.put_filter(ctx.db, group, KIND, params["filterName"], pattern, ctx.now_ms, {"transformation": given[0]})
    return {}


def _spelled(given: list[Params]) -> str:
    """Transformations as AWS's validation prints them."""
    texts = [", ".join(f"{member}={item.get(member, 'null')}" for member in SHOWN) for item in given]
    return f"[{', '.join(f'MetricTransformation({text})' for text in texts)}]"


def _check_transformation(given: Params, pattern: str) -> None:
    limits = (("metricName", 255, ":*$"), ("metricNamespace", 255, "*$"), ("metricValue", 100, ""))
    for member, most, excluded in limits:
        check_length(given, member, most, 0)
        if set(excluded) & set(given[member]):
            raise violation(given[member], member, "Member must satisfy regular expression pattern: [^:*$]*")
    dimensions = given.get("dimensions") or {}
    if len(dimensions) > MAX_DIMENSIONS:
        raise invalid(f"A metric transformation can have no more than {MAX_DIMENSIONS} dimensions.")
    if dimensions and given.get("defaultValue") is not None:
        raise invalid("Invalid metric transformation: dimensions and default value are mutually exclusive.")
    structured = pattern.strip()[:1] in ("{", "[")
    if not structured and (dimensions or given["metricValue"].startswith("$")):
        raise invalid("Invalid metric transformation: a selector needs a JSON or space-delimited filter pattern.")
    if not given["metricValue"].startswith("$") and _number(given["metricValue"]) is None:
        raise invalid("Invalid metric transformation: metric value is neither a number nor a selector.")


def delete_metric_filter(ctx: Context, params: Params) -> Params:
    return dropped(ctx, params, KIND)


def dropped(ctx: Context, params: Params, kind: str) -> Params:
    """Raises ResourceNotFoundException when the group has no such filter."""
    name = group_name(params.get("logGroupName"))
    check_filter_name(params)
    group = repository.require_group(ctx.db, ctx.scope, name)
    if repository.find_filter(ctx.db, group, kind, params["filterName"]) is None:
        raise AwsError("ResourceNotFoundException", f"The specified {kind} filter does not exist.")
    repository.delete_filter(ctx.db, group, kind, params["filterName"])
    return {}


def describe_metric_filters(ctx: Context, params: Params) -> Params:
    check_length(params, "filterNamePrefix", 512)
    check_length(params, "metricName", 255, 0)
    check_length(params, "metricNamespace", 255, 0)
    for one, other in (("metricName", "metricNamespace"), ("metricNamespace", "metricName")):
        if one in params and other not in params:
            raise invalid(
                f"If you include the {one} parameter in your request, you must also include the {other} parameter."
            )
    if "logGroupName" in params:
        repository.require_group(ctx.db, ctx.scope, group_name(params["logGroupName"]))

    def wanted(found: Filter) -> bool:
        made = found.settings["transformation"]
        return params.get("logGroupName", found.group) == found.group and all(
            params.get(member, made[member]) == made[member] for member in ("metricName", "metricNamespace")
        )

    return listed(ctx, params, KIND, wanted, "metricFilters", _described)


def listed(
    ctx: Context,
    params: Params,
    kind: str,
    wanted: Callable[[Filter], bool],
    member: str,
    described: Callable[[Filter], Params],
) -> Params:
    """A page of the filters of one kind."""
    limit = page_limit(params, MAX_LISTED, MAX_LISTED)
    after = read_place(params["nextToken"]) if "nextToken" in params else ("", "")
    prefix = params.get("filterNamePrefix", "")
    found = [one for one in repository.list_filters(ctx.db, ctx.scope, kind, prefix, after) if wanted(one)]
    out: Params = {member: [described(one) for one in found[:limit]]}
    if len(found) > limit:
        out["nextToken"] = f"{found[limit - 1].name}*{found[limit - 1].group}"
    return out


def _described(found: Filter) -> Params:
    return {
        "filterName": found.name,
        "filterPattern": found.pattern,
        "metricTransformations": [found.settings["transformation"]],
        "creationTime": found.created_ms,
        "logGroupName": found.group,
        "applyOnTransformedLogs": False,
    }


def test_metric_filter(ctx: Context, params: Params) -> Params:
    messages = params["logEventMessages"]
    if not 1 <= len(messages) <= MAX_TESTED:
        bound = f"less than or equal to {MAX_TESTED}" if messages else "greater than or equal to 1"
        raise violation("[...]" if messages else "[]", "logEventMessages", f"Member must have length {bound}")
    pattern = checked_pattern(params)
    matches = compile_pattern(pattern)
    return {
        "matches": [
            {"eventNumber": number, "eventMessage": message, "extractedValues": extracted(pattern, message)}
            for number, message in enumerate(messages, 1)
            if matches(message)
        ]
    }


def _number(value: Any) -> float | None:
    try:
        return None if value is None or isinstance(value, bool | list | dict) else float(value)
    except ValueError:
        return None


def count(meter: Meter, scope: Scope, found: Filter, matches: Test, events: Sequence[tuple[int, str]]) -> None:
    """Count a batch of (epoch milliseconds, message) in. A batch in which nothing fits counts as the default value,
    where there is one."""
    given = found.settings["transformation"]
    name, namespace, unit = given["metricName"], given["metricNamespace"], given.get("unit", "None")
    fitting = [(at, message) for at, message in events if matches(message)]
    for at, message in fitting:
        value = given["metricValue"]
        number = _number(selected(found.pattern, value, message) if value.startswith("$") else value)
        dimensions = {
            key: selected(found.pattern, selector, message) for key, selector in (given.get("dimensions") or {}).items()
        }
        if number is not None and None not in dimensions.values():
            present = tuple(sorted((key, str(text)) for key, text in dimensions.items()))
            _record(meter, Series(scope, namespace, name, present, unit), at, number)
    if not fitting and given.get("defaultValue") is not None:
        _record(meter, Series(scope, namespace, name, (), unit), events[-1][0], float(given["defaultValue"]))


def _record(meter: Meter, series: Series, at_ms: int, value: float) -> None:
    sample = Sample()
    sample.add(value)
    meter.merge(series, at_ms // 1_000 // MINUTE_S * MINUTE_S, sample)

"""Metrics that are written into log events: CloudWatch's embedded metric format.

Source: AWS's "Specification: Embedded metric format". An event that does not follow it is an ordinary event.
"""

import json
from collections.abc import Iterator
from typing import Any

from preheat.kernel.meter import MINUTE_S, Meter, Sample, Series
from preheat.kernel.scope import Scope

MARK = '"_aws"'
MOST_METRICS = 100
MOST_VALUES = 100
MOST_DIMENSIONS = 30


def measure(meter: Meter, scope: Scope, message: str) -> None:
    """Count in what `message` says was measured."""
    if MARK not in message:
        return
    try:
        document = json.loads(message)
        found = list(_metrics(document, scope))
        minute = int(document["_aws"]["Timestamp"]) // 1_000 // MINUTE_S * MINUTE_S
    except (ValueError, TypeError, KeyError, AttributeError):
        return
    for series, values in found:
        sample = Sample()
        for value in values:
            sample.add(value)
        meter.merge(series, minute, sample)


def _metrics(document: dict[str, Any], scope: Scope) -> Iterator[tuple[Series, list[float]]]:
    """Each metric once for each of its sets of dimensions."""
    for directive in document["_aws"]["CloudWatchMetrics"]:
        namespace = str(directive["Namespace"])
        sets = directive.get("Dimensions") or [[]]
        for metric in directive["Metrics"][:MOST_METRICS]:
            name = metric["Name"]
            given = document[name]
            values = [float(value) for value in (given if isinstance(given, list) else [given])[:MOST_VALUES]]
            for names in sets:
                present = tuple(sorted((one, str(document[one])) for one in names[:MOST_DIMENSIONS]))
                yield Series(scope, namespace, name, present, metric.get("Unit", "None")), values

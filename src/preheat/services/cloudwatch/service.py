"""CloudWatch metrics: what the platform measures and what users put, kept by the minute (or the second), and read as
statistics. Alarms, dashboards, metric math and streams are not here."""

from datetime import UTC, datetime
from pathlib import Path

from preheat.kernel.errors import AwsError
from preheat.kernel.meter import MINUTE_S, Meter, Series
from preheat.services.cloudwatch import domain, repository
from preheat.services.contract import Context, Operation, Outcome, Params, Platform

FLUSH_S = 10.0
KEPT_S = 15 * 86_400.0
FINE_KEPT_S = 3 * 3_600.0
LISTED_S = 14 * 86_400.0
FORGET_EVERY_S = 3_600.0
LIST_PAGE = 500
MAX_POINTS = 1_440
MAX_QUERIES = 500
MAX_DATA_POINTS = 100_800


def _at(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)


class CloudWatchService:
    name = "cloudwatch"
    schema = (Path(__file__).parent / "schema.sql").read_text()

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self.gathering = Gathering(meter)
        self.loops = (self.gathering,)
        self.operations: dict[str, Operation] = {
            "PutMetricData": self.put_metric_data,
            "GetMetricData": self.get_metric_data,
            "GetMetricStatistics": self.get_metric_statistics,
            "ListMetrics": self.list_metrics,
        }

    def put_metric_data(self, ctx: Context, params: Params) -> Outcome:
        namespace = params["Namespace"]
        if namespace.startswith("AWS/"):
            raise domain.invalid("The value AWS/ for parameter Namespace is invalid: it is reserved for AWS services.")
        given = params.get("MetricData") or []
        if params.get("EntityMetricData"):
            raise domain.invalid("Entities are not supported here: put the data as MetricData.")
        if not given:
            raise AwsError(
                "MissingRequiredParameterException",
                "The parameter MetricData is required.",
                query_code="MissingParameter",
            )
        if len(given) > domain.MAX_DATUMS:
            raise domain.invalid(f"The collection MetricData must not have a size greater than {domain.MAX_DATUMS}.")
        for number, datum in enumerate(given, 1):
            where = f"MetricData.member.{number}"
            width = datum.get("StorageResolution", MINUTE_S)
            if width not in (1, MINUTE_S):
                raise domain.invalid(f"The parameter {where}.StorageResolution must be 1 or 60.")
            pairs = domain.dimensions(datum.get("Dimensions") or ())
            series = Series(ctx.scope, namespace, datum["MetricName"], pairs, datum.get("Unit", "None"))
            at = int(domain.moment(datum, ctx.now, where)) // width * width
            repository.add(ctx.db, series, at, width, domain.sample_of(datum, where), ctx.now)
        return {}

    def get_metric_statistics(self, ctx: Context, params: Params) -> Outcome:
        gather(ctx, self._meter)
        period = params["Period"]
        domain.check_period(period)
        start, end = domain.span(params)
        basic, extended = params.get("Statistics") or [], params.get("ExtendedStatistics") or []
        if not basic and not extended:
            raise domain.combination("Must specify either Statistics or ExtendedStatistics")
        if (end - start) / period > MAX_POINTS:
            raise domain.combination(
                f"You have requested up to {int((end - start) / period):,} datapoints, which exceeds the limit of "
                f"{MAX_POINTS:,}. You may reduce the datapoints requested by increasing Period, or decreasing the time "
                "range."
            )
        pairs = domain.dimensions(params.get("Dimensions") or ())
        found = repository.samples(
            ctx.db, ctx.scope, params["Namespace"], params["MetricName"], pairs, start // period * period, end
        )
        points = []
        for (at, unit), sample in domain.by_period(found, period, params.get("Unit")).items():
            point = {"Timestamp": _at(at), "Unit": unit, **{name: domain.statistic(name, sample) for name in basic}}
            values = {name: domain.statistic(name, sample) for name in extended}
            if extended:
                point["ExtendedStatistics"] = {name: value for name, value in values.items() if value is not None}
            points.append(point)
        return {"Label": params["MetricName"], "Datapoints": points}

    def get_metric_data(self, ctx: Context, params: Params) -> Outcome:
        gather(ctx, self._meter)
        start, end = domain.span(params)
        queries = params["MetricDataQueries"]
        if len(queries) > MAX_QUERIES:
            raise AwsError("ValidationError", f"The collection MetricDataQueries has more than {MAX_QUERIES} members.")
        if len({query["Id"] for query in queries}) < len(queries):
            raise AwsError("ValidationError", "The values for parameter id in MetricDataQueries are not unique.")
        if params.get("NextToken"):
            raise AwsError("InvalidNextToken", "The next token specified is invalid.")
        descending = params.get("ScanBy", "TimestampDescending") == "TimestampDescending"
        left = min(params.get("MaxDatapoints", MAX_DATA_POINTS), MAX_DATA_POINTS)
        results = []
        for query in queries:
            result = self._series(ctx, query, start, end, descending)
            if query.get("ReturnData", True):
                result["StatusCode"] = "Complete" if len(result["Values"]) <= left else "PartialData"
                result["Timestamps"], result["Values"] = result["Timestamps"][:left], result["Values"][:left]
                left -= len(result["Values"])
                results.append(result)
        return {"MetricDataResults": results, "Messages": []}

    def _series(self, ctx: Context, query: Params, start: float, end: float, descending: bool) -> Params:
        wanted = query.get("MetricStat")
        if wanted is None or query.get("Expression"):
            raise AwsError(
                "ValidationError",
                f"Error in expression '{query['Id']}': metric math is not evaluated here, ask for a MetricStat.",
            )
        metric, period = wanted["Metric"], wanted["Period"]
        domain.check_period(period)
        pairs = domain.dimensions(metric.get("Dimensions") or ())
        name = metric.get("MetricName", "")
        found = repository.samples(
            ctx.db, ctx.scope, metric.get("Namespace", ""), name, pairs, start // period * period, end
        )
        merged = domain.by_period(found, period, wanted.get("Unit"))
        points = [(at, domain.statistic(wanted["Stat"], sample)) for (at, _), sample in merged.items()]
        points = sorted(((at, value) for at, value in points if value is not None), reverse=descending)
        return {
            "Id": query["Id"], "Label": query.get("Label", name),
            "Timestamps": [_at(at) for at, _ in points], "Values": [value for _, value in points],
        }  # fmt: skip

    def list_metrics(self, ctx: Context, params: Params) -> Outcome:
        gather(ctx, self._meter)
        since = ctx.now - (3 * 3_600.0 if params.get("RecentlyActive") else LISTED_S)
        found = repository.metrics(ctx.db, ctx.scope, since, params.get("Namespace"), params.get("MetricName"))
        filters = params.get("Dimensions") or []
        listed = list(
            dict.fromkeys(
                (entry.namespace, entry.name, entry.dimensions)
                for entry in found
                if domain.wanted_dimensions(filters, entry.dimensions)
            )
        )
        token = params.get("NextToken", "0")
        if not token.isascii() or not token.isdigit():
            raise domain.invalid("The parameter NextToken is invalid.")
        first = int(token)
        output: Params = {
            "Metrics": [
                {
                    "Namespace": namespace, "MetricName": name,
                    "Dimensions": [{"Name": key, "Value": value} for key, value in pairs],
                }
                for namespace, name, pairs in listed[first : first + LIST_PAGE]
            ]
        }  # fmt: skip
        if len(listed) > first + LIST_PAGE:
            output["NextToken"] = str(first + LIST_PAGE)
        return output


class Gathering:
    """Takes what the meter has counted into the store, ten seconds after the first of it, and drops what is too old.
    A process that dies loses at most that much; readers take it in first, so that they see what has happened until
    now. While nothing is measured it sleeps."""

    name = "cloudwatch"
    topics = ()

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._forget_at = 0.0
        self._due: float | None = None

    def step(self, ctx: Context) -> float | None:
        if ctx.now >= self._forget_at:
            self._forget_at = ctx.now + FORGET_EVERY_S
            repository.forget(ctx.db, ctx.now - KEPT_S, ctx.now - FINE_KEPT_S)
        if self._due is not None and ctx.now >= self._due:
            gather(ctx, self._meter)
        if self._meter.empty:
            self._due = None
            return self._forget_at
        if self._due is None or ctx.now >= self._due:
            self._due = ctx.now + FLUSH_S
        return min(self._due, self._forget_at)


def gather(ctx: Context, meter: Meter) -> None:
    for (series, minute), sample in meter.take().items():
        repository.add(ctx.db, series, minute, MINUTE_S, sample, ctx.now)


def build(platform: Platform) -> CloudWatchService:
    machine = platform.machine
    service = CloudWatchService(machine.meter)
    machine.meter.on_first = lambda: machine.wake(service.gathering)
    return service

"""Buses, who may write to them, tags, and PutEvents."""

import json
import re
from typing import Any

from preheat.identity.policy import MalformedPolicy, parse
from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn, Scope
from preheat.services.constraints import Violations, check_text
from preheat.services.contract import Context, Operation, Outcome, Params
from preheat.services.events import domain, managed, repository
from preheat.services.events.domain import DEFAULT_BUS, NAMESPACE, Bus, BusName, Rejected, bad_parameter, bus_named
from preheat.services.events.routing import Router
from preheat.services.events.rules import bus_of

BUS_ARN_OR_NAME = r"(arn:aws[\w-]*:events:[a-z]+-[a-z]+-[\w-]+:[0-9]{12}:event-bus\/)?[\.\-_A-Za-z0-9]+"
PERMISSION_BUS = r"[\.\-_A-Za-z0-9]+"
_RULE_ARN = re.compile(r"rule/(?:(.+)/)?([^/]+)")


class Buses:
    """The operations on buses, and events on their way in."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self.operations: dict[str, Operation] = {
            "CreateEventBus": self.create_event_bus,
            "UpdateEventBus": self.update_event_bus,
            "DescribeEventBus": self.describe_event_bus,
            "ListEventBuses": self.list_event_buses,
            "DeleteEventBus": self.delete_event_bus,
            "PutPermission": self.put_permission,
            "RemovePermission": self.remove_permission,
            "TagResource": self.tag_resource,
            "UntagResource": self.untag_resource,
            "ListTagsForResource": self.list_tags_for_resource,
            "PutEvents": self.put_events,
        }

    # -- buses ------------------------------------------------------------------------------------------------------

    def create_event_bus(self, ctx: Context, params: Params) -> Outcome:
        check_text(params, "Name", 256, domain.BUS_NAME, 1)
        name = params["Name"]
        if params.get("EventSourceName"):
            raise domain.not_found(f"Event source {params['EventSourceName']} does not exist.")
        if "/" in name:
            raise domain.invalid("Event bus name must not contain '/'.")
        dead_letter = _checked(params)
        if repository.bus(ctx.db, ctx.scope, name) is not None:
            raise domain.exists(f"Event bus {name} already exists.")
        if len(repository.buses(ctx.db, ctx.scope)) >= domain.MAX_BUSES:
            raise domain.too_many()
        tags = domain.check_tags({}, params.get("Tags", []))
        bus = Bus(*ctx.scope, name, params.get("Description"), dead_letter, None, tags, ctx.now, ctx.now)
        repository.put_bus(ctx.db, bus)
        self._router.changed(ctx, BusName(ctx.scope, name))
        return {"EventBusArn": bus.arn, **_settings(bus)}

    def update_event_bus(self, ctx: Context, params: Params) -> Outcome:
        bus = self._named(ctx, {"EventBusName": params.get("Name")})
        dead_letter = _checked(params)
        if "Description" in params:
            bus = bus._replace(description=params["Description"])
        if "DeadLetterConfig" in params:
            bus = bus._replace(dead_letter=dead_letter)
        repository.put_bus(ctx.db, bus._replace(modified=ctx.now))
        return {"Arn": bus.arn, "Name": bus.name, **_settings(bus)}

    def _named(self, ctx: Context, params: Params) -> Bus:
        name = bus_of(ctx, params)
        found = repository.bus(ctx.db, *name)
        if found is None:
            raise domain.no_bus(name.name)
        return _dated(ctx, found)

    def describe_event_bus(self, ctx: Context, params: Params) -> Outcome:
        check_text(params, "Name", 1_600, domain.BUS_REFERENCE, 1)
        name = bus_named(ctx.scope, params.get("Name"))
        bus = repository.bus(ctx.db, *name)
        if bus is None:
            raise domain.no_bus(name.name)
        bus = _dated(ctx, bus)
        return {**_shown(bus), **_settings(bus)}

    def list_event_buses(self, ctx: Context, params: Params) -> Outcome:
        check_text(params, "NamePrefix", 256, domain.BUS_NAME, 1)
        prefix = params.get("NamePrefix", "")
        found = [_dated(ctx, bus) for bus in repository.buses(ctx.db, ctx.scope) if bus.name.startswith(prefix)]
        return domain.paged(found, params, "EventBuses", lambda bus: bus.name, _shown)

    def delete_event_bus(self, ctx: Context, params: Params) -> Outcome:
        """A bus that is not there is no mistake."""
        check_text(params, "Name", 256, domain.BUS_NAME, 1)
        name = params["Name"]
        if name == DEFAULT_BUS:
            raise domain.invalid(f"Cannot delete event bus {DEFAULT_BUS}.")
        if repository.rules(ctx.db, ctx.scope, name):
            raise domain.invalid("Event bus can't be deleted since it has rules.")
        repository.delete_bus(ctx.db, ctx.scope, name)
        self._router.changed(ctx, BusName(ctx.scope, name))
        return {}

    # -- permissions --------------------------------------------------------------------------------------------------

    def put_permission(self, ctx: Context, params: Params) -> Outcome:
        wrong = Violations()
        wrong.text(params, "EventBusName", 256, PERMISSION_BUS, 1)
        wrong.text(params, "Action", 64, r"events:[a-zA-Z]+", 1)
        wrong.text(params, "Principal", 12, r"(\d{12}|\*)", 1)
        wrong.text(params, "StatementId", 64, r"[a-zA-Z0-9-_]+", 1)
        wrong.refuse()
        bus = self._named(ctx, params)
        if params.get("Policy"):
            if any(params.get(member) for member in ("Action", "Principal", "StatementId", "Condition")):
                raise domain.invalid("Policy cannot be used together with Action, Principal, StatementId or Condition.")
            document = params["Policy"]
        else:
            document = _with_statement(bus, params)
        try:
            parse(document)
        except MalformedPolicy as error:
            raise domain.invalid(f"Policy is not valid. Reason: {error}") from None
        if len(document.encode()) > domain.MAX_POLICY:
            raise AwsError("PolicyLengthExceededException", "The event bus policy is too long.")
        repository.put_bus(ctx.db, bus._replace(policy=document, modified=ctx.now))
        return {}

    def remove_permission(self, ctx: Context, params: Params) -> Outcome:
        check_text(params, "EventBusName", 256, PERMISSION_BUS, 1)
        bus = self._named(ctx, params)
        if params.get("RemoveAllPermissions"):
            repository.put_bus(ctx.db, bus._replace(policy=None, modified=ctx.now))
            return {}
        if not params.get("StatementId"):
            raise domain.invalid("Parameter StatementId is required.")
        policy = json.loads(bus.policy) if bus.policy is not None else {"Statement": []}
        kept = [one for one in policy["Statement"] if one.get("Sid") != params["StatementId"]]
        if len(kept) == len(policy["Statement"]):
            raise domain.not_found("Statement with the provided id does not exist.")
        text = domain.compact({**policy, "Statement": kept}) if kept else None
        repository.put_bus(ctx.db, bus._replace(policy=text, modified=ctx.now))
        return {}

    # -- tags ---------------------------------------------------------------------------------------------------------

    def _tagged(self, ctx: Context, params: Params) -> tuple[dict[str, str], Any]:
        """(the tags of a rule or bus, a function that stores others). A managed rule has none and takes none."""
        try:
            arn = Arn.parse(params["ResourceARN"])
        except ValueError:
            raise bad_parameter("ResourceARN", "Provided Arn is not in correct format.") from None
        if arn.resource.startswith("event-bus/"):
            bus = self._named(ctx, {"EventBusName": params["ResourceARN"]})
            return bus.tags, lambda tags: repository.put_bus(ctx.db, bus._replace(tags=tags))
        parts = _RULE_ARN.fullmatch(arn.resource)
        if parts is None:
            raise bad_parameter("ResourceARN", "Only rules and event buses can be tagged.")
        bus_name = parts[1] or DEFAULT_BUS
        scope = Scope(arn.account, arn.region)
        rule = repository.rule(ctx.db, scope, bus_name, parts[2])
        if rule is None:
            other = managed.rule(ctx.db, BusName(scope, bus_name), parts[2])
            if other is None:
                raise domain.no_rule(parts[2], bus_name)
            return {}, lambda tags: managed.check_own(other)
        return rule.tags, lambda tags: repository.change_rule(ctx.db, rule._replace(tags=tags))

    def tag_resource(self, ctx: Context, params: Params) -> Outcome:
        tags, store = self._tagged(ctx, params)
        store(domain.check_tags(tags, params["Tags"]))
        return {}

    def untag_resource(self, ctx: Context, params: Params) -> Outcome:
        tags, store = self._tagged(ctx, params)
        store({key: value for key, value in tags.items() if key not in params["TagKeys"]})
        return {}

    def list_tags_for_resource(self, ctx: Context, params: Params) -> Outcome:
        tags, _ = self._tagged(ctx, params)
        return {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}

    # -- events -------------------------------------------------------------------------------------------------------

    def put_events(self, ctx: Context, params: Params) -> Outcome:
        if params.get("EndpointId"):
            raise domain.invalid("Preheat does not implement global endpoints.")
        entries = params["Entries"]
        if len(entries) > domain.MAX_ENTRIES:
            raise domain.too_many_entries(entries)
        domain.check_count("entries", entries, domain.MAX_ENTRIES)
        size = sum(map(domain.entry_size, entries))
        record = ctx.machine.meter.record
        record(ctx.scope, NAMESPACE, "PutEventsApproximateCallCount")
        if size > domain.MAX_REQUEST_BYTES:
            record(ctx.scope, NAMESPACE, "PutEventsApproximateFailedCount")
            raise domain.invalid("Total size of the entries in the request is over the limit.")
        scope = Scope(ctx.principal.account or ctx.scope.account, ctx.scope.region)
        named: dict[str | None, BusName | None] = {}
        answers = [self._put(ctx, entry, scope, named) for entry in entries]
        failed = sum("ErrorCode" in answer for answer in answers)
        for name, value, unit in (
            ("PutEventsApproximateSuccessCount", 1, "Count"),
            ("PutEventsEntriesCount", len(entries), "Count"),
            ("PutEventsFailedEntriesCount", failed, "Count"),
            ("PutEventsRequestSize", size, "Bytes"),
        ):
            record(ctx.scope, NAMESPACE, name, float(value), unit)
        return {"FailedEntryCount": failed, "Entries": answers}

    def _put(self, ctx: Context, entry: Params, scope: Scope, named: dict[str | None, BusName | None]) -> Params:
        """`named`: the buses of this call by what its entries call them, None for those that are not there."""
        check_text(entry, "TraceHeader", 500, least=1)
        name = entry.get("EventBusName")
        if name not in named:
            check_text(entry, "EventBusName", 1_600, BUS_ARN_OR_NAME, 1)
            bus = bus_named(ctx.scope, name)
            there = self._router.knows(bus) or repository.bus(ctx.db, *bus) is not None
            named[name] = bus if there else None
        event_id = ctx.entropy.uuid()
        try:
            event = domain.event_of(entry, scope, event_id, ctx.now)
        except Rejected as error:
            return {"ErrorCode": error.args[0], "ErrorMessage": error.args[1]}
        found = named[name]
        if found is not None:
            self._router.route(ctx, found, event, trace=entry.get("TraceHeader"))
        return {"EventId": event_id}

    def receive(self, ctx: Context, bus_text: str | None, event: dict[str, Any], trace: str | None = None) -> None:
        """An event of another bus's rule, as it is; one that crosses into another region gets an id of its own there.
        Raises ResourceNotFoundException."""
        bus = bus_named(ctx.scope, bus_text)
        if repository.bus(ctx.db, *bus) is None:
            raise domain.no_bus(bus.name)
        if event["region"] != bus.scope.region:
            event = {**event, "id": ctx.entropy.uuid()}
        self._router.route(ctx, bus, event, trace=trace, forwarded=True)

    def publish(
        self, ctx: Context, scope: Scope, source: str, detail_type: str, detail: dict[str, Any], resources: list[str]
    ) -> None:
        """An event of an AWS service (`source` "aws.s3") on the default bus of an account and region."""
        event = domain.new_event(scope, ctx.entropy.uuid(), source, detail_type, detail, resources, ctx.now)
        self._router.route(ctx, BusName(scope, DEFAULT_BUS), event)


def _checked(params: Params) -> str | None:
    """The dead letter queue of a bus, of settings that can be honoured."""
    check_text(params, "Description", 512)
    if params.get("KmsKeyIdentifier"):
        raise domain.invalid("Preheat does not implement KmsKeyIdentifier: there is no KMS.")
    if params.get("LogConfig", {}).get("Level", "OFF") != "OFF":
        raise domain.invalid("Preheat does not implement LogConfig: an event bus writes no logs.")
    return params.get("DeadLetterConfig", {}).get("Arn")


def _dated(ctx: Context, bus: Bus) -> Bus:
    """The default bus begins when somebody first looks at it."""
    if bus.created:
        return bus
    dated = bus._replace(created=ctx.now, modified=ctx.now)
    repository.put_bus(ctx.db, dated)
    return dated


def _settings(bus: Bus) -> Params:
    output: Params = {}
    if bus.description is not None:
        output["Description"] = bus.description
    if bus.dead_letter is not None:
        output["DeadLetterConfig"] = {"Arn": bus.dead_letter}
    return output


def _shown(bus: Bus) -> Params:
    output: Params = {
        "Name": bus.name,
        "Arn": bus.arn,
        "CreationTime": domain.moment(bus.created),
        "LastModifiedTime": domain.moment(bus.modified),
    }
    if bus.policy is not None:
        output["Policy"] = bus.policy
    if bus.description is not None:
        output["Description"] = bus.description
    return output


def _with_statement(bus: Bus, params: Params) -> str:
    """The bus's policy with one more statement, made of PutPermission's parts."""
    for member in ("Action", "Principal", "StatementId"):
        if not params.get(member):
            raise domain.invalid(f"Parameter {member} must be specified.")
    if params["Action"] != "events:PutEvents":
        raise domain.invalid("Provided value in parameter 'action' is not supported.")
    principal = params["Principal"]
    statement: Params = {
        "Sid": params["StatementId"],
        "Effect": "Allow",
        "Principal": "*" if principal == "*" else {"AWS": f"arn:aws:iam::{principal}:root"},
        "Action": params["Action"],
        "Resource": bus.arn,
    }
    condition = params.get("Condition")
    if condition:
        statement["Condition"] = {condition["Type"]: {condition["Key"]: condition["Value"]}}
    policy = {"Version": "2012-10-17", "Statement": []} if bus.policy is None else json.loads(bus.policy)
    kept = [one for one in policy["Statement"] if one.get("Sid") != statement["Sid"]]
    return domain.compact({**policy, "Statement": [*kept, statement]})

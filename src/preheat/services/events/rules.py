"""Rules and their targets."""

import json
import re
from collections.abc import Callable
from typing import Any

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn
from preheat.services.constraints import Violations, check_text
from preheat.services.contract import Context, Operation, Outcome, Params
from preheat.services.events import domain, managed, repository, transform
from preheat.services.events.domain import (
    BUS_REFERENCE,
    DEFAULT_BUS,
    BusName,
    Rule,
    bad_parameter,
    bus_named,
    invalid,
)
from preheat.services.events.routing import Router
from preheat.services.patterns import PatternError
from preheat.services.schedules import Rate, ScheduleError, next_time, parse
from preheat.services.schedules.retries import DEFAULT_AGE_S, DEFAULT_RETRIES

SCHEDULES = "events:schedules"
MAX_SCHEDULE = 256
TARGET_KINDS = ("lambda", "sqs", "sns", "events", "states", "kinesis", "logs", "firehose")
SERVICE_OF = {"states": "stepfunctions", "kinesis": "kinesis", "firehose": "firehose"}
"""Kinds of targets that need a role, and the services that they need and that a platform may be without."""
NOT_HERE = (
    "RunCommandParameters", "EcsParameters", "BatchParameters", "RedshiftDataParameters", "SageMakerPipelineParameters",
    "AppSyncParameters",
)  # fmt: skip
_ARN = re.compile(r"arn:[\w-]+:[\w-]+:[\w-]*:\d*:.+", re.DOTALL)


def bus_of(ctx: Context, params: Params) -> BusName:
    """The bus that a request names. Raises ResourceNotFoundException."""
    check_text(params, "EventBusName", 1_600, BUS_REFERENCE, 1)
    bus = bus_named(ctx.scope, params.get("EventBusName"))
    if repository.bus(ctx.db, *bus) is None:
        raise domain.no_bus(bus.name)
    return bus


def rule_of(ctx: Context, params: Params, member: str = "Name") -> Rule:
    """Raises ResourceNotFoundException."""
    domain.check_name(params, member)
    bus = bus_of(ctx, params)
    found = repository.rule(ctx.db, *bus, params[member]) or managed.rule(ctx.db, bus, params[member])
    if found is None:
        raise domain.no_rule(params[member], bus.name)
    return found


def own_rule_of(ctx: Context, params: Params, member: str = "Name") -> Rule:
    """Raises ResourceNotFoundException, ManagedRuleException."""
    found = rule_of(ctx, params, member)
    managed.check_own(found)
    return found


def next_due(schedule: str | None, anchor: float, now: float) -> float | None:
    """When a stored schedule is due after `now`; a rate counts from `anchor`."""
    if schedule is None:
        return None
    expression = parse(schedule)
    return next_time(expression, now, start=anchor if isinstance(expression, Rate) else None)


class Rules:
    """The operations on rules and targets. `most` is the quota of rules on one bus."""

    def __init__(self, router: Router, most: int) -> None:
        self._most = most
        self._router = router
        self.operations: dict[str, Operation] = {
            "PutRule": self.put_rule,
            "DescribeRule": self.describe_rule,
            "ListRules": self.list_rules,
            "DeleteRule": self.delete_rule,
            "EnableRule": self._switch("ENABLED"),
            "DisableRule": self._switch("DISABLED"),
            "PutTargets": self.put_targets,
            "RemoveTargets": self.remove_targets,
            "ListTargetsByRule": self.list_targets_by_rule,
            "ListRuleNamesByTarget": self.list_rule_names_by_target,
            "TestEventPattern": self.test_event_pattern,
        }

    def compiled(self, text: str) -> Any:
        """Raises InvalidEventPatternException."""
        check_text({"EventPattern": text}, "EventPattern", domain.MAX_PATTERN)
        try:
            return self._router.pattern(text)
        except PatternError as error:
            raise AwsError("InvalidEventPatternException", f"Event pattern is not valid. Reason: {error}") from None

    # -- rules ------------------------------------------------------------------------------------------------------

    def put_rule(self, ctx: Context, params: Params) -> Outcome:
        _check_rule(params)
        bus = bus_of(ctx, params)
        pattern, schedule = params.get("EventPattern") or None, params.get("ScheduleExpression") or None
        if pattern is None and schedule is None:
            raise invalid("Parameter(s) EventPattern or ScheduleExpression must be specified.")
        if schedule is not None:
            if bus.name != DEFAULT_BUS:
                raise invalid("ScheduleExpression is supported only on the default event bus.")
            try:
                parse(schedule)
            except ScheduleError:
                raise invalid("Parameter ScheduleExpression is not valid.") from None
        if pattern is not None:
            self.compiled(pattern)
        present = repository.rule(ctx.db, *bus, params["Name"])
        if present is None:
            managed.check_own(managed.rule(ctx.db, bus, params["Name"]))
        if present is None and repository.count_rules(ctx.db, *bus) >= self._most:
            raise domain.too_many()
        tags = domain.check_tags({} if present is None else present.tags, params.get("Tags", []))
        anchor = ctx.now if present is None or present.schedule != schedule or not present.enabled else present.anchor
        rule = Rule(
            0 if present is None else present.row, *bus.scope, bus.name, params["Name"], pattern, schedule,
            params.get("State", "ENABLED"), params.get("Description"), params.get("RoleArn"), tags, anchor, None,
        )  # fmt: skip
        rule = self._timed(ctx, rule)
        if present is None:
            repository.add_rule(ctx.db, rule)
        else:
            repository.change_rule(ctx.db, rule)
        self._changed(ctx, rule)
        return {"RuleArn": rule.arn}

    def _timed(self, ctx: Context, rule: Rule) -> Rule:
        due = next_due(rule.schedule, rule.anchor, ctx.now) if rule.enabled else None
        return rule._replace(next_at=due)

    def _changed(self, ctx: Context, rule: Rule) -> None:
        self._router.changed(ctx, BusName(rule.scope, rule.bus))
        if rule.schedule is not None:
            ctx.db.notify(SCHEDULES)

    def describe_rule(self, ctx: Context, params: Params) -> Outcome:
        rule = rule_of(ctx, params)
        return {**_shown(rule), "CreatedBy": rule.account}

    def list_rules(self, ctx: Context, params: Params) -> Outcome:
        domain.check_name(params, "NamePrefix")
        bus, prefix = bus_of(ctx, params), params.get("NamePrefix", "")
        found = [*repository.rules(ctx.db, *bus), *managed.rules(ctx.db, bus)]
        rules = sorted((rule for rule in found if rule.name.startswith(prefix)), key=lambda rule: rule.name)
        return domain.paged(rules, params, "Rules", lambda rule: rule.name, _shown)

    def delete_rule(self, ctx: Context, params: Params) -> Outcome:
        """A rule that is not there is no mistake."""
        domain.check_name(params)
        bus = bus_of(ctx, params)
        rule = repository.rule(ctx.db, *bus, params["Name"]) or managed.rule(ctx.db, bus, params["Name"])
        if rule is None:
            return {}
        managed.check_force(rule, params.get("Force", False))
        if _targets(ctx, rule):
            raise invalid("Rule can't be deleted since it has targets.")
        if rule.managed_by is None:
            repository.delete_rule(ctx.db, rule.row)
        else:
            managed.take(ctx.db, rule, whole=True)
        self._changed(ctx, rule)
        return {}

    def _switch(self, state: str) -> Callable[[Context, Params], Outcome]:
        def switch(ctx: Context, params: Params) -> Outcome:
            rule = own_rule_of(ctx, params)
            anchor = ctx.now if state == "ENABLED" and not rule.enabled else rule.anchor
            changed = self._timed(ctx, rule._replace(state=state, anchor=anchor))
            repository.change_rule(ctx.db, changed)
            self._changed(ctx, changed)
            return {}

        return switch

    def test_event_pattern(self, ctx: Context, params: Params) -> Outcome:
        pattern = self.compiled(params["EventPattern"])
        try:
            event = json.loads(params["Event"])
        except ValueError:
            event = None
        needed = ("id", "account", "source", "time", "region", "detail-type")
        if not isinstance(event, dict) or any(name not in event for name in needed):
            raise invalid("Parameter Event is not valid.")
        return {"Result": pattern.matches(event)}

    # -- targets ----------------------------------------------------------------------------------------------------

    def put_targets(self, ctx: Context, params: Params) -> Outcome:
        domain.check_count("targets", params["Targets"], 100)
        _check_members(params)
        for target in params["Targets"]:
            if _ARN.fullmatch(target["Arn"]) is None:
                raise bad_parameter(target["Arn"], "Provided Arn is not in correct format.")
        for target in params["Targets"]:
            _check_target(target)
        rule = own_rule_of(ctx, params, "Rule")
        present = {target["Id"] for target in repository.targets(ctx.db, rule.row)}
        for target in params["Targets"]:
            _check_here(ctx, target, rule)
            present.add(target["Id"])
        if len(present) > domain.MAX_TARGETS:
            raise domain.too_many()
        for target in params["Targets"]:
            repository.put_target(ctx.db, rule.row, target)
        self._changed(ctx, rule)
        return {"FailedEntryCount": 0, "FailedEntries": []}

    def remove_targets(self, ctx: Context, params: Params) -> Outcome:
        domain.check_count("ids", params["Ids"], 100)
        rule = rule_of(ctx, params, "Rule")
        managed.check_force(rule, params.get("Force", False))
        failed = [
            {
                "TargetId": identifier,
                "ErrorCode": "ResourceNotFoundException",
                "ErrorMessage": f"Rule {rule.name} does not have a target with the Id {identifier}.",
            }
            for identifier in params["Ids"]
            if not _remove(ctx, rule, identifier)
        ]
        self._changed(ctx, rule)
        return {"FailedEntryCount": len(failed), "FailedEntries": failed}

    def list_targets_by_rule(self, ctx: Context, params: Params) -> Outcome:
        rule = rule_of(ctx, params, "Rule")
        found = _targets(ctx, rule)
        return domain.paged(found, params, "Targets", lambda target: target["Id"], lambda target: target)

    def list_rule_names_by_target(self, ctx: Context, params: Params) -> Outcome:
        check_text(params, "TargetArn", 1_600, least=1)
        bus = bus_of(ctx, params)
        names = repository.rules_with_target(ctx.db, *bus, params["TargetArn"])
        return domain.paged(names, params, "RuleNames", lambda name: name, lambda name: name)


def _targets(ctx: Context, rule: Rule) -> list[Params]:
    return repository.targets(ctx.db, rule.row) if rule.managed_by is None else managed.targets(ctx.db, rule)


def _remove(ctx: Context, rule: Rule, identifier: str) -> bool:
    """Whether there was such a target."""
    if rule.managed_by is None:
        return repository.delete_target(ctx.db, rule.row, identifier) > 0
    there = any(target["Id"] == identifier for target in managed.targets(ctx.db, rule))
    if there:
        managed.take(ctx.db, rule, whole=False)
    return there


def _shown(rule: Rule) -> Params:
    output: Params = {"Name": rule.name, "Arn": rule.arn, "State": rule.state, "EventBusName": rule.bus}
    for member, value in (
        ("EventPattern", rule.pattern),
        ("ScheduleExpression", rule.schedule),
        ("Description", rule.description),
        ("RoleArn", rule.role),
        ("ManagedBy", rule.managed_by),
    ):
        if value is not None:
            output[member] = value
    return output


# -- what a target may be --------------------------------------------------------------------------------------------


def _check_rule(params: Params) -> None:
    wrong = Violations()
    wrong.text(params, "Name", 64, domain.NAME, 1)
    wrong.text(params, "ScheduleExpression", MAX_SCHEDULE)
    wrong.text(params, "EventPattern", domain.MAX_PATTERN)
    wrong.choice(params, "State", domain.STATES)
    wrong.text(params, "Description", 512)
    wrong.text(params, "RoleArn", 1_600, least=1)
    wrong.text(params, "EventBusName", 1_600, BUS_REFERENCE, 1)
    wrong.refuse()


def _check_members(params: Params) -> None:
    """What the model asks of each member of PutTargets. Raises ValidationException."""
    wrong = Violations()
    wrong.text(params, "Rule", 64, domain.NAME, 1)
    wrong.text(params, "EventBusName", 1_600, BUS_REFERENCE, 1)
    for number, target in enumerate(params["Targets"], 1):
        where = f"targets.{number}.member"
        wrong.text(target, "Id", 64, domain.NAME, 1, f"{where}.id")
        wrong.text(target, "Arn", 1_600, least=1, path=f"{where}.arn")
        wrong.text(target, "RoleArn", 1_600, least=1, path=f"{where}.roleArn")
        wrong.text(target, "Input", 8_192, path=f"{where}.input")
        wrong.text(target, "InputPath", 256, path=f"{where}.inputPath")
        template = f"{where}.inputTransformer.inputTemplate"
        wrong.text(target.get("InputTransformer", {}), "InputTemplate", 8_192, least=1, path=template)
        group = f"{where}.sqsParameters.messageGroupId"
        wrong.text(target.get("SqsParameters", {}), "MessageGroupId", 100, path=group)
        policy, path = target.get("RetryPolicy", {}), f"{where}.retryPolicy"
        wrong.number(policy, "MaximumRetryAttempts", 0, DEFAULT_RETRIES, f"{path}.maximumRetryAttempts")
        wrong.number(policy, "MaximumEventAgeInSeconds", 60, DEFAULT_AGE_S, f"{path}.maximumEventAgeInSeconds")
    wrong.refuse()


def _check_target(target: Params) -> None:
    """What holds for a target of any rule. Raises ValidationException."""
    name, arn = target["Id"], target["Arn"]
    kind = Arn.parse(arn).service
    transform.check(target)
    if kind == "sqs" and arn.endswith(".fifo") and not target.get("SqsParameters", {}).get("MessageGroupId"):
        raise invalid(f"Parameter(s) SqsParameters must be specified for target: {name}.")
    _check_extras(target, kind)
    _check_dead_letters(target)


def _check_here(ctx: Context, target: Params, rule: Rule) -> None:
    """Raises ValidationException for a target that nothing can reach, here or without a role."""
    arn = target["Arn"]
    kind = Arn.parse(arn).service
    if kind not in TARGET_KINDS:
        raise bad_parameter(arn, f"Preheat does not deliver EventBridge events to {kind} targets.")
    for member in NOT_HERE:
        if target.get(member):
            raise invalid(f"Preheat does not implement {member} of target {target['Id']}.")
    if kind in SERVICE_OF and not (target.get("RoleArn") or rule.role):
        raise invalid(f"RoleArn is required for target {arn}.")
    service = SERVICE_OF.get(kind)
    if service is not None and service not in ctx.machine.services:
        raise bad_parameter(arn, f"Preheat does not implement {service}.")


def _check_extras(target: Params, kind: str) -> None:
    """Parameters that belong to one kind of target."""
    for member, owner in (("SqsParameters", "sqs"), ("KinesisParameters", "kinesis"), ("HttpParameters", "events")):
        if target.get(member) and kind != owner:
            raise invalid(f"Parameter(s) {member} not valid for target: {target['Id']}.")
    path = target.get("KinesisParameters", {}).get("PartitionKeyPath")
    if path is not None:
        try:
            transform.parse_path(path)
        except ValueError:
            raise invalid(f"Invalid PartitionKeyPath for target {target['Id']}.") from None


def _check_dead_letters(target: Params) -> None:
    queue = target.get("DeadLetterConfig", {}).get("Arn")
    if queue is None:
        return
    try:
        arn = Arn.parse(queue)
    except ValueError:
        arn = None
    if arn is None or arn.service != "sqs":
        raise bad_parameter("DeadLetterConfig.Arn", "It is not the ARN of an SQS queue.")
    if arn.resource.endswith(".fifo"):
        raise bad_parameter("DeadLetterConfig.Arn", "FIFO queues are not supported.")

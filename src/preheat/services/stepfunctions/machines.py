"""Operations on state machines and on tags."""

import json
from typing import Any
from urllib.parse import unquote

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Scope
from preheat.services.constraints import check_choice, check_number, check_text, violated
from preheat.services.contract import Context, Operation, Outcome, Params
from preheat.services.stepfunctions import domain, pages, repository
from preheat.services.stepfunctions.domain import EXPRESS, STANDARD, Machine, moment
from preheat.services.stepfunctions.history import SERVICE
from preheat.services.stepfunctions.language.definition import Diagnostic, check
from preheat.services.stepfunctions.language.resources import Resource
from preheat.services.stepfunctions.language.resources import operation as operation_of
from preheat.services.stepfunctions.language.templates import compact
from preheat.services.stepfunctions.running import Running

MAX_DIAGNOSTICS = 100
LEVELS = ("ALL", "ERROR", "FATAL", "OFF")
NO_VERSIONS = "Preheat does not implement versions and aliases of state machines: {} cannot be given."


def find(ctx: Context, arn: str) -> Machine:
    """Raises InvalidArn, StateMachineDoesNotExist."""
    scope, name = domain.named(arn, "stateMachine")
    found = repository.machine(ctx.db, scope, name)
    if found is None:
        raise domain.machine_missing(arn)
    return found


def _known(ctx: Context, resource: Resource) -> bool:
    return operation_of(ctx.machine.services, resource) is not None


def diagnostics(ctx: Context, definition: str, kind: str) -> list[Diagnostic]:
    return check(definition, lambda resource: _known(ctx, resource), kind)


def _check_definition(ctx: Context, definition: str, kind: str) -> None:
    if len(definition.encode()) > domain.MAX_DEFINITION:
        raise violated("definition", "...", f"have length less than or equal to {domain.MAX_DEFINITION}")
    found = diagnostics(ctx, definition, kind)
    if found:
        text = ", ".join(str(one) for one in found[:MAX_DIAGNOSTICS])
        raise AwsError("InvalidDefinition", f"Invalid State Machine Definition: '{text}'")


def _check_role(ctx: Context, role: str) -> None:
    """Raises InvalidArn, or AccessDeniedException when policies are enforced and the role does not trust Step
    Functions."""
    if not role.startswith("arn:aws") or ":iam::" not in role or ":role/" not in role:
        raise domain.invalid_arn(role, "The role is not an IAM role")
    if ctx.machine.authorizer is None:
        return
    try:
        found = ctx.call("iam", "GetRole", {"RoleName": role.rpartition("/")[2]})["Role"]
    except AwsError:
        found = {}
    if SERVICE not in unquote(str(found.get("AssumeRolePolicyDocument", ""))):
        raise AwsError(
            "AccessDeniedException", f"Neither the global service principal {SERVICE}, nor the regional one is "
            "authorized to assume the provided role."
        )  # fmt: skip


def _logging(params: Params) -> dict[str, Any]:
    given = params.get("loggingConfiguration") or {}
    check_choice(given, "level", LEVELS)
    if given.get("level", "OFF") == "OFF":
        return {}
    destinations = given.get("destinations") or []
    groups = [one.get("cloudWatchLogsLogGroup", {}).get("logGroupArn", "") for one in destinations]
    if len(groups) != 1 or not groups[0].endswith(":*") or ":log-group:" not in groups[0]:
        raise AwsError(
            "InvalidLoggingConfiguration", "Invalid Logging Configuration: Must specify exactly one Log Destination, "
            "a log group's ARN that ends in ':*'."
        )  # fmt: skip
    return {
        "level": given["level"], "includeExecutionData": bool(given.get("includeExecutionData")),
        "destinations": destinations,
    }  # fmt: skip


def shown_logging(logging: str) -> dict[str, Any]:
    return json.loads(logging) or {"level": "OFF", "includeExecutionData": False}


def _refuse_unsupported(params: Params) -> None:
    for member in ("publish", "versionDescription"):
        if params.get(member):
            raise domain.invalid(NO_VERSIONS.format(member))
    kind = (params.get("encryptionConfiguration") or {}).get("type", "AWS_OWNED_KEY")
    if kind != "AWS_OWNED_KEY":
        raise AwsError("InvalidEncryptionConfiguration", "Preheat has no KMS: the type must be AWS_OWNED_KEY.")


def tags_of(params: Params) -> dict[str, str]:
    """Raises TooManyTags."""
    tags = {tag["key"]: tag.get("value", "") for tag in params.get("tags") or () if tag.get("key")}
    if len(tags) > domain.MAX_TAGS:
        raise AwsError("TooManyTags", f"A resource has at most {domain.MAX_TAGS} tags.")
    return tags


class Machines:
    def __init__(self, running: Running) -> None:
        self._running = running
        self.operations: dict[str, Operation] = {
            "CreateStateMachine": self.create,
            "UpdateStateMachine": self.update,
            "DeleteStateMachine": self.delete,
            "DescribeStateMachine": self.describe,
            "ListStateMachines": self.list,
            "ValidateStateMachineDefinition": self.validate,
            "TagResource": self.tag,
            "UntagResource": self.untag,
            "ListTagsForResource": self.list_tags,
        }

    def create(self, ctx: Context, params: Params) -> Outcome:
        """The same request again gives what stands; the role and tags may differ."""
        name = domain.check_name(params["name"])
        check_choice(params, "type", domain.TYPES)
        kind = params.get("type") or STANDARD
        _refuse_unsupported(params)
        _check_definition(ctx, params["definition"], kind)
        _check_role(ctx, params["roleArn"])
        logging, tracing = compact(_logging(params)), bool((params.get("tracingConfiguration") or {}).get("enabled"))
        there = repository.machine(ctx.db, ctx.scope, name)
        if there is not None:
            definition = repository.revision(ctx.db, there.revision)[1]
            stands = (definition, there.type, there.logging, bool(there.tracing))
            if stands != (params["definition"], kind, logging, tracing):
                raise AwsError("StateMachineAlreadyExists", f"State Machine Already Exists: '{there.arn}'")
            return {"stateMachineArn": there.arn, "creationDate": moment(there.created)}
        tags = compact(tags_of(params))
        revision = repository.add_revision(ctx.db, ctx.entropy.uuid(), params["definition"], ctx.now)
        repository.add_machine(
            ctx.db, account=ctx.scope.account, region=ctx.scope.region, name=name, type=kind, role=params["roleArn"],
            revision=revision, logging=logging, tracing=int(tracing), tags=tags, created=ctx.now, modified=ctx.now,
        )  # fmt: skip
        return {"stateMachineArn": ctx.scope.arn("states", f"stateMachine:{name}"), "creationDate": moment(ctx.now)}

    def update(self, ctx: Context, params: Params) -> Outcome:
        """Executions that run keep the definition and role that they began with."""
        found = find(ctx, params["stateMachineArn"])
        members = ("definition", "roleArn", "loggingConfiguration", "tracingConfiguration", "encryptionConfiguration")
        if not any(params.get(member) is not None for member in members):
            raise AwsError(
                "MissingRequiredParameter", "Either the definition, the role ARN, the LoggingConfiguration, the "
                "TracingConfiguration or the EncryptionConfiguration must be specified"
            )  # fmt: skip
        _refuse_unsupported(params)
        changed: dict[str, Any] = {"modified": ctx.now}
        if params.get("roleArn"):
            _check_role(ctx, params["roleArn"])
            changed["role"] = params["roleArn"]
        if params.get("loggingConfiguration") is not None:
            changed["logging"] = compact(_logging(params))
        if params.get("tracingConfiguration") is not None:
            changed["tracing"] = int(bool(params["tracingConfiguration"].get("enabled")))
        definition = params.get("definition")
        if definition is not None:
            _check_definition(ctx, definition, found.type)
        else:
            definition = repository.revision(ctx.db, found.revision)[1]
        revision_id = ctx.entropy.uuid()
        changed["revision"] = repository.add_revision(ctx.db, revision_id, definition, ctx.now)
        repository.change_machine(ctx.db, found.row, **changed)
        repository.forget_revisions(ctx.db, {found.revision})
        return {"updateDate": moment(ctx.now), "revisionId": revision_id}

    def delete(self, ctx: Context, params: Params) -> Outcome:
        """Executions that run are ended."""
        scope, name = domain.named(params["stateMachineArn"], "stateMachine")
        found = repository.machine(ctx.db, scope, name)
        if found is None:
            return {}
        for execution in repository.running(ctx.db, found):
            self._running.finish(ctx, execution, "ABORTED")
        repository.remove_machine(ctx.db, found.row)
        repository.forget_revisions(ctx.db, {found.revision})
        return {}

    def describe(self, ctx: Context, params: Params) -> Outcome:
        check_choice(params, "includedData", ("ALL_DATA", "METADATA_ONLY"))
        found = find(ctx, params["stateMachineArn"])
        revision_id, definition, _ = repository.revision(ctx.db, found.revision)
        return {
            "stateMachineArn": found.arn, "name": found.name, "status": "ACTIVE", "roleArn": found.role,
            "definition": definition if params.get("includedData") != "METADATA_ONLY" else "{}",
            "type": found.type, "creationDate": moment(found.created), "revisionId": revision_id,
            "loggingConfiguration": shown_logging(found.logging), "encryptionConfiguration": {"type": "AWS_OWNED_KEY"},
            "tracingConfiguration": {"enabled": bool(found.tracing)},
        }  # fmt: skip

    def list(self, ctx: Context, params: Params) -> Outcome:
        most, after = pages.size(params), pages.read(params, "")
        found = repository.machines(ctx.db, ctx.scope, after, most + 1)
        output: Params = {
            "stateMachines": [
                {
                    "stateMachineArn": one.arn, "name": one.name, "type": one.type,
                    "creationDate": moment(one.created),
                }
                for one in found[:most]
            ]
        }  # fmt: skip
        if len(found) > most:
            output["nextToken"] = pages.write(found[most - 1].name)
        return output

    def validate(self, ctx: Context, params: Params) -> Outcome:
        check_text(params, "definition", domain.MAX_DEFINITION, least=1)
        check_choice(params, "type", (STANDARD, EXPRESS))
        check_choice(params, "severity", ("ERROR", "WARNING"))
        check_number(params, "maxResults", 0, MAX_DIAGNOSTICS)
        most = params.get("maxResults") or MAX_DIAGNOSTICS
        found = diagnostics(ctx, params["definition"], params.get("type") or STANDARD)
        return {
            "result": "FAIL" if found else "OK",
            "diagnostics": [
                {"severity": one.severity, "code": one.code, "message": one.message, "location": one.location or "/"}
                for one in found[:most]
            ],
            "truncated": len(found) > most,
        }

    # -- tags -------------------------------------------------------------------------------------------------------

    def _tagged(self, ctx: Context, arn: str) -> tuple[str, Scope, str, dict[str, str], float]:
        """(kind, account and region, name, tags, when it was made). Raises ResourceNotFound."""
        scope, name = domain.named(arn, "stateMachine", "activity")
        if ":activity:" in arn:
            found = repository.activity(ctx.db, scope, name)
            if found is not None:
                return "activity", scope, name, json.loads(found[0]), found[1]
        else:
            machine = repository.machine(ctx.db, scope, name)
            if machine is not None:
                return "machine", scope, name, json.loads(machine.tags), machine.created
        raise AwsError("ResourceNotFound", f"Resource not found: '{arn}'", fields={"resourceName": arn})

    def _retag(self, ctx: Context, arn: str, change: Any) -> Outcome:
        kind, scope, name, tags, created = self._tagged(ctx, arn)
        tags = change(tags)
        if len(tags) > domain.MAX_TAGS:
            text = f"A resource has at most {domain.MAX_TAGS} tags."
            raise AwsError("TooManyTags", text, fields={"resourceName": arn})
        if kind == "activity":
            repository.put_activity(ctx.db, scope, name, compact(tags), created)
        else:
            repository.change_machine(ctx.db, find(ctx, arn).row, tags=compact(tags))
        return {}

    def tag(self, ctx: Context, params: Params) -> Outcome:
        return self._retag(ctx, params["resourceArn"], lambda tags: {**tags, **tags_of(params)})

    def untag(self, ctx: Context, params: Params) -> Outcome:
        gone = set(params["tagKeys"])
        return self._retag(
            ctx, params["resourceArn"], lambda tags: {key: tags[key] for key in tags if key not in gone}
        )

    def list_tags(self, ctx: Context, params: Params) -> Outcome:
        return {"tags": domain.shown_tags(self._tagged(ctx, params["resourceArn"])[3])}

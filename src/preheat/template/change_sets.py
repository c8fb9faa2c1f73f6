"""Change sets: look at what a deployment would do, then have it done."""

import json
import re
from typing import Any

from preheat.kernel.errors import AwsError
from preheat.services.contract import Context, Operation, Outcome, Params, Row
from preheat.template import describe, preview, repository
from preheat.template.changes import has_values, without_values
from preheat.template.plan import Spec
from preheat.template.prepare import check_capabilities
from preheat.template.read import invalid
from preheat.template.repository import Stack, dump
from preheat.template.requests import Workshop, check_name, check_params, disable_rollback, principal_of

NAME = re.compile(r"[a-zA-Z][-a-zA-Z0-9]{0,127}\Z")
NO_CHANGES = "The submitted information didn't contain changes. Submit different information to create a change set."


class ChangeSets:
    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop

    def operations(self) -> dict[str, Operation]:
        return {
            "CreateChangeSet": self.create,
            "DeleteChangeSet": self.delete,
            "DescribeChangeSet": self.describe,
            "ExecuteChangeSet": self.execute,
            "ListChangeSets": self.listed,
        }

    # -- create ---------------------------------------------------------------------------------------------------

    def create(self, ctx: Context, params: Params) -> Outcome:
        check_params(params)
        name = params["ChangeSetName"]
        if not NAME.match(name):
            raise invalid(
                f"1 validation error detected: Value '{name}' at 'changeSetName' failed to satisfy constraint: "
                "Member must satisfy regular expression pattern: [a-zA-Z][-a-zA-Z0-9]*"
            )
        kind = params.get("ChangeSetType", "UPDATE")
        if kind == "IMPORT":
            raise invalid("Preheat does not carry out change sets of the type IMPORT")
        stack = repository.find_stack(ctx.db, ctx.scope, params["StackName"])
        if stack is None and kind == "CREATE":
            check_name(params["StackName"])
            stack = self._workshop.new_stack(ctx, params["StackName"])
        stack = self._checked(ctx, stack, kind, params)
        target = stack

        def then(context: Context, spec: Spec) -> Outcome:
            current = repository.find_stack(context.db, context.scope, target.name)
            checked = self._checked(context, current or (target if kind == "CREATE" else None), kind, params)
            return self._store(context, checked, spec, kind, params)

        return self._workshop.prepare(ctx, params, stack, then)

    def _checked(self, ctx: Context, stack: Stack | None, kind: str, params: Params) -> Stack:
        """The stack, fit for a change set of this kind."""
        if stack is None or (kind == "UPDATE" and stack.deleted_at is not None):
            raise invalid(f"Stack [{params['StackName']}] does not exist")
        if kind == "CREATE":
            if stack.status not in ("", "REVIEW_IN_PROGRESS"):
                raise invalid(
                    f"Stack [{params['StackName']}] already exists and cannot be created again with the changeSet "
                    f"[{params['ChangeSetName']}]."
                )
        else:
            self._workshop.check_updatable(stack)
        if repository.change_set(ctx.db, stack.id, params["ChangeSetName"]) is not None:
            raise AwsError("AlreadyExistsException", f"ChangeSet {params['ChangeSetName']} already exists", 400)
        return stack

    def _store(self, ctx: Context, stack: Stack, spec: Spec, kind: str, params: Params) -> Outcome:
        check_capabilities(spec, False)
        found = preview.changes(ctx, stack, spec, self._workshop.types)
        works = kind == "CREATE" or preview.has_work(ctx, stack, spec, self._workshop.types, found)
        if stack.status == "":
            stack.status, stack.created_at, stack.reason = "REVIEW_IN_PROGRESS", ctx.now, "User Initiated"
            repository.save_stack(ctx.db, stack)
            repository.add_event(
                ctx, stack, stack.name, stack.id, "AWS::CloudFormation::Stack", "REVIEW_IN_PROGRESS", "User Initiated"
            )
        name = params["ChangeSetName"]
        change_set_id = ctx.scope.arn("cloudformation", f"changeSet/{name}/{ctx.entropy.uuid()}")
        disabled = disable_rollback(params)
        options = {
            "disable_rollback": disabled,
            "on_failure": params.get("OnStackFailure") or ("DO_NOTHING" if disabled else "ROLLBACK"),
            "shown_on_failure": params.get("OnStackFailure", ""),
            "principal": principal_of(ctx, params),
        }
        repository.add_change_set(ctx.db, {
            "id": change_set_id,
            "name": name,
            "stack_id": stack.id,
            "kind": kind,
            "status": "CREATE_COMPLETE" if works else "FAILED",
            "reason": "" if works else NO_CHANGES,
            "execution_status": "AVAILABLE" if works else "UNAVAILABLE",
            "created_at": ctx.now,
            "description": params.get("Description", ""),
            "spec": repository.spec_text(spec),
            "changes": dump(found),
            "options": dump(options),
        })  # fmt: skip
        return {"Id": change_set_id, "StackId": stack.id}

    # -- look -----------------------------------------------------------------------------------------------------

    def describe(self, ctx: Context, params: Params) -> Outcome:
        row, stack = self._find(ctx, params)
        spec = repository.change_set_spec(row)
        found = json.loads(row["changes"])
        if params.get("IncludePropertyValues"):
            found = [change for change in found if has_values(change)]
        else:
            found = [without_values(change) for change in found]
        changes = [{"Type": "Resource", "ResourceChange": change} for change in found]
        start = int(params["NextToken"]) if str(params.get("NextToken", "")).isdigit() else 0
        output: dict[str, Any] = {
            **self._summary(row, stack),
            "NotificationARNs": spec.notification_arns,
            "RollbackConfiguration": {},
            "Capabilities": spec.capabilities,
            "Changes": changes[start : start + describe.PAGE],
        }
        for member, value in (("Parameters", spec.parameters), ("Tags", spec.tags)):
            if value:
                output[member] = value
        if len(changes) > start + describe.PAGE:
            output["NextToken"] = str(start + describe.PAGE)
        shown = json.loads(row["options"]).get("shown_on_failure")
        if shown:
            output["OnStackFailure"] = shown
        return output

    def _summary(self, row: Row, stack: Stack) -> dict[str, Any]:
        output: dict[str, Any] = {
            "ChangeSetName": row["name"],
            "ChangeSetId": row["id"],
            "StackId": stack.id,
            "StackName": stack.name,
            "CreationTime": describe.when(row["created_at"]),
            "ExecutionStatus": row["execution_status"],
            "Status": row["status"],
            "IncludeNestedStacks": False,
        }
        if row["reason"]:
            output["StatusReason"] = row["reason"]
        if row["description"]:
            output["Description"] = row["description"]
        return output

    def listed(self, ctx: Context, params: Params) -> Outcome:
        stack = describe.existing(ctx, params["StackName"], "Stack [{}] does not exist")
        return {"Summaries": [self._summary(row, stack) for row in repository.change_sets(ctx.db, stack.id)]}

    def _find(self, ctx: Context, params: Params) -> tuple[Row, Stack]:
        name, stack_name = params["ChangeSetName"], params.get("StackName")
        stack = None
        if not name.startswith("arn:"):
            if not stack_name:
                raise invalid("StackName must be specified if ChangeSetName is not specified as an ARN.")
            stack = describe.existing(ctx, stack_name, "Stack [{}] does not exist")
        row = repository.change_set(ctx.db, stack.id if stack else None, name)
        stack = repository.stack(ctx.db, row["stack_id"]) if row is not None else None
        if row is None or stack is None:
            raise AwsError("ChangeSetNotFound", f"ChangeSet [{name}] does not exist", 404)
        return row, stack

    # -- act ------------------------------------------------------------------------------------------------------

    def execute(self, ctx: Context, params: Params) -> Outcome:
        row, stack = self._find(ctx, params)
        if row["execution_status"] != "AVAILABLE":
            whole = row["status"] == "CREATE_COMPLETE"
            state = f"execution status of [{row['execution_status']}]" if whole else f"status of [{row['status']}]"
            raise AwsError(
                "InvalidChangeSetStatus", f"ChangeSet [{row['id']}] cannot be executed in its current {state}", 400
            )
        options = json.loads(row["options"])
        spec = repository.change_set_spec(row)
        if "DisableRollback" in params:
            options["disable_rollback"] = params["DisableRollback"]
            options["on_failure"] = "DO_NOTHING" if params["DisableRollback"] else "ROLLBACK"
        create = row["kind"] == "CREATE" and stack.status == "REVIEW_IN_PROGRESS"
        if not create:
            self._workshop.check_updatable(stack)
        stack.principal = options["principal"]
        stack.change_set_id = row["id"]
        stack.options = {
            "token": params.get("ClientRequestToken", ""),
            "disable_rollback": options["disable_rollback"],
            "on_failure": options["on_failure"],
            "retain_except_on_create": bool(params.get("RetainExceptOnCreate")),
        }
        repository.set_execution_status(ctx.db, row["id"], "EXECUTE_COMPLETE")
        repository.obsolete_others(ctx.db, stack.id, row["id"])
        if create:
            stack.spec = spec
            stack.updated_at = ctx.now
            self._workshop.engine.start_create(ctx, stack)
        else:
            self._workshop.engine.start_update(ctx, stack, spec)
        return {}

    def delete(self, ctx: Context, params: Params) -> Outcome:
        try:
            row, _ = self._find(ctx, params)
        except AwsError as error:
            if error.code == "ChangeSetNotFound":
                return {}
            raise
        if row["execution_status"] in ("EXECUTE_IN_PROGRESS", "EXECUTE_COMPLETE"):
            raise AwsError(
                "InvalidChangeSetStatus",
                f"ChangeSet [{row['id']}] cannot be deleted in its current execution status of "
                f"[{row['execution_status']}]",
                400,
            )
        repository.drop_change_set(ctx.db, row["id"])
        return {}

"""What names stand for while a stack is worked on, and while a change set looks ahead; names of new resources."""

import json
from collections.abc import Callable
from typing import Any

from preheat.kernel.entropy import Entropy
from preheat.kernel.errors import AwsError
from preheat.services.contract import Context, Principal
from preheat.template import repository
from preheat.template.definition import ResourceType
from preheat.template.intrinsics import KNOWN_AFTER_APPLY, references
from preheat.template.plan import Types
from preheat.template.read import invalid
from preheat.template.repository import Stack, StackResource

ALPHANUMERIC = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
SUFFIX_LENGTH = 12


class StackNames:
    """References to the resources of one stack and to the exports of others. `pending` are logical ids whose value is
    not known before the change set is executed; without it such a reference is an error."""

    def __init__(
        self,
        ctx: Context,
        stack: Stack,
        types: Types,
        rows: dict[str, StackResource],
        pending: set[str] | None = None,
    ) -> None:
        self._ctx = ctx
        self._stack = stack
        self._types = types
        self._rows = rows
        self._pending = pending
        self.imported: set[str] = set()

    def ref(self, logical_id: str) -> Any:
        row = self._row(logical_id)
        if row is None:
            return KNOWN_AFTER_APPLY
        definition = self._types.get(row.type)
        physical_id = row.physical_id or ""
        if definition is not None and definition.ref is not None:
            return definition.ref(physical_id, row.attributes)
        return physical_id

    def get_att(self, logical_id: str, attribute: str) -> Any:
        row = self._row(logical_id)
        if row is None:
            return KNOWN_AFTER_APPLY
        if attribute in row.attributes:
            return row.attributes[attribute]
        first, dot, rest = attribute.partition(".")
        if dot and isinstance(row.attributes.get(first), dict) and rest in row.attributes[first]:
            return row.attributes[first][rest]
        if attribute in row.properties:
            return row.properties[attribute]
        definition = self._types.get(row.type)
        if definition is not None and attribute == definition.name_property and row.attributes.get("_name"):
            return row.attributes["_name"]
        if row.type.startswith(("Custom::", "AWS::CloudFormation::CustomResource")):
            raise invalid(
                f"CustomResource attribute error: Vendor response doesn't contain {attribute} key in object "
                f"{row.physical_id} within S3 bucket cloudformation-custom-resource-storage-{self._stack.scope.region}"
            )
        raise invalid(
            f"Template error: resource {logical_id} does not support attribute type {attribute} in Fn::GetAtt"
        )

    def import_value(self, name: str) -> str:
        found = repository.exports(self._ctx.db, self._stack.scope).get(name)
        if found is None or found["stack_id"] == self._stack.id:
            raise invalid(f"No export named {name} found.")
        self.imported.add(name)
        return found["value"]

    def unknown(self, value: Any) -> bool:
        if self._pending is None:
            return False
        found = {reference.name for reference in references(value)}
        return any(name in self._pending for name in found)

    def _row(self, logical_id: str) -> StackResource | None:
        if self._pending is not None and logical_id in self._pending:
            return None
        row = self._rows.get(logical_id)
        if row is None:
            if self._pending is not None:
                return None
            raise invalid(
                f"Template format error: Unresolved resource dependencies [{logical_id}] "
                "in the Resources block of the template"
            )
        return row


def physical_name(entropy: Entropy, stack: Stack, logical_id: str, definition: ResourceType) -> str:
    """`<stack>-<logical id>-<12 random characters>`, shortened to the type's limit."""
    suffix = entropy.token(SUFFIX_LENGTH, ALPHANUMERIC)
    room = definition.name_limit - SUFFIX_LENGTH - 2
    head, tail = definition.name_head or stack.name, logical_id
    if len(head) + len(tail) > room:
        tail = tail[: max(room // 2, room - len(head))]
        head = head[: room - len(tail)]
    name = f"{head}-{tail}-{suffix}"
    return name.lower() if definition.lower_name else name


def caller(stack: Stack) -> Principal:
    """On whose behalf the stack's calls are made."""
    return Principal(**stack.principal)


def dynamic_reader(ctx: Context, principal: Principal) -> Callable[[str, str], str]:
    """Reads `{{resolve:service:reference}}`. Raises ValidationError for what is not there."""

    def read(service: str, reference: str) -> str:
        try:
            if service in ("ssm", "ssm-secure"):
                output = ctx.call("ssm", "GetParameter", {"Name": reference, "WithDecryption": True}, principal)
                return output["Parameter"]["Value"]
            if service == "secretsmanager":
                return _secret(ctx, reference, principal)
        except AwsError as error:
            if error.code in ("ParameterNotFound", "ParameterVersionNotFound"):
                raise invalid(f"Parameters: [{service}:{reference}] cannot be found.") from None
            raise invalid(f"Could not resolve {{{{resolve:{service}:{reference}}}}}: {error.message}") from None
        raise invalid(f"Template error: dynamic references to {service} are not supported")

    return read


def _secret(ctx: Context, reference: str, principal: Principal) -> str:
    parts = reference.split(":")
    if reference.startswith("arn:"):
        parts = [":".join(parts[:7]), *parts[7:]]
    secret, kind, key, stage, version = (parts + [""] * 5)[:5]
    if kind not in ("", "SecretString"):
        raise invalid(f"Template error: {kind} is not SecretString in a dynamic reference to secretsmanager")
    params = {"SecretId": secret}
    if stage:
        params["VersionStage"] = stage
    if version:
        params["VersionId"] = version
    text = ctx.call("secretsmanager", "GetSecretValue", params, principal).get("SecretString", "")
    if not key:
        return text
    try:
        value = json.loads(text)[key]
    except (ValueError, KeyError, TypeError):
        raise invalid(f"Could not find a value associated with JSONKey in SecretString: {key}") from None
    return value if isinstance(value, str) else json.dumps(value)

"""SSM Parameter Store: parameters, versions, labels, hierarchies; SecureString values are encrypted at rest."""

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from preheat.identity.vault import Vault
from preheat.kernel.errors import AwsError
from preheat.services.contract import Context, Operation, Outcome, Params, Platform
from preheat.services.ssm import domain, repository
from preheat.services.ssm.domain import invalid
from preheat.services.ssm.repository import Version

SCHEMA = (Path(__file__).parent / "schema.sql").read_text()
SECRET_PREFIX = "/aws/reference/secretsmanager/"
DEFAULT_KEY = "alias/aws/ssm"
_DESCRIBE_KEYS = frozenset({"Name", "Type", "KeyId", "Path", "Label", "Tier", "DataType", "tag:"})
_PATH_KEYS = frozenset({"Type", "KeyId", "Label"})


def _not_found() -> AwsError:
    return AwsError("ParameterNotFound", "")


def _moment(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)


def _paged(items: list[Any], params: Params, most: int, default: int) -> tuple[list[Any], Params]:
    """One page; the token is the position in the list."""
    limit, token = params.get("MaxResults", default), params.get("NextToken", "0")
    if not 1 <= limit <= most:
        raise invalid(
            f"1 validation error detected: Value '{limit}' at 'maxResults' failed to satisfy constraint: Member must "
            f"have value less than or equal to {most}"
        )
    if not token.isascii() or not token.isdigit():
        raise invalid("The specified token is not valid.", "InvalidNextToken")
    start = int(token)
    more = {"NextToken": str(start + limit)} if len(items) > start + limit else {}
    return items[start : start + limit], more


class SsmService:
    name = "ssm"
    schema = SCHEMA

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self.operations: dict[str, Operation] = {
            "PutParameter": self.put_parameter,
            "GetParameter": self.get_parameter,
            "GetParameters": self.get_parameters,
            "GetParametersByPath": self.get_parameters_by_path,
            "GetParameterHistory": self.get_parameter_history,
            "DescribeParameters": self.describe_parameters,
            "DeleteParameter": self.delete_parameter,
            "DeleteParameters": self.delete_parameters,
            "LabelParameterVersion": self.label_parameter_version,
            "UnlabelParameterVersion": self.unlabel_parameter_version,
            "AddTagsToResource": self.add_tags,
            "RemoveTagsFromResource": self.remove_tags,
            "ListTagsForResource": self.list_tags,
        }

    # -- writing ------------------------------------------------------------------------------------------------------

    def put_parameter(self, ctx: Context, params: Params) -> Outcome:
        name, value, overwrite = params["Name"], params["Value"], params.get("Overwrite", False)
        domain.check_name(name, ctx.scope)
        _check_put(params)
        present = repository.latest(ctx.db, ctx.scope, name)
        if present is not None and not overwrite:
            raise AwsError(
                "ParameterAlreadyExists",
                "The parameter already exists. To overwrite this value, set the overwrite option in the request to "
                "true.",
            )
        kind = params.get("Type") or (present.type if present else None)
        if kind is None:
            raise invalid("A parameter type is required when you create a parameter.")
        if kind not in domain.TYPES:
            raise invalid(f"Type {kind} is not supported.", "UnsupportedParameterType")
        if present is not None and present.type != kind:
            raise invalid(
                f"Parameter Store doesn't support changing a parameter type in a hierarchy: {present.type} to {kind}.",
                "HierarchyTypeMismatchException",
            )
        pattern = params.get("AllowedPattern")
        domain.check_pattern(pattern, value)
        size = len(value.encode())
        tier = domain.choose_tier(params.get("Tier"), present.tier if present else None, size)
        number = present.latest + 1 if present else 1
        if present is not None:
            self._make_room(ctx, present)
            row = present.row
        else:
            row = repository.add(ctx.db, ctx.scope, name, _tags(params.get("Tags", [])))
        secure = kind == "SecureString"
        stored = self._vault.seal(value.encode()) if secure else value.encode()
        key_id = params.get("KeyId", DEFAULT_KEY) if secure else None
        description = params.get("Description", present.description if present else None)
        repository.add_version(
            ctx.db,
            Version(
                row, name, number, {}, number, kind, stored, description, pattern, tier, key_id, ctx.now,
                ctx.principal.arn, [],
            ),
        )  # fmt: skip
        return {"Version": number, "Tier": tier}

    def _make_room(self, ctx: Context, present: Version) -> None:
        """A hundred versions are kept; the oldest goes unless it carries a label."""
        versions = repository.history(ctx.db, ctx.scope, present.name)
        if len(versions) >= domain.MAX_VERSIONS:
            oldest = versions[0]
            if oldest.labels:
                raise AwsError(
                    "ParameterMaxVersionLimitExceeded",
                    f"You attempted to create a new version of {present.name} by calling the PutParameter API. Version "
                    f"{oldest.version}, the oldest version, can't be deleted because it has a label associated with "
                    "it. Move the label to another version of the parameter, and try again.",
                )
            repository.delete_version(ctx.db, present.row, oldest.version)

    def delete_parameter(self, ctx: Context, params: Params) -> Outcome:
        if not repository.delete(ctx.db, ctx.scope, params["Name"]):
            raise _not_found()
        return {}

    def delete_parameters(self, ctx: Context, params: Params) -> Outcome:
        deleted, missing = [], []
        for name in dict.fromkeys(params["Names"]):
            (deleted if repository.delete(ctx.db, ctx.scope, name) else missing).append(name)
        return {"DeletedParameters": deleted, "InvalidParameters": missing}

    # -- reading ------------------------------------------------------------------------------------------------------

    def _resolve(self, ctx: Context, text: str) -> tuple[Version, str]:
        """The version a name means, and its selector (":3"). Raises ParameterNotFound, ParameterVersionNotFound."""
        name, selector = domain.split_name(text)
        if not selector:
            found = repository.latest(ctx.db, ctx.scope, name)
            if found is None:
                raise _not_found()
            return found, ""
        versions = repository.history(ctx.db, ctx.scope, name)
        if not versions:
            raise _not_found()
        for version in versions:
            if str(version.version) == selector or selector in version.labels:
                return version, f":{selector}"
        what = "version" if selector.isdigit() else "label"
        raise AwsError(
            "ParameterVersionNotFound",
            f"Systems Manager could not find {what} {selector} of {name}. Verify the {what} and try again.",
        )

    def _shown_value(self, version: Version, decrypt: bool) -> str:
        if version.type != "SecureString":
            return version.value.decode()
        return self._vault.open(version.value).decode() if decrypt else base64.b64encode(version.value).decode()

    def _described(self, ctx: Context, version: Version, decrypt: bool, selector: str = "") -> Params:
        output: Params = {
            "Name": version.name,
            "Type": version.type,
            "Value": self._shown_value(version, decrypt),
            "Version": version.version,
            "LastModifiedDate": _moment(version.modified),
            "ARN": domain.arn(ctx.scope, version.name),
            "DataType": "text",
        }
        if selector:
            output["Selector"] = selector
        return output

    def get_parameter(self, ctx: Context, params: Params) -> Outcome:
        name, decrypt = params["Name"], params.get("WithDecryption", False)
        if name.startswith(SECRET_PREFIX):
            return {"Parameter": self._secret(ctx, name, decrypt)}
        version, selector = self._resolve(ctx, name)
        return {"Parameter": self._described(ctx, version, decrypt, selector)}

    def _secret(self, ctx: Context, name: str, decrypt: bool) -> Params:
        """A secret of Secrets Manager under its reference name."""
        if not decrypt:
            raise invalid("WithDecryption flag must be True for retrieving a Secret Manager secret.")
        try:
            secret = ctx.call("secretsmanager", "GetSecretValue", {"SecretId": name.removeprefix(SECRET_PREFIX)})
        except AwsError as error:
            raise AwsError("ParameterNotFound", f"An error occurred ({error.code}): {error.message}") from error
        source = {key: value for key, value in secret.items() if isinstance(value, str | list)}
        return {
            "Name": name,
            "Type": "SecureString",
            "Value": secret.get("SecretString", ""),
            "Version": 0,
            "SourceResult": json.dumps(source),
            "LastModifiedDate": secret["CreatedDate"],
            "ARN": secret["ARN"],
        }

    def get_parameters(self, ctx: Context, params: Params) -> Outcome:
        names = params["Names"]
        if not 1 <= len(names) <= 10:
            raise invalid(
                f"1 validation error detected: Value '{names}' at 'names' failed to satisfy constraint: Member must "
                "have length less than or equal to 10"
            )
        found, missing = [], []
        for name in dict.fromkeys(names):
            try:
                version, selector = self._resolve(ctx, name)
            except AwsError:
                missing.append(name)
            else:
                found.append(self._described(ctx, version, params.get("WithDecryption", False), selector))
        return {"Parameters": found, "InvalidParameters": missing}

    def get_parameters_by_path(self, ctx: Context, params: Params) -> Outcome:
        path, filters = params["Path"], params.get("ParameterFilters", [])
        if not path.startswith("/"):
            raise invalid(
                f"The parameter doesn't meet the parameter name requirements. The parameter name must begin with a "
                f'forward slash "/". It can\'t be prefixed with "aws" or "ssm" (case-insensitive): {path}'
            )
        domain.check_filters(filters, _PATH_KEYS)
        label = next((given["Values"] for given in filters if given["Key"] == "Label"), None)
        chosen = []
        for newest in repository.everything(ctx.db, ctx.scope):
            if not domain.under(path, newest.name, params.get("Recursive", False)):
                continue
            for version in repository.history(ctx.db, ctx.scope, newest.name) if label else [newest]:
                if all(domain.passes(given, _facts(version)) for given in filters):
                    chosen.append(version)
        shown, more = _paged(chosen, params, 10, 10)
        decrypt = params.get("WithDecryption", False)
        return {"Parameters": [self._described(ctx, version, decrypt) for version in shown], **more}

    def get_parameter_history(self, ctx: Context, params: Params) -> Outcome:
        versions = repository.history(ctx.db, ctx.scope, domain.split_name(params["Name"])[0])
        if not versions:
            raise _not_found()
        shown, more = _paged(versions, params, 50, 50)
        decrypt = params.get("WithDecryption", False)
        entries = [
            {**_metadata(ctx, version), "Value": self._shown_value(version, decrypt), "Labels": version.labels}
            for version in shown
        ]
        for entry in entries:
            del entry["ARN"]
        return {"Parameters": entries, **more}

    def describe_parameters(self, ctx: Context, params: Params) -> Outcome:
        filters = list(params.get("ParameterFilters", []))
        if filters and "Filters" in params:
            raise invalid("You can use either Filters or ParameterFilters in a single request.")
        if params.get("Shared", False):
            raise invalid("Preheat does not implement shared parameters.")
        for given in params.get("Filters", []):
            option = "BeginsWith" if given["Key"] == "Name" else "Equals"
            filters.append({**given, "Option": option})
        domain.check_filters(filters, _DESCRIBE_KEYS)
        chosen = [
            version
            for version in repository.everything(ctx.db, ctx.scope)
            if all(domain.passes(given, _facts(version)) for given in filters)
        ]
        shown, more = _paged(chosen, params, 50, 10)
        return {"Parameters": [_metadata(ctx, version) for version in shown], **more}

    # -- labels and tags ----------------------------------------------------------------------------------------------

    def label_parameter_version(self, ctx: Context, params: Params) -> Outcome:
        versions = repository.history(ctx.db, ctx.scope, params["Name"])
        if not versions:
            raise _not_found()
        target = _numbered(versions, params.get("ParameterVersion", versions[-1].version))
        refused = [label for label in params["Labels"] if not domain.label_is_valid(label)]
        good = [label for label in params["Labels"] if label not in refused]
        labels = list(dict.fromkeys([*target.labels, *good]))
        if len(labels) > domain.MAX_LABELS:
            raise AwsError(
                "ParameterVersionLabelLimitExceeded",
                f"A parameter version can have a maximum of {domain.MAX_LABELS} labels.",
            )
        for version in versions:
            kept = [label for label in version.labels if label not in good]
            if version.version != target.version and kept != version.labels:
                repository.set_labels(ctx.db, version.row, version.version, kept)
        repository.set_labels(ctx.db, target.row, target.version, labels)
        return {"InvalidLabels": refused, "ParameterVersion": target.version}

    def unlabel_parameter_version(self, ctx: Context, params: Params) -> Outcome:
        versions = repository.history(ctx.db, ctx.scope, params["Name"])
        if not versions:
            raise _not_found()
        target = _numbered(versions, params["ParameterVersion"])
        removed = [label for label in params["Labels"] if label in target.labels]
        kept = [label for label in target.labels if label not in removed]
        repository.set_labels(ctx.db, target.row, target.version, kept)
        return {"RemovedLabels": removed, "InvalidLabels": [name for name in params["Labels"] if name not in removed]}

    def _tagged(self, ctx: Context, params: Params) -> Version:
        if params["ResourceType"] != "Parameter":
            raise AwsError("InvalidResourceType", "Preheat has tags on parameters only.")
        found = repository.latest(ctx.db, ctx.scope, params["ResourceId"])
        if found is None:
            raise AwsError("InvalidResourceId", "")
        return found

    def add_tags(self, ctx: Context, params: Params) -> Outcome:
        found = self._tagged(ctx, params)
        repository.set_tags(ctx.db, found.row, _tags(params["Tags"], found.tags))
        return {}

    def remove_tags(self, ctx: Context, params: Params) -> Outcome:
        found = self._tagged(ctx, params)
        kept = {key: value for key, value in found.tags.items() if key not in params["TagKeys"]}
        repository.set_tags(ctx.db, found.row, kept)
        return {}

    def list_tags(self, ctx: Context, params: Params) -> Outcome:
        tags = self._tagged(ctx, params).tags
        return {"TagList": [{"Key": key, "Value": value} for key, value in tags.items()]}


def _check_put(params: Params) -> None:
    if not params["Value"]:
        raise invalid(
            "1 validation error detected: Value '' at 'value' failed to satisfy constraint: Member must have length "
            "greater than or equal to 1"
        )
    if params.get("Overwrite", False) and params.get("Tags"):
        raise invalid(
            "Invalid request: tags and overwrite can't be used together. To create a parameter with tags, please "
            "remove overwrite flag. To update tags for an existing parameter, please use AddTagsToResource or "
            "RemoveTagsFromResource."
        )
    if params.get("DataType", "text") != "text":
        raise invalid(f"Preheat does not validate values of data type {params['DataType']}.")
    if params.get("Policies"):
        raise invalid("Preheat does not implement parameter policies.", "InvalidPolicyTypeException")
    if "KeyId" in params and params.get("Type", "SecureString") != "SecureString":
        raise invalid("KeyId is required for SecureString type parameter only.")


def _numbered(versions: list[Version], number: int) -> Version:
    for version in versions:
        if version.version == number:
            return version
    raise AwsError(
        "ParameterVersionNotFound",
        f"Systems Manager could not find version {number} of {versions[0].name}. Verify the version and try again.",
    )


def _tags(given: list[dict[str, str]], present: dict[str, str] | None = None) -> dict[str, str]:
    tags = {**(present or {}), **{tag["Key"]: tag["Value"] for tag in given}}
    if len(tags) > 50:
        raise AwsError("TooManyTagsError", "A parameter can have at most 50 tags.")
    return tags


def _facts(version: Version) -> dict[str, list[str]]:
    """What filters look at, by filter key."""
    facts = {
        "Name": [version.name],
        "Type": [version.type],
        "Tier": [version.tier],
        "DataType": ["text"],
        "Label": version.labels,
        "KeyId": [] if version.key_id is None else [version.key_id],
    }
    for key, value in version.tags.items():
        facts[f"tag:{key}"] = [value]
    return facts


def _metadata(ctx: Context, version: Version) -> Params:
    output: Params = {
        "Name": version.name,
        "ARN": domain.arn(ctx.scope, version.name),
        "Type": version.type,
        "LastModifiedDate": _moment(version.modified),
        "LastModifiedUser": version.user,
        "Version": version.version,
        "Tier": version.tier,
        "Policies": [],
        "DataType": "text",
    }
    for member, value in (
        ("KeyId", version.key_id),
        ("Description", version.description),
        ("AllowedPattern", version.pattern),
    ):
        if value is not None:
            output[member] = value
    return output


def build(platform: Platform) -> SsmService:
    return SsmService(Vault(platform.db.directory, platform.entropy))

"""Secrets Manager: secrets, versions and their stages, recovery windows; values are encrypted at rest."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from preheat.identity.policy import MalformedPolicy, parse
from preheat.identity.vault import Vault
from preheat.kernel.errors import AwsError
from preheat.services.contract import Context, Operation, Outcome, Params, Platform
from preheat.services.secretsmanager import domain, repository
from preheat.services.secretsmanager.domain import CURRENT, PREVIOUS, invalid_parameter, invalid_request
from preheat.services.secretsmanager.repository import Secret, Version

SCHEMA = (Path(__file__).parent / "schema.sql").read_text()


def _moment(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)


def _named(secret: Secret, **more: Any) -> Params:
    return {"ARN": secret.arn, "Name": secret.name, **more}


def _paged(items: list[Any], params: Params, default: int = 100) -> tuple[list[Any], Params]:
    limit, token = params.get("MaxResults", default), params.get("NextToken", "0")
    if not 1 <= limit <= 100:
        raise invalid_parameter("MaxResults must be between 1 and 100.")
    if not token.isascii() or not token.isdigit():
        raise AwsError("InvalidNextTokenException", "The NextToken value is invalid.")
    start = int(token)
    more = {"NextToken": str(start + limit)} if len(items) > start + limit else {}
    return items[start : start + limit], more


class SecretsManagerService:
    name = "secretsmanager"
    schema = SCHEMA

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self.operations: dict[str, Operation] = {
            "CreateSecret": self.create_secret,
            "GetSecretValue": self.get_secret_value,
            "BatchGetSecretValue": self.batch_get_secret_value,
            "PutSecretValue": self.put_secret_value,
            "UpdateSecret": self.update_secret,
            "DescribeSecret": self.describe_secret,
            "DeleteSecret": self.delete_secret,
            "RestoreSecret": self.restore_secret,
            "ListSecrets": self.list_secrets,
            "ListSecretVersionIds": self.list_secret_version_ids,
            "UpdateSecretVersionStage": self.update_secret_version_stage,
            "GetRandomPassword": self.get_random_password,
            "TagResource": self.tag_resource,
            "UntagResource": self.untag_resource,
            "PutResourcePolicy": self.put_resource_policy,
            "GetResourcePolicy": self.get_resource_policy,
            "DeleteResourcePolicy": self.delete_resource_policy,
            "RotateSecret": self.rotate_secret,
            "CancelRotateSecret": self.cancel_rotate_secret,
        }

    # -- finding ------------------------------------------------------------------------------------------------------

    def _secret(self, ctx: Context, params: Params, *, even_deleted: bool = False) -> Secret:
        """By name, ARN or ARN without its suffix. Raises ResourceNotFoundException, InvalidRequestException."""
        repository.purge(ctx.db, ctx.scope, ctx.now)
        identifier = params["SecretId"]
        found = repository.by_name(ctx.db, ctx.scope, identifier)
        if found is None and identifier.startswith("arn:"):
            found = repository.by_arn(ctx.db, ctx.scope, identifier)
        if found is None:
            raise domain.not_found()
        if found.deleted is not None and not even_deleted:
            raise domain.marked_for_deletion()
        return found

    # -- creating and changing ----------------------------------------------------------------------------------------

    def create_secret(self, ctx: Context, params: Params) -> Outcome:
        repository.purge(ctx.db, ctx.scope, ctx.now)
        name = params["Name"]
        domain.check_name(name)
        for member in ("AddReplicaRegions", "Type", "CrossAccountPrimaryARN"):
            if params.get(member):
                raise invalid_parameter(f"Preheat does not implement {member}.")
        value = domain.secret_value(params)
        token = self._token(ctx, params)
        present = repository.by_name(ctx.db, ctx.scope, name)
        if present is not None:
            if present.deleted is not None:
                raise invalid_request(
                    "You can't create this secret because a secret with this name is already scheduled for deletion."
                )
            same = next((v for v in repository.versions(ctx.db, present.row) if v.id == token), None)
            if same is not None and self._holds(same, value):
                return _named(present, VersionId=token)
            raise AwsError("ResourceExistsException", f"The operation failed because the secret {name} already exists.")
        suffix = ctx.entropy.token(6, domain.SUFFIX_ALPHABET)
        row = repository.add(
            ctx.db, ctx.scope, name, ctx.scope.arn("secretsmanager", f"secret:{name}-{suffix}"), params, ctx.now
        )
        created = repository.by_name(ctx.db, ctx.scope, name)
        if created is None or created.row != row:
            raise domain.not_found()
        if value is None:
            return _named(created)
        self._add_version(ctx, created, token, value, [CURRENT])
        return _named(created, VersionId=token)

    def _token(self, ctx: Context, params: Params) -> str:
        token = params.get("ClientRequestToken")
        if token is None:
            return ctx.entropy.uuid()
        domain.check_token(token)
        return token

    def _holds(self, version: Version, value: tuple[bytes, bool] | None) -> bool:
        return value == (self._vault.open(version.value), version.binary)

    def _add_version(
        self, ctx: Context, secret: Secret, token: str, value: tuple[bytes, bool], stages: list[str]
    ) -> list[str]:
        """Add a version, or find the one this token already made; returns its stages. Raises
        ResourceExistsException for a token that made another value."""
        versions = repository.versions(ctx.db, secret.row)
        same = next((version for version in versions if version.id == token), None)
        if same is not None:
            if not self._holds(same, value):
                raise AwsError(
                    "ResourceExistsException",
                    f"You can't use ClientRequestToken {token} because that value is already in use for a version of "
                    f"secret {secret.arn}.",
                )
            return same.stages
        if not versions and CURRENT not in stages:
            stages = [*stages, CURRENT]
        repository.add_version(ctx.db, Version(secret.row, token, self._vault.seal(value[0]), value[1], ctx.now, []))
        for stage in stages:
            self._move(ctx, secret, stage, token)
        self._drop_deprecated(ctx, secret)
        repository.change(ctx.db, secret.row, "changed", ctx.now)
        return stages

    def _move(self, ctx: Context, secret: Secret, stage: str, target: str | None) -> None:
        """Put a stage on `target` alone; the version that AWSCURRENT leaves becomes AWSPREVIOUS."""
        versions = repository.versions(ctx.db, secret.row)
        holder = next((version.id for version in versions if stage in version.stages), None)
        if holder == target:
            return
        demotes = stage == CURRENT and holder is not None
        for version in versions:
            taken = {stage, PREVIOUS} if demotes else {stage}
            stages = [name for name in version.stages if name not in taken]
            if version.id == target:
                stages.append(stage)
            if demotes and version.id == holder:
                stages.append(PREVIOUS)
            if stages != version.stages:
                repository.set_stages(ctx.db, secret.row, version.id, stages)

    def _drop_deprecated(self, ctx: Context, secret: Secret) -> None:
        """Beyond a hundred versions the oldest without a stage go."""
        versions = repository.versions(ctx.db, secret.row)
        bare = [version for version in versions if not version.stages]
        for version in bare[: max(0, len(versions) - domain.MAX_VERSIONS)]:
            repository.delete_version(ctx.db, secret.row, version.id)

    def put_secret_value(self, ctx: Context, params: Params) -> Outcome:
        secret = self._secret(ctx, params)
        if "RotationToken" in params:
            raise invalid_parameter("Preheat does not implement rotation tokens.")
        value = domain.secret_value(params)
        if value is None:
            raise invalid_request("You must provide either SecretString or SecretBinary.")
        token, stages = self._token(ctx, params), params.get("VersionStages", [CURRENT])
        if not 1 <= len(stages) <= domain.MAX_STAGES:
            raise invalid_parameter(f"VersionStages must have 1 to {domain.MAX_STAGES} items.")
        stages = self._add_version(ctx, secret, token, value, list(stages))
        return _named(secret, VersionId=token, VersionStages=stages)

    def update_secret(self, ctx: Context, params: Params) -> Outcome:
        secret = self._secret(ctx, params)
        if "Type" in params:
            raise invalid_parameter("Preheat does not implement Type.")
        value = domain.secret_value(params)
        for member, column in (("Description", "description"), ("KmsKeyId", "kms_key")):
            if member in params:
                repository.change(ctx.db, secret.row, column, params[member])
        repository.change(ctx.db, secret.row, "changed", ctx.now)
        if value is None:
            return _named(secret)
        token = self._token(ctx, params)
        self._add_version(ctx, secret, token, value, [CURRENT])
        return _named(secret, VersionId=token)

    def update_secret_version_stage(self, ctx: Context, params: Params) -> Outcome:
        secret, stage = self._secret(ctx, params), params["VersionStage"]
        source, target = params.get("RemoveFromVersionId"), params.get("MoveToVersionId")
        versions = {version.id: version for version in repository.versions(ctx.db, secret.row)}
        holder = next((version.id for version in versions.values() if stage in version.stages), None)
        if source is None and target is None:
            raise invalid_parameter("You must provide RemoveFromVersionId, MoveToVersionId, or both.")
        for identifier in (source, target):
            if identifier is not None and identifier not in versions:
                raise domain.no_version(identifier, "VersionId")
        if source is not None and source != holder:
            raise invalid_parameter(
                f"The parameter RemoveFromVersionId can't be used because staging label {stage} is not attached to "
                f"version {source}."
            )
        if target is not None and holder not in (None, target) and source is None:
            raise invalid_parameter(
                f"The parameter RemoveFromVersionId can't be empty. Staging label {stage} is currently attached to "
                f"version {holder}, so you must explicitly reference that version in RemoveFromVersionId."
            )
        if stage == CURRENT and target is None:
            raise invalid_parameter(
                f"You can only move staging label {CURRENT} to a different secret version. It can't be "
                "completely removed."
            )
        self._move(ctx, secret, stage, target)
        repository.change(ctx.db, secret.row, "changed", ctx.now)
        return _named(secret)

    # -- reading ------------------------------------------------------------------------------------------------------

    def get_secret_value(self, ctx: Context, params: Params) -> Outcome:
        secret = self._secret(ctx, params)
        wanted, stage = params.get("VersionId"), params.get("VersionStage")
        chosen = None
        for version in repository.versions(ctx.db, secret.row):
            if wanted is not None:
                if version.id == wanted:
                    chosen = version
            elif (stage or CURRENT) in version.stages:
                chosen = version
        if chosen is None:
            if wanted is not None:
                raise domain.no_version(wanted, "VersionId")
            raise domain.no_version(stage or CURRENT, "staging label")
        if wanted is not None and stage is not None and stage not in chosen.stages:
            raise invalid_request("You provided a VersionStage that is not associated to the provided VersionId.")
        today = int(ctx.now) // domain.DAY_S * domain.DAY_S
        if secret.accessed != today:
            repository.change(ctx.db, secret.row, "accessed", today)
        value = self._vault.open(chosen.value)
        output = _named(secret, VersionId=chosen.id, VersionStages=chosen.stages, CreatedDate=_moment(chosen.created))
        if chosen.binary:
            output["SecretBinary"] = value
        else:
            output["SecretString"] = value.decode()
        return output

    def batch_get_secret_value(self, ctx: Context, params: Params) -> Outcome:
        identifiers = params.get("SecretIdList")
        if (identifiers is None) == ("Filters" not in params):
            raise invalid_parameter("You must include Filters or SecretIdList, but not both.")
        more: Params = {}
        if identifiers is None:
            secrets = self._filtered(ctx, params["Filters"])
            shown, more = _paged([secret.arn for secret in secrets if secret.deleted is None], params, 20)
        elif not 1 <= len(identifiers) <= 20 or "MaxResults" in params:
            raise invalid_parameter("SecretIdList must have 1 to 20 items, and MaxResults goes with Filters.")
        else:
            shown = identifiers
        values, errors = [], []
        for identifier in shown:
            try:
                values.append(self.get_secret_value(ctx, {"SecretId": identifier}))
            except AwsError as error:
                errors.append({"SecretId": identifier, "ErrorCode": error.code, "Message": error.message})
        return {"SecretValues": values, "Errors": errors, **more}

    def _facts(self, ctx: Context, secret: Secret, versions_member: str) -> Params:
        output = _named(secret, CreatedDate=_moment(secret.created), LastChangedDate=_moment(secret.changed))
        stages = {version.id: version.stages for version in repository.versions(ctx.db, secret.row) if version.stages}
        if stages:
            output[versions_member] = stages
        for member, value in (
            ("Description", secret.description),
            ("KmsKeyId", secret.kms_key),
            ("LastAccessedDate", None if secret.accessed is None else _moment(secret.accessed)),
            ("DeletedDate", None if secret.deleted is None else _moment(secret.deleted)),
            ("Tags", [{"Key": key, "Value": text} for key, text in secret.tags.items()] or None),
        ):
            if value is not None:
                output[member] = value
        return output

    def describe_secret(self, ctx: Context, params: Params) -> Outcome:
        return self._facts(ctx, self._secret(ctx, params, even_deleted=True), "VersionIdsToStages")

    def _filtered(self, ctx: Context, filters: list[Params]) -> list[Secret]:
        repository.purge(ctx.db, ctx.scope, ctx.now)
        for given in filters:
            if given.get("Key", "all") not in domain.FILTER_KEYS:
                raise AwsError("ValidationException", f"Invalid filter key: {given['Key']}")
        return [
            secret
            for secret in repository.everything(ctx.db, ctx.scope)
            if domain.passes(filters, secret.name, secret.description or "", secret.tags, secret.region)
        ]

    def list_secrets(self, ctx: Context, params: Params) -> Outcome:
        found = [
            secret
            for secret in self._filtered(ctx, params.get("Filters", []))
            if secret.deleted is None or params.get("IncludePlannedDeletion", False)
        ]
        order = {
            "name": lambda secret: secret.name,
            "created-date": lambda secret: secret.created,
            "last-changed-date": lambda secret: secret.changed,
            "last-accessed-date": lambda secret: secret.accessed or 0,
        }
        by = params.get("SortBy", "created-date")
        if by not in order:
            raise invalid_parameter(f"Invalid SortBy: {by}")
        found.sort(key=order[by], reverse=params.get("SortOrder", "desc") == "desc")
        shown, more = _paged(found, params)
        return {"SecretList": [self._facts(ctx, secret, "SecretVersionsToStages") for secret in shown], **more}

    def list_secret_version_ids(self, ctx: Context, params: Params) -> Outcome:
        secret = self._secret(ctx, params, even_deleted=True)
        versions = [
            {"VersionId": version.id, "VersionStages": version.stages, "CreatedDate": _moment(version.created)}
            for version in repository.versions(ctx.db, secret.row)
            if version.stages or params.get("IncludeDeprecated", False)
        ]
        shown, more = _paged(versions, params)
        return _named(secret, Versions=shown, **more)

    # -- deleting -----------------------------------------------------------------------------------------------------

    def delete_secret(self, ctx: Context, params: Params) -> Outcome:
        force, days = params.get("ForceDeleteWithoutRecovery", False), params.get("RecoveryWindowInDays")
        if force and days is not None:
            raise invalid_parameter(
                "You can't use ForceDeleteWithoutRecovery in conjunction with RecoveryWindowInDays."
            )
        if days is not None and not 7 <= days <= 30:
            raise invalid_parameter("The RecoveryWindowInDays value must be between 7 and 30 days (inclusive).")
        try:
            secret = self._secret(ctx, params, even_deleted=force)
        except AwsError as error:
            if not force or error.code != "ResourceNotFoundException":
                raise
            name = params["SecretId"].rsplit(":", 1)[-1]
            arn = ctx.scope.arn("secretsmanager", f"secret:{name}")
            return {"ARN": arn, "Name": name, "DeletionDate": _moment(ctx.now)}
        if force:
            repository.delete(ctx.db, secret.row)
            return _named(secret, DeletionDate=_moment(ctx.now))
        purge_at = ctx.now + (days or 30) * domain.DAY_S
        repository.change(ctx.db, secret.row, "deleted", ctx.now)
        repository.change(ctx.db, secret.row, "purge_at", purge_at)
        return _named(secret, DeletionDate=_moment(purge_at))

    def restore_secret(self, ctx: Context, params: Params) -> Outcome:
        secret = self._secret(ctx, params, even_deleted=True)
        repository.change(ctx.db, secret.row, "deleted", None)
        repository.change(ctx.db, secret.row, "purge_at", None)
        return _named(secret)

    # -- the rest -----------------------------------------------------------------------------------------------------

    def get_random_password(self, ctx: Context, params: Params) -> Outcome:
        def draw(below: int) -> int:
            return int.from_bytes(ctx.entropy.bytes(8), "big") % below

        return {"RandomPassword": domain.random_password(params, draw)}

    def tag_resource(self, ctx: Context, params: Params) -> Outcome:
        secret = self._secret(ctx, params)
        tags = {**secret.tags, **domain.tags_of(params["Tags"])}
        if len(tags) > 50:
            raise invalid_parameter("A secret can have at most 50 tags.")
        repository.change(ctx.db, secret.row, "tags", json.dumps(tags))
        return {}

    def untag_resource(self, ctx: Context, params: Params) -> Outcome:
        secret = self._secret(ctx, params)
        tags = {key: value for key, value in secret.tags.items() if key not in params["TagKeys"]}
        repository.change(ctx.db, secret.row, "tags", json.dumps(tags))
        return {}

    def put_resource_policy(self, ctx: Context, params: Params) -> Outcome:
        secret = self._secret(ctx, params)
        try:
            statements = parse(params["ResourcePolicy"])
        except MalformedPolicy as error:
            raise AwsError(
                "MalformedPolicyDocumentException", f"This resource policy contains a syntax error: {error}"
            ) from None
        if params.get("BlockPublicPolicy", False) and any(map(domain.is_public, statements)):
            raise AwsError(
                "PublicPolicyException", "This resource policy grants broad access to the secret: it was not attached."
            )
        repository.change(ctx.db, secret.row, "policy", params["ResourcePolicy"])
        return _named(secret)

    def get_resource_policy(self, ctx: Context, params: Params) -> Outcome:
        secret = self._secret(ctx, params)
        return _named(secret) if secret.policy is None else _named(secret, ResourcePolicy=secret.policy)

    def delete_resource_policy(self, ctx: Context, params: Params) -> Outcome:
        secret = self._secret(ctx, params)
        repository.change(ctx.db, secret.row, "policy", None)
        return _named(secret)

    def rotate_secret(self, ctx: Context, params: Params) -> Outcome:
        self._secret(ctx, params)
        if "RotationLambdaARN" not in params:
            raise invalid_request("No Lambda rotation function ARN is associated with this secret.")
        raise invalid_request("Preheat does not rotate secrets: no rotation function was configured or called.")

    def cancel_rotate_secret(self, ctx: Context, params: Params) -> Outcome:
        self._secret(ctx, params)
        raise invalid_request("You can't cancel rotation for a secret that doesn't have rotation enabled.")


def build(platform: Platform) -> SecretsManagerService:
    return SecretsManagerService(Vault(platform.db.directory, platform.entropy))

"""Amazon Bedrock's control plane: guardrails with their versions and tags, and the models that there are."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from preheat.kernel.errors import AwsError, ValidationError
from preheat.kernel.scope import Arn, Scope
from preheat.services.bedrock import domain, repository
from preheat.services.bedrock.catalogue import details
from preheat.services.bedrock.repository import DRAFT, Guardrail, Version
from preheat.services.constraints import check_choice, check_number, violated
from preheat.services.contract import Context, Operation, Outcome, Params, Platform

SCHEMA = (Path(__file__).parent / "schema.sql").read_text()
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
LEAST_CHANGE_S = 0.001
"""Two changes of a DRAFT never have the same time: whoever keeps it ready tells them apart by it."""
TOKEN = r"[a-zA-Z0-9]([-a-zA-Z0-9]{0,254}[a-zA-Z0-9])?"


class BedrockService:
    name = "bedrock"
    schema = SCHEMA

    def __init__(self) -> None:
        self.operations: dict[str, Operation] = {
            "CreateGuardrail": create_guardrail,
            "GetGuardrail": get_guardrail,
            "UpdateGuardrail": update_guardrail,
            "DeleteGuardrail": delete_guardrail,
            "ListGuardrails": list_guardrails,
            "CreateGuardrailVersion": create_guardrail_version,
            "TagResource": tag_resource,
            "UntagResource": untag_resource,
            "ListTagsForResource": list_tags_for_resource,
            "ListFoundationModels": list_foundation_models,
            "GetFoundationModel": get_foundation_model,
        }


# -- guardrails --------------------------------------------------------------------------------------------------------


def create_guardrail(ctx: Context, params: Params) -> Outcome:
    domain.check(params)
    tags = params.get("tags") or []
    domain.check_tags(tags)
    if len(tags) > domain.MOST_TAGS:
        raise _too_many_tags("")

    def make() -> Params:
        if repository.named(ctx.db, ctx.scope, params["name"]) is not None:
            raise _name_taken()
        if len(repository.everything(ctx.db, ctx.scope)) >= domain.MOST_GUARDRAILS:
            raise _quota(f"guardrails per account: {domain.MOST_GUARDRAILS}")
        id = ctx.entropy.token(12, ALPHABET)
        guardrail = Guardrail(id, params["name"], {tag["key"]: tag["value"] for tag in tags}, 0)
        repository.put(ctx.db, ctx.scope, guardrail)
        version = Version(DRAFT, _configuration(params), ctx.now, ctx.now)
        repository.put_version(ctx.db, ctx.scope, id, version)
        return {"guardrailId": id, "guardrailArn": domain.arn_of(ctx.scope, id), "version": "DRAFT", "at": ctx.now}

    made = _once(ctx, params, "CreateGuardrail", make)
    at = made.pop("at")
    return {**made, "createdAt": _moment(at)}


def get_guardrail(ctx: Context, params: Params) -> Outcome:
    scope, guardrail = _found(ctx, params["guardrailIdentifier"])
    number = domain.read_version(params.get("guardrailVersion"))
    version = repository.version(ctx.db, scope, guardrail.id, number)
    if version is None:
        raise domain.not_found(params["guardrailIdentifier"])
    return {
        **domain.shown(version.document, scope),
        "guardrailId": guardrail.id,
        "guardrailArn": domain.arn_of(scope, guardrail.id),
        "version": version.label,
        "status": "READY",
        "createdAt": _moment(version.created),
        "updatedAt": _moment(version.updated),
    }


def update_guardrail(ctx: Context, params: Params) -> Outcome:
    """The DRAFT becomes what is given, as a whole; versions stay what they are."""
    scope, guardrail = _found(ctx, params["guardrailIdentifier"])
    domain.check(params)
    other = repository.named(ctx.db, scope, params["name"])
    if other is not None and other.id != guardrail.id:
        raise _name_taken()
    draft = repository.version(ctx.db, scope, guardrail.id, DRAFT)
    assert draft is not None
    updated = max(ctx.now, draft.updated + LEAST_CHANGE_S)
    repository.put(ctx.db, scope, replace(guardrail, name=params["name"]))
    version = Version(DRAFT, _configuration(params), draft.created, updated)
    repository.put_version(ctx.db, scope, guardrail.id, version)
    arn = domain.arn_of(scope, guardrail.id)
    return {"guardrailId": guardrail.id, "guardrailArn": arn, "version": "DRAFT", "updatedAt": _moment(updated)}


def delete_guardrail(ctx: Context, params: Params) -> Outcome:
    """The guardrail with all its versions, or one version."""
    scope, guardrail = _found(ctx, params["guardrailIdentifier"])
    label = params.get("guardrailVersion")
    if label is None:
        repository.remove(ctx.db, scope, guardrail.id)
        return {}
    number = domain.read_version(label)
    if number == DRAFT:
        raise violated("guardrailVersion", label, "satisfy regular expression pattern: [1-9][0-9]{0,7}")
    if repository.version(ctx.db, scope, guardrail.id, number) is None:
        raise domain.not_found(params["guardrailIdentifier"])
    repository.remove_version(ctx.db, scope, guardrail.id, number)
    return {}


def create_guardrail_version(ctx: Context, params: Params) -> Outcome:
    """A numbered copy of the DRAFT, which never changes."""
    scope, guardrail = _found(ctx, params["guardrailIdentifier"])
    domain.text(params, "description", 1, 200)

    def make() -> Params:
        there = repository.versions(ctx.db, scope, guardrail.id)
        if len(there) > domain.MOST_VERSIONS:
            raise _quota(f"versions per guardrail: {domain.MOST_VERSIONS}")
        document = dict(there[0].document)
        if params.get("description"):
            document["description"] = params["description"]
        number = guardrail.last_version + 1
        repository.put(ctx.db, scope, replace(guardrail, last_version=number))
        repository.put_version(ctx.db, scope, guardrail.id, Version(number, document, ctx.now, ctx.now))
        return {"guardrailId": guardrail.id, "version": str(number)}

    return _once(ctx, params, "CreateGuardrailVersion", make)


def list_guardrails(ctx: Context, params: Params) -> Outcome:
    """The DRAFT of every guardrail, or all versions of one."""
    check_number(params, "maxResults", 1, 1_000)
    identifier = params.get("guardrailIdentifier")
    if identifier is None:
        scope = ctx.scope
        found = [
            (guardrail, version)
            for guardrail in repository.everything(ctx.db, scope)
            if (version := repository.version(ctx.db, scope, guardrail.id, DRAFT)) is not None
        ]
    else:
        scope, guardrail = _found(ctx, identifier)
        found = [(guardrail, version) for version in repository.versions(ctx.db, scope, guardrail.id)]
    token = params.get("nextToken", "0")
    if not (token.isascii() and token.isdigit()):
        raise ValidationError("The provided nextToken is invalid.")
    first, size = int(token), params.get("maxResults", 1_000)
    page = found[first : first + size]
    more = {"nextToken": str(first + size)} if len(found) > first + size else {}
    return {"guardrails": [_summary(scope, *one) for one in page], **more}


def _summary(scope: Scope, guardrail: Guardrail, version: Version) -> Params:
    document = version.document
    return {
        "id": guardrail.id,
        "arn": domain.arn_of(scope, guardrail.id),
        "status": "READY",
        "name": document["name"],
        **({"description": document["description"]} if "description" in document else {}),
        "version": version.label,
        "createdAt": _moment(version.created),
        "updatedAt": _moment(version.updated),
        **domain.cross_region(document, scope),
    }


# -- tags --------------------------------------------------------------------------------------------------------------


def tag_resource(ctx: Context, params: Params) -> Outcome:
    domain.check_tags(params["tags"])
    scope, guardrail = _tagged(ctx, params)
    tags = {**guardrail.tags, **{tag["key"]: tag["value"] for tag in params["tags"]}}
    if len(tags) > domain.MOST_TAGS:
        raise _too_many_tags(params["resourceARN"])
    repository.put(ctx.db, scope, replace(guardrail, tags=tags))
    return {}


def untag_resource(ctx: Context, params: Params) -> Outcome:
    scope, guardrail = _tagged(ctx, params)
    tags = {key: value for key, value in guardrail.tags.items() if key not in params["tagKeys"]}
    repository.put(ctx.db, scope, replace(guardrail, tags=tags))
    return {}


def list_tags_for_resource(ctx: Context, params: Params) -> Outcome:
    _, guardrail = _tagged(ctx, params)
    return {"tags": [{"key": key, "value": value} for key, value in guardrail.tags.items()]}


def _tagged(ctx: Context, params: Params) -> tuple[Scope, Guardrail]:
    """Of all resources of Bedrock only guardrails are here to be tagged."""
    arn = params["resourceARN"]
    if ":guardrail/" not in arn:
        raise AwsError("ResourceNotFoundException", f"The resource {arn} does not exist.", 404)
    return _found(ctx, arn)


# -- models ------------------------------------------------------------------------------------------------------------


def list_foundation_models(ctx: Context, params: Params) -> Outcome:
    """The models that answer here; none of them can be customised or provisioned."""
    check_choice(params, "byCustomizationType", ("FINE_TUNING", "CONTINUED_PRE_TRAINING", "DISTILLATION"))
    check_choice(params, "byOutputModality", ("TEXT", "IMAGE", "EMBEDDING"))
    check_choice(params, "byInferenceType", ("ON_DEMAND", "PROVISIONED"))
    provider = params.get("byProvider")
    if provider is not None and re.fullmatch(r"[A-Za-z0-9- ]{1,63}", provider) is None:
        raise violated("byProvider", provider, "satisfy regular expression pattern: [A-Za-z0-9- ]{1,63}")
    found = []
    for model in _models(ctx):
        one = details(model, ctx.scope.region)
        wanted = (
            (provider or one["providerName"]).lower() == one["providerName"].lower()
            and params.get("byOutputModality", one["outputModalities"][0]) in one["outputModalities"]
            and params.get("byInferenceType", "ON_DEMAND") in one["inferenceTypesSupported"]
            and "byCustomizationType" not in params
        )
        if wanted:
            found.append(one)
    return {"modelSummaries": found}


def get_foundation_model(ctx: Context, params: Params) -> Outcome:
    given = params["modelIdentifier"]
    id = given
    if given.startswith("arn:"):
        try:
            id = Arn.parse(given).resource.partition("/")[2]
        except ValueError:
            raise ValidationError("The provided model identifier is invalid.") from None
    for model in _models(ctx):
        if model.id == id:
            return {"modelDetails": details(model, ctx.scope.region)}
    raise AwsError("ResourceNotFoundException", "The provided model identifier is invalid.", 404)


def _models(ctx: Context) -> list[Any]:
    runtime: Any = ctx.machine.services.get("bedrock-runtime")
    return [] if runtime is None else runtime.models()


# -- shared ------------------------------------------------------------------------------------------------------------


def _found(ctx: Context, identifier: str) -> tuple[Scope, Guardrail]:
    """Another account's guardrail, or another region's, is none of the caller's."""
    scope, id = domain.read_identifier(identifier, ctx.scope)
    guardrail = repository.find(ctx.db, scope, id) if scope == ctx.scope else None
    if guardrail is None:
        raise domain.not_found(identifier)
    return scope, guardrail


def _configuration(params: Params) -> dict[str, Any]:
    return {name: params[name] for name in domain.CONFIGURATION if params.get(name) is not None}


def _once(ctx: Context, params: Params, operation: str, make: Callable[[], Params]) -> Params:
    """What `make` gives; for a client request token that was used, what it gave then. Raises ConflictException for a
    token that was used for something else."""
    token = params.get("clientRequestToken")
    if token is None:
        return make()
    if re.fullmatch(TOKEN, token) is None:
        raise violated("clientRequestToken", token, f"satisfy regular expression pattern: {TOKEN}")
    asked = {name: value for name, value in params.items() if name != "clientRequestToken"}
    digest = hashlib.sha256(msgspec.json.encode([operation, asked], order="deterministic")).hexdigest()
    known = repository.answered(ctx.db, ctx.scope, token, ctx.now)
    if known is not None:
        if known[0] != digest:
            raise AwsError(
                "ConflictException", "The client request token was already used with different parameters.", 400
            )
        return known[1]
    made = make()
    repository.remember(ctx.db, ctx.scope, token, digest, made, ctx.now)
    return dict(made)


def _name_taken() -> AwsError:
    return AwsError("ConflictException", "Another guardrail in your account already has this name.", 400)


def _quota(what: str) -> AwsError:
    return AwsError("ServiceQuotaExceededException", f"The request exceeds the service quota ({what}).", 400)


def _too_many_tags(resource: str) -> AwsError:
    message = f"A resource can have at most {domain.MOST_TAGS} tags."
    return AwsError("TooManyTagsException", message, 400, fields={"resourceName": resource} if resource else {})


def _moment(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)


def build(platform: Platform) -> BedrockService:
    return BedrockService()

"""Managed policies: the account's own, with versions, and AWS's."""

from typing import Any

from preheat.identity.policy import check_identity_policy
from preheat.kernel.errors import AwsError
from preheat.services.contract import Context, Operation, Outcome, Params
from preheat.services.iam import domain, repository
from preheat.services.iam.entities import encoded, moment, new_id, page
from preheat.services.iam.managed import CREATED, MANAGED
from preheat.services.iam.repository import Policy, Version


def _aws(arn: str) -> Policy:
    path, _, name = arn.removeprefix("arn:aws:iam::aws:policy").rpartition("/")
    return Policy(arn, "aws", name, f"ANPA{name.upper()[:17]}", path + "/", None, CREATED, CREATED, 1, 1, {})


def found(ctx: Context, arn: str) -> Policy:
    """Raises NoSuchEntity."""
    policy = _aws(arn) if arn in MANAGED else repository.policy(ctx.db, arn)
    if policy is None:
        raise domain.no_such_policy(arn)
    return policy


def _own(ctx: Context, arn: str) -> Policy:
    if arn in MANAGED:
        raise AwsError("AccessDenied", f"Cannot change the AWS managed policy {arn}.", 403)
    return found(ctx, arn)


def document(ctx: Context, arn: str) -> str | None:
    """The policy's default version, None for a policy that is not there."""
    return MANAGED.get(arn) or repository.current_document(ctx.db, arn)


def described(ctx: Context, policy: Policy, *, brief: bool = False) -> Params:
    output: Params = {
        "PolicyName": policy.name,
        "PolicyId": policy.id,
        "Arn": policy.arn,
        "Path": policy.path,
        "DefaultVersionId": f"v{policy.current}",
        "AttachmentCount": len(repository.holders(ctx.db, policy.arn)),
        "PermissionsBoundaryUsageCount": len(repository.bounded_by(ctx.db, policy.arn)),
        "IsAttachable": True,
        "CreateDate": moment(policy.created),
        "UpdateDate": moment(policy.updated),
    }
    if not brief:
        if policy.description is not None:
            output["Description"] = policy.description
        if policy.tags:
            output["Tags"] = domain.tag_list(policy.tags)
    return output


def _check(text: str) -> None:
    if len("".join(text.split())) > domain.MANAGED_BYTES:
        raise domain.limit_exceeded(f"Cannot exceed quota for PolicySize: {domain.MANAGED_BYTES}")
    domain.check_document(check_identity_policy, text)


def create_policy(ctx: Context, params: Params) -> Outcome:
    name, path, text = params["PolicyName"], params.get("Path", "/"), params["PolicyDocument"]
    domain.check_name("policy", name)
    domain.check_path(path)
    _check(text)
    account, now = ctx.scope.account, int(ctx.now)
    if any(policy.name.lower() == name.lower() for policy in repository.policies(ctx.db, account)):
        raise AwsError(
            "EntityAlreadyExists", f"A policy called {name} already exists. Duplicate names are not allowed.", 409
        )
    policy = Policy(
        f"arn:aws:iam::{account}:policy{path}{name}", account, name, new_id(ctx, "policy"), path,
        params.get("Description"), now, now, 1, 1, domain.tag_map(params.get("Tags", [])),
    )  # fmt: skip
    repository.add_policy(ctx.db, policy, text)
    return {"Policy": described(ctx, policy)}


def get_policy(ctx: Context, params: Params) -> Outcome:
    return {"Policy": described(ctx, found(ctx, params["PolicyArn"]))}


def list_policies(ctx: Context, params: Params) -> Outcome:
    scope, path = params.get("Scope", "All"), params.get("PathPrefix", "/")
    policies: list[Policy] = []
    if scope in ("All", "Local"):
        policies += repository.policies(ctx.db, ctx.scope.account)
    if scope in ("All", "AWS"):
        policies += [_aws(arn) for arn in MANAGED]
    usage = params.get("PolicyUsageFilter")
    chosen = []
    for policy in policies:
        attached, bounds = repository.holders(ctx.db, policy.arn), repository.bounded_by(ctx.db, policy.arn)
        if (
            policy.path.startswith(path)
            and (not params.get("OnlyAttached", False) or attached)
            and (usage != "PermissionsPolicy" or attached)
            and (usage != "PermissionsBoundary" or bounds)
        ):
            chosen.append(policy)
    shown, more = page(chosen, params, lambda policy: policy.arn)
    return {"Policies": [described(ctx, policy, brief=True) for policy in shown], **more}


def delete_policy(ctx: Context, params: Params) -> Outcome:
    policy = _own(ctx, params["PolicyArn"])
    if repository.holders(ctx.db, policy.arn) or repository.bounded_by(ctx.db, policy.arn):
        raise AwsError("DeleteConflict", "Cannot delete a policy attached to entities.", 409)
    if len(repository.versions(ctx.db, policy.arn)) > 1:
        raise AwsError(
            "DeleteConflict",
            "This policy has more than one version. Before you delete a policy, you must delete the policy's versions. "
            "The default version is deleted with the policy.",
            409,
        )
    repository.delete_policy(ctx.db, policy.arn)
    return {}


def _versions(ctx: Context, policy: Policy) -> list[Version]:
    if policy.arn in MANAGED:
        return [Version(1, MANAGED[policy.arn], CREATED)]
    return repository.versions(ctx.db, policy.arn)


def _version(ctx: Context, policy: Policy, name: str) -> Version:
    for version in _versions(ctx, policy):
        if f"v{version.version}" == name:
            return version
    raise AwsError("NoSuchEntity", f"Policy {policy.arn} version {name} does not exist or is not attachable.", 404)


def _version_described(policy: Policy, version: Version, *, with_document: bool) -> Params:
    output: dict[str, Any] = {
        "VersionId": f"v{version.version}",
        "IsDefaultVersion": version.version == policy.current,
        "CreateDate": moment(version.created),
    }
    if with_document:
        output["Document"] = encoded(version.document)
    return output


def create_policy_version(ctx: Context, params: Params) -> Outcome:
    policy, text = _own(ctx, params["PolicyArn"]), params["PolicyDocument"]
    _check(text)
    if len(repository.versions(ctx.db, policy.arn)) >= domain.MAX_VERSIONS:
        raise domain.limit_exceeded(
            f"A managed policy can have up to {domain.MAX_VERSIONS} versions. Before you create a new version, you "
            "must delete an existing version."
        )
    version = Version(policy.latest + 1, text, int(ctx.now))
    current = version.version if params.get("SetAsDefault", False) else policy.current
    changed = policy._replace(latest=version.version, current=current, updated=int(ctx.now))
    repository.add_version(ctx.db, policy.arn, version.version, text, version.created)
    repository.change_policy(ctx.db, changed)
    return {"PolicyVersion": _version_described(changed, version, with_document=False)}


def get_policy_version(ctx: Context, params: Params) -> Outcome:
    policy = found(ctx, params["PolicyArn"])
    version = _version(ctx, policy, params["VersionId"])
    return {"PolicyVersion": _version_described(policy, version, with_document=True)}


def list_policy_versions(ctx: Context, params: Params) -> Outcome:
    policy = found(ctx, params["PolicyArn"])
    shown, more = page(_versions(ctx, policy), params, lambda version: f"v{version.version}")
    return {"Versions": [_version_described(policy, version, with_document=False) for version in shown], **more}


def set_default_policy_version(ctx: Context, params: Params) -> Outcome:
    policy = _own(ctx, params["PolicyArn"])
    version = _version(ctx, policy, params["VersionId"])
    repository.change_policy(ctx.db, policy._replace(current=version.version, updated=int(ctx.now)))
    return {}


def delete_policy_version(ctx: Context, params: Params) -> Outcome:
    policy = _own(ctx, params["PolicyArn"])
    version = _version(ctx, policy, params["VersionId"])
    if version.version == policy.current:
        raise AwsError("DeleteConflict", "Cannot delete the default version of a policy.", 409)
    repository.delete_version(ctx.db, policy.arn, version.version)
    return {}


def list_entities_for_policy(ctx: Context, params: Params) -> Outcome:
    policy = found(ctx, params["PolicyArn"])
    usage, path = params.get("PolicyUsageFilter"), params.get("PathPrefix", "/")
    holders = [] if usage == "PermissionsBoundary" else repository.holders(ctx.db, policy.arn)
    if usage != "PermissionsPolicy":
        holders += repository.bounded_by(ctx.db, policy.arn)
    wanted = params.get("EntityFilter")
    chosen = [
        entity for entity in holders if entity.path.startswith(path) and wanted in (None, entity.kind.capitalize())
    ]
    shown, more = page(chosen, params, lambda entity: entity.arn)
    output: Params = {"PolicyGroups": [], "PolicyUsers": [], "PolicyRoles": [], **more}
    for entity in shown:
        title = entity.kind.capitalize()
        output[f"Policy{title}s"].append({f"{title}Name": entity.name, f"{title}Id": entity.id})
    return output


def tag_policy(ctx: Context, params: Params) -> Outcome:
    policy = _own(ctx, params["PolicyArn"])
    repository.change_policy(ctx.db, policy._replace(tags=domain.tag_map(params["Tags"], policy.tags)))
    return {}


def untag_policy(ctx: Context, params: Params) -> Outcome:
    policy = _own(ctx, params["PolicyArn"])
    gone = {key.lower() for key in params["TagKeys"]}
    tags = {key: value for key, value in policy.tags.items() if key.lower() not in gone}
    repository.change_policy(ctx.db, policy._replace(tags=tags))
    return {}


def list_policy_tags(ctx: Context, params: Params) -> Outcome:
    shown, more = page(domain.tag_list(found(ctx, params["PolicyArn"]).tags), params, lambda tag: tag["Key"])
    return {"Tags": shown, **more}


OPERATIONS: dict[str, Operation] = {
    "CreatePolicy": create_policy,
    "GetPolicy": get_policy,
    "ListPolicies": list_policies,
    "DeletePolicy": delete_policy,
    "CreatePolicyVersion": create_policy_version,
    "GetPolicyVersion": get_policy_version,
    "ListPolicyVersions": list_policy_versions,
    "SetDefaultPolicyVersion": set_default_policy_version,
    "DeletePolicyVersion": delete_policy_version,
    "ListEntitiesForPolicy": list_entities_for_policy,
    "TagPolicy": tag_policy,
    "UntagPolicy": untag_policy,
    "ListPolicyTags": list_policy_tags,
}

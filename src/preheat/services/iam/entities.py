"""Users, roles and groups: the same operations over three kinds, and what each has of its own."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from preheat.identity import sessions
from preheat.identity.policy import check_identity_policy, check_trust_policy
from preheat.kernel.errors import AwsError
from preheat.services.contract import Context, Operation, Outcome, Params
from preheat.services.iam import domain, repository
from preheat.services.iam.managed import MANAGED
from preheat.services.iam.repository import AccessKey, Entity

SECRET_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def moment(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)


def encoded(document: str) -> str:
    """Policy documents are answered URL-encoded."""
    return quote(document, safe="-_.~")


def page(items: list[Any], params: Params, mark: Callable[[Any], str]) -> tuple[list[Any], Params]:
    """One page of a whole list, by Marker (the last item's mark) and MaxItems."""
    marker, limit = params.get("Marker", ""), params.get("MaxItems", 100)
    if not 1 <= limit <= 1_000:
        raise AwsError(
            "ValidationError",
            f"1 validation error detected: Value '{limit}' at 'maxItems' failed to satisfy constraint: Member must "
            "have value less than or equal to 1000",
        )
    rest = items
    if marker:
        position = next((index for index, item in enumerate(items) if mark(item) == marker), None)
        if position is None:
            raise AwsError("ValidationError", f"Invalid Marker: {marker}")
        rest = items[position + 1 :]
    shown = rest[:limit]
    if len(rest) > limit:
        return shown, {"IsTruncated": True, "Marker": mark(shown[-1])}
    return shown, {"IsTruncated": False}


def new_id(ctx: Context, kind: str) -> str:
    return domain.ID_PREFIX[kind] + ctx.entropy.token(17, domain.ID_ALPHABET)


def found(ctx: Context, kind: str, params: Params) -> Entity:
    """The entity a request names. Raises NoSuchEntity."""
    name = params[f"{kind.capitalize()}Name"]
    entity = repository.entity(ctx.db, kind, ctx.scope.account, name)
    if entity is None:
        raise domain.no_such(kind, name)
    return entity


def described(entity: Entity, *, brief: bool = False) -> Params:
    title = entity.kind.capitalize()
    output: Params = {
        "Path": entity.path,
        f"{title}Name": entity.name,
        f"{title}Id": entity.id,
        "Arn": entity.arn,
        "CreateDate": moment(entity.created),
    }
    if entity.kind == "role":
        output["AssumeRolePolicyDocument"] = encoded(entity.trust or "")
        if entity.description is not None:
            output["Description"] = entity.description
        output["MaxSessionDuration"] = entity.max_session_s
    if brief or entity.kind == "group":
        return output
    if entity.boundary is not None:
        output["PermissionsBoundary"] = {
            "PermissionsBoundaryType": "PermissionsBoundaryPolicy",
            "PermissionsBoundaryArn": entity.boundary,
        }
    if entity.tags:
        output["Tags"] = domain.tag_list(entity.tags)
    return output


def check_policy_arn(ctx: Context, arn: str) -> None:
    if arn not in MANAGED and repository.policy(ctx.db, arn) is None:
        raise AwsError("NoSuchEntity", f"Policy {arn} does not exist or is not attachable.", 404)


def _create(ctx: Context, kind: str, params: Params, **own: Any) -> Entity:
    name, path = params[f"{kind.capitalize()}Name"], params.get("Path", "/")
    domain.check_name(kind, name)
    domain.check_path(path)
    if repository.entity(ctx.db, kind, ctx.scope.account, name) is not None:
        raise AwsError("EntityAlreadyExists", f"{kind.capitalize()} with name {name} already exists.", 409)
    boundary = params.get("PermissionsBoundary")
    if boundary is not None:
        check_policy_arn(ctx, boundary)
    entity = Entity(
        0, kind, ctx.scope.account, name, new_id(ctx, kind), path, int(ctx.now), own.get("trust"),
        own.get("description"), own.get("max_session_s"), boundary, domain.tag_map(params.get("Tags", [])),
    )  # fmt: skip
    repository.add_entity(ctx.db, entity)
    return entity


# -- users ------------------------------------------------------------------------------------------------------------


def create_user(ctx: Context, params: Params) -> Outcome:
    return {"User": described(_create(ctx, "user", params))}


def get_user(ctx: Context, params: Params) -> Outcome:
    """Without a name: whoever asks."""
    if "UserName" in params:
        return {"User": described(found(ctx, "user", params))}
    if ctx.principal.kind == "user":
        name = ctx.principal.arn.rsplit("/", 1)[-1]
        return {"User": described(found(ctx, "user", {"UserName": name}))}
    if ctx.principal.kind == "root":
        account = ctx.scope.account
        root = {"UserId": account, "Arn": f"arn:aws:iam::{account}:root", "CreateDate": moment(0), "Path": "/"}
        return {"User": {**root, "UserName": "root"}}
    raise AwsError("ValidationError", "Must specify userName when calling with non-User credentials")


def update_user(ctx: Context, params: Params) -> Outcome:
    user = found(ctx, "user", params)
    _rename(ctx, user, params.get("NewUserName"), params.get("NewPath"))
    return {}


def _rename(ctx: Context, entity: Entity, name: str | None, path: str | None) -> None:
    if name is not None:
        domain.check_name(entity.kind, name)
        other = repository.entity(ctx.db, entity.kind, entity.account, name)
        if other is not None and other.row != entity.row:
            raise AwsError("EntityAlreadyExists", f"{entity.kind.capitalize()} with name {name} already exists.", 409)
        repository.change_entity(ctx.db, entity.row, "name", name)
    if path is not None:
        domain.check_path(path)
        repository.change_entity(ctx.db, entity.row, "path", path)


def delete_user(ctx: Context, params: Params) -> Outcome:
    user = found(ctx, "user", params)
    if repository.groups_of(ctx.db, user.row):
        raise domain.delete_conflict("remove users from group")
    if repository.access_keys(ctx.db, user.row):
        raise domain.delete_conflict("delete access keys")
    return _delete(ctx, user)


def _delete(ctx: Context, entity: Entity) -> Outcome:
    if repository.attached(ctx.db, entity.row):
        raise domain.delete_conflict("detach all policies")
    if repository.inline(ctx.db, entity.row):
        raise domain.delete_conflict("delete policies")
    repository.delete_entity(ctx.db, entity.row)
    return {}


def list_groups_for_user(ctx: Context, params: Params) -> Outcome:
    user = found(ctx, "user", params)
    shown, more = page(repository.groups_of(ctx.db, user.row), params, lambda group: group.name)
    return {"Groups": [described(group) for group in shown], **more}


# -- access keys ------------------------------------------------------------------------------------------------------


def _key_owner(ctx: Context, params: Params) -> Entity:
    if "UserName" in params:
        return found(ctx, "user", params)
    if ctx.principal.kind != "user":
        raise AwsError("ValidationError", "Must specify userName when calling with non-User credentials")
    return found(ctx, "user", {"UserName": ctx.principal.arn.rsplit("/", 1)[-1]})


def create_access_key(ctx: Context, params: Params) -> Outcome:
    user = _key_owner(ctx, params)
    if len(repository.access_keys(ctx.db, user.row)) >= domain.MAX_KEYS:
        raise domain.limit_exceeded(f"Cannot exceed quota for AccessKeysPerUser: {domain.MAX_KEYS}")
    key = AccessKey(
        sessions.new_access_key("AKIA", user.account, ctx.entropy),
        user.row,
        "".join(SECRET_ALPHABET[byte % 64] for byte in ctx.entropy.bytes(40)),
        "Active",
        int(ctx.now),
    )
    repository.add_access_key(ctx.db, key)
    return {"AccessKey": {**_key_described(key, user), "SecretAccessKey": key.secret}}


def _key_described(key: AccessKey, user: Entity) -> Params:
    return {
        "UserName": user.name,
        "AccessKeyId": key.id,
        "Status": key.status,
        "CreateDate": moment(key.created),
    }


def _key(ctx: Context, params: Params) -> AccessKey:
    key = repository.access_key(ctx.db, params["AccessKeyId"])
    if key is None or ("UserName" in params and key.user != found(ctx, "user", params).row):
        raise AwsError("NoSuchEntity", f"The Access Key with id {params['AccessKeyId']} cannot be found.", 404)
    return key


def list_access_keys(ctx: Context, params: Params) -> Outcome:
    user = _key_owner(ctx, params)
    shown, more = page(repository.access_keys(ctx.db, user.row), params, lambda key: key.id)
    return {"AccessKeyMetadata": [_key_described(key, user) for key in shown], **more}


def update_access_key(ctx: Context, params: Params) -> Outcome:
    if params["Status"] not in ("Active", "Inactive"):
        raise AwsError("ValidationError", f"Value '{params['Status']}' at 'status' failed to satisfy constraint")
    repository.set_access_key_status(ctx.db, _key(ctx, params).id, params["Status"])
    return {}


def delete_access_key(ctx: Context, params: Params) -> Outcome:
    repository.delete_access_key(ctx.db, _key(ctx, params).id)
    return {}


# -- roles ------------------------------------------------------------------------------------------------------------


def _check_trust(text: str) -> None:
    if len(text) > domain.TRUST_BYTES:
        raise domain.limit_exceeded(f"Cannot exceed quota for ACLSizePerRole: {domain.TRUST_BYTES}")
    domain.check_document(check_trust_policy, text)


def _check_session(seconds: int) -> None:
    if not 3_600 <= seconds <= 43_200:
        raise AwsError(
            "ValidationError",
            f"1 validation error detected: Value '{seconds}' at 'maxSessionDuration' failed to satisfy constraint: "
            "Member must have value between 3600 and 43200",
        )


def create_role(ctx: Context, params: Params) -> Outcome:
    trust, seconds = params["AssumeRolePolicyDocument"], params.get("MaxSessionDuration", 3_600)
    _check_trust(trust)
    _check_session(seconds)
    description = params.get("Description")
    return {
        "Role": described(_create(ctx, "role", params, trust=trust, max_session_s=seconds, description=description))
    }


def get_role(ctx: Context, params: Params) -> Outcome:
    return {"Role": {**described(found(ctx, "role", params)), "RoleLastUsed": {}}}


def update_role(ctx: Context, params: Params) -> Outcome:
    role = found(ctx, "role", params)
    if "MaxSessionDuration" in params:
        _check_session(params["MaxSessionDuration"])
        repository.change_entity(ctx.db, role.row, "max_session_s", params["MaxSessionDuration"])
    if "Description" in params:
        repository.change_entity(ctx.db, role.row, "description", params["Description"])
    return {}


def update_role_description(ctx: Context, params: Params) -> Outcome:
    update_role(ctx, {"RoleName": params["RoleName"], "Description": params["Description"]})
    return {"Role": described(found(ctx, "role", params))}


def update_assume_role_policy(ctx: Context, params: Params) -> Outcome:
    role = found(ctx, "role", params)
    _check_trust(params["PolicyDocument"])
    repository.change_entity(ctx.db, role.row, "trust", params["PolicyDocument"])
    return {}


def delete_role(ctx: Context, params: Params) -> Outcome:
    return _delete(ctx, found(ctx, "role", params))


# -- groups -----------------------------------------------------------------------------------------------------------


def create_group(ctx: Context, params: Params) -> Outcome:
    return {"Group": described(_create(ctx, "group", params))}


def get_group(ctx: Context, params: Params) -> Outcome:
    group = found(ctx, "group", params)
    shown, more = page(repository.members(ctx.db, group.row), params, lambda user: user.name)
    return {"Group": described(group), "Users": [described(user, brief=True) for user in shown], **more}


def update_group(ctx: Context, params: Params) -> Outcome:
    _rename(ctx, found(ctx, "group", params), params.get("NewGroupName"), params.get("NewPath"))
    return {}


def delete_group(ctx: Context, params: Params) -> Outcome:
    group = found(ctx, "group", params)
    if repository.members(ctx.db, group.row):
        raise domain.delete_conflict("remove users from group")
    return _delete(ctx, group)


def add_user_to_group(ctx: Context, params: Params) -> Outcome:
    repository.join(ctx.db, found(ctx, "group", params).row, found(ctx, "user", params).row)
    return {}


def remove_user_from_group(ctx: Context, params: Params) -> Outcome:
    repository.leave(ctx.db, found(ctx, "group", params).row, found(ctx, "user", params).row)
    return {}


# -- the same for each kind -------------------------------------------------------------------------------------------


def _common(kind: str) -> dict[str, Operation]:
    title = kind.capitalize()

    def listing(ctx: Context, params: Params) -> Outcome:
        path = params.get("PathPrefix", "/")
        everything = repository.entities(ctx.db, kind, ctx.scope.account, path, "", -1)
        shown, more = page(everything, params, lambda entity: entity.name)
        return {f"{title}s": [described(entity, brief=True) for entity in shown], **more}

    def put_policy(ctx: Context, params: Params) -> Outcome:
        entity, name, document = found(ctx, kind, params), params["PolicyName"], params["PolicyDocument"]
        domain.check_name("policy", name)
        domain.check_document(check_identity_policy, document)
        others = {key: text for key, text in repository.inline(ctx.db, entity.row).items() if key != name}
        sizes = (len("".join(text.split())) for text in [*others.values(), document])
        if sum(sizes) > domain.INLINE_BYTES[kind]:
            raise domain.limit_exceeded(
                f"Maximum policy size of {domain.INLINE_BYTES[kind]} bytes exceeded for {kind} {entity.name}"
            )
        repository.put_inline(ctx.db, entity.row, name, document)
        return {}

    def get_policy(ctx: Context, params: Params) -> Outcome:
        entity, name = found(ctx, kind, params), params["PolicyName"]
        document = repository.inline(ctx.db, entity.row).get(name)
        if document is None:
            raise domain.no_such(f"{kind} policy", name)
        return {f"{title}Name": entity.name, "PolicyName": name, "PolicyDocument": encoded(document)}

    def delete_policy(ctx: Context, params: Params) -> Outcome:
        if not repository.delete_inline(ctx.db, found(ctx, kind, params).row, params["PolicyName"]):
            raise domain.no_such(f"{kind} policy", params["PolicyName"])
        return {}

    def list_policies(ctx: Context, params: Params) -> Outcome:
        names = list(repository.inline(ctx.db, found(ctx, kind, params).row))
        shown, more = page(names, params, str)
        return {"PolicyNames": shown, **more}

    return {
        f"List{title}s": listing,
        f"Put{title}Policy": put_policy,
        f"Get{title}Policy": get_policy,
        f"Delete{title}Policy": delete_policy,
        f"List{title}Policies": list_policies,
    }


def _attachable(kind: str) -> dict[str, Operation]:
    title = kind.capitalize()

    def attach(ctx: Context, params: Params) -> Outcome:
        entity, arn = found(ctx, kind, params), params["PolicyArn"]
        check_policy_arn(ctx, arn)
        present = repository.attached(ctx.db, entity.row)
        if arn not in present and len(present) >= domain.ATTACHED[kind]:
            raise domain.limit_exceeded(f"Cannot exceed quota for PoliciesPer{title}: {domain.ATTACHED[kind]}")
        repository.attach(ctx.db, entity.row, arn)
        return {}

    def detach(ctx: Context, params: Params) -> Outcome:
        if not repository.detach(ctx.db, found(ctx, kind, params).row, params["PolicyArn"]):
            raise domain.no_such_policy(params["PolicyArn"])
        return {}

    def list_attached(ctx: Context, params: Params) -> Outcome:
        arns = repository.attached(ctx.db, found(ctx, kind, params).row)
        shown, more = page(arns, params, str)
        return {
            "AttachedPolicies": [{"PolicyName": arn.rsplit("/", 1)[-1], "PolicyArn": arn} for arn in shown],
            **more,
        }

    return {
        f"Attach{title}Policy": attach,
        f"Detach{title}Policy": detach,
        f"ListAttached{title}Policies": list_attached,
    }


def _tagged(kind: str) -> dict[str, Operation]:
    title = kind.capitalize()

    def tag(ctx: Context, params: Params) -> Outcome:
        entity = found(ctx, kind, params)
        tags = domain.tag_map(params["Tags"], entity.tags)
        repository.change_entity(ctx.db, entity.row, "tags", json.dumps(tags))
        return {}

    def untag(ctx: Context, params: Params) -> Outcome:
        entity = found(ctx, kind, params)
        gone = {key.lower() for key in params["TagKeys"]}
        tags = {key: value for key, value in entity.tags.items() if key.lower() not in gone}
        repository.change_entity(ctx.db, entity.row, "tags", json.dumps(tags))
        return {}

    def list_tags(ctx: Context, params: Params) -> Outcome:
        shown, more = page(domain.tag_list(found(ctx, kind, params).tags), params, lambda tag: tag["Key"])
        return {"Tags": shown, **more}

    def put_boundary(ctx: Context, params: Params) -> Outcome:
        entity = found(ctx, kind, params)
        check_policy_arn(ctx, params["PermissionsBoundary"])
        repository.change_entity(ctx.db, entity.row, "boundary", params["PermissionsBoundary"])
        return {}

    def delete_boundary(ctx: Context, params: Params) -> Outcome:
        repository.change_entity(ctx.db, found(ctx, kind, params).row, "boundary", None)
        return {}

    return {
        f"Tag{title}": tag,
        f"Untag{title}": untag,
        f"List{title}Tags": list_tags,
        f"Put{title}PermissionsBoundary": put_boundary,
        f"Delete{title}PermissionsBoundary": delete_boundary,
    }


OPERATIONS: dict[str, Operation] = {
    "CreateUser": create_user,
    "GetUser": get_user,
    "UpdateUser": update_user,
    "DeleteUser": delete_user,
    "ListGroupsForUser": list_groups_for_user,
    "CreateAccessKey": create_access_key,
    "ListAccessKeys": list_access_keys,
    "UpdateAccessKey": update_access_key,
    "DeleteAccessKey": delete_access_key,
    "CreateRole": create_role,
    "GetRole": get_role,
    "UpdateRole": update_role,
    "UpdateRoleDescription": update_role_description,
    "UpdateAssumeRolePolicy": update_assume_role_policy,
    "DeleteRole": delete_role,
    "CreateGroup": create_group,
    "GetGroup": get_group,
    "UpdateGroup": update_group,
    "DeleteGroup": delete_group,
    "AddUserToGroup": add_user_to_group,
    "RemoveUserFromGroup": remove_user_from_group,
    **_common("user"),
    **_common("role"),
    **_common("group"),
    **_attachable("user"),
    **_attachable("role"),
    **_attachable("group"),
    **_tagged("user"),
    **_tagged("role"),
}

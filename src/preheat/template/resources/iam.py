"""AWS::IAM: roles, policies, users and access keys."""

from typing import Any

from preheat.template.definition import Call, Failed, Made, Resource, ResourceType, Script, properties, tag_map

KINDS = (("Roles", "Role", "RoleName"), ("Users", "User", "UserName"), ("Groups", "Group", "GroupName"))


def _inline(given: Any) -> dict[str, Any]:
    return {item["PolicyName"]: item["PolicyDocument"] for item in given or ()}


def _policies(kind: str, key: str, name: str, old: dict[str, Any], new: dict[str, Any]) -> Script:
    """Bring a role's or user's inline and attached policies from `old` properties to `new` ones."""
    before, after = _inline(old.get("Policies")), _inline(new.get("Policies"))
    for policy in before:
        if policy not in after:
            yield Call("iam", f"Delete{kind}Policy", {key: name, "PolicyName": policy})
    for policy, document in after.items():
        if before.get(policy) != document:
            yield Call("iam", f"Put{kind}Policy", {key: name, "PolicyName": policy, "PolicyDocument": document})
    attached, wanted = old.get("ManagedPolicyArns") or (), new.get("ManagedPolicyArns") or ()
    for arn in attached:
        if arn not in wanted:
            yield Call("iam", f"Detach{kind}Policy", {key: name, "PolicyArn": arn})
    for arn in wanted:
        if arn not in attached:
            yield Call("iam", f"Attach{kind}Policy", {key: name, "PolicyArn": arn})
    return {}


def _tags(kind: str, params: dict[str, Any], resource: Resource) -> Script:
    old, new = tag_map(resource.old.get("Tags")), tag_map(resource.get("Tags"))
    if set(old) - set(new):
        yield Call("iam", f"Untag{kind}", {**params, "TagKeys": sorted(set(old) - set(new))})
    if new and new != old:
        yield Call("iam", f"Tag{kind}", {**params, "Tags": resource.get("Tags")})
    return {}


def create_role(resource: Resource) -> Script:
    name = resource.name
    params = resource.pick(
        "AssumeRolePolicyDocument", "Description", "MaxSessionDuration", "Path", "PermissionsBoundary", "Tags"
    )
    output = yield Call("iam", "CreateRole", {"RoleName": name, **params}, ("Role",))
    yield Made(name)
    yield from _policies("Role", "RoleName", name, {}, resource.properties)
    return {"Arn": output["Role"]["Arn"], "RoleId": output["Role"]["RoleId"]}


def update_role(resource: Resource) -> Script:
    name = resource.physical_id
    if resource.changed("AssumeRolePolicyDocument"):
        document = resource.properties["AssumeRolePolicyDocument"]
        yield Call("iam", "UpdateAssumeRolePolicy", {"RoleName": name, "PolicyDocument": document})
    if resource.changed("Description", "MaxSessionDuration"):
        settings = {
            "Description": resource.get("Description", ""),
            "MaxSessionDuration": resource.get("MaxSessionDuration", 3600),
        }
        yield Call("iam", "UpdateRole", {"RoleName": name, **settings})
    yield from _boundary("Role", "RoleName", resource)
    yield from _policies("Role", "RoleName", name, resource.old, resource.properties)
    yield from _tags("Role", {"RoleName": name}, resource)
    return resource.attributes


def _boundary(kind: str, key: str, resource: Resource) -> Script:
    if resource.changed("PermissionsBoundary"):
        params = {key: resource.physical_id}
        arn = resource.get("PermissionsBoundary")
        if arn:
            yield Call("iam", f"Put{kind}PermissionsBoundary", {**params, "PermissionsBoundary": arn})
        else:
            yield Call("iam", f"Delete{kind}PermissionsBoundary", params)
    return {}


def delete_role(resource: Resource) -> Script:
    yield from _strip("Role", "RoleName", resource)
    yield Call("iam", "DeleteRole", {"RoleName": resource.physical_id})
    return {}


def _strip(kind: str, key: str, resource: Resource) -> Script:
    """Take away every policy: what is deleted must have none."""
    name = resource.physical_id
    attached = yield Call("iam", f"ListAttached{kind}Policies", {key: name}, ("AttachedPolicies",))
    for item in attached.get("AttachedPolicies") or ():
        yield Call("iam", f"Detach{kind}Policy", {key: name, "PolicyArn": item["PolicyArn"]})
    inline = yield Call("iam", f"List{kind}Policies", {key: name}, ("PolicyNames",))
    for policy in inline.get("PolicyNames") or ():
        yield Call("iam", f"Delete{kind}Policy", {key: name, "PolicyName": policy})
    return {}


def create_user(resource: Resource) -> Script:
    name = resource.name
    params = resource.pick("Path", "PermissionsBoundary", "Tags")
    output = yield Call("iam", "CreateUser", {"UserName": name, **params}, ("User",))
    yield Made(name)
    yield from _policies("User", "UserName", name, {}, resource.properties)
    return {"Arn": output["User"]["Arn"]}


def update_user(resource: Resource) -> Script:
    name = resource.physical_id
    yield from _boundary("User", "UserName", resource)
    yield from _policies("User", "UserName", name, resource.old, resource.properties)
    yield from _tags("User", {"UserName": name}, resource)
    return resource.attributes


def delete_user(resource: Resource) -> Script:
    yield from _strip("User", "UserName", resource)
    yield Call("iam", "DeleteUser", {"UserName": resource.physical_id})
    return {}


def _check_holders(resource: Resource) -> None:
    """A policy must be on something; AWS looks when it is deleted, too."""
    if not any(resource.get(plural) for plural, _, _ in KINDS):
        raise Failed("At least one of [Groups,Roles,Users] must be non-empty.")


def create_policy(resource: Resource) -> Script:
    yield Made(resource.name)
    _check_holders(resource)
    yield from put_policy(resource)
    return {"Id": resource.name}


def put_policy(resource: Resource) -> Script:
    """One inline policy on each of the roles, users and groups."""
    policy = resource.properties["PolicyName"]
    for plural, kind, key in KINDS:
        wanted = resource.get(plural) or ()
        for name in resource.old.get(plural) or ():
            if name not in wanted or resource.old["PolicyName"] != policy:
                yield Call("iam", f"Delete{kind}Policy", {key: name, "PolicyName": resource.old["PolicyName"]})
        for name in wanted:
            document = resource.properties["PolicyDocument"]
            yield Call("iam", f"Put{kind}Policy", {key: name, "PolicyName": policy, "PolicyDocument": document})
    return resource.attributes


def delete_policy(resource: Resource) -> Script:
    _check_holders(resource)
    for plural, kind, key in KINDS:
        for name in resource.get(plural) or ():
            yield Call("iam", f"Delete{kind}Policy", {key: name, "PolicyName": resource.properties["PolicyName"]})
    return {}


def create_managed(resource: Resource) -> Script:
    params = {"PolicyName": resource.name, **resource.pick("Description", "Path", "PolicyDocument")}
    output = yield Call("iam", "CreatePolicy", params, ("Policy",))
    arn = output["Policy"]["Arn"]
    yield Made(arn)
    yield from _attach(resource, arn)
    return {"PolicyArn": arn, "PolicyId": output["Policy"].get("PolicyId", "")}


def _attach(resource: Resource, arn: str) -> Script:
    for plural, kind, key in KINDS:
        wanted, standing = resource.get(plural) or (), resource.old.get(plural) or ()
        for name in standing:
            if name not in wanted:
                yield Call("iam", f"Detach{kind}Policy", {key: name, "PolicyArn": arn})
        for name in wanted:
            if name not in standing:
                yield Call("iam", f"Attach{kind}Policy", {key: name, "PolicyArn": arn})
    return {}


def update_managed(resource: Resource) -> Script:
    arn = resource.physical_id
    if resource.changed("PolicyDocument"):
        listed = yield Call("iam", "ListPolicyVersions", {"PolicyArn": arn}, ("Versions",))
        spare = [item["VersionId"] for item in listed["Versions"] if not item["IsDefaultVersion"]]
        if len(listed["Versions"]) >= 5:
            yield Call("iam", "DeletePolicyVersion", {"PolicyArn": arn, "VersionId": spare[-1]})
        params = {"PolicyArn": arn, "SetAsDefault": True, **resource.pick("PolicyDocument")}
        yield Call("iam", "CreatePolicyVersion", params)
    yield from _attach(resource, arn)
    return resource.attributes


def delete_managed(resource: Resource) -> Script:
    arn = resource.physical_id
    for plural, kind, key in KINDS:
        for name in resource.get(plural) or ():
            yield Call("iam", f"Detach{kind}Policy", {key: name, "PolicyArn": arn})
    listed = yield Call("iam", "ListPolicyVersions", {"PolicyArn": arn}, ("Versions",))
    for item in listed.get("Versions") or ():
        if not item["IsDefaultVersion"]:
            yield Call("iam", "DeletePolicyVersion", {"PolicyArn": arn, "VersionId": item["VersionId"]})
    yield Call("iam", "DeletePolicy", {"PolicyArn": arn})
    return {}


def create_key(resource: Resource) -> Script:
    output = yield Call("iam", "CreateAccessKey", resource.pick("UserName"), ("AccessKey",))
    key = output["AccessKey"]
    yield Made(key["AccessKeyId"])
    if resource.get("Status") == "Inactive":
        yield _key_status(resource, key["AccessKeyId"])
    return {"SecretAccessKey": key["SecretAccessKey"]}


def _key_status(resource: Resource, key: str) -> Call:
    params = {**resource.pick("UserName"), "AccessKeyId": key, "Status": resource.get("Status", "Active")}
    return Call("iam", "UpdateAccessKey", params)


def update_key(resource: Resource) -> Script:
    yield _key_status(resource, resource.physical_id)
    return resource.attributes


def delete_key(resource: Resource) -> Script:
    yield Call("iam", "DeleteAccessKey", {**resource.pick("UserName"), "AccessKeyId": resource.physical_id})
    return {}


TYPES = (
    ResourceType(
        "AWS::IAM::Role",
        properties(
            "AssumeRolePolicyDocument Description ManagedPolicyArns MaxSessionDuration Path PermissionsBoundary "
            "Policies RoleName Tags",
            replaces="Path RoleName",
            required="AssumeRolePolicyDocument",
        ),
        create_role,
        delete_role,
        update_role,
        attributes=("Arn", "RoleId"),
        name_property="RoleName",
        tags="list",
    ),
    ResourceType(
        "AWS::IAM::User",
        properties(
            "ManagedPolicyArns Path PermissionsBoundary Policies Tags UserName",
            replaces="Path UserName",
            ignored={
                "Groups": "there are no groups; attach the policies to the user",
                "LoginProfile": "there is no console to log in to",
            },
        ),
        create_user,
        delete_user,
        update_user,
        attributes=("Arn",),
        name_property="UserName",
        tags="list",
    ),
    ResourceType(
        "AWS::IAM::Policy",
        properties("Groups PolicyDocument PolicyName Roles Users", required="PolicyDocument PolicyName"),
        create_policy,
        delete_policy,
        put_policy,
        attributes=("Id",),
        name_limit=128,
    ),
    ResourceType(
        "AWS::IAM::ManagedPolicy",
        properties(
            "Description Groups ManagedPolicyName Path PolicyDocument Roles Users",
            replaces="Description ManagedPolicyName Path",
            required="PolicyDocument",
        ),
        create_managed,
        delete_managed,
        update_managed,
        attributes=("PolicyArn", "PolicyId"),
        name_property="ManagedPolicyName",
        name_limit=128,
    ),
    ResourceType(
        "AWS::IAM::AccessKey",
        properties("Serial Status UserName", replaces="Serial UserName", required="UserName"),
        create_key,
        delete_key,
        update_key,
        attributes=("SecretAccessKey",),
    ),
)

"""Rules of Lambda, API Gateway, Logs, IAM, STS, CloudFormation, Parameter Store and Secrets Manager."""

from urllib.parse import quote

from preheat.gateway.actions.need import (
    Keys,
    Need,
    Resources,
    Rule,
    anything,
    arn_of,
    both,
    each,
    given,
    on,
    pass_role,
    when,
)
from preheat.kernel.errors import AwsError
from preheat.services.awslambda.domain import parse_name
from preheat.services.contract import Context, Params
from preheat.services.iam import repository as iam
from preheat.services.logs.domain import group_of
from preheat.services.secretsmanager import repository as secrets
from preheat.services.ssm import domain as ssm

# -- Lambda ------------------------------------------------------------------------------------------------------------


def _function(ctx: Context, params: Params) -> list[str]:
    return [parse_name(params["FunctionName"], ctx.scope).arn]


def _invoked(ctx: Context, params: Params) -> list[str]:
    return [parse_name(params["FunctionName"], ctx.scope, params.get("Qualifier")).qualified_arn]


def _layer(ctx: Context, params: Params) -> list[str]:
    name = params["LayerName"]
    arn = name if name.startswith("arn:") else ctx.scope.arn("lambda", f"layer:{name}")
    number = params.get("VersionNumber")
    return [arn if number is None else f"{arn}:{number}"]


def _mapping_keys(ctx: Context, params: Params, action: str, resource: str) -> list[Need]:
    keys = {"lambda:functionarn": _function(ctx, params)} if params.get("FunctionName") else {}
    return [Need(action, resource, keys)]


def _url_keys(params: Params) -> Keys:
    return {"lambda:functionurlauthtype": [params["AuthType"]]} if params.get("AuthType") else {}


def lambda_rules() -> dict[str, Rule]:
    functions = (
        "AddPermission CreateAlias DeleteAlias DeleteFunction DeleteFunctionConcurrency "
        "DeleteFunctionEventInvokeConfig GetAlias GetFunction GetFunctionConcurrency GetFunctionConfiguration "
        "GetFunctionEventInvokeConfig GetPolicy ListAliases ListFunctionEventInvokeConfigs ListFunctionUrlConfigs "
        "ListVersionsByFunction PublishVersion PutFunctionConcurrency PutFunctionEventInvokeConfig "
        "RemovePermission UpdateAlias UpdateFunctionCode UpdateFunctionEventInvokeConfig "
        "GetFunctionRecursionConfig PutFunctionRecursionConfig DeleteProvisionedConcurrencyConfig "
        "GetProvisionedConcurrencyConfig ListProvisionedConcurrencyConfigs PutProvisionedConcurrencyConfig "
        "GetRuntimeManagementConfig PutRuntimeManagementConfig GetFunctionCodeSigningConfig "
        "PutFunctionCodeSigningConfig DeleteFunctionCodeSigningConfig"
    )
    mapping = arn_of("lambda", "event-source-mapping:{UUID}")
    layers = on("lambda:GetLayerVersion", lambda ctx, params: params.get("Layers") or ())
    role = pass_role("Role", "lambda.amazonaws.com")
    invoke = on("lambda:InvokeFunction", _invoked)
    tags = when("Tags", on("lambda:TagResource", _function))
    return {
        **each("lambda", _function, functions),
        **each("lambda", _layer, "DeleteLayerVersion GetLayerVersion PublishLayerVersion "
               "AddLayerVersionPermission GetLayerVersionPolicy RemoveLayerVersionPermission"),
        **each("lambda", anything, "GetAccountSettings ListFunctions ListLayers ListLayerVersions "
               "CreateCodeSigningConfig ListCodeSigningConfigs"),
        **each("lambda", given("CodeSigningConfigArn"), "DeleteCodeSigningConfig GetCodeSigningConfig "
               "ListFunctionsByCodeSigningConfig UpdateCodeSigningConfig"),
        **each("lambda", given("ResourceArn"), "DeleteResourcePolicy GetResourcePolicy PutResourcePolicy"),
        **each("lambda", given("Resource"), "ListTags TagResource UntagResource"),
        **each("lambda", mapping, "DeleteEventSourceMapping GetEventSourceMapping"),
        **{
            name: on(f"lambda:{name}", _function, _url_keys)
            for name in (
                "CreateFunctionUrlConfig", "DeleteFunctionUrlConfig", "GetFunctionUrlConfig", "UpdateFunctionUrlConfig"
            )
        },
        "CreateFunction": both(on("lambda:CreateFunction", _function), role, layers, tags),
        "UpdateFunctionConfiguration": both(on("lambda:UpdateFunctionConfiguration", _function), role, layers),
        "CreateEventSourceMapping": lambda ctx, params: _mapping_keys(
            ctx, params, "lambda:CreateEventSourceMapping", "*"
        ),
        "ListEventSourceMappings": lambda ctx, params: _mapping_keys(
            ctx, params, "lambda:ListEventSourceMappings", "*"
        ),
        "UpdateEventSourceMapping": lambda ctx, params: _mapping_keys(
            ctx, params, "lambda:UpdateEventSourceMapping", mapping(ctx, params)[0]
        ),
        "GetLayerVersionByArn": on("lambda:GetLayerVersion", given("Arn")),
        "Invoke": invoke,
        "InvokeWithResponseStream": invoke,
        "InvokeAsync": on("lambda:InvokeAsync", _invoked),
    }  # fmt: skip


# -- API Gateway -------------------------------------------------------------------------------------------------------

_API_PATHS = {
    "CreateApi": "POST /apis", "ImportApi": "PUT /apis", "GetApis": "GET /apis", "GetApi": "GET /apis/{ApiId}",
    "UpdateApi": "PATCH /apis/{ApiId}", "ReimportApi": "PUT /apis/{ApiId}", "DeleteApi": "DELETE /apis/{ApiId}",
    "DeleteCorsConfiguration": "DELETE /apis/{ApiId}/cors", "CreateDeployment": "POST /apis/{ApiId}/deployments",
    "GetDeployments": "GET /apis/{ApiId}/deployments", "GetDeployment": "GET /apis/{ApiId}/deployments/{DeploymentId}",
    "UpdateDeployment": "PATCH /apis/{ApiId}/deployments/{DeploymentId}",
    "CreateRouteResponse": "POST /apis/{ApiId}/routes/{RouteId}/routeresponses",
    "GetRouteResponses": "GET /apis/{ApiId}/routes/{RouteId}/routeresponses",
    "GetRouteResponse": "GET /apis/{ApiId}/routes/{RouteId}/routeresponses/{RouteResponseId}",
    "UpdateRouteResponse": "PATCH /apis/{ApiId}/routes/{RouteId}/routeresponses/{RouteResponseId}",
    "DeleteRouteResponse": "DELETE /apis/{ApiId}/routes/{RouteId}/routeresponses/{RouteResponseId}",
    "DeleteDeployment": "DELETE /apis/{ApiId}/deployments/{DeploymentId}",
    "CreateIntegration": "POST /apis/{ApiId}/integrations", "GetIntegrations": "GET /apis/{ApiId}/integrations",
    "GetIntegration": "GET /apis/{ApiId}/integrations/{IntegrationId}",
    "UpdateIntegration": "PATCH /apis/{ApiId}/integrations/{IntegrationId}",
    "DeleteIntegration": "DELETE /apis/{ApiId}/integrations/{IntegrationId}",
    "CreateRoute": "POST /apis/{ApiId}/routes", "GetRoutes": "GET /apis/{ApiId}/routes",
    "GetRoute": "GET /apis/{ApiId}/routes/{RouteId}", "UpdateRoute": "PATCH /apis/{ApiId}/routes/{RouteId}",
    "DeleteRoute": "DELETE /apis/{ApiId}/routes/{RouteId}", "CreateStage": "POST /apis/{ApiId}/stages",
    "GetStages": "GET /apis/{ApiId}/stages", "GetStage": "GET /apis/{ApiId}/stages/{StageName}",
    "UpdateStage": "PATCH /apis/{ApiId}/stages/{StageName}", "DeleteStage": "DELETE /apis/{ApiId}/stages/{StageName}",
    "GetTags": "GET /tags/{ResourceArn}", "TagResource": "POST /tags/{ResourceArn}",
    "UntagResource": "DELETE /tags/{ResourceArn}",
}  # fmt: skip


def _api_rule(text: str) -> Rule:
    method, _, path = text.partition(" ")

    def resources(ctx: Context, params: Params) -> list[str]:
        filled = path.format_map({name: quote(str(value), safe="") for name, value in params.items()})
        return [f"arn:aws:apigateway:{ctx.scope.region}::{filled}"]

    return on(f"apigateway:{method}", resources)


def api_rules() -> dict[str, Rule]:
    return {name: _api_rule(text) for name, text in _API_PATHS.items()}


# -- Logs --------------------------------------------------------------------------------------------------------------


def _log_group(ctx: Context, params: Params) -> list[str]:
    return [ctx.scope.arn("logs", f"log-group:{group_of(params)}:log-stream:")]


def _log_stream(ctx: Context, params: Params) -> list[str]:
    return [_log_group(ctx, params)[0] + params["logStreamName"]]


def logs_rules() -> dict[str, Rule]:
    groups = (
        "CreateLogGroup CreateLogStream DeleteLogGroup DeleteRetentionPolicy DescribeLogStreams "
        "FilterLogEvents ListTagsLogGroup PutLogGroupDeletionProtection PutRetentionPolicy TagLogGroup UntagLogGroup "
        "DeleteMetricFilter DeleteSubscriptionFilter DescribeSubscriptionFilters PutMetricFilter PutSubscriptionFilter"
    )
    everywhere = arn_of("logs", "log-group::log-stream:")
    return {
        **each("logs", _log_group, groups),
        **each("logs", everywhere, "DescribeLogGroups DescribeMetricFilters ListLogGroups TestMetricFilter"),
        **each("logs", _log_stream, "DeleteLogStream GetLogEvents PutLogEvents"),
        **each("logs", given("resourceArn"), "ListTagsForResource TagResource UntagResource"),
    }


# -- IAM and STS -------------------------------------------------------------------------------------------------------


def _entity(kind: str, member: str) -> Resources:
    """The ARN of a user, group or role: of the one on record with its path, else of the one to be made."""

    def resources(ctx: Context, params: Params) -> list[str]:
        name = params.get(member)
        if name is None:
            return [ctx.principal.arn]
        found = iam.entity(ctx.db, kind, ctx.scope.account, name)
        path = params.get("Path", "/")
        return [found.arn if found is not None else f"arn:aws:iam::{ctx.scope.account}:{kind}{path}{name}"]

    return resources


def _policy(ctx: Context, params: Params) -> list[str]:
    given = params.get("PolicyArn")
    return [given or f"arn:aws:iam::{ctx.scope.account}:policy{params.get('Path', '/')}{params['PolicyName']}"]


def _listed_entities(kind: str) -> Resources:
    return lambda ctx, params: [f"arn:aws:iam::{ctx.scope.account}:{kind}{params.get('PathPrefix', '/')}"]


def _iam_keys(params: Params) -> Keys:
    members = {"iam:policyarn": "PolicyArn", "iam:permissionsboundary": "PermissionsBoundary"}
    return {key: [params[member]] for key, member in members.items() if params.get(member)}


def iam_rules() -> dict[str, Rule]:
    user, group, role = _entity("user", "UserName"), _entity("group", "GroupName"), _entity("role", "RoleName")
    kinds = {
        user: "AttachUserPolicy CreateAccessKey CreateUser DeleteAccessKey DeleteUser DeleteUserPermissionsBoundary "
        "DeleteUserPolicy DetachUserPolicy GetUser GetUserPolicy ListAccessKeys ListAttachedUserPolicies "
        "ListGroupsForUser ListUserPolicies ListUserTags PutUserPermissionsBoundary PutUserPolicy TagUser UntagUser "
        "UpdateAccessKey UpdateUser",
        group: "AddUserToGroup AttachGroupPolicy CreateGroup DeleteGroup DeleteGroupPolicy DetachGroupPolicy GetGroup "
        "GetGroupPolicy ListAttachedGroupPolicies ListGroupPolicies PutGroupPolicy RemoveUserFromGroup UpdateGroup",
        role: "AttachRolePolicy CreateRole DeleteRole DeleteRolePermissionsBoundary DeleteRolePolicy DetachRolePolicy "
        "GetRole GetRolePolicy ListAttachedRolePolicies ListRolePolicies ListRoleTags PutRolePermissionsBoundary "
        "PutRolePolicy TagRole UntagRole UpdateAssumeRolePolicy UpdateRole UpdateRoleDescription",
        _policy: "CreatePolicy CreatePolicyVersion DeletePolicy DeletePolicyVersion GetPolicy GetPolicyVersion "
        "ListEntitiesForPolicy ListPolicyTags ListPolicyVersions SetDefaultPolicyVersion TagPolicy UntagPolicy",
        _listed_entities("user"): "ListUsers",
        _listed_entities("group"): "ListGroups",
        _listed_entities("role"): "ListRoles",
        _listed_entities("policy"): "ListPolicies",
    }
    return {
        name: on(f"iam:{name}", resources, _iam_keys)
        for resources, operations in kinds.items()
        for name in operations.split()
    }


def _assumed(params: Params) -> Keys:
    keys = {"sts:rolesessionname": "RoleSessionName", "sts:externalid": "ExternalId"}
    return {key: [params[member]] for key, member in keys.items() if params.get(member)}


def _nothing(ctx: Context, params: Params) -> list[Need]:
    return []


def sts_rules() -> dict[str, Rule]:
    open_to_all = ("GetCallerIdentity", "GetSessionToken", "AssumeRoleWithSAML", "AssumeRoleWithWebIdentity")
    return {
        **dict.fromkeys(open_to_all, _nothing),
        **each("sts", anything, "GetAccessKeyInfo DecodeAuthorizationMessage"),
        "AssumeRole": on("sts:AssumeRole", given("RoleArn"), _assumed),
    }


# -- CloudFormation ----------------------------------------------------------------------------------------------------


def _stack(ctx: Context, params: Params) -> list[str]:
    """The stack that a request names; of a change set named by its ARN the stack it belongs to."""
    name = params.get("StackName") or ""
    if params.get("ChangeSetName", "").startswith("arn:"):
        try:
            wanted = {"ChangeSetName": params["ChangeSetName"]}
            name = ctx.call("cloudformation", "DescribeChangeSet", wanted)["StackId"]
        except AwsError:
            name = ""
    return [name if name.startswith("arn:") else ctx.scope.arn("cloudformation", f"stack/{name or '*'}/*")]


def _transforms(ctx: Context, params: Params) -> list[Need]:
    if "AWS::Serverless-2016-10-31" not in (params.get("TemplateBody") or ""):
        return []
    arn = f"arn:aws:cloudformation:{ctx.scope.region}:aws:transform/Serverless-2016-10-31"
    return [Need("cloudformation:CreateChangeSet", arn, {})]


def cloudformation_rules() -> dict[str, Rule]:
    plain = (
        "CancelUpdateStack DeleteChangeSet DescribeChangeSet DescribeStackEvents DescribeStackResource "
        "DescribeStackResources DescribeStacks ExecuteChangeSet GetStackPolicy GetTemplate ListChangeSets "
        "ListStackResources ListStacks SetStackPolicy UpdateTerminationProtection"
    )
    role = pass_role("RoleARN", "cloudformation.amazonaws.com")
    changing = (
        "ContinueUpdateRollback", "CreateChangeSet", "CreateStack", "DeleteStack", "RollbackStack", "UpdateStack"
    )  # fmt: skip
    return {
        **each("cloudformation", _stack, plain),
        **each("cloudformation", anything, "ListExports ListImports ValidateTemplate"),
        **{name: both(on(f"cloudformation:{name}", _stack), role, _transforms) for name in changing},
        "GetTemplateSummary": lambda ctx, params: [
            Need("cloudformation:GetTemplateSummary", _stack(ctx, params)[0] if params.get("StackName") else "*", {})
        ],
    }


# -- Parameter Store, Secrets Manager ----------------------------------------------------------------------------------


def _parameter_arn(ctx: Context, name: str) -> str:
    return ssm.arn(ctx.scope, ssm.split_name(name)[0])


def cloudwatch_rules() -> dict[str, Rule]:
    return each("cloudwatch", anything, "GetMetricData GetMetricStatistics ListMetrics PutMetricData")


def _parameter(member: str) -> Resources:
    def resources(ctx: Context, params: Params) -> list[str]:
        given = params[member]
        return [_parameter_arn(ctx, name) for name in (given if isinstance(given, list) else [given])]

    return resources


def ssm_rules() -> dict[str, Rule]:
    one = "DeleteParameter GetParameter GetParameterHistory LabelParameterVersion UnlabelParameterVersion"
    return {
        **each("ssm", _parameter("Name"), one),
        **each("ssm", _parameter("Names"), "DeleteParameters GetParameters"),
        **each("ssm", _parameter("Path"), "GetParametersByPath"),
        **each("ssm", _parameter("ResourceId"), "AddTagsToResource ListTagsForResource RemoveTagsFromResource"),
        "DescribeParameters": on("ssm:DescribeParameters", arn_of("ssm", "*")),
        "PutParameter": both(
            on("ssm:PutParameter", _parameter("Name")), when("Tags", on("ssm:AddTagsToResource", _parameter("Name")))
        ),
    }


def _secret_arn(ctx: Context, identifier: str) -> str:
    found = secrets.by_name(ctx.db, ctx.scope, identifier)
    if found is None and identifier.startswith("arn:"):
        found = secrets.by_arn(ctx.db, ctx.scope, identifier)
    if found is not None:
        return found.arn
    return identifier if identifier.startswith("arn:") else _new_secret(ctx, identifier)


def _new_secret(ctx: Context, name: str) -> str:
    """The ARN a secret will have, before the six characters of its suffix are known."""
    return ctx.scope.arn("secretsmanager", f"secret:{name}-??????")


def _secret(ctx: Context, params: Params) -> list[str]:
    return [_secret_arn(ctx, params["SecretId"])]


def _several_secrets(ctx: Context, params: Params) -> list[Need]:
    named = [_secret_arn(ctx, identifier) for identifier in params.get("SecretIdList") or ()]
    read = [Need("secretsmanager:GetSecretValue", arn, {}) for arn in named or ["*"]]
    return [Need("secretsmanager:BatchGetSecretValue", "*", {}), *read]


def secretsmanager_rules() -> dict[str, Rule]:
    plain = (
        "CancelRotateSecret DeleteResourcePolicy DeleteSecret DescribeSecret GetResourcePolicy GetSecretValue "
        "ListSecretVersionIds PutResourcePolicy PutSecretValue RestoreSecret TagResource UntagResource UpdateSecret "
        "UpdateSecretVersionStage"
    )

    def made(ctx: Context, params: Params) -> list[str]:
        return [_new_secret(ctx, params["Name"])]

    return {
        **each("secretsmanager", _secret, plain),
        **each("secretsmanager", anything, "GetRandomPassword ListSecrets"),
        "CreateSecret": both(
            on("secretsmanager:CreateSecret", made), when("Tags", on("secretsmanager:TagResource", made))
        ),
        "RotateSecret": both(
            on("secretsmanager:RotateSecret", _secret),
            when("RotationLambdaARN", on("lambda:InvokeFunction", given("RotationLambdaARN"))),
        ),
        "BatchGetSecretValue": _several_secrets,
    }

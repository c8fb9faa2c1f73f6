"""AWS::ApiGatewayV2: HTTP and WebSocket APIs. An OpenAPI `Body` is read into integrations, authorizers and routes."""

from collections.abc import Callable
from typing import Any

from preheat.template.definition import (
    Call,
    Failed,
    Made,
    Resource,
    ResourceType,
    Script,
    properties,
    tag_map,
)

SERVICE = "apigatewayv2"
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "x-amazon-apigateway-any-method")
API = (
    "ApiKeySelectionExpression", "CorsConfiguration", "CredentialsArn", "Description", "DisableSchemaValidation",
    "DisableExecuteApiEndpoint", "IpAddressType", "Name", "ProtocolType", "RouteKey", "RouteSelectionExpression",
    "Target", "Version",
)  # fmt: skip
CORS = {
    "allowOrigins": "AllowOrigins", "allowMethods": "AllowMethods", "allowHeaders": "AllowHeaders",
    "exposeHeaders": "ExposeHeaders", "maxAge": "MaxAge", "allowCredentials": "AllowCredentials",
}  # fmt: skip
FIXED_AFTER_CREATION = ("ProtocolType",)


def _api_params(resource: Resource) -> dict[str, Any]:
    params = resource.pick(*API)
    body = resource.get("Body")
    if body:
        info = body.get("info") or {}
        params.setdefault("Name", info.get("title", resource.logical_id))
        params.setdefault("ProtocolType", "HTTP")
        if info.get("version") is not None:
            params.setdefault("Version", str(info["version"]))
        if info.get("description"):
            params.setdefault("Description", info["description"])
        cors = body.get("x-amazon-apigateway-cors")
        if cors:
            params.setdefault("CorsConfiguration", {CORS[key]: item for key, item in cors.items() if key in CORS})
    if "Name" not in params or "ProtocolType" not in params:
        raise Failed(
            f"Properties validation failed for resource {resource.logical_id} with message:\n"
            "#: Name and ProtocolType are required where there is no Body"
        )
    return params


def create_api(resource: Resource) -> Script:
    if resource.get("BodyS3Location"):
        raise Failed("Preheat does not read an API's definition from S3; put it into Body")
    params = _api_params(resource)
    if resource.get("Tags"):
        params["Tags"] = tag_map(resource.get("Tags"))
    output = yield Call(SERVICE, "CreateApi", params, ("ApiId", "ApiEndpoint"))
    yield Made(output["ApiId"])
    if resource.get("Body"):
        yield from _import(output["ApiId"], resource.get("Body"))
    return {"ApiId": output["ApiId"], "ApiEndpoint": output.get("ApiEndpoint", "")}


def _import(api: str, body: dict[str, Any]) -> Script:
    """Routes of an OpenAPI document, each with its integration."""
    authorizers = yield from _import_authorizers(api, body)
    targets: dict[str, str] = {}
    for path, item in (body.get("paths") or {}).items():
        for method in METHODS:
            if method not in item:
                continue
            operation = item[method]
            route = _route_key(path, method)
            integration = operation.get("x-amazon-apigateway-integration")
            if integration is None:
                raise Failed(f"Route {route} of the Body has no x-amazon-apigateway-integration")
            params = _integration(api, integration)
            known = repr(sorted(params.items(), key=lambda pair: pair[0]))
            if known not in targets:
                made = yield Call(SERVICE, "CreateIntegration", params, ("IntegrationId",))
                targets[known] = f"integrations/{made['IntegrationId']}"
            auth = _security(operation, body, authorizers)
            yield Call(SERVICE, "CreateRoute", {"ApiId": api, "RouteKey": route, "Target": targets[known], **auth})
    return {}


def _route_key(path: str, method: str) -> str:
    if path in ("/$default", "$default"):
        return "$default"
    return f"{'ANY' if method == METHODS[-1] else method.upper()} {path}"


def _integration(api: str, given: dict[str, Any]) -> dict[str, Any]:
    uri = str(given.get("uri", ""))
    if ":lambda:path/" in uri and "/functions/" in uri:
        uri = uri.split("/functions/", 1)[1].removesuffix("/invocations")
    params: dict[str, Any] = {
        "ApiId": api,
        "IntegrationType": str(given["type"]).upper(),
        "PayloadFormatVersion": str(given.get("payloadFormatVersion", "1.0")),
    }
    names = (
        ("httpMethod", "IntegrationMethod"),
        ("credentials", "CredentialsArn"),
        ("connectionType", "ConnectionType"),
        ("connectionId", "ConnectionId"),
        ("integrationSubtype", "IntegrationSubtype"),
        ("requestParameters", "RequestParameters"),
        ("timeoutInMillis", "TimeoutInMillis"),
    )
    params.update({target: given[source] for source, target in names if source in given})
    if uri:
        params["IntegrationUri"] = uri
    return params


def _import_authorizers(api: str, body: dict[str, Any]) -> Script:
    """Ids and kinds of the document's authorizers by the name of their security scheme."""
    found: dict[str, Any] = {}
    schemes = (body.get("components") or {}).get("securitySchemes") or {}
    for name, scheme in schemes.items():
        given = scheme.get("x-amazon-apigateway-authorizer")
        if given is None:
            continue
        kind = str(given.get("type", "")).upper()
        params: dict[str, Any] = {"ApiId": api, "Name": name, "AuthorizerType": kind}
        source = given.get("identitySource")
        if source:
            listed = source if isinstance(source, list) else source.split(",")
            params["IdentitySource"] = [part.strip() for part in listed]
        jwt = given.get("jwtConfiguration")
        if jwt:
            params["JwtConfiguration"] = {"Issuer": jwt.get("issuer"), "Audience": jwt.get("audience")}
        for key, target in (
            ("authorizerUri", "AuthorizerUri"),
            ("authorizerPayloadFormatVersion", "AuthorizerPayloadFormatVersion"),
            ("authorizerResultTtlInSeconds", "AuthorizerResultTtlInSeconds"),
            ("enableSimpleResponses", "EnableSimpleResponses"),
            ("authorizerCredentials", "AuthorizerCredentialsArn"),
        ):
            if key in given:
                params[target] = given[key]
        made = yield Call(SERVICE, "CreateAuthorizer", params, ("AuthorizerId",))
        found[name] = (made["AuthorizerId"], "JWT" if kind == "JWT" else "CUSTOM")
    return found


def _security(operation: dict[str, Any], body: dict[str, Any], authorizers: dict[str, Any]) -> dict[str, Any]:
    required = operation.get("security", body.get("security")) or []
    for item in required:
        for name, scopes in item.items():
            if name in authorizers:
                authorizer, kind = authorizers[name]
                auth = {"AuthorizationType": kind, "AuthorizerId": authorizer}
                return {**auth, "AuthorizationScopes": scopes} if scopes else auth
            if name in ("AWS_IAM", "sigv4"):
                return {"AuthorizationType": "AWS_IAM"}
            if name == "NONE":
                return {}
            raise Failed(f"The security scheme {name} of the Body has no authorizer")
    return {}


def update_api(resource: Resource) -> Script:
    api = resource.physical_id
    params = {name: item for name, item in _api_params(resource).items() if name not in FIXED_AFTER_CREATION}
    yield Call(SERVICE, "UpdateApi", {"ApiId": api, **params})
    if resource.changed("Body"):
        yield from _clear(api, resource.old.get("Body") or {})
        yield from _import(api, resource.get("Body") or {})
    yield from _change_tags(resource, f"arn:aws:apigateway:{resource.scope.region}::/apis/{api}")
    return resource.attributes


def _clear(api: str, body: dict[str, Any]) -> Script:
    kinds = [("GetRoutes", "RouteId", "DeleteRoute"), ("GetIntegrations", "IntegrationId", "DeleteIntegration")]
    if (body.get("components") or {}).get("securitySchemes"):
        kinds.append(("GetAuthorizers", "AuthorizerId", "DeleteAuthorizer"))
    for read, key, delete in kinds:
        output = yield Call(SERVICE, read, {"ApiId": api}, ("Items",))
        for item in output.get("Items") or ():
            yield Call(SERVICE, delete, {"ApiId": api, key: item[key]})
    return {}


def _change_tags(resource: Resource, arn: str) -> Script:
    old, new = tag_map(resource.old.get("Tags")), tag_map(resource.get("Tags"))
    if set(old) - set(new):
        yield Call(SERVICE, "UntagResource", {"ResourceArn": arn, "TagKeys": sorted(set(old) - set(new))})
    if new and new != old:
        yield Call(SERVICE, "TagResource", {"ResourceArn": arn, "Tags": new})
    return {}


def delete_api(resource: Resource) -> Script:
    yield Call(SERVICE, "DeleteApi", {"ApiId": resource.physical_id})
    return {}


Scripts = tuple[Callable[[Resource], Script], Callable[[Resource], Script], Callable[[Resource], Script]]


def part(what: str, key: str, names: tuple[str, ...], attribute: str | None = None) -> Scripts:
    """Scripts of a thing inside an API that the service names itself: `Create<what>` gives `<key>`."""

    def create(resource: Resource) -> Script:
        output = yield Call(SERVICE, f"Create{what}", _params(resource, names), (key,))
        yield Made(output[key])
        return {key: output[key], **({attribute: output[key]} if attribute else {})}

    def update(resource: Resource) -> Script:
        params = {**_params(resource, names), key: resource.physical_id}
        if what == "Deployment":
            params.pop("StageName", None)
        yield Call(SERVICE, f"Update{what}", params)
        return resource.attributes

    def delete(resource: Resource) -> Script:
        yield Call(SERVICE, f"Delete{what}", {"ApiId": resource.properties["ApiId"], key: resource.physical_id})
        return {}

    return create, update, delete


def _params(resource: Resource, names: tuple[str, ...]) -> dict[str, Any]:
    params = resource.pick("ApiId", *names)
    if "Tags" in params:
        params["Tags"] = tag_map(params["Tags"])
    return params


def _response_scripts() -> Scripts:
    """Of a route's response, which is addressed through its route."""
    create, _, _ = part("RouteResponse", "RouteResponseId", RESPONSE)

    def update(resource: Resource) -> Script:
        params = {**_params(resource, RESPONSE), "RouteResponseId": resource.physical_id}
        yield Call(SERVICE, "UpdateRouteResponse", params)
        return resource.attributes

    def delete(resource: Resource) -> Script:
        address = resource.pick("ApiId", "RouteId")
        yield Call(SERVICE, "DeleteRouteResponse", {**address, "RouteResponseId": resource.physical_id})
        return {}

    return create, update, delete


def create_stage(resource: Resource) -> Script:
    yield Call(SERVICE, "CreateStage", _params(resource, STAGE))
    yield Made(resource.properties["StageName"])
    return {}


def update_stage(resource: Resource) -> Script:
    params = {key: item for key, item in _params(resource, STAGE).items() if key != "Tags"}
    yield Call(SERVICE, "UpdateStage", params)
    return {}


def delete_stage(resource: Resource) -> Script:
    yield Call(SERVICE, "DeleteStage", resource.pick("ApiId", "StageName"))
    return {}


ROUTE = (
    "ApiKeyRequired", "AuthorizationScopes", "AuthorizationType", "AuthorizerId", "ModelSelectionExpression",
    "OperationName", "RequestModels", "RequestParameters", "RouteKey", "RouteResponseSelectionExpression", "Target",
)  # fmt: skip
INTEGRATION = (
    "ConnectionId", "ConnectionType", "ContentHandlingStrategy", "CredentialsArn", "Description", "IntegrationMethod",
    "IntegrationSubtype", "IntegrationType", "IntegrationUri", "PassthroughBehavior", "PayloadFormatVersion",
    "RequestParameters", "RequestTemplates", "ResponseParameters", "TemplateSelectionExpression", "TimeoutInMillis",
    "TlsConfig",
)  # fmt: skip
STAGE = (
    "AccessLogSettings", "AutoDeploy", "ClientCertificateId", "DefaultRouteSettings", "DeploymentId", "Description",
    "RouteSettings", "StageName", "StageVariables", "Tags",
)  # fmt: skip
RESPONSE = ("ModelSelectionExpression", "ResponseModels", "ResponseParameters", "RouteId", "RouteResponseKey")
AUTHORIZER = (
    "AuthorizerCredentialsArn", "AuthorizerPayloadFormatVersion", "AuthorizerResultTtlInSeconds", "AuthorizerType",
    "AuthorizerUri", "EnableSimpleResponses", "IdentitySource", "IdentityValidationExpression", "JwtConfiguration",
    "Name",
)  # fmt: skip


def _type(
    name: str,
    scripts: Scripts,
    names: tuple[str, ...],
    replaces: str,
    required: str,
    attributes: tuple[str, ...] = (),
    **more: Any,
) -> ResourceType:
    create, update, delete = scripts
    return ResourceType(
        f"AWS::ApiGatewayV2::{name}",
        properties(" ".join(("ApiId", *names)), replaces, required),
        create,
        delete,
        update,
        attributes,
        **more,
    )


TYPES = (
    ResourceType(
        "AWS::ApiGatewayV2::Api",
        properties(
            " ".join((*API, "Tags")),
            replaces="ProtocolType",
            approximates={
                "Body": "of OpenAPI 3 the paths, integrations, authorizers, CORS and security are read, not the rest",
                "FailOnWarnings": "nothing here warns",
                "BodyS3Location": "refused: put the definition into Body",
            },
        ),
        create_api,
        delete_api,
        update_api,
        attributes=("ApiId", "ApiEndpoint"),
        tags="map",
    ),
    _type("Route", part("Route", "RouteId", ROUTE), ROUTE, "ApiId", "ApiId RouteKey", ("RouteId",)),
    _type(
        "Integration", part("Integration", "IntegrationId", INTEGRATION), INTEGRATION, "ApiId", "ApiId IntegrationType",
        ("IntegrationId",),
    ),
    _type("Stage", (create_stage, update_stage, delete_stage), STAGE, "ApiId StageName Tags", "ApiId StageName"),
    _type(
        "Deployment", part("Deployment", "DeploymentId", ("Description", "StageName")), ("Description", "StageName"),
        "ApiId StageName", "ApiId", ("DeploymentId",),
    ),
    _type(
        "RouteResponse", _response_scripts(), RESPONSE, "ApiId RouteId", "ApiId RouteId RouteResponseKey",
        ("RouteResponseId",),
    ),
    _type(
        "Authorizer", part("Authorizer", "AuthorizerId", AUTHORIZER), AUTHORIZER, "ApiId", "ApiId AuthorizerType Name",
        ("AuthorizerId",),
    ),
)  # fmt: skip

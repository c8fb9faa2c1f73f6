"""Amazon API Gateway v2, HTTP and WebSocket APIs: the control plane. Requests to deployed APIs are
`gateway/execute_api`'s, WebSockets `gateway/socket_api`'s."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from preheat.kernel.errors import AwsError
from preheat.services.apigatewayv2 import domain, sockets
from preheat.services.apigatewayv2.domain import bad, not_found
from preheat.services.apigatewayv2.repository import ApiRepository, Deployed
from preheat.services.contract import Context, Operation, Outcome, Params, Platform

ID_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
REFUSED = {
    "AccessLogSettings": "access logs",
    "ClientCertificateId": "client certificates",
    "ApiKeyRequired": "API keys",
    "TlsConfig": "TLS settings of integrations",
    "ResponseParameters": "response parameter mapping",
    "RequestModels": "request models",
    "ResponseModels": "response models",
    "ConnectionId": "VPC links",
    "MutualTlsAuthentication": "mutual TLS",
    "DisableExecuteApiEndpoint": "disabling the default endpoint",
}
PARENTS = {"route": "RouteId", "integration": "IntegrationId", "stage": "StageName", "deployment": "DeploymentId"}
HTTP_SELECTION = "$request.method $request.path"
LONGEST_TIMEOUT_MS = 30_000
PAGE = 500


class ApiGatewayV2Service:
    name = "apigatewayv2"
    schema = (Path(__file__).parent / "schema.sql").read_text()

    def __init__(self, platform: Platform) -> None:
        self._rows = ApiRepository(platform.db)
        self._endpoint = platform.settings.endpoint
        self.operations: dict[str, Operation] = {
            "CreateApi": self.create_api,
            "ImportApi": self.import_api,
            "ReimportApi": self.reimport_api,
            "GetApi": self.get_api,
            "GetApis": self.get_apis,
            "UpdateApi": self.update_api,
            "DeleteApi": self.delete_api,
            "DeleteCorsConfiguration": self.delete_cors,
            "CreateRoute": self.create_route,
            "UpdateRoute": self.update_route,
            "CreateIntegration": self.create_integration,
            "UpdateIntegration": self.update_integration,
            "CreateStage": self.create_stage,
            "UpdateStage": self.update_stage,
            "CreateDeployment": self.create_deployment,
            "UpdateDeployment": self.update_deployment,
            "CreateRouteResponse": self.create_response,
            "GetRouteResponse": self.get_response,
            "GetRouteResponses": self.get_responses,
            "UpdateRouteResponse": self.update_response,
            "DeleteRouteResponse": self.delete_response,
            "TagResource": self.tag_resource,
            "UntagResource": self.untag_resource,
            "GetTags": self.get_tags,
        }
        for kind, key in PARENTS.items():
            self.operations |= self._common(kind, key)

    def deployed(self, api_id: str, stage: str) -> Deployed | None:
        """What a stage of an API serves now, or None (for `gateway/execute_api`)."""
        return self._rows.deployed(api_id, stage)

    def _common(self, kind: str, key: str) -> dict[str, Operation]:
        """Get, list and delete are the same for every kind of child."""
        title = kind.capitalize()

        def get(ctx: Context, params: Params) -> Outcome:
            return _shown(self._child(ctx, params["ApiId"], kind, params[key]))

        def list_all(ctx: Context, params: Params) -> Outcome:
            self._api(ctx, params["ApiId"])
            return _page([_shown(item) for item in self._rows.children(params["ApiId"], kind)], params)

        def delete(ctx: Context, params: Params) -> Outcome:
            api_id, name = params["ApiId"], params[key]
            self._child(ctx, api_id, kind, name)
            if kind == "integration":
                users = [route for route in self._rows.children(api_id, "route")
                         if route.get("Target") == f"integrations/{name}"]  # fmt: skip
                if users:
                    raise AwsError("ConflictException", f"Cannot delete integration {name}: route "
                                   f"{users[0]['RouteKey']} still uses it", 409)  # fmt: skip
            if kind == "deployment" and any(
                stage.get("DeploymentId") == name for stage in self._rows.children(api_id, "stage")
            ):
                raise bad("Active stages pointing to this deployment must be moved or deleted")
            self._rows.remove(api_id, kind, name)
            for response in self._rows.children(api_id, "response") if kind == "route" else ():
                if response["RouteId"] == name:
                    self._rows.remove(api_id, "response", response["RouteResponseId"])
            return {}

        return {f"Get{title}": get, f"Get{title}s": list_all, f"Delete{title}": delete}

    # -- APIs -----------------------------------------------------------------------------------------------------

    def _api(self, ctx: Context, api_id: str) -> dict[str, Any]:
        found = self._rows.get(ctx.scope, api_id, "api", api_id)
        if found is None:
            raise not_found("API", f"{ctx.scope.account}:{api_id}")
        return found

    def _child(self, ctx: Context, api_id: str, kind: str, name: str) -> dict[str, Any]:
        self._api(ctx, api_id)
        found = self._rows.get(ctx.scope, api_id, kind, name)
        if found is None:
            raise not_found(kind.capitalize(), name)
        return found

    def _is_socket(self, ctx: Context, api_id: str) -> bool:
        return self._api(ctx, api_id)["ProtocolType"] == "WEBSOCKET"

    def create_api(self, ctx: Context, params: Params) -> Outcome:
        _refuse(params)
        if params["ProtocolType"] == "WEBSOCKET":
            for name in ("CorsConfiguration", "Target", "RouteKey", "CredentialsArn"):
                if params.get(name):
                    raise bad(f"{name} is not supported for WEBSOCKET APIs")
            sockets.check_selection(params.get("RouteSelectionExpression"))
            return _shown(self._new_api(ctx, params))
        api = self._new_api(ctx, {key: value for key, value in params.items() if key not in ("Target", "RouteKey")})
        target = params.get("Target")
        if target:
            self._quick(ctx, api["ApiId"], params.get("RouteKey") or "$default", target)
        return _shown(api)

    def _new_api(self, ctx: Context, properties: dict[str, Any]) -> dict[str, Any]:
        api_id = ctx.entropy.token(10, ID_ALPHABET)
        kind = properties.get("ProtocolType", "HTTP")
        selection = properties.get("RouteSelectionExpression") if kind == "WEBSOCKET" else HTTP_SELECTION
        api = {
            **properties,
            "ApiId": api_id,
            "ProtocolType": kind,
            "ApiEndpoint": self._url(ctx, api_id, "ws" if kind == "WEBSOCKET" else "http"),
            "RouteSelectionExpression": selection,
            "ApiKeySelectionExpression": "$request.header.x-api-key",
            "CreatedDate": _stamp(ctx),
        }
        self._rows.put(ctx.scope, api_id, "api", api_id, api)
        return api

    def _url(self, ctx: Context, api_id: str, scheme: str) -> str:
        port = self._endpoint.rpartition(":")[2]
        return f"{scheme}://{api_id}.execute-api.{ctx.scope.region}.localhost:{port}"

    def _quick(self, ctx: Context, api_id: str, route_key: str, target: str) -> None:
        integration: Any = self.create_integration(
            ctx,
            {"ApiId": api_id, "IntegrationType": "AWS_PROXY", "IntegrationUri": target, "PayloadFormatVersion": "2.0"},
        )
        name = integration["IntegrationId"]
        self.create_route(ctx, {"ApiId": api_id, "RouteKey": route_key, "Target": f"integrations/{name}"})
        self.create_stage(ctx, {"ApiId": api_id, "StageName": "$default", "AutoDeploy": True})

    def import_api(self, ctx: Context, params: Params) -> Outcome:
        properties, routes = domain.import_openapi(_openapi(params["Body"]))
        api = self._new_api(ctx, properties)
        self._import_routes(ctx, api["ApiId"], routes)
        return _shown(api)

    def reimport_api(self, ctx: Context, params: Params) -> Outcome:
        api = self._api(ctx, params["ApiId"])
        properties, routes = domain.import_openapi(_openapi(params["Body"]))
        for kind in ("route", "integration"):
            for item in self._rows.children(api["ApiId"], kind):
                self._rows.remove(api["ApiId"], kind, item[PARENTS[kind]])
        api |= properties
        self._rows.put(ctx.scope, api["ApiId"], "api", api["ApiId"], api)
        self._import_routes(ctx, api["ApiId"], routes)
        return _shown(api)

    def _import_routes(self, ctx: Context, api_id: str, routes: list[tuple[str, dict[str, Any]]]) -> None:
        for key, integration in routes:
            made: Any = self.create_integration(ctx, {"ApiId": api_id, **integration})
            target = f"integrations/{made['IntegrationId']}"
            self.create_route(ctx, {"ApiId": api_id, "RouteKey": key, "Target": target})

    def get_api(self, ctx: Context, params: Params) -> Outcome:
        return _shown(self._api(ctx, params["ApiId"]))

    def get_apis(self, ctx: Context, params: Params) -> Outcome:
        return _page([_shown(api) for api in self._rows.apis(ctx.scope)], params)

    def update_api(self, ctx: Context, params: Params) -> Outcome:
        _refuse(params)
        api = self._api(ctx, params["ApiId"])
        for name in ("Target", "RouteKey", "CredentialsArn"):
            if name in params:
                raise bad(f"{name} can only be given when an API is created by Preheat; update the route instead.")
        if api["ProtocolType"] == "WEBSOCKET":
            if params.get("CorsConfiguration"):
                raise bad("CorsConfiguration is not supported for WEBSOCKET APIs")
            sockets.check_selection(params.get("RouteSelectionExpression", api["RouteSelectionExpression"]))
        api |= params
        self._rows.put(ctx.scope, api["ApiId"], "api", api["ApiId"], api)
        return _shown(api)

    def delete_api(self, ctx: Context, params: Params) -> Outcome:
        self._api(ctx, params["ApiId"])
        self._rows.remove_api(params["ApiId"])
        return {}

    def delete_cors(self, ctx: Context, params: Params) -> Outcome:
        api = self._api(ctx, params["ApiId"])
        api.pop("CorsConfiguration", None)
        self._rows.put(ctx.scope, api["ApiId"], "api", api["ApiId"], api)
        return {}

    # -- routes and integrations ----------------------------------------------------------------------------------

    def create_route(self, ctx: Context, params: Params) -> Outcome:
        route = {"AuthorizationType": "NONE", "ApiKeyRequired": False, **params}
        route["RouteId"] = ctx.entropy.token(7, ID_ALPHABET)
        return self._put_route(ctx, route)

    def update_route(self, ctx: Context, params: Params) -> Outcome:
        return self._put_route(ctx, self._child(ctx, params["ApiId"], "route", params["RouteId"]) | params)

    def _put_route(self, ctx: Context, route: dict[str, Any]) -> Outcome:
        api_id = route.pop("ApiId", None) or route["Api"]
        route["Api"] = api_id
        _refuse(route)
        if self._is_socket(ctx, api_id):
            sockets.check_key(route["RouteKey"])
            if route.get("RouteResponseSelectionExpression") not in (None, sockets.DEFAULT):
                raise bad("RouteResponseSelectionExpression must be $default")
        else:
            domain.parse_route_key(route["RouteKey"])
        if route.get("AuthorizationType", "NONE") != "NONE":
            raise bad(f"AuthorizationType {route['AuthorizationType']} is not supported by Preheat yet; NONE is.")
        if route.get("RequestParameters"):
            raise bad("RequestParameters of a route are not supported by Preheat.")
        target = route.get("Target")
        if target and self._rows.get(ctx.scope, api_id, "integration", target.removeprefix("integrations/")) is None:
            raise bad(f"Invalid target for route: no such integration {target}")
        for other in self._rows.children(api_id, "route"):
            if other["RouteKey"] == route["RouteKey"] and other["RouteId"] != route["RouteId"]:
                raise AwsError("ConflictException", f"Route with key {route['RouteKey']} already exists for this API",
                               409)  # fmt: skip
        self._rows.put(ctx.scope, api_id, "route", route["RouteId"], route)
        return _shown(route)

    def create_integration(self, ctx: Context, params: Params) -> Outcome:
        socket = self._is_socket(ctx, params["ApiId"])
        longest = sockets.LONGEST_TIMEOUT_MS if socket else LONGEST_TIMEOUT_MS
        integration = {"ConnectionType": "INTERNET", "TimeoutInMillis": longest, **params}
        if socket:
            integration.setdefault("PayloadFormatVersion", "1.0")
        integration["IntegrationId"] = ctx.entropy.token(7, ID_ALPHABET)
        if integration.get("IntegrationSubtype"):
            integration.setdefault("PayloadFormatVersion", "1.0")
        return self._put_integration(ctx, integration)

    def update_integration(self, ctx: Context, params: Params) -> Outcome:
        known = self._child(ctx, params["ApiId"], "integration", params["IntegrationId"])
        return self._put_integration(ctx, known | params)

    def _put_integration(self, ctx: Context, integration: dict[str, Any]) -> Outcome:
        api_id = integration.pop("ApiId", None) or integration["Api"]
        integration["Api"] = api_id
        socket = self._is_socket(ctx, api_id)
        _refuse(integration)
        if integration.get("RequestTemplates") and not (socket and integration["IntegrationType"] == "MOCK"):
            raise bad("RequestTemplates are supported by Preheat for MOCK integrations of WebSocket APIs only.")
        (sockets if socket else domain).check_integration(integration)
        longest = sockets.LONGEST_TIMEOUT_MS if socket else LONGEST_TIMEOUT_MS
        if not 50 <= integration["TimeoutInMillis"] <= longest:
            raise bad(f"Timeout should be between 50 ms and {longest} ms")
        if integration.get("RequestParameters") and not integration.get("IntegrationSubtype"):
            raise bad("Parameter mapping on Lambda integrations is not supported by Preheat.")
        self._rows.put(ctx.scope, api_id, "integration", integration["IntegrationId"], integration)
        return _shown(integration)

    # -- stages and deployments -----------------------------------------------------------------------------------

    def create_stage(self, ctx: Context, params: Params) -> Outcome:
        stage = {"AutoDeploy": False, "CreatedDate": _stamp(ctx), "StageVariables": {}, **params}
        api_id = stage.pop("ApiId")
        self._api(ctx, api_id)
        name = stage["StageName"]
        if name != "$default" and not name.replace("-", "").replace("_", "").isalnum():
            raise bad(f"Invalid stage name {name}: letters, digits, hyphens, underscores, or $default")
        if self._rows.get(ctx.scope, api_id, "stage", name) is not None:
            raise AwsError("ConflictException", "Stage already exists", 409)
        return self._put_stage(ctx, api_id, stage)

    def update_stage(self, ctx: Context, params: Params) -> Outcome:
        stage = self._child(ctx, params["ApiId"], "stage", params["StageName"])
        if params.get("AutoDeploy"):
            stage.pop("DeploymentId", None)
        return self._put_stage(ctx, params["ApiId"], stage | {k: v for k, v in params.items() if k != "ApiId"})

    def _put_stage(self, ctx: Context, api_id: str, stage: dict[str, Any]) -> Outcome:
        _refuse(stage)
        deployment = stage.get("DeploymentId")
        if deployment and stage.get("AutoDeploy"):
            raise bad(f"Deployment ID cannot be set on stage {stage['StageName']} because AutoDeploy is enabled")
        if deployment and self._rows.get(ctx.scope, api_id, "deployment", deployment) is None:
            raise not_found("Deployment", deployment)
        settings = [stage.get("DefaultRouteSettings") or {}, *(stage.get("RouteSettings") or {}).values()]
        for setting in settings:
            extra = set(setting) - {"ThrottlingBurstLimit", "ThrottlingRateLimit"}
            if any(setting[name] for name in extra):
                raise bad(f"Route settings {', '.join(sorted(extra))} are not supported by Preheat; throttling is.")
        stage["LastUpdatedDate"] = _stamp(ctx)
        self._rows.put(ctx.scope, api_id, "stage", stage["StageName"], stage)
        return _shown(stage)

    def create_deployment(self, ctx: Context, params: Params) -> Outcome:
        api_id = params["ApiId"]
        self._api(ctx, api_id)
        snapshot = self._rows.snapshot(api_id)
        if not snapshot["routes"]:
            raise bad("At least one route is required before deploying the Api.")
        deployment = {
            "DeploymentId": ctx.entropy.token(6, ID_ALPHABET),
            "CreatedDate": _stamp(ctx),
            "DeploymentStatus": "DEPLOYED",
            "Description": params.get("Description"),
            "AutoDeployed": False,
            "Snapshot": snapshot,
        }
        name = deployment["DeploymentId"]
        self._rows.put(ctx.scope, api_id, "deployment", name, deployment)
        stage_name = params.get("StageName")
        if stage_name:
            stage = self._child(ctx, api_id, "stage", stage_name)
            self._put_stage(ctx, api_id, stage | {"DeploymentId": name})
        return _shown(deployment)

    def update_deployment(self, ctx: Context, params: Params) -> Outcome:
        deployment = self._child(ctx, params["ApiId"], "deployment", params["DeploymentId"])
        deployment["Description"] = params.get("Description", deployment.get("Description"))
        self._rows.put(ctx.scope, params["ApiId"], "deployment", params["DeploymentId"], deployment)
        return _shown(deployment)

    # -- route responses of WebSocket APIs ------------------------------------------------------------------------

    def create_response(self, ctx: Context, params: Params) -> Outcome:
        api_id, route_id = params["ApiId"], params["RouteId"]
        if not self._is_socket(ctx, api_id):
            raise bad("Route responses are supported only for WEBSOCKET APIs")
        self._child(ctx, api_id, "route", route_id)
        if any(one["RouteId"] == route_id for one in self._rows.children(api_id, "response")):
            raise AwsError("ConflictException", "Route response already exists for this route", 409)
        return self._put_response(ctx, {**params, "RouteResponseId": ctx.entropy.token(7, ID_ALPHABET)})

    def update_response(self, ctx: Context, params: Params) -> Outcome:
        return self._put_response(ctx, self._response(ctx, params) | params)

    def _put_response(self, ctx: Context, response: dict[str, Any]) -> Outcome:
        api_id = response.pop("ApiId")
        _refuse(response)
        if response["RouteResponseKey"] != sockets.DEFAULT:
            raise bad("RouteResponseKey must be $default")
        if response.get("ResponseParameters"):
            raise bad("ResponseParameters are not supported by Preheat.")
        self._rows.put(ctx.scope, api_id, "response", response["RouteResponseId"], response)
        return _shown(response, "RouteId")

    def _response(self, ctx: Context, params: Params) -> dict[str, Any]:
        found = self._child(ctx, params["ApiId"], "response", params["RouteResponseId"])
        if found["RouteId"] != params["RouteId"]:
            raise not_found("RouteResponse", params["RouteResponseId"])
        return found

    def get_response(self, ctx: Context, params: Params) -> Outcome:
        return _shown(self._response(ctx, params), "RouteId")

    def get_responses(self, ctx: Context, params: Params) -> Outcome:
        self._child(ctx, params["ApiId"], "route", params["RouteId"])
        known = self._rows.children(params["ApiId"], "response")
        return _page([_shown(one, "RouteId") for one in known if one["RouteId"] == params["RouteId"]], params)

    def delete_response(self, ctx: Context, params: Params) -> Outcome:
        self._response(ctx, params)
        self._rows.remove(params["ApiId"], "response", params["RouteResponseId"])
        return {}

    # -- tags -----------------------------------------------------------------------------------------------------

    def _tagged(self, ctx: Context, arn: str) -> tuple[str, str, str, dict[str, Any]]:
        parts = arn.partition("/apis/")[2].split("/")
        kind, name = ("stage", parts[2]) if len(parts) == 3 and parts[1] == "stages" else ("api", parts[0])
        found = self._rows.get(ctx.scope, parts[0], kind, name)
        if found is None:
            raise not_found("resource", arn)
        return parts[0], kind, name, found

    def _change_tags(self, ctx: Context, arn: str, change: Callable[[dict[str, str]], None]) -> Outcome:
        api_id, kind, name, document = self._tagged(ctx, arn)
        tags = document.setdefault("Tags", {})
        change(tags)
        self._rows.put(ctx.scope, api_id, kind, name, document)
        return {}

    def tag_resource(self, ctx: Context, params: Params) -> Outcome:
        return self._change_tags(ctx, params["ResourceArn"], lambda tags: tags.update(params.get("Tags") or {}))

    def untag_resource(self, ctx: Context, params: Params) -> Outcome:
        def remove(tags: dict[str, str]) -> None:
            for key in params["TagKeys"]:
                tags.pop(key, None)

        return self._change_tags(ctx, params["ResourceArn"], remove)

    def get_tags(self, ctx: Context, params: Params) -> Outcome:
        return {"Tags": self._tagged(ctx, params["ResourceArn"])[3].get("Tags") or {}}


def _refuse(params: Params) -> None:
    for name, what in REFUSED.items():
        if params.get(name):
            raise bad(f"{name} is not supported by Preheat: {what}.")


def _stamp(ctx: Context) -> str:
    return datetime.fromtimestamp(int(ctx.now), UTC).isoformat()


def _shown(document: dict[str, Any], *hidden: str) -> Params:
    """The document as the API shows it."""
    left_out = ("Api", "Snapshot", *hidden)
    out = {key: value for key, value in document.items() if key not in left_out and value is not None}
    for name in ("CreatedDate", "LastUpdatedDate"):
        if isinstance(out.get(name), str):
            out[name] = datetime.fromisoformat(out[name])
    return out


def _page(items: list[Params], params: Params) -> Params:
    size = int(params.get("MaxResults") or PAGE)
    try:
        start = int(params.get("NextToken") or 0)
    except ValueError as error:
        raise bad(f"Invalid NextToken {params.get('NextToken')}") from error
    output: Params = {"Items": items[start : start + size]}
    if start + size < len(items):
        output["NextToken"] = str(start + size)
    return output


def _openapi(text: str) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(text)
    except msgspec.DecodeError:
        import yaml

        try:
            document = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise bad(f"Unable to import API: the body is neither JSON nor YAML ({error})") from error
    if not isinstance(document, dict):
        raise bad("Unable to import API: the body is not an object")
    return document


def build(platform: Platform) -> ApiGatewayV2Service:
    return ApiGatewayV2Service(platform)

"""SQL of APIs. Documents are kept as JSON; an API's routes are compiled once and kept until something changes."""

from dataclasses import dataclass
from typing import Any

import msgspec

from preheat.kernel.scope import Scope
from preheat.services.apigatewayv2.domain import Route, make_route
from preheat.services.apigatewayv2.sockets import DEFAULT, make_socket_route
from preheat.store.database import Database


@dataclass(frozen=True, slots=True)
class Deployed:
    """What one stage serves. `telling`: ids of routes whose integration's response goes back to the client."""

    api: dict[str, Any]
    stage: dict[str, Any]
    routes: list[Route]
    integrations: dict[str, dict[str, Any]]
    scope: Scope
    telling: frozenset[str] = frozenset()

    def tells(self, route: Route) -> bool:
        return route.id in self.telling and route.document.get("RouteResponseSelectionExpression") == DEFAULT


class ApiRepository:
    def __init__(self, db: Database) -> None:
        self._db = db
        self._deployed: dict[tuple[str, str], Deployed | None] = {}
        db.on_undo.append(self._deployed.clear)

    def put(self, scope: Scope, api_id: str, kind: str, name: str, document: dict[str, Any]) -> None:
        self._deployed.clear()
        self._db.run(
            "INSERT OR REPLACE INTO apigatewayv2_resources VALUES (?, ?, ?, ?, ?, ?)",
            scope.account, scope.region, api_id, kind, name, msgspec.json.encode(document).decode(),
        )  # fmt: skip

    def get(self, scope: Scope, api_id: str, kind: str, name: str) -> dict[str, Any] | None:
        row = self._db.one(
            """SELECT document FROM apigatewayv2_resources
               WHERE account = ? AND region = ? AND api_id = ? AND kind = ? AND id = ?""",
            scope.account, scope.region, api_id, kind, name,
        )  # fmt: skip
        return None if row is None else msgspec.json.decode(row[0])

    def children(self, api_id: str, kind: str) -> list[dict[str, Any]]:
        rows = self._db.all(
            "SELECT document FROM apigatewayv2_resources WHERE api_id = ? AND kind = ? ORDER BY id", api_id, kind
        )
        return [msgspec.json.decode(row[0]) for row in rows]

    def apis(self, scope: Scope) -> list[dict[str, Any]]:
        rows = self._db.all(
            "SELECT document FROM apigatewayv2_resources WHERE account = ? AND region = ? AND kind = 'api' ORDER BY id",
            scope.account, scope.region,
        )  # fmt: skip
        return [msgspec.json.decode(row[0]) for row in rows]

    def remove(self, api_id: str, kind: str, name: str) -> bool:
        self._deployed.clear()
        return bool(
            self._db.run(
                "DELETE FROM apigatewayv2_resources WHERE api_id = ? AND kind = ? AND id = ?", api_id, kind, name
            )
        )

    def remove_api(self, api_id: str) -> None:
        self._deployed.clear()
        self._db.run("DELETE FROM apigatewayv2_resources WHERE api_id = ?", api_id)

    def deployed(self, api_id: str, stage_name: str) -> Deployed | None:
        """What the stage serves: the API as it stands when it deploys itself, else its deployment's snapshot."""
        key = (api_id, stage_name)
        if key not in self._deployed:
            self._deployed[key] = self._load(api_id, stage_name)
        return self._deployed[key]

    def _load(self, api_id: str, stage_name: str) -> Deployed | None:
        row = self._db.one(
            "SELECT account, region, document FROM apigatewayv2_resources WHERE api_id = ? AND kind = 'api'", api_id
        )
        stages = {stage["StageName"]: stage for stage in self.children(api_id, "stage")}
        stage = stages.get(stage_name)
        if row is None or stage is None:
            return None
        if stage.get("AutoDeploy"):
            found = self.snapshot(api_id)
        else:
            scope = Scope(row["account"], row["region"])
            deployment = self.get(scope, api_id, "deployment", stage.get("DeploymentId") or "")
            if deployment is None:
                return None
            found = deployment["Snapshot"]
        api = msgspec.json.decode(row["document"])
        make = make_socket_route if api["ProtocolType"] == "WEBSOCKET" else make_route
        return Deployed(
            api,
            stage,
            [make(route) for route in found["routes"]],
            {integration["IntegrationId"]: integration for integration in found["integrations"]},
            Scope(row["account"], row["region"]),
            frozenset(response["RouteId"] for response in found.get("responses", ())),
        )

    def snapshot(self, api_id: str) -> dict[str, list[dict[str, Any]]]:
        """What a deployment keeps of an API."""
        kinds = {"routes": "route", "integrations": "integration", "responses": "response"}
        return {name: self.children(api_id, kind) for name, kind in kinds.items()}

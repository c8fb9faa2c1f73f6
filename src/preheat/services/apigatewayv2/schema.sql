-- `kind` is api, route, integration, stage or deployment; `document` is the resource as the API describes it (JSON).
CREATE TABLE IF NOT EXISTS apigatewayv2_resources (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    api_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (api_id, kind, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS apigatewayv2_by_scope ON apigatewayv2_resources (account, region, kind);

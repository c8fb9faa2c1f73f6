"""Connections and API destinations: how an HTTP endpoint is called, and with which credentials.

What is secret of a connection lies in Secrets Manager, under `events!connection/<name>/<id>`.
"""

import base64
import json
import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn, Scope
from preheat.services.constraints import Violations, check_choice
from preheat.services.contract import Context, Operation, Outcome, Params
from preheat.services.events import domain
from preheat.services.events.domain import moment
from preheat.store.database import Database

KINDS = {
    "BASIC": ("BasicAuthParameters", ("Username", "Password")),
    "API_KEY": ("ApiKeyAuthParameters", ("ApiKeyName", "ApiKeyValue")),
    "OAUTH_CLIENT_CREDENTIALS": ("OAuthParameters", ("ClientParameters", "AuthorizationEndpoint", "HttpMethod")),
}
SECRET_MEMBERS = ("Password", "ApiKeyValue", "ClientSecret")
METHODS = ("HEAD", "POST", "PATCH", "DELETE", "PUT", "GET", "OPTIONS")
CONNECTION_STATES = (
    "CREATING", "UPDATING", "DELETING", "AUTHORIZED", "DEAUTHORIZED", "AUTHORIZING", "DEAUTHORIZING", "ACTIVE",
    "FAILED_CONNECTIVITY",
)  # fmt: skip
CONNECTION_ARN = (
    r"^arn:aws([a-z]|\-)*:events:([a-z]|\d|\-)*:([0-9]{12})?:connection\/[\.\-_A-Za-z0-9]+\/[\-A-Za-z0-9]+$"
)
DEFAULT_RATE = 300
TIMEOUT_S = 5.0
ENDPOINT = re.compile(r"https?://[^\s]+")
_CONNECTION = (
    "row, account, region, name, arn, description, type, shown, secret, state, created, modified, authorized"
)
_DESTINATION = "row, account, region, name, arn, description, connection, endpoint, method, rate, created, modified"


class Connection(NamedTuple):
    row: int
    account: str
    region: str
    name: str
    arn: str
    description: str | None
    type: str
    shown: dict[str, Any]
    secret: str
    state: str
    created: float
    modified: float
    authorized: float | None

    @property
    def scope(self) -> Scope:
        return Scope(self.account, self.region)


class Destination(NamedTuple):
    row: int
    account: str
    region: str
    name: str
    arn: str
    description: str | None
    connection: str
    endpoint: str
    method: str
    rate: int
    created: float
    modified: float


@dataclass(frozen=True, slots=True)
class HttpCall:
    """One request that is to be made. `token_from` is the call that gets an access token first, `token` one that is
    still good; `connection` the ARN under which a new one is kept."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes = field(repr=False)
    timeout_s: float = TIMEOUT_S
    token_from: "HttpCall | None" = None
    token: str | None = field(default=None, repr=False)
    connection: str = ""


def _read_connection(row: Any) -> Connection:
    return Connection(*row[:7], json.loads(row[7]), *row[8:])


def connection(db: Database, column: str, scope: Scope, value: str) -> Connection | None:
    """`column` is "name" or "arn"."""
    row = db.one(
        f"SELECT {_CONNECTION} FROM events_connections WHERE account = ? AND region = ? AND {column} = ?", *scope, value
    )
    return None if row is None else _read_connection(row)


def destination(db: Database, column: str, scope: Scope, value: str) -> Destination | None:
    row = db.one(
        f"SELECT {_DESTINATION} FROM events_destinations WHERE account = ? AND region = ? AND {column} = ?",
        *scope, value,
    )  # fmt: skip
    return None if row is None else Destination(*row)


class Connections:
    def __init__(self) -> None:
        self._tokens: dict[str, tuple[str, float]] = {}
        self._rates: dict[str, tuple[float, float]] = {}
        self._free: dict[str, float] = {}
        self.operations: dict[str, Operation] = {
            "CreateConnection": self.create_connection,
            "UpdateConnection": self.update_connection,
            "DescribeConnection": self.describe_connection,
            "ListConnections": self.list_connections,
            "DeauthorizeConnection": self.deauthorize_connection,
            "DeleteConnection": self.delete_connection,
            "CreateApiDestination": self.create_api_destination,
            "UpdateApiDestination": self.update_api_destination,
            "DescribeApiDestination": self.describe_api_destination,
            "ListApiDestinations": self.list_api_destinations,
            "DeleteApiDestination": self.delete_api_destination,
        }

    # -- connections ------------------------------------------------------------------------------------------------

    def _connection(self, ctx: Context, params: Params) -> Connection:
        domain.check_name(params)
        found = connection(ctx.db, "name", ctx.scope, params["Name"])
        if found is None:
            reason = f"Connection '{params['Name']}' does not exist."
            raise domain.not_found(f"Failed to describe the connection(s). {reason}")
        return found

    def create_connection(self, ctx: Context, params: Params) -> Outcome:
        _check_connection(params)
        name, kind, given = params["Name"], params["AuthorizationType"], params["AuthParameters"]
        _check_auth(kind, given)
        if connection(ctx.db, "name", ctx.scope, name) is not None:
            raise domain.exists(f"Connection {name} already exists.")
        identifier = ctx.entropy.uuid()
        secret = ctx.call(
            "secretsmanager",
            "CreateSecret",
            {"Name": f"events!connection/{name}/{identifier}", "SecretString": _secret(kind, given)},
        )["ARN"]
        ctx.db.insert(
            "INSERT INTO events_connections (account, region, name, arn, description, type, shown, secret, state,"
            " created, modified, authorized) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'AUTHORIZED', ?, ?, ?)",
            *ctx.scope, name, ctx.scope.arn("events", f"connection/{name}/{identifier}"), params.get("Description"),
            kind, json.dumps(_open(given)), secret, ctx.now, ctx.now, ctx.now,
        )  # fmt: skip
        return _times(self._connection(ctx, params), authorized=False)

    def update_connection(self, ctx: Context, params: Params) -> Outcome:
        _check_connection(params)
        found = self._connection(ctx, params)
        kind = params.get("AuthorizationType", found.type)
        stored = ctx.call("secretsmanager", "GetSecretValue", {"SecretId": found.secret})["SecretString"]
        given = _merged(_parameters(found.type, stored), params.get("AuthParameters", {}))
        given = {name: value for name, value in given.items() if name in (KINDS[kind][0], "InvocationHttpParameters")}
        _check_auth(kind, given)
        ctx.call("secretsmanager", "PutSecretValue", {"SecretId": found.secret, "SecretString": _secret(kind, given)})
        ctx.db.run(
            "UPDATE events_connections SET description = ?, type = ?, shown = ?, state = 'AUTHORIZED', modified = ?,"
            " authorized = ? WHERE row = ?",
            params.get("Description", found.description), kind, json.dumps(_open(given)), ctx.now, ctx.now, found.row,
        )  # fmt: skip
        self._forget(ctx, found)
        return _times(self._connection(ctx, params))

    def _forget(self, ctx: Context, found: Connection) -> None:
        ctx.db.after_commit(lambda: self.drop_token(found.arn))

    def describe_connection(self, ctx: Context, params: Params) -> Outcome:
        found = self._connection(ctx, params)
        output = {"Name": found.name, "AuthorizationType": found.type, "SecretArn": found.secret, **_times(found)}
        output["AuthParameters"] = found.shown
        if found.description is not None:
            output["Description"] = found.description
        return output

    def list_connections(self, ctx: Context, params: Params) -> Outcome:
        domain.check_name(params, "NamePrefix")
        check_choice(params, "ConnectionState", CONNECTION_STATES)
        rows = ctx.db.all(
            f"SELECT {_CONNECTION} FROM events_connections WHERE account = ? AND region = ? ORDER BY name", *ctx.scope
        )
        found = [
            one
            for one in map(_read_connection, rows)
            if one.name.startswith(params.get("NamePrefix", "")) and params.get("ConnectionState") in (None, one.state)
        ]
        return domain.paged(
            found, params, "Connections", lambda one: one.name,
            lambda one: {"Name": one.name, "AuthorizationType": one.type, **_times(one)},
        )  # fmt: skip

    def deauthorize_connection(self, ctx: Context, params: Params) -> Outcome:
        """Its credentials are gone until the next update."""
        found = self._connection(ctx, params)
        ctx.call("secretsmanager", "PutSecretValue", {"SecretId": found.secret, "SecretString": "{}"})
        ctx.db.run(
            "UPDATE events_connections SET state = 'DEAUTHORIZED', modified = ? WHERE row = ?", ctx.now, found.row
        )
        self._forget(ctx, found)
        return _times(self._connection(ctx, params))

    def delete_connection(self, ctx: Context, params: Params) -> Outcome:
        found = self._connection(ctx, params)
        ctx.call("secretsmanager", "DeleteSecret", {"SecretId": found.secret, "ForceDeleteWithoutRecovery": True})
        ctx.db.run("DELETE FROM events_connections WHERE row = ?", found.row)
        self._forget(ctx, found)
        return {**_times(found), "ConnectionState": "DELETING"}

    # -- API destinations ---------------------------------------------------------------------------------------------

    def _destination(self, ctx: Context, params: Params) -> Destination:
        domain.check_name(params)
        found = destination(ctx.db, "name", ctx.scope, params["Name"])
        if found is None:
            reason = f"An api-destination '{params['Name']}' does not exist."
            raise domain.not_found(f"Failed to describe the api-destination(s). {reason}")
        return found

    def _check_destination(self, ctx: Context, params: Params) -> None:
        wrong = Violations()
        wrong.text(params, "Name", 64, domain.NAME, 1)
        wrong.text(params, "Description", 512)
        wrong.text(params, "ConnectionArn", 1_600, CONNECTION_ARN, 1)
        wrong.text(params, "InvocationEndpoint", 2_048, least=1)
        wrong.choice(params, "HttpMethod", METHODS)
        wrong.number(params, "InvocationRateLimitPerSecond", 1)
        wrong.refuse()
        endpoint = params.get("InvocationEndpoint")
        if endpoint is not None and ENDPOINT.fullmatch(endpoint) is None:
            raise domain.bad_parameter("InvocationEndpoint", "It is not an http or https URL.")
        arn = params.get("ConnectionArn")
        if arn is not None and connection(ctx.db, "arn", ctx.scope, arn) is None:
            name = arn.split("/")[1] if arn.count("/") else arn
            raise domain.not_found(f"Connection '{name}' does not exist.")

    def create_api_destination(self, ctx: Context, params: Params) -> Outcome:
        self._check_destination(ctx, params)
        name = params["Name"]
        if destination(ctx.db, "name", ctx.scope, name) is not None:
            raise domain.exists(f"An api-destination '{name}' already exists.")
        ctx.db.insert(
            "INSERT INTO events_destinations (account, region, name, arn, description, connection, endpoint, method,"
            " rate, created, modified) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *ctx.scope, name, ctx.scope.arn("events", f"api-destination/{name}/{ctx.entropy.uuid()}"),
            params.get("Description"), params["ConnectionArn"], params["InvocationEndpoint"], params["HttpMethod"],
            params.get("InvocationRateLimitPerSecond", DEFAULT_RATE), ctx.now, ctx.now,
        )  # fmt: skip
        return self._told(ctx, self._destination(ctx, params))

    def update_api_destination(self, ctx: Context, params: Params) -> Outcome:
        found = self._destination(ctx, params)
        self._check_destination(ctx, params)
        ctx.db.run(
            "UPDATE events_destinations SET description = ?, connection = ?, endpoint = ?, method = ?, rate = ?,"
            " modified = ? WHERE row = ?",
            params.get("Description", found.description), params.get("ConnectionArn", found.connection),
            params.get("InvocationEndpoint", found.endpoint), params.get("HttpMethod", found.method),
            params.get("InvocationRateLimitPerSecond", found.rate), ctx.now, found.row,
        )  # fmt: skip
        return self._told(ctx, self._destination(ctx, params))

    def _told(self, ctx: Context, found: Destination) -> Params:
        used = connection(ctx.db, "arn", Scope(found.account, found.region), found.connection)
        active = used is not None and used.state == "AUTHORIZED"
        return {
            "ApiDestinationArn": found.arn,
            "ApiDestinationState": "ACTIVE" if active else "INACTIVE",
            "CreationTime": moment(found.created),
            "LastModifiedTime": moment(found.modified),
        }

    def _shown(self, ctx: Context, found: Destination) -> Params:
        return {
            "Name": found.name,
            "ConnectionArn": found.connection,
            "InvocationEndpoint": found.endpoint,
            "HttpMethod": found.method,
            "InvocationRateLimitPerSecond": found.rate,
            **self._told(ctx, found),
        }

    def describe_api_destination(self, ctx: Context, params: Params) -> Outcome:
        found = self._destination(ctx, params)
        output = self._shown(ctx, found)
        if found.description is not None:
            output["Description"] = found.description
        return output

    def list_api_destinations(self, ctx: Context, params: Params) -> Outcome:
        domain.check_name(params, "NamePrefix")
        rows = ctx.db.all(
            f"SELECT {_DESTINATION} FROM events_destinations WHERE account = ? AND region = ? ORDER BY name", *ctx.scope
        )
        found = [
            one
            for one in (Destination(*row) for row in rows)
            if one.name.startswith(params.get("NamePrefix", ""))
            and params.get("ConnectionArn") in (None, one.connection)
        ]
        return domain.paged(
            found, params, "ApiDestinations", lambda one: one.name, lambda one: self._shown(ctx, one)
        )

    def delete_api_destination(self, ctx: Context, params: Params) -> Outcome:
        found = self._destination(ctx, params)
        ctx.db.run("DELETE FROM events_destinations WHERE row = ?", found.row)
        for kept in (self._rates, self._free):
            kept.pop(found.arn, None)
        return {}

    # -- calling ----------------------------------------------------------------------------------------------------

    def http_call(self, ctx: Context, arn: str, http: dict[str, Any], body: str) -> HttpCall:
        """The request for an API destination. `http` are a target's parameters: path, headers, query. Raises
        ResourceNotFoundException, AccessDeniedException (deauthorized), ThrottlingException (its rate is used up)."""
        scope = Arn.parse(arn).scope
        found = destination(ctx.db, "arn", scope, arn)
        used = None if found is None else connection(ctx.db, "arn", scope, found.connection)
        if found is None or used is None:
            raise domain.not_found("The api-destination or its connection does not exist.")
        if used.state != "AUTHORIZED":
            raise AwsError("AccessDeniedException", f"Connection {used.name} is {used.state}.", 403)
        self._take(ctx, found)
        stored = ctx.call("secretsmanager", "GetSecretValue", {"SecretId": used.secret})["SecretString"]
        return self._call(ctx, found, used, _parameters(used.type, stored), http, body)

    def slot(self, ctx: Context, arn: str) -> float | None:
        """When an event for an API destination may leave, after those before it by its rate; None: there is no such
        destination."""
        found = destination(ctx.db, "arn", Arn.parse(arn).scope, arn)
        if found is None:
            return None
        at = max(ctx.now, self._free.get(arn, 0.0))
        self._free[arn] = at + 1.0 / found.rate
        return at

    def _take(self, ctx: Context, found: Destination) -> None:
        """Events leave one by one already; this holds back what comes besides, such as further attempts."""
        left, since = self._rates.get(found.arn, (float(found.rate), ctx.now))
        left = min(float(found.rate), left + (ctx.now - since) * found.rate)
        if left < 1.0:
            raise AwsError("ThrottlingException", f"{found.name} takes {found.rate} invocations a second.", 429)
        self._rates[found.arn] = (left - 1.0, ctx.now)

    def _call(
        self, ctx: Context, found: Destination, used: Connection, given: Params, http: dict[str, Any], body: str
    ) -> HttpCall:
        extra = _http_parameters(given.get("InvocationHttpParameters", {}))
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "Amazon/EventBridge/ApiDestinations",
            "Range": "bytes=0-1048575",
            **http.get("headers", {}),
            **extra["HeaderParameters"],
        }
        token_call, token = None, None
        if used.type == "BASIC":
            plain = f"{given['BasicAuthParameters']['Username']}:{given['BasicAuthParameters']['Password']}"
            headers["Authorization"] = "Basic " + base64.b64encode(plain.encode()).decode()
        elif used.type == "API_KEY":
            headers[given["ApiKeyAuthParameters"]["ApiKeyName"]] = given["ApiKeyAuthParameters"]["ApiKeyValue"]
        else:
            kept = self._tokens.get(used.arn)
            token = kept[0] if kept is not None and kept[1] > ctx.now else None
            token_call = _token_call(given["OAuthParameters"])
        url = found.endpoint
        for value in http.get("path", ()):
            url = url.replace("*", quote(value, safe=""), 1)
        query = urlencode({**http.get("query", {}), **extra["QueryStringParameters"]})
        if query:
            url += ("&" if "?" in url else "?") + query
        if extra["BodyParameters"]:
            body = _with_members(body, extra["BodyParameters"])
        payload = b"" if found.method in ("GET", "HEAD", "OPTIONS") else body.encode()
        return HttpCall(
            found.method, url, headers, payload, token_from=token_call, token=token, connection=used.arn
        )

    def keep_token(self, arn: str, token: str, expires_at: float) -> None:
        """An access token of a connection, good until then (epoch seconds); in memory only."""
        self._tokens[arn] = (token, expires_at)

    def drop_token(self, arn: str) -> None:
        self._tokens.pop(arn, None)


def _times(found: Connection, *, authorized: bool = True) -> Params:
    output: Params = {
        "ConnectionArn": found.arn,
        "ConnectionState": found.state,
        "CreationTime": moment(found.created),
        "LastModifiedTime": moment(found.modified),
    }
    if authorized and found.authorized is not None:
        output["LastAuthorizedTime"] = moment(found.authorized)
    return output


def _check_connection(params: Params) -> None:
    wrong = Violations()
    wrong.text(params, "Name", 64, domain.NAME, 1)
    wrong.text(params, "Description", 512)
    wrong.choice(params, "AuthorizationType", ("BASIC", "OAUTH_CLIENT_CREDENTIALS", "API_KEY"))
    wrong.refuse()
    for member in ("KmsKeyIdentifier", "InvocationConnectivityParameters"):
        if params.get(member):
            raise domain.invalid(f"Preheat does not implement {member}.")
    if params.get("AuthParameters", {}).get("ConnectivityParameters"):
        raise domain.invalid("Preheat does not implement ConnectivityParameters.")


def _check_auth(kind: str, given: Params) -> None:
    """Raises ValidationException unless `given` has what this kind of authorization needs, and no other's."""
    member, needed = KINDS[kind]
    others = [name for name, _ in KINDS.values() if name != member and given.get(name)]
    if not given.get(member) or others:
        raise domain.bad_parameter("AuthParameters", f"{kind} takes {member}.")
    for name in needed:
        if not given[member].get(name):
            raise domain.bad_parameter("AuthParameters", f"{member}.{name} is required.")


_SNAKE = re.compile(r"(?<=[a-z])(?=[A-Z])")


def _secret(kind: str, given: Params) -> str:
    """The secret's text, in AWS's names."""
    if kind == "BASIC":
        basic = given["BasicAuthParameters"]
        named: Params = {"username": basic["Username"], "password": basic["Password"]}
    elif kind == "API_KEY":
        key = given["ApiKeyAuthParameters"]
        named = {"api_key_name": key["ApiKeyName"], "api_key_value": key["ApiKeyValue"]}
    else:
        oauth = given["OAuthParameters"]
        client = oauth["ClientParameters"]
        named = {
            "client_id": client["ClientID"],
            "client_secret": client["ClientSecret"],
            "authorization_endpoint": oauth["AuthorizationEndpoint"],
            "http_method": oauth["HttpMethod"],
        }
        if "OAuthHttpParameters" in oauth:
            named["oauth_http_parameters"] = _snake(oauth["OAuthHttpParameters"])
    if "InvocationHttpParameters" in given:
        named["invocation_http_parameters"] = _snake(given["InvocationHttpParameters"])
    return domain.compact(named)


def _snake(given: Any) -> Any:
    if isinstance(given, list):
        return [_snake(item) for item in given]
    if not isinstance(given, dict):
        return given
    return {_SNAKE.sub("_", name).lower(): _snake(value) for name, value in given.items()}


def _pascal(stored: Any) -> Any:
    if isinstance(stored, list):
        return [_pascal(item) for item in stored]
    if not isinstance(stored, dict):
        return stored
    return {"".join(part.title() for part in name.split("_")): _pascal(value) for name, value in stored.items()}


def _parameters(kind: str, text: str) -> Params:
    """The AuthParameters that a secret's text was made of; of a connection without credentials none."""
    stored = json.loads(text)
    given: Params = {}
    if "invocation_http_parameters" in stored:
        given["InvocationHttpParameters"] = _pascal(stored["invocation_http_parameters"])
    if kind == "BASIC" and "username" in stored:
        given["BasicAuthParameters"] = {"Username": stored["username"], "Password": stored["password"]}
    elif kind == "API_KEY" and "api_key_name" in stored:
        names = {"ApiKeyName": stored["api_key_name"], "ApiKeyValue": stored["api_key_value"]}
        given["ApiKeyAuthParameters"] = names
    elif kind == "OAUTH_CLIENT_CREDENTIALS" and "client_id" in stored:
        oauth: Params = {
            "ClientParameters": {"ClientID": stored["client_id"], "ClientSecret": stored["client_secret"]},
            "AuthorizationEndpoint": stored["authorization_endpoint"],
            "HttpMethod": stored["http_method"],
        }
        if "oauth_http_parameters" in stored:
            oauth["OAuthHttpParameters"] = _pascal(stored["oauth_http_parameters"])
        given["OAuthParameters"] = oauth
    return given


def _open(given: Any) -> Any:
    """The parameters without what is secret."""
    if isinstance(given, list):
        return [_open(item) for item in given]
    if not isinstance(given, dict):
        return given
    hidden = SECRET_MEMBERS + (("Value",) if given.get("IsValueSecret") else ())
    return {name: _open(value) for name, value in given.items() if name not in hidden}


def _merged(old: Params, new: Params) -> Params:
    merged = dict(old)
    for name, value in new.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = _merged(merged[name], value) if both else value
    return merged


def _http_parameters(given: Params) -> dict[str, dict[str, str]]:
    return {
        member: {one["Key"]: one.get("Value", "") for one in given.get(member, ())}
        for member in ("HeaderParameters", "QueryStringParameters", "BodyParameters")
    }


def _token_call(oauth: Params) -> HttpCall:
    """The request for an access token by the client's credentials (RFC 6749, 4.4)."""
    extra = _http_parameters(oauth.get("OAuthHttpParameters", {}))
    client = oauth["ClientParameters"]
    form = {
        "grant_type": "client_credentials",
        "client_id": client["ClientID"],
        "client_secret": client["ClientSecret"],
        **extra["BodyParameters"],
    }
    url, query = oauth["AuthorizationEndpoint"], dict(extra["QueryStringParameters"])
    body = b""
    if oauth["HttpMethod"] == "GET":
        query = {**form, **query}
    else:
        body = urlencode(form).encode()
    if query:
        url += ("&" if "?" in url else "?") + urlencode(query)
    headers = {"Content-Type": "application/x-www-form-urlencoded", **extra["HeaderParameters"]}
    return HttpCall(oauth["HttpMethod"], url, headers, body)


def _with_members(body: str, members: dict[str, str]) -> str:
    """A JSON object with further members; any other body as it is."""
    try:
        document = json.loads(body)
    except ValueError:
        return body
    return domain.compact({**document, **members}) if isinstance(document, dict) else body

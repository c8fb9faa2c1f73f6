"""The vector store of a recipe, which names its kind, from the environment variables.

STORE_ENDPOINT says where the store is, when it is not S3 Vectors: `postgresql://HOST:PORT/DATABASE`,
`https://HOST` of an OpenSearch domain, or `snowflake://ACCOUNT/DATABASE/SCHEMA?warehouse=NAME&role=NAME`.
STORE_SECRET_ARN is a secret of Secrets Manager, `{"username", "password"}`, read once per environment; an OpenSearch
domain without one is called with the function's own role.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from ragkit.lean import lean
from ragkit.store import S3VectorStore, VectorStore
from ragkit.versions import Recipe

KINDS = ("s3vectors", "snowflake", "opensearch", "pgvector")

Client = Callable[[str], Any]
Environment = Mapping[str, str]


class Secret:
    """What a secret holds, read at the first use; `secret(True)` reads it again."""

    def __init__(self, client: Client, arn: str) -> None:
        self._client, self._arn = client, arn
        self._known: dict[str, Any] | None = None

    def __call__(self, again: bool = False) -> dict[str, Any]:
        if not self._arn:
            raise ValueError("this store needs STORE_SECRET_ARN: a secret with username and password")
        if self._known is None or again:
            found = json.loads(self._client("secretsmanager").get_secret_value(SecretId=self._arn)["SecretString"])
            if missing := {"username", "password"} - found.keys():
                raise ValueError(f"the store's secret has no {' and no '.join(sorted(missing))}")
            self._known = found
        return self._known


def open_store(kind: str, recipe: Recipe, environment: Environment, client: Client) -> VectorStore:
    """The store of the recipe's index. `client` makes or keeps boto3's clients by the service's name. Raises ValueError
    for a kind or an endpoint that is none."""
    if kind == "s3vectors":
        return S3VectorStore(lean(client("s3vectors")), environment["VECTOR_BUCKET"], recipe.index, recipe.dimension)
    opened = {"snowflake": _snowflake, "opensearch": _opensearch, "pgvector": _pgvector}.get(kind)
    if opened is None:
        raise ValueError(f"the store {kind} is not one of {', '.join(KINDS)}")
    endpoint = environment.get("STORE_ENDPOINT", "")
    return opened(recipe, endpoint, Secret(client, environment.get("STORE_SECRET_ARN", "")), environment)


def _pgvector(recipe: Recipe, endpoint: str, secret: Secret, environment: Environment) -> VectorStore:
    from ragkit.stores.pgvector import PgVectorStore, connector

    return PgVectorStore(connector(endpoint, secret), recipe.index, recipe.dimension)


def _opensearch(recipe: Recipe, endpoint: str, secret: Secret, environment: Environment) -> VectorStore:
    from ragkit.stores.opensearch import OpenSearchStore, Rest, basic, signed

    if environment.get("STORE_SECRET_ARN"):
        known = secret()
        sign = basic(known["username"], known["password"])
    else:
        import boto3

        sign = signed(boto3.Session().get_credentials(), _region(endpoint, environment))
    return OpenSearchStore(Rest(endpoint, sign), recipe.index, recipe.dimension)


def _region(endpoint: str, environment: Environment) -> str:
    """As the domain's own name says, else the function's."""
    labels = (urlsplit(endpoint).hostname or "").split(".")
    if len(labels) > 4 and labels[-3:] == ["es", "amazonaws", "com"]:
        return labels[-4]
    return environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1"


def _snowflake(recipe: Recipe, endpoint: str, secret: Secret, environment: Environment) -> VectorStore:
    from ragkit.stores.snowflake import SnowflakeStore, connector

    parts = urlsplit(endpoint)
    if parts.scheme != "snowflake" or not parts.netloc:
        raise ValueError("a Snowflake store's endpoint is snowflake://ACCOUNT/DATABASE/SCHEMA")
    database, _, schema = unquote(parts.path).strip("/").partition("/")
    given = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    given |= {"account": parts.netloc, "database": database, "schema": schema or "PUBLIC"}

    def connect() -> Any:
        known = secret()
        named = {**given, "user": known["username"], "password": known["password"]}
        return connector({f"SNOWFLAKE_{name.upper()}": str(value) for name, value in named.items()})()

    return SnowflakeStore(connect, recipe.index, recipe.dimension)

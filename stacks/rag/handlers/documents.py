"""Rows of the documents table: how each document fared, and which object of which recipe its passages were made of."""

import os
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote_plus

from ragkit.embed import NO_MODEL, EmbeddingUnavailable
from ragkit.resilience import Refused, transient
from ragkit.trace import current
from ragkit.versions import Recipe

from handlers import wiring

TRIED = "a passage"
ASKED = 100


def rows_of(keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The rows of these documents, by document."""
    resource, name = wiring.resource("dynamodb"), os.environ["DOCUMENTS_TABLE"]
    found: dict[str, dict[str, Any]] = {}
    for at in range(0, len(keys), ASKED):
        wanted = {name: {"Keys": [{"document": key} for key in keys[at : at + ASKED]], "ConsistentRead": True}}
        while wanted:
            reply = resource.batch_get_item(RequestItems=wanted)
            found |= {row["document"]: row for row in reply["Responses"].get(name, [])}
            wanted = reply.get("UnprocessedKeys") or {}
    return found


def outstanding(row: dict[str, Any] | None, tag: str, recipes: Sequence[Recipe]) -> bool:
    """Whether the object with this ETag must be indexed still; one that cannot be read is not asked for again."""
    if row is None or row.get("etag") != tag:
        return True
    made = row.get("recipes", {})
    return any(made.get(recipe.id) != tag for recipe in recipes)


def refusal(recipe: Recipe) -> EmbeddingUnavailable | None:
    """Why the recipe's model embeds nothing, whatever the text; None when it does, or may a moment later."""
    if recipe.model in ("", NO_MODEL):
        return None
    try:
        wiring.embedder(recipe).documents([TRIED])
    except EmbeddingUnavailable as error:
        return None if momentary(error) else error
    return None


def momentary(error: EmbeddingUnavailable) -> bool:
    """Whether the same text may well be embedded later."""
    return transient(error) or isinstance(error.__cause__, Refused)


def found_of(bucket: str, key: str) -> dict[str, Any]:
    """A notification that says no more than which object to look at, and on whose account."""
    place = {"bucket": {"name": bucket}, "object": {"key": quote_plus(key)}}
    return {"Records": [{"eventName": "Sweep", "correlation": current(), "s3": place}]}

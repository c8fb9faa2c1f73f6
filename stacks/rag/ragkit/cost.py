"""What an answer costs, by the table `prices.json` and the `MODEL_PRICES` of the environment, which counts more."""

import json
import math
import os
import re
from functools import lru_cache
from pathlib import Path

from ragkit.embed import NO_MODEL
from ragkit.generate import Usage

MILLION = 1_000_000
THOUSAND = 1_000
PASSAGES_A_QUERY = 100
"""That a reranking model scores for the price of one query."""
_PREFIX = re.compile(r"^(?:us|eu|apac|jp|au|global|us-gov)\.")


@lru_cache(maxsize=1)
def prices() -> dict[str, dict[str, float]]:
    """Model id -> {input, output} or {input}: USD for a million tokens; {queries}: USD for a thousand.
    `regional` is a geographic profile's factor."""
    found: dict[str, dict[str, float]] = json.loads(Path(__file__).with_name("prices.json").read_text())["models"]
    for text in filter(None, os.environ.get("MODEL_PRICES", "").split(",")):
        model, _, told = text.strip().rpartition("=")
        model, numbers = _PREFIX.sub("", model), [float(one) for one in told.split("/")]
        names = ("queries",) if "rerank" in model else ("input", "output")
        found[model] = dict(zip(names, numbers))
    return found


def price(model: str) -> dict[str, float] | None:
    """None for a model that the table lacks. `model` is an id, an inference profile's id, or the ARN of either. A
    geographic profile costs more where the table says so."""
    asked = model.rpartition("/")[2]
    id = _PREFIX.sub("", asked)
    known = prices()
    if id == NO_MODEL or (id.startswith("preheat.") and id not in known):
        return {}
    told = known.get(id) or known.get(id.partition(":")[0])
    if told is None or asked == id or asked.startswith("global."):
        return told
    return {name: value * told.get("regional", 1.0) for name, value in told.items()}


def cost_usd(model: str, usage: Usage) -> float | None:
    """Of a model that writes; None where its price is not known."""
    if not (usage.input or usage.output):
        return 0.0
    told = price(model)
    if told is None:
        return None
    return (usage.input * told.get("input", 0.0) + usage.output * told.get("output", 0.0)) / MILLION


def embedding_usd(model: str, tokens: int) -> float | None:
    """None where the price is not known."""
    told = price(model) if tokens else {}
    return None if told is None else tokens * told.get("input", 0.0) / MILLION


def rerank_usd(model: str, passages: int) -> float | None:
    """Of scoring passages for one question; None where the price is not known."""
    told = price(model) if passages else {}
    return None if told is None else math.ceil(passages / PASSAGES_A_QUERY) * told.get("queries", 0.0) / THOUSAND


def total_usd(*costs: float | None) -> float | None:
    """Of all of them; None where one is not known."""
    return None if None in costs else sum(one for one in costs if one is not None)

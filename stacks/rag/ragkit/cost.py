"""What an answer costs, by the table `prices.json`: USD for a million tokens by model id."""

import json
import re
from functools import lru_cache
from pathlib import Path

from ragkit.generate import Usage

MILLION = 1_000_000
_PREFIX = re.compile(r"^(?:us|eu|apac|jp|au|global|us-gov)\.")


@lru_cache(maxsize=1)
def prices() -> dict[str, dict[str, float]]:
    """Model id -> {input, output}."""
    found: dict[str, dict[str, float]] = json.loads(Path(__file__).with_name("prices.json").read_text())["models"]
    return found


def cost_usd(model: str, usage: Usage) -> float | None:
    """None for a model that the table lacks. `model` is an id, an inference profile's id, or the ARN of either."""
    if not (usage.input or usage.output):
        return 0.0
    id = _PREFIX.sub("", model.rpartition("/")[2])
    known = prices()
    price = known.get(id) or known.get(id.partition(":")[0])
    if price is None and id.startswith("preheat."):
        price = {"input": 0.0, "output": 0.0}
    return None if price is None else (usage.input * price["input"] + usage.output * price["output"]) / MILLION

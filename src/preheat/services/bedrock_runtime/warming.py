"""Local models that were used before are loaded again a moment after the start, so that no first question waits.

Weights take most of a second to read and 150 MB to keep: nothing is loaded on a platform that does not use them.
"""

from collections.abc import Callable

from preheat.models.contract import ModelError
from preheat.models.registry import Model, Registry
from preheat.services.contract import Context, Platform

AFTER_S = 1.0
"""The start itself, and whoever waits for it, come first."""
REMEMBERED_S = 7 * 86_400.0
NOTED_S = 86_400.0
WITH_WEIGHTS = frozenset({"minilm", "late-interaction"})


class Warming:
    """The loop that loads, once; `note` is told of every call of a model, in its transaction."""

    name = "bedrock-models"
    topics: tuple[str, ...] = ()

    def __init__(self, platform: Platform, registry: Registry) -> None:
        self._platform = platform
        self._registry = registry
        self._noted: dict[str, float] = {}
        self._due: float | None = None
        self._done = False

    def note(self, ctx: Context, model: Model) -> None:
        if model.backend not in WITH_WEIGHTS or ctx.now - self._noted.get(model.id, 0.0) < NOTED_S:
            return
        ctx.db.run("INSERT OR REPLACE INTO bedrock_models_used VALUES (?, ?)", model.id, ctx.now)
        ctx.db.after_commit(lambda: self._noted.update({model.id: ctx.now}))

    def step(self, ctx: Context) -> float | None:
        if self._done:
            return None
        if self._due is None:
            self._due = ctx.now + AFTER_S
        if ctx.now < self._due:
            return self._due
        self._done = True
        rows = ctx.db.all("SELECT model FROM bedrock_models_used WHERE at > ? ORDER BY model", ctx.now - REMEMBERED_S)
        models = [model for row in rows if (model := self._registry.find(row["model"])) is not None]
        wanted = [model for model in models if model.backend in WITH_WEIGHTS]
        if wanted:
            ctx.db.after_commit(lambda: self._platform.background.run(_loading(wanted), self._loaded))
        return None

    def _loaded(self, value: object) -> None:
        if isinstance(value, Exception) and not isinstance(value, ModelError):
            self._platform.machine.on_defect(f"defect in loading a model: {value!r}")


def _loading(models: list[Model]) -> Callable[[], None]:
    """A first call of each; a model that is not to be had says so to whoever calls it."""

    def load() -> None:
        for model in models:
            if model.embedder is not None:
                model.embedder.embed(["warm"], "query")
            if model.reranker is not None:
                model.reranker.score("warm", ["warm"])

    return load

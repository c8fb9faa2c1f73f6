"""How a model of the platform is shown as a foundation model."""

from typing import Any

PROVIDERS = {"amazon": "Amazon", "anthropic": "Anthropic", "cohere": "Cohere", "meta": "Meta", "mistral": "Mistral AI"}


def details(model: Any, region: str) -> dict[str, Any]:
    """`model` is of `preheat.models.registry`. A model that is passed on is described by its id."""
    bare = model.id.partition(".")[2] or model.id
    provider = model.id.partition(".")[0] if "." in model.id else ""
    embeds = model.embedder is not None or (model.passthrough is not None and "embed" in model.id)
    ranks = model.reranker is not None or (model.passthrough is not None and "rerank" in model.id)
    return {
        "modelArn": f"arn:aws:bedrock:{region}::foundation-model/{model.id}",
        "modelId": model.id,
        "modelName": bare[:20],
        "providerName": PROVIDERS.get(provider, provider.title() or "Preheat")[:20],
        "inputModalities": ["TEXT"],
        "outputModalities": ["EMBEDDING" if embeds else "TEXT"],
        "responseStreamingSupported": not embeds and not ranks,
        "customizationsSupported": [],
        "inferenceTypesSupported": ["ON_DEMAND"],
        "modelLifecycle": {"status": "ACTIVE"},
    }

"""Amazon Bedrock runtime: InvokeModel, Converse, both with streams, and CountTokens.

Models come from `preheat.models.registry`; nothing is computed on the core's thread.
"""

from collections.abc import Callable, Mapping
from typing import Any

from preheat.kernel.scope import Arn
from preheat.models.batching import Batcher, Embedded
from preheat.models.limits import RateLimit
from preheat.models.registry import Model, Registry
from preheat.services.bedrock_runtime.converse import converse_events, read_converse, write_converse
from preheat.services.bedrock_runtime.domain import Answer, TextRequest
from preheat.services.bedrock_runtime.embeddings import read_embedding, write_embedding
from preheat.services.bedrock_runtime.errors import invalid, throttled
from preheat.services.bedrock_runtime.messages import message_events, read_messages, write_message
from preheat.services.bedrock_runtime.passthrough import forward, forward_stream
from preheat.services.bedrock_runtime.running import Reservation, Work, complete, failure, stream
from preheat.services.contract import Context, Deferred, Operation, Outcome, Params, Platform, Reply

JSON = "application/json"
MOST_BODY = 25_000_000
CHARACTERS_PER_TOKEN = 4


class BedrockRuntimeService:
    name = "bedrock-runtime"
    schema = ""

    def __init__(self, platform: Platform, registry: Registry) -> None:
        self._platform = platform
        self._registry = registry
        self._batchers: dict[str, Batcher] = {}
        self._rates: dict[tuple[str, str, str], RateLimit] = {}
        self.operations: dict[str, Operation] = {
            "InvokeModel": self.invoke_model,
            "InvokeModelWithResponseStream": self.invoke_model_with_response_stream,
            "Converse": self.converse,
            "ConverseStream": self.converse_stream,
            "CountTokens": self.count_tokens,
        }

    def invoke_model(self, ctx: Context, params: Params) -> Outcome:
        model = self._model(params["modelId"])
        check_invocation(params, model)
        if model.passthrough is not None:
            return forward(self._work(ctx, model, len(params.get("body", b""))), model.passthrough, params)
        if model.embedder is not None:
            return self._embed(ctx, model, params)
        request = read_messages(params.get("body", b""))

        def reply(answer: Answer) -> Reply:
            body = write_message(answer, model.id, ctx.request_id)
            return invocation(body, answer.input_tokens, answer.output_tokens, answer.latency_ms, params)

        return complete(self._text_work(ctx, model, request), model, request, reply)

    def invoke_model_with_response_stream(self, ctx: Context, params: Params) -> Outcome:
        model = self._model(params["modelId"])
        check_invocation(params, model)
        if model.passthrough is not None:
            work = self._work(ctx, model, len(params.get("body", b"")))
            return forward_stream(work, model.passthrough, "invoke_model_with_response_stream", params)
        if model.embedder is not None:
            raise invalid("The model is unsupported for streaming")
        request = read_messages(params.get("body", b""))
        work = self._text_work(ctx, model, request)
        return stream(
            work,
            model,
            request,
            lambda generation, first: message_events(generation, first, model.id, ctx.request_id, work.latency_ms),
            lambda channel: Reply({"body": channel, "contentType": JSON, **invocation_echoes(params)}),
            timeout_event=True,
        )

    def converse(self, ctx: Context, params: Params) -> Outcome:
        model = self._model(params["modelId"])
        if model.passthrough is not None:
            return forward(self._work(ctx, model, 0), model.passthrough, params, "converse")
        request = self._conversation(model, params)
        return complete(
            self._text_work(ctx, model, request),
            model,
            request,
            lambda answer: Reply(write_converse(answer, params)),
        )

    def converse_stream(self, ctx: Context, params: Params) -> Outcome:
        model = self._model(params["modelId"])
        if model.passthrough is not None:
            return forward_stream(self._work(ctx, model, 0), model.passthrough, "converse_stream", params)
        request = self._conversation(model, params)
        work = self._text_work(ctx, model, request)
        return stream(
            work,
            model,
            request,
            lambda generation, first: converse_events(generation, first, params, work.latency_ms),
            lambda channel: Reply({"stream": channel}),
            timeout_event=False,
        )

    def count_tokens(self, ctx: Context, params: Params) -> Outcome:
        model = self._model(params["modelId"])
        if model.passthrough is not None:
            return forward(self._work(ctx, model, 0), model.passthrough, params, "count_tokens")
        generator = model.generator
        if generator is None:
            raise invalid("The provided model doesn't support counting tokens.")
        given = params.get("input") or {}
        if "converse" in given:
            request = read_converse(given["converse"])
        elif "invokeModel" in given:
            request = read_messages(given["invokeModel"].get("body", b""))
        else:
            raise invalid("The input must have exactly one of invokeModel and converse.")
        texts = [request.system, *(message.text for message in request.messages)]
        return ctx.offload(
            lambda: sum(generator.count_tokens(text) for text in texts if text),
            lambda ctx, count: {"inputTokens": count},
        )

    def _embed(self, ctx: Context, model: Model, params: Params) -> Outcome:
        embedder = model.embedder
        assert embedder is not None
        request = read_embedding(params.get("body", b""), embedder)
        work = self._work(ctx, model, sum(map(len, request.texts)))
        batcher = self._batchers.get(model.id)
        if batcher is None:
            batcher = self._batchers[model.id] = Batcher(self._platform.background, embedder)

        def start(resolve: Callable[[Any], None]) -> None:
            ticket = batcher.submit(request.texts, request.kind, resolve_or_fail(resolve, model, work.reservation))
            work.on_cancel = ticket.cancel

        def then(ctx: Context, rows: list[Embedded]) -> Outcome:
            tokens = sum(row.tokens for row in rows)
            work.reservation.settle(tokens)
            body = write_embedding(request, rows, embedder, ctx.request_id)
            return invocation(body, tokens, 0, work.latency_ms(), params)

        return Deferred(start, then, work.cancel)

    def _conversation(self, model: Model, params: Params) -> TextRequest:
        if model.generator is None:
            raise invalid(
                "This action doesn't support the model that you provided. Try again with a supported text or chat "
                "model."
            )
        check_guardrail((params.get("guardrailConfig") or {}).get("guardrailIdentifier"))
        check_tier((params.get("performanceConfig") or {}).get("latency"), model)
        check_service_tier((params.get("serviceTier") or {}).get("type"), model)
        return read_converse(params)

    def _model(self, identifier: str) -> Model:
        """By id, or by a foundation model's or inference profile's ARN."""
        name = identifier
        if identifier.startswith("arn:"):
            try:
                name = Arn.parse(identifier).resource.partition("/")[2]
            except ValueError:
                name = ""
        model = self._registry.find(identifier) or self._registry.find(name)
        if model is None:
            raise invalid("The provided model identifier is invalid.")
        return model

    def _text_work(self, ctx: Context, model: Model, request: TextRequest) -> Work:
        return self._work(ctx, model, request.length(), request.max_tokens)

    def _work(self, ctx: Context, model: Model, characters: int, output_tokens: int = 0) -> Work:
        """Admits the call under the model's limits. Raises ThrottlingException."""
        key = (ctx.scope.account, ctx.scope.region, model.id)
        rate = self._rates.get(key)
        if rate is None:
            rate = self._rates[key] = RateLimit(model.limits, ctx.now)
        estimate = -(-characters // CHARACTERS_PER_TOKEN) + output_tokens
        refusal = rate.admit(estimate, ctx.now)
        if refusal is not None:
            raise throttled(refusal)
        return Work(self._platform, Reservation(rate, estimate, self._platform.clock))


def resolve_or_fail(
    resolve: Callable[[Any], None], model: Model, reservation: Reservation
) -> Callable[[Any], None]:
    """A `done` for the batcher that turns a backend's failure into AWS's error."""

    def done(value: Any) -> None:
        if isinstance(value, Exception):
            reservation.settle(0)
            value = failure(value, model.id)
        resolve(value)

    return done


def invocation(body: bytes, read: int, written: int, latency_ms: int, params: Mapping[str, Any]) -> Reply:
    """InvokeModel's answer with Bedrock's counting headers."""
    headers = {
        "X-Amzn-Bedrock-Input-Token-Count": str(read),
        "X-Amzn-Bedrock-Output-Token-Count": str(written),
        "X-Amzn-Bedrock-Invocation-Latency": str(latency_ms),
    }
    return Reply({"body": body, "contentType": JSON, **invocation_echoes(params)}, headers=headers)


def invocation_echoes(params: Mapping[str, Any]) -> dict[str, Any]:
    return {key: params[key] for key in ("performanceConfigLatency", "serviceTier") if params.get(key)}


def check_invocation(params: Mapping[str, Any], model: Model) -> None:
    """What the headers of InvokeModel may ask of a model that runs here. Raises ValidationException."""
    if len(params.get("body", b"")) > MOST_BODY:
        raise invalid(f"The body is longer than {MOST_BODY} bytes.")
    if model.passthrough is not None:
        return
    content = params.get("contentType") or JSON
    if content.partition(";")[0].strip().lower() not in (JSON, "application/octet-stream", "binary/octet-stream"):
        raise invalid(f"The content type {content} is not supported by this model.")
    accept = params.get("accept") or JSON
    if not any(part.partition(";")[0].strip() in (JSON, "*/*", "application/*") for part in accept.split(",")):
        raise invalid(f"The accept type {accept} is not supported by this model.")
    check_guardrail(params.get("guardrailIdentifier"))
    check_tier(params.get("performanceConfigLatency"), model)
    check_service_tier(params.get("serviceTier"), model)


def check_guardrail(identifier: str | None) -> None:
    if identifier:
        raise invalid("The guardrail identifier or version provided in the request does not exist.")


def check_tier(latency: str | None, model: Model) -> None:
    if latency and latency != "standard":
        raise invalid(f"Latency performance configuration is not supported for {model.id}.")


def check_service_tier(tier: str | None, model: Model) -> None:
    if tier and tier != "default":
        raise invalid(f"The service tier {tier} is not supported for {model.id}.")


def build(platform: Platform, registry: Registry | None = None) -> BedrockRuntimeService:
    """`registry` None: made of `platform.settings.models`. Raises ModelConfigurationError."""
    return BedrockRuntimeService(platform, registry or Registry(getattr(platform.settings, "models", None)))

"""Amazon Bedrock runtime: InvokeModel, Converse, both with streams, CountTokens and ApplyGuardrail.

Models come from `preheat.models.registry`; nothing is computed on the core's thread.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn
from preheat.models.batching import BATCH_CHARACTERS, FAR_BATCH_CHARACTERS, Batcher, Embedded
from preheat.models.contract import Embedder, Generation
from preheat.models.limits import RateLimit
from preheat.models.registry import Model, Registry
from preheat.services.bedrock_runtime.converse import converse_events, read_converse, write_converse
from preheat.services.bedrock_runtime.domain import Answer, TextRequest, read_json, write_json
from preheat.services.bedrock_runtime.embeddings import (
    check_lengths,
    needs_counting,
    read_embedding,
    write_embedding,
)
from preheat.services.bedrock_runtime.errors import invalid, out_of_range, throttled
from preheat.services.bedrock_runtime.guarded import GuardedGeneration, Mode, Prompt
from preheat.services.bedrock_runtime.guarding import Guards, Shield
from preheat.services.bedrock_runtime.messages import message_events, read_messages, write_message
from preheat.services.bedrock_runtime.passthrough import forward, forward_stream
from preheat.services.bedrock_runtime.prompts import body_prompt, converse_prompt
from preheat.services.bedrock_runtime.reranking import RerankRequest, rank, read_rerank, write_rerank
from preheat.services.bedrock_runtime.running import Record, Reservation, Work, complete, failure, stream
from preheat.services.bedrock_runtime.warming import Warming
from preheat.services.contract import Context, Deferred, Loop, Operation, Outcome, Params, Platform, Reply

JSON = "application/json"
MOST_BODY = 25_000_000
CHARACTERS_PER_TOKEN = 4


class BedrockRuntimeService:
    """`loops` go to `Machine.add_loop`."""

    name = "bedrock-runtime"
    schema = (Path(__file__).parent / "schema.sql").read_text(encoding="utf-8")

    def __init__(self, platform: Platform, registry: Registry) -> None:
        self._platform = platform
        self._registry = registry
        self._batchers: dict[str, Batcher] = {}
        self._rates: dict[tuple[str, str, str], RateLimit] = {}
        self._guards = Guards(platform, self._embedder)
        self._warming = Warming(platform, registry)
        self.loops: tuple[Loop, ...] = (self._warming,)
        self.operations: dict[str, Operation] = {
            "InvokeModel": self.invoke_model,
            "InvokeModelWithResponseStream": self.invoke_model_with_response_stream,
            "Converse": self.converse,
            "ConverseStream": self.converse_stream,
            "CountTokens": self.count_tokens,
        }
        self.operations = {name: self._counted(run) for name, run in self.operations.items()}
        self.operations["ApplyGuardrail"] = self._guards.apply_guardrail

    def models(self) -> list[Model]:
        """Every model that answers here."""
        return self._registry.models()

    def _embedder(self) -> Embedder | None:
        """What guardrails compare meanings with."""
        model = self._registry.minilm()
        return model if model.available() else None

    def invoke_model(self, ctx: Context, params: Params) -> Outcome:
        model = self._model(params["modelId"])
        check_invocation(params, model)
        if model.passthrough is not None:
            return forward(self._work(ctx, model, len(params.get("body", b""))), model.passthrough, params)
        if model.reranker is not None:
            no_guardrail(params)
            return self._rerank_body(ctx, model, params)
        if model.embedder is not None:
            no_guardrail(params)
            return self._embed(ctx, model, params)
        body, shield = params.get("body", b""), self._shield(ctx, params)
        prompt, _ = (None, "whole") if shield is None else body_prompt(body)
        request = read_messages(body) if prompt is None else plain(prompt)
        work = self._text_work(ctx, model, request, shield)

        def reply(answer: Answer, generation: Generation) -> Reply:
            more = guardrail_members(generation, params)
            written = write_message(answer, model.id, ctx.request_id, more)
            return invocation(written, answer.input_tokens, answer.output_tokens, answer.latency_ms, params)

        return complete(work, model, starter(model, request, shield, prompt, "whole", work), reply)

    def invoke_model_with_response_stream(self, ctx: Context, params: Params) -> Outcome:
        model = self._model(params["modelId"])
        check_invocation(params, model)
        if model.passthrough is not None:
            work = self._work(ctx, model, len(params.get("body", b"")))
            return forward_stream(work, model.passthrough, "invoke_model_with_response_stream", params)
        if model.generator is None:
            raise invalid("The model is unsupported for streaming")
        body, shield = params.get("body", b""), self._shield(ctx, params)
        prompt, mode = (None, "sync") if shield is None else body_prompt(body)
        request = read_messages(body) if prompt is None else plain(prompt)
        work = self._text_work(ctx, model, request, shield)

        def events(generation: Generation, first: str | None) -> Iterator[dict[str, Any]]:
            def more() -> dict[str, Any]:
                return guardrail_members(generation, params)

            return message_events(generation, first, model.id, ctx.request_id, work.latency_ms, more)

        return stream(
            work,
            model,
            starter(model, request, shield, prompt, mode, work),
            events,
            lambda channel: Reply({"body": channel, "contentType": JSON, **invocation_echoes(params)}),
            timeout_event=True,
        )

    def converse(self, ctx: Context, params: Params) -> Outcome:
        model = self._model(params["modelId"])
        if model.passthrough is not None:
            return forward(self._work(ctx, model, 0), model.passthrough, params, "converse")
        request = self._conversation(model, params)
        shield = self._shield(ctx, params.get("guardrailConfig") or {})
        prompt = None if shield is None else converse_prompt(params)
        work = self._text_work(ctx, model, request, shield)
        return complete(
            work,
            model,
            starter(model, request, shield, prompt, "whole", work),
            lambda answer, generation: Reply(write_converse(answer, params, trace(generation, params))),
        )

    def converse_stream(self, ctx: Context, params: Params) -> Outcome:
        model = self._model(params["modelId"])
        if model.passthrough is not None:
            return forward_stream(self._work(ctx, model, 0), model.passthrough, "converse_stream", params)
        request = self._conversation(model, params)
        config = params.get("guardrailConfig") or {}
        shield = self._shield(ctx, config)
        prompt = None if shield is None else converse_prompt(params)
        mode = check_mode(config.get("streamProcessingMode", "sync"))
        work = self._text_work(ctx, model, request, shield)
        return stream(
            work,
            model,
            starter(model, request, shield, prompt, mode, work),
            lambda generation, first: converse_events(
                generation, first, params, work.latency_ms, lambda: trace(generation, params)
            ),
            lambda channel: Reply({"stream": channel}),
            timeout_event=False,
        )

    def _shield(self, ctx: Context, given: Mapping[str, Any]) -> Shield | None:
        """The guardrail that InvokeModel's headers, or Converse's guardrailConfig, name."""
        return self._guards.optional(ctx, given.get("guardrailIdentifier"), given.get("guardrailVersion"))

    # -- rerank -------------------------------------------------------------------------------------------------------

    def _rerank_body(self, ctx: Context, model: Model, params: Params) -> Outcome:
        request = read_rerank(params.get("body", b""))
        work = self._work(ctx, model, len(request.query) * len(request.texts) + sum(map(len, request.texts)))

        def then(ranked: list[tuple[int, float]], tokens: int) -> Outcome:
            return invocation(write_rerank(ranked), tokens, 0, work.latency_ms(), params)

        return self._rank(work, model, request, then)

    def rerank(
        self, ctx: Context, identifier: str, request: RerankRequest, then: Callable[[list[tuple[int, float]]], Outcome]
    ) -> Outcome:
        """For Bedrock's Rerank operation: `identifier` is a model's id or ARN; `then` gets (index, score) of the best.
        Raises ValidationException for a model that does not rerank, ThrottlingException."""
        try:
            model = self._model(identifier)
        except AwsError:
            raise invalid("The provided model identifier is invalid.") from None
        if model.passthrough is not None:
            return self._rerank_elsewhere(ctx, model, request, then)
        if model.reranker is None:
            raise invalid(f"The model {model.id} is not supported for reranking.")
        try:
            work = self._work(ctx, model, len(request.query) * len(request.texts) + sum(map(len, request.texts)))
        except AwsError as error:
            self._count(ctx, model, error)
            raise
        return self._measured(ctx, model, self._rank(work, model, request, lambda ranked, tokens: then(ranked)))

    def _rank(
        self,
        work: Work,
        model: Model,
        request: RerankRequest,
        then: Callable[[list[tuple[int, float]], int], Outcome],
    ) -> Outcome:
        reranker = model.reranker
        assert reranker is not None

        def compute() -> tuple[list[tuple[int, float]], int]:
            scores = reranker.score(request.query, request.texts)
            asked = reranker.count_tokens(request.query)
            tokens = sum(asked + reranker.count_tokens(text) for text in request.texts)
            return rank(scores, request.top), tokens

        def finished(made: tuple[list[tuple[int, float]], int]) -> Outcome:
            work.finish(made[1], 0)
            return then(*made)

        return work.deferred(compute, finished, model.id)

    def _rerank_elsewhere(
        self, ctx: Context, model: Model, request: RerankRequest, then: Callable[[list[tuple[int, float]]], Outcome]
    ) -> Outcome:
        """Through InvokeModel of real Bedrock, in the model's own format."""
        backend: Any = model.passthrough
        version = {"api_version": 2} if backend.target.partition(".")[0] == "cohere" else {}
        body = {"query": request.query, "documents": list(request.texts), "top_n": request.top, **version}
        work = self._work(ctx, model, sum(map(len, request.texts)))

        def compute() -> list[tuple[int, float]]:
            answer = backend.call("invoke_model", {"body": write_json(body)})
            document = read_json(answer["body"].read())
            return [(one["index"], one["relevance_score"]) for one in document["results"]]

        def finished(ranked: list[tuple[int, float]]) -> Outcome:
            work.finish(0, 0)
            return then(ranked)

        return self._measured(ctx, model, work.deferred(compute, finished, model.id))

    # -- metrics ------------------------------------------------------------------------------------------------------

    def _counted(self, run: Operation) -> Operation:
        """The operation, with its errors in the model's metrics."""

        def counted(ctx: Context, params: Params) -> Outcome:
            model = self._lookup(params["modelId"])
            try:
                outcome = run(ctx, params)
            except AwsError as error:
                if model is not None:
                    self._count(ctx, model, error)
                raise
            return outcome if model is None else self._measured(ctx, model, outcome)

        return counted

    def _measured(self, ctx: Context, model: Model, outcome: Outcome) -> Outcome:
        """An outcome whose later failure is counted too."""
        if not isinstance(outcome, Deferred):
            return outcome
        start = outcome.start

        def begin(resolve: Callable[[Any], None]) -> None:
            def done(value: Any) -> None:
                if isinstance(value, Exception):
                    self._count(ctx, model, value)
                resolve(value)

            start(done)

        return Deferred(begin, outcome.then, outcome.cancelled)

    def _count(self, ctx: Context, model: Model, error: Exception) -> None:
        name = "InvocationServerErrors"
        if isinstance(error, AwsError) and error.sender:
            name = "InvocationThrottles" if error.code == "ThrottlingException" else "InvocationClientErrors"
        self._record(ctx, model)(name, 1.0, "Count")

    def _record(self, ctx: Context, model: Model) -> Record:
        meter, scope = self._platform.machine.meter, ctx.scope

        def record(name: str, value: float, unit: str) -> None:
            meter.record(scope, "AWS/Bedrock", name, value, unit, ModelId=model.id)

        return record

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
            characters = FAR_BATCH_CHARACTERS if model.backend == "openai" else BATCH_CHARACTERS
            batcher = Batcher(self._platform.background, embedder, batch_characters=characters)
            self._batchers[model.id] = batcher

        def start(resolve: Callable[[Any], None]) -> None:
            done = resolve_or_fail(resolve, model, work.reservation)

            def submit(refused: Exception | None) -> None:
                if refused is not None:
                    done(refused)
                elif not work.cancelled:
                    work.on_cancel = batcher.submit(request.texts, request.kind, done).cancel

            if needs_counting(request):
                self._platform.background.run(lambda: check_lengths(request, embedder), submit)
            else:
                submit(None)

        def then(ctx: Context, rows: list[Embedded]) -> Outcome:
            tokens = sum(row.tokens for row in rows)
            work.reservation.settle(tokens)
            body = write_embedding(request, rows, embedder, ctx.request_id)
            work.finish(tokens, 0)
            return invocation(body, tokens, 0, work.latency_ms(), params)

        return Deferred(start, then, work.cancel)

    def _conversation(self, model: Model, params: Params) -> TextRequest:
        if model.generator is None:
            raise invalid(
                "This action doesn't support the model that you provided. Try again with a supported text or chat "
                "model."
            )
        check_trace(params.get("guardrailConfig") or {})
        check_tier((params.get("performanceConfig") or {}).get("latency"), model)
        check_service_tier((params.get("serviceTier") or {}).get("type"), model)
        return read_converse(params)

    def _model(self, identifier: str) -> Model:
        """By id, or by a foundation model's or inference profile's ARN."""
        model = self._lookup(identifier)
        if model is None:
            raise invalid("The provided model identifier is invalid.")
        return model

    def _lookup(self, identifier: str) -> Model | None:
        name = identifier
        if identifier.startswith("arn:"):
            try:
                name = Arn.parse(identifier).resource.partition("/")[2]
            except ValueError:
                name = ""
        return self._registry.find(identifier) or self._registry.find(name)

    def _text_work(self, ctx: Context, model: Model, request: TextRequest, shield: Shield | None) -> Work:
        work = self._work(ctx, model, request.length(), request.max_tokens)
        work.on_finish = None if shield is None else shield.measure
        return work

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
        self._warming.note(ctx, model)
        return Work(self._platform, Reservation(rate, estimate, self._platform.clock), self._record(ctx, model))


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
    check_tier(params.get("performanceConfigLatency"), model)
    check_service_tier(params.get("serviceTier"), model)


def starter(
    model: Model, request: TextRequest, shield: Shield | None, prompt: Prompt | None, mode: Mode, work: Work
) -> Callable[[], Generation]:
    """What begins the generation, behind the guardrail if there is one."""
    generator = model.generator
    if generator is None:
        raise invalid("The model is unsupported for text.")

    def begin(asked: TextRequest) -> Generation:
        return generator.generate(
            asked.messages, asked.system, asked.max_tokens, asked.stop, asked.temperature, asked.top_p
        )

    if shield is None or prompt is None:
        return lambda: begin(request)
    return lambda: GuardedGeneration(shield, prompt, begin, mode, lambda: work.cancelled)


def plain(prompt: Prompt) -> TextRequest:
    """The request as it was given, without its tags."""
    return prompt.rebuild([content.text for content in prompt.contents if content.guard])


def trace(generation: Generation, params: Mapping[str, Any]) -> dict[str, Any]:
    """Converse's trace, where a guardrail was applied and a trace asked for."""
    setting = (params.get("guardrailConfig") or {}).get("trace", "disabled")
    return generation.trace(setting) if isinstance(generation, GuardedGeneration) else {}


def guardrail_members(generation: Generation, params: Mapping[str, Any]) -> dict[str, Any]:
    """What a guardrail adds to InvokeModel's body."""
    if not isinstance(generation, GuardedGeneration):
        return {}
    members: dict[str, Any] = {
        "amazon-bedrock-guardrailAction": "INTERVENED" if generation.intervened else "NONE",
    }
    made = generation.trace(params.get("trace", "DISABLED").lower()).get("trace")
    if made:
        guardrail = made["guardrail"]
        shown = {"actionReason": guardrail["actionReason"]}
        if "inputAssessment" in guardrail:
            shown["input"] = guardrail["inputAssessment"]
        if "outputAssessments" in guardrail:
            name, written = next(iter(guardrail["outputAssessments"].items()))
            shown["outputs"] = [{name: one} for one in written]
        if "modelOutput" in guardrail:
            shown["modelOutput"] = guardrail["modelOutput"]
        members["amazon-bedrock-trace"] = {"guardrail": shown}
    return members


def no_guardrail(params: Mapping[str, Any]) -> None:
    if params.get("guardrailIdentifier"):
        raise invalid("Guardrails are not supported for this model: it does not generate text.")


def check_trace(config: Mapping[str, Any]) -> None:
    setting = config.get("trace", "disabled")
    if setting not in ("enabled", "disabled", "enabled_full"):
        constraint = "Member must satisfy enum value set: [enabled, disabled, enabled_full]"
        raise out_of_range(setting, "guardrailConfig.trace", constraint)


def check_mode(mode: str) -> Mode:
    if mode not in ("sync", "async"):
        constraint = "Member must satisfy enum value set: [sync, async]"
        raise out_of_range(mode, "guardrailConfig.streamProcessingMode", constraint)
    return "async" if mode == "async" else "sync"


def check_tier(latency: str | None, model: Model) -> None:
    if latency and latency != "standard":
        raise invalid(f"Latency performance configuration is not supported for {model.id}.")


def check_service_tier(tier: str | None, model: Model) -> None:
    if tier and tier != "default":
        raise invalid(f"The service tier {tier} is not supported for {model.id}.")


def build(platform: Platform, registry: Registry | None = None) -> BedrockRuntimeService:
    """`registry` None: made of `platform.settings.models`. Raises ModelConfigurationError."""
    state = platform.db.directory
    folder = state / "token-vectors" if state is not None else None
    return BedrockRuntimeService(platform, registry or Registry(getattr(platform.settings, "models", None), folder))

"""Finds the guardrail that a request names, and applies it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Scope
from preheat.models.contract import Embedder, ModelInputError
from preheat.models.guardrails.contract import Content, Policy, Source, TooComplex, Verdict
from preheat.models.guardrails.engine import Detectors, Guardrail
from preheat.services.bedrock_runtime import assessments
from preheat.services.bedrock_runtime.errors import invalid, out_of_range
from preheat.services.bedrock_runtime.policies import read_policy
from preheat.services.contract import Context, Outcome, Params, Platform

NAMESPACE = "AWS/Bedrock/Guardrails"
UNKNOWN = "The guardrail identifier or version provided in the request does not exist."
MOST_KEPT = 256
MOST_SOURCE, MOST_QUERY, MOST_ANSWER = 100_000, 1_000, 5_000
"""Characters that contextual grounding takes."""
MOST_TEXT = 1_000_000
QUALIFIERS = ("grounding_source", "query", "guard_content")


@dataclass(slots=True)
class Shield:
    """One guardrail's version, applied for one request; `seen` are its verdicts with their times in milliseconds."""

    id: str
    arn: str
    version: str
    policy: Policy
    scope: Scope
    build: Callable[[], Guardrail]
    platform: Platform
    seen: list[tuple[Verdict, int]] = field(default_factory=list)

    def assess(self, contents: Sequence[Content], source: Source) -> Verdict:
        """Not on the core's thread. Raises ModelInputError for a text that a pattern cannot be evaluated on."""
        clock = self.platform.clock
        started = clock.monotonic()
        try:
            verdict = self.build().assess(contents, source)
        except TooComplex as error:
            raise ModelInputError(str(error)) from error
        self.seen.append((verdict, round((clock.monotonic() - started) * 1_000)))
        return verdict

    def masked(self, text: str) -> str:
        """An answer's text with masks; otherwise as `assess`."""
        try:
            return self.build().masked(text)
        except TooComplex as error:
            raise ModelInputError(str(error)) from error

    def shown(self, source: Source, full: bool) -> list[dict[str, Any]]:
        """The assessments of one side."""
        details = {
            "guardrailId": self.id,
            "guardrailVersion": self.version,
            "guardrailArn": self.arn,
            "guardrailOrigin": ["REQUEST"],
            "guardrailOwnership": "SELF",
        }
        return [
            assessments.assessment(verdict, latency_ms, full, details)
            for verdict, latency_ms in self.seen
            if verdict.source == source
        ]

    @property
    def verdicts(self) -> list[Verdict]:
        return [verdict for verdict, _ in self.seen]

    def measure(self) -> None:
        """The metrics of what was assessed. On the core's thread."""
        record = partial(self.platform.machine.meter.record, self.scope, NAMESPACE)
        for verdict, latency_ms in self.seen:
            side = "Input" if verdict.source == "INPUT" else "Output"
            units = sum(assessments.usage([verdict]).values())
            for dimensions in (
                {"Operation": "ApplyGuardrail"},
                {"GuardrailContentSource": side},
                {"GuardrailArn": self.arn, "GuardrailVersion": self.version},
            ):
                record("Invocations", 1.0, **dimensions)
                record("InvocationLatency", latency_ms, "Milliseconds", **dimensions)
                record("TextUnitCount", units, **dimensions)
                if verdict.intervened:
                    record("InvocationsIntervened", 1.0, **dimensions)
            acted = {assessments.POLICY_TYPES[one.kind] for one in verdict.findings if one.action != "NONE"}
            for policy in sorted(acted):
                record("InvocationsIntervened", 1.0, GuardrailPolicyType=policy)


class Guards:
    """Guardrails by version, made ready once and kept while they do not change."""

    def __init__(self, platform: Platform, embedder: Callable[[], Embedder | None]) -> None:
        self._platform = platform
        self._detectors = Detectors(embedder)
        self._ready: dict[tuple[str, str, Any], Guardrail] = {}

    def find(self, ctx: Context, identifier: str, version: str, *, status: int = 400) -> Shield:
        """`status` 404: a guardrail that is not there is a ResourceNotFoundException, else a ValidationException."""
        try:
            shown = ctx.call(
                "bedrock", "GetGuardrail", {"guardrailIdentifier": identifier, "guardrailVersion": version}
            )
        except AwsError as error:
            if error.code == "ValidationException":
                raise
            code = "ResourceNotFoundException" if status == 404 else "ValidationException"
            raise AwsError(code, UNKNOWN, status) from None
        key = (shown["guardrailArn"], shown["version"], shown["updatedAt"])
        known = self._ready.get(key)
        policy = read_policy(shown) if known is None else known.policy

        def make() -> Guardrail:
            ready = self._ready.get(key)
            if ready is None:
                ready = Guardrail(policy, self._detectors)
                if len(self._ready) >= MOST_KEPT:
                    self._ready.clear()
                self._ready[key] = ready
            return ready

        arn, version = shown["guardrailArn"], shown["version"]
        return Shield(shown["guardrailId"], arn, version, policy, ctx.scope, make, self._platform)

    def optional(self, ctx: Context, identifier: str | None, version: str | None) -> Shield | None:
        """The guardrail of a request that may name none. Raises ValidationException for half a name."""
        if not identifier and not version:
            return None
        if not identifier or not version:
            missing = "guardrailVersion" if identifier else "guardrailIdentifier"
            raise invalid(f"A guardrail needs both an identifier and a version: {missing} is missing.")
        return self.find(ctx, identifier, version)

    # -- ApplyGuardrail -----------------------------------------------------------------------------------------------

    def apply_guardrail(self, ctx: Context, params: Params) -> Outcome:
        source = params["source"]
        if source not in ("INPUT", "OUTPUT"):
            raise out_of_range(source, "source", "Member must satisfy enum value set: [OUTPUT, INPUT]")
        scope = params.get("outputScope", "INTERVENTIONS")
        if scope not in ("INTERVENTIONS", "FULL"):
            raise out_of_range(scope, "outputScope", "Member must satisfy enum value set: [INTERVENTIONS, FULL]")
        shield = self.find(ctx, params["guardrailIdentifier"], params["guardrailVersion"], status=404)
        contents = read_contents(params["content"])
        if shield.policy.grounding and source == "OUTPUT":
            check_sizes(contents)

        def work() -> Verdict | Exception:
            try:
                return shield.assess(contents, source)
            except ModelInputError as error:
                return invalid(str(error))

        def then(ctx: Context, verdict: Verdict | Exception) -> Outcome:
            if isinstance(verdict, Exception):
                raise verdict
            shield.measure()
            return _answer(shield, verdict, scope == "FULL")

        return ctx.offload(work, then)


def _answer(shield: Shield, verdict: Verdict, full: bool) -> Params:
    outputs: list[dict[str, Any]] = []
    if verdict.blocked:
        policy = shield.policy
        outputs = [{"text": policy.blocked_input if verdict.source == "INPUT" else policy.blocked_output}]
    elif verdict.masked:
        outputs = [{"text": text} for text in verdict.texts]
    elif full:
        outputs = [{"text": text} for text in verdict.texts] if verdict.source == "OUTPUT" else []
    return {
        "usage": assessments.usage([verdict]),
        "action": "GUARDRAIL_INTERVENED" if verdict.intervened else "NONE",
        "actionReason": assessments.reason([verdict]),
        "outputs": outputs,
        "assessments": shield.shown(verdict.source, full),
        "guardrailCoverage": assessments.coverage(verdict),
    }


def read_contents(blocks: Sequence[Mapping[str, Any]]) -> list[Content]:
    """Contents of ApplyGuardrail. Raises ValidationException."""
    if not blocks:
        raise invalid("The content of the request is empty. Add content and try again.")
    return [read_block(block, f"content.{at}") for at, block in enumerate(blocks)]


def read_block(block: Mapping[str, Any], where: str) -> Content:
    """A text with its qualifiers. One that is only a source or a query is not guarded itself."""
    if "text" not in block:
        raise invalid(f"Images are not supported by this guardrail ({where}).")
    text = block["text"]["text"]
    if not text:
        raise invalid(f"The text field at {where} is blank. Add text to the text field, and try again.")
    if len(text) > MOST_TEXT:
        raise invalid(f"The text at {where} is longer than {MOST_TEXT} characters.")
    qualifiers = block["text"].get("qualifiers") or []
    for at, qualifier in enumerate(qualifiers):
        if qualifier not in QUALIFIERS:
            constraint = "Member must satisfy enum value set: [grounding_source, query, guard_content]"
            raise out_of_range(qualifier, f"{where}.text.qualifiers.{at + 1}.member", constraint)
    source, query = "grounding_source" in qualifiers, "query" in qualifiers
    return Content(text, "guard_content" in qualifiers or not (source or query), source, query)


def check_sizes(contents: Sequence[Content]) -> None:
    """What contextual grounding takes. Raises ValidationException."""
    for name, limit, size in (
        ("grounding source", MOST_SOURCE, sum(len(one.text) for one in contents if one.source)),
        ("query", MOST_QUERY, sum(len(one.text) for one in contents if one.query)),
        ("content to guard", MOST_ANSWER, sum(len(one.text) for one in contents if one.guard)),
    ):
        if size > limit:
            raise invalid(f"The {name} for contextual grounding has {size} characters, more than {limit}.")

"""A generation behind a guardrail: what is blocked never reaches the model, and what it says is
checked before it leaves.

    whole   the answer is checked once, complete
    sync    a stream leaves in parts that have been checked, as far as no finding can reach beyond them
    async   a stream leaves as it is made and is checked meanwhile: it ends at the finding, and nothing is masked
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from preheat.models.contract import Generation, Usage
from preheat.models.guardrails.contract import Content, Verdict
from preheat.models.guardrails.engine import last_break
from preheat.services.bedrock_runtime import assessments
from preheat.services.bedrock_runtime.domain import TextRequest
from preheat.services.bedrock_runtime.guarding import Shield

Mode = Literal["whole", "sync", "async"]
INTERVENED = "guardrail_intervened"
STEP = 160
"""New characters of a stream after which it is checked again."""
CONTEXT = 400
"""Characters that have left and are still read with what follows."""
ASYNC_WINDOW = 2_000


@dataclass(frozen=True, slots=True)
class Prompt:
    """What of a request the guardrail reads, and the request with those texts in their places."""

    contents: tuple[Content, ...]
    rebuild: Callable[[Sequence[str]], TextRequest]


class GuardedGeneration:
    """`begin` starts the model on a request. Iterate it as any generation."""

    def __init__(
        self,
        shield: Shield,
        prompt: Prompt,
        begin: Callable[[TextRequest], Generation],
        mode: Mode,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self.shield = shield
        self.stop_sequence: str | None = None
        self.said: list[str] = []
        """What the model said, where it was changed or held back."""
        self._prompt = prompt
        self._begin = begin
        self._mode = mode
        self._cancelled = cancelled
        self._inner: Generation | None = None
        self._intervened = False
        self._pieces = self._run()

    @property
    def usage(self) -> Usage:
        return Usage() if self._inner is None else self._inner.usage

    @property
    def stop_reason(self) -> str:
        if self._intervened or self._inner is None:
            return INTERVENED
        return self._inner.stop_reason

    @property
    def intervened(self) -> bool:
        """Anything blocked or masked, in the input too."""
        return any(verdict.intervened for verdict in self.shield.verdicts)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    def close(self) -> None:
        self._pieces.close()
        if self._inner is not None:
            self._inner.close()

    def trace(self, setting: str) -> dict[str, Any]:
        """Converse's trace for "enabled" or "enabled_full"; nothing for "disabled"."""
        if setting == "disabled":
            return {}
        full = setting == "enabled_full"
        read, written = self.shield.shown("INPUT", full), self.shield.shown("OUTPUT", full)
        guardrail: dict[str, Any] = {"actionReason": assessments.reason(self.shield.verdicts)}
        if read:
            guardrail["inputAssessment"] = {self.shield.id: read[0]}
        if written:
            guardrail["outputAssessments"] = {self.shield.id: written}
        if self.said:
            guardrail["modelOutput"] = self.said
        return {"trace": {"guardrail": guardrail}}

    def _run(self) -> Iterator[str]:
        texts: Sequence[str] = [content.text for content in self._prompt.contents if content.guard]
        if self._prompt.contents:
            verdict = self.shield.assess(self._prompt.contents, "INPUT")
            if verdict.blocked:
                self._intervened = True
                yield self.shield.policy.blocked_input
                return
            texts = verdict.texts
        self._inner = inner = self._begin(self._prompt.rebuild(texts))
        steps = {"whole": self._whole, "sync": self._sync, "async": self._async}
        yield from steps[self._mode](inner)
        self.stop_sequence = None if self._intervened else inner.stop_sequence

    def _whole(self, inner: Generation) -> Iterator[str]:
        parts = []
        for piece in inner:
            parts.append(piece)
            if self._cancelled():
                return
        answer = "".join(parts)
        if answer:
            yield from self._last("", answer)

    def _sync(self, inner: Generation) -> Iterator[str]:
        back = self.shield.build().holds_back
        context = held = ""
        fresh = 0
        for piece in inner:
            held += piece
            fresh += len(piece)
            if back is None or fresh < STEP or len(held) <= back:
                continue
            fresh = 0
            if self._check(context + held).blocked:
                yield from self._block(inner, held)
                return
            cut = _safe_cut(self.shield.masked, held, len(held) - back)
            if cut:
                ready = self.shield.masked(held[:cut])
                self._note(ready, held[:cut])
                context, held = (context + held[:cut])[-CONTEXT:], held[cut:]
                yield ready
        if held:
            yield from self._last(context, held)

    def _async(self, inner: Generation) -> Iterator[str]:
        answer, fresh = "", 0
        for piece in inner:
            answer += piece
            fresh += len(piece)
            yield piece
            if fresh >= STEP:
                fresh = 0
                if self._check(answer[-ASYNC_WINDOW:]).blocked:
                    yield from self._block(inner, answer)
                    return
        if answer and self._check(answer, judged=True).blocked:
            yield from self._block(inner, answer)

    def _last(self, context: str, held: str) -> Iterator[str]:
        """Checks the end of an answer, and gives it or what stands for it."""
        if self._check(context + held, judged=True).blocked:
            self._intervened = True
            self.said.append(held)
            yield self.shield.policy.blocked_output
            return
        ready = self.shield.masked(held)
        self._note(ready, held)
        yield ready

    def _check(self, text: str, judged: bool = False) -> Verdict:
        """`judged`: the answer is complete, so that contextual grounding can judge it."""
        known = [
            Content(one.text, False, one.source, one.query)
            for one in self._prompt.contents
            if judged and (one.source or one.query)
        ]
        return self.shield.assess([Content(text), *known], "OUTPUT")

    def _block(self, inner: Generation, text: str) -> Iterator[str]:
        self._intervened = True
        self.said.append(text)
        inner.close()
        yield self.shield.policy.blocked_output

    def _note(self, ready: str, held: str) -> None:
        if ready != held:
            self._intervened = True
            self.said.append(held)


def _safe_cut(masked: Callable[[str], str], text: str, most: int) -> int:
    """Where a text can be cut so that both parts are masked as the whole is; 0 without such a place."""
    whole = masked(text)
    cut = last_break(text, most)
    while cut and masked(text[:cut]) + masked(text[cut:]) != whole:
        cut = last_break(text[: cut - 1].rstrip(), cut - 1)
    return cut

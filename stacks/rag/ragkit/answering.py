"""A question -> passages -> an answer with verified citations, as a stream of events.

    guardrail  {action: "blocked" | "masked", message, source: "input" | "output", question}
                                                          question, of an input, is what may be kept of it
    retrieval  {mode, note, passages, ranked, evidence}   passages are those that the model is given, in its order;
                                                          ranked are all that were found, as {id, document, score}
    token      {text}
    notice     {message}                                  what the reader should know about this answer
    done       {answer, citations, answered, supported, notice, usage, cost_usd, timing, mode, model, correlation,
                cancelled}

`done.answer` is what counts: marks that do not hold are gone from it. A citation is {n, document, id, quotes}; quotes
are [start, end] of the supporting sentences in the passage's text. `answered` is false when the documents do not hold
the answer; `supported` is whether any citation holds. `mode` is the retrieval's, or "passages" (the model failed, the
passages stand for the answer), or "guardrail". Times in milliseconds since the question was taken up.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ragkit.asked import Asked
from ragkit.budget import Fitted, fit, reckoned
from ragkit.citations import Verified, verified
from ragkit.cost import cost_usd, total_usd
from ragkit.defence import line, without_foreign_links
from ragkit.embed import Embedder
from ragkit.evidence import Evidence, Judge
from ragkit.generate import Generation, GenerationUnavailable, Generator, Message, Usage
from ragkit.grounding import Statement, best_sentence
from ragkit.guardrails import INTERVENED, MASKED, Guardrail, NoGuardrail
from ragkit.likeness import Likeness
from ragkit.prompt import NOTHING_FOUND, SYSTEM, messages, refused
from ragkit.retrieve import Retrieved, Retriever
from ragkit.store import Passage
from ragkit.trace import Trace
from ragkit.wordings import NoWordings, Worded, Wordings

BLOCKED = "(a question that the guardrail blocked)"
UNSUPPORTED = "No passage supports this answer; check it against the documents."
MODEL_FAILED = "The model failed, so passages stand for the answer"
BEST_PASSAGES = "These passages fit the question best:"
QUOTED_PASSAGES = 3

Event = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Settings:
    """`passages` of the `ranked` that are retrieved are given to the model, as far as they fit into `prompt_tokens`
    with the conversation. `abstain`: where the evidence is clearly too little the model is not asked. `passages_only`:
    when the model fails the passages are the answer; else the failure is raised, for whoever tries again."""

    passages: int = 6
    ranked: int = 20
    max_tokens: int = 600
    prompt_tokens: int = 6_000
    abstain: bool = True
    passages_only: bool = True


@dataclass
class Draft:
    """An answer in the making."""

    mode: str
    passages: list[Passage] = field(default_factory=list)
    text: str = ""
    last: str = ""
    usage: Usage = field(default_factory=Usage)
    stop_reason: str = ""
    cancelled: bool = False
    notices: list[str] = field(default_factory=list)
    retrieval_usd: float | None = 0.0
    worded: Usage = field(default_factory=Usage)


class Answerer:
    """`judge` says whether the passages hold an answer. `embedder` helps to recognise support in other words; without
    it the words decide. `wordings` gives other wordings of the question to search for."""

    def __init__(
        self,
        retriever: Retriever,
        generator: Generator,
        settings: Settings = Settings(),
        guardrail: Guardrail | None = None,
        judge: Judge | None = None,
        embedder: Embedder | None = None,
        wordings: Wordings | None = None,
    ) -> None:
        self._retriever = retriever
        self._wordings = wordings or NoWordings()
        self._generator = generator
        self._settings = settings
        self._guardrail = guardrail or NoGuardrail()
        self._judge = judge or Judge()
        self._embedder = embedder

    def answer(self, asked: Asked, trace: Trace) -> Iterator[Event]:
        """The events of one answer. Raises GuardrailUnavailable, the store's errors, and, without `passages_only`,
        GenerationUnavailable."""
        with trace.step("guardrail") as step:
            checked = self._guardrail.check(asked.question)
            step["action"] = checked.action
        if checked.action != "none":
            told = checked.text if checked.action == "blocked" else "parts of the question were masked"
            kept = checked.text if checked.action == "masked" else BLOCKED
            yield "guardrail", {"action": checked.action, "message": told, "source": "input", "question": kept}
        if checked.action == "blocked":
            yield from self._blocked(Draft("guardrail", text=checked.text), trace)
            return
        asked = replace(asked, question=checked.text)
        worded = self._wordings.of(asked.question)
        found, evidence, fitted = self._found(asked, worded, trace)
        notices = [one for one in (asked.notice, f"{fitted.note}." if fitted.note else "") if one]
        draft = Draft(found.mode, fitted.passages, notices=notices)
        draft.retrieval_usd, draft.worded = found.cost_usd, worded.usage
        yield "retrieval", _retrieval(found, evidence, fitted)
        if not found.passages or (self._settings.abstain and not evidence.enough):
            draft.text = NOTHING_FOUND
            trace.mark("first_token")
            yield "token", {"text": NOTHING_FOUND}
        else:
            yield from self._generated(asked, fitted, draft, trace)
        if draft.stop_reason == INTERVENED:
            draft.text = draft.last  # what was said before it was blocked does not stand
            yield "guardrail", {"action": "blocked", "message": draft.text, "source": "output"}
            yield from self._blocked(draft, trace)
            return
        if draft.stop_reason == MASKED:
            yield "guardrail", {"action": "masked", "message": "parts of the answer were masked", "source": "output"}
        with trace.step("verification") as step:
            done = self._checked(asked, draft)
            step.update(dropped=done.pop("dropped"), answered=done["answered"], supported=done["supported"])
        for notice in draft.notices:
            yield "notice", {"message": notice}
        yield "done", {**done, **self._about(draft, trace)}

    def _found(self, asked: Asked, worded: Worded, trace: Trace) -> tuple[Retrieved, Evidence, Fitted]:
        settings = self._settings
        with trace.step("retrieval") as step:
            count = max(settings.passages, settings.ranked)
            self._judge.begin()
            where = asked.filter()
            found = self._retriever.search(asked.question, count, where, asked.earlier, worded.texts, trace)
            found = replace(found, note="; ".join(one for one in (found.note, worded.note) if one))
            evidence = self._judge.evidence(asked, found)
            step["passages"] = {one.id: round(one.score, 4) for one in found.passages}
            step["evidence"] = evidence.shown()
        best = found.passages[: settings.passages]
        return found, evidence, fit(
            asked.question, best, asked.earlier, asked.summary, settings.prompt_tokens, SYSTEM
        )  # fmt: skip

    def _generated(self, asked: Asked, fitted: Fitted, draft: Draft, trace: Trace) -> Iterator[Event]:
        """The model's tokens; when it fails, the best passages' sentences instead."""
        said = messages(asked.question, fitted.passages, fitted.turns, fitted.summary)
        draft.cancelled = asked.cancelled()
        if draft.cancelled:
            return
        try:
            with trace.step("generation") as step:
                trace.mark("model_asked")
                generation = self._generator.stream(SYSTEM, said, self._settings.max_tokens)
                try:
                    for piece in generation:
                        trace.mark("first_token")
                        draft.text += piece
                        draft.last = piece
                        yield "token", {"text": piece}
                        draft.cancelled = asked.cancelled()
                        if draft.cancelled:
                            break
                finally:
                    generation.close()
                    draft.usage, draft.stop_reason = _used(generation, said, draft.text), generation.stop_reason
                    step["tokens"] = {"input": draft.usage.input, "output": draft.usage.output}
        except GenerationUnavailable as error:
            if not self._settings.passages_only:
                raise
            trace.warn("the passages stand for the answer", error=str(error))
            draft.mode = "passages"
            draft.notices.append(f"{MODEL_FAILED} ({_code(error)}).")
            checked = self._guardrail.check(quoted(asked.question, fitted.passages), "OUTPUT")
            draft.stop_reason = {"blocked": INTERVENED, "masked": MASKED}.get(checked.action, "")
            draft.last = checked.text
            added = ("…\n\n" if draft.text else "") + checked.text
            draft.text += added
            trace.mark("first_token")
            yield "token", {"text": added}

    def _checked(self, asked: Asked, draft: Draft) -> dict[str, Any]:
        """The members of `done` that say what the answer is worth."""
        similar = Likeness(self._embedder) if self._embedder else None
        checked = verified(draft.text, draft.passages, asked.question, similar)
        known = [asked.question, *(text for one in draft.passages for text in (one.text, one.title, one.context))]
        text, links = without_foreign_links(checked.answer, known)
        supported = bool(checked.citations)
        declined = not supported and refused(text)
        if links:
            draft.notices.append("Links that stand in no passage were removed.")
        if not supported and not declined and not draft.cancelled and draft.mode != "passages":
            draft.notices.append(UNSUPPORTED)
        return {
            "answer": text, "citations": _citations(checked), "supported": supported, "dropped": checked.dropped,
            "answered": not declined and draft.mode != "passages",
        }  # fmt: skip

    def _blocked(self, draft: Draft, trace: Trace) -> Iterator[Event]:
        draft.mode = "guardrail"
        nothing = {"citations": [], "answered": False, "supported": False}
        trace.mark("first_token")
        yield "done", {"answer": draft.text, **nothing, **self._about(draft, trace)}

    def _about(self, draft: Draft, trace: Trace) -> dict[str, Any]:
        """The members of `done` that say how the answer came about."""
        model = self._generator.model
        usage = Usage(draft.usage.input + draft.worded.input, draft.usage.output + draft.worded.output)
        cost = total_usd(draft.retrieval_usd, cost_usd(model, usage))
        return {
            "notice": " ".join(draft.notices), "usage": {"input": usage.input, "output": usage.output},
            "cost_usd": cost, "timing": _timing(trace), "mode": draft.mode, "model": model,
            "correlation": trace.correlation, "cancelled": draft.cancelled,
        }  # fmt: skip


def _used(generation: Generation, said: Sequence[Message], text: str) -> Usage:
    """As the model counts; estimated where it was not heard to the end."""
    if generation.usage.input or not text:
        return generation.usage
    return reckoned([SYSTEM, *(one["text"] for one in said)], text)


def _code(error: Exception) -> str:
    """The service's code, for the reader; what else there is to know stands in the log."""
    reply = getattr(error.__cause__, "response", None) or {}
    return str(reply.get("Error", {}).get("Code") or type(error.__cause__ or error).__name__)


def quoted(question: str, passages: Sequence[Passage]) -> str:
    """The sentences that fit the question best, one a passage, cited."""
    asked = Statement.read(question, question)
    found = [(best_sentence(asked, one.text), number, one) for number, one in enumerate(passages, 1)]
    fitting = [(best[0], number, one.text[slice(*best[1])]) for best, number, one in found if best is not None]
    chosen = sorted(sorted(fitting, key=lambda item: (-item[0], item[1]))[:QUOTED_PASSAGES], key=lambda item: item[1])
    lines = [f"- {line(text)} [{number}]" for _, number, text in chosen]
    return "\n".join([BEST_PASSAGES, "", *(lines or [f"- {line(one.title)} [1]" for one in passages[:1]])])


def _retrieval(found: Retrieved, evidence: Evidence, fitted: Fitted) -> dict[str, Any]:
    ranked = [{"id": one.id, "document": one.document, "score": round(one.score, 4)} for one in found.passages]
    passages = [shown(number, one) for number, one in enumerate(fitted.passages, 1)]
    return {
        "mode": found.mode, "note": found.note, "passages": passages, "ranked": ranked, "evidence": evidence.shown()
    }  # fmt: skip


def _citations(checked: Verified) -> list[dict[str, Any]]:
    return [
        {"n": one.number, "document": one.passage.document, "id": one.passage.id,
         "quotes": [list(span) for span in one.quotes]}
        for one in checked.citations
    ]  # fmt: skip


def shown(number: int, passage: Passage) -> dict[str, Any]:
    """A passage as clients see it."""
    return {
        "n": number, "id": passage.id, "document": passage.document, "title": passage.title,
        "headings": passage.context, "text": passage.text,
        "source": f"{passage.document}{f', page {passage.page}' if passage.page else ''}",
        "score": round(passage.score, 4),
    }  # fmt: skip


def _timing(trace: Trace) -> dict[str, float]:
    steps = trace.steps
    first = steps.get("first_token", trace.since())
    parts = {f"{name}_ms": round(steps[name], 1) for name in ("embed", "search", "rerank") if name in steps}
    return {
        "retrieval_ms": round(steps.get("retrieval", 0)), **parts, "first_token_ms": round(first),
        "model_first_ms": round(first - steps.get("model_asked", first), 2), "total_ms": round(trace.since()),
    }  # fmt: skip

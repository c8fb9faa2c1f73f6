"""Reads a retrieval prompt: the numbered passages and the question. The documented form is

    <passages>
    [1] Title of the first passage
    Its text, any number of lines.
    [2] Title of the second
    ...
    </passages>
    <question>The question</question>

in the last user message; the passages may also stand in an earlier message or in the system prompt. Tolerated: numbered
blocks or a "Context:" part without the tags, a "Question:" line, or a context with the question as its last paragraph.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from preheat.models.contract import Message

LONGEST_BEFORE = 500
_HEAD = re.compile(r"^[ \t]*\[(\d{1,4})\][ \t]*(.*)$", re.MULTILINE)
_LABELLED_QUESTION = re.compile(r"^[ \t]*(?:user )?(?:question|query)[ \t]*:", re.IGNORECASE | re.MULTILINE)
_LABELLED_ANSWER = re.compile(r"^[ \t]*answer[ \t]*:", re.IGNORECASE | re.MULTILINE)
_LABELLED_CONTEXT = re.compile(
    r"^[ \t]*(?:context|documents?|sources?|passages?)[ \t]*:[ \t]*", re.IGNORECASE | re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Passage:
    """`mark` is the number it is cited by."""

    mark: int
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """`passages` is empty when the prompt carries none; `before` is what the user said last before the question."""

    question: str
    passages: tuple[Passage, ...]
    before: str = ""


def read_prompt(messages: Sequence[Message], system: str) -> Prompt:
    said = [message.text for message in messages if message.role == "user"]
    last = said[-1] if said else ""
    before = _before(said[:-1])
    question, around_question = _tagged(last, "question")
    for text in [last, *reversed(said[:-1]), system]:
        passages, _ = _tagged(text, "passages")
        if passages is not None:
            rest = question if question is not None else _tagged(last, "passages")[1]
            return Prompt(_clean_question(rest), split_passages(passages), before)
    if question is not None:
        return Prompt(_clean_question(question), split_passages(_plain_context(around_question)), before)
    context, question = _untagged(last)
    return Prompt(_clean_question(question), split_passages(context), before)


def _before(said: Sequence[str]) -> str:
    """The question of the last message, without passages, at most 500 characters of it."""
    if not said:
        return ""
    question, _ = _tagged(said[-1], "question")
    if question is None:
        _, question = _untagged(_tagged(said[-1], "passages")[1])
    return _clean_question(question)[:LONGEST_BEFORE]


def split_passages(text: str) -> tuple[Passage, ...]:
    """`[n] title` lines begin a passage; text without one is passage 1. A passage of one line has that line as text.
    Numbers rise: a line `[1] ...` inside passage 3, a reference list's, is text."""
    heads: list[re.Match[str]] = []
    for head in _HEAD.finditer(text):
        if not heads or int(head.group(1)) > int(heads[-1].group(1)):
            heads.append(head)
    if not heads:
        plain = text.strip()
        return (Passage(1, "", plain),) if plain else ()
    passages = []
    for head, following in zip(heads, [*heads[1:], None]):
        body = text[head.end() : following.start() if following else len(text)].strip()
        title = head.group(2).strip()
        if not body:
            title, body = "", title
        if body:
            passages.append(Passage(int(head.group(1)), title, body))
    return tuple(passages)


def _tagged(text: str, tag: str) -> tuple[str | None, str]:
    """(what stands between the first <tag> and </tag>, the text around it); (None, text) without them."""
    first = re.search(f"<{tag}>", text, re.IGNORECASE)
    last = first and re.compile(f"</{tag}>", re.IGNORECASE).search(text, first.end())
    if not first or not last:
        return None, text
    return text[first.end() : last.start()], f"{text[: first.start()]}\n{text[last.end() :]}"


def _untagged(text: str) -> tuple[str, str]:
    """(context, question) of a message without tags; the context is "" where there is none."""
    labels = list(_LABELLED_QUESTION.finditer(text))
    if labels:
        return _plain_context(text[: labels[-1].start()]), text[labels[-1].start() :]
    parts = [part for part in re.split(r"\n\s*\n", text.strip()) if part.strip()]
    if len(parts) > 1:
        if parts[-1].rstrip().endswith("?"):
            return _plain_context("\n\n".join(parts[:-1])), parts[-1]
        if parts[0].rstrip().endswith("?"):
            return _plain_context("\n\n".join(parts[1:])), parts[0]
    return "", text


def _plain_context(text: str) -> str:
    """What follows the "Context:" label, or all of it."""
    label = _LABELLED_CONTEXT.search(text)
    return text[label.end() :].strip() if label else text.strip()


def _clean_question(text: str) -> str:
    """Without its label, an empty "Answer:" after it, and line breaks."""
    labels = list(_LABELLED_QUESTION.finditer(text))
    if labels:
        text = text[labels[-1].end() :]
    answer = _LABELLED_ANSWER.search(text)
    if answer and not text[answer.end() :].strip():
        text = text[: answer.start()]
    return " ".join(text.split())

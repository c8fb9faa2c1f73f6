"""Text from documents made harmless for a prompt, and answers made harmless for a browser.

Nothing in a passage can look like the prompt's own parts: tags, passage numbers, another model's role marks. What
cannot be seen (zero-width and directional characters, characters of the tag block, controls) is taken out first, so
that it hides nothing from the rest. A link in an answer stays when a passage or the question has it:
one that the model was talked into making could carry what was asked to somebody else.
"""

import re
import unicodedata
from collections.abc import Iterable

LONGEST_WORD = 400
LINK_GONE = "(link removed)"

_LINE_BREAK = re.compile("\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_BLANK_LINES = re.compile(r"\n{4,}")
_WORD = re.compile(rf"\S{{{LONGEST_WORD + 1},}}")
_TAG = re.compile(
    r"[<＜﹤](?=\s*[/|]?\s*(?:passages?|questions?|system|instructions?|prompt|assistant|user|human|answer|documents?|context"
    r"|im_start|im_end|endoftext|begin_of_text|eot_id|start_header_id|end_header_id)\b)|<(?=\|)",
    re.IGNORECASE,
)
_ROLE = re.compile(r"\[(?=\s*/?\s*(?:INST|SYS|SYSTEM|USER|ASSISTANT)\s*\])|<<(?=\s*/?SYS\s*>>)", re.IGNORECASE)
_MARK = re.compile(r"[\[［【](\s{0,4}\d{1,6}(?:\s{0,4}[,;–-]\s{0,4}\d{1,6}){0,20}\s{0,4})[\]］】]")
_IMAGE = re.compile(r"!\[([^\]\n]{0,300})\](?=\()")
_LINK = re.compile(
    r"(?<![a-z0-9])[a-z][a-z0-9+.-]{1,20}://[^\s<>\"'`]{1,2000}"
    r"|(?<![\w.@/-])www\.[^\s<>\"'`]{3,2000}"
    r"|(?<![\w:/])//[\w-]{1,63}\.[\w.-]{2,255}[^\s<>\"'`]{0,2000}"
    r"|(?<![a-z0-9])(?:https?|javascript|vbscript|mailto):[^\s<>\"'`]{2,2000}|(?<![a-z0-9])data:\w{1,30}/[^\s<>\"'`]{1,2000}"
    r"|(?<=\]\()\s{0,8}[^\s)]{0,1000}[/:.#?][^\s)]{1,1000}|(?<=\]: )(?=[^\s]{0,300}[/#?])[^\s]{1,2000}",
    re.IGNORECASE,
)
"""Addresses with a scheme or without, and whatever else stands where Markdown has a link's target."""
_JOINERS = re.compile("(?<=[!-~])[\u200b-\u200d\u2060\ufeff]+(?=[!-~])")
"""Characters that cannot be seen between those of an address."""
_SURROUNDING = ".,;:!?)]}*_"


def visible(text: str) -> str:
    """The text without characters that cannot be seen, and with line breaks of one kind."""
    text = _LINE_BREAK.sub("\n", text)
    if not text.isascii():
        text = "".join(letter for letter in text if letter in "\n\t" or _shows(letter))
    return "".join(letter for letter in text if letter in "\n\t" or letter >= " ")


def _shows(letter: str) -> bool:
    """Joiners count as seen: Persian and emoji need them. Format characters and the tag block do not."""
    return letter in "\u200c\u200d" or unicodedata.category(letter) not in ("Cf", "Cc", "Cs", "Co")


def neutral(text: str) -> str:
    """A passage's text with nothing in it that could be taken for a part of the prompt."""
    text = visible(text).strip()
    text = _TAG.sub("‹", re.sub("[\u200c\u200d](?=[a-z<>/])", "", text, flags=re.IGNORECASE))
    text = _MARK.sub(lambda mark: f"({mark[1].strip()})", _ROLE.sub("‹", text))
    text = _IMAGE.sub(r"\1", text)
    return _BLANK_LINES.sub("\n\n", _WORD.sub(lambda word: f"{word[0][:LONGEST_WORD]}…", text))


def line(text: str) -> str:
    """A title as one line."""
    return " ".join(neutral(text).split())


def without_foreign_links(answer: str, known: Iterable[str]) -> tuple[str, int]:
    """The answer, with links that none of the `known` texts has taken out, and how many."""
    texts = list(known)
    gone = 0
    answer = _JOINERS.sub("", answer)

    def replaced(found: re.Match[str]) -> str:
        nonlocal gone
        link = found[0].strip().rstrip(_SURROUNDING)
        if not link or any(link in text for text in texts):
            return found[0]
        gone += 1
        return LINK_GONE + found[0].lstrip()[len(link) :]

    return _LINK.sub(replaced, answer), gone

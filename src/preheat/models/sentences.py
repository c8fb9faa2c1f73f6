"""Sentences and terms of plain text: what the extractive answerer counts."""

import re

_END = re.compile(r"""[.!?][\])"'”’]*(?=\s+["'“‘(\[]?[^\sa-z])|\s[.!?](?=\s)|\n\s*\n|\n(?=\s*(?:[-*•]|\d+[.)])\s)""")
_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|Mt|Jr|Sr|vs|etc|e\.g|i\.e|No|Fig|Eq|Vol|cf|al|approx|Gen|Col|Lt|Sgt|Capt|Rev|Hon)"
    r"|\b[A-Z]|\b(?:[A-Z]\.)+[A-Z])\.$"
)
_TERM = re.compile(r"[^\W_]+(?:['’][a-z]+)?")
_STOP = (
    "a about above after again against all also am an and any are as at be because been before being below "
    "between both but by can could did do does doing done down during each few for from further had has have "
    "having he her here hers him his how i if in into is it its itself just me might more most must my no nor not "
    "now of off on once only or other our out over own same shall she should so some such than that the their "
    "them then there these they this those through to too under until up us was we were what when where which "
    "while who whom whose why will with would you your please tell describe explain give show "
)
STOP_WORDS = frozenset(_STOP.split())
LONGEST_SENTENCE = 600


def split_sentences(text: str) -> list[str]:
    """Sentences in order, verbatim but for the white space around them. Very long ones are cut at line ends."""
    sentences: list[str] = []
    start = 0
    for match in _END.finditer(text):
        candidate = text[start : match.end()]
        if match.group()[0] == "." and _ABBREVIATION.search(candidate):
            continue
        _add(sentences, candidate)
        start = match.end()
    _add(sentences, text[start:])
    return sentences


def _add(sentences: list[str], text: str) -> None:
    text = text.strip()
    if len(text) > LONGEST_SENTENCE and "\n" in text:
        sentences.extend(line.strip() for line in text.split("\n") if line.strip())
    elif text:
        sentences.append(text)


def terms(text: str) -> list[str]:
    """Stems of the words that carry meaning, in order, repeats kept."""
    words = (word.lower().removesuffix("'s").removesuffix("’s") for word in _TERM.findall(text))
    return [stem(word) for word in words if word not in STOP_WORDS]


def stem(word: str) -> str:
    """A light English stem: plural, -ed, -ing, -ly, -ation and a final e go."""
    if len(word) > 3 and not word.isdigit():
        for suffix, replacement, least in _SUFFIXES:
            if word.endswith(suffix) and len(word) - len(suffix) >= least:
                word = word[: len(word) - len(suffix)] + replacement
                break
        if len(word) > 4 and word[-1] == word[-2] and word[-1] not in "lsz":
            word = word[:-1]
        if len(word) > 4 and word.endswith("e"):
            word = word[:-1]
    return word


_SUFFIXES = (
    ("ational", "ate", 3),
    ("ations", "", 3),
    ("ation", "", 3),
    ("nesses", "", 3),
    ("ness", "", 3),
    ("ments", "", 4),
    ("ment", "", 4),
    ("ingly", "", 3),
    ("edly", "", 3),
    ("ings", "", 3),
    ("ing", "", 3),
    ("sses", "ss", 1),
    ("ies", "y", 2),
    ("ied", "y", 2),
    ("ors", "", 4),
    ("ers", "", 4),
    ("or", "", 4),
    ("er", "", 4),
    ("ed", "", 3),
    ("ly", "", 3),
    ("xes", "x", 1),
    ("ches", "ch", 1),
    ("shes", "sh", 1),
    ("ss", "ss", 1),
    ("us", "us", 1),
    ("s", "", 3),
)

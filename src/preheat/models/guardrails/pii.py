"""Personal and secret data in text: where each kind of entity stands.

Numbers that have a check digit are checked; numbers that look like any other are taken only where a word says what
they are ("routing number 021000021"). Names and addresses are found by form and by a list of common first names: best
effort. Every expression is bounded, so the time is linear in the text.
"""

import ipaddress
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from preheat.models.guardrails import checks

Span = tuple[int, int]
Find = Callable[[str], Iterator[Span]]

LONGEST = 320
"""Characters that an entity may have; a stream holds back so many."""
_TO = r"(?:\s{0,3}(?:is|was|are|number|no\.?|num|#|code|id|[:=#\-–>\"'(]|of|for|to)){0,5}\s{0,3}[\"']?"
_CAP = r"[A-ZÀ-ÖØ-Þ][a-zà-öø-ÿ]{1,20}(?:[-'’][A-ZÀ-ÖØ-Þ][a-zà-öø-ÿ]{1,20})?"
_STREET = (
    r"(?:Street|St\.?|Avenue|Ave\.?|Road|Rd\.?|Boulevard|Blvd\.?|Lane|Ln\.?|Drive|Dr\.?|Court|Ct\.?|Way|Place|Pl\.?"
    r"|Square|Sq\.?|Terrace|Parkway|Pkwy\.?|Highway|Hwy\.?|Circle|Crescent|Close|Gardens|Row|Alley)"
)
_UNIT = r"(?:,?\s{1,2}(?:Apt|Apartment|Suite|Ste|Unit|Floor|Flat|#)\.?\s?#?\w{1,6})?"
_ZIP = r"(?:[A-Z]{2}\s{1,2}\d{5}(?:-\d{4})?|[A-Z]{1,2}\d[A-Z\d]?\s?\d[A-Z]{2})"
_NO_NAMES = (
    "The This That These Those There Here What When Where Which Who Why How Please Thanks Hello Hi Dear Good Just "
    "Very Not Also Still Sorry Glad Happy Sure Trying Looking Going Having Using New Next First Last Fine Ready "
    "Currently January February March April May June July August September October November December Monday "
    "Tuesday Wednesday Thursday Friday Saturday Sunday And But Or If In On At For From With Your My Our "
)
_NOT_NAMES = frozenset(_NO_NAMES.split())
_WORDS_FOR_PHONE = re.compile(
    r"(?i)\b(?:phone|telephone|tel|mobile|cell|call|fax|whatsapp|sms|dial|contact|telefon|handy|mobil|t[ée]l[ée](?:f|ph)on"
    r"|portable|m[óo]vil|celular|cellulare|telem[óo]vel|telefoon|mobiel|kom[óo]rka|cep tel|тел|моб)"
    r"|电话|電話|手机|携帯|전화|휴대폰|هاتف|جوال|फ़ोन|मोबाइल"
)
_SECRET_WORD = re.compile(r"(?i)secret|aws|credential|access.?key")


def _plain(pattern: str, flags: int = 0) -> Find:
    """Where the pattern matches; its group `v`, if it has one, is what counts."""
    compiled = re.compile(pattern, flags)
    group = "v" if "v" in compiled.groupindex else 0

    def find(text: str) -> Iterator[Span]:
        for match in compiled.finditer(text):
            yield match.span(group)

    return find


def _checked(pattern: str, check: Callable[[str], bool], flags: int = 0) -> Find:
    """Matches whose characters, without separators and in capitals, pass the check."""
    find = _plain(pattern, flags)

    def checked(text: str) -> Iterator[Span]:
        for begin, end in find(text):
            if check(re.sub(r"[\s.\-]", "", text[begin:end]).upper()):
                yield begin, end

    return checked


def _any(*finders: Find) -> Find:
    def find(text: str) -> Iterator[Span]:
        for finder in finders:
            yield from finder(text)

    return find


def _phone() -> Find:
    shape = re.compile(
        r"(?<![\w.+@/-])(?:\+\d{1,3}[\s.-]?)?(?:\(\d{1,4}\)[\s.-]?)?\d{2,5}(?:[\s.-]\d{2,5}){1,4}(?![\w@]|[.-]\d)"
        r"|(?<![\w.+@/-])\+\d{8,15}(?!\w)|(?<![\w.@/-])\d{7,11}(?![\w@]|[.-]\d)"
    )
    date = re.compile(r"\d{4}[-.\s]\d{1,2}[-.\s]\d{1,2}|\d{1,2}[-.\s]\d{1,2}[-.\s]\d{2,4}")
    american = re.compile(r"(?:\+?1[\s.-]?)?(?:\([2-9]\d\d\)\s?|[2-9]\d\d[\s.-])[2-9]\d\d[\s.-]\d{4}")

    def find(text: str) -> Iterator[Span]:
        for match in shape.finditer(text):
            found = match.group()
            digits = sum(char.isdigit() for char in found)
            if not 7 <= digits <= 15 or date.fullmatch(found):
                continue
            named = _WORDS_FOR_PHONE.search(text[max(0, match.start() - 30) : match.start()])
            abroad = found[0] == "+" or (found.startswith("00") and digits >= 11 and found[2] in "123456789")
            if abroad or american.fullmatch(found) or named:
                yield match.span()

    return find


def _ip() -> Find:
    shape = re.compile(
        r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f:]{2,39}(?:(?<=:)\d{1,3}(?:\.\d{1,3}){3})?)(?![\w:]|\.\d)"
    )

    def find(text: str) -> Iterator[Span]:
        for match in shape.finditer(text):
            found = match.group()
            if found.count(".") != 3 and found.count(":") < 2:
                continue
            try:
                ipaddress.ip_address(found)
            except ValueError:
                continue
            if any(char.isalnum() for char in found):
                yield match.span()

    return find


def _secret_key() -> Find:
    shape = re.compile(r"(?<![A-Za-z0-9/+=])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])")

    def find(text: str) -> Iterator[Span]:
        for match in shape.finditer(text):
            found = match.group()
            kinds = sum(any(test(char) for char in found) for test in (str.isupper, str.islower, str.isdigit))
            counts = Counter(found)
            bits = -sum(count / 40 * math.log2(count / 40) for count in counts.values())
            said = _SECRET_WORD.search(text[max(0, match.start() - 60) : match.start()])
            if kinds == 3 and (bits >= 4.4 or (said and bits >= 3.5)):
                yield match.span()

    return find


def _names() -> Find:
    known = frozenset((Path(__file__).parent / "names.txt").read_text().split())
    honours = "Mr|Mrs|Ms|Miss|Dr|Prof|Professor|Sir|Madam|Captain|Judge|Rev"
    title = re.compile(rf"\b(?:{honours})\.?\s(?P<v>{_CAP}(?:\s{_CAP}){{0,2}})")
    said = re.compile(
        r"(?i:\b(?:my name is|i am|i'm|i’m|name\s?[:=]|called|named|signed,?|regards,|sincerely,|contact person:?"
        rf"|patient:?|customer:?|employee:?|attn:?))\s{{1,3}}(?P<v>{_CAP}(?:\s[A-Z]\.)?(?:\s{_CAP}){{0,2}})"
    )
    two = re.compile(rf"\b(?P<f>{_CAP})(?:\s[A-Z]\.)?\s(?P<l>(?:(?:van|von|de|da|del|la)\s){{0,2}}{_CAP})\b")
    sure = re.compile(r"(?i)name|signed|regards|sincerely|person|patient|customer|employee|attn")

    def find(text: str) -> Iterator[Span]:
        for match in title.finditer(text):
            yield match.span("v")
        for match in said.finditer(text):
            first = match.group("v").split()[0]
            if first in _NOT_NAMES:
                continue
            if sure.search(match.group()[: match.start("v") - match.start()]) or first in known:
                yield match.span("v")
        at = 0
        while match := two.search(text, at):
            if match.group("f") in known and match.group("l") not in _NOT_NAMES:
                yield match.span()
                at = match.end()
            else:
                at = match.end("f")

    return find


def _iban() -> Find:
    begins = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?=\s?[A-Z0-9])")

    def find(text: str) -> Iterator[Span]:
        for match in begins.finditer(text):
            compact, end = "", match.start()
            while end < len(text) and len(compact) < checks.iban_length(compact):
                if not (text[end].isalnum() or text[end] == " "):
                    break
                compact += text[end].strip()
                end += 1
            if checks.iban(compact) and not text[end : end + 1].isalnum():
                yield match.start(), end

    return find


def _secrets() -> dict[str, Find]:
    """By entity type, what is surest first: where two overlap the earlier one wins."""
    pair = r"[0-9A-Fa-f]{2}"
    return {
        "AWS_ACCESS_KEY": _plain(r"(?<![A-Za-z0-9])(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?![A-Za-z0-9])"),
        "AWS_SECRET_KEY": _secret_key(),
        "URL": _plain(r"(?i:\b(?:https?|ftp)://|\bwww\.)[^\s<>\"'\])}]{3,300}(?<![.,;:!?])"),
        "EMAIL": _plain(
            r"(?<![\w.%+-])[\w.%+-]{1,64}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,6}[A-Za-z]{2,24}(?![\w-])"
        ),
        "INTERNATIONAL_BANK_ACCOUNT_NUMBER": _iban(),
        "CREDIT_DEBIT_CARD_NUMBER": _checked(
            r"(?<![\w.-])(?<![A-Z]{2}\d{2} )\d(?:[ -]?\d){12,18}(?![\w-]|\.\d)", checks.payment_card
        ),
        "MAC_ADDRESS": _any(
            _plain(rf"(?<![\w:-]){pair}([:-])(?:{pair}\1){{4}}{pair}(?![\w:-])"),
            _plain(r"(?<![\w.])(?:[0-9A-Fa-f]{4}\.){2}[0-9A-Fa-f]{4}(?![\w.])"),
        ),
        "IP_ADDRESS": _ip(),
    }


def _numbers() -> dict[str, Find]:
    """Numbers that authorities and banks give out."""

    def said(words: str, value: str) -> Find:
        return _plain(rf"\b(?:{words}){_TO}(?P<v>{value})", re.IGNORECASE)

    def said_checked(words: str, value: str, check: Callable[[str], bool]) -> Find:
        return _checked(rf"\b(?:{words}){_TO}(?P<v>{value})", check, re.IGNORECASE)

    return {
        "US_INDIVIDUAL_TAX_IDENTIFICATION_NUMBER": _checked(
            r"(?<![\w-])9\d\d([- ]?)\d\d\1\d{4}(?![\w-])", checks.taxpayer
        ),
        "US_SOCIAL_SECURITY_NUMBER": _any(
            _checked(r"(?<![\w-])\d{3}([- ])\d{2}\1\d{4}(?![\w-])", checks.social_security),
            said_checked(r"ssn|social security(?: number)?", r"\d{9}\b", checks.social_security),
        ),
        "US_BANK_ROUTING_NUMBER": said_checked("routing|aba|rtn|transit", r"\d{9}(?!\d)", checks.routing),
        "US_BANK_ACCOUNT_NUMBER": said("bank account|account|acct|a/c|checking|savings", r"\d{8,17}(?!\d)"),
        "US_PASSPORT_NUMBER": said("passport", r"[A-Z]?\d{8,9}\b"),
        "DRIVER_ID": said(
            r"driv(?:er['’]?s?|ing) licen[cs]e|dl no|dl number|licen[cs]e id",
            r"(?=[A-Z0-9-]{0,19}\d)[A-Z0-9][A-Z0-9-]{4,19}\b",
        ),
        "CA_SOCIAL_INSURANCE_NUMBER": _any(
            _checked(r"(?<![\w-])\d{3}([- ])\d{3}\1\d{3}(?![\w-])", checks.luhn),
            said_checked(r"sin|social insurance(?: number)?", r"\d{9}\b", checks.luhn),
        ),
        "CA_HEALTH_NUMBER": said(
            "health (?:card|insurance|number)|ohip|phn", r"\d{4}[- ]?\d{3}[- ]?\d{3}(?:[- ]?[A-Z]{2})?\b"
        ),
        "UK_NATIONAL_HEALTH_SERVICE_NUMBER": _any(
            _checked(r"(?<![\w-])\d{3}([- ])\d{3}\1\d{4}(?![\w-])", checks.health_service),
            said_checked("nhs", r"\d{10}\b", checks.health_service),
        ),
        "UK_NATIONAL_INSURANCE_NUMBER": _plain(
            r"\b(?!BG|GB|NK|KN|TN|NT|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]\s?\d\d\s?\d\d\s?\d\d\s?[A-D]\b"
        ),
        "UK_UNIQUE_TAXPAYER_REFERENCE_NUMBER": said(
            "utr|unique taxpayer(?: reference)?|tax reference", r"\d{5}\s?\d{5}\b"
        ),
        "VEHICLE_IDENTIFICATION_NUMBER": _any(
            _checked(r"\b[A-HJ-NPR-Z0-9]{17}\b", checks.vehicle),
            said("vin|vehicle identification(?: number)?", r"[A-HJ-NPR-Z0-9]{17}\b"),
        ),
        "SWIFT_CODE": _plain(
            rf"(?i:\b(?:swift|bic)(?:/bic)?{_TO})(?P<v>[A-Z]{{6}}[A-Z0-9]{{2}}(?:[A-Z0-9]{{3}})?)\b"
        ),
        "CREDIT_DEBIT_CARD_CVV": said(
            "cvv2?|cvc2?|cvn|security code|card verification(?: value| code)?", r"\d{3,4}(?!\d)"
        ),
        "CREDIT_DEBIT_CARD_EXPIRY": said(
            r"exp(?:iry|ires|iration|\.)?(?: date)?|valid (?:thru|until|through|to)|good thru",
            r"(?:0[1-9]|1[0-2])\s?[/-]\s?(?:20)?\d\d(?!\d)",
        ),
        "PIN": said(r"pin(?:\s?code| number)?", r"\d{4,8}(?!\d)"),
        "LICENSE_PLATE": _any(
            said(
                r"(?:licen[cs]e|number|registration)\s(?:plate|no)",
                r"(?=[A-Z -]{0,7}\d)[A-Z0-9](?:[ -]?[A-Z0-9]){3,7}\b",
            ),
            _plain(r"\b[A-Z]{2}\d{2}\s[A-Z]{3}\b"),
        ),
    }


def _people() -> dict[str, Find]:
    """What people are called, where they live, and what they sign in with."""
    word = re.IGNORECASE
    street = rf"\b\d{{1,6}}[A-Za-z]?\s(?:[NSEW]\.?\s)?(?:{_CAP}\s|\d{{1,3}}(?:st|nd|rd|th)\s){{1,4}}{_STREET}(?!\w)"
    place = rf"(?:,?\s{{1,2}}{_CAP}(?:\s{_CAP}){{0,2}})?(?:,?\s{{1,2}}{_ZIP})?"
    return {
        "PASSWORD": _plain(
            r"\b(?:password|passwd|pwd|passphrase|passcode)\s{0,2}(?:is|was|[:=])\s{0,2}[\"']?(?P<v>(?!(?:is|the|not|a|my|"
            r"your|required|incorrect|wrong|correct|expired|invalid|protected|reset|stored|too)\b)[^\s\"',]{4,64})",
            word,
        ),
        "USERNAME": _any(
            _plain(
                r"\b(?:user\s?name|user\s?id|login|handle|screen name)\s{0,2}(?:is|was|[:=])\s{0,2}[\"'@]?"
                r"(?P<v>(?!(?:is|the|not|a|my|your|required|invalid|taken)\b)[\w.-]{3,40}\w)",
                word,
            ),
            _plain(r"(?<![\w@./])@[A-Za-z_]\w{2,30}\b"),
        ),
        "PHONE": _phone(),
        "AGE": _any(
            _plain(r"\b\d{1,3}[- ](?:years?|yrs?)[- ](?:old|of age)\b|\b\d{1,3}\s?y/o\b", word),
            _plain(
                r"\b(?:aged?|age is|age:)\s{0,2}(?:of\s)?(?P<v>1?\d{1,2})\b(?!\s?(?:%|percent|minutes|hours|days))",
                word,
            ),
            _plain(
                r"\b(?:i am|i'm|i’m|she is|he is|turned|turning)\s(?P<v>1?\d{1,2})\b"
                r"(?=[.,;!?]|\s(?:and|but|now|today)|$)",
                word,
            ),
        ),
        "ADDRESS": _any(
            _plain(street + _UNIT + place),
            _plain(r"\bP\.?\s?O\.?\sBox\s\d{1,7}\b", word),
            _plain(rf"\b{_CAP}(?:\s{_CAP}){{0,2}},\s[A-Z]{{2}}\s\d{{5}}(?:-\d{{4}})?\b"),
            _plain(rf"\b[A-ZÄÖÜ][a-zäöüß]{{1,20}}(?:straße|strasse|weg|platz|allee|gasse)\s\d{{1,4}}[a-z]?(?:,?\s\d{{5}}\s{_CAP})?"),
        ),
        "NAME": _names(),
    }


class Entities:
    """Finds entities; the expressions are compiled when it is made."""

    def __init__(self) -> None:
        self._finders = {**_secrets(), **_numbers(), **_people()}

    @property
    def types(self) -> tuple[str, ...]:
        return tuple(self._finders)

    def find(self, text: str, types: Iterable[str]) -> list[tuple[int, int, str]]:
        """(begin, end, type), in order of place, without overlap."""
        wanted = set(types)
        taken: list[tuple[int, int, str]] = []
        for kind, find in self._finders.items():
            if kind in wanted:
                for begin, end in find(text):
                    if begin < end and all(end <= other[0] or begin >= other[1] for other in taken):
                        taken.append((begin, end, kind))
        return sorted(taken)

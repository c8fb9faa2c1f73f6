"""Does a text say the opposite of a statement whose words it has: denied where it is affirmed, or in another unit?

Words alone cannot tell "hovers at 12 metres" from "does not hover at 12 metres" or "hovers at 12 feet". A negation
reaches over the next words of its clause; what the statement negates must be negated in the text, and the other way
round. A number with a unit must not stand with other units alone. English, and the common words of German, French,
Spanish, Italian, Portuguese and Dutch.

Of the sentences of gold answers that their passages support, 0.2% (clapnq-dev) and 2% (mtrag-un, some of which say what
no passage says) are taken for contradicted. With a "not" put behind the verb 2% and 15% are still taken for supported,
all without this; with another unit 6 of 40, 39 without this.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

Terms = Callable[[str], list[str]]

REACH = 3
"""Words that a negation reaches."""
_CLAUSE = re.compile(r"[.!?;:,()\n–—]+(?=\s|$)|\b(?:but|whereas|although|though|aber|sondern|mais|pero|sino|ma|maar)\b")
_WORD = re.compile(r"[$€£]|\d+(?:[.,]\d+)*|[^\W\d_]+(?:['’][^\W\d_]+)?|[%‰]|°\s?[cf]\b")
_NEGATION_WORDS = (
    "not no never none neither nor nobody nothing nowhere without cannot hardly lack lacks lacked lacking fail fails "
    "failed unable absent absence nicht kein keine keinen keinem keiner keines nie niemals niemand nichts ohne ne "
    "jamais aucun aucune sans nunca jamás ningún ninguna ninguno nadie sin non nessun nessuno nessuna senza não nem "
    "nenhum nenhuma sem niet geen nooit zonder"
)
_NEGATORS = frozenset(_NEGATION_WORDS.split())
_SMALL_WORDS = (
    "pas de des du la le les un une der die das den dem des ein eine einen im in el los las una il lo gli di da do "
    "os as het een van au aux y e o a zu mit al del que qui"
)
_SMALL = frozenset(_SMALL_WORDS.split())
"""Words that a negation steps over."""
_BEHIND = frozenset(("nicht", "niet"))
"""These stand behind the verb that they deny."""
_AFTERWARDS = re.compile(
    r"\s*(?:only|just|merely|solely|until|unless|nur|seulement|solo|solamente|alleen|(?:more|less|fewer|later|earlier|"
    r"longer)\s+than|\d)\b"
)
_UNIT_NAMES = """
m: m metre metres meter meters metern mètre mètres metro metros metri
km: km kilometre kilometres kilometer kilometers kilometern kilomètres kilómetros chilometri
cm: cm centimetre centimetres centimeter centimeters zentimeter
mm: mm millimetre millimetres millimeter millimeters
foot: foot feet ft fuß
inch: inch inches zoll
mile: mile miles meile meilen
yard: yard yards yd
kg: kg kilogram kilograms kilogramm kilo kilos
g: g gram grams gramm grammes gramos
mg: mg milligram milligrams milligramm
pound: lb lbs
ounce: ounce ounces oz
ton: ton tons tonne tonnes tonnen
ms: ms millisecond milliseconds millisekunden
second: second seconds sec secs sekunde sekunden secondes segundos secondi
minute: minute minutes min mins minuten minutos minuti
hour: hour hours hr hrs stunde stunden heures horas ore
day: day days tag tage tagen jours días giorni
week: week weeks woche wochen semaines semanas settimane
month: month months monat monate monaten mois meses mesi
year: year years jahr jahre jahren ans années años anni
decade: decade decades jahrzehnt jahrzehnte
century: century centuries jahrhundert jahrhunderte
hundred: hundred hundert
thousand: thousand tausend mille mil
million: million millions millionen millón millones
billion: billion billions milliarde milliarden milliards
trillion: trillion trillions
percent: % percent prozent
dollar: $ dollar dollars usd
euro: € euro euros eur
sterling: £ gbp
celsius: °c celsius
fahrenheit: °f fahrenheit
kilobyte: kb kilobyte kilobytes
megabyte: mb megabyte megabytes
gigabyte: gb gigabyte gigabytes
terabyte: tb terabyte terabytes
volt: volt volts
watt: watt watts
kilowatt: kw kilowatt kilowatts
megawatt: mw megawatt megawatts
"""
_UNITS = {
    name: unit for unit, _, names in (line.partition(":") for line in _UNIT_NAMES.strip().splitlines())
    for name in names.split()
}  # fmt: skip
_PREFIXES = frozenset("$€£")
_JOINING = frozenset(("to", "and", "or", "bis", "und", "oder", "à", "et", "ou", "y", "o", "degrees", "degree", "grad"))


@dataclass(frozen=True)
class _Read:
    """`terms` of a text; `denied` are the words that each of its negations reaches, the nearest first; `free` are terms
    that stand out of reach of all; `units` are those of each number, "" where it stands without."""

    terms: frozenset[str]
    denied: tuple[tuple[str, ...], ...]
    free: frozenset[str]
    units: dict[str, frozenset[str]]


def contradicts(statement: str, text: str, terms: Terms) -> bool:
    """`terms` gives a text's words as they are compared."""
    said, held = _read(statement, terms), _read(text, terms)
    return _denied(said, held) or _denied(held, said, 2) or _other_units(said, held)


def _denied(one: _Read, other: _Read, least: int = 1) -> bool:
    """Whether `one` denies what `other` affirms: the nearest word, or `least` of those that its negation reaches."""
    there = {term for scope in other.denied for term in scope}
    for scope in one.denied:
        shared = [term for term in scope if term in other.terms]
        affirmed = shared and not there.intersection(scope) and not (least > 1 and one.free.intersection(shared))
        if affirmed and (least == 1 or (shared[0] == scope[0] and len(shared) >= min(least, len(scope)))):
            return True
    return False


def _other_units(said: _Read, held: _Read) -> bool:
    for number, units in said.units.items():
        known = held.units.get(number)
        if known and "" not in known and "" not in units and not units & known:
            return True
    return False


def _read(text: str, terms: Terms) -> _Read:
    found: list[str] = []
    denied: list[tuple[str, ...]] = []
    free: set[str] = set()
    units: dict[str, set[str]] = {}
    for clause in _CLAUSE.split(text.casefold().replace("n't", " not").replace("n’t", " not")):
        if not clause:
            continue
        here, scopes = _negations(clause, terms)
        found += here
        denied += [scope for scope in scopes if scope]
        free.update(set(here).difference(*scopes))
        for number, unit in _numbers(clause, terms):
            units.setdefault(number, set()).add(unit)
    kept = {number: frozenset(some) for number, some in units.items()}
    return _Read(frozenset(found), tuple(denied), frozenset(free), kept)


def _negations(clause: str, terms: Terms) -> tuple[list[str], list[tuple[str, ...]]]:
    """The clause's terms in order, and what each of its negations reaches."""
    found: list[str] = []
    places: list[tuple[int, bool]] = []
    for word in _WORD.finditer(clause):
        if word[0] in _NEGATORS:
            if not _AFTERWARDS.match(clause, word.end()):
                places.append((len(found), word[0] in _BEHIND))
        elif word[0] not in _SMALL:
            found += terms(word[0])
    return found, [tuple(found[at : at + REACH] + (found[at - 1 : at] if behind else [])) for at, behind in places]


def _numbers(clause: str, terms: Terms) -> Iterator[tuple[str, str]]:
    """(number, unit), "" for none."""
    words = [re.sub(r"\s", "", word) for word in _WORD.findall(clause)]
    for at, word in enumerate(words):
        number = next((term for term in terms(word) if term[0].isdigit()), "")
        if number:
            before = words[at - 1] if at else ""
            yield number, _UNITS[before] if before in _PREFIXES else _unit(words[at + 1 :], terms)


def _unit(words: Sequence[str], terms: Terms) -> str:
    """The unit that follows a number, also behind "to 14"."""
    for word in words:
        if word in _UNITS:
            return _UNITS[word]
        if word not in _JOINING and not any(term[0].isdigit() for term in terms(word)):
            return ""
    return ""

"""What an entry of a pattern's list may be, each as a value with `test(value) -> bool` for one value of an event.

Values are those of decoded JSON. `Exists` is the one that also says something about a field that is not there:
`absent` tells whether a leaf is satisfied by that.
"""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": lambda value, bound: value < bound,
    "<=": lambda value, bound: value <= bound,
    "=": lambda value, bound: value == bound,
    ">": lambda value, bound: value > bound,
    ">=": lambda value, bound: value >= bound,
}
MAX_WILDCARDS = 5
TOO_COMPLEX = (
    "Rule is too complex - try using fewer wildcard characters or fewer repeating character sequences after a wildcard "
    "character"
)


class Leaf(Protocol):
    absent: bool

    def test(self, value: Any) -> bool: ...


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Exact:
    """The same value of the same JSON type: true is not 1, and 300 is 300.0."""

    value: Any
    absent: bool = False

    def test(self, value: Any) -> bool:
        wanted = self.value
        if isinstance(value, bool) or isinstance(wanted, bool):
            return value is wanted
        return value == wanted


@dataclass(frozen=True, slots=True)
class Prefix:
    """`fold`: letters of either case; `text` is then in lower case."""

    text: str
    fold: bool = False
    absent: bool = False

    def test(self, value: Any) -> bool:
        return isinstance(value, str) and (value.lower() if self.fold else value).startswith(self.text)


@dataclass(frozen=True, slots=True)
class Suffix:
    text: str
    fold: bool = False
    absent: bool = False

    def test(self, value: Any) -> bool:
        return isinstance(value, str) and (value.lower() if self.fold else value).endswith(self.text)


@dataclass(frozen=True, slots=True)
class IgnoreCase:
    """`text` in lower case."""

    text: str
    absent: bool = False

    def test(self, value: Any) -> bool:
        return isinstance(value, str) and value.lower() == self.text


@dataclass(frozen=True, slots=True)
class Wildcard:
    """`parts` are the literal texts between the stars, at least two when there is a star."""

    parts: tuple[str, ...]
    absent: bool = False

    def test(self, value: Any) -> bool:
        if not isinstance(value, str):
            return False
        first, last = self.parts[0], self.parts[-1]
        if len(self.parts) == 1:
            return value == first
        if len(value) < len(first) + len(last) or not value.startswith(first) or not value.endswith(last):
            return False
        at, end = len(first), len(value) - len(last)
        for part in self.parts[1:-1]:
            found = value.find(part, at, end)
            if found < 0:
                return False
            at = found + len(part)
        return True


@dataclass(frozen=True, slots=True)
class Numeric:
    """(operator, bound) pairs that all hold; numbers only, never the text of one."""

    bounds: tuple[tuple[str, float], ...]
    absent: bool = False

    def test(self, value: Any) -> bool:
        return is_number(value) and all(COMPARE[operator](value, bound) for operator, bound in self.bounds)


@dataclass(frozen=True, slots=True)
class Cidr:
    network: ipaddress.IPv4Network | ipaddress.IPv6Network
    absent: bool = False

    def test(self, value: Any) -> bool:
        if not isinstance(value, str):
            return False
        try:
            return ipaddress.ip_address(value) in self.network
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class Exists:
    wanted: bool
    absent: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "absent", not self.wanted)

    def test(self, value: Any) -> bool:
        return self.wanted


@dataclass(frozen=True, slots=True)
class AnythingBut:
    """A field that is there, with a value (null too) that none of `excluded` matches."""

    excluded: tuple[Leaf, ...]
    absent: bool = False

    def test(self, value: Any) -> bool:
        return not any(leaf.test(value) for leaf in self.excluded)


def wildcard(text: str) -> Wildcard:
    """The leaf of a wildcard's text: `*` any characters, `\\*` and `\\\\` themselves. Raises ValueError with AWS's
    reason; positions count from the opening quote."""
    parts, literal, index, star_before = [], [], 0, False
    while index < len(text):
        character = text[index]
        if character == "\\":
            following = text[index + 1 : index + 2]
            if following not in ("*", "\\"):
                raise ValueError(f"Invalid escape character at pos {index + 1}")
            literal.append(following)
            index, star_before = index + 2, False
            continue
        if character == "*":
            if star_before:
                raise ValueError(f"Consecutive wildcard characters at pos {index}")
            parts.append("".join(literal))
            literal = []
        else:
            literal.append(character)
        star_before = character == "*"
        index += 1
    parts.append("".join(literal))
    if len(parts) - 1 > MAX_WILDCARDS:
        raise TooComplex(TOO_COMPLEX)
    return Wildcard(tuple(parts))


class TooComplex(ValueError):
    """More wildcards than AWS's matcher takes on; its message names no place."""


def cidr(text: str) -> Cidr:
    """Raises ValueError with AWS's reason."""
    if text.count("/") != 1:
        raise ValueError("Malformed CIDR, one '/' required")
    address, _, bits = text.partition("/")
    if not re.fullmatch(r"-?\d+", bits):
        raise ValueError("Malformed CIDR, mask bits must be an integer")
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        raise ValueError(f"Nonstandard IP address: {address}") from None
    if int(bits) < 0:
        raise ValueError("Malformed CIDR, mask bits must not be negative")
    if int(bits) >= parsed.max_prefixlen + 1:
        family = "IPv4 mask bits must be < 32" if parsed.version == 4 else "IPv6 mask bits must be < 128"
        raise ValueError(f"Malformed CIDR, {family}")
    return Cidr(ipaddress.ip_network((parsed, int(bits)), strict=False))

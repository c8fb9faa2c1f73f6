"""DynamoDB numbers: 38 significant digits, magnitude 1E-130 to 9.99...E+125, exact.

A number is kept as its canonical text (no exponent, no leading or trailing zeros), so equal numbers are equal texts.
`order_key` maps it to bytes that sort as the numbers do.
"""

import re
from decimal import Decimal, InvalidOperation, localcontext

from preheat.kernel.errors import AwsError

MAX_DIGITS = 38
MAX_EXPONENT = 125
MIN_EXPONENT = -130

_PLAIN = re.compile(r"-?(?:[1-9][0-9]{0,37}|(?=[0-9.]{3,39}$)(?:0|[1-9][0-9]{0,36})\.[0-9]*[1-9])\Z|0\Z", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,9})?\Z", re.ASCII)
_COMPLEMENT = bytes.maketrans(b"0123456789", b"9876543210")


def _invalid(message: str) -> AwsError:
    return AwsError("ValidationException", message)


def canonical(text: str) -> str:
    """The number's one text. Raises ValidationException for what is not a number or does not fit."""
    if _PLAIN.match(text) is not None:
        return text
    if _NUMBER.match(text) is None:
        detail = f": {text}" if text else ""
        raise _invalid(f"The parameter cannot be converted to a numeric value{detail}")
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise _invalid(f"The parameter cannot be converted to a numeric value: {text}") from None
    return canonical_decimal(value)


def canonical_decimal(value: Decimal) -> str:
    """`canonical` of an exact Decimal."""
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        raise _invalid(f"The parameter cannot be converted to a numeric value: {value}")
    significant = "".join(map(str, digits)).lstrip("0")
    if not significant:
        return "0"
    trimmed = significant.rstrip("0")
    exponent += len(significant) - len(trimmed)
    magnitude = exponent + len(trimmed) - 1
    if magnitude > MAX_EXPONENT:
        raise _invalid(
            "Number overflow. Attempting to store a number with magnitude larger than supported range"
        )
    if magnitude < MIN_EXPONENT:
        raise _invalid(
            "Number underflow. Attempting to store a number with magnitude smaller than supported range"
        )
    if len(trimmed) > MAX_DIGITS:
        raise _invalid("Attempting to store more than 38 significant digits in a Number")
    if exponent >= 0:
        text = trimmed + "0" * exponent
    elif magnitude >= 0:
        text = f"{trimmed[: magnitude + 1]}.{trimmed[magnitude + 1 :]}"
    else:
        text = f"0.{'0' * (-magnitude - 1)}{trimmed}"
    return f"-{text}" if sign else text


def _scientific(text: str) -> tuple[bool, int, str]:
    """(negative, magnitude, digits without leading and trailing zeros) of a canonical number other than 0."""
    negative = text[0] == "-"
    body = text[1:] if negative else text
    whole, _, fraction = body.partition(".")
    if whole != "0":
        return negative, len(whole) - 1, (whole + fraction).rstrip("0")
    digits = fraction.lstrip("0")
    return negative, len(digits) - len(fraction) - 1, digits


def order_key(text: str) -> bytes:
    """Bytes whose unsigned order is the numeric order of canonical texts."""
    if text == "0":
        return b"\x80"
    negative, magnitude, digits = _scientific(text)
    if negative:
        return bytes((0x7F, MAX_EXPONENT - magnitude)) + digits.encode().translate(_COMPLEMENT) + b"\xff"
    return bytes((0x81, magnitude - MIN_EXPONENT)) + digits.encode()


def size(text: str) -> int:
    """Bytes that a canonical number counts for in an item: about half a byte per significant digit, and one."""
    if text == "0":
        return 1
    negative, _, digits = _scientific(text)
    return (len(digits) + 1) // 2 + 1 + negative


def add(left: str, right: str, sign: int = 1) -> str:
    """`left + sign * right`, exact. Raises ValidationException when the sum does not fit."""
    if len(left) < 18 and len(right) < 18 and "." not in left and "." not in right:
        return str(int(left) + sign * int(right))
    with localcontext() as context:
        context.prec = 2 * (MAX_EXPONENT - MIN_EXPONENT)
        return canonical_decimal(Decimal(left) + sign * Decimal(right))

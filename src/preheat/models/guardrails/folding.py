"""Text as detectors compare it: one spelling for what looks the same, and the texts that a text hides."""

import base64
import binascii
import codecs
import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote

_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]"
)
_TAGS = re.compile("[\U000e0000-\U000e007f]+")
_LOOKALIKES = str.maketrans(
    "аеорсухіјѕԁһӏμαοεινρτκ’‘“”–—", "aeopcyxijsdhlmaoeivptk''\"\"--"
)
_SMALL_CAPITALS = str.maketrans("ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘꞯʀꜱᴛᴜᴠᴡʏᴢ", "abcdefghijklmnopqrstuvwyz")
_LEET = str.maketrans("013457@$!|", "oieastasii")
_SPACED = re.compile(r"(?<![^\W_])(?:[^\W\d_][\s.\-_*]){3,}[^\W\d_](?![^\W_])")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}")
_HEX = re.compile(r"(?:(?:\\x|0x)?[0-9a-fA-F]{2}[\s,:]?){10,}")
_PERCENT = re.compile(r"(?:%[0-9a-fA-F]{2}){3,}|%20")
_LETTERS = re.compile(r"[^\W\d_]")
LONGEST_DECODED = 20_000
"""Characters of a text that are searched for hidden texts."""
MOST_HIDDEN = 24


def fold(text: str) -> str:
    """Lower case, compatibility forms and accents resolved, invisible characters gone, look-alike letters as Latin."""
    plain = unicodedata.normalize("NFKD", _INVISIBLE.sub("", _TAGS.sub(_told, text)))
    plain = "".join(char for char in plain if not unicodedata.combining(char))
    plain = unicodedata.normalize("NFC", plain).casefold()
    if not plain.isascii():
        plain = plain.translate(_SMALL_CAPITALS)
    if not plain.isascii() and re.search(r"[a-z]", plain):
        plain = re.sub(r"\S+", _latin, plain)
    return plain.translate(str.maketrans("’‘“”", "''\"\""))


def _told(match: re.Match[str]) -> str:
    """What tag characters say: one or two between letters say nothing, more are a text of their own."""
    said = "".join(chr(ord(one) - 0xE0000) for one in match.group() if one > "\U000e001f")
    return f"\n{said}\n" if len(said) > 2 else ""


def _latin(match: re.Match[str]) -> str:
    """A word that mixes Latin with look-alikes becomes Latin; a Russian or Greek word stays what it is."""
    word = match.group()
    return word.translate(_LOOKALIKES) if any("a" <= char <= "z" for char in word) else word


def spellings(text: str) -> list[str]:
    """The folded text, and where they differ the ones with digits read as letters and spaced letters joined."""
    found = [fold(text)]
    joined = _SPACED.sub(lambda match: re.sub(r"[\s.\-_*]", "", match.group()), found[0])
    for other in (joined, joined.translate(_LEET)):
        if other not in found:
            found.append(other)
    return found


def hidden(text: str) -> Iterator[str]:
    """Texts encoded in a text: base64, hexadecimal, percent and ROT13 encodings, and the text backwards."""
    text = text[:LONGEST_DECODED]
    found = 0
    for match in _BASE64.finditer(text):
        plain = _from_base64(match.group())
        if plain is not None:
            found += 1
            yield plain
        if found >= MOST_HIDDEN:
            break
    for match in _HEX.finditer(text):
        digits = re.sub(r"\\x|0x|[\s,:]", "", match.group())
        plain = _readable(bytes.fromhex(digits[: len(digits) // 2 * 2]))
        if plain is not None:
            yield plain
    if _PERCENT.search(text):
        yield unquote(text)
    if len(_LETTERS.findall(text)) >= 12:
        yield codecs.decode(text, "rot13")
        yield text[::-1]


def _from_base64(text: str) -> str | None:
    body = text.rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        return _readable(base64.b64decode(body + "=" * (-len(body) % 4), validate=True))
    except (binascii.Error, ValueError):
        return None


def _readable(raw: bytes) -> str | None:
    """Bytes that are mostly letters and spaces, as text."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return None
    plain = sum(char.isalpha() or char.isspace() for char in text)
    return text if len(text) >= 8 and plain >= 0.75 * len(text) and text.isprintable() else None

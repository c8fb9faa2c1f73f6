"""The intrinsic functions of the states language: `States.Format('{}', $.a)` and the others.

Limits and edge cases as AWS documents them; every failure is a States.IntrinsicFailure.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from preheat.kernel.entropy import Entropy
from preheat.services.stepfunctions.language import paths
from preheat.services.stepfunctions.language.errors import INTRINSIC, StateError
from preheat.services.stepfunctions.language.paths import PathError, Scope

MAX_TEXT = 10_000
MAX_RANGE = 1_000
HASHES = {"MD5": "md5", "SHA-1": "sha1", "SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512"}
_FUNCTION = re.compile(r"States\.(\w+)\s*\(")
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")
_WORD = re.compile(r"true|false|null")


class Call(NamedTuple):
    name: str
    arguments: tuple[Any, ...]


class Text(NamedTuple):
    value: Any


class At(NamedTuple):
    path: str


def _bad(text: str) -> PathError:
    return PathError(f"The value '{text}' is no intrinsic function")


@lru_cache(maxsize=2_048)
def parse(text: str) -> Call:
    """Raises PathError for what is no call of a known function."""
    call, end = _call(text, 0, text)
    if text[end:].strip():
        raise _bad(text)
    return call


def _call(text: str, start: int, whole: str) -> tuple[Call, int]:
    found = _FUNCTION.match(text, start)
    if found is None or found[1] not in FUNCTIONS:
        raise _bad(whole)
    arguments: list[Any] = []
    position = _skip(text, found.end())
    while position < len(text) and text[position] != ")":
        if arguments:
            if text[position] != ",":
                raise _bad(whole)
            position = _skip(text, position + 1)
        argument, position = _argument(text, position, whole)
        arguments.append(argument)
        position = _skip(text, position)
    if position >= len(text):
        raise _bad(whole)
    return Call(found[1], tuple(arguments)), position + 1


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position


def _argument(text: str, position: int, whole: str) -> tuple[Any, int]:
    if text.startswith("'", position):
        return _quoted(text, position + 1, whole)
    if text.startswith("$", position):
        end = _path_end(text, position)
        path = text[position:end].strip()
        paths.parse(path)
        return At(path), end
    if text.startswith("States.", position):
        return _call(text, position, whole)
    for pattern in (_NUMBER, _WORD):
        found = pattern.match(text, position)
        if found is not None:
            return Text(json.loads(found[0])), found.end()
    raise _bad(whole)


def _quoted(text: str, position: int, whole: str) -> tuple[Text, int]:
    """Backslashes stay before braces: Format reads them."""
    value = ""
    while position < len(text):
        character = text[position]
        if character == "\\" and position + 1 < len(text):
            following = text[position + 1]
            value += following if following in "'" else character + following
            position += 2
        elif character == "'":
            return Text(value), position + 1
        else:
            value += character
            position += 1
    raise _bad(whole)


def _path_end(text: str, position: int) -> int:
    depth, quote = 0, ""
    while position < len(text):
        character = text[position]
        if quote:
            quote = "" if character == quote else quote
        elif depth and character in "'\"":
            quote = character
        elif character in "[(":
            depth += 1
        elif character == ")" and depth == 0:
            break
        elif character in "])":
            depth -= 1
        elif character == "," and depth == 0:
            break
        position += 1
    return position


def evaluate(text: str, scope: Scope, entropy: Entropy) -> Any:
    """Raises PathError where a path leads nowhere, StateError for arguments that the function does not take."""
    try:
        return _value(parse(text), scope, entropy)
    except (TypeError, ValueError, IndexError, OverflowError) as error:
        if isinstance(error, PathError):
            raise
        raise StateError(INTRINSIC, f"The function '{text}' had the following error: {error}") from None


def _value(node: Any, scope: Scope, entropy: Entropy) -> Any:
    if isinstance(node, Text):
        return node.value
    if isinstance(node, At):
        return paths.read(node.path, scope)
    arguments = [_value(one, scope, entropy) for one in node.arguments]
    function = FUNCTIONS[node.name]
    if function in (_uuid, _math_random):
        return function(entropy, *arguments)
    return function(*[_plain(one) for one in arguments]) if node.name != "Format" else _format(*arguments)


def _plain(value: Any) -> Any:
    return re.sub(r"\\([{}\\])", r"\1", value) if isinstance(value, str) else value


def shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{json.dumps(value)} is no string")
    return value


def _from_json(text: str) -> Any:
    value = json.loads(text)
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{json.dumps(value)} is no array")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{json.dumps(value)} is no number")
    return round(value)


def _format(template: Any, *values: Any) -> str:
    left = list(values)

    def put(found: re.Match[str]) -> str:
        if found[0] != "{}":
            return found[1]
        if not left:
            raise ValueError("there are fewer arguments than {}")
        return shown(left.pop(0))

    text = re.sub(r"\{\}|\\([{}\\'])", put, _text(template))
    if left:
        raise ValueError("there are more arguments than {}")
    return text


def _partition(items: Any, size: Any) -> list[list[Any]]:
    size = _whole(size)
    if size < 1:
        raise ValueError("the chunk size must be positive")
    return [items[start : start + size] for start in range(0, len(_list(items)), size)]


def _range(first: Any, last: Any, step: Any) -> list[int]:
    first, last, step = _whole(first), _whole(last), _whole(step)
    values = range(first, last + (1 if step > 0 else -1), step)
    if len(values) > MAX_RANGE:
        raise ValueError(f"an array has at most {MAX_RANGE} elements")
    return list(values)


def _item(items: Any, index: Any) -> Any:
    position = _whole(index)
    if position < 0:
        raise IndexError("the index must not be negative")
    return _list(items)[position]


def _same(left: Any, right: Any) -> bool:
    return left == right and isinstance(left, bool) == isinstance(right, bool)


def _unique(items: Any) -> list[Any]:
    kept: list[Any] = []
    for item in _list(items):
        if not any(_same(item, one) for one in kept):
            kept.append(item)
    return kept


def _short(value: Any) -> str:
    if len(_text(value)) > MAX_TEXT:
        raise ValueError(f"a string has at most {MAX_TEXT} characters")
    return value


def _decode(value: Any) -> str:
    try:
        return base64.b64decode(_short(value), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise ValueError("the string is no Base64 of text") from None


def _hash(value: Any, algorithm: Any) -> str:
    if algorithm not in HASHES:
        raise ValueError(f"the algorithm is one of {', '.join(HASHES)}")
    return hashlib.new(HASHES[algorithm], _short(shown(value)).encode(), usedforsecurity=False).hexdigest()


def _merge(left: Any, right: Any, deep: Any) -> dict[str, Any]:
    if deep is not False:
        raise ValueError("only the shallow merge is supported; the third argument must be false")
    if not isinstance(left, dict) or not isinstance(right, dict):
        raise TypeError("both values must be objects")
    return {**left, **right}


def _uuid(entropy: Entropy) -> str:
    return entropy.uuid()


def _math_random(entropy: Entropy, start: Any, end: Any, seed: Any = None) -> int:
    first, last = _whole(start), _whole(end)
    if last <= first:
        raise ValueError("the start must be less than the end")
    if seed is None:
        return first + int(entropy.uniform() * (last - first))
    digest = hashlib.sha256(f"{_whole(seed)}:{first}:{last}".encode()).digest()
    return first + int.from_bytes(digest[:8], "big") % (last - first)


def _add(left: Any, right: Any) -> int:
    return _whole(left) + _whole(right)


def _pieces(text: Any, separators: Any) -> list[str]:
    return [one for one in re.split("[" + re.escape(_text(separators)) + "]", _text(text)) if one]


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Format": _format,
    "StringToJson": lambda text: _from_json(_text(text)),
    "JsonToString": lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False),
    "Array": lambda *values: list(values),
    "ArrayPartition": _partition,
    "ArrayContains": lambda items, value: any(_same(one, value) for one in _list(items)),
    "ArrayRange": _range,
    "ArrayGetItem": _item,
    "ArrayLength": lambda items: len(_list(items)),
    "ArrayUnique": _unique,
    "Base64Encode": lambda text: base64.b64encode(_short(text).encode()).decode(),
    "Base64Decode": _decode,
    "Hash": _hash,
    "JsonMerge": _merge,
    "MathRandom": _math_random,
    "MathAdd": _add,
    "StringSplit": _pieces,
    "UUID": _uuid,
}

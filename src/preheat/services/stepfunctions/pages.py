"""Pages of lists: where the next one begins stands in its token."""

import base64
import binascii
import json
from typing import Any

from preheat.kernel.errors import AwsError
from preheat.services.constraints import check_number
from preheat.services.contract import Params

MAX_PAGE = 1_000
DEFAULT_PAGE = 100


def size(params: Params) -> int:
    """Zero asks for the default."""
    check_number(params, "maxResults", 0, MAX_PAGE)
    return params.get("maxResults") or DEFAULT_PAGE


def write(position: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode()


def read(params: Params, first: Any) -> Any:
    """The position in `nextToken`, `first` without one. Raises InvalidToken."""
    text = params.get("nextToken")
    if not text:
        return first
    try:
        position = json.loads(base64.urlsafe_b64decode(text.encode()))
    except (binascii.Error, ValueError):
        position = None
    if type(position) is not type(first):
        raise AwsError("InvalidToken", "Invalid Token: 'Invalid token'")
    return position

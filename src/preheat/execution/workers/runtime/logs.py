"""What a handler logs: `logging` set up as AWS's Python runtime does, on standard output."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from typing import Any

TEXT = "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s"
STAMP = "%Y-%m-%dT%H:%M:%S"
STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"aws_request_id", "message", "asctime", "taskName"}
SOFT_BREAK = "\x1e\r"
"""Between the lines of one log event; at the end of one, that no line break ends it."""
LEVELS = {"TRACE": logging.DEBUG, "FATAL": logging.CRITICAL}


class RequestFilter(logging.Filter):
    """Puts the running request's id into every record."""

    def __init__(self) -> None:
        super().__init__()
        self.request_id = ""

    def filter(self, record: logging.LogRecord) -> bool:
        record.aws_request_id = self.request_id
        return True


class LineHandler(logging.Handler):
    """One log event per record, whatever line breaks it has; written at once."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stdout.write(SOFT_BREAK.join(self.format(record).splitlines()) + "\n")
            sys.stdout.flush()
        except Exception:
            self.handleError(record)


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, Any] = {
            "timestamp": time.strftime(STAMP, time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "message": record.getMessage(),
            "logger": record.name,
            "requestId": getattr(record, "aws_request_id", ""),
        }
        if record.exc_info and record.exc_info[0] is not None:
            document["errorType"] = record.exc_info[0].__name__
            document["errorMessage"] = str(record.exc_info[1])
            document["stackTrace"] = self.formatException(record.exc_info).splitlines()
        for key, value in vars(record).items():
            if key not in STANDARD:
                document[key] = value
        return json.dumps(document, default=str, ensure_ascii=False)


def set_up() -> RequestFilter:
    """Install the handler on the root logger; AWS_LAMBDA_LOG_FORMAT and AWS_LAMBDA_LOG_LEVEL apply."""
    handler = LineHandler()
    if os.environ.get("AWS_LAMBDA_LOG_FORMAT", "").lower() == "json":
        handler.setFormatter(JsonFormatter())
        level = os.environ.get("AWS_LAMBDA_LOG_LEVEL", "INFO")
    else:
        formatter = logging.Formatter(TEXT, STAMP)
        formatter.converter = time.gmtime
        handler.setFormatter(formatter)
        level = os.environ.get("AWS_LAMBDA_LOG_LEVEL", "")
    request_filter = RequestFilter()
    handler.addFilter(request_filter)
    root = logging.getLogger()
    root.addHandler(handler)
    if level:
        root.setLevel(LEVELS.get(level.upper(), level.upper()))
    return request_filter

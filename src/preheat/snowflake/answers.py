"""Outcomes as the JSON documents that Snowflake's drivers read."""

from typing import Any

from preheat.snowflake.errors import SnowflakeError
from preheat.snowflake.results import Outcome

IN_PROGRESS = "333333"
IN_PROGRESS_ASYNC = "333334"
POLL_S = 45.0
"""How long a query's answer may be on its way before the driver is told to ask again."""


def ok(data: Any, code: str | None = None) -> dict[str, Any]:
    return {"data": data, "code": code, "message": None, "success": True}


def failed(error: SnowflakeError, data: Any = None) -> dict[str, Any]:
    return {"data": data, "code": error.text_code, "message": error.message, "success": False, "headers": None}


def of(outcome: Outcome, chunk_url: Any, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    """A finished statement. `chunk_url(outcome, number)` is where a driver fetches a chunk."""
    if outcome.error is not None:
        kind = "COMPILATION" if outcome.error.message.startswith("SQL compilation") else "EXECUTION"
        return failed(
            outcome.error,
            {"internalError": False, "errorCode": outcome.error.text_code, "age": 0, "sqlState": outcome.error.state,
             "queryId": outcome.query, "line": -1, "pos": -1, "type": kind, **outcome.final},
        )  # fmt: skip
    data: dict[str, Any] = {
        "parameters": parameters, "rowtype": [column.described() for column in outcome.columns],
        "rowset": outcome.rows, "total": outcome.total, "returned": outcome.total, "queryId": outcome.query,
        "sqlState": "00000", "databaseProvider": None, "numberOfBinds": outcome.binds,
        "arrayBindSupported": outcome.binds > 0 and 0x3000 <= outcome.type_id < 0x4000,
        "statementTypeId": outcome.type_id, "version": 1, "queryResultFormat": "json", "queryContext": None,
        **outcome.final,
    }  # fmt: skip
    if outcome.stats:
        data["stats"] = {**outcome.stats, "numDmlDuplicates": 0}
    if outcome.chunks:
        data["chunkHeaders"] = {}
        data["chunks"] = [
            {"url": chunk_url(outcome, at), "rowCount": chunk.rows, "uncompressedSize": chunk.size,
             "compressedSize": chunk.size}
            for at, chunk in enumerate(outcome.chunks)
        ]  # fmt: skip
    if outcome.children:
        data["resultIds"] = ",".join(child.query for child in outcome.children)
        data["resultTypes"] = ",".join(str(child.type_id) for child in outcome.children)
    return ok(data)


def going_on(query: str, *, asynchronous: bool) -> dict[str, Any]:
    data = {"queryId": query, "getResultUrl": f"/queries/{query}/result", "queryAbortsAfterSecs": 300,
            "progressDesc": None}  # fmt: skip
    return ok(data, IN_PROGRESS_ASYNC if asynchronous else IN_PROGRESS)

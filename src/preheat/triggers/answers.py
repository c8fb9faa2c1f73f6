"""What a function's answer to a batch says about its items."""

import json
from typing import Any

from preheat.execution.contract import Outcome
from preheat.triggers.contract import Batch


def failed_items(batch: Batch, outcome: Outcome | None) -> set[str]:
    """The ids of the items that the function did not do. With ReportBatchItemFailures a successful answer may name
    some; an answer that cannot be read, or names an item that is not there, fails them all."""
    everything = {item.id for item in batch.items}
    if outcome is None or outcome.error is not None:
        return everything
    if not batch.mapping.config.report_item_failures or not outcome.payload:
        return set()
    try:
        answer = json.loads(outcome.payload)
    except ValueError:
        return everything
    if answer is None or answer == "":
        return set()
    failures = answer.get("batchItemFailures") if isinstance(answer, dict) else False
    if failures is None:
        return set()
    if not isinstance(failures, list):
        return everything
    named = {_identifier(entry) for entry in failures}
    return named if named <= everything else everything


def _identifier(entry: Any) -> str | None:
    """What an entry of batchItemFailures names; None for one that names nothing."""
    name = entry.get("itemIdentifier") if isinstance(entry, dict) else None
    return name if isinstance(name, str) else None

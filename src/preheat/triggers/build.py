"""Builds the loops of the triggers; `app.py` adds them to the machine."""

from preheat.services.awslambda.service import LambdaService
from preheat.services.contract import Loop, Platform
from preheat.triggers import async_invoke, delivery
from preheat.triggers.contract import OnNotice
from preheat.triggers.outbox import Handler, Outbox
from preheat.triggers.poller import Poller
from preheat.triggers.sources import SOURCES


def build_triggers(
    platform: Platform, functions: LambdaService, on_notice: OnNotice, handlers: dict[str, Handler] | None = None
) -> list[Loop]:
    """The outbox and the poller. `handlers` are further kinds of stored events and who handles them."""
    table: dict[str, Handler] = {
        async_invoke.KIND: async_invoke.AsyncInvoke(platform, functions, on_notice),
        delivery.KIND: delivery.Deliver(on_notice),
        **(handlers or {}),
    }
    return [Outbox(platform, table, on_notice), Poller(platform, functions, SOURCES, on_notice)]

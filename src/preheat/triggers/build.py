"""Builds the loops of the triggers; `app.py` adds them to the machine."""

from preheat.services import deliveries
from preheat.services.awslambda.service import LambdaService
from preheat.services.contract import Loop, Platform
from preheat.services.stepfunctions import tasks
from preheat.triggers import async_invoke, states_tasks
from preheat.triggers.contract import OnNotice, Source
from preheat.triggers.delivery import Deliver
from preheat.triggers.outbox import Handler, Outbox
from preheat.triggers.poller import Poller
from preheat.triggers.sources import SOURCES


def build_triggers(
    platform: Platform,
    functions: LambdaService,
    on_notice: OnNotice,
    handlers: dict[str, Handler] | None = None,
    sources: dict[str, Source] | None = None,
) -> list[Loop]:
    """The outbox and the poller. `handlers` are further kinds of stored events and who handles them, `sources` further
    kinds of event sources."""
    deliver = Deliver(platform.background, on_notice)
    table: dict[str, Handler] = {
        async_invoke.KIND: async_invoke.AsyncInvoke(platform, functions, on_notice),
        deliveries.KIND: deliver,
        deliveries.WEB_KIND: deliver,
        tasks.KIND: states_tasks.StatesTasks(platform.background),
        **(handlers or {}),
    }
    return [Outbox(platform, table, on_notice), Poller(platform, functions, {**SOURCES, **(sources or {})}, on_notice)]

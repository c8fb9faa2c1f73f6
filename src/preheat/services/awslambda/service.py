"""The Lambda API."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from preheat.execution.contract import Executor, FunctionSpec, StreamStart, Throttled, Usage
from preheat.execution.contract import Outcome as RunOutcome
from preheat.services import findings
from preheat.services.awslambda import (
    advice,
    code_signing,
    concurrency,
    event_invoke,
    functions,
    invoke,
    layer_policies,
    layers,
    mappings,
    permissions,
    provisioned,
    recursion,
    repository,
    runtime_management,
    snapshots,
    urls,
    versions,
)
from preheat.services.awslambda.code import CodeStore, remove
from preheat.services.awslambda.core import Core, Target, load, operation
from preheat.services.awslambda.core import Operation as CoreOperation
from preheat.services.awslambda.domain import DEFAULT_ACCOUNT_CONCURRENCY, Mapping, parse_name
from preheat.services.awslambda.urls import FunctionUrl
from preheat.services.contract import Context, Operation, Platform

OPERATIONS: dict[str, CoreOperation] = {
    **functions.OPERATIONS,
    **versions.OPERATIONS,
    **invoke.OPERATIONS,
    **concurrency.OPERATIONS,
    **layers.OPERATIONS,
    **permissions.OPERATIONS,
    **urls.OPERATIONS,
    **mappings.OPERATIONS,
    **event_invoke.OPERATIONS,
    **recursion.OPERATIONS,
    **provisioned.OPERATIONS,
    **layer_policies.OPERATIONS,
    **runtime_management.OPERATIONS,
    **code_signing.OPERATIONS,
}

_SCHEMA = (Path(__file__).parent / "schema.sql").read_text()


class LambdaService:
    """Besides the operations: how the gateway and the pollers resolve and invoke functions."""

    name = "lambda"
    schema = _SCHEMA

    def __init__(self, core: Core) -> None:
        self.core = core
        self.loops = (provisioned.ProvisionedLoop(core), advice.AdviceLoop())
        self.operations: dict[str, Operation] = {name: operation(core, name, run) for name, run in OPERATIONS.items()}
        self.shortcuts = {"Invoke": partial(invoke.shortcut, core)}

    def remark(self, runtime: str) -> str | None:
        """What is different about running this runtime on this machine; None when nothing is."""
        return self.core.executor.remark(runtime)

    def resolve(self, ctx: Context, identifier: str, qualifier: str | None = None) -> FunctionSpec:
        """What an invocation of this name or ARN runs now. Raises AwsError ResourceNotFoundException."""
        return self.core.target(ctx, identifier, qualifier).spec

    def target(self, ctx: Context, identifier: str, qualifier: str | None = None) -> Target:
        """`resolve`, with the ARN under which the function is invoked."""
        return self.core.target(ctx, identifier, qualifier)

    def start_invocation(
        self,
        spec: FunctionSpec,
        payload: bytes,
        *,
        done: Callable[[RunOutcome], None],
        request_id: str,
        invoked_arn: str = "",
        on_stream: Callable[[StreamStart], None] | None = None,
        tail: bool = False,
        client_context: str | None = None,
        trace_id: str | None = None,
        asynchronous: bool = False,
    ) -> Throttled | None:
        """Run one event, outside any transaction (`db.after_commit`, `Deferred.start`). None: admitted, `done` is
        called once, later. Throttled: nothing was started."""
        return invoke.start_invocation(
            self.core, spec, payload, done=done, request_id=request_id, invoked_arn=invoked_arn, on_stream=on_stream,
            tail=tail, client_context=client_context, trace_id=trace_id, asynchronous=asynchronous,
        )  # fmt: skip

    def continue_trace(
        self, ctx: Context, spec: FunctionSpec, traces: Iterable[str | None], request_id: str
    ) -> str | None:
        """The `trace_id` for an invocation caused by requests with these trace headers, None when none has one. Raises
        AwsError RecursiveInvocationException when the function came round too often."""
        return recursion.check(ctx, spec, traces, request_id)

    def find_url(self, ctx: Context, url_id: str) -> FunctionUrl | None:
        return urls.find_url(ctx.db, url_id)

    def policy(self, ctx: Context, identifier: str, qualifier: str | None = None) -> dict[str, Any] | None:
        """The resource policy of a function, version or alias, or None."""
        return permissions.policy_of(ctx, parse_name(identifier, ctx.scope, qualifier))

    def layer_policy(self, ctx: Context, arn: str) -> dict[str, Any] | None:
        """The policy of a layer version, or None."""
        return layer_policies.document(ctx, arn)

    def event_invoke_config(self, ctx: Context, identifier: str) -> dict[str, Any]:
        """The asynchronous invocation settings that hold for a name or ARN; empty when none were put."""
        found = repository.event_invoke(ctx.db, parse_name(identifier, ctx.scope))
        return found[0] if found else {}

    def reserved(self, ctx: Context, identifier: str) -> int | None:
        """The function's reserved concurrency."""
        return repository.reserved(ctx.db, parse_name(identifier, ctx.scope))

    def set_provisioned(self, ctx: Context, identifier: str, qualifier: str, count: int) -> dict[str, Any]:
        """Set the provisioned concurrency of a version or an alias (at least 1), inside the caller's transaction; the
        members that PutProvisionedConcurrencyConfig answers with. Raises AwsError in AWS's words."""
        return provisioned.put_provisioned_concurrency_config(
            self.core, ctx,
            {"FunctionName": identifier, "Qualifier": qualifier, "ProvisionedConcurrentExecutions": count},
        ).output  # fmt: skip

    def machine_usage(self) -> Usage:
        """What the environments use of this machine, and its ceiling."""
        return self.core.executor.usage()

    def dead_letter(self, ctx: Context, identifier: str) -> str:
        """The ARN of the dead letter queue of a function, version or alias, or ""."""
        return load(ctx, parse_name(identifier, ctx.scope)).settings.dead_letter

    def advise(self, ctx: Context, mapping: Mapping) -> None:
        """Bring the findings about a mapping's settings up to date."""
        advice.advise(ctx, mapping)

    def mappings(self, ctx: Context) -> list[Mapping]:
        """Every event source mapping of every region."""
        return repository.mappings(ctx.db)


def build(platform: Platform, executor: Executor) -> LambdaService:
    """Re-applies the reserved concurrency that is on record, and removes code that nothing refers to."""
    settings = platform.settings
    state = getattr(settings, "state", None)
    core = Core(
        executor=executor,
        code=CodeStore(None if state is None else Path(state) / "lambda-code"),
        account_concurrency=getattr(settings, "account_concurrency", DEFAULT_ACCOUNT_CONCURRENCY),
        endpoint=getattr(settings, "endpoint", "http://127.0.0.1:4566"),
        specs={},
        clock=platform.clock,
    )
    platform.db.on_undo.append(core.targets.clear)
    platform.db.apply_schema(LambdaService.name, _SCHEMA)
    findings.install(platform.db)
    for arn, limit in repository.all_reserved(platform.db):
        executor.set_reserved(arn, limit)
    snapshots.resume(core, platform.machine)
    aside = core.code.sweep(repository.referenced_packages(platform.db))
    if aside:
        platform.background.run(lambda: remove(aside), lambda value: None)
    service = LambdaService(core)
    core.provisioned_changed = lambda: platform.machine.wake(service.loops[0])
    return service

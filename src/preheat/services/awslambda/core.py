"""What the operations of Lambda share: the executor, the code on disk, and how a request's name becomes a function."""

import base64
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from preheat.execution.contract import Executor, FunctionSpec
from preheat.kernel.clock import Clock
from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn, Scope
from preheat.services.awslambda import names, repository
from preheat.services.awslambda.code import CodeStore
from preheat.services.awslambda.configuration import runtime_variables
from preheat.services.awslambda.domain import (
    LATEST,
    FunctionName,
    Version,
    check_range,
    invalid,
    not_found,
    parse_name,
)
from preheat.services.contract import Context, Deferred, Outcome, Params, Wait

MAX_CACHED_SPECS = 4_096
READS = ("Get", "List", "Invoke")
"""How the names of operations begin that change no function."""


class Target(NamedTuple):
    """A function about to be invoked: `invoked_arn` is qualified only when the caller qualified it."""

    spec: FunctionSpec
    invoked_arn: str


@dataclass(slots=True)
class Core:
    """`account_concurrency` is the account's limit per region; `endpoint` the base URL clients use;
    `mapping_changes` grows with every committed change of an event source mapping."""

    executor: Executor
    code: CodeStore
    account_concurrency: int
    endpoint: str
    specs: dict[str, FunctionSpec]
    clock: Clock
    mapping_changes: int = 0
    mapping_results: dict[str, str] = field(default_factory=dict)
    """LastProcessingResult of mappings that have one, by UUID."""
    unready: dict[str, str] = field(default_factory=dict)
    """The state (Pending, Failed) of published versions that are not Active, by revision."""
    provisioned_changed: Callable[[], None] = lambda: None
    """The executor's news of provisioned concurrency."""
    targets: dict[tuple[Scope, str, str | None], Target] = field(default_factory=dict)
    """What names stand for, until an operation that is not a mere read has run or writes were taken back."""

    def target(self, ctx: Context, identifier: str, qualifier: str | None = None) -> Target:
        """What an invocation of `identifier` runs now; an alias with weights is drawn anew. Raises AwsError 404."""
        key = (ctx.scope, identifier, qualifier)
        known = self.targets.get(key)
        if known is not None:
            return known
        function = parse_name(identifier, ctx.scope, qualifier)
        named = replace(function, qualifier=function.qualifier or LATEST)
        version, drawn = choose_version(ctx, named)
        target = Target(self.spec_of(ctx, named, version), function.qualified_arn)
        if not drawn:
            if len(self.targets) >= MAX_CACHED_SPECS:
                self.targets.clear()
            self.targets[key] = target
        return target

    def spec_of(self, ctx: Context, function: FunctionName, version: str) -> FunctionSpec:
        """Raises AwsError 404."""
        revision = repository.revision_of(ctx.db, function, version)
        if revision is None:
            raise function.missing()
        spec = self.specs.get(revision)
        if spec is None:
            found = repository.version_of(ctx.db, function, version)
            assert found is not None
            spec = self._spec(ctx, found)
            if len(self.specs) >= MAX_CACHED_SPECS:
                self.specs.clear()
            self.specs[revision] = spec
        return spec

    def _spec(self, ctx: Context, version: Version) -> FunctionSpec:
        settings = version.settings
        return FunctionSpec(
            arn=version.arn,
            name=version.name,
            version=version.version,
            revision=version.revision,
            runtime=settings.runtime,
            handler=settings.handler,
            code=Path(version.package.path),
            layers=tuple(layer_path(ctx, arn) for arn in settings.layers),
            memory_mb=settings.memory_mb,
            timeout_s=float(settings.timeout_s),
            ephemeral_mb=settings.ephemeral_mb,
            environment=tuple(sorted(runtime_variables(settings).items())),
            region=version.scope.region,
            account=version.scope.account,
            role=settings.role,
            log_group=settings.log_group or f"/aws/lambda/{version.name}",
            snap_start=settings.snap_start == "PublishedVersions" and version.version != LATEST,
            watch=version.package.in_place,
            tracing=settings.tracing == "Active",
            system_log=settings.system_log_level,
        )


Operation = Callable[[Core, Context, Params], Outcome]


def operation(core: Core, name: str, run: Operation) -> Callable[[Context, Params], Outcome]:
    """`run` as the machine calls it. Whatever may have changed a function forgets `core.targets`, at each of its
    steps: those that follow in the same transaction see the change."""
    run = names.checked(name, run)
    if name.startswith(READS):
        return partial(run, core)

    def step(run: Callable[..., Outcome], *arguments: Any) -> Outcome:
        try:
            outcome = run(*arguments)
        finally:
            core.targets.clear()
        if isinstance(outcome, Deferred):
            outcome.then = partial(step, outcome.then)
        elif isinstance(outcome, Wait):
            outcome.again = partial(step, outcome.again)
        return outcome

    return partial(step, run, core)


def choose_version(ctx: Context, function: FunctionName) -> tuple[str, bool]:
    """(the version behind a qualifier, whether it was drawn by an alias's weights). Raises AwsError 404 when there is
    no such alias."""
    qualifier = function.qualifier or LATEST
    if qualifier == LATEST or qualifier.isdigit():
        return qualifier, False
    alias = repository.alias_of(ctx.db, function, qualifier)
    if alias is None:
        raise function.missing()
    if alias.weights:
        return alias.choose(ctx.entropy.uniform()), True
    return alias.version, False


def existing(ctx: Context, params: Params, *, unqualified: bool = False, otherwise: str = "") -> FunctionName:
    """The function (and version or alias) that a request names. Raises AwsError 404 when there is none, with the text
    `otherwise` where an operation has its own; with `unqualified` a qualifier in the name is dropped."""
    function = parse_name(params["FunctionName"], ctx.scope, params.get("Qualifier"))
    if unqualified and function.qualifier:
        function = FunctionName(function.scope, function.name)
    try:
        if function.qualifier:
            load(ctx, function)
        elif not repository.exists(ctx.db, function):
            raise function.missing()
    except AwsError:
        if otherwise:
            raise not_found(otherwise) from None
        raise
    return function


def load(ctx: Context, function: FunctionName) -> Version:
    """The version that a name stands for (of an alias its main version). Raises AwsError 404."""
    version = function.qualifier or LATEST
    if version != LATEST and not version.isdigit():
        alias = repository.alias_of(ctx.db, function, version)
        if alias is None:
            raise function.missing()
        version = alias.version
    found = repository.version_of(ctx.db, function, version)
    if found is None:
        raise function.missing()
    return found


def layer_path(ctx: Context, arn: str) -> Path:
    row = layer_row(ctx, arn)
    return Path(repository.layer_package(row).path)


def layer_row(ctx: Context, arn: str, *, deleted: bool = True) -> Any:
    """The layer version behind an ARN; raises AwsError in the words of CreateFunction."""
    parsed = Arn.parse(arn)
    _, name, number = parsed.resource.split(":")
    row = repository.layer_of(ctx.db, parsed.scope, name, int(number), deleted=deleted)
    if row is None:
        raise invalid(f"Layer version {arn} does not exist.")
    return row


def layer_sizes(ctx: Context, version: Version) -> dict[str, int]:
    return {arn: repository.layer_package(layer_row(ctx, arn)).size for arn in version.settings.layers}


def page(params: Params, maximum: int = 50) -> tuple[str, int]:
    """(last key of the page before or "", number of items) of a list request."""
    limit = min(check_range(params.get("MaxItems", maximum), "maxItems", 1, 10_000), maximum)
    marker = params.get("Marker")
    if not marker:
        return "", limit
    try:
        return base64.b64decode(marker, altchars=b"-_", validate=True).decode(), limit
    except ValueError:
        raise invalid("Invalid Marker") from None


def marker(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode()


def resource_missing() -> AwsError:
    return not_found("The resource you requested does not exist.")

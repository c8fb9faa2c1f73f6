"""Lambda's values and pure rules: names, versions, settings, packages; no SQL, no files."""

import base64
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Scope

LATEST = "$LATEST"
NO_TYPE = {"Type": None}
"""The fields of an error that AWS answers without a Type."""
MAX_SYNC_BYTES = 6 * 1024 * 1024
MAX_ASYNC_BYTES = 1024 * 1024
MAX_ENVIRONMENT_BYTES = 4096
MAX_LAYERS = 5
MIN_UNRESERVED = 100
DEFAULT_ACCOUNT_CONCURRENCY = 1000
MAX_MAPPING_CONCURRENCY = 1_250
BATCHES_PER_POLLER = 10

_NAME = (
    r"(?:arn:aws[a-zA-Z-]*:lambda:)?(?:(?P<region>[a-z]{2}(?:-gov|-iso[a-z]?)?-[a-z]+-\d):)?(?:(?P<account>\d{12}):)?"
    r"(?:function:)?(?P<name>[a-zA-Z0-9-_.]+)(?::(?P<qualifier>\$LATEST(?:\.PUBLISHED)?|[a-zA-Z0-9-_]+))?"
)
_IDENTIFIER = re.compile(_NAME)
_AWS_NAME_PATTERN = (
    r"(arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?(\d{12}:)?"
    r"(function:)?([a-zA-Z0-9-_\.]+)(:(\$LATEST(\.PUBLISHED)?|[a-zA-Z0-9-_]+))?"
)


def invalid(message: str) -> AwsError:
    return AwsError("InvalidParameterValueException", message, 400, fields={"Type": "User"})


def refused_limit(message: str) -> AwsError:
    """InvalidParameterValueException as AWS answers it where it leaves Type out."""
    return AwsError("InvalidParameterValueException", message, fields=NO_TYPE)


def not_found(message: str) -> AwsError:
    return AwsError("ResourceNotFoundException", message, 404, fields={"Type": "User"})


def conflict(message: str) -> AwsError:
    return AwsError("ResourceConflictException", message, 409, fields={"Type": "User"})


def violation(value: object, member: str, constraint: str) -> AwsError:
    """A value outside its model's bounds, in AWS's words."""
    return AwsError(
        "ValidationException",
        f"1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: {constraint}",
    )


def check_range(value: int, member: str, low: int, high: int) -> int:
    """`value` when low <= value <= high, else AWS's ValidationException."""
    if value < low:
        raise violation(value, member, f"Member must have value greater than or equal to {low}")
    if value > high:
        raise violation(value, member, f"Member must have value less than or equal to {high}")
    return value


def check_revision(given: str | None, current: str) -> None:
    if given and given != current:
        raise AwsError(
            "PreconditionFailedException",
            "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to "
            "retrieve the latest Revision Id",
            412,
            fields={"Type": "User"},
        )


@dataclass(frozen=True, slots=True)
class FunctionName:
    """A function as a request names it. `qualifier` is a version, an alias, or None when none was given."""

    scope: Scope
    name: str
    qualifier: str | None = None

    @property
    def arn(self) -> str:
        """The unqualified ARN."""
        return self.scope.arn("lambda", f"function:{self.name}")

    @property
    def qualified_arn(self) -> str:
        return f"{self.arn}:{self.qualifier}" if self.qualifier else self.arn

    def missing(self) -> AwsError:
        return not_found(f"Function not found: {self.qualified_arn}")


def is_alias(qualifier: str) -> bool:
    """Whether a qualifier may be an alias's name."""
    return not qualifier.isdigit() and re.fullmatch(r"[a-zA-Z0-9-_]+", qualifier) is not None


def parse_name(text: str, scope: Scope, qualifier: str | None = None) -> FunctionName:
    """`text` is a name, `name:qualifier`, a partial or a full ARN. Raises AwsError in AWS's words. What a request gave
    has been held against its operation's model before (`names`)."""
    match = _IDENTIFIER.fullmatch(text)
    if match is None:
        raise violation(text, "functionName", f"Member must satisfy regular expression pattern: {_AWS_NAME_PATTERN}")
    region, account, name, inner = match.group("region", "account", "name", "qualifier")
    if region and region != scope.region:
        raise not_found(f"Functions from '{region}' are not reachable in this region ('{scope.region}')")
    if inner and qualifier and inner != qualifier:
        raise invalid("The derived qualifier from the function name does not match the specified qualifier.")
    return FunctionName(Scope(account or scope.account, scope.region), name, qualifier or inner)


@dataclass(frozen=True, slots=True)
class Package:
    """Code or a layer on disk. `sha256` is hex of the archive, `size` its bytes, `path` the unpacked directory,
    `archive` the stored zip ("" for a directory used in place), `unzipped` the bytes of its files (0 in place)."""

    sha256: str
    size: int
    path: str
    archive: str = ""
    in_place: bool = False
    unzipped: int = 0

    @property
    def code_sha256(self) -> str:
        return base64.b64encode(bytes.fromhex(self.sha256)).decode()


@dataclass(frozen=True, slots=True)
class Settings:
    """A function version's configuration; sizes in MB, timeout in seconds."""

    role: str
    runtime: str
    handler: str
    description: str = ""
    timeout_s: int = 3
    memory_mb: int = 128
    ephemeral_mb: int = 512
    environment: dict[str, str] | None = None
    layers: tuple[str, ...] = ()
    architecture: str = "x86_64"
    dead_letter: str = ""
    tracing: str = "PassThrough"
    kms_key: str = ""
    snap_start: str = "None"
    log_format: str = "Text"
    log_group: str = ""
    application_log_level: str = ""
    system_log_level: str = ""
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    dual_stack: bool = False
    networked: bool = False
    """Whether a VpcConfig was ever given; it is shown from then on, empty or not."""


@dataclass(frozen=True, slots=True)
class Version:
    """One row of lambda_versions. `version` is "$LATEST" or a number; `revision` changes with its code and settings,
    `policy_revision` is that of the last change of its resource policy or tags, or of the publication of a version of
    it, since; or ""."""

    scope: Scope
    name: str
    version: str
    settings: Settings
    package: Package
    revision: str
    modified: float
    state: str = "Active"
    state_reason: str = ""
    state_code: str = ""
    policy_revision: str = ""

    @property
    def revision_id(self) -> str:
        """What the API calls RevisionId."""
        return self.policy_revision or self.revision

    @property
    def arn(self) -> str:
        return self.scope.arn("lambda", f"function:{self.name}")


@dataclass(frozen=True, slots=True)
class Alias:
    """`weights` is empty or one pair of additional version and weight (0 to 1)."""

    name: str
    version: str
    description: str
    weights: dict[str, float]
    revision: str

    def choose(self, draw: float) -> str:
        """The version for one invocation; `draw` is uniform in [0, 1)."""
        for version, weight in self.weights.items():
            if draw < weight:
                return version
        return self.version


@dataclass(frozen=True, slots=True)
class ProvisionedConfig:
    """One row of lambda_provisioned. `previous` is the version that an alias on its way to another one still sends its
    traffic to, or ""; `token` changes whenever the environments are asked for again."""

    qualifier: str
    count: int
    token: str
    modified: float
    previous: str = ""


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """What only mappings of shards have. `starting_position` is TRIM_HORIZON, LATEST or AT_TIMESTAMP (then
    `starting_at`, epoch seconds); -1 means no limit to `max_age_s` and `max_retries`; `on_failure` is an ARN."""

    starting_position: str = "TRIM_HORIZON"
    starting_at: float = 0.0
    parallelization: int = 1
    max_age_s: int = -1
    max_retries: int = -1
    bisect: bool = False
    on_failure: str = ""


@dataclass(frozen=True, slots=True)
class MappingConfig:
    """An event source mapping's settings; window in seconds, `patterns` the filters' JSON texts (any may match)."""

    batch_size: int = 10
    window_s: int = 0
    patterns: tuple[str, ...] = ()
    maximum_concurrency: int | None = None
    report_item_failures: bool = False
    metrics: tuple[str, ...] = ()
    pollers: tuple[int, int] | None = None
    """Provisioned pollers: (minimum, maximum)."""
    stream: StreamConfig | None = None

    @property
    def ceiling(self) -> int:
        """The most batches that may ever run at once."""
        if self.pollers is not None:
            return self.pollers[1] * BATCHES_PER_POLLER
        return self.maximum_concurrency or MAX_MAPPING_CONCURRENCY


@dataclass(frozen=True, slots=True)
class Mapping:
    uuid: str
    scope: Scope
    source_arn: str
    function_arn: str
    enabled: bool
    config: MappingConfig
    modified: float
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def arn(self) -> str:
        return self.scope.arn("lambda", f"event-source-mapping:{self.uuid}")


def timestamp(moment: float) -> str:
    """Lambda's own text form: 2024-01-31T09:30:00.000+0000."""
    at = datetime.fromtimestamp(moment, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}+0000"


def as_datetime(moment: float) -> datetime:
    return datetime.fromtimestamp(moment, UTC)

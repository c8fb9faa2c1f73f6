"""What a resource type is: its properties and what they do here, and how it is made, changed and deleted.

The work of a resource is a script: a generator that yields commands and is sent what they gave. The engine writes every
answer down before it goes on, and after a crash runs the script again from those notes, so a script must yield the same
commands when it is given the same answers: it takes everything it needs from its `Resource`.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Scope

Fidelity = Literal["acts", "approximates", "ignored"]


@dataclass(frozen=True, slots=True)
class Call:
    """One AWS operation. Of its output only the members named in `keep` are written down and sent back."""

    service: str
    operation: str
    params: dict[str, Any]
    keep: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Made:
    """The resource exists from here on, under this physical id; a rollback has to delete it."""

    physical_id: str


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Wait for the response of a custom resource's provider; gives its document, None when the time is up."""

    timeout_s: float


Command = Call | Made | Pause | Answer
Script = Generator[Command, Any, dict[str, Any]]
"""Returns the resource's attributes for Fn::GetAtt."""


class Failed(Exception):
    """Raised by a script: the reason as the stack event shows it."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource as its script sees it. `name` is the physical name to use where the template gives none; `old` are the
    properties that stand (update), `attributes` what the last script returned. `token` is unique to this script run."""

    logical_id: str
    type: str
    stack_id: str
    stack_name: str
    scope: Scope
    name: str
    properties: dict[str, Any]
    token: str = ""
    physical_id: str = ""
    old: dict[str, Any] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    endpoint: str = ""

    def get(self, name: str, default: Any = None) -> Any:
        return self.properties.get(name, default)

    def pick(self, *names: str) -> dict[str, Any]:
        """Those of the properties that are given, under their own names."""
        return {name: self.properties[name] for name in names if name in self.properties}

    def changed(self, *names: str) -> bool:
        """Whether one of these properties differs from what stands (everything given differs at creation)."""
        return any(self.properties.get(name) != self.old.get(name) for name in names)


@dataclass(frozen=True, slots=True)
class Property:
    fidelity: Fidelity = "acts"
    why: str = ""
    replaces: bool = False
    required: bool = False


def properties(
    acts: str,
    replaces: str = "",
    required: str = "",
    approximates: Mapping[str, str] | None = None,
    ignored: Mapping[str, str] | None = None,
) -> dict[str, Property]:
    """A type's table from lists of names. `replaces`: a change makes a new resource; `required`: must be given."""
    replacing, needed = set(replaces.split()), set(required.split())
    rows: dict[str, tuple[Fidelity, str]] = dict.fromkeys(acts.split(), ("acts", ""))
    rows.update({name: ("approximates", why) for name, why in (approximates or {}).items()})
    rows.update({name: ("ignored", why) for name, why in (ignored or {}).items()})
    stray = (replacing | needed) - set(rows)
    if stray:
        raise ValueError(f"not in the table: {sorted(stray)}")
    return {name: Property(kind, why, name in replacing, name in needed) for name, (kind, why) in rows.items()}


@dataclass(frozen=True, slots=True)
class ResourceType:
    """`name_property` names the property that carries a user's own name; `name_limit`, `lower_name` shape the generated
    one, `name_head` stands in it instead of the stack's name. `ref` gives what Ref stands for, by default the physical
    id. `attributes` are those of Fn::GetAtt beside the properties, None: any. `tags`: how the type takes tags, for
    those of the stack."""

    type: str
    properties: dict[str, Property]
    create: Callable[[Resource], Script]
    delete: Callable[[Resource], Script]
    update: Callable[[Resource], Script] | None = None
    attributes: tuple[str, ...] | None = ()
    name_property: str | None = None
    name_limit: int = 64
    lower_name: bool = False
    name_head: str = ""
    ref: Callable[[str, dict[str, Any]], str] | None = None
    tags: Literal["list", "map"] | None = None
    open: bool = False
    """Takes any property (custom resources)."""


def nothing(resource: Resource) -> Script:
    """A script with nothing to do."""
    return dict(resource.attributes)
    yield


def poll(
    call: Call,
    done: Callable[[Any], bool],
    failed: Callable[[Any], str | None],
    every_s: float = 1.0,
    tries: int = 1800,
) -> Generator[Command, Any, Any]:
    """Ask until `done(output)`; `failed(output)` gives a reason to give up. Returns the last output."""
    for _ in range(tries):
        output = yield call
        reason = failed(output)
        if reason is not None:
            raise Failed(reason)
        if done(output):
            return output
        yield Pause(every_s)
    raise Failed(f"Resource did not stabilize ({call.service} {call.operation})")


def unused(read: Call, kind: str, name: str) -> Generator[Command, Any, None]:
    """Fail when `read` finds something under a name that is about to be given (creating there would not)."""
    try:
        yield read
    except AwsError as error:
        if not is_not_found(error):
            raise
    else:
        raise Failed(f"Resource of type '{kind}' with identifier '{name}' already exists.")


def tag_map(tags: Any) -> dict[str, str]:
    """CloudFormation's tag list as a map."""
    if isinstance(tags, dict):
        return dict(tags)
    return {item["Key"]: item["Value"] for item in tags or ()}


def is_not_found(error: AwsError) -> bool:
    """Whether an error says that the thing is not there (to delete it is then done)."""
    return error.status == 404 or any(
        mark in error.code for mark in ("NotFound", "NoSuch", "NonExistent", "DoesNotExist")
    )


def is_conflict(error: AwsError) -> bool:
    """Whether an error says that the thing is there already."""
    return any(
        mark in error.code for mark in ("AlreadyExist", "AlreadyOwned", "ResourceConflict", "ResourceInUse")
    ) or (error.code in ("QueueNameExists", "ConflictException", "ResourceExistsException", "EntityAlreadyExists"))

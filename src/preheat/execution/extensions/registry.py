"""The extensions of one environment between two resets, without sockets and processes: a state for each, as in AWS's
Runtime Interface Emulator, and every transition that is not known is refused.

External extensions are expected by name before the runtime starts; internal ones register while it initialises.
Initialisation ends when the runtime and every extension have asked for their next event, an invocation when the
runtime and those that got it have.
"""

import json
from collections.abc import Callable
from typing import Any, Protocol

MAX_EXTENSIONS = 10
EVENTS = ("INVOKE", "SHUTDOWN")
NOT_ALLOWED = "State transition is not allowed"


class Reply(Protocol):
    """The connection that a request came on."""

    def park(self) -> None:
        """The answer comes later."""

    def answer(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None: ...


class Refused(Exception):
    """Answered with 403 and these two."""

    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(message)
        self.error_type = error_type


class Extension:
    """`state`: "Started", "Registered", "Ready" (waits for an event), "Running", "InitError", "ExitError",
    "LaunchError", "Exited". `error_type` is what it said, or why it could not be started."""

    __slots__ = ("error_type", "events", "external", "identifier", "name", "reply", "state")

    def __init__(self, name: str, identifier: str, external: bool) -> None:
        self.name = name
        self.identifier = identifier
        self.external = external
        self.state = "Started"
        self.events: tuple[str, ...] = ()
        self.error_type = ""
        self.reply: Reply | None = None

    def move(self, allowed: tuple[str, ...], to: str, known_as: str) -> None:
        """Raises Refused."""
        if self.state not in allowed:
            raise Refused(
                "Extension.InvalidExtensionState",
                f"State transition from {self.state} to {to} failed for extension {known_as}. Error: {NOT_ALLOWED}",
            )
        self.state = to

    def describe(self) -> str:
        """The line that Lambda writes at the end of initialisation."""
        text = f"EXTENSION\tName: {self.name}\tState: {self.state}\tEvents: [{','.join(self.events)}]"
        return f"{text}\tError Type: {self.error_type}" if self.error_type else text

    def record(self) -> dict[str, Any]:
        """The same as a platform.extension event."""
        found = {"name": self.name, "state": self.state, "events": list(self.events)}
        return {**found, "errorType": self.error_type} if self.error_type else found


class Watcher(Protocol):
    """What the registry tells whoever runs the environment's processes."""

    def registered(self) -> None:
        """All external extensions have registered: the runtime may start."""

    def settled(self) -> None:
        """Runtime and extensions have all asked for their next event, an extension last."""

    def failed(self, extension: Extension) -> None:
        """It reported that it cannot go on."""


class Registry:
    """`names` are the external extensions; `identifier` makes a UUID."""

    def __init__(self, names: tuple[str, ...], identifier: Callable[[], str]) -> None:
        self._identifier = identifier
        self.watcher: Watcher | None = None
        self.members: list[Extension] = [Extension(name, identifier(), True) for name in names]
        self.open = True
        self._runtime_waits = False
        self._shutdown: dict[str, Any] | None = None

    # -- what the runtime and the environment do ----------------------------------------------------------------------

    @property
    def registered(self) -> bool:
        return all(member.state != "Started" for member in self.members)

    @property
    def ready(self) -> bool:
        return self._runtime_waits and (not self.members or self._all_ready())

    def _all_ready(self) -> bool:
        return all(member.state == "Ready" for member in self.members)

    def runtime_asks(self) -> bool:
        """The runtime asks for its next event, which closes registration. True: everybody is ready."""
        self.open = False
        self._runtime_waits = True
        return self.ready

    def invoke(self, event: dict[str, Any]) -> None:
        """`event` without its type goes to those who asked for invocations."""
        self._runtime_waits = False
        for member in self.members:
            if "INVOKE" in member.events and member.reply is not None:
                self._send(member, {"eventType": "INVOKE", **event})

    def shut_down(self, reason: str, deadline_ms: int) -> None:
        """Tell those who asked for it, now or when they next ask."""
        self._shutdown = {"eventType": "SHUTDOWN", "shutdownReason": reason, "deadlineMs": deadline_ms}
        for member in self.members:
            if "SHUTDOWN" in member.events and member.reply is not None:
                self._send(member, self._shutdown)

    def find(self, name: str) -> Extension | None:
        return next((member for member in self.members if member.name == name), None)

    # -- what extensions ask --------------------------------------------------------------------------------------

    def register(self, name: str, body: bytes) -> Extension:
        """Raises Refused."""
        if not name:
            raise Refused("Extension.InvalidExtensionName", "Empty extension name")
        events = _events(body)
        member = self.find(name)
        external = member is not None and member.external
        for event in events:
            if event not in EVENTS:
                raise Refused("Extension.InvalidEventType", f"{event}: ErrorInvalidEventType")
            if event == "SHUTDOWN" and not external:
                message = f"{event}: ShutdownEventNotSupportedForInternalExtension"
                raise Refused("Extension.InvalidEventType", message)
        if not external:
            member = self._admit(name, member)
        member.move(("Started",), "Registered", name)
        member.events = events
        if external and self.registered and self.watcher is not None:
            self.watcher.registered()
        return member

    def _admit(self, name: str, known: Extension | None) -> Extension:
        """A new internal extension."""
        if not self.open:
            raise Refused("Extension.RegistrationClosed", "Extension registration closed already")
        if len(self.members) >= MAX_EXTENSIONS:
            raise Refused("Extension.TooManyExtensions", f"Extension limit ({MAX_EXTENSIONS}) reached")
        if known is not None:
            raise Refused("Extension.InvalidExtensionState", "Extension with this name already registered")
        member = Extension(name, self._identifier(), False)
        self.members.append(member)
        return member

    def identify(self, identifier: str) -> Extension:
        """Raises Refused."""
        if not identifier:
            raise Refused("Extension.MissingExtensionIdentifier", "Missing Lambda-Extension-Identifier header")
        if not _is_uuid(identifier):
            raise Refused("Extension.InvalidExtensionIdentifier", "Invalid Lambda-Extension-Identifier")
        for member in self.members:
            if member.identifier == identifier.lower() and member.state != "Started":
                return member
        raise Refused("Extension.UnknownExtensionIdentifier", f"Unknown extension {identifier}")

    def next(self, member: Extension, reply: Reply) -> None:
        """Raises Refused."""
        member.move(("Registered", "Running"), "Ready", member.identifier)
        member.reply = reply
        reply.park()
        if self._shutdown is not None:
            if "SHUTDOWN" in member.events:
                self._send(member, self._shutdown)
        elif self.ready and self.watcher is not None:
            self.watcher.settled()

    def fail(self, member: Extension, state: str, error_type: str) -> None:
        """`state` is "InitError" or "ExitError". Said twice, the first counts. Raises Refused."""
        if not error_type:
            header = "Lambda-Extension-Function-Error-Type"
            raise Refused("Extension.MissingHeader", f"{header} not found")
        if member.state == state:
            return
        allowed = ("Registered",) if state == "InitError" else ("Registered", "Ready", "Running")
        member.move(allowed, state, member.identifier)
        member.error_type = error_type
        member.reply = None
        if self.watcher is not None and self._shutdown is None:
            self.watcher.failed(member)

    def _send(self, member: Extension, event: dict[str, Any]) -> None:
        reply, member.reply = member.reply, None
        member.state = "Running"
        if reply is not None:
            reply.answer(200, event, {"Lambda-Extension-Event-Identifier": self._identifier()})


def _events(body: bytes) -> tuple[str, ...]:
    """Of a register request. Raises Refused."""
    try:
        document = json.loads(body)
    except ValueError as error:
        raise Refused("InvalidRequestFormat", str(error)) from error
    events = document.get("events") or [] if isinstance(document, dict) else None
    if not isinstance(events, list) or not all(isinstance(event, str) for event in events):
        raise Refused("InvalidRequestFormat", "the body must be an object whose events are a list of strings")
    if document.get("configurationKeys"):
        message = "configurationKeys are deprecated; use environment variables instead"
        raise Refused("InvalidRequestFormat", message)
    return tuple(dict.fromkeys(events))


def _is_uuid(text: str) -> bool:
    parts = text.split("-")
    if [len(part) for part in parts] != [8, 4, 4, 4, 12]:
        return False
    return all(character in "0123456789abcdefABCDEF" for part in parts for character in part)

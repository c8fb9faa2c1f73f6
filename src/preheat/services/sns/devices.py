"""Platform applications and their endpoints (apps on devices) as values, their rules, and their rows.

The texts are AWS's where they are known (recorded, or quoted by clients); credentials are looked at and not kept.
"""

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn, Scope
from preheat.services.sns.domain import invalid, topic_arn
from preheat.store.database import Database

PLATFORMS = (
    "ADM", "APNS", "APNS_SANDBOX", "APNS_VOIP", "APNS_VOIP_SANDBOX", "BAIDU", "GCM", "MACOS", "MACOS_SANDBOX", "MPNS",
    "WNS",
)  # fmt: skip
APPLE = ("APNS", "MACOS")
NAME = re.compile(r"[A-Za-z0-9._-]+\Z")
APPLE_TOKEN = re.compile(r"[0-9a-fA-F]{1,400}\Z")
MAX_NAME = 256
MAX_TOKEN = 8_192
MAX_USER_DATA = 2_048
CREDENTIAL, PRINCIPAL = "PlatformCredential", "PlatformPrincipal"
APPLICATION_ATTRIBUTES = frozenset({
    CREDENTIAL, PRINCIPAL, "ApplePlatformBundleID", "ApplePlatformTeamID", "Enabled", "EventDeliveryFailure",
    "EventEndpointCreated", "EventEndpointDeleted", "EventEndpointUpdated", "FailureFeedbackRoleArn",
    "SuccessFeedbackRoleArn", "SuccessFeedbackSampleRate",
})  # fmt: skip
DEVICE_ATTRIBUTES = ("CustomUserData", "Enabled", "Token")


@dataclass(frozen=True, slots=True)
class Application:
    id: int
    scope: Scope
    platform: str
    name: str
    attributes: dict[str, str]

    @property
    def arn(self) -> str:
        return self.scope.arn("sns", f"app/{self.platform}/{self.name}")

    @property
    def enabled(self) -> bool:
        return self.attributes["Enabled"] == "true"


@dataclass(frozen=True, slots=True)
class Device:
    """A platform endpoint. `attributes` has Enabled, and CustomUserData where there is some."""

    id: int
    application: Application
    uid: str
    token: str
    attributes: dict[str, str]

    @property
    def arn(self) -> str:
        application = self.application
        return application.scope.arn("sns", f"endpoint/{application.platform}/{application.name}/{self.uid}")

    @property
    def enabled(self) -> bool:
        return self.attributes["Enabled"] == "true"

    @property
    def shown(self) -> dict[str, str]:
        return {**self.attributes, "Token": self.token}


# -- rules ------------------------------------------------------------------------------------------------------------


def read_arn(text: str, member: str, kind: str, slashes: int) -> tuple[Arn, list[str]]:
    """An ARN of the given kind ("app", "endpoint") and what stands between its slashes. Raises InvalidParameter."""
    arn = topic_arn(text, member)
    parts = arn.resource.split("/")
    if len(parts) != slashes + 1:
        raise invalid(f"{member} Reason: Wrong number of slashes in relative portion of the ARN.")
    if parts[0] != kind:
        raise invalid(member)
    return arn, parts[1:]


def check_application(name: str, platform: str) -> None:
    """Raises InvalidParameter."""
    if not name:
        raise invalid(f"{name} Reason: cannot be empty")
    if len(name) > MAX_NAME:
        raise invalid(f"{name} Reason: must be at most {MAX_NAME} characters long")
    if not NAME.match(name):
        raise invalid(f"{name} Reason: must contain only characters 'a'-'z', 'A'-'Z', '0'-'9', '_', '-', and '.'")
    if platform not in PLATFORMS:
        raise invalid(f"Platform Reason: {platform} is not supported")


def application_settings(platform: str, given: dict[str, str], *, new: bool) -> dict[str, str]:
    """What is kept of an application's attributes; of its credentials only their kind. Raises InvalidParameter."""
    for name in given:
        if name not in APPLICATION_ATTRIBUTES:
            raise invalid(f"Attributes Reason: Invalid attribute name: {name}")
    if new and platform != "GCM" and (CREDENTIAL in given) != (PRINCIPAL in given):
        have, lack = (CREDENTIAL, PRINCIPAL) if CREDENTIAL in given else (PRINCIPAL, CREDENTIAL)
        raise invalid(f"Attributes Reason: {have} attribute provided without {lack}")
    kept = {name: value for name, value in given.items() if name not in (CREDENTIAL, PRINCIPAL)}
    if "Enabled" in kept:
        kept["Enabled"] = _flag(kept["Enabled"])
    if CREDENTIAL in given and platform == "GCM":
        kept["AuthenticationMethod"] = "Token" if given[CREDENTIAL].lstrip()[:1] in ("{", '"') else "Key"
    elif CREDENTIAL in given and platform.startswith(APPLE):
        kept["AuthenticationMethod"] = "Token" if "ApplePlatformTeamID" in given else "Certificate"
    return kept


def device_settings(given: dict[str, str]) -> dict[str, str]:
    """A device's attributes, made canonical. Raises InvalidParameter."""
    for name, value in given.items():
        if name not in DEVICE_ATTRIBUTES:
            raise invalid(f"Attributes Reason: Invalid attribute name: {name}")
        if name == "CustomUserData" and len(value.encode()) > MAX_USER_DATA:
            raise invalid(
                "Attributes Reason: Invalid value for attribute: CustomUserData: must be at most "
                f"{MAX_USER_DATA} bytes long in UTF-8 encoding"
            )
    return {name: _flag(value) if name == "Enabled" else value for name, value in given.items()}


def _flag(value: str) -> str:
    if value.lower() not in ("true", "false"):
        raise invalid(f"Attributes Reason: Invalid value for attribute: Enabled: {value} is not true or false")
    return value.lower()


def check_token(platform: str, token: str) -> str:
    """A device's token as it is kept: Apple's in lower case. Raises InvalidParameter."""
    if not token:
        raise invalid("Token Reason: cannot be empty")
    if platform.startswith(APPLE):
        if not APPLE_TOKEN.match(token):
            raise invalid("Token Reason: iOS device tokens must be no more than 400 hexadecimal characters")
        return token.lower()
    if len(token.encode()) > MAX_TOKEN:
        raise invalid(f"Token Reason: must be at most {MAX_TOKEN} bytes long in UTF-8 encoding")
    return token


def check_reachable(device: Device) -> None:
    """Raises EndpointDisabled, PlatformApplicationDisabled."""
    if not device.application.enabled:
        raise AwsError("PlatformApplicationDisabled", "Platform application is disabled")
    if not device.enabled:
        raise AwsError("EndpointDisabled", "Endpoint is disabled")


# -- rows -------------------------------------------------------------------------------------------------------------


class DeviceRows:
    def __init__(self, db: Database) -> None:
        self.db = db

    def application(self, scope: Scope, platform: str, name: str) -> Application | None:
        row = self.db.one(
            "SELECT * FROM sns_applications WHERE account = ? AND region = ? AND platform = ? AND name = ?",
            scope.account, scope.region, platform, name,
        )  # fmt: skip
        return None if row is None else _application(row)

    def applications(self, scope: Scope, after: int, limit: int) -> list[Application]:
        rows = self.db.all(
            "SELECT * FROM sns_applications WHERE account = ? AND region = ? AND id > ? ORDER BY id LIMIT ?",
            scope.account, scope.region, after, limit,
        )  # fmt: skip
        return [_application(row) for row in rows]

    def create_application(self, scope: Scope, platform: str, name: str, attributes: dict[str, str]) -> None:
        self.db.insert(
            "INSERT INTO sns_applications (account, region, platform, name, attributes) VALUES (?, ?, ?, ?, ?)",
            scope.account, scope.region, platform, name, _json(attributes),
        )  # fmt: skip

    def set_application(self, application: Application, attributes: dict[str, str]) -> None:
        self.db.run("UPDATE sns_applications SET attributes = ? WHERE id = ?", _json(attributes), application.id)

    def delete_application(self, application: Application) -> None:
        """With its devices."""
        self.db.run("DELETE FROM sns_devices WHERE application_id = ?", application.id)
        self.db.run("DELETE FROM sns_applications WHERE id = ?", application.id)

    def _device(self, application: Application, condition: str, value: Any) -> Device | None:
        row = self.db.one(
            f"SELECT * FROM sns_devices WHERE application_id = ? AND {condition} = ?", application.id, value
        )
        return None if row is None else _device(application, row)

    def device(self, application: Application, uid: str) -> Device | None:
        return self._device(application, "uid", uid)

    def with_token(self, application: Application, token: str) -> Device | None:
        return self._device(application, "token", token)

    def devices(self, application: Application, after: int, limit: int) -> list[Device]:
        rows = self.db.all(
            "SELECT * FROM sns_devices WHERE application_id = ? AND id > ? ORDER BY id LIMIT ?",
            application.id, after, limit,
        )  # fmt: skip
        return [_device(application, row) for row in rows]

    def create_device(self, application: Application, uid: str, token: str, attributes: dict[str, str]) -> None:
        self.db.insert(
            "INSERT INTO sns_devices (application_id, uid, token, attributes) VALUES (?, ?, ?, ?)",
            application.id, uid, token, _json(attributes),
        )  # fmt: skip

    def set_device(self, device: Device, token: str, attributes: dict[str, str]) -> None:
        self.db.run(
            "UPDATE sns_devices SET token = ?, attributes = ? WHERE id = ?", token, _json(attributes), device.id
        )

    def delete_device(self, device: Device) -> None:
        self.db.run("DELETE FROM sns_devices WHERE id = ?", device.id)

    def by_arn(self, text: str, member: str = "EndpointArn", region: str | None = None) -> Device | None:
        """The device of an endpoint's ARN. Raises InvalidParameter, also for an ARN that is not of `region`."""
        arn, (platform, name, uid) = read_arn(text, member, "endpoint", 3)
        if region is not None and arn.region != region:
            raise invalid(member)
        application = self.application(arn.scope, platform, name)
        return None if application is None else self.device(application, uid)


def _application(row: Any) -> Application:
    scope = Scope(row["account"], row["region"])
    return Application(row["id"], scope, row["platform"], row["name"], msgspec.json.decode(row["attributes"]))


def _device(application: Application, row: Any) -> Device:
    return Device(row["id"], application, row["uid"], row["token"], msgspec.json.decode(row["attributes"]))


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()

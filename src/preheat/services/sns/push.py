"""SNS's operations on platform applications and endpoints. What is pushed to a device stays in the outbox."""

from collections.abc import Sequence

from preheat.kernel.errors import AwsError
from preheat.services.contract import Context, Outcome, Params
from preheat.services.sns.devices import (
    Application,
    Device,
    DeviceRows,
    application_settings,
    check_application,
    check_token,
    device_settings,
    read_arn,
)
from preheat.services.sns.domain import PAGE, invalid, not_found, page_token, read_number


class PushOperations:
    def __init__(self, rows: DeviceRows) -> None:
        self._rows = rows

    # -- applications ---------------------------------------------------------------------------------------------

    def _application(self, ctx: Context, params: Params) -> Application | None:
        member = "PlatformApplicationArn"
        arn, (platform, name) = read_arn(params[member], member, "app", 2)
        if arn.region != ctx.scope.region:
            raise invalid(member)
        return self._rows.application(arn.scope, platform, name)

    def _known(self, ctx: Context, params: Params) -> Application:
        found = self._application(ctx, params)
        if found is None:
            raise not_found("PlatformApplication")
        return found

    def create_platform_application(self, ctx: Context, params: Params) -> Outcome:
        name, platform = params["Name"], params["Platform"]
        check_application(name, platform)
        settings = {"Enabled": "true", **application_settings(platform, params["Attributes"], new=True)}
        known = self._rows.application(ctx.scope, platform, name)
        if known is None:
            self._rows.create_application(ctx.scope, platform, name, settings)
        elif known.attributes != settings:
            raise invalid("Attributes Reason: Platform application already exists with different attributes")
        return {"PlatformApplicationArn": ctx.scope.arn("sns", f"app/{platform}/{name}")}

    def get_platform_application_attributes(self, ctx: Context, params: Params) -> Outcome:
        return {"Attributes": self._known(ctx, params).attributes}

    def set_platform_application_attributes(self, ctx: Context, params: Params) -> Outcome:
        found = self._known(ctx, params)
        given = application_settings(found.platform, params["Attributes"], new=False)
        self._rows.set_application(found, {**found.attributes, **given})
        return {}

    def delete_platform_application(self, ctx: Context, params: Params) -> Outcome:
        found = self._application(ctx, params)
        if found is not None:
            self._rows.delete_application(found)
        return {}

    def list_platform_applications(self, ctx: Context, params: Params) -> Outcome:
        found = self._rows.applications(ctx.scope, read_number(params), PAGE + 1)
        shown = [{"PlatformApplicationArn": one.arn, "Attributes": one.attributes} for one in found[:PAGE]]
        return _page("PlatformApplications", shown, found)

    # -- endpoints ------------------------------------------------------------------------------------------------

    def _device(self, ctx: Context, params: Params) -> Device | None:
        return self._rows.by_arn(params["EndpointArn"], region=ctx.scope.region)

    def _known_device(self, ctx: Context, params: Params) -> Device:
        found = self._device(ctx, params)
        if found is None:
            raise not_found("Endpoint")
        return found

    def create_platform_endpoint(self, ctx: Context, params: Params) -> Outcome:
        """A device that is known by its token is answered with its ARN when nothing about it differs."""
        application = self._known(ctx, params)
        given = dict(params.get("Attributes") or {})
        if params.get("CustomUserData"):
            given.setdefault("CustomUserData", params["CustomUserData"])
        attributes = {"Enabled": "true", **device_settings(given)}
        token = check_token(application.platform, attributes.pop("Token", params["Token"]))
        known = self._rows.with_token(application, token)
        if known is None:
            self._rows.create_device(application, ctx.entropy.uuid(), token, attributes)
            known = self._rows.with_token(application, token)
            assert known is not None
        elif known.attributes != attributes:
            raise _taken(known)
        return {"EndpointArn": known.arn}

    def get_endpoint_attributes(self, ctx: Context, params: Params) -> Outcome:
        return {"Attributes": self._known_device(ctx, params).shown}

    def set_endpoint_attributes(self, ctx: Context, params: Params) -> Outcome:
        found = self._known_device(ctx, params)
        attributes = {**found.attributes, **device_settings(params["Attributes"])}
        token = check_token(found.application.platform, attributes.pop("Token", found.token))
        other = self._rows.with_token(found.application, token)
        if other is not None and other.id != found.id:
            raise _taken(other)
        self._rows.set_device(found, token, attributes)
        return {}

    def delete_endpoint(self, ctx: Context, params: Params) -> Outcome:
        found = self._device(ctx, params)
        if found is not None:
            self._rows.delete_device(found)
        return {}

    def list_endpoints_by_platform_application(self, ctx: Context, params: Params) -> Outcome:
        found = self._rows.devices(self._known(ctx, params), read_number(params), PAGE + 1)
        return _page("Endpoints", [{"EndpointArn": one.arn, "Attributes": one.shown} for one in found[:PAGE]], found)


def _taken(device: Device) -> AwsError:
    return invalid(
        f"Token Reason: Endpoint {device.arn} already exists with the same Token, but different attributes."
    )


def _page(member: str, shown: list[Params], found: Sequence[Application | Device]) -> Params:
    output: Params = {member: shown}
    if len(found) > PAGE:
        output["NextToken"] = page_token(str(found[PAGE - 1].id))
    return output

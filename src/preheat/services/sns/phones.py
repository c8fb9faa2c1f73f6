"""SNS's settings for text messages. Nobody opts out of a text message that stays in the outbox."""

import re

from preheat.kernel.errors import AwsError
from preheat.services.contract import Context, Outcome, Params
from preheat.services.sns.domain import PHONE, invalid
from preheat.services.sns.repository import SnsRepository

SENDER_ID = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9]{1,11}\Z")
UNSUPPORTED = (
    "DeliveryStatusIAMRole", "DeliveryStatusSuccessSamplingRate", "MonthlySpendLimit", "UsageReportS3Bucket",
)  # fmt: skip
TYPES = ("Promotional", "Transactional")


class PhoneOperations:
    def __init__(self, rows: SnsRepository) -> None:
        self._rows = rows

    def get_sms_attributes(self, ctx: Context, params: Params) -> Outcome:
        settings = self._rows.sms_settings(ctx.scope)
        wanted = params.get("attributes") or list(settings)
        return {"attributes": {name: settings[name] for name in wanted if name in settings}}

    def set_sms_attributes(self, ctx: Context, params: Params) -> Outcome:
        settings = params["attributes"]
        for name, value in settings.items():
            if name == "DefaultSenderID":
                good = SENDER_ID.match(value) is not None
            elif name == "DefaultSMSType":
                good = value in TYPES
            elif name in UNSUPPORTED:
                raise invalid(f"{name} is not supported by Preheat: no text message leaves this machine")
            else:
                raise AwsError("InvalidParameter", f"{name} is not a valid attribute")
            if not good:
                raise invalid(f"{name}: Invalid value [{value}]")
        self._rows.set_sms_settings(ctx.scope, settings)
        return {}

    def check_if_phone_number_is_opted_out(self, ctx: Context, params: Params) -> Outcome:
        _check_number(params["phoneNumber"])
        return {"isOptedOut": False}

    def list_phone_numbers_opted_out(self, ctx: Context, params: Params) -> Outcome:
        if params.get("nextToken"):
            raise invalid("nextToken")
        return {"phoneNumbers": []}

    def opt_in_phone_number(self, ctx: Context, params: Params) -> Outcome:
        _check_number(params["phoneNumber"])
        return {}


def _check_number(number: str) -> None:
    if not PHONE.match(number):
        raise invalid(f"PhoneNumber Reason: {number} is not valid")

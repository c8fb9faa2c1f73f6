"""What SNS shows to people and endpoints without credentials: the links to confirm and to unsubscribe, and the
certificate that notifications are signed with.

    GET /?Action=ConfirmSubscription&TopicArn=...&Token=...
    GET /?Action=Unsubscribe&SubscriptionArn=...
    GET /_preheat/sns/SimpleNotificationService.pem
"""

import re
from typing import Any

from preheat.gateway.connection import Exchange
from preheat.gateway.invoking import answer, plain, run_step
from preheat.kernel.entropy import Entropy
from preheat.kernel.errors import AwsError
from preheat.kernel.http import HttpRequest, HttpResponse
from preheat.kernel.scope import Scope
from preheat.services.contract import Context, Outcome, Principal, Reply
from preheat.services.machine import Machine
from preheat.services.sns.signing import CERTIFICATE_PATH
from preheat.wire import Wire

LINK = re.compile(r"(?:.*&)?Action=(?:ConfirmSubscription|Unsubscribe)(?:&|\Z)")
SIGNED = re.compile(r"(?:.*&)?X-Amz-Signature=")
VERSION = "Version=2010-03-31"
ANONYMOUS = Principal("anonymous", "", "anonymous")


class TopicDoor:
    """`sns` is the SNS service."""

    def __init__(self, wire: Wire, machine: Machine, sns: Any, entropy: Entropy) -> None:
        self._wire = wire
        self._machine = machine
        self._sns = sns
        self._entropy = entropy

    def matches(self, request: HttpRequest) -> bool:
        if request.method != "GET":
            return False
        if request.path == CERTIFICATE_PATH:
            return True
        unsigned = "authorization" not in request.headers and SIGNED.match(request.query) is None
        return request.path == "/" and unsigned and LINK.match(request.query) is not None

    def handle(self, exchange: Exchange) -> None:
        if exchange.request.path == CERTIFICATE_PATH:
            run_step(self._machine, exchange, self._certificate, _failure)
        else:
            self._follow(exchange)

    def _certificate(self, ctx: Context) -> Outcome:
        body = self._sns.certificate(ctx).encode()
        return answer(HttpResponse(200, [("Content-Type", "application/x-pem-file")], body))

    def _follow(self, exchange: Exchange) -> None:
        """Do what the link says, as nobody in particular."""
        wire, request, request_id = self._wire, exchange.request, self._entropy.uuid()
        versioned = request
        if VERSION not in request.query:
            versioned = HttpRequest("GET", f"{request.target}&{VERSION}", request.headers, b"", request.peer)
        try:
            call = wire.understand(versioned)
        except AwsError as error:
            exchange.respond(wire.error(None, versioned, error, request_id))
            return

        def reply(result: Reply | AwsError) -> None:
            if isinstance(result, AwsError):
                exchange.respond(wire.error(call, versioned, result, request_id))
            else:
                exchange.respond(wire.reply(call, result.output, request_id))

        task = self._machine.submit(
            call.service, call.operation, call.params, reply, scope=Scope(), principal=ANONYMOUS, request=versioned,
            request_id=request_id,
        )  # fmt: skip
        exchange.on_gone = lambda: self._machine.cancel(task)


def _failure(error: AwsError) -> HttpResponse:
    return plain(error.status, {"message": error.message})

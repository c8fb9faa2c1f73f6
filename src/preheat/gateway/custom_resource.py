"""Where providers of CloudFormation custom resources PUT their responses: `/_preheat/cfn-response/<token>`."""

from typing import Any

from preheat.gateway.connection import Exchange
from preheat.gateway.invoking import answer, plain, run_step
from preheat.kernel.errors import AwsError
from preheat.kernel.http import HttpRequest, HttpResponse
from preheat.services.contract import Context, Outcome
from preheat.services.machine import Machine

PATH = "/_preheat/cfn-response/"


class CustomResourceDoor:
    """`stacks` is the CloudFormation service."""

    def __init__(self, machine: Machine, stacks: Any) -> None:
        self._machine = machine
        self._stacks = stacks

    def matches(self, request: HttpRequest) -> bool:
        return request.path.startswith(PATH)

    def handle(self, exchange: Exchange) -> None:
        request = exchange.request

        def step(ctx: Context) -> Outcome:
            if request.method != "PUT":
                raise AwsError("MethodNotAllowed", "A custom resource's response is sent with PUT", 405)
            self._stacks.complete_custom_resource(ctx, request.path[len(PATH) :], request.body)
            return answer(HttpResponse(200))

        run_step(self._machine, exchange, step, _refusal)


def _refusal(error: AwsError) -> HttpResponse:
    return plain(error.status, {"code": error.code, "message": error.message})

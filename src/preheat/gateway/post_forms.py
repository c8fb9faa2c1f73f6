"""Files that browsers post to S3 buckets with a form: POST on a bucket, multipart/form-data, a signed policy.

The form is read, its signer and its policy are checked, and the rest is the PutObject that says the same: one
authorization, one transaction, one event (ObjectCreated:Post). The answer is the form's own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from preheat.gateway.faults import Faults
from preheat.gateway.pipeline import ApiDoor, Later
from preheat.kernel.entropy import Entropy
from preheat.kernel.errors import AwsError
from preheat.kernel.http import Call, HttpRequest, HttpResponse
from preheat.kernel.secure import scheme_of
from preheat.services.contract import Principal
from preheat.services.machine import Machine
from preheat.services.s3 import forms
from preheat.wire import Wire
from preheat.wire.wire import bucket_of, host_of

IdentifyForm = Callable[[Mapping[str, str]], Principal]
INNER = {"host": "localhost"}


class FormDoor(ApiDoor):
    """`identify_form(fields)` says who signed a form; `peer_now()` is the clients' time, in epoch seconds."""

    def __init__(
        self, wire: Wire, machine: Machine, identify_form: IdentifyForm, entropy: Entropy, faults: Faults, later: Later,
        peer_now: Callable[[], float],
    ) -> None:  # fmt: skip
        posted: Any = FormWire(wire, identify_form, peer_now)
        super().__init__(posted, machine, lambda request, call: call.context.principal, entropy, faults, later)

    def matches(self, request: HttpRequest) -> bool:
        if request.method != "POST" or not forms.is_form(request.headers.get("content-type", "")):
            return False
        return not request.query and "authorization" not in request.headers and bool(_bucket(request))


@dataclass(frozen=True, slots=True)
class Posted:
    """A form and who signed it; `inner` is wire's note on the PutObject."""

    form: forms.Form
    principal: Principal
    request: HttpRequest
    inner: Any


class FormWire:
    """What `Wire` is for the other requests: a form -> Call, an output or an error -> HttpResponse."""

    def __init__(self, wire: Wire, identify_form: IdentifyForm, peer_now: Callable[[], float]) -> None:
        self._wire = wire
        self._identify_form = identify_form
        self._peer_now = peer_now
        self.services, self.operations = wire.services, wire.operations

    def understand(self, request: HttpRequest) -> Call:
        """Raises AwsError also for a signature that is not good and for what the policy does not let in."""
        form, bucket = forms.read(request.headers["content-type"], request.body), _bucket(request)
        principal = self._identify_form(form.fields)
        forms.check(form, bucket, self._peer_now())
        headers = {**INNER, **forms.put_headers(form.fields), "content-length": str(form.size)}
        target = f"/{quote(bucket)}/{quote(form.key)}"
        if "tagging" in form.fields:
            headers["x-amz-tagging"] = self._tags(target, form.fields["tagging"])
        call = self._wire.understand(HttpRequest("PUT", target, headers, b"", request.peer))
        call.params["Body"] = memoryview(request.body)[form.start : form.end]
        scope = form.fields.get("x-amz-credential", "").split("/")
        call.region = scope[2] if len(scope) == 5 else call.region
        call.request, call.context = request, Posted(form, principal, request, call.context)
        return call

    def _tags(self, target: str, document: str) -> str:
        """The form's XML document of tags as the header has them."""
        asked = HttpRequest("PUT", f"{target}?tagging", INNER, document.encode())
        tags = self._wire.understand(asked).params["Tagging"]["TagSet"]
        return urlencode([(tag["Key"], tag["Value"]) for tag in tags])

    def reply(
        self, call: Call, output: dict[str, Any], request_id: str, status: int | None, headers: dict[str, str] | None
    ) -> HttpResponse:
        posted: Posted = call.context
        bucket, host = call.params["Bucket"], posted.request.headers.get("host", "")
        origin = f"{scheme_of(posted.request)}://{host}"
        place = origin if bucket_of(host_of(posted.request)) else f"{origin}/{bucket}"
        location = forms.address(place, posted.form.key)
        told, more, body = forms.told(posted.form.fields, bucket, output["ETag"], location)
        response = posted.inner.reply(output, request_id, told, headers)
        response.headers += more.items()
        response.body = body
        return response

    def error(self, call: Call | None, request: HttpRequest, error: AwsError, request_id: str) -> HttpResponse:
        if call is not None:
            return call.context.inner.error(request.method, error, request_id)
        return self._wire.error(None, request, error, request_id)


def _bucket(request: HttpRequest) -> str:
    """The bucket that a form is posted to: the host's, or all that the path says; empty when it is for no bucket."""
    named, path = bucket_of(host_of(request)), request.path.strip("/")
    if named is not None:
        return "" if path else named
    return "" if "/" in path else path

"""One AWS service as the wire sees it: its model, its quirks, its operations compiled on first use, its errors."""

from typing import Any

from preheat.kernel.errors import AwsError
from preheat.wire.model import Model, Ref, Shape, load_model, load_quirks
from preheat.wire.routes import Routes


class Service:
    """`protocol` is the one this view is compiled for: json, rest-json, rest-xml, query, smithy-rpc-v2-cbor.
    The service without a name knows nothing: requests to nowhere are refused in its name."""

    def __init__(self, name: str, protocol: str, common: dict[str, Any]) -> None:
        self.name = name
        self.protocol = protocol
        self.quirks = load_quirks(name)
        names = self.quirks.get("query_names") if protocol == "query" else None
        self.model = load_model(name, names) if name else Model()
        self.common = common
        self._routes: Routes | None = None
        self._errors: dict[str, tuple[str, Shape] | None] = {}

    @property
    def routes(self) -> Routes:
        if self._routes is None:
            self._routes = Routes(self.model)
        return self._routes

    @property
    def query_compatible(self) -> bool:
        return self.model.metadata.aws_query_compatible is not None

    def quirk(self, name: str) -> Any:
        """The service's own answer, else the protocol's, else everybody's."""
        by_protocol = self.common["protocols"].get(self.protocol, {})
        return self.quirks.get(self.protocol, {}).get(name) or self.quirks.get(name) or by_protocol.get(name)

    def error_shape(self, code: str) -> tuple[str, Shape] | None:
        """The modelled exception for an error code: by its name, or by the query protocol's code for it."""
        if not self._errors:
            for name, shape in self.model.shapes.items():
                if shape.exception or shape.error is not None:
                    self._errors[name] = (name, shape)
            for name, shape in self.model.shapes.items():
                if shape.error is not None and shape.error.code:
                    self._errors.setdefault(shape.error.code, (name, shape))
        return self._errors.get(code)

    def unknown_operation(self, name: str) -> AwsError:
        answer = self.quirk("unknown_operation")
        return AwsError(answer["code"], answer["message"].format(name=name), answer["status"])

    def shape_of(self, ref: Ref | None) -> Ref:
        """`ref`, or a structure without members where the model names none."""
        if ref is not None:
            return ref
        self.model.shapes.setdefault("", Shape("structure"))
        return Ref(shape="")

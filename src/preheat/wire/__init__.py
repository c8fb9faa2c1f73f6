"""The AWS protocols, driven by botocore's service models. `Wire` is all that other layers use."""

from preheat.wire.wire import Wire

__all__ = ["Wire"]

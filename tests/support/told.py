"""What a runtime's session tells whoever listens."""


class Told:
    """Implements `runtime_api.RuntimeEvents`: keeps every call as (what, ...) in `events`."""

    def __init__(self) -> None:
        self.events: list[tuple] = []

    def next_asked(self):
        self.events.append(("next",))

    def init_error(self, error_type, body):
        self.events.append(("init_error", error_type, body))

    def stream_begun(self, content_type):
        self.events.append(("stream", content_type))

    def chunk(self, data):
        self.events.append(("chunk", data))

    def answered(self, answer):
        self.events.append(("answered", answer))

"""TARGETS: where a delivery can go, by the service in the target's ARN or by the URL's scheme.

A new kind of target is one function (`contract.Send`) and one line here.
"""

from preheat.triggers.targets import buses, messaging, storage, streams, universal, web
from preheat.triggers.targets.contract import Send

TARGETS: dict[str, Send] = {
    "lambda": messaging.to_lambda,
    "sqs": messaging.to_sqs,
    "sns": messaging.to_sns,
    "events": buses.to_events,
    "s3": storage.to_s3,
    "logs": storage.to_logs,
    "kinesis": streams.to_kinesis,
    "firehose": streams.to_firehose,
    "states": streams.to_states,
    "scheduler": universal.to_operation,
    "http": web.to_web,
    "https": web.to_web,
}

"""SOURCES: what an event source mapping can read from, by the service in its ARN. A new one: one file, one line."""

from preheat.triggers.contract import Source
from preheat.triggers.kinesis_stream import KinesisStream
from preheat.triggers.shards import ShardSource
from preheat.triggers.sqs_source import SqsSource

SOURCES: dict[str, Source] = {"sqs": SqsSource(), "kinesis": ShardSource(KinesisStream())}

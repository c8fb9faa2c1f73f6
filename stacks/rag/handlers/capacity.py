"""What the template's limits must be to one another, which a template's own rules cannot say: they do not add up."""

from typing import Any

KIND = "Custom::Limits"


class TooMany(Exception):
    """The deployment would let the models see more questions at once than their limit."""


def check(properties: dict[str, Any]) -> None:
    """Raises TooMany. `properties` are those of the custom resource, numbers as text."""
    names = ("DownstreamLimit", "QueueConcurrency", "BaselineWorkers", "BurstConcurrency")
    limit, queue, baseline, burst = (int(properties[name]) for name in names)
    if baseline and baseline + burst > limit:
        raise TooMany(
            f"BaselineWorkers ({baseline}) and BurstConcurrency ({burst}) are {baseline + burst} questions at once, and"
            f" DownstreamLimit is {limit}"
        )
    if not baseline and queue >= limit:
        raise TooMany(f"QueueConcurrency ({queue}) must be below DownstreamLimit ({limit}), which is what is reserved")

"""The pauses between the attempts of what EventBridge and EventBridge Scheduler send."""

from preheat.services.deliveries import Ladder, Phase

DEFAULT_AGE_S, DEFAULT_RETRIES = 86_400, 185
GROWING_RETRIES = 9
LONGEST_PAUSE_S = 480.0
SPREAD = 0.25


def ladder(policy: dict[str, int]) -> Ladder:
    """Of a RetryPolicy: pauses double from a second to some minutes, then stay there."""
    retries = policy.get("MaximumRetryAttempts", DEFAULT_RETRIES)
    growing = min(retries, GROWING_RETRIES)
    phases = []
    if growing:
        phases.append(Phase(growing, 1.0, 2.0 ** (growing - 1), "geometric"))
    if retries > growing:
        phases.append(Phase(retries - growing, LONGEST_PAUSE_S, LONGEST_PAUSE_S))
    return Ladder(tuple(phases), float(policy.get("MaximumEventAgeInSeconds", DEFAULT_AGE_S)), SPREAD)

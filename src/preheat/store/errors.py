"""What can go wrong with the state directory, said so that the user can act.

StoreError                  the state cannot be used
  StateLocked               another server works on it
  StateUnreadable           it is not ours, is damaged, or may not be read
  StoreFull                 the disk takes no more; the failing transaction left nothing behind
"""


class StoreError(Exception):
    """The state cannot be used; the message says why and what to do."""


class StateLocked(StoreError):
    """A second server on the same state directory."""


class StateUnreadable(StoreError):
    """The state directory cannot be opened as Preheat's."""


class StoreFull(StoreError):
    """A write was refused by the disk."""

"""Vector stores besides S3 Vectors, each behind `ragkit.store.VectorStore`; `choice` opens the one that is wanted."""


class StoreUnavailable(OSError):
    """The store is overloaded, broken, or cannot be reached: the same call may well succeed later."""

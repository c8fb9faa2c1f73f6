"""S3: objects in rows and files, listings, multipart uploads, notifications."""

from pathlib import Path

from preheat.services.contract import Operation, Platform
from preheat.services.s3 import repository
from preheat.services.s3.buckets import Buckets
from preheat.services.s3.configuration import Configuration
from preheat.services.s3.listing import Listing
from preheat.services.s3.multipart import Multipart
from preheat.services.s3.objects import Objects
from preheat.services.s3.shelf import Shelf
from preheat.store.blobs import open_blobs, sweep

SCHEMA = (Path(__file__).parent / "schema.sql").read_text()


class S3Service:
    """`shelf.blobs` holds the large bodies; `shelf.garbage` is the loop that removes those whose rows are gone."""

    name = "s3"
    schema = SCHEMA

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        objects = Objects(shelf)
        self.operations: dict[str, Operation] = {
            **Buckets(shelf).operations(),
            **objects.operations(),
            **Listing(shelf).operations(),
            **Multipart(shelf, objects).operations(),
            **Configuration(shelf).operations(),
        }


def build(platform: Platform) -> S3Service:
    """Sweeps the files no row names, and registers the loop that removes files whose rows are gone."""
    platform.db.apply_schema("s3", SCHEMA)
    shelf = Shelf(open_blobs(platform.db, "s3"))
    sweep(shelf.blobs, lambda name: repository.blob_is_named(platform.db, name))
    platform.machine.add_loop(shelf.garbage)
    return S3Service(shelf)

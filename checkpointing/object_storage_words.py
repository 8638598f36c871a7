"""What a user is told when a request to S3 fails for good: a cause and a remedy for each kind."""

from __future__ import annotations

from dataclasses import dataclass

from checkpointing.errors import StorageError, missing
from checkpointing.object_storage_trouble import Kind, Trouble


@dataclass(frozen=True, slots=True)
class Place:
    """Where it happened."""

    uri: str
    bucket: str
    endpoint: str


def explained(trouble: Trouble, *, key: str, place: Place) -> StorageError:
    """Build the error for `trouble` with the object `key`."""
    match trouble.kind:
        case Kind.ABSENT:
            return missing(key, uri=place.uri)
        case Kind.BUCKET:
            return StorageError(
                "storage-bucket-missing",
                cause=f"The bucket {place.bucket} does not exist at {place.endpoint}.",
                remedy="Create it, or correct the checkpoint URI.",
            )
        case Kind.CREDENTIALS:
            return _unknown(trouble, place)
        case Kind.LOST | Kind.BROKEN:
            return _unreached(trouble, place)
        case Kind.UNSUPPORTED:
            return StorageError(
                "storage-unsupported",
                cause=f"{place.endpoint} does not do what {place.uri} needs: {trouble.words}",
                remedy="Use a store that has it, or a newer version of this one.",
            )
        case _:
            return StorageError(
                "storage-refused",
                cause=f"{place.endpoint} refused a request for {place.uri}: {trouble.words}",
                remedy="Look up the code in the store's documentation; try again later.",
            )


def _unknown(trouble: Trouble, place: Place) -> StorageError:
    return StorageError(
        "storage-credentials",
        cause=(
            f"{place.endpoint} does not accept our credentials for {place.uri} ({trouble.code}),"
            " and a fresh look at environment, profile and role found no better ones."
        ),
        remedy="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile or role.",
    )


def _unreached(trouble: Trouble, place: Place) -> StorageError:
    return StorageError(
        "storage-unreachable" if trouble.kind is Kind.LOST else "storage-failed",
        cause=f"{place.uri} cannot be reached at {place.endpoint}: {trouble.words}",
        remedy="Check AWS_ENDPOINT_URL, the network, and that the store is up.",
    )

"""The way into S3: a botocore client, and URLs that it signs.

A signed URL carries the signature in its query and leaves the body unsigned (`UNSIGNED-PAYLOAD`),
over https and over http, on AWS and on what imitates it; botocore would otherwise hash every body
with SHA-256 over http, at 2 GB/s. The headers that we send along are signed, the CRC32C among
them. Over plain http that leaves a body's protection against malice to the manifest's BLAKE3.

An `Access` is never changed: when its credentials are refused, a new one is built that reads the
environment and the AWS files again.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Final

import botocore.session  # not boto3, which would import s3transfer for nothing
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from checkpointing.errors import StorageError
from checkpointing.object_storage_patience import Patience

_VALID_S: Final = 600
"""Longer than any request may take, and every try gets a URL of its own."""
_CONNECTIONS: Final = 16


@dataclass(frozen=True, slots=True)
class Access:
    """One set of credentials at one endpoint."""

    client: Any
    """A botocore S3 client, whose type is made at run time."""
    ca_bundle: str | None
    """A file of trusted authorities, if the user named one."""

    def url(self, operation: str, **parameters: str) -> str:
        """Return a signed URL for an operation such as `get_object`, valid for ten minutes."""
        return str(
            self.client.generate_presigned_url(operation, Params=parameters, ExpiresIn=_VALID_S)
        )

    @property
    def endpoint(self) -> str:
        """Where requests go, for messages."""
        return str(self.client.meta.endpoint_url)


def find_access(patience: Patience) -> Access:
    """Read environment, profiles and roles now; raise `StorageError` where they make no sense."""
    try:
        # A session of its own: a shared one keeps the first credentials that it ever saw.
        session = botocore.session.Session()
        client = session.create_client("s3", config=_config(patience))
        return Access(client, session.get_config_variable("ca_bundle"))
    except (BotoCoreError, ValueError) as error:
        raise StorageError(
            "storage-configuration",
            cause=f"The S3 client cannot be set up: {error}",
            remedy="Check the AWS_* variables and ~/.aws/config.",
        ) from error


class Door:
    """Holds the access of one store, for any number of threads."""

    def __init__(self, patience: Patience) -> None:
        """Find the first access; raise `StorageError`."""
        self._patience = patience
        self._lock = threading.Lock()
        self.access = find_access(patience)

    def renew(self, refused: Access) -> None:
        """Replace `refused`, unless another thread has done so; raise `StorageError`."""
        with self._lock:
            if self.access is refused:
                self.access = find_access(self._patience)


def _config(patience: Patience) -> Config:
    return Config(
        connect_timeout=patience.connect_s,
        read_timeout=patience.stall_s,
        retries={"total_max_attempts": 1},  # `ObjectStorage` tries again itself, and counts
        max_pool_connections=_CONNECTIONS,
        signature_version="s3v4",  # URLs would get version 2 in some regions
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )

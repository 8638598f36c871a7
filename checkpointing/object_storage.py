"""S3 and everything that speaks it, through boto3.

Uploads carry a CRC32C that was computed beforehand, so the store verifies what it received; bodies
are read from memory without a copy. `AWS_ENDPOINT_URL`, profiles and roles work as boto3 says.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from typing_extensions import Buffer

from checkpointing import hashing
from checkpointing.errors import StorageError, missing
from checkpointing.keys import StoredObject

_READ_BYTES: Final = 2**20
_CONNECTIONS: Final = 16
_ABSENT: Final = frozenset({"NoSuchKey", "404", "NotFound"})
_CREDENTIALS: Final = frozenset(
    {
        "403",
        "AccessDenied",
        "ExpiredToken",
        "Forbidden",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
    }
)
_PAST_END: Final = frozenset({"InvalidRange", "416"})
_TAKEN: Final = frozenset({"PreconditionFailed", "412"})
_CONTENDED: Final = frozenset({"ConditionalRequestConflict", "409"})


class ObjectStorage:
    """A prefix of one S3 bucket."""

    def __init__(self, client: Any, *, bucket: str, prefix: str) -> None:  # noqa: ANN401
        """Use a boto3 S3 `client`, whose types are made at run time; ask it nothing yet."""
        self._client = client
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""

    @property
    def uri(self) -> str:
        """Where this is, for messages."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def check(self) -> None:
        """Raise `StorageError` unless the bucket is there and may be listed."""
        with self._clear_errors(self._prefix):
            self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)

    def put(self, key: str, data: Buffer, *, crc32c: int | None = None) -> None:
        """Store with a CRC32C that the store checks."""
        with self._clear_errors(key):
            self._put(key, data, crc32c)

    def put_if_absent(self, key: str, data: Buffer) -> bool:
        """Store with `If-None-Match: *`; a 412 says that the name is taken."""
        with self._clear_errors(key):
            while True:
                try:
                    self._put(key, data, None, IfNoneMatch="*")
                except ClientError as error:
                    if _code(error) in _TAKEN:
                        return False
                    if _code(error) not in _CONTENDED:  # someone else is at it: look again
                        raise
                else:
                    return True

    def get(self, key: str) -> bytes:
        """Return the whole object."""
        with self._clear_errors(key):
            found = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
            return bytes(found["Body"].read())

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return a range; empty past the end."""
        if length == 0:
            return b""
        wanted = f"bytes={start}-{start + length - 1}"
        with self._clear_errors(key):
            try:
                found = self._client.get_object(
                    Bucket=self._bucket, Key=self._prefix + key, Range=wanted
                )
            except ClientError as error:
                if _code(error) in _PAST_END:
                    return b""
                raise
            return bytes(found["Body"].read())

    def get_into(self, key: str, target: memoryview, *, start: int = 0) -> int:
        """Read a range from the socket straight into `target`."""
        if not target.nbytes:
            return 0
        wanted = f"bytes={start}-{start + target.nbytes - 1}"
        with self._clear_errors(key):
            try:
                found = self._client.get_object(
                    Bucket=self._bucket, Key=self._prefix + key, Range=wanted
                )
            except ClientError as error:
                if _code(error) in _PAST_END:
                    return 0
                raise
            return _filled(found["Body"], target.cast("B"))

    def list(self, prefix: str) -> tuple[StoredObject, ...]:
        """List all pages."""
        with self._clear_errors(prefix):
            return tuple(sorted(self._listed(prefix), key=lambda item: item.key))

    def delete(self, key: str) -> None:
        """Delete; S3 does not mind if it is not there."""
        with self._clear_errors(key):
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)

    def exists(self, key: str) -> bool:
        """Ask for the object's head."""
        with self._clear_errors(key):
            try:
                self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)
            except ClientError as error:
                if _code(error) in _ABSENT:
                    return False
                raise
            return True

    def abandon_uploads(self, prefix: str, *, older_than_us: int) -> int:
        """Abort multipart uploads; ours are single requests, so these are other tools'."""
        with self._clear_errors(prefix):
            old = [item for item in self._uploads(prefix) if _us(item["Initiated"]) < older_than_us]
            for item in old:
                self._abort(item["Key"], item["UploadId"])
        return len(old)

    def _uploads(self, prefix: str) -> Iterator[dict[str, Any]]:
        pages = self._client.get_paginator("list_multipart_uploads")
        for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
            yield from page.get("Uploads", [])

    def _abort(self, key: str, upload_id: str) -> None:
        try:
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload_id)
        except ClientError as error:
            if _code(error) != "NoSuchUpload":  # finished or aborted since the listing
                raise

    def _put(self, key: str, data: Buffer, crc32c: int | None, **more: Any) -> None:  # noqa: ANN401
        body = memoryview(data).cast("B") if memoryview(data).nbytes else memoryview(b"")
        checksum = hashing.crc32c(body) if crc32c is None else crc32c
        self._client.put_object(
            Bucket=self._bucket,
            Key=self._prefix + key,
            Body=MemoryReader(body),
            ContentLength=body.nbytes,
            ChecksumCRC32C=base64.b64encode(checksum.to_bytes(4, "big")).decode("ascii"),
            **more,
        )

    def _listed(self, prefix: str) -> Iterator[StoredObject]:
        pages = self._client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
            for item in page.get("Contents", []):
                key = item["Key"].removeprefix(self._prefix)
                yield StoredObject(key, item["Size"], _us(item["LastModified"]))

    @contextmanager
    def _clear_errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            raise self._refused(error, key) from error
        except BotoCoreError as error:
            raise self._unreached(error) from error

    def _refused(self, error: ClientError, key: str) -> StorageError:
        code = _code(error)
        if code in _ABSENT:
            return missing(key, uri=self.uri)
        if code == "NoSuchBucket":
            return StorageError(
                "storage-bucket-missing",
                cause=f"The bucket {self._bucket} does not exist at {self._endpoint}.",
                remedy="Create it, or correct the checkpoint URI.",
            )
        if code in _CREDENTIALS:
            return self._bad_credentials(code)
        return StorageError(
            "storage-refused",
            cause=f"{self._endpoint} refused a request for {self.uri}: {error}",
            remedy="Look up the code in the store's documentation; try again later.",
        )

    def _unreached(self, error: BotoCoreError) -> StorageError:
        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            return self._bad_credentials("none found")
        network = (EndpointConnectionError, ConnectTimeoutError, HTTPClientError)
        code = "storage-unreachable" if isinstance(error, network) else "storage-failed"
        return StorageError(
            code,
            cause=f"{self.uri} cannot be reached at {self._endpoint}: {error}",
            remedy="Check AWS_ENDPOINT_URL, the network, and that the store is up.",
        )

    def _bad_credentials(self, code: str) -> StorageError:
        return StorageError(
            "storage-credentials",
            cause=f"{self._endpoint} does not accept our credentials for {self.uri} ({code}).",
            remedy="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile or role.",
        )

    @property
    def _endpoint(self) -> str:
        return str(self._client.meta.endpoint_url)


class MemoryReader:
    """A file over a memoryview that hands out slices instead of copies.

    `read(n)` may return more than asked: HTTP clients ask for 8 KiB at a time, and a gigabyte in
    such steps is slow.
    """

    def __init__(self, data: memoryview) -> None:
        """Read `data` from its start."""
        self._data = data
        self._at = 0

    def __len__(self) -> int:
        return self._data.nbytes

    def read(self, size: int = -1) -> memoryview | bytes:
        """Return the next slice, b"" at the end; everything that is left for a negative size."""
        count = max(size, _READ_BYTES) if size >= 0 else self._data.nbytes
        found = self._data[self._at : self._at + count]
        self._at += found.nbytes
        return found if found.nbytes else b""

    def readinto(self, target: memoryview) -> int:
        """Fill `target` as far as there is data; the signer reads this way."""
        found = self._data[self._at : self._at + target.nbytes]
        target[: found.nbytes] = found
        self._at += found.nbytes
        return found.nbytes

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move, as files do."""
        base = (0, self._at, self._data.nbytes)[whence]
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        """Return the position."""
        return self._at


def open_s3(bucket: str, prefix: str) -> ObjectStorage:
    """Open `s3://bucket/prefix` and check that it answers; raise `StorageError`."""
    try:
        # A session of its own: the default one keeps the first credentials that it ever saw.
        client = boto3.session.Session().client("s3", config=_config())
    except (BotoCoreError, ValueError) as error:
        raise StorageError(
            "storage-configuration",
            cause=f"The S3 client cannot be set up: {error}",
            remedy="Check the AWS_* variables and ~/.aws/config.",
        ) from error
    storage = ObjectStorage(client, bucket=bucket, prefix=prefix)
    storage.check()
    return storage


def _config() -> Config:
    return Config(
        connect_timeout=5,
        read_timeout=60,
        retries={"mode": "standard", "total_max_attempts": 4},
        max_pool_connections=_CONNECTIONS,
        # Our own checksum travels; botocore's would be computed a second time, slowly.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _filled(body: Any, target: memoryview) -> int:  # noqa: ANN401
    done = 0
    while done < target.nbytes:
        count = body.readinto(target[done : done + _READ_BYTES])
        if not count:
            break
        done += count
    return done


def _us(instant: datetime) -> int:
    return int(instant.timestamp() * 1_000_000)

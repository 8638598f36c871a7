"""S3 and everything that speaks it.

Bodies go over `object_storage_wire`, everything small through botocore. Uploads carry a CRC32C that
was computed beforehand, so the store verifies what it received. `AWS_ENDPOINT_URL`, profiles and
roles work as botocore says.

Every operation is tried again while a failure can pass (`object_storage_patience` says how long),
over a fresh connection. Credentials that expire in the middle are looked up anew, once.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, TypeVar

from botocore.exceptions import ClientError
from typing_extensions import Buffer

from checkpointing import hashing
from checkpointing.errors import MissingObject, StorageError
from checkpointing.keys import StoredObject
from checkpointing.object_storage_access import Access, Door
from checkpointing.object_storage_patience import IMPATIENT, Patience, Tries
from checkpointing.object_storage_trouble import (
    FAILURES,
    PASSING,
    Kind,
    Refused,
    Trouble,
    trouble_of,
)
from checkpointing.object_storage_wire import Wire
from checkpointing.object_storage_words import Place, explained

_T = TypeVar("_T")


class ObjectStorage:
    """A prefix of one S3 bucket."""

    def __init__(self, bucket: str, *, prefix: str, patience: Patience | None = None) -> None:
        """Find credentials, ask nothing yet; raise `StorageError` for a senseless set-up."""
        self._patience = patience or Patience()
        self._door = Door(self._patience)
        self._wire = Wire(ca_bundle=self._door.access.ca_bundle, connect_s=self._patience.connect_s)
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""

    @property
    def uri(self) -> str:
        """Where this is, for messages."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def check(self) -> None:
        """Raise `StorageError` unless the bucket is there and may be listed."""

        def ask(access: Access, _: Tries) -> None:
            access.client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)

        self._done(self._prefix, ask, patience=IMPATIENT)

    def put(self, key: str, data: Buffer, *, crc32c: int | None = None) -> None:
        """Store with a CRC32C that the store checks."""
        body = _bytes_of(data)
        checksum = _encoded(hashing.crc32c(body) if crc32c is None else crc32c)

        def store(access: Access, tries: Tries) -> None:
            self._send(access, tries, key, body, checksum)

        self._done(key, store, length_bytes=body.nbytes)

    def put_if_absent(self, key: str, data: Buffer) -> bool:
        """Store with `If-None-Match: *`; a 412 says that the name is taken.

        After a lost answer it may be taken by ourselves: then the stored bytes decide.
        """
        body = _bytes_of(data)
        checksum = _encoded(hashing.crc32c(body))

        def store(access: Access, tries: Tries) -> bool:
            try:
                self._send(access, tries, key, body, checksum, IfNoneMatch="*")
            except Refused as refused:
                if trouble_of(refused).kind is not Kind.TAKEN:
                    raise
                return tries.failed > 0 and self._holds(key, body)
            return True

        return self._done(key, store, length_bytes=body.nbytes)

    def get(self, key: str) -> bytes:
        """Return the whole object."""

        def fetch(access: Access, tries: Tries) -> bytes:
            return self._wire.get(self._url(access, key), headers={}, timer=tries.timer())

        return self._done(key, fetch)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return a range; empty past the end."""
        found = bytearray(length)
        count = self.get_into(key, memoryview(found), start=start)
        return bytes(memoryview(found)[:count])

    def get_into(self, key: str, target: memoryview, *, start: int = 0) -> int:
        """Read a range from the socket straight into `target`."""
        if not target.nbytes:
            return 0
        room = target.cast("B")

        def fetch(access: Access, tries: Tries) -> int:
            timer = tries.timer()
            try:
                return self._wire.get_into(self._url(access, key), room, start=start, timer=timer)
            except Refused as refused:
                if trouble_of(refused).kind is not Kind.PAST_END:
                    raise
                return 0

        return self._done(key, fetch, length_bytes=room.nbytes)

    def list(self, prefix: str) -> tuple[StoredObject, ...]:
        """List all pages."""

        def ask(access: Access, _: Tries) -> list[StoredObject]:
            return sorted(self._listed(access, prefix), key=lambda item: item.key)

        return tuple(self._done(prefix, ask))

    def delete(self, key: str) -> None:
        """Delete; S3 does not mind if it is not there."""

        def ask(access: Access, _: Tries) -> None:
            access.client.delete_object(Bucket=self._bucket, Key=self._prefix + key)

        self._done(key, ask)

    def exists(self, key: str) -> bool:
        """Ask for the object's head."""

        def ask(access: Access, _: Tries) -> bool:
            access.client.head_object(Bucket=self._bucket, Key=self._prefix + key)
            return True

        try:
            return self._done(key, ask)
        except MissingObject:
            return False

    def abandon_uploads(self, prefix: str, *, older_than_us: int) -> int:
        """Abort multipart uploads; ours are single requests, so these are other tools'."""

        def ask(access: Access, _: Tries) -> int:
            found = list(self._uploads(access, prefix))
            old = [item for item in found if _us(item["Initiated"]) < older_than_us]
            for item in old:
                self._abort(access, item["Key"], item["UploadId"])
            return len(old)

        return self._done(prefix, ask)

    def _url(self, access: Access, key: str) -> str:
        return access.url("get_object", Bucket=self._bucket, Key=self._prefix + key)

    def _send(
        self,
        access: Access,
        tries: Tries,
        key: str,
        body: memoryview,
        checksum: str,
        **condition: str,
    ) -> None:
        url = access.url(
            "put_object",
            Bucket=self._bucket,
            Key=self._prefix + key,
            ChecksumCRC32C=checksum,
            **condition,
        )
        headers = {"x-amz-checksum-crc32c": checksum}
        if condition:
            headers["If-None-Match"] = condition["IfNoneMatch"]
        self._wire.put(url, body, headers=headers, timer=tries.timer())

    def _holds(self, key: str, body: memoryview) -> bool:
        try:
            return self.get(key) == body
        except MissingObject:
            return False

    def _listed(self, access: Access, prefix: str) -> Iterator[StoredObject]:
        pages = access.client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
            for item in page.get("Contents", []):
                key = item["Key"].removeprefix(self._prefix)
                yield StoredObject(key, item["Size"], _us(item["LastModified"]))

    def _uploads(self, access: Access, prefix: str) -> Iterator[dict[str, Any]]:
        pages = access.client.get_paginator("list_multipart_uploads")
        for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
            yield from page.get("Uploads", [])

    def _abort(self, access: Access, key: str, upload_id: str) -> None:
        try:
            access.client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload_id)
        except ClientError as error:
            if trouble_of(error).code != "NoSuchUpload":  # finished or aborted since the listing
                raise

    def _done(
        self,
        key: str,
        act: Callable[[Access, Tries], _T],
        *,
        length_bytes: int = 0,
        patience: Patience | None = None,
    ) -> _T:
        """Do `act` until it works, cannot work, or has taken too long."""
        tries = Tries(patience or self._patience, length_bytes=length_bytes)
        renewed = False
        while True:
            access = self._door.access
            try:
                return act(access, tries)
            except FAILURES as error:
                trouble = trouble_of(error)
                if trouble.kind is Kind.CREDENTIALS and not renewed:
                    self._renew(access, trouble, key)
                    renewed = True
                elif trouble.kind not in PASSING or not _again(tries, trouble):
                    raise self._explained(trouble, key) from error
                self._wire.forget()

    def _renew(self, refused: Access, trouble: Trouble, key: str) -> None:
        try:
            self._door.renew(refused)
        except StorageError as error:
            raise self._explained(trouble, key) from error

    def _explained(self, trouble: Trouble, key: str) -> StorageError:
        place = Place(self.uri, self._bucket, self._door.access.endpoint)
        return explained(trouble, key=key, place=place)


def open_s3(bucket: str, prefix: str) -> ObjectStorage:
    """Open `s3://bucket/prefix` and check that it answers; raise `StorageError`."""
    storage = ObjectStorage(bucket, prefix=prefix)
    storage.check()
    return storage


def _again(tries: Tries, trouble: Trouble) -> bool:
    return tries.again(damaged=trouble.kind is Kind.DAMAGED)


def _bytes_of(data: Buffer) -> memoryview:
    view = memoryview(data)
    return view.cast("B") if view.nbytes else memoryview(b"")


def _encoded(checksum: int) -> str:
    return base64.b64encode(checksum.to_bytes(4, "big")).decode("ascii")


def _us(instant: datetime) -> int:
    return int(instant.timestamp() * 1_000_000)

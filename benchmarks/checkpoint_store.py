"""How fast S3 clients move bytes, beside a plain socket: PUT and GET against the null server.

All move the same bytes of the same 16 MiB objects, four in flight (`upload_fileobj` and
`download_fileobj`: one object, parts of 16 MiB). Ours computes its CRC32C within the time measured.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import boto3
from boto3.s3.transfer import TransferConfig

from benchmarks.checkpoint_measure import Bar, Contender, Row, row_of, timed
from benchmarks.checkpoint_ours import with_environment
from benchmarks.null_s3 import NullS3, null_s3
from benchmarks.raw_s3 import IN_FLIGHT, RawS3
from checkpointing.hashing import crc32c
from checkpointing.storage import open_storage

PUT_BAR = Bar("at least", 0.5, "s3torchconnector 0.30, s3fs 0.12")
GET_BAR = Bar("at least", 0.5, "no bar in the design: as for PUT; s3torchconnector 0.18, s3fs 0.12")
_CHUNK_BYTES: Final = 16 * 2**20
_BUCKET: Final = "null"


@dataclass(frozen=True, slots=True)
class _Bench:
    """The bytes to move, cut into objects, and where to."""

    server: NullS3
    chunks: dict[str, memoryview]
    pool: ThreadPoolExecutor

    def in_flight(self, do: Callable[[str], object]) -> float:
        """Call `do` for every key, four at a time; return the seconds."""
        return timed(lambda: list(self.pool.map(do, self.chunks)))

    def objects(self) -> dict[str, bytes]:
        """The chunks as the `bytes` that other clients want; made outside the time measured."""
        return {key: bytes(chunk) for key, chunk in self.chunks.items()}


def put(*, gb: float, repeats: int) -> Row:
    """Measure PUT of `gb`."""
    makers = (_raw_put, _our_put, _connector_put, _s3fs_put, _boto_put, _boto_upload)
    return _measured("put", "PUT to a null server / raw socket", PUT_BAR, makers, gb, repeats)


def get(*, gb: float, repeats: int) -> Row:
    """Measure GET of `gb`, into memory that is there already where a client can do that."""
    makers = (_raw_get, _our_get, _connector_get, _s3fs_get, _boto_get, _boto_download)
    return _measured("get", "GET from a null server / raw socket", GET_BAR, makers, gb, repeats)


def _measured(  # noqa: PLR0917 - a private spelling of two rows
    name: str,
    what: str,
    bar: Bar,
    makers: Iterable[Callable[[_Bench], Contender]],
    gb: float,
    repeats: int,
) -> Row:
    with ExitStack() as stack:
        server = stack.enter_context(null_s3())
        stack.enter_context(with_environment(server.environment()))
        pool = stack.enter_context(ThreadPoolExecutor(IN_FLIGHT))
        bench = _Bench(server, _chunks(int(gb * 1e9)), pool)
        RawS3(server.environment(), bucket=_BUCKET).put_all(bench.chunks)
        contenders = [make(bench) for make in makers]
        return row_of(name=name, what=what, bar=bar, contenders=contenders, repeats=repeats)


def _chunks(length: int) -> dict[str, memoryview]:
    whole = memoryview(bytearray(length))
    whole[:] = bytes(range(256)) * (length // 256) + bytes(length % 256)
    starts = range(0, length, _CHUNK_BYTES)
    return {f"chunk-{start:012d}": whole[start : start + _CHUNK_BYTES] for start in starts}


# ---------------------------------------------------------------------------------- PUT


def _raw_put(bench: _Bench) -> Contender:
    raw = RawS3(bench.server.environment(), bucket=_BUCKET)
    return Contender("raw socket", lambda: raw.put_all(bench.chunks), "4 connections, no checksum")


def _our_put(bench: _Bench) -> Contender:
    storage = open_storage(f"s3://{_BUCKET}/ours")

    def one(key: str) -> None:
        chunk = bench.chunks[key]
        storage.put(key, chunk, crc32c=crc32c(chunk))

    return Contender("ours", lambda: bench.in_flight(one), "Storage.put, 4 threads, CRC32C")


def _connector_put(bench: _Bench) -> Contender:
    checkpoint = connector(bench.server.endpoint_url)

    def one(key: str) -> None:
        with checkpoint.writer(f"s3://{_BUCKET}/connector/{key}") as writer:
            writer.write(bench.chunks[key])

    how = "S3Checkpoint.writer, 4 threads, its parts of 8 MiB, CRC32C"
    return Contender("s3torchconnector", lambda: bench.in_flight(one), how)


def _s3fs_put(bench: _Bench) -> Contender:
    files = s3fs_files(bench.server.endpoint_url)

    def once() -> float:
        named = {f"{_BUCKET}/s3fs/{key}": data for key, data in bench.objects().items()}
        return timed(lambda: files.pipe(named, batch_size=IN_FLIGHT))

    return Contender("s3fs", once, "pipe, 4 at once")


def _boto_put(bench: _Bench) -> Contender:
    client = boto3.client("s3")

    def once() -> float:
        objects = bench.objects()
        return bench.in_flight(
            lambda key: client.put_object(Bucket=_BUCKET, Key=key, Body=objects[key])
        )

    return Contender("boto3 defaults", once, "put_object of bytes, 4 threads, CRC32 and SHA-256")


def _boto_upload(bench: _Bench) -> Contender:
    client = boto3.client("s3")

    def once() -> float:
        stream = io.BytesIO(b"".join(bench.chunks.values()))
        return timed(lambda: client.upload_fileobj(stream, _BUCKET, "whole", Config=transfer()))

    return Contender("boto3 upload_fileobj", once, "one object, 4 parts of 16 MiB at once")


# ---------------------------------------------------------------------------------- GET


def _raw_get(bench: _Bench) -> Contender:
    raw = RawS3(bench.server.environment(), bucket=_BUCKET)
    how = "4 connections, ranges, into touched memory"
    return Contender("raw socket", lambda: raw.get_all(bench.chunks), how)


def _our_get(bench: _Bench) -> Contender:
    storage = open_storage(f"s3://{_BUCKET}/")

    def one(key: str) -> None:
        count = storage.get_into(key, bench.chunks[key])
        assert count == bench.chunks[key].nbytes, key

    how = "Storage.get_into touched memory, 4 threads"
    return Contender("ours", lambda: bench.in_flight(one), how)


def _connector_get(bench: _Bench) -> Contender:
    checkpoint = connector(bench.server.endpoint_url)

    def one(key: str) -> None:
        with checkpoint.reader(f"s3://{_BUCKET}/{key}") as reader:
            reader.readinto(bench.chunks[key])

    how = "S3Checkpoint.reader.readinto touched memory, 4 threads"
    return Contender("s3torchconnector", lambda: bench.in_flight(one), how)


def _s3fs_get(bench: _Bench) -> Contender:
    files = s3fs_files(bench.server.endpoint_url)
    names = [f"{_BUCKET}/{key}" for key in bench.chunks]
    return Contender(
        "s3fs", lambda: timed(lambda: files.cat(names, batch_size=IN_FLIGHT)), "cat, 4 at once"
    )


def _boto_get(bench: _Bench) -> Contender:
    client = boto3.client("s3")

    def one(key: str) -> None:
        client.get_object(Bucket=_BUCKET, Key=key)["Body"].read()

    return Contender("boto3 defaults", lambda: bench.in_flight(one), "get_object.read, 4 threads")


def _boto_download(bench: _Bench) -> Contender:
    client = boto3.client("s3")
    whole = memoryview(bytearray(sum(chunk.nbytes for chunk in bench.chunks.values())))
    RawS3(bench.server.environment(), bucket=_BUCKET).put_all({"whole": whole})

    def once() -> float:
        stream = io.BytesIO()
        return timed(lambda: client.download_fileobj(_BUCKET, "whole", stream, Config=transfer()))

    return Contender("boto3 download_fileobj", once, "one object, 4 parts of 16 MiB at once")


# -------------------------------------------------------------------------- the clients


def transfer() -> TransferConfig:
    """Return boto3's transfer settings with our part size and parallelism."""
    return TransferConfig(
        multipart_threshold=_CHUNK_BYTES,
        multipart_chunksize=_CHUNK_BYTES,
        max_concurrency=IN_FLIGHT,
    )


def connector(endpoint_url: str) -> Any:  # noqa: ANN401 - untyped library
    """Return s3torchconnector's client for a local server."""
    from s3torchconnector import S3Checkpoint, S3ClientConfig

    return S3Checkpoint(
        region="us-east-1",
        endpoint=endpoint_url,
        s3client_config=S3ClientConfig(force_path_style=True),
    )


def s3fs_files(endpoint_url: str) -> Any:  # noqa: ANN401 - untyped library
    """Return s3fs's file system for a local server; credentials come from the environment."""
    import s3fs

    return s3fs.S3FileSystem(endpoint_url=endpoint_url, skip_instance_cache=True)

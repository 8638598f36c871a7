"""A whole save to a real S3 server, and a load from it, beside the same bytes by plain socket.

The server is seaweedfs from its wheel, on this machine's disk. A save ends when a reader would find
it; a load when the parameters hold it, and begins before the client is set up. All peers get four
requests or files in flight where they can be told. Only ours verifies what it loads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import boto3
import torch

from benchmarks.checkpoint_measure import Bar, Contender, Row, attempt, row_of, timed
from benchmarks.checkpoint_ours import alter, ours, session_of, with_environment
from benchmarks.checkpoint_state import Training, gpt2_training
from benchmarks.checkpoint_store import transfer
from benchmarks.raw_s3 import RawS3, client_of
from cluster.local_s3 import S3Server, local_s3

SAVE_BAR = Bar("at least", 0.95, "DCP + S3StorageWriter 0.87, DCP fsspec 0.66, Lightning 0.50")
LOAD_BAR = Bar("at least", 0.7, "S3StorageReader 0.33")
_CHUNK_BYTES: Final = 16 * 2**20


@dataclass(frozen=True, slots=True)
class _Bench:
    """What the contenders share: a server, a training, a folder on a tmpfs, and what to close."""

    server: S3Server
    training: Training
    folder: Path
    stack: ExitStack

    def uri(self, name: str) -> str:
        """Name a place in the bucket."""
        return f"s3://{self.server.bucket}/{name}"

    def raw(self) -> RawS3:
        """Return the plain-socket client."""
        return RawS3(self.server.environment(), bucket=self.server.bucket)


@contextmanager
def _bench(gb: float, folder: Path) -> Iterator[_Bench]:
    with ExitStack() as stack:
        server = stack.enter_context(local_s3(folder / "seaweedfs"))
        stack.enter_context(with_environment(server.environment()))
        yield _Bench(server, gpt2_training(gb), folder, stack)


def save(*, gb: float, repeats: int, folder: Path) -> Row:
    """Measure the save row; `folder` is on a disk with room for 30 states."""
    makers = (_raw_put, _our_save, _dcp_connector, _dcp_fsspec, _lightning, _safetensors)
    return _row("save", "save to seaweedfs / raw PUT", SAVE_BAR, makers, gb, repeats, folder)


def load(*, gb: float, repeats: int, folder: Path) -> Row:
    """Measure the load row."""
    makers = (_raw_get, _our_load, _load_connector, _load_fsspec, _load_torch)
    what = "load, verified, into parameters / raw ranged GET"
    return _row("load", what, LOAD_BAR, makers, gb, repeats, folder)


def _row(  # noqa: PLR0917 - a private spelling of two rows
    name: str,
    what: str,
    bar: Bar,
    makers: Sequence[Callable[[_Bench], Contender]],
    gb: float,
    repeats: int,
    folder: Path,
) -> Row:
    with _bench(gb, folder) as bench:
        contenders = [make(bench) for make in makers]
        size = f"{bench.training.length / 1e9:.2f} GB"
        return row_of(
            name=name, what=what, bar=bar, contenders=contenders, repeats=repeats, notes=[size]
        )


# --------------------------------------------------------------------------------- save


def _raw_put(bench: _Bench) -> Contender:
    whole = memoryview(bytearray(bench.training.length))
    starts = range(0, bench.training.length, _CHUNK_BYTES)
    chunks = {f"raw/{start:012d}": whole[start : start + _CHUNK_BYTES] for start in starts}
    raw = bench.raw()
    return Contender("raw PUT", lambda: raw.put_all(chunks), "4 connections, objects of 16 MiB")


def _our_save(bench: _Bench) -> Contender:
    mine = bench.stack.enter_context(ours(bench.training, bench.uri("ours"), environment={}))
    how = "Session: from the step boundary to the commit, every byte new, BLAKE3 and CRC32C"
    return Contender("ours", lambda: mine.save()[1], how)


def _dcp_connector(bench: _Bench) -> Contender:
    def once() -> float:
        from benchmarks import checkpoint_dcp as dcp

        alter(bench.training)
        return dcp.save(bench.training, dcp.connector_writer(bench.uri("dcp-connector")))

    return Contender("DCP + S3StorageWriter", once, "4 threads, a file each; CRC32C")


def _dcp_fsspec(bench: _Bench) -> Contender:
    def once() -> float:
        from benchmarks import checkpoint_dcp as dcp

        alter(bench.training)
        return dcp.save(bench.training, dcp.fsspec_writer(bench.uri("dcp-fsspec")))

    return Contender("DCP fsspec", once, "4 threads, a file each")


def _lightning(bench: _Bench) -> Contender:
    def once() -> float:
        from benchmarks.checkpoint_lightning import trainer_of

        trainer = trainer_of(bench.training)
        alter(bench.training)
        return timed(lambda: trainer.save_checkpoint(bench.uri("lightning.ckpt")))

    return Contender("Lightning", once, "Trainer.save_checkpoint to s3:// through fsspec")


def _safetensors(bench: _Bench) -> Contender:
    client = boto3.client("s3")
    local = bench.folder / "state.safetensors"

    def write_and_upload() -> None:
        from safetensors.torch import save_file

        named = {str(number): item for number, item in enumerate(bench.training.tensors)}
        save_file(named, local)
        client.upload_file(str(local), bench.server.bucket, local.name, Config=transfer())

    def once() -> float:
        alter(bench.training)
        return timed(write_and_upload)

    how = "a file on the disk, then upload_file, 4 parts of 16 MiB at once"
    return Contender("safetensors + boto3", once, how)


# --------------------------------------------------------------------------------- load


def _raw_get(bench: _Bench) -> Contender:
    with ours(bench.training, bench.uri("ours"), environment={}) as mine:
        mine.save()
    client = client_of(bench.server.environment())
    pages = client.get_paginator("list_objects_v2")
    found = pages.paginate(Bucket=bench.server.bucket, Prefix="ours/chunks/")
    sizes = {item["Key"]: item["Size"] for page in found for item in page["Contents"]}
    targets = {key: memoryview(bytearray(b"\1" * size)) for key, size in sizes.items()}
    raw = bench.raw()
    how = "4 connections, the chunks of our checkpoint by range, into touched memory"
    return Contender("raw GET", lambda: raw.get_all(targets), how)


def _our_load(bench: _Bench) -> Contender:
    expected = [tensor.clone() for tensor in bench.training.tensors]

    def once() -> float:
        fresh = gpt2_training(bench.training.length / 1e9, seed=1, filled=False)
        session = session_of(fresh, bench.uri("ours"))
        seconds = timed(session.__enter__)
        session.__exit__(None, None, None)
        assert session.restored_step, "nothing was restored"
        pairs = zip(expected, fresh.tensors, strict=True)
        assert all(torch.equal(one, other) for one, other in pairs), "other bytes came back"
        return seconds

    how = "Session.__enter__: claim, BLAKE3 of every chunk, model and optimizer loaded; fresh Adam"
    return Contender("ours", once, how)


def _load_connector(bench: _Bench) -> Contender:
    attempt(_dcp_connector(bench).once)  # if that fails, so does the load, and says so

    def once() -> float:
        from benchmarks import checkpoint_dcp as dcp

        uri = bench.uri("dcp-connector")
        return timed(lambda: dcp.load(bench.training, dcp.connector_reader(uri)))

    how = "dcp.load in place, its optimized reader; nothing verified"
    return Contender("DCP + S3StorageReader", once, how)


def _load_fsspec(bench: _Bench) -> Contender:
    attempt(_dcp_fsspec(bench).once)

    def once() -> float:
        from benchmarks import checkpoint_dcp as dcp

        uri = bench.uri("dcp-fsspec")
        return timed(lambda: dcp.load(bench.training, dcp.fsspec_reader(uri)))

    return Contender("DCP fsspec", once, "dcp.load in place; nothing verified")


def _load_torch(bench: _Bench) -> Contender:
    client = boto3.client("s3")
    local = bench.folder / "state.pt"
    torch.save(bench.training.state_dict(), local)
    client.upload_file(str(local), bench.server.bucket, local.name, Config=transfer())

    def download_and_load() -> None:
        client = boto3.client("s3")
        client.download_file(bench.server.bucket, local.name, str(local), Config=transfer())
        state = torch.load(local, weights_only=True)
        bench.training.model.load_state_dict(state["model"])
        bench.training.optimizer.load_state_dict(state["optimizer"])

    how = "download_file with 4 parts of 16 MiB at once, then torch.load; nothing verified"
    return Contender("boto3 + torch.load", lambda: timed(download_and_load), how)

"""torch.distributed.checkpoint (DCP) as a peer: its writers and readers, one rank, four threads.

Imported late by the rows: DCP takes most of a second to import.
"""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any, Final

from s3torchconnector import S3ClientConfig
from torch.distributed.checkpoint._fsspec_filesystem import FsspecReader, FsspecWriter
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import async_save as dcp_async_save
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from benchmarks.checkpoint_state import Training
from benchmarks.raw_s3 import IN_FLIGHT

_REGION: Final = "us-east-1"


def folder_writer(folder: Path) -> Any:  # noqa: ANN401 - untyped, as are all below
    """Write to a folder."""
    return FileSystemWriter(folder)


def fsspec_writer(uri: str) -> Any:  # noqa: ANN401
    """Write through fsspec, so through s3fs for `s3://`; a file for each thread."""
    return FsspecWriter(uri, thread_count=IN_FLIGHT)


def fsspec_reader(uri: str) -> Any:  # noqa: ANN401
    """Read through fsspec."""
    return FsspecReader(uri)


def connector_writer(uri: str) -> Any:  # noqa: ANN401
    """Write with s3torchconnector; the endpoint comes from the environment."""
    from s3torchconnector.dcp import S3StorageWriter

    config = S3ClientConfig(force_path_style=True)
    return S3StorageWriter(_REGION, uri, s3client_config=config, thread_count=IN_FLIGHT)


def connector_reader(uri: str) -> Any:  # noqa: ANN401
    """Read with s3torchconnector, by its reader made for DCP."""
    from s3torchconnector.dcp import S3StorageReader

    config = S3ClientConfig(force_path_style=True)
    return S3StorageReader(_REGION, uri, s3client_config=config)


def reused_stager(*, pinned: bool) -> Any:  # noqa: ANN401
    """Return a stager that keeps its memory from save to save."""
    options = StagingOptions(
        use_pinned_memory=pinned,
        use_shared_memory=True,
        use_async_staging=False,
        use_non_blocking_copy=pinned,
    )
    return DefaultStager(options)


def save(training: Training, writer: Any) -> float:  # noqa: ANN401
    """Save and wait; return the seconds."""
    began = perf_counter()
    dcp_save(training.state_dict(), storage_writer=writer, no_dist=True)
    return perf_counter() - began


def start_save(training: Training, writer: Any, *, stager: Any = None) -> tuple[float, Any]:  # noqa: ANN401
    """Start an `async_save`; return the seconds until training may go on, and the future."""
    began = perf_counter()
    future: Any = dcp_async_save(
        training.state_dict(), storage_writer=writer, async_stager=stager, no_dist=True
    )
    stall_s = perf_counter() - began
    return stall_s, getattr(future, "upload_completion", future)


def load(training: Training, reader: Any) -> None:  # noqa: ANN401
    """Load in place, into the training's own tensors."""
    dcp_load(training.state_dict(), storage_reader=reader, no_dist=True)

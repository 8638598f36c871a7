"""One rank's end of the store: publishes snapshots and sweeps what retention gives up.

It runs beside the training, in the uploader process or in a thread, and needs no torch.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from checkpointing.archive import Archive, open_log
from checkpointing.clock import monotonic_us
from checkpointing.errors import CheckpointError
from checkpointing.identity import Identity
from checkpointing.publish import Published, Publisher
from checkpointing.retention import Retention
from checkpointing.retirement import Retirement
from checkpointing.snapshot import Snapshot
from checkpointing.storage import Storage, open_storage

SWEEP_EVERY_US: Final = 300 * 1_000_000


@dataclass(frozen=True, slots=True)
class DepotOrder:
    """All that another process needs to open the same depot."""

    uri: str
    identity: Identity
    conditional: bool
    """Whether the store honours conditional writes (see `commit_log`)."""
    retention: Retention
    provenance: Mapping[str, str] = field(default_factory=dict)
    """What every manifest of the session says about its origin (see `provenance`)."""


class Depot:
    """Publishes for one rank; used by one thread at a time."""

    def __init__(
        self,
        archive: Archive,
        *,
        retention: Retention,
        provenance: Mapping[str, str] | None = None,
    ) -> None:
        """Rank 0 sweeps by `retention`; the other ranks leave that to it."""
        self._publisher = Publisher(
            archive.storage, log=archive.log, identity=archive.identity, provenance=provenance
        )
        leads = archive.identity.rank == 0
        self._retirement = Retirement(archive, policy=retention) if leads else None
        self._swept_us = monotonic_us()
        self._sweeper: threading.Thread | None = None

    def adopt(self, manifest: str, *, chunks: frozenset[str]) -> None:
        """Build on a restore point, or a parent: its chunks stay until we have commits."""
        if self._retirement is not None:
            self._retirement.protected = frozenset({manifest})
        with suppress(CheckpointError):  # a store that does not answer now: then all is sent
            self._publisher.adopt(manifest, chunks=chunks)

    def settle(self, step: int) -> None:
        """Learn that the gang committed `step`."""
        self._publisher.settle(step)

    def publish(self, snapshot: Snapshot) -> Published:
        """Store a snapshot; raise `CheckpointError` or `FencedOut`."""
        return self._publisher.publish(snapshot)

    def sweep_now_and_then(self) -> None:
        """Start a sweep in a thread if the last one was long ago."""
        due = monotonic_us() - self._swept_us >= SWEEP_EVERY_US
        if self._retirement is None or not due or _is_alive(self._sweeper):
            return
        self._swept_us = monotonic_us()
        self._sweeper = threading.Thread(target=_sweep, args=(self._retirement,), daemon=True)
        self._sweeper.start()


def open_depot(order: DepotOrder) -> Depot:
    """Open the store of `order`; raise `StorageError`."""
    archive = reopened(open_storage(order.uri), order)
    return Depot(archive, retention=order.retention, provenance=order.provenance)


def reopened(storage: Storage, order: DepotOrder) -> Archive:
    """Return the archive of `order` without probing the store again."""
    log = open_log(storage, job_id=order.identity.job_id, conditional=order.conditional)
    return Archive(storage, log, order.identity, order.conditional)


def _is_alive(thread: threading.Thread | None) -> bool:
    return thread is not None and thread.is_alive()


def _sweep(retirement: Retirement) -> None:
    with suppress(CheckpointError):  # garbage that stays this time goes the next time
        retirement.sweep()

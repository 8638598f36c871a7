"""Finding the restore point: claim the job, then the newest commit that verifies on every rank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from checkpointing.archive import Archive
from checkpointing.commit import CommitRecord
from checkpointing.errors import CorruptCheckpoint, corrupt
from checkpointing.gang import Gang
from checkpointing.resharding import Place, whole
from checkpointing.restore import RestorePoint, load_commit


@dataclass(frozen=True, slots=True)
class Resumed:
    """Where training goes on; no `point` means from the beginning."""

    point: RestorePoint | None
    skipped: tuple[str, ...]
    """Why newer commits were passed over, one sentence each."""


def resume(
    archive: Archive, *, gang: Gang, tell: Callable[[int], None], place: Place = whole
) -> Resumed:
    """Claim and load; every rank must call it. `tell` hears the step that is being loaded.

    `place` says which box of a sharded tensor this rank needs. Raises `FencedOut` if a newer
    attempt was here. Bytes are verified and nothing is applied.
    """
    if gang.rank == 0:
        archive.claim()
    gang.agree([0])  # the others look only after the claim: no older attempt can commit any more
    history = archive.log.history()
    skipped = list(history.skipped)
    known = {record.seq: record for record in history.commits}
    for number in range(_agreed_count(gang, len(known))):
        mine = history.commits[number].seq if gang.rank == 0 else -1
        (seq,) = gang.agree([mine])
        point, why = _attempt(archive, known.get(seq), tell=tell, place=place)
        (failed,) = gang.agree([int(point is None)])
        if not failed:
            return Resumed(point, tuple(skipped))
        skipped.append(f"Commit {seq} was passed over: {why or 'another rank could not load it.'}")
    return Resumed(None, tuple(skipped))


def _agreed_count(gang: Gang, count: int) -> int:
    (agreed,) = gang.agree([count if gang.rank == 0 else 0])
    return agreed


def _attempt(
    archive: Archive, record: CommitRecord | None, *, tell: Callable[[int], None], place: Place
) -> tuple[RestorePoint | None, str]:
    try:
        if record is None:
            raise corrupt("the commit log", why="this rank does not see the commit")
        tell(record.step)
        who = archive.identity
        return load_commit(
            archive.storage, record, rank=who.rank, world_size=who.world_size, place=place
        ), ""
    except CorruptCheckpoint as error:
        return None, error.cause

"""One job's checkpoints in one store, as one attempt sees them: claim and restore."""

from __future__ import annotations

from dataclasses import dataclass

from checkpointing.clock import now_us
from checkpointing.commit import CLAIM, CommitRecord
from checkpointing.commit_log import CommitLog
from checkpointing.environment import new_nonce
from checkpointing.identity import Identity
from checkpointing.keyring import environment_keyring
from checkpointing.keys import job_prefix
from checkpointing.storage import Storage, keeps_conditions


@dataclass(frozen=True, slots=True)
class Archive:
    """A store, a job's log in it, and who we are."""

    storage: Storage
    log: CommitLog
    identity: Identity
    conditional: bool
    """Whether the store honours conditional writes (else: the weaker mode of `commit_log`)."""

    def claim(self) -> None:
        """Announce our epoch, as rank 0, before looking for a restore point; or be fenced out."""
        who = self.identity
        self.log.append(CommitRecord(CLAIM, who.epoch, who.attempt_id, who.session, at_us=now_us()))


def open_archive(storage: Storage, identity: Identity) -> Archive:
    """Probe the store and open the job's log, with the keys that the environment names."""
    probe = f"{job_prefix(identity.job_id)}probes/{new_nonce():015x}"
    conditional = keeps_conditions(storage, probe_key=probe)
    log = open_log(storage, job_id=identity.job_id, conditional=conditional)
    return Archive(storage, log, identity, conditional)


def next_epoch(storage: Storage, *, job_id: str) -> int:
    """Return an epoch above all others, for a process that nobody gave one."""
    return open_log(storage, job_id=job_id).history().epoch + 1


def open_log(storage: Storage, *, job_id: str, conditional: bool = True) -> CommitLog:
    """Open a job's log with the keys that the environment names; raise `CheckpointError`."""
    keyring = environment_keyring()
    return CommitLog(storage, job_id=job_id, conditional=conditional, keyring=keyring)

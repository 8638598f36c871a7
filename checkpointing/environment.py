"""The environment contract of a training child, read in this one place.

Set by the attempt worker: `LOWTIDE_JOB_ID`, `LOWTIDE_ATTEMPT_ID`, `LOWTIDE_EPOCH` (fencing epoch),
`LOWTIDE_CHECKPOINT_URI`, `LOWTIDE_CONTROL` (path of a unix socket),
`LOWTIDE_CHECKPOINT_INTERVAL_MS` (absent or 0: automatic cadence), `LOWTIDE_ADOPTED_US` (when a
process that stood ready became this one), `LOWTIDE_PREFETCHED` (a folder of chunks); and
torch.distributed's `RANK` and `WORLD_SIZE`.

Set by whoever wants signed checkpoints: `LOWTIDE_SIGNING_KEY` (a PEM file, or PEM text) and
`LOWTIDE_VERIFY_KEYS` (PEM files and folders of them, separated by `:`, or PEM text). Set by whoever
knows the code's hash better than we do: `LOWTIDE_CODE_HASH`.

`LOWTIDE_UPLOADER=thread` uploads in a thread of the training instead of a process beside it, for
where no other process may be started.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from checkpointing.errors import CheckpointError

_NONCE_BITS = 60  # fits a signed 64-bit integer, so that a gang can agree on it by all_reduce


@dataclass(frozen=True, slots=True)
class Environment:
    """What the worker told this process; all empty outside Lowtide."""

    job_id: str | None
    attempt_id: str
    epoch: int
    """Fencing epoch: of two attempts of a job, the one with the higher epoch is in the right."""
    checkpoint_uri: str | None
    control_path: str | None
    interval_ms: int
    """Fixed interval between saves; 0 means the automatic cadence."""
    rank: int
    world_size: int
    upload_in_thread: bool = False
    """Whether no uploader process is to be started."""
    adopted_us: int = 0
    """Instant at which this process, which stood ready, was given its script; 0: it did not."""
    prefetched: str | None = None
    """Folder in which chunks of the restore point appear; see `checkpointing.prefetch`."""

    @property
    def managed(self) -> bool:
        """Whether Lowtide started this process."""
        return self.job_id is not None


def read_environment(variables: Mapping[str, str] | None = None) -> Environment:
    """Parse `variables` (default: this process's); raise `CheckpointError` for a non-number."""
    found = os.environ if variables is None else variables
    return Environment(
        job_id=found.get("LOWTIDE_JOB_ID") or None,
        attempt_id=found.get("LOWTIDE_ATTEMPT_ID", ""),
        epoch=_integer(found, "LOWTIDE_EPOCH", 0),
        checkpoint_uri=found.get("LOWTIDE_CHECKPOINT_URI") or None,
        control_path=found.get("LOWTIDE_CONTROL") or None,
        interval_ms=_integer(found, "LOWTIDE_CHECKPOINT_INTERVAL_MS", 0),
        rank=_integer(found, "RANK", 0),
        world_size=_integer(found, "WORLD_SIZE", 1),
        upload_in_thread=found.get("LOWTIDE_UPLOADER") == "thread",
        adopted_us=_integer(found, "LOWTIDE_ADOPTED_US", 0),
        prefetched=found.get("LOWTIDE_PREFETCHED") or None,
    )


@dataclass(frozen=True, slots=True)
class KeySources:
    """Where keys are: paths or PEM texts, empty for none."""

    signing: str
    verify: str


def read_key_sources(variables: Mapping[str, str] | None = None) -> KeySources:
    """Return where the keys are that sign and verify commits (default: this process's)."""
    found = os.environ if variables is None else variables
    return KeySources(found.get("LOWTIDE_SIGNING_KEY", ""), found.get("LOWTIDE_VERIFY_KEYS", ""))


def read_code_hash(variables: Mapping[str, str] | None = None) -> str:
    """Return the code's hash as it was told to us, or an empty text."""
    found = os.environ if variables is None else variables
    return found.get("LOWTIDE_CODE_HASH", "")


def new_nonce() -> int:
    """Return a random positive integer below 2^60, unique to one session."""
    return secrets.randbits(_NONCE_BITS) | 1


def process_id() -> int:
    """Return this process's id."""
    return os.getpid()


def _integer(variables: Mapping[str, str], name: str, default: int) -> int:
    text = variables.get(name) or str(default)
    if not text.isdecimal():
        raise CheckpointError(
            "environment-invalid",
            cause=f"The environment variable {name} is {text!r}, not a whole number >= 0.",
            remedy=f"Unset {name}, or set it to a whole number.",
        )
    return int(text)

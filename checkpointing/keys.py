"""Names of objects under a checkpoint root. Pure.

chunks/ab/<name>                                 shared by every job under the root
jobs/<job>/commits/<seq>.json                    the log that says what counts
jobs/<job>/manifests/<step>-<blake3>.json        rank 0's manifest of a commit
jobs/<job>/parts/<session>-<step>/<rank>-<blake3>.json   other ranks' manifests
jobs/<job>/intents/<session>-<step>-<rank>-<blake3>.json the same, before they may be relied on
jobs/<job>/pins/<epoch>-<session>-<blake3>       a manifest, of any job, that a session builds on
jobs/<job>/probes/<nonce>                        what a probe of the store left behind
sweeps/<seq>.json, sweeps/<seq>.done             what a sweep was about to delete (see `sweeps`)

A chunk's name is its BLAKE3, or `<blake3>.<n>` for a copy of a chunk that sweep n or an older one
was deleting when it was needed again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

CHUNKS: Final = "chunks/"
JOBS: Final = "jobs/"
SWEEPS: Final = "sweeps/"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One line of a listing."""

    key: str
    length: int
    modified_us: int
    """When it was last written, by the store's clock, microseconds UTC."""


def checked_key(key: str) -> str:
    """Return `key`; assert that it is a relative path that stays inside its store."""
    assert key, "an object needs a name"
    assert not key.startswith("/"), key
    assert not set(key.split("/")) & {"", ".", ".."}, key
    return key


def chunk_key(name: str) -> str:
    """Return the key of a chunk; the two-letter folder keeps file systems' folders small."""
    return f"{CHUNKS}{name[:2]}/{name}"


def chunk_name(blake3: str, *, copy: int = 0) -> str:
    """Return the name of a chunk's original, or of the copy numbered `copy`."""
    return f"{blake3}.{copy}" if copy else blake3


def split_name(name: str) -> tuple[str, int]:
    """Return the BLAKE3 and the copy's number (0: the original) in a chunk's name."""
    blake3, _, copy = name.partition(".")
    return blake3, int(copy or 0)


def job_prefix(job_id: str) -> str:
    """Return the folder of a job, whatever characters its id has."""
    return f"{JOBS}{quote(job_id, safe='').replace('.', '%2E')}/"


def commits_prefix(job_id: str) -> str:
    """Return the folder of a job's commit records."""
    return f"{job_prefix(job_id)}commits/"


def commit_key(job_id: str, seq: int, *, epoch: int | None = None) -> str:
    """Name a commit record; with `epoch` for a store that ignores conditional writes."""
    suffix = "" if epoch is None else f"-{epoch:010d}"
    return f"{commits_prefix(job_id)}{seq:012d}{suffix}.json"


def commit_seq(key: str) -> int | None:
    """Return the sequence number in a commit record's name, None for a stranger's file."""
    digits = key.rpartition("/")[2].removesuffix(".json").partition("-")[0]
    return int(digits) if digits.isdecimal() else None


def manifest_key(job_id: str, *, step: int, blake3: str) -> str:
    """Name rank 0's manifest."""
    return f"{job_prefix(job_id)}manifests/{step:012d}-{blake3}.json"


def parts_prefix(job_id: str, *, session: int, step: int) -> str:
    """Return the folder in which the ranks of one save leave their parts."""
    return f"{job_prefix(job_id)}parts/{session:015x}-{step:012d}/"


def part_key(prefix: str, *, rank: int, blake3: str) -> str:
    """Name one rank's part."""
    return f"{prefix}{rank:06d}-{blake3}.json"


def failure_key(prefix: str, *, rank: int) -> str:
    """Name the note of a rank that could not deliver its part."""
    return f"{prefix}{rank:06d}-failed"


def intent_key(job_id: str, *, session: int, step: int, rank: int, blake3: str) -> str:
    """Name a rank's part before the rank knows that no sweep is deleting what it names."""
    place = f"{session:015x}-{step:012d}-{rank:06d}"
    return f"{job_prefix(job_id)}intents/{place}-{blake3}.json"


def pin_key(job_id: str, *, epoch: int, session: int, blake3: str) -> str:
    """Name the note that a session of `job_id` builds on the manifest with this hash."""
    return f"{job_prefix(job_id)}pins/{epoch:010d}-{session:015x}-{blake3}"


def pin_owner(key: str) -> tuple[int, int] | None:
    """Return the epoch and the session in a pin's name, None for a stranger's file."""
    epoch, _, rest = key.rpartition("/")[2].partition("-")
    session = rest.partition("-")[0]
    try:
        return int(epoch), int(session, 16)
    except ValueError:
        return None


def sweep_key(seq: int, *, done: bool = False) -> str:
    """Name the record of a sweep, or the note that it has ended."""
    return f"{SWEEPS}{seq:012d}{'.done' if done else '.json'}"


def sweep_seq(key: str) -> int | None:
    """Return the number in the name of a sweep's record or note, None for a stranger's file."""
    digits = key.removeprefix(SWEEPS).partition(".")[0]
    return int(digits) if digits.isdecimal() else None


def kind_of(key: str) -> str:
    """Return the folder of an object inside its job: `manifests`, `parts`, `pins` ..."""
    parts = key.split("/")
    return parts[2] if len(parts) > 3 else ""  # noqa: PLR2004 - jobs/<job>/<kind>/<name>


def job_of(key: str) -> str:
    """Return the id of the job that an object under `jobs/` belongs to."""
    return unquote(key.removeprefix(JOBS).partition("/")[0])


def hash_of(key: str) -> str:
    """Return the BLAKE3 at the end of the name of a manifest, part, intent or pin."""
    return key.rpartition("/")[2].removesuffix(".json").rpartition("-")[2]

"""Names of objects under a checkpoint root. Pure.

chunks/ab/<blake3>                               shared by every job under the root
jobs/<job>/commits/<seq>.json                    the log that says what counts
jobs/<job>/manifests/<step>-<blake3>.json        rank 0's manifest of a commit
jobs/<job>/parts/<session>-<step>/<rank>-<blake3>.json   other ranks' manifests
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

CHUNKS: Final = "chunks/"
JOBS: Final = "jobs/"


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


def chunk_key(blake3: str) -> str:
    """Name a chunk; the two-letter folder keeps file systems' folders small."""
    return f"{CHUNKS}{blake3[:2]}/{blake3}"


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

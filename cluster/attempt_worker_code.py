"""The user's code on a node: fetched once, verified, unpacked for each attempt."""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
from pathlib import Path

from checkpointing.storage import open_storage
from jobs.errors import LowtideError
from jobs.spec import JobSpec


class CodeError(LowtideError):
    """The code archive of a job cannot be used."""

    code = "code-unusable"


def code_key(digest: str) -> str:
    """Give the key of an archive under the storage URI."""
    return f"code/{digest}.tar.gz"


def unpack_code(spec: JobSpec, *, storage: str, cache: Path, into: Path) -> Path:
    """Give the folder in which the script runs, its code unpacked.

    A spec without an archive runs in an empty folder; its script is then an absolute path.

    Raises:
        CodeError: the archive is corrupt, hostile, or holds no such script.
        checkpointing.errors.StorageError: it could not be fetched.
    """
    into.mkdir(parents=True, exist_ok=True)
    if spec.code:
        extract(fetch(spec.code, storage=storage, cache=cache), into=into)
    if not (into / spec.script).is_file():
        raise CodeError(
            f"The code archive holds no file '{spec.script}'.",
            remedy="Submit from the folder that holds the script; is it in .gitignore?",
        )
    return into


def fetch(digest: str, *, storage: str, cache: Path) -> Path:
    """Give the archive's file in the node's cache, fetching it when it is not there.

    Raises:
        CodeError: what is stored is not what the digest promises.
        checkpointing.errors.StorageError: it could not be fetched.
    """
    kept = cache / f"{digest}.tar.gz"
    if kept.is_file():
        return kept
    data = open_storage(storage).get(code_key(digest))
    if hashlib.sha256(data).hexdigest() != digest:
        raise CodeError(
            f"The code archive {digest[:12]} in the store is not what was submitted.",
            remedy="Submit the job again; the archive is then uploaded anew.",
        )
    cache.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=cache)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
    Path(temporary).replace(kept)
    return kept


def extract(archive: Path, *, into: Path) -> None:
    """Unpack; members that would leave the folder, and devices, are refused.

    Raises:
        CodeError: the archive is corrupt or hostile.
    """
    try:
        with tarfile.open(archive, mode="r:gz") as tar:
            tar.extractall(into, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise CodeError(
            f"The code archive {archive.name[:12]} cannot be unpacked: {error}.",
            remedy="Submit the job again with the current client.",
        ) from error

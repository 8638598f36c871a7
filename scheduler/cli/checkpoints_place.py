"""Where checkpoints are: a URI, a folder, or what this installation's jobs use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload
from urllib.parse import unquote, urlsplit

from jobs.errors import UnknownSubjectError
from scheduler.cli.output import needs

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from checkpointing.catalog import Catalog
    from checkpointing.storage import Storage


@overload
def open_place(where: str, *, job: str | None) -> AbstractContextManager[Catalog]: ...
@overload
def open_place(
    where: str, *, job: str | None, several: Literal[True]
) -> AbstractContextManager[Catalog | list[dict[str, Any]]]: ...
def open_place(where: str, *, job: str | None, several: bool = False) -> Any:
    """Open the catalog of a job, as a context; with ``several`` the jobs, if there are several.

    Raises:
        UnknownSubjectError: there is no such folder, or no such job in this installation.
        CheckpointError: the place cannot be used, or which job is meant is not clear.
    """
    return _opened(where, job=job, several=several)


@contextmanager
def _opened(where: str, *, job: str | None, several: bool) -> Iterator[Any]:
    with needs("train"):
        from checkpointing.catalog import open_catalog
        from checkpointing.storage import open_storage

        uri = where
        if not _is_place(where):
            uri, job = _installation(where), job or where
        _check_folder(uri)
        storage = open_storage(uri)
        found = _jobs(storage) if several and job is None else []
        yield found if len(found) > 1 else open_catalog(storage, job_id=job)


def _is_place(where: str) -> bool:
    return "://" in where or "/" in where or Path(where).is_dir()


def _installation(job_id: str) -> str:
    """Give the storage of this installation, for a job that is named by its id alone."""
    from scheduler.home import Home
    from scheduler.settings import CONFIG_NAME, home_folder, load_settings

    home = Home(home_folder())
    config = home.folder / CONFIG_NAME
    place = (load_settings(config).storage if config.is_file() else "") or home.storage
    if "://" not in place and not Path(place).is_dir():
        raise UnknownSubjectError(
            f"'{job_id}' is not a folder, and this installation ({home.folder}) has no storage.",
            remedy=f"Name the place: lowtide checkpoints ls s3://BUCKET/PREFIX --job {job_id}.",
        )
    return place


def _check_folder(uri: str) -> None:
    """Opening would create what is not there, and find it empty."""
    parts = urlsplit(uri)
    path = Path(unquote(parts.path)) if parts.scheme == "file" else Path(uri)
    if (parts.scheme == "file" or "://" not in uri) and not path.is_dir():
        raise UnknownSubjectError(
            f"There is no folder '{path}'.", remedy="Name a folder, or s3://BUCKET/PREFIX."
        )


def _jobs(storage: Storage) -> list[dict[str, Any]]:
    """Describe the jobs under a root by what one listing shows."""
    from checkpointing.keys import JOBS, job_of, kind_of

    found: dict[str, dict[str, Any]] = {}
    for item in storage.list(JOBS):
        one = found.setdefault(job_of(item.key), {"manifests": 0, "newest_us": 0})
        if kind_of(item.key) == "manifests":
            one["manifests"] += 1
            one["newest_us"] = max(one["newest_us"], item.modified_us)
    return [{"job": job, **one} for job, one in sorted(found.items())]

"""Pack a training script's folder into a deterministic archive, addressed by its content.

The same files give the same bytes on every machine: names sorted, times and owners zeroed, modes
reduced to "executable or not". So the SHA-256 of the archive names it, and code that the server
has seen is never uploaded twice.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from jobs.errors import SpecError
from jobs.gitignore import Ignored

MIB = 1 << 20
MAX_BYTES = 200 * MIB
MAX_FILES = 50_000
BIGGEST_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file or link that goes into the archive."""

    name: str  # from the folder, with "/"
    path: Path
    size: int  # bytes; 0 for a link
    executable: bool = False
    link: str = ""  # where a link points, from its own folder; "" for a file


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """A packed folder."""

    data: bytes
    sha256: str  # of ``data``, in hex
    files: int
    unpacked_bytes: int

    @property
    def size(self) -> int:
        """Bytes to be uploaded."""
        return len(self.data)


def pack(folder: Path, *, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES) -> Archive:
    """Pack a folder, honouring ``.gitignore``; ``.git``, ``.venv``, ``__pycache__`` stay out.

    Args:
        folder: what to pack.
        max_bytes: limit on the files' sizes added up, known before anything is compressed.
        max_files: limit on their number.

    Raises:
        SpecError: the folder is missing or too big, a file cannot be read, or a link leaves it.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - links stay links
    if not folder.is_dir():
        raise SpecError(
            f"The code folder '{folder}' does not exist.",
            remedy="Name an existing folder with --code-dir (code_dir= in Python).",
        )
    sources = collect(folder, max_files=max_files)
    _check_size(sources, max_bytes=max_bytes)
    data = _compress(sources)
    return Archive(
        data=data,
        sha256=hashlib.sha256(data).hexdigest(),
        files=len(sources),
        unpacked_bytes=sum(source.size for source in sources),
    )


def collect(folder: Path, *, max_files: int = MAX_FILES) -> list[Source]:
    """List what belongs into the archive, sorted by name.

    Raises:
        SpecError: there are more than ``max_files`` files, or a link leaves the folder.
    """
    ignored = Ignored(folder)
    found: list[Source] = []
    for where, folders, files in os.walk(folder, onerror=_refuse_unreadable):
        here = Path(where)
        ignored.enter(here)
        links = [name for name in folders if (here / name).is_symlink()]
        folders[:] = sorted(
            name
            for name in folders
            if name not in links and not ignored.covers(here / name, is_dir=True)
        )
        for name in (*files, *links):
            path = here / name
            if not ignored.covers(path, is_dir=False) and (path.is_symlink() or path.is_file()):
                found.append(_source(path, folder=folder))
        if len(found) > max_files:
            raise SpecError(
                f"The code folder '{folder}' holds more than {max_files} files.",
                remedy="Point --code-dir at the code alone, or list data folders in .gitignore.",
            )
    return sorted(found, key=lambda source: source.name)


def _refuse_unreadable(error: OSError) -> None:
    raise SpecError(
        f"Cannot read '{error.filename}': {error.strerror}.",
        remedy="Make it readable, or list it in .gitignore.",
    ) from error


def _source(path: Path, *, folder: Path) -> Source:
    name = path.relative_to(folder).as_posix()
    if not path.is_symlink():
        status = path.stat()
        executable = bool(status.st_mode & stat.S_IXUSR)
        return Source(name=name, path=path, size=status.st_size, executable=executable)
    return Source(name=name, path=path, size=0, link=_inner_target(path, folder=folder))


def _inner_target(path: Path, *, folder: Path) -> str:
    """Give a link's target from its own folder; a link that leaves the tree is refused."""
    target = Path(os.path.normpath(path.parent / path.readlink()))
    if not target.is_relative_to(folder) or not path.resolve().is_relative_to(folder.resolve()):
        raise SpecError(
            f"'{path.relative_to(folder)}' is a link to '{path.readlink()}', "
            "outside the code folder.",
            remedy="Copy the file in, list the link in .gitignore, or widen --code-dir.",
        )
    return PurePosixPath(os.path.relpath(target, path.parent)).as_posix()


def _check_size(sources: list[Source], *, max_bytes: int) -> None:
    total = sum(source.size for source in sources)
    if total <= max_bytes:
        return
    biggest = sorted(sources, key=lambda source: (-source.size, source.name))[:BIGGEST_SHOWN]
    names = ", ".join(f"{source.name} ({show_bytes(source.size)})" for source in biggest)
    raise SpecError(
        f"The code is {show_bytes(total)}, more than the limit of {show_bytes(max_bytes)}; "
        f"the biggest files are {names}.",
        remedy="List data and outputs in .gitignore, or point --code-dir at the code alone.",
    )


def _compress(sources: list[Source]) -> bytes:
    buffer = io.BytesIO()
    with (
        # mtime=0 and no file name: the header must not tell two equal archives apart.
        gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=6, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for source in sources:
            _add(tar, source)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, source: Source) -> None:
    member = tarfile.TarInfo(source.name)
    if source.link:
        member.type, member.linkname = tarfile.SYMTYPE, source.link
        tar.addfile(member)
        return
    try:
        data = source.path.read_bytes()
    except OSError as error:
        _refuse_unreadable(error)
        raise
    member.size = len(data)
    member.mode = 0o755 if source.executable else 0o644
    tar.addfile(member, io.BytesIO(data))


def show_bytes(count: int) -> str:
    """Write a size for people: ``512 B``, ``3.4 KiB``, ``1.2 MiB``."""
    if count < 1 << 10:
        return f"{count} B"
    size = float(count)
    for unit in ("KiB", "MiB"):
        size /= 1 << 10
        if size < 1 << 10:
            return f"{size:.1f} {unit}"
    return f"{size / (1 << 10):.1f} GiB"

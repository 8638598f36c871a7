"""A `Storage` in a folder of a local or shared POSIX file system."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from io import RawIOBase
from pathlib import Path

from typing_extensions import Buffer

from checkpointing.clock import now_us
from checkpointing.errors import StorageError, missing
from checkpointing.keys import StoredObject, checked_key

_TEMPORARY = ".tmp"
_STRAY_US = 3_600 * 1_000_000  # a temporary file of this age belongs to a process that died


class FileStorage:
    """Objects are files, named by their keys.

    They appear by rename (or by hard link, for `put_if_absent`) after fsync, so that a crash at
    any point leaves the old object, the new one, or a stray temporary file that nobody reads.
    """

    def __init__(self, root: Path) -> None:
        """Create the folder where needed; raise `StorageError` where that is impossible."""
        self._root = root
        self._lasting: set[Path] = set()  # folders whose own names are synced
        try:
            (root / _TEMPORARY).mkdir(parents=True, exist_ok=True)
            _drop_strays(root / _TEMPORARY)
        except OSError as error:
            raise _failed(error, self.uri) from error

    @property
    def uri(self) -> str:
        """Where this is, for messages."""
        return str(self._root)

    def put(self, key: str, data: Buffer, *, crc32c: int | None = None) -> None:
        """Write, fsync, rename, fsync the folder."""
        del crc32c
        target = self._path(key)
        try:
            temporary = self._write(target, data)
            temporary.replace(target)
            _sync_folder(target.parent)
        except OSError as error:
            raise _failed(error, self.uri) from error

    def put_if_absent(self, key: str, data: Buffer) -> bool:
        """Write, fsync, then hard-link: the link fails if the name is taken."""
        target = self._path(key)
        try:
            temporary = self._write(target, data)
            try:
                os.link(temporary, target)
            except FileExistsError:
                return False
            finally:
                temporary.unlink(missing_ok=True)
            _sync_folder(target.parent)
        except OSError as error:
            raise _failed(error, self.uri) from error
        return True

    def get(self, key: str) -> bytes:
        """Read the whole file or raise `MissingObject`."""
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError as error:
            raise missing(key, uri=self.uri) from error
        except OSError as error:
            raise _failed(error, self.uri) from error

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Read a slice of the file."""
        try:
            with self._path(key).open("rb") as stream:
                stream.seek(start)
                return stream.read(length)
        except FileNotFoundError as error:
            raise missing(key, uri=self.uri) from error
        except OSError as error:
            raise _failed(error, self.uri) from error

    def get_into(self, key: str, target: memoryview, *, start: int = 0) -> int:
        """Read from the page cache straight into `target`."""
        if not target.nbytes:
            return 0
        try:
            with self._path(key).open("rb", buffering=0) as stream:
                stream.seek(start)
                return _filled(stream, target.cast("B"))
        except FileNotFoundError as error:
            raise missing(key, uri=self.uri) from error
        except OSError as error:
            raise _failed(error, self.uri) from error

    def list(self, prefix: str) -> tuple[StoredObject, ...]:
        """Walk the deepest folder that `prefix` names; temporary files are not objects."""
        folder = self._root / prefix.rpartition("/")[0]
        try:
            found = [self._described(path) for path in _files_under(folder)]
        except OSError as error:
            raise _failed(error, self.uri) from error
        kept = (item for item in found if item is not None and item.key.startswith(prefix))
        return tuple(sorted(kept, key=lambda item: item.key))

    def delete(self, key: str) -> None:
        """Unlink the file; its folder stays."""
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            raise _failed(error, self.uri) from error

    def exists(self, key: str) -> bool:
        """Say whether the file exists."""
        return self._path(key).is_file()

    def abandon_uploads(self, prefix: str, *, older_than_us: int) -> int:
        """Return 0: what a dead writer leaves is dropped when the folder is opened."""
        return 0

    def _path(self, key: str) -> Path:
        return self._root / checked_key(key)

    def _write(self, target: Path, data: Buffer) -> Path:
        self._make_folder(target.parent)
        descriptor, temporary = tempfile.mkstemp(dir=self._root / _TEMPORARY)
        try:
            _write_synced(descriptor, data)
        except OSError:
            Path(temporary).unlink(missing_ok=True)  # a full disk is not kept full by it
            raise
        finally:
            os.close(descriptor)
        return Path(temporary)

    def _make_folder(self, folder: Path) -> None:
        """Make a folder that a loss of power does not take away again, with all that is in it.

        Synced even where it exists: whoever made it may have died before that.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for made in (folder, *folder.parents):
            if made == self._root or made in self._lasting:
                break
            _sync_folder(made.parent)
            self._lasting.add(made)

    def _described(self, path: Path) -> StoredObject | None:
        key = path.relative_to(self._root).as_posix()
        if key.startswith(_TEMPORARY + "/"):
            return None
        try:
            status = path.stat()
        except FileNotFoundError:
            return None  # deleted between the walk and this look: not there any more
        return StoredObject(key, status.st_size, status.st_mtime_ns // 1000)


def _files_under(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        for name in names:
            yield Path(parent) / name


def _filled(stream: RawIOBase, target: memoryview) -> int:
    done = 0
    while done < target.nbytes:
        count = stream.readinto(target[done:])  # Linux reads at most 2 GiB - 4 KiB at a time
        if not count:
            break
        done += count
    return done


def _write_synced(descriptor: int, data: Buffer) -> None:
    # Measured, 32 MiB: neither fdatasync nor posix_fallocate is quicker than this.
    view = memoryview(data)
    rest = view.cast("B") if view.nbytes else memoryview(b"")
    while rest.nbytes:
        rest = rest[os.write(descriptor, rest) :]
    os.fsync(descriptor)


def _drop_strays(folder: Path) -> None:
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # its writer lives after all, and has renamed it
            if now_us() - path.stat().st_mtime_ns // 1000 > _STRAY_US:
                path.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failed(error: OSError, uri: str) -> StorageError:
    full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
    return StorageError(
        "storage-full" if full else "storage-failed",
        cause=f"The folder {uri} cannot be used: {error.strerror or error}.",
        remedy="Free some space there." if full else "Check that it exists and may be written.",
    )

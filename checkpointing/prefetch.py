"""The restore point's bytes come to the node while the training imports torch.

A process without torch finds the job's newest commit and downloads what this node's ranks need
into a folder, best in memory. The training's store is wrapped: what is there is read from there,
and is gone then; what is not comes from the real store. Each file is whole or absent, and the
loader verifies all bytes as always, so nothing here can harm a restore: at worst it saves no time.

    <folder>/<name>.part      being downloaded; its writer holds a lock on it
    <folder>/<rank>/<name>    ready, a hard link per rank
    <folder>/<rank>/<name>.mine   the rank fetches it itself: not to be downloaded any more
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Final

from typing_extensions import Buffer

from checkpointing.archive import open_log
from checkpointing.clock import monotonic_us, pause
from checkpointing.documents import read_document
from checkpointing.errors import CheckpointError
from checkpointing.hashing import blake3_hex
from checkpointing.keys import CHUNKS, StoredObject, chunk_key, kind_of
from checkpointing.manifest import ChunkRef, Manifest, encode
from checkpointing.storage import Storage, open_storage

_PARALLEL_GETS: Final = 4
_PATIENCE_US: Final = 10_000_000  # for a file that is being downloaded
_LOOK_S: Final = 0.005
_PART: Final = ".part"
_MINE: Final = ".mine"
_BROUGHT: Final = frozenset({"manifests", "parts"})  # and chunks: all have their hash in their name


@dataclass(frozen=True, slots=True)
class PrefetchOrder:
    """What to bring to which ranks; `folder` exists, `limit_bytes` is all that may be fetched."""

    uri: str
    job_id: str
    ranks: tuple[int, ...]
    world_size: int
    folder: str
    limit_bytes: int


class PrefetchedStorage:
    """A store, some of whose objects were brought to this node; each is used once."""

    def __init__(self, storage: Storage, folder: Path) -> None:
        """Look in `folder`, this rank's own, then ask `storage`."""
        self._storage = storage
        self._folder = folder
        self.hits = 0
        """Objects that were read from the folder."""

    @property
    def uri(self) -> str:
        """Where the real store is."""
        return self._storage.uri

    def get(self, key: str) -> bytes:
        """Return the object from here or there."""
        with suppress(FileNotFoundError), self._taken(key) as stream:
            return stream.read()
        return self._storage.get(key)

    def get_into(self, key: str, target: memoryview, *, start: int = 0) -> int:
        """Read into `target` from here or there."""
        with suppress(FileNotFoundError), self._taken(key) as stream:
            stream.seek(start)
            return _fill(stream, target)
        return self._storage.get_into(key, target, start=start)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Ask the real store: ranges are for looking, not for loading."""
        return self._storage.get_range(key, start, length)

    def put(self, key: str, data: Buffer, *, crc32c: int | None = None) -> None:
        """Store in the real store."""
        self._storage.put(key, data, crc32c=crc32c)

    def put_if_absent(self, key: str, data: Buffer) -> bool:
        """Store in the real store."""
        return self._storage.put_if_absent(key, data)

    def list(self, prefix: str) -> tuple[StoredObject, ...]:
        """Ask the real store."""
        return self._storage.list(prefix)

    def delete(self, key: str) -> None:
        """Delete in the real store."""
        self._storage.delete(key)

    def exists(self, key: str) -> bool:
        """Ask the real store."""
        return self._storage.exists(key)

    def abandon_uploads(self, prefix: str, *, older_than_us: int) -> int:
        """Ask the real store."""
        return self._storage.abandon_uploads(prefix, older_than_us=older_than_us)

    def _taken(self, key: str) -> BinaryIO:
        """Open a file and remove its name; raise `FileNotFoundError` where there is none."""
        if not (key.startswith(CHUNKS) or kind_of(key) in _BROUGHT):
            raise FileNotFoundError(key)
        path = self._folder / _name(key)
        try:
            stream = path.open("rb")
        except FileNotFoundError:
            path.with_name(path.name + _MINE).touch()
            _await_end(self._folder.parent / (path.name + _PART))
            stream = path.open("rb")
        path.unlink()
        self.hits += 1
        return stream


def prefetched(storage: Storage, folder: str | None) -> Storage:
    """Return `storage`, seen through what is brought to `folder`; itself where there is none."""
    if folder is None or not Path(folder).is_dir():
        return storage
    return PrefetchedStorage(storage, Path(folder))


def fetch(order: PrefetchOrder, *, storage: Storage) -> int:
    """Bring the newest commit's manifests and chunks; return how many bytes came.

    Raise `CheckpointError` where there is no commit that can be read.
    """
    history = open_log(storage, job_id=order.job_id).history()
    if not history.commits:
        return 0
    record = history.commits[0]
    pantry = _Pantry(order, storage)
    manifest = read_document(storage, record.manifest, blake3=record.manifest_blake3)
    pantry.keep(record.manifest, encode(manifest), ranks=order.ranks)
    wanted = {chunk.name: (chunk, order.ranks) for chunk in manifest.chunks}
    if manifest.world_size == order.world_size:
        for rank in order.ranks:
            if rank:
                part = pantry.part_of(manifest, rank)
                wanted.update({c.name: (c, (rank,)) for c in part.chunks if c.name not in wanted})
    with ThreadPoolExecutor(_PARALLEL_GETS) as pool:
        return sum(pool.map(lambda item: pantry.bring(*item), wanted.values()))


class _Pantry:
    """The folder, from the side of whoever fills it."""

    def __init__(self, order: PrefetchOrder, storage: Storage) -> None:
        self._folder = Path(order.folder)
        self._storage = storage
        self._left = order.limit_bytes
        self._lock = threading.Lock()
        for rank in order.ranks:
            (self._folder / str(rank)).mkdir(exist_ok=True)

    def part_of(self, manifest: Manifest, rank: int) -> Manifest:
        place = manifest.parts[rank - 1]
        part = read_document(self._storage, place.key, blake3=place.blake3)
        self.keep(place.key, encode(part), ranks=(rank,))
        return part

    def bring(self, chunk: ChunkRef, ranks: Sequence[int]) -> int:
        """Download a chunk unless there is no room, or nobody waits for it any more."""
        key = chunk_key(chunk.name)
        with self._lock:
            if chunk.length > self._left:
                return 0
            self._left -= chunk.length
        with self._part(key) as stream:
            waiting = [rank for rank in ranks if not self._is_taken(key, rank)]
            if not waiting:
                return 0
            data = bytearray(chunk.length)
            with suppress(CheckpointError):  # whoever needs it meets the same, and says so
                self._storage.get_into(key, memoryview(data))
                if blake3_hex(data) == chunk.blake3:
                    self._ready(key, stream, data, waiting)
        return chunk.length

    def keep(self, key: str, data: bytes, *, ranks: Sequence[int]) -> None:
        """Put what is at hand there."""
        with self._part(key) as stream:
            self._ready(key, stream, data, ranks)

    def _part(self, key: str) -> _Part:
        return _Part(self._folder / (_name(key) + _PART))

    def _is_taken(self, key: str, rank: int) -> bool:
        return (self._folder / str(rank) / (_name(key) + _MINE)).exists()

    def _ready(self, key: str, stream: BinaryIO, data: Buffer, ranks: Sequence[int]) -> None:
        stream.write(data)
        stream.flush()
        for rank in ranks:
            os.link(stream.name, self._folder / str(rank) / _name(key))


class _Part:
    """A file that is being written, locked as long as it is."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("wb")
        fcntl.flock(self._stream, fcntl.LOCK_EX)

    def __enter__(self) -> BinaryIO:
        return self._stream

    def __exit__(self, *_: object) -> None:
        Path(self._stream.name).unlink(missing_ok=True)
        self._stream.close()


def _name(key: str) -> str:
    return key.rpartition("/")[2]


def _fill(stream: BinaryIO, target: memoryview) -> int:
    view, count = target.cast("B"), 0
    while count < view.nbytes:
        read = stream.readinto(view[count:])  # type: ignore[attr-defined] # BinaryIO lacks it
        if not read:
            break
        count += read
    return count


def _await_end(part: Path) -> None:
    """Wait until a download has ended or its writer is dead; not for ever."""
    with suppress(FileNotFoundError), part.open("rb") as stream:
        until_us = monotonic_us() + _PATIENCE_US
        while monotonic_us() < until_us:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pause(_LOOK_S)
            else:
                return


def command(order: PrefetchOrder) -> list[str]:
    """Return the command of a process that fetches; nothing of its folder is on its path."""
    start = (
        "import sys; sys.path.append(sys.argv[1]); "
        "from checkpointing.prefetch import main; main(sys.argv[2])"
    )
    home = str(Path(__file__).resolve().parents[1])
    return [sys.executable, "-I", "-c", start, home, json.dumps(asdict(order))]


def main(text: str) -> None:
    """Fetch; what cannot be fetched now is the training's to report."""
    fields = json.loads(text)
    order = PrefetchOrder(**{**fields, "ranks": tuple(fields["ranks"])})
    with suppress(CheckpointError):
        fetch(order, storage=open_storage(order.uri))

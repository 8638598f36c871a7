"""Deleting chunks that another writer may need this very moment: the protocol, and why it is safe.

Chunks are shared by all jobs under a root and are named by their content, so a save may come to
need a chunk that a sweep has found to be garbage: the same bytes again (a training that starts over
with the same seed, a state that returns), or bytes that a slow save stored long before its manifest
names them. Looking at times does not help: between a sweep's listing and its deletion anything can
happen, and a store deletes whatever is there by then. So writer and sweep each raise a flag before
they look for the other's (as in Dekker's algorithm), and a store that lists what was written before
makes sure that at least one of them sees the other.

    writer                                   sweep
    w1 list sweeps/                          s1 list jobs/, chunks/: what does nobody need?
    w2 PUT the chunks                        s2 PUT-if-absent sweeps/<seq>.json: the doomed names
    w3 PUT the manifest (a part's intent)    s3 list jobs/ again: keep what is needed by now
    w4 list sweeps/ again                    s4 delete manifests, then chunks
    w5 commit (PUT the part)                 s5 PUT sweeps/<seq>.done

Why no committed manifest ever names a chunk that was deleted, or will be:

1. A chunk that the save PUT (w2). If a sweep's s3 comes after w3, it reads the manifest and keeps
   the chunk. Otherwise s2 < s3 < w3 < w4: the writer finds the sweep's record, unless it is one of
   those that it saw at w1. Of those, a finished one deletes nothing any more, and the names of an
   unfinished one were avoided at w2. A chunk that a new record dooms is PUT again under a *copy's*
   name, `<blake3>.<n>` with n the newest sweep seen. No sweep up to n can doom that name, as nobody
   could know it before record n was there; of later sweeps, the next look at w4 tells.
2. A chunk that the save did not send, because this session sent it before or took it over from a
   manifest. The session looks at every record since then, also at those of finished sweeps, and
   takes no chunk for stored that one of them dooms.
3. A manifest that is taken over (a restore point, a parent in another job) is pinned first: PUT the
   pin, list sweeps/, see that the manifest is there. If it is, no finished sweep has taken any of
   its chunks, since manifests go first; and what an unfinished one dooms is not taken over.
4. A chunk of a committed manifest. A sweep that sees the manifest needs the chunk. Does it see it,
   or the one that took its place? A listing is no snapshot: it could pass the successor's place too
   early and the predecessor's, just retired, too late. But manifests are deleted only by sweeps,
   and sweeps exclude each other (a number is taken once, and only when the one before is finished
   or dead), so nothing disappears during s3, and what appears is case 1.

No clock is compared in all that. The grace period only spares saves in flight the cost of copies;
it may be zero. Time counts at two far ends: a sweep stops deleting `LIMIT_US` after its start, is
taken for dead after twice that, and its record is dropped after `RECORD_LIFE_US`; and a manifest
that was never committed is garbage after `ORPHAN_US`. To go wrong, a process must freeze for hours
between two adjacent statements and then go on. A save that meets a gap in the numbers, because it
took longer than records live, is given up.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final

from checkpointing.clock import now_us
from checkpointing.errors import CheckpointError, MissingObject
from checkpointing.keys import (
    SWEEPS,
    StoredObject,
    chunk_key,
    chunk_name,
    split_name,
    sweep_key,
    sweep_seq,
)
from checkpointing.manifest import items, text
from checkpointing.sealed import seal, unseal
from checkpointing.storage import Storage

FORMAT: Final = "lowtide-sweep"
VERSION: Final = 1
LIMIT_US: Final = 30 * 60 * 1_000_000
RECORD_LIFE_US: Final = 24 * 3_600 * 1_000_000


@dataclass(frozen=True, slots=True)
class Sweeps:
    """One look at `sweeps/`."""

    records: dict[int, StoredObject]
    done: frozenset[int]

    @property
    def newest(self) -> int:
        """The highest number; 0 for none."""
        return max(self.records, default=0)

    def after(self, seq: int) -> tuple[int, ...] | None:
        """Return the numbers above `seq`; None if some are missing, dropped long ago."""
        fresh = tuple(sorted(number for number in self.records if number > seq))
        return fresh if not fresh or fresh[0] == seq + 1 else None

    @property
    def unfinished(self) -> tuple[int, ...]:
        """Sweeps that are at work, or died."""
        return tuple(sorted(self.records.keys() - self.done))


class SweepLog:
    """The numbered records of all sweeps under a root."""

    def __init__(self, storage: Storage) -> None:
        """Records never change, so each is read once."""
        self._storage = storage
        self._doomed: dict[int, frozenset[str] | None] = {}

    def look(self) -> Sweeps:
        """List the records."""
        found = self._storage.list(SWEEPS)
        numbered = [(sweep_seq(item.key), item) for item in found]
        return Sweeps(
            {seq: item for seq, item in numbered if seq and item.key == sweep_key(seq)},
            frozenset(seq for seq, item in numbered if seq and item.key.endswith(".done")),
        )

    def doomed(self, seq: int) -> frozenset[str] | None:
        """Return the keys that a sweep was about to delete; None: unreadable, so perhaps all."""
        if seq not in self._doomed:
            self._doomed[seq] = self._read(seq)
        return self._doomed[seq]

    def _read(self, seq: int) -> frozenset[str] | None:
        key = sweep_key(seq)
        try:
            data = self._storage.get(key)
        except MissingObject:
            return None
        try:
            fields = unseal(data, key=key, wanted_format=FORMAT, version=VERSION)
            return frozenset(text(item) for item in items(fields["doomed"]))
        except (CheckpointError, KeyError, TypeError):  # damaged, or of a newer version
            return None

    def begin(self, doomed: Collection[str], *, nonce: str) -> int | None:
        """Announce a sweep; return its number, or None while another one is at work."""
        found = self.look()
        if any(_is_alive(found.records[seq]) for seq in found.unfinished):
            return None
        seq = found.newest + 1
        body = {"format": FORMAT, "version": VERSION, "nonce": nonce, "doomed": sorted(doomed)}
        data = seal(body)
        self._storage.put_if_absent(sweep_key(seq), data)
        # Also true after a lost answer; and false where a store ignored the condition and another
        # sweep wrote over ours.
        return seq if self._storage.get(sweep_key(seq)) == data else None

    def end(self, seq: int) -> None:
        """Say that a sweep deletes nothing any more, and drop records that no save can need."""
        self._storage.put(sweep_key(seq, done=True), b"")
        for old, item in self.look().records.items():
            if old != seq and now_us() - item.modified_us > RECORD_LIFE_US:
                self._storage.delete(sweep_key(old))
                self._storage.delete(sweep_key(old, done=True))


class SaveGuard:
    """The writer's side, for one rank's session: which chunks are there, and stay there.

    Each save calls `begin`, then `place` and `sent` for each chunk, stores its manifest, and asks
    `lost` before anybody may rely on it. One listing at each end.
    """

    def __init__(self, storage: Storage) -> None:
        """Ask the store nothing yet."""
        self._sweeps = SweepLog(storage)
        self._known: dict[str, str] = {}
        self._seen = 0
        self._barred: set[str] = set()
        self._all_barred = False

    def adopt(self, names: Iterable[str], *, is_there: Callable[[], bool]) -> None:
        """Take over the chunks of a manifest that was pinned before; see case 3.

        `is_there` asks the store whether the manifest exists.
        """
        self._known.clear()
        found = self._sweeps.look()
        if is_there():
            self._known.update((split_name(name)[0], name) for name in names)
        self._seen = found.newest
        for seq in found.unfinished:
            self._forget(self._sweeps.doomed(seq))

    def keep(self, names: Collection[str]) -> None:
        """Remember only `names`: the others are not likely to be needed again."""
        self._known = {blake3: name for blake3, name in self._known.items() if name in names}

    def begin(self) -> None:
        """Start a save."""
        found = self._sweeps.look()
        fresh = found.after(self._seen)
        if fresh is None:
            self._known.clear()
        for seq in {*(fresh or ()), *found.unfinished}:
            self._forget(self._sweeps.doomed(seq))
        self._barred, self._all_barred, self._seen = set(), False, found.newest
        for seq in found.unfinished:
            self._bar(self._sweeps.doomed(seq))

    def place(self, blake3: str) -> tuple[str, bool]:
        """Return the name under which these bytes are or go, and whether they are there."""
        if blake3 in self._known:
            return self._known[blake3], True
        barred = self._all_barred or chunk_key(blake3) in self._barred
        return chunk_name(blake3, copy=self._seen if barred else 0), False

    def sent(self, name: str) -> None:
        """Take note that a chunk was stored by this save."""
        self._known[split_name(name)[0]] = name

    def lost(self, names: Collection[str], *, document: str) -> frozenset[str]:
        """Return those of `names` that a sweep may delete; `document` is the manifest's key.

        Call it when the manifest is stored, again after each repair, and commit when it is empty.
        Raises `CheckpointError` if the save cannot be repaired: the next one can.
        """
        found = self._sweeps.look()
        fresh = found.after(self._seen)
        dooms = [self._sweeps.doomed(seq) for seq in fresh or ()]
        if fresh is None or any(document in doomed for doomed in dooms if doomed is not None):
            raise _overtaken()
        self._seen = found.newest
        for doomed in dooms:
            self._bar(doomed)
            self._forget(doomed)
        return frozenset(names) - set(self._known.values())

    def _bar(self, doomed: frozenset[str] | None) -> None:
        if doomed is None:
            self._all_barred = True
        else:
            self._barred |= doomed

    def _forget(self, doomed: frozenset[str] | None) -> None:
        if doomed is None:
            self._known.clear()
        else:
            stay = {b: name for b, name in self._known.items() if chunk_key(name) not in doomed}
            self._known = stay


def _is_alive(record: StoredObject) -> bool:
    return now_us() - record.modified_us < 2 * LIMIT_US


def _overtaken() -> CheckpointError:
    return CheckpointError(
        "save-overtaken",
        cause="The save was given up: a sweep may have deleted what it had stored.",
        remedy="Training goes on and the next save stores everything that it needs.",
    )

"""The arena: state copied into one preallocated, touched, reused memory, so training can go on.

The cost of a snapshot is page faults, not copying; an arena whose pages were touched once copies at
memory speed. It is a `memfd`: shared memory that the uploader process maps through its descriptor.
It has no name, so that nothing can be left behind in `/dev/shm`, and `/dev/shm`'s own limit (64 MiB
in many containers) does not hold for it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, cast

import torch

from checkpointing.errors import CheckpointError
from checkpointing.gate import Copy
from checkpointing.layout import Layout, plan_layout
from checkpointing.manifest import TensorEntry
from checkpointing.snapshot import Snapshot
from checkpointing.state_tree import FlatState
from checkpointing.tensor_bytes import TensorLeaf, address_of, copy_into

_HEADROOM_PERCENT: Final = 2  # a state that grows a little (a counter, a list) keeps its arena
_HEADROOM_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where tensors of these kinds go; most saves of a training have the same."""

    kinds: list[object]
    layout: Layout
    entries: tuple[TensorEntry, ...]


class Arena:
    """Owns the memory. One snapshot at a time: the caller waits for the last upload first."""

    def __init__(self) -> None:
        """Allocate nothing yet: the first snapshot says how much is needed."""
        self.descriptor: int | None = None
        """The memory, for another process to map; None where the system has no `memfd`."""
        self.allocations = 0
        """Times that memory was allocated and touched; 1 in a healthy training."""
        self._memory: torch.Tensor | None = None
        self._previous: Layout | None = None
        self._plan: _Plan | None = None
        self._closer: weakref.finalize[..., Arena] | None = None

    def take(self, flat: FlatState, *, step: int, at_us: int) -> Snapshot:
        """Copy `flat` into the arena; raise `CheckpointError` if memory would not fit."""
        snapshot, _ = self.begin(flat, step=step, at_us=at_us, later=lambda _leaf: False)
        return snapshot

    def begin(
        self, flat: FlatState, *, step: int, at_us: int, later: Callable[[TensorLeaf], bool]
    ) -> tuple[Snapshot, tuple[Copy, ...]]:
        """Copy what `later` does not hold back; return the copies that are still to be made."""
        plan = self._planned(flat)
        memory = self._fitting(plan.layout)
        copies = []
        for leaf, offset, size in zip(
            flat.leaves, plan.layout.offsets, plan.layout.sizes, strict=True
        ):
            if later(leaf):
                copies.append(_later(leaf, memory, offset))
            else:
                _copy(leaf, memory, offset=offset, size=size)
        view = memory.numpy().data
        snapshot = Snapshot(step, at_us, flat.tree, plan.entries, plan.layout.chunks, view)
        return snapshot, tuple(copies)

    def _planned(self, flat: FlatState) -> _Plan:
        """Lay out `flat`, as the last time if its tensors are of the same kinds."""
        kinds: list[object] = [
            (leaf.nbytes, leaf.group, leaf.dtype, leaf.shape, leaf.shard) for leaf in flat.leaves
        ]
        if self._plan is None or self._plan.kinds != kinds:
            layout = plan_layout(
                [leaf.nbytes for leaf in flat.leaves], groups=[leaf.group for leaf in flat.leaves]
            )
            entries = tuple(
                TensorEntry(leaf.dtype, leaf.shape, layout.parts(number), leaf.shard)
                for number, leaf in enumerate(flat.leaves)
            )
            self._plan = _Plan(kinds, layout, entries)
        return self._plan

    def close(self) -> None:
        """Give the memory back; whoever else has mapped it keeps it."""
        self._memory = self._previous = None
        self.descriptor = None
        if self._closer is not None:
            self._closer()
            self._closer = None

    def _fitting(self, layout: Layout) -> torch.Tensor:
        if self._memory is None or self._memory.numel() < layout.total_bytes:
            self.close()  # forgets the previous layout too
            self._memory = self._allocate(_with_headroom(layout.total_bytes))
            self.allocations += 1
        if layout != self._previous:
            # Gaps must not keep old bytes: equal states have equal chunks. It also touches every
            # page in use, so that no later snapshot pays for it; the headroom costs nothing yet.
            self._memory[: layout.total_bytes].zero_()
        self._previous = layout
        return self._memory

    def _allocate(self, size: int) -> torch.Tensor:
        free = available_bytes()
        if free is not None and size > free:
            raise _too_small(size, free)
        try:
            memory = torch.frombuffer(self._mapping(size), dtype=torch.uint8)
        except OSError as error:
            raise _too_small(size, free or 0) from error
        _pin(memory)
        return memory

    def _mapping(self, size: int) -> mmap.mmap:
        if not hasattr(os, "memfd_create"):
            return mmap.mmap(-1, size)
        self.descriptor = os.memfd_create("lowtide-arena", os.MFD_CLOEXEC)
        # Also where nobody calls `close`: an arena that is forgotten must not keep a descriptor.
        self._closer = weakref.finalize(self, os.close, self.descriptor)
        os.ftruncate(self.descriptor, size)
        return mmap.mmap(self.descriptor, size)


def _copy(leaf: TensorLeaf, memory: torch.Tensor, *, offset: int, size: int) -> None:
    address = address_of(leaf)
    if address is None:
        copy_into(leaf, memory[offset : offset + size])
    else:
        # A plain memcpy in this thread: torch would start its thread pool for every tensor, which
        # on a busy machine is many times slower, and numpy or a slice of the arena cost
        # microseconds each, for hundreds of tensors.
        ctypes.memmove(memory.data_ptr() + offset, address, size)


def _later(leaf: TensorLeaf, memory: torch.Tensor, offset: int) -> Copy:
    source = cast("torch.Tensor", leaf.source)
    make = partial(_copy, leaf, memory, offset=offset, size=leaf.nbytes)
    return Copy(source, source._version, make)  # noqa: SLF001 - torch's own write counter


def available_bytes() -> int | None:
    """Return the memory that can be taken without swapping (Linux), None where unknown.

    The smaller of what the machine has and what the container's limit (cgroup v2) leaves.
    """
    found = [_machine_bytes(), _container_bytes()]
    return min((size for size in found if size is not None), default=None)


def _machine_bytes() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None


def _container_bytes(folder: Path = Path("/sys/fs/cgroup")) -> int | None:
    try:
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = int((folder / "memory.current").read_text(encoding="ascii"))
        statistics = (folder / "memory.stat").read_text(encoding="ascii").split()
    except OSError:
        return None
    if limit == "max":
        return None
    # Cached files count as used and are given up when memory is wanted.
    cached = int(statistics[statistics.index("inactive_file") + 1])
    return max(0, int(limit) - used + cached)


def _with_headroom(size: int) -> int:
    wanted = size + max(size * _HEADROOM_PERCENT // 100, _HEADROOM_BYTES)
    return -(-wanted // mmap.PAGESIZE) * mmap.PAGESIZE


def _pin(memory: torch.Tensor) -> None:
    """Let a GPU copy straight into the arena; a GPU that nobody uses is not woken."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        runtime.cudaHostRegister(memory.data_ptr(), memory.numel(), 0)


def _too_small(size: int, free: int) -> CheckpointError:
    return CheckpointError(
        "memory-too-small",
        cause=f"A snapshot needs {size:,} bytes of memory and {free:,} are available.",
        remedy="Give the node more memory, or train with a smaller state.",
    )

"""The snapshot: state copied into one preallocated, touched, reused arena, so training can go on.

The cost of a snapshot is page faults, not copying; an arena whose pages were touched once copies at
memory speed. It is a `memfd` where the system has one, so that another process can map it.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from checkpointing.errors import CheckpointError
from checkpointing.layout import Layout, plan_layout
from checkpointing.manifest import TensorEntry
from checkpointing.state_tree import FlatState
from checkpointing.tensor_bytes import copy_into

_HEADROOM_PERCENT = 10  # a state that grows a little (a counter, a list) keeps its arena


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A state at one step boundary. `data` is valid until the arena takes the next snapshot."""

    step: int
    at_us: int
    tree: object
    tensors: tuple[TensorEntry, ...]
    chunks: tuple[memoryview, ...]

    @property
    def length(self) -> int:
        """Bytes of all chunks."""
        return sum(chunk.nbytes for chunk in self.chunks)


class Arena:
    """Owns the buffer. One snapshot at a time: the caller waits for the last upload first."""

    def __init__(self) -> None:
        """Allocate nothing yet: the first snapshot says how much is needed."""
        self._memory: torch.Tensor | None = None
        self._previous: Layout | None = None
        self.allocations = 0
        """Times that memory was allocated and touched; 1 in a healthy training."""

    def take(self, flat: FlatState, *, step: int, at_us: int) -> Snapshot:
        """Copy `flat` into the arena; raise `CheckpointError` if memory would not fit."""
        sizes = [leaf.nbytes for leaf in flat.leaves]
        layout = plan_layout(sizes, groups=[leaf.group for leaf in flat.leaves])
        memory = self._fitting(layout)
        for leaf, offset in zip(flat.leaves, layout.offsets, strict=True):
            copy_into(leaf, memory[offset : offset + leaf.nbytes])
        view = memory.numpy().data
        return Snapshot(
            step=step,
            at_us=at_us,
            tree=flat.tree,
            tensors=tuple(
                TensorEntry(leaf.dtype, leaf.shape, layout.parts(number))
                for number, leaf in enumerate(flat.leaves)
            ),
            chunks=tuple(view[start:end] for start, end in layout.chunks),
        )

    def _fitting(self, layout: Layout) -> torch.Tensor:
        if self._memory is None or self._memory.numel() < layout.total_bytes:
            self._memory = _allocate(layout.total_bytes * (100 + _HEADROOM_PERCENT) // 100)
            self.allocations += 1
        elif layout != self._previous:
            self._memory.zero_()  # gaps must not keep old bytes: equal states have equal chunks
        self._previous = layout
        return self._memory


def available_bytes() -> int | None:
    """Return the memory that can be taken without swapping (Linux), None where unknown."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None


def _allocate(size: int) -> torch.Tensor:
    free = available_bytes()
    if free is not None and size > free:
        raise CheckpointError(
            "memory-too-small",
            cause=f"A snapshot needs {size:,} bytes of memory and {free:,} are available.",
            remedy="Give the node more memory, or train with a smaller state.",
        )
    memory = torch.frombuffer(_mapping(max(size, mmap.PAGESIZE)), dtype=torch.uint8)
    return memory.zero_()  # touches every page, so that no later snapshot pays for it


def _mapping(size: int) -> mmap.mmap:
    if not hasattr(os, "memfd_create"):
        return mmap.mmap(-1, size)
    descriptor = os.memfd_create("lowtide-arena", os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, size)
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)

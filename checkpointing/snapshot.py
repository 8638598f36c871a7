"""A state at one step boundary, as bytes in memory and what they mean. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from checkpointing.manifest import TensorEntry


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """`memory` is valid until the arena takes the next snapshot."""

    step: int
    at_us: int
    """Instant at which it was taken, wall clock, microseconds UTC."""
    tree: object
    tensors: tuple[TensorEntry, ...]
    ranges: tuple[tuple[int, int], ...]
    """Half-open ranges of bytes of `memory`, one per chunk."""
    memory: memoryview

    @property
    def length(self) -> int:
        """Bytes of all chunks."""
        return sum(end - start for start, end in self.ranges)

    @property
    def chunks(self) -> tuple[memoryview, ...]:
        """The bytes of each chunk, not copied."""
        assert all(end <= self.memory.nbytes for _, end in self.ranges), "memory of another arena"
        return tuple(self.memory[start:end] for start, end in self.ranges)

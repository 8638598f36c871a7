"""One hash over a model's weights, to prove that two trainings ended with equal bytes."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from blake3 import blake3

from checkpointing.manifest import canonical
from checkpointing.state_tree import flatten
from checkpointing.tensor_bytes import raw_leaf_bytes


@runtime_checkable
class HasState(Protocol):
    """Anything whose state can be read."""

    def state_dict(self) -> object:
        """Return the state."""


def digest_state(subject: object) -> str:
    """Return the BLAKE3, in hex, of a model's (or any state tree's) structure and tensor bytes.

    Equal digests mean equal names, dtypes, shapes and bytes; device and strides do not matter.
    """
    state = subject.state_dict() if isinstance(subject, HasState) else subject
    flat = flatten(state)
    hasher = blake3(canonical(flat.tree))
    for leaf in flat.leaves:
        hasher.update(canonical([leaf.dtype, list(leaf.shape)]))
        hasher.update(raw_leaf_bytes(leaf))
    return hasher.hexdigest()

"""Checkpoints for PyTorch training: saved without stopping, trusted when loaded.

    from checkpointing import Session

    with Session(model=model, optimizer=optimizer) as session:
        for step in session.steps(total):
            ...

Importing this package imports nothing heavy; torch comes with the first name that needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from checkpointing.digest import digest_state
    from checkpointing.errors import CheckpointError, FencedOut
    from checkpointing.loader import ResumableLoader
    from checkpointing.session import Session

__all__ = ["CheckpointError", "FencedOut", "ResumableLoader", "Session", "digest_state"]

_HOMES: Final = {
    "CheckpointError": "checkpointing.errors",
    "FencedOut": "checkpointing.errors",
    "ResumableLoader": "checkpointing.loader",
    "Session": "checkpointing.session",
    "digest_state": "checkpointing.digest",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)

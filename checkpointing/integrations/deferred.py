"""Parts of a trainer that come to exist only after the checkpoint was read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from checkpointing.errors import CheckpointError

_APPLY_ERRORS: Final = (KeyError, TypeError, ValueError, RuntimeError, IndexError, AttributeError)


class Deferred:
    """Stands for an object that `find` returns once it exists; None before, and where it is not.

    A trainer builds its optimizer in the middle of its own start, and must know before where to go
    on: so the state is kept when the session restores it, and handed over by `apply`.
    """

    def __init__(self, name: str, *, find: Callable[[], Any]) -> None:
        """`name` is for messages."""
        self._name = name
        self._find = find
        self._state: object = None

    def state_dict(self) -> object:
        """Return the object's state, None while there is no object."""
        found = self._find()
        return None if found is None else found.state_dict()

    def load_state_dict(self, state: object) -> None:
        """Keep a state for later."""
        self._state = state

    def apply(self) -> None:
        """Hand over the state that was kept, once; raise `CheckpointError` if it does not fit."""
        state, self._state = self._state, None
        if state is None:
            return
        try:
            self._find().load_state_dict(state)
        except _APPLY_ERRORS as error:
            raise CheckpointError(
                "restore-mismatch",
                cause=f"The {self._name} does not take its saved state: {error}",
                remedy="Undo the change, or submit it as a new job with a fresh start.",
            ) from error

"""Keeping Python's garbage collector out of the few milliseconds in which training stands still."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_paused() -> Iterator[None]:
    """Let no collection start inside.

    Taking a state apart makes thousands of containers, which sets one off; walking the million
    objects of torch then takes longer than the copy itself.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()

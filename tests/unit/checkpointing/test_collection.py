"""The garbage collector rests while a state is taken, and only then."""

from __future__ import annotations

import gc

import pytest

from checkpointing.collection import collection_paused


def _fail_inside(seen: list[bool]) -> None:
    with collection_paused():
        seen.append(gc.isenabled())
        raise ValueError("x")


def test_it_rests_inside_and_goes_on_after() -> None:
    """Also when the body fails."""
    assert gc.isenabled()
    seen: list[bool] = []
    with pytest.raises(ValueError, match="x"):
        _fail_inside(seen)
    assert seen == [False]
    assert gc.isenabled()


def test_who_switched_it_off_finds_it_off() -> None:
    """A training that collects by itself is not overruled."""
    gc.disable()
    try:
        with collection_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()

"""The linear program of a queue: its optimum, its prices and its parts on worlds done by hand."""

from __future__ import annotations

import numpy as np
import pytest

from scheduler.horizon_model import Demand, Supply, build, shadows, shares, worths
from scheduler.horizon_solver import SolverLimitError, solve

HOURS = 4


def supply(*, cheap_room: float) -> Supply:
    """Cheap capacity for a dollar with some room, dear capacity for three with plenty."""
    return Supply(
        usd=np.array([[1.0] * HOURS, [3.0] * HOURS]),
        room=np.array([[cheap_room] * HOURS, [100.0] * HOURS]),
        weight=np.ones(2),
    )


def demand(hours: float, *, until: int = HOURS, late_usd: float | None = None) -> Demand:
    """A job of one GPU that may use any hour before its deadline."""
    return Demand(group=(0, 1), need=hours, first=0, most=np.ones(until), late_usd=late_usd)


def test_scarce_hours_go_to_those_who_cannot_wait() -> None:
    """One cheap node: the tight job has it first, the other one after it; nobody pays three."""
    program = build(supply(cheap_room=1), [demand(2, until=2), demand(2)])
    found = solve(program)
    assert found is not None
    assert found.usd == pytest.approx(4)


def test_the_price_of_the_last_hour_tells_who_has_a_way_out() -> None:
    """Where cheap room runs out before the deadline, one more hour costs three, else one."""
    program = build(
        supply(cheap_room=1),
        [demand(2.5, until=2), demand(1)],
    )
    assert solve(program) is None  # 2.5 hours do not fit into two
    program = build(supply(cheap_room=1), [demand(2, until=2), demand(1, until=2), demand(1)])
    found = solve(program)
    assert found is not None
    assert found.usd == pytest.approx(2 + 3 + 1)
    tight, other, free = worths(program, found)
    assert free == pytest.approx(1)
    assert min(tight, other) >= 3 - 1e-9
    assert shadows(program, found)[0, :2] == pytest.approx([2, 2])


def test_the_parts_of_the_demands_add_up_to_the_optimum() -> None:
    """Nobody's money is lost or counted twice, what is late included."""
    program = build(
        supply(cheap_room=1.5),
        [demand(3), demand(2, until=3), demand(1.5, until=1, late_usd=30.0)],
    )
    found = solve(program)
    assert found is not None
    assert shares(program, found).sum() == pytest.approx(found.usd)


def test_splitting_hours_from_flavors_gives_nothing_away() -> None:
    """Jobs with different flavors share room, and none uses what is closed to it."""
    only_dear = Demand(group=(1,), need=1, first=0, most=np.ones(HOURS), late_usd=None)
    found = solve(build(supply(cheap_room=1), [only_dear, demand(4)]))
    assert found is not None
    assert found.usd == pytest.approx(3 + 4)


def test_a_limit_of_steps_is_an_error_and_no_answer() -> None:
    """A program that was cut off must not be taken for an optimum."""
    many = [demand(1 + index % 3, until=2 + index % 3, late_usd=9.0) for index in range(40)]
    with pytest.raises(SolverLimitError):
        solve(build(supply(cheap_room=3), many), iterations=1)

"""The cheapest set of stretches: never dearer than any plan that can be listed by hand."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.stretches import NEVER, Terms, cheapest_hours, solve


def listed(prices: tuple[float, ...], work: int, changeover: int) -> float:
    """Give the least cost by trying every set of slots in which a node is up."""
    best = NEVER
    for up in product((False, True), repeat=len(prices)):
        done, cost, warm = 0, 0.0, 0
        for price, on in zip(prices, up, strict=True):
            warm = warm + 1 if on else 0
            done += warm > changeover
            cost += price if on else 0.0
        if done >= work:
            best = min(best, cost)
    return best


@settings(max_examples=60, deadline=None)
@given(
    prices=st.lists(st.integers(1, 9), min_size=3, max_size=9),
    work=st.integers(1, 4),
    changeover=st.integers(0, 2),
)
def test_it_is_the_cheapest_of_all_plans(prices: list[int], work: int, changeover: int) -> None:
    """On whole slots the program agrees with a search through every plan."""
    given_prices = tuple(float(price) for price in prices)
    course = solve(Terms(given_prices, work, float(changeover), float(changeover)))
    found = min(course.wait[0], course.launch[0])
    assert found == pytest.approx(listed(given_prices, work, changeover))


def test_a_stop_is_taken_only_where_it_pays_for_its_changeover() -> None:
    """Two dear slots between cheap ones: skipped with a changeover of 1, trained through with 4."""
    prices = (1.0, 1.0, 5.0, 5.0, 1.0, 1.0, 1.0, 1.0)
    skipped = solve(Terms(prices, 4, 0.0, 1.0))
    assert skipped.launch[0] == pytest.approx(5.0)  # two slots, then a changeover and two more
    assert solve(Terms(prices[:6], 4, 0.0, 4.0)).launch[0] == pytest.approx(12.0)


def test_it_says_where_it_goes_on() -> None:
    """A job that stops before the dear slots launches again with the first cheap one."""
    course = solve(Terms((9.0, 9.0, 1.0, 1.0, 1.0), 2, 1.0, 1.0))
    assert course.wait[0] < course.stay[0]
    assert course.resumes(1) == 2


def test_work_that_does_not_fit_is_never_finished() -> None:
    """There is no price for the impossible."""
    course = solve(Terms((1.0, 1.0), 2, 1.0, 1.0))
    assert min(course.wait[0], course.launch[0]) >= NEVER
    assert course.resumes(0) is None


def test_the_cheapest_hours_are_a_bound() -> None:
    """The cheapest steps first, the last one in part; the dearest of them is named."""
    assert cheapest_hours([(10, 5), (10, 2), (10, 3)], 15) == (10 * 2 + 5 * 3, 3)
    assert cheapest_hours([(10, 5)], 15) == (50, 5)

"""Exact splits: shares and cuts add up, always."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.ledger.split import cost_between, gpu_ms_between, split

MONEY = st.integers(0, 2**63 - 1)
WEIGHTS = st.lists(st.integers(0, 10**12), min_size=1, max_size=20).filter(any)
# A decade in microseconds, cut in three: since <= start <= middle <= end.
INSTANTS = st.lists(st.integers(0, 315_360_000_000_000), min_size=4, max_size=4).map(sorted)
Amount = Callable[[int, int, int, int], int]


def cost(since_us: int, start_us: int, end_us: int, rate: int) -> int:
    """`cost_between` in nano-dollars."""
    return cost_between(start_us, end_us, since_us=since_us, usd_nanos_per_hour=rate)


def gpu_ms(since_us: int, start_us: int, end_us: int, rate: int) -> int:
    """`gpu_ms_between`."""
    return gpu_ms_between(start_us, end_us, since_us=since_us, gpu_milli=rate)


@given(MONEY, WEIGHTS)
def test_shares_add_up_to_the_whole(total: int, weights: list[int]) -> None:
    """No nano is lost or made, and no share is negative."""
    shares = split(total, weights=weights)
    assert sum(shares) == total
    assert min(shares) >= 0


@given(MONEY, WEIGHTS)
def test_each_share_is_within_one_unit_of_its_exact_value(total: int, weights: list[int]) -> None:
    """Largest remainder: less than one unit away; no weight, no share."""
    whole = sum(weights)
    for share, weight in zip(split(total, weights=weights), weights, strict=True):
        assert abs(share * whole - total * weight) < whole
        assert weight or not share


@given(MONEY, WEIGHTS)
def test_more_weight_is_never_a_smaller_share(total: int, weights: list[int]) -> None:
    """Shares keep the order of the weights; of equals the earlier one gets the odd unit."""
    shares = split(total, weights=weights)
    ordered = sorted(zip([-w for w in weights], range(len(weights)), shares, strict=True))
    assert [share for _, _, share in ordered] == sorted(shares, reverse=True)


@given(MONEY, WEIGHTS, st.integers(1, 1_000))
def test_the_unit_of_the_weights_does_not_matter(
    total: int, weights: list[int], factor: int
) -> None:
    """Seconds or milliseconds held: the same shares."""
    scaled = [weight * factor for weight in weights]
    assert split(total, weights=scaled) == split(total, weights=weights)


def test_ties_go_to_the_earlier_weight() -> None:
    """Replays need one answer."""
    assert split(10, weights=[1, 1, 1]) == [4, 3, 3]
    assert split(1, weights=[0, 5, 5]) == [0, 1, 0]


def test_nothing_over_no_weight_is_nothing() -> None:
    """Zero can be split over nobody; more cannot, nor can a negative amount or weight."""
    assert split(0, weights=[0, 0]) == [0, 0]
    assert split(0, weights=[]) == []
    for total, weights in ((1, [0]), (-1, [1]), (1, [2, -1])):
        with pytest.raises(AssertionError):
            split(total, weights=weights)


@pytest.mark.parametrize("amount", [cost, gpu_ms])
@given(INSTANTS, st.integers(0, 10**15))
def test_a_cut_changes_no_sum(amount: Amount, instants: list[int], rate: int) -> None:
    """An interval cut anywhere costs and holds exactly what the whole does."""
    since, start, middle, end = instants
    parts = amount(since, start, middle, rate) + amount(since, middle, end, rate)
    assert parts == amount(since, start, end, rate)
    assert amount(since, start, end, rate) >= 0
    assert amount(since, start, start, rate) == 0


@pytest.mark.parametrize(("amount", "unit"), [(cost, 3_600_000_000), (gpu_ms, 1_000_000)])
@given(INSTANTS, st.integers(0, 10**15))
def test_the_whole_is_rounded_down_once(
    amount: Amount, unit: int, instants: list[int], rate: int
) -> None:
    """From its beginning on, a segment is the floor of rate x length."""
    since, _, _, end = instants
    assert amount(since, since, end, rate) == rate * (end - since) // unit


@pytest.mark.parametrize("amount", [cost, gpu_ms])
def test_time_that_runs_backwards_is_a_bug(amount: Amount) -> None:
    """An end before its start, or a start before the price, is refused."""
    for since, start, end in ((0, 5, 4), (5, 4, 6)):
        with pytest.raises(AssertionError):
            amount(since, start, end, 1)


def test_units() -> None:
    """An hour at a dollar is a dollar; two GPUs for a second are 2,000 GPU-milliseconds."""
    assert cost(0, 0, 3_600_000_000, 1_000_000_000) == 1_000_000_000
    assert gpu_ms(0, 0, 1_000_000, 2_000) == 2_000

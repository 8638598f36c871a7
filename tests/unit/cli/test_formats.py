"""Numbers, money and instants as people read them."""

from __future__ import annotations

import time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.cli import formats

CENT = formats.NANOS_PER_CENT


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (0, "$0.00"),
        (1, "<$0.01"),
        (-1, "-<$0.01"),
        (4_999_999, "<$0.01"),
        (5_000_000, "$0.01"),
        (1_234_567_890_000, "$1,234.57"),
        (-200_000_000, "-$0.20"),
    ],
)
def test_money_is_written_to_the_cent(nanos: int, text: str) -> None:
    """A little is never written as nothing, and a sign stands before the currency."""
    assert formats.dollars(nanos) == text


@given(st.lists(st.integers(-(10**15), 10**15), max_size=12))
def test_a_column_adds_up_to_its_rounded_total(amounts: list[int]) -> None:
    """Whoever adds up what is printed gets what is printed below, and no line is off by a cent."""
    shown = [cents(text) for text in formats.dollar_column(amounts)]
    assert sum(shown) == cents(formats.dollars(sum(amounts)))
    assert all(abs(c * CENT - amount) < CENT for c, amount in zip(shown, amounts, strict=True))


def cents(text: str) -> int:
    """Read an amount back; a little counts as nothing."""
    if "<" in text:
        return 0
    return int(Decimal(text.replace("$", "").replace(",", "")) * 100)


@given(st.integers(-(10**18), 10**18))
def test_exact_money_loses_nothing(nanos: int) -> None:
    """Nine decimals give the nano-dollars back."""
    text = formats.exact_dollars(nanos).replace("$", "").replace(",", "")
    assert int(Decimal(text) * 10**9) == nanos


@pytest.mark.parametrize(
    ("ms", "text"), [(0, "0.00 h"), (36_000, "0.0100 h"), (9_000_000, "2.50 h")]
)
def test_little_gpu_time_gets_more_digits(ms: int, text: str) -> None:
    """A demo of seconds does not read as zero."""
    assert formats.gpu_hours(ms) == text


def test_instants_are_local_and_name_their_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader's wall clock, and which one it is."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        assert formats.instant(1_796_101_200_000_000) == "2026-12-01 06:00:00 CET"
        assert formats.instant(None) == "-"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("ms", "text"), [(None, "-"), (-90_000, "-90 s"), (0, "0 s"), (7_200_000, "2.0 h")]
)
def test_spans_keep_their_sign(ms: int | None, text: str) -> None:
    """A missed deadline is negative slack."""
    assert formats.span(ms) == text


def test_shares_and_counts() -> None:
    """Nothing has no share, and one is singular."""
    assert (formats.percent(41, 100), formats.percent(1, 0)) == ("41 %", "-")
    assert (formats.counted(1, "file"), formats.counted(1_000, "file")) == ("1 file", "1,000 files")
    assert (formats.gpus(4_000), formats.gpus(250)) == ("4", "0.25")

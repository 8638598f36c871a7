"""The specification: what it takes, what it says when it does not, and that nothing is lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.codec import decode, encode, to_data
from jobs.durations import MAX_MS
from jobs.errors import SpecError
from jobs.spec import JobSpec, Market, parse_spec
from tests.builders import START_US, a_job

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=12)
ARGUMENTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
SECONDS = st.integers(0, MAX_MS // 1_000)
ZONES = st.integers(-14, 14).map(lambda hours: timezone(timedelta(hours=hours)))
SPECS = st.builds(
    JobSpec,
    script=WORDS,
    args=st.lists(ARGUMENTS, max_size=3).map(tuple),
    env=st.dictionaries(WORDS, ARGUMENTS, max_size=3),
    nodes=st.integers(1, 10_000),
    gpus=st.one_of(
        st.integers(0, 1_000).map(lambda milli: Decimal(milli) / 1_000),
        st.integers(1, 1_024).map(Decimal),
    ),
    memory_gb=st.decimals(0, 4_096, places=2),
    markets=st.lists(st.sampled_from(Market), max_size=3).map(tuple),
    deadline=st.one_of(
        st.none(),
        SECONDS,
        st.datetimes(min_value=datetime(2000, 1, 1), timezones=ZONES),  # noqa: DTZ001
    ),
    work=st.one_of(st.none(), SECONDS),
    setup=SECONDS,
    budget_usd=st.one_of(st.none(), st.decimals("0.000000001", 10**6, places=9)),
    team=WORDS,
    tags=st.dictionaries(WORDS, WORDS, max_size=3),
    priority=st.integers(-1_000, 1_000),
)


@given(SPECS)
def test_a_spec_survives_the_codec(spec: JobSpec) -> None:
    """What the store and the API keep is equal, and its bytes are canonical."""
    data = encode(spec)
    again = decode(data, into=JobSpec)
    assert again == spec
    assert encode(again) == data
    assert parse_spec(to_data(spec)) == spec


def test_one_spec_in_python_and_in_data() -> None:
    """The same names and values everywhere."""
    data = {"script": "a/train.py", "gpus": 4, "deadline": "6h", "work": "90m", "tags": {"a": "b"}}
    spec = parse_spec(data)
    assert spec == JobSpec(**data)
    assert (spec.gpu_milli, spec.work, spec.label) == (4_000, 5_400_000, "train")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"gpu": 4}, ("gpu", "gpus")),
        ({"gpus": "1.5"}, ("gpus", "whole number")),
        ({"gpus": "0.0001"}, ("gpus", "three decimals")),
        ({"gpus": -1}, ("gpus",)),
        ({"nodes": 0}, ("nodes",)),
        ({"deadline": "tomorrow"}, ("deadline", "6h30m")),
        ({"deadline": "2026-12-01T06:00"}, ("deadline", "time zone")),
        ({"work": float("inf")}, ("work", "hundred years")),
        ({"budget_usd": 0}, ("budget_usd",)),
        ({"budget_usd": "NaN"}, ("budget_usd",)),
        ({"markets": ["cheap"]}, ("markets", "spot")),
        ({"version": 2}, ("version",)),
        ({"priority": 1_001}, ("priority",)),
    ],
)
def test_an_error_names_the_field_and_a_remedy(
    wrong: dict[str, object], said: tuple[str, ...]
) -> None:
    """One cause, one remedy, never pydantic's own report."""
    with pytest.raises(SpecError) as caught:
        parse_spec({"script": "train.py", **wrong})
    assert all(part in str(caught.value) for part in said), str(caught.value)
    assert caught.value.remedy
    assert "pydantic" not in str(caught.value)


def test_a_deadline_counts_from_the_submit_or_is_an_instant() -> None:
    """Both become microseconds."""
    assert a_job().deadline("6h").build().deadline_us == START_US + 6 * 3_600_000_000
    instant = a_job().deadline("2026-12-01T01:00+01:00").build()
    assert instant.deadline_us == START_US
    assert datetime.fromtimestamp(START_US / 1e6, tz=UTC).isoformat() == "2026-12-01T00:00:00+00:00"


def test_a_spec_cannot_be_changed() -> None:
    """Rows share it."""
    with pytest.raises(ValueError, match="frozen"):
        a_job().spec().gpus = Decimal(2)  # type: ignore[misc]


def test_a_budget_is_exact() -> None:
    """Dollars become integer nanos without a float in between."""
    assert a_job().asking(budget_usd="0.1").spec().budget_nanos == 100_000_000
    assert a_job().spec().budget_nanos is None


@pytest.mark.parametrize(
    "data",
    [
        {"team": "a\0b"},
        {"name": "two\nlines"},
        {"tags": {"k": "\x1b[31m"}},
        {"args": ["\0"]},
        {"budget_usd": "1e300"},
    ],
)
def test_text_that_would_break_a_table_or_a_process_is_refused(data: dict[str, object]) -> None:
    """No control characters in labels, no NUL in arguments, no sum beyond the ledger."""
    with pytest.raises(SpecError):
        parse_spec({"script": "t.py", **data})

"""``lowtide quote``: what it sends, what it says, what it draws, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from jobs.codec import to_data
from jobs.quotes import Quote, Quoted, QuotedWay
from jobs.spec import NANOS_PER_USD
from scheduler.cli.submitting import NOT_FIELDS, submit
from tests.unit.cli.conftest import Lowtide
from tests.unit.jobs_client.tiny_api import TinyApi, problem

HOUR_US = 3_600_000_000
TOLD = Quoted(
    at_us=0,
    policy="lowtide",
    futures=64,
    cost_p50_usd_nanos=8 * NANOS_PER_USD,
    cost_p95_usd_nanos=12 * NANOS_PER_USD,
    start_p50_us=0,
    start_p95_us=HOUR_US,
    finish_p50_us=3 * HOUR_US,
    finish_p95_us=5 * HOUR_US,
    miss_permille=15,
)


def a_quote(*, curve: bool = True) -> Quote:
    """A quote of two deadlines."""
    ways = [
        QuotedWay(name=name, deadline_us=hours * HOUR_US, quoted=TOLD)
        for name, hours in (("deadline", 4), ("yours", 6))
    ]
    return Quote(
        name="train",
        deadline_us=6 * HOUR_US,
        budget_usd_nanos=None,
        quoted=TOLD,
        starts_permille=(("spot", 1_000),),
        evictions_permille=700,
        ahead=2,
        ways=(QuotedWay(name="start now", deadline_us=6 * HOUR_US, quoted=TOLD),) if curve else (),
        curve=tuple(ways) if curve else (),
    )


def test_it_says_cost_finish_and_risk(api: TinyApi, lowtide: Lowtide) -> None:
    """In a line, with the table of deadlines below; what was asked is the job and no more."""
    api.on("POST", "/v1/quotes", to_data(a_quote()))
    out = lowtide("quote", "train.py", "--work", "2h", "--deadline", "6h").out
    assert "$8.00 (P50) to $12.00 (P95)" in out
    assert "1.5 % risk of missing 1 Jan 06:00 UTC" in out
    assert "2 ahead in the queue, 0.7 evictions expected" in out
    assert "yours" in out
    (asked,) = api.asked("POST", "/v1/quotes")
    assert asked.data == {"version": 1, "script": "train.py", "work": "2h", "deadline": "6h"}


def test_json_is_the_quote(api: TinyApi, lowtide: Lowtide) -> None:
    """The same content, as data."""
    api.on("POST", "/v1/quotes", to_data(a_quote()))
    assert lowtide("quote", "train.py", "--work", "2h", "--json").data == to_data(a_quote())


def test_it_draws_the_curve(api: TinyApi, lowtide: Lowtide, tmp_path: Path) -> None:
    """An SVG file; without a curve, or for another kind of file, a clear no."""
    api.on("POST", "/v1/quotes", to_data(a_quote()))
    assert lowtide("quote", "train.py", "--work", "2h", "--plot", "curve.svg").code == 0
    assert (tmp_path / "curve.svg").read_text(encoding="utf-8").startswith("<svg ")
    refused = lowtide("quote", "train.py", "--plot", "curve.gif")
    assert (refused.code, "ends in .svg" in refused.err) == (2, True)
    assert lowtide("quote", "train.py", "--plot", "no/such/curve.svg").code == 2
    api.on("POST", "/v1/quotes", to_data(a_quote(curve=False)))
    refused = lowtide("quote", "train.py", "--plot", "curve.svg")
    assert (refused.code, "Give --work." in refused.err) == (2, True)


def test_it_is_refused_like_a_submit(api: TinyApi, lowtide: Lowtide) -> None:
    """The server's cause and remedy, and exit code 2."""
    cause = "The deadline cannot be met: the earliest finish is at noon, for about $3.00."
    told = problem("infeasible", cause, "Give a later deadline.")
    api.routes["POST", "/v1/quotes"] = lambda _: (422, told)
    refused = lowtide("quote", "train.py", "--work", "2h", "--deadline", "1s")
    assert refused.code == 2
    assert "the earliest finish is at noon" in refused.err


def test_it_takes_every_option_of_submit(lowtide: Lowtide) -> None:
    """What can be submitted can be quoted."""
    options = set(submit.__annotations__) - {*NOT_FIELDS, "return", "script", "args"}
    shown = lowtide("quote", "--help").out
    assert not [name for name in options if f"--{name.replace('_', '-')}" not in shown]


def test_what_never_ends_is_written_as_such(api: TinyApi, lowtide: Lowtide) -> None:
    """Percentiles that are not known have no number."""
    never = replace(TOLD, cost_p95_usd_nanos=None, finish_p95_us=None)
    api.on("POST", "/v1/quotes", to_data(replace(a_quote(), quoted=never)))
    assert "not within what was looked at (P95)" in lowtide("quote", "train.py").out

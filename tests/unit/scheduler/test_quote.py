"""Quotes: what a job costs and when it ends, by the futures that the decision makes of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from jobs.errors import InfeasibleError
from jobs.quotes import Quote
from jobs.spec import JobSpec
from scheduler.quote import earliest_finish_us, percentile, quote
from scheduler.quote_draws import hashed, key_of, spread
from scheduler.quote_plot import svg
from scheduler.quote_sky import Sky
from scheduler.quote_words import against, summary
from scheduler.snapshot import Snapshot
from tests.unit.scheduler.worlds import (
    EXACT,
    HOUR,
    USD,
    S,
    a_flavor,
    a_job,
    a_world,
    an_attempt,
    an_offer,
)

SURE = a_flavor("sure", usd=4)
SPOT = a_flavor("spot", usd=1)


def a_spec(**wishes: Any) -> JobSpec:
    """Two hours of work that is always saved."""
    return JobSpec(**{"script": "train.py", "work": "2h", "checkpoint_interval": 0, **wishes})


def a_market(**facts: Any) -> Snapshot:
    """Spot that is up, and on-demand beside it."""
    return a_world(offers=(an_offer(SPOT), an_offer(SURE)), **facts)


def test_without_chance_a_quote_is_exact() -> None:
    """On sure capacity every future is the same: boot and work, to the nano-dollar."""
    found = quote(a_world(offers=(an_offer(SURE),)), a_spec(deadline="4h"), others=False).quoted
    wall_us = 2 * HOUR + 60 * S
    assert (found.finish_p50_us, found.finish_p95_us) == (wall_us, wall_us)
    assert found.start_p95_us == 0
    assert found.cost_p50_usd_nanos == found.cost_p95_usd_nanos == 4 * USD * wall_us // HOUR
    assert found.miss_permille == 0


def test_the_same_question_gets_the_same_answer() -> None:
    """Nothing is drawn by lot: equal snapshots and specs give equal quotes, curve included."""
    assert quote(a_market(), a_spec(deadline="6h")) == quote(a_market(), a_spec(deadline="6h"))


def test_a_quote_follows_the_policy_that_will_run() -> None:
    """On-demand costs its price for sure; ours takes spot first, and is cheaper at the median."""
    dear = replace(EXACT, name="on-demand")
    sure = quote(a_market(settings=dear), a_spec(deadline="6h"), others=False)
    ours = quote(a_market(), a_spec(deadline="6h"), others=False)
    assert sure.starts_permille == (("sure", 1_000),)
    assert ours.starts_permille == (("spot", 1_000),)
    assert (ours.quoted.cost_p50_usd_nanos or 0) < (sure.quoted.cost_p50_usd_nanos or 0)


def test_no_future_misses_a_deadline_that_sure_capacity_can_meet() -> None:
    """The safety net is part of what is quoted."""
    found = quote(a_market(), a_spec(deadline="150m"), others=False)
    assert found.quoted.miss_permille == 0
    assert (found.quoted.finish_p95_us or 0) <= 150 * 60 * S


def test_a_later_deadline_costs_no_more() -> None:
    """The curve is over the same futures, so slack is seen to be money."""
    found = quote(a_market(), a_spec(deadline="6h"))
    costs = [way.quoted.cost_p50_usd_nanos for way in found.curve]
    assert [way.name for way in found.curve].count("yours") == 1
    assert found.curve[-1].deadline_us is None
    assert costs[0] is not None
    assert all(cost is not None and cost <= costs[0] for cost in costs)


def test_a_full_cluster_delays_the_start() -> None:
    """Others hold the only node for three more hours: it starts when they end."""
    small = a_flavor("sure", usd=4, max_nodes=1)
    other = a_job("other", work="3h")
    live = (an_attempt(other, small, training_s=0),)
    world = a_world(offers=(an_offer(small, room=0),), live=live)
    found = quote(world, a_spec(), others=False).quoted
    assert found.start_p50_us is not None
    assert found.start_p50_us >= 2.5 * HOUR


def test_who_waits_ahead_goes_first() -> None:
    """A queue ahead pushes the start back; a higher priority goes before it."""
    small = a_flavor("sure", usd=4, max_nodes=1)
    world = a_world(a_job("other", work="3h"), offers=(an_offer(small, room=1),), now_s=10)
    behind = quote(world, a_spec(), others=False)
    before = quote(world, a_spec(priority=1), others=False)
    assert (behind.ahead, before.ahead) == (1, 0)
    assert (behind.quoted.start_p50_us or 0) >= 3 * HOUR
    assert before.quoted.start_p50_us == 10 * S


def test_known_prices_count() -> None:
    """Inside a cheap window to come, the quote is for the window's price."""
    offer = replace(an_offer(SURE), next_prices=((3 * HOUR, 1 * USD), (9 * HOUR, 4 * USD)))
    found = quote(a_world(offers=(offer,)), a_spec(deadline="12h"), others=False).quoted
    assert found.start_p50_us == 3 * HOUR
    assert found.cost_p50_usd_nanos == (2 * HOUR + 60 * S) * USD // HOUR


def test_without_an_estimate_it_is_for_an_hour() -> None:
    """What is missing is said, and there is no curve."""
    found = quote(a_market(), JobSpec(script="train.py", deadline="6h"))
    assert found.quoted.per_hour
    assert found.curve == ()
    assert "--work" in found.notes[0]
    with pytest.raises(ValueError, match="curve"):
        svg(found)


def test_a_budget_that_is_too_small_is_said() -> None:
    """Half of the futures cost more than what it may cost, or none can even begin."""
    found = quote(a_world(offers=(an_offer(SURE),)), a_spec(budget_usd=8), others=False)
    assert any("budget" in note for note in found.notes)


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"deadline": "1h"}, "the earliest finish"),
        ({"deadline": "1969-12-31T00:00Z"}, "the earliest finish"),
        ({"nodes": 9}, "comes nearest"),
    ],
)
def test_what_cannot_be_is_refused_like_at_submit(wishes: dict[str, Any], words: str) -> None:
    """An impossible or a past deadline, and a gang that nothing holds."""
    with pytest.raises(InfeasibleError, match=words):
        quote(a_market(), a_spec(**wishes))


def test_the_earliest_finish_is_boot_and_work() -> None:
    """On sure capacity, whatever spot would take."""
    assert earliest_finish_us(a_market(), a_spec()) == 2 * HOUR + 60 * S


@pytest.mark.parametrize(
    ("values", "permille", "expected"),
    [
        ([1, 2, 3], 500, 2),
        ([10, 20], 500, 15),
        ([5], 950, 5),
        ([1, None, None], 500, None),
        ([1, 2, None], 500, 2),
        (range(1, 100), 950, 95),
    ],
)
def test_percentiles_are_order_statistics(
    values: list[int | None], permille: int, expected: int | None
) -> None:
    """Between neighbours by rank; what never comes is infinite."""
    assert percentile(values, permille) == expected


def test_draws_are_even_and_of_their_place() -> None:
    """The first draws of a dimension fill the line; later ones are functions of their counters."""
    key = key_of(1, "a")
    places = sorted(spread(key, dimension=3, index=index) for index in range(64))
    gaps = [second - first for first, second in pairwise(places)]
    assert max(gaps) < 4 / 64
    assert hashed(key, 1, 2) == hashed(key, 1, 2)
    assert len({hashed(key, one, two) for one in range(20) for two in range(20)}) == 400


def test_what_lasted_long_lasts_longer() -> None:
    """Spells of a sky follow the survival law: an old spell outlives a young one."""
    young = replace(an_offer(SPOT), levels=((-2 * HOUR, 0), (-60 * S, 4)))
    old = replace(an_offer(SPOT), levels=((-99 * HOUR, 0), (-98 * HOUR, 4)))

    def median_h(offer: Any) -> float:
        skies = (Sky.over((offer,), nodes=1, now_us=0, key=7, index=i) for i in range(65))
        return sorted(sky.until_us("spot", 0) for sky in skies)[32] / HOUR

    assert median_h(old) > 5 * median_h(young)


def a_quote() -> Quote:
    """A quote with everything in it."""
    return quote(a_market(), a_spec(deadline="6h", name="a <b> & c"))


def test_the_picture_is_a_picture() -> None:
    """Well-formed, with both curves, and names as text."""
    root = ET.fromstring(svg(a_quote()))  # noqa: S314 - our own
    kinds = [child.tag.rpartition("}")[2] for child in root]
    assert kinds.count("polyline") == 2
    assert "a <b> & c" in (root[0].text or "")


def test_a_quote_in_two_lines() -> None:
    """Cost, finish and risk, and what a start at once would be."""
    first, second, *_ = summary(a_quote())
    assert first.startswith("quote: $")
    assert "% risk of missing 1 Jan 06:00 UTC" in first
    assert second.strip().startswith("starting now: $")


def test_the_end_is_held_against_the_quote() -> None:
    """Cost and finish beside their percentiles, and what lies above P95 is said."""
    told = a_quote().quoted
    late_us = (told.finish_p95_us or 0) + HOUR
    cost, ended, started = against(told, cost_nanos=99 * USD, start_us=0, end_us=late_us)
    assert cost.startswith("cost $99.00, quoted $")
    assert "(above P95)" in cost
    assert "(above P95)" in ended
    assert "(above P95)" not in started

"""Several zones and regions: where a job starts, what it waits for, and when it moves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.flavors import Flavor
from cluster.offers import Offer
from cluster.prices import FlatPrices, StepSeries
from jobs.durations import US_PER_S
from jobs.reasons import Reason
from jobs.rows import JobRow
from jobs.spec import JobSpec
from jobs.state import State
from scheduler.catalog import Catalog
from scheduler.decide import decide
from scheduler.egress import egress_nanos, homes
from scheduler.plan import Plan
from scheduler.price_book import PriceBook
from scheduler.regions_table import Act, Terms, Tier, solve, state
from scheduler.scenario import Arrival, Capacity, Scenario
from scheduler.sim_report import report
from scheduler.simulator import simulate
from scheduler.snapshot import Snapshot
from tests.unit.scheduler.worlds import (
    HOUR,
    USD,
    S,
    a_flavor,
    a_job,
    a_node,
    a_point,
    a_world,
    an_attempt,
    an_offer,
)

EAST = a_flavor("spot-east", usd=1.0, boot_s=720)
WEST = a_flavor("spot-west", usd=1.2, boot_s=720, region="west", zone="west-1")
NEAR = a_flavor("spot-near", usd=3.5, boot_s=720, region="north", zone="north-1")
SURE = a_flavor("sure", usd=5, boot_s=720)
NOW_S = 20 * 3_600
OLD = ((0, 4),)
GONE = ((0, 4), (NOW_S * S - HOUR // 10, 0))
BACK = ((0, 4), (NOW_S * S - HOUR, 0), (NOW_S * S - HOUR // 10, 4))


def seen(flavor: Flavor, levels: tuple[tuple[int, int], ...]) -> Offer:
    """Give an offer with what was observed of it; the last level holds now."""
    return an_offer(flavor, levels=levels, limit=levels[-1][1], room=levels[-1][1])


def a_waiting(deadline: str) -> JobRow:
    """Give a job with 20 h of work, saved continuously, submitted now."""
    facts: dict[str, Any] = {"checkpoint_interval": 0, "checkpoint_gb": 50}
    return a_job("a", submitted_s=NOW_S, work="20h", deadline=deadline, **facts)


def planned(job: JobRow, *offers: Offer, **facts: Any) -> Plan:
    """Decide at the instant of submission."""
    return decide(a_world(job, now_s=NOW_S, offers=(*offers, an_offer(SURE)), **facts))


def flavors(plan: Plan) -> list[str]:
    """Give where the jobs start."""
    return [place.flavor for place in plan.places]


def test_the_cheapest_place_is_taken_when_all_look_alike() -> None:
    """Equal pasts: the price decides."""
    assert flavors(planned(a_waiting("30h"), seen(EAST, OLD), seen(WEST, OLD))) == ["spot-east"]


def test_a_place_that_lasts_is_worth_its_price_when_slack_is_short() -> None:
    """The cheaper zone came back minutes ago: with slack it is tried, without it is not."""
    offers = (seen(EAST, BACK), seen(WEST, OLD))
    assert flavors(planned(a_waiting("22h"), *offers)) == ["spot-west"]
    flat = replace(WEST, usd_nanos_per_hour=2 * USD)
    assert flavors(planned(a_waiting("60h"), seen(EAST, BACK), seen(flat, OLD))) == ["spot-east"]


def test_a_much_cheaper_place_is_waited_for_with_slack_and_not_without() -> None:
    """The cheap zone went minutes ago; the other one costs twice as much."""
    dear = replace(WEST, usd_nanos_per_hour=2 * USD)
    plan = planned(a_waiting("60h"), seen(EAST, GONE), seen(dear, OLD))
    assert (flavors(plan), plan.defers[0].reason) == ([], Reason.WAITS_FOR_SPOT)
    assert NOW_S * S < (plan.wake_at_us or 0) <= NOW_S * S + 2 * HOUR
    plan = planned(a_waiting("21h"), seen(EAST, GONE), seen(dear, OLD))
    assert flavors(plan) == ["spot-west"]


def test_spot_near_the_price_of_sure_capacity_only_stands_in_for_it() -> None:
    """With slack both wait for the cheap zones; where sure capacity is due, it comes before it."""
    gone = (seen(EAST, GONE), seen(WEST, GONE), seen(NEAR, OLD))
    assert flavors(planned(a_waiting("60h"), *gone)) == []
    down = tuple(seen(one, ((0, 0),)) for one in (EAST, WEST))
    assert flavors(planned(a_waiting("21h"), *down, seen(NEAR, OLD))) == ["spot-near"]


def moving(deadline: str = "40h", **facts: Any) -> Snapshot:
    """Give a job that trains in the dearer west while the east is up again."""
    job = replace(a_waiting(deadline), restore_point=a_point(3_600_000, at_s=NOW_S), attempts=1)
    west = replace(WEST, usd_nanos_per_hour=2 * USD)
    live = an_attempt(job, west, training_s=NOW_S)
    held = a_node("n1", west, free=0)
    return a_world(
        now_s=NOW_S,
        offers=(seen(EAST, OLD), seen(west, OLD), an_offer(SURE)),
        live=(live,),
        **{"nodes": (held,), **facts},
    )


def test_a_move_launches_first_and_leaves_when_the_nodes_are_ready() -> None:
    """Beside the running attempt a node boots; only when it is ready the attempt goes."""
    shot = moving()
    plan = decide(shot)
    assert [new.flavor for new in plan.new_nodes] == ["spot-east"]
    assert not plan.preempts
    ready = a_node("n2", EAST, ready_us=NOW_S * S, idle_since_us=NOW_S * S)
    plan = decide(replace(shot, nodes=(*shot.nodes, ready)))
    assert not plan.new_nodes
    assert not plan.releases
    assert [stop.reason for stop in plan.preempts] == [Reason.PREEMPTED]
    assert "spot-east" in plan.preempts[0].sentence


def test_a_move_must_leave_time_for_its_worst_death() -> None:
    """19 h are left: within 24 minutes of slack and changeover a death on the way would be late."""
    assert not decide(moving("19h20m")).new_nodes


def test_a_move_must_pay_for_its_egress() -> None:
    """The checkpoint lies in the west: at 0.02 $/GB it moves, at 1 $/GB it does not."""
    for usd, moves in ((0.02, 1), (1, 0)):
        prices = {("west", "east"): round(usd * USD)}
        plan = decide(moving(egress_nanos_per_gb=prices, homes={"a": "west"}))
        assert len(plan.new_nodes) == moves


def test_egress_counts_between_regions_only() -> None:
    """Within a region, and before there is anything to read, moving is free."""
    spec, prices = JobSpec(checkpoint_gb=50), {("west", "east"): USD // 50}
    assert egress_nanos(prices, spec, source="west", target="east") == USD
    assert egress_nanos(prices, spec, source="east", target="east") == 0
    assert egress_nanos(prices, spec, source="", target="east") == 0


def test_the_home_of_a_job_is_where_its_restore_point_was_made() -> None:
    """The attempt of the point's epoch tells; without egress prices nobody asks."""
    job = replace(a_waiting("30h"), restore_point=a_point(5, at_s=NOW_S, epoch=1))
    attempt = an_attempt(job, WEST, training_s=NOW_S).attempt
    rows = State()
    rows.attempts[attempt.id] = attempt
    catalog = Catalog(flavors={WEST.name: WEST}, prices=PriceBook(FlatPrices([WEST]), [WEST]))
    assert homes(rows, catalog, [job]) == {}
    priced = replace(catalog, egress_nanos_per_gb={("west", "east"): 1})
    assert homes(rows, priced, [job]) == {"a": "west"}
    assert homes(rows, priced, [replace(job, restore_point=None)]) == {}


TERMS = Terms(
    slot_h=0.2,
    changeover=1.0,
    cheap=Tier(1.0, 1.0, 1.0, 1.0, 0.0),
    dear=Tier(1.5, 1.0, 1.0, 1.0, 0.5),
    sure=5.0,
    egress=0.25,
)


def test_the_table_goes_to_sure_capacity_last() -> None:
    """Without slack only it is left; with slack the cheap tier is taken, then waited for."""
    table = solve(TERMS, slots=64, slack=24)
    up, down = state(20.0, up=True), state(0.0, up=False)
    assert table.idle[0, 60, up, up, 1] == Act.SURE
    assert table.idle[0, 60, up, up, 3] == Act.CHEAP
    assert table.idle[0, 60, down, up, 2] == Act.DEAR
    assert table.idle[0, 60, down, down, 24] == Act.WAIT


def test_slack_is_never_worth_less_than_nothing() -> None:
    """More time never makes the rest dearer."""
    table = solve(TERMS, slots=64, slack=24)
    assert np.all(table.slack[1:, :, :, 1:] >= -1e-6 * np.abs(table.slack[1:, :, :, 1:]))


STEPS = st.lists(st.integers(0, 1), min_size=24, max_size=24)


@pytest.mark.parametrize("probe", [False, True])
@settings(max_examples=8)
@given(east=STEPS, west=STEPS, spare_s=st.sampled_from((0, 700, 1_500, 5_000)))
def test_no_deadline_is_missed_whatever_the_regions_do(
    east: list[int], west: list[int], spare_s: int, *, probe: bool
) -> None:
    """Random zones, tight and loose deadlines, seen and unseen: sure capacity always saves it."""
    start_us = 1_000_000_000 * US_PER_S
    steps = [
        StepSeries.regular(levels, start_us=start_us, step_us=600 * US_PER_S)
        for levels in (east, west)
    ]
    spec = JobSpec(work=7_200, deadline=7_200 + 780 + 2 + spare_s, checkpoint_interval=0, setup=660)
    quick = [replace(one, boot_ms=60_000, max_nodes=1) for one in (EAST, WEST, SURE)]
    scenario = Scenario(
        start_us=start_us,
        end_us=start_us + 48 * HOUR,
        probe=probe,
        capacities=(
            *(
                Capacity(flavor=one, limits=limits)
                for one, limits in zip(quick, steps, strict=False)
            ),
            Capacity(flavor=quick[2], limits=StepSeries((start_us,), (1,))),
        ),
        arrivals=(Arrival(at_us=start_us, spec=spec),),
        egress_nanos_per_gb={("east", "west"): USD // 50},
    )
    figures = report(simulate(scenario))
    assert (figures["deadline_misses"], figures["unfinished"]) == (0, 0)
    assert figures["cost_usd"] >= figures["bound_usd"] - 1e-6
    assert figures["probe_usd"] >= 0

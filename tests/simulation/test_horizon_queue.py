"""Queues that are planned ahead, in random worlds: deadlines kept, no bill below the bound."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.sim_report import read_journal, report
from scheduler.simulation import Result, Simulation
from scheduler.snapshot import PolicySettings
from tests.simulation.test_bound import PHASES, a_world

pytestmark = pytest.mark.simulation


def planned(seed: int) -> Result:
    """Play a random world of eight jobs, planned ahead every quarter of an hour."""
    exact = PolicySettings(margin_percent=0)
    return Simulation(a_world(seed, jobs=8), settings=replace(exact, horizon_ms=900_000)).run()


@pytest.mark.slow
@pytest.mark.timeout(600)
@given(seed=st.integers(min_value=0, max_value=1 << 20))
@settings(max_examples=10, phases=PHASES, deadline=None)
def test_a_planned_queue_keeps_its_deadlines_and_costs_no_less_than_its_bound(seed: int) -> None:
    """Sure capacity is there for all, so an admitted deadline is met whatever the plan expected."""
    figures = report(planned(seed))
    assert figures["deadline_misses"] == 0
    if figures["bound_usd"]:
        assert figures["cost_usd"] >= figures["bound_usd"]


def test_a_planned_queue_plays_the_same_way_twice() -> None:
    """The solver's limit is a number of steps, so the journal does not depend on the machine."""
    assert read_journal(planned(7)) == read_journal(planned(7))

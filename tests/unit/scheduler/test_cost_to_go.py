"""What spot's spells look like, and what the expected cost of the rest advises."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from scheduler.cost_to_go import AGES_H, Action, Terms, chain, solve
from scheduler.survival import FIRST_AGE_H, US_PER_HOUR, Spell, present

TERMS = Terms(slot_h=0.1, up_factor=1.0, down_factor=1.0, changeover=2.0, ratio=3.0)


def hours(*steps: tuple[float, int]) -> tuple[tuple[int, int], ...]:
    """Give levels by the hour."""
    return tuple((round(at * US_PER_HOUR), level) for at, level in steps)


def test_a_spell_counts_for_the_gang_that_asks() -> None:
    """Eight nodes are up all the time, sixteen for half an hour."""
    levels = hours((0, 8), (1, 16))
    now_us = round(1.5 * US_PER_HOUR)
    small = present([levels], nodes=8, now_us=now_us, up=False)
    assert (small.up, small.age_h) == (True, FIRST_AGE_H + 1.5)
    large = present([levels], nodes=16, now_us=now_us, up=False)
    assert (large.up, large.age_h) == (True, 0.5)


def test_several_zones_are_up_while_one_is() -> None:
    """A gap in one zone that the other fills is no gap."""
    zones = [hours((0, 1), (1, 0)), hours((0, 0), (0.5, 1), (2, 0))]
    spell = present(zones, nodes=1, now_us=round(2.5 * US_PER_HOUR), up=True)
    assert (spell.up, spell.age_h) == (False, 0.5)


def test_a_place_that_flickers_is_feared_and_a_calm_one_is_trusted() -> None:
    """The factor moves away from 1 with what was seen, in both directions."""
    flicker = hours(*((at / 10, at % 2) for at in range(80)))
    spell = present([flicker], nodes=1, now_us=8 * US_PER_HOUR, up=True)
    assert min(spell.up_factor, spell.down_factor) > 1.3
    days = hours(*((12.2 * (at // 2) + 12 * (at % 2), 1 - at % 2) for at in range(80)))
    calm = present([days], nodes=1, now_us=500 * US_PER_HOUR, up=True)
    assert calm.up_factor < 1 <= calm.down_factor


def test_without_a_history_what_is_up_now_counts() -> None:
    """A new flavor is judged like any other."""
    assert present([()], nodes=1, now_us=0, up=False) == Spell(up=False, age_h=FIRST_AGE_H)


def test_the_chain_is_one_and_old_spells_last() -> None:
    """Rows add up to one; what has lasted survives a slot more surely than what is new."""
    whole, unbroken = chain(TERMS)
    assert np.allclose(whole.sum(axis=1), 1)
    assert np.all(whole >= 0)
    assert np.all(np.diff(unbroken.sum(axis=1)) > 0)


@pytest.mark.parametrize("age_h", [0.1, 1.0, 12.0])
def test_advice_follows_the_slack(age_h: float) -> None:
    """Spot when it is up and time is plenty, waiting without it, sure capacity at the end."""
    table = solve(TERMS, slots=160, slack=100)
    up, down = Spell(up=True, age_h=age_h), Spell(up=False, age_h=age_h)
    assert table.act(left=150, spare=100, spell=up) is Action.SPOT
    assert table.act(left=150, spare=100, spell=down) is Action.WAIT
    assert table.act(left=52, spare=2, spell=down) is Action.SURE
    assert table.act(left=52, spare=2, spell=up) is Action.SURE
    assert table.leave(left=150, spare=100, spell=up)
    assert not table.leave(left=52, spare=2, spell=up)


def test_spot_at_the_price_of_sure_capacity_is_not_worth_its_risk() -> None:
    """Equal prices: nothing leaves sure capacity, however much time there is."""
    table = solve(Terms(0.1, 1.0, 1.0, 2.0, 1.0), slots=160, slack=100)
    assert not any(
        table.leave(left=left, spare=spare, spell=Spell(up=True, age_h=age_h))
        for left in (20, 80, 160)
        for spare in range(min(left, 100))
        for age_h in (0.1, 1.0, 12.0)
    )


def drawn(terms: Terms, *, slots: int, draw: np.random.Generator) -> list[int]:
    """Draw a world that follows the table's own law: the state of spot, slot by slot."""
    ways = chain(terms)[0].cumsum(axis=1)
    found = [int(draw.integers(0, len(ways)))]
    for _ in range(slots):
        found.append(min(len(ways) - 1, int((ways[found[-1]] < draw.random()).sum())))
    return found


Answers = Callable[[int, int, int, bool], Action]
"""What to do, by slots left, state, spare slots, and whether the job trains on sure capacity."""


def played(states: list[int], answer: Answers, *, work: int) -> float:
    """Play a job through a world, launches of two slots; give its cost in slots on spot."""
    cost, where, boots = 0.0, Action.WAIT, 0
    for at, state in enumerate(states):
        up, left = state < len(AGES_H), len(states) - at
        settled = where is Action.SURE and (boots or left - work <= 4)
        if not settled and not (where is Action.SPOT and up):
            before, safe = where, left - work > 4
            where = answer(left, state, left - work, where is Action.SURE) if safe else Action.SURE
            where = Action.WAIT if where is Action.SPOT and not up else where
            boots = boots if where is before else 2
        cost += {Action.WAIT: 0.0, Action.SPOT: 1.0, Action.SURE: TERMS.ratio}[where]
        work -= where is not Action.WAIT and not boots
        boots = max(0, boots - 1)
        if not work:
            return cost
    pytest.fail("the deadline is missed")


def test_in_worlds_of_its_own_law_the_table_beats_simple_ways() -> None:
    """On the same 300 drawn worlds it costs less than greedy waiting and than all on demand."""
    table, slots, work = solve(TERMS, slots=160, slack=100), 120, 80
    draw = np.random.default_rng(7)
    worlds = [drawn(TERMS, slots=slots - 1, draw=draw) for _ in range(300)]

    def planned(left: int, state: int, spare: int, sure: bool) -> Action:
        spell = Spell(up=state < len(AGES_H), age_h=AGES_H[state % len(AGES_H)])
        if sure:
            leaves = spell.up and table.leave(left=left, spare=spare, spell=spell)
            return Action.SPOT if leaves else Action.SURE
        return table.act(left=left, spare=spare, spell=spell)

    def greedy(_left: int, _state: int, _spare: int, sure: bool) -> Action:
        return Action.SURE if sure else Action.SPOT  # or wait for it

    ours = np.mean([played(world, planned, work=work) for world in worlds])
    assert ours < 0.98 * np.mean([played(world, greedy, work=work) for world in worlds])
    assert ours < (work + 2) * TERMS.ratio


@pytest.mark.parametrize("changeover", [0.4, 1.0, 1.7, 3.0])
def test_no_slack_means_sure_capacity_whatever_a_launch_takes(changeover: float) -> None:
    """Where another death would be too late, no state of spot tempts."""
    table = solve(replace(TERMS, changeover=changeover), slots=96, slack=64)
    last = math.ceil(changeover)
    for age_h in AGES_H:
        for up in (True, False):
            spell = Spell(up=up, age_h=age_h)
            assert table.act(left=60, spare=last, spell=spell) is Action.SURE
            assert not table.leave(left=60, spare=last, spell=spell)


def test_a_larger_table_says_the_same() -> None:
    """So that jobs of many sizes can share one."""
    small, large = solve(TERMS, slots=48, slack=32), solve(TERMS, slots=96, slack=64)
    assert np.array_equal(small.best, large.best[:49, :, :33])

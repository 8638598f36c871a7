"""A job's place in the table: spells decide, a gang's death counts once, no trace makes it late."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.rows import JobRow
from jobs.spec import Market
from jobs.states import JobState
from scheduler.decide import decide
from scheduler.snapshot import Snapshot
from tests.unit.scheduler.adversary import Duel, Fate
from tests.unit.scheduler.worlds import (
    EXACT,
    HOUR,
    S,
    a_flavor,
    a_job,
    a_world,
    an_attempt,
    an_offer,
)

SPOT = a_flavor("spot-a", boot_s=720, max_nodes=16)
SURE = a_flavor("sure", usd=4, boot_s=720, max_nodes=16)
FLICKER = tuple((at * HOUR // 2, 16 * (1 - at % 2)) for at in range(1, 8))


def gang(deadline: str) -> JobRow:
    """Give a gang of sixteen with six hours of work, saved continuously."""
    return a_job("a", nodes=16, work="6h", deadline=deadline, checkpoint_interval=0)


def test_a_gang_that_died_often_is_judged_by_spells_not_by_nodes() -> None:
    """Each death of a gang takes 16 nodes; a count of nodes would price spot out of the market."""
    hot = an_offer(SPOT, hazard_per_million_hours=2_000_000, levels=FLICKER)
    up = replace(hot, levels=(*FLICKER, (5 * HOUR, 16)))
    job = gang("48h")
    plan = decide(a_world(job, now_s=7 * 3_600, offers=(up, an_offer(SURE))))
    assert [place.flavor for place in plan.places] == ["spot-a"]
    unseen = replace(hot, levels=())
    plan = decide(a_world(job, now_s=7 * 3_600, offers=(unseen, an_offer(SURE))))
    assert [place.flavor for place in plan.places] == ["sure"]


def test_a_young_spell_is_let_pass_and_an_old_one_is_taken() -> None:
    """With slack a gang waits until spot has lasted for a while; it says when it looks again."""
    for age_s, places in ((0, []), (3_600, ["spot-a"])):
        now_us = 7 * HOUR
        levels = (*FLICKER, (now_us - age_s * S, 16))
        spot = an_offer(SPOT, levels=levels)
        plan = decide(a_world(gang("48h"), now_s=7 * 3_600, offers=(spot, an_offer(SURE))))
        assert [place.flavor for place in plan.places] == places
        assert places or now_us < (plan.wake_at_us or 0) <= now_us + HOUR


class Seen(Duel):
    """The duel with what a server has seen of spot's comings and goings."""

    def _snapshot(self) -> Snapshot:
        shot = super()._snapshot()
        past = sorted(at for at in self.toggles if at <= self.now_us)
        levels = ((0, 4), *((at, 4 * (index % 2)) for index, at in enumerate(past)))
        return replace(
            shot,
            offers=tuple(
                replace(offer, levels=levels) if offer.flavor.market is Market.SPOT else offer
                for offer in shot.offers
            ),
        )


@settings(max_examples=150)
@given(
    extra=st.integers(1_600, 20_000),
    toggles=st.lists(st.integers(0, 30_000), max_size=40),
    deaths=st.lists(st.sampled_from([0, S, 719 * S, 720 * S, 721 * S, 4_000 * S]), max_size=8),
    shy=st.sampled_from([None, 0, 1]),
)
def test_no_trace_makes_a_planned_job_late(
    extra: int, toggles: list[int], deaths: list[int], shy: int | None
) -> None:
    """However spot flickers, and even if it dies during each launch, the deadline holds."""
    work = 10_800
    job = a_job("a", work=work, deadline=work + extra, checkpoint_interval=0)
    duel = Seen(
        job,
        (SPOT, SURE),
        settings=EXACT,
        toggles=[at * S for at in toggles],
        fates=[Fate(after_us=at) for at in deaths] or [Fate()],
        shy_us=None if shy is None else shy * S + 1,
    )
    assert duel.play() <= (work + extra) * S + 2_000


@pytest.mark.parametrize("levels", [(), FLICKER])
def test_the_same_snapshot_gives_the_same_plan(levels: tuple[tuple[int, int], ...]) -> None:
    """Tables are cached and shared, and that changes no decision."""
    world = a_world(
        gang("24h"), now_s=7 * 3_600, offers=(an_offer(SPOT, levels=levels), an_offer(SURE))
    )
    assert decide(world) == decide(world)


def test_an_attempt_with_little_slack_looks_again_when_spot_has_lasted() -> None:
    """Its slack stands still while it trains, so a later return to spot is not ruled out now."""
    now_s, slack_s = 7 * 3_600, 2_000
    job = a_job(
        "a",
        nodes=16,
        work="10h",
        deadline=now_s + 36_000 + 720 + slack_s,
        checkpoint_interval=0,
        row={"state": JobState.RUNNING, "attempts": 1},
    )
    live = an_attempt(job, SURE, training_s=now_s)
    spot = an_offer(SPOT, levels=(*FLICKER, (now_s * S - 1, 0), (now_s * S, 16)))
    world = a_world(live=(live,), now_s=now_s, offers=(spot, an_offer(SURE)), settings=EXACT)
    plan = decide(world)
    assert not plan.preempts
    assert plan.wake_at_us is not None
    assert plan.wake_at_us > (now_s + slack_s) * S
    lasted = replace(spot, levels=(*FLICKER, ((now_s - 10_001) * S, 0), ((now_s - 10_000) * S, 16)))
    assert decide(replace(world, offers=(lasted, an_offer(SURE)))).preempts


def test_a_gang_without_a_deadline_stays_with_spot_that_comes_and_goes() -> None:
    """It has time: deaths that took sixteen nodes each do not send it to sure capacity."""
    job = a_job("a", nodes=16, work="6h", checkpoint_interval=0)
    hot = an_offer(SPOT, hazard_per_million_hours=2_000_000, levels=FLICKER)
    plan = decide(a_world(job, now_s=7 * 3_600, offers=(hot, an_offer(SURE))))
    assert [place.flavor for place in plan.places] == ["spot-a"]
    none = replace(hot, limit=0, launchable=0, levels=(*FLICKER, (6 * HOUR, 0)))
    assert not decide(a_world(job, now_s=7 * 3_600, offers=(none, an_offer(SURE)))).places

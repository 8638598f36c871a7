"""When jobs start and where: slack, spot, windows, the safety net, and the baselines."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import InfeasibleError
from jobs.reasons import Reason
from scheduler.admission import check_admissible
from scheduler.decide import decide
from scheduler.plan import Plan
from scheduler.snapshot import PolicySettings
from scheduler.spot_policy import POLICIES
from tests.unit.scheduler.adversary import Duel, Fate
from tests.unit.scheduler.worlds import (
    EXACT,
    HOUR,
    USD,
    S,
    a_flavor,
    a_job,
    a_point,
    a_world,
    an_offer,
)

SPOT = a_flavor("spot-a")
SURE = a_flavor("sure", usd=4)
NO_SPOT = (an_offer(SPOT, room=0), an_offer(SURE))


def started(plan: Plan) -> list[tuple[str, Reason]]:
    """Give flavor and reason of each place."""
    return [(place.flavor, place.reason) for place in plan.places]


def waits(plan: Plan) -> Reason:
    """Give the reason of the only deferral."""
    assert not plan.places
    return plan.defers[0].reason


def test_spot_is_taken_while_its_worst_death_leaves_time() -> None:
    """With slack a job starts on spot although sure capacity is there."""
    plan = decide(
        a_world(a_job("a", work="2h", deadline="9h"), offers=(*NO_SPOT[1:], an_offer(SPOT)))
    )
    assert started(plan) == [("spot-a", Reason.CHEAPEST_NOW)]


def test_a_start_on_spot_must_leave_room_for_its_worst_death() -> None:
    """Work 2 h, boots of 1 min, 10 min between saves: 2:12 is the line, to the second."""
    job = a_job("a", work="2h", deadline=7_200 + 60 + 60 + 600 + 1, checkpoint_interval="10m")
    offers = (an_offer(SPOT), an_offer(SURE))
    assert started(decide(a_world(job, offers=offers))) == [("spot-a", Reason.CHEAPEST_NOW)]
    plan = decide(a_world(job, now_s=1, offers=offers))
    assert started(plan) == [("sure", Reason.SAFETY_NET)]


def test_a_job_waits_for_spot_until_another_try_no_longer_fits() -> None:
    """It wakes at the very instant, and then goes on-demand without waiting for less."""
    job = a_job("a", work="2h", deadline="5h", checkpoint_interval=0)
    plan = decide(a_world(job, offers=NO_SPOT))
    assert waits(plan) is Reason.WAITS_FOR_SPOT
    assert plan.wake_at_us == 3 * HOUR - 120 * S  # a boot on spot, then a boot and 2 h on-demand
    late = decide(a_world(job, now_s=3 * 3_600 - 120, offers=NO_SPOT))
    assert started(late) == [("sure", Reason.SAFETY_NET)]


def test_once_on_the_safety_net_always_there() -> None:
    """A job that came back from sure capacity does not try spot again, however much slack."""
    job = a_job("a", work="2h", deadline="99h", row={"on_safety_net": True, "attempts": 1})
    plan = decide(a_world(job, offers=(an_offer(SPOT), an_offer(SURE))))
    assert started(plan) == [("sure", Reason.SAFETY_NET)]


def test_without_slack_and_sure_room_spot_beats_waiting() -> None:
    """And it does not count as the safety net, so the job may still move there."""
    job = a_job("a", work="2h", deadline="2h1m")
    plan = decide(a_world(job, offers=(an_offer(SPOT), an_offer(SURE, room=0))))
    assert started(plan) == [("spot-a", Reason.CHEAPEST_NOW)]


def test_the_net_prefers_a_flavor_that_meets_the_deadline() -> None:
    """A cheaper sure flavor that boots too long is second choice."""
    slow = a_flavor("slow", usd=2, boot_s=1_800)
    job = a_job("a", work="2h", deadline="2h10m")
    plan = decide(a_world(job, offers=(an_offer(slow), an_offer(SURE))))
    assert started(plan) == [("sure", Reason.SAFETY_NET)] or started(plan)[0][0] == "sure"


def test_without_a_deadline_a_job_waits_for_spot_as_long_as_it_takes() -> None:
    """Dear capacity is only for those who ask for speed; where no spot is allowed, it starts."""
    plan = decide(a_world(a_job("a", work="1h"), offers=NO_SPOT))
    assert waits(plan) is Reason.WAITS_FOR_SPOT
    assert plan.wake_at_us is None
    only_sure = a_job("a", work="1h", markets=["on-demand"])
    assert started(decide(a_world(only_sure, offers=NO_SPOT)))[0][0] == "sure"


def test_a_deadline_without_known_work_starts_at_once() -> None:
    """The first steps tell how long it takes; until then it waits for nothing."""
    plan = decide(a_world(a_job("a", deadline="9h"), offers=NO_SPOT))
    assert started(plan) == [("sure", Reason.CHEAPEST_NOW)]


NIGHT = ((10 * HOUR, 2 * USD), (18 * HOUR, 4 * USD))
TARIFF = an_offer(SURE, next_prices=NIGHT, price_rests_on="night (tariff)")


def test_a_job_waits_for_a_cheaper_window_inside_its_slack() -> None:
    """It wakes when the window opens, and starts there because of it."""
    job = a_job("a", work="2h", deadline="20h")
    plan = decide(a_world(job, offers=(TARIFF,)))
    assert waits(plan) is Reason.WAITS_FOR_WINDOW
    assert plan.wake_at_us == 10 * HOUR
    assert plan.defers[0].sentence == (
        "Waits for 1 Jan 10:00 UTC (night (tariff)): 50 % cheaper, 8.0 h of slack left after it; "
        "starting now costs up to $4.03 more."
    )
    opened = an_offer(SURE, usd_nanos_per_hour=2 * USD, next_prices=NIGHT[1:])
    plan = decide(a_world(job, now_s=36_000, offers=(opened,)))
    assert started(plan) == [("sure", Reason.IN_WINDOW)]


def test_a_window_beyond_the_slack_is_not_waited_for() -> None:
    """Cheap hours after the deadline are of no use."""
    job = a_job("a", work="2h", deadline="10h")
    assert started(decide(a_world(job, offers=(TARIFF,))))[0][0] == "sure"


def test_spot_now_beats_a_window_that_stays_dearer() -> None:
    """What counts is the money of the whole rest, not that a window exists."""
    job = a_job("a", work="2h", deadline="20h")
    plan = decide(a_world(job, offers=(TARIFF, an_offer(SPOT))))
    assert started(plan)[0][0] == "spot-a"


def test_hazard_makes_spot_dear() -> None:
    """Where spot dies every few minutes, its expected restarts cost more than on-demand."""
    hot = an_offer(SPOT, hazard_per_million_hours=12_000_000)
    job = a_job("a", work="10h", deadline="99h", setup="20m", restore="20m")
    plan = decide(a_world(job, offers=(hot, an_offer(SURE))))
    assert started(plan)[0][0] == "sure"


@pytest.mark.parametrize("offers", [NO_SPOT, (TARIFF,)])
def test_a_sentence_stays_while_the_facts_stay(offers: tuple) -> None:
    """An hour later nothing has changed, so nothing new is said (hazards may drift)."""
    job = a_job("a", work="2h", deadline="20h")
    first = decide(a_world(job, offers=offers)).defers
    drifted = tuple(replace(offer, hazard_per_million_hours=77) for offer in offers)
    assert decide(a_world(job, now_s=3_600, offers=drifted)).defers == first


@pytest.mark.parametrize(
    ("policy", "with_spot", "without"),
    [
        ("lowtide", "spot-a", None),
        ("on-demand", "sure", "sure"),
        ("spot-now", "spot-a", "sure"),
        ("greedy", "spot-a", None),
        ("uniform-progress", "spot-a", None),
        ("lowest-window", "spot-a", "sure"),
    ],
)
def test_policies_differ_where_spot_has_no_room(
    policy: str, with_spot: str, without: str | None
) -> None:
    """Who waits, who goes on-demand."""
    job = a_job("a", work="2h", deadline="9h", checkpoint_interval=0, row={"total_steps": 100})
    knobs = replace(EXACT, name=policy)
    room = (an_offer(SPOT), an_offer(SURE))
    assert decide(a_world(job, offers=room, settings=knobs)).places[0].flavor == with_spot
    # half of the work done long before its time: Uniform Progress is ahead of its pace
    ahead = replace(job, restore_point=a_point(50, at_s=0))
    plan = decide(a_world(ahead, now_s=60, offers=NO_SPOT, settings=knobs))
    assert [place.flavor for place in plan.places] == ([without] if without else [])


def test_uniform_progress_takes_sure_capacity_when_it_falls_behind() -> None:
    """It wakes when the even pace overtakes the work done, and then pays for progress."""
    point = a_point(25, at_s=0)
    job = a_job(
        "a",
        work="2h",
        deadline="8h",
        checkpoint_interval=0,
        row={"total_steps": 100, "restore_point": point, "attempts": 1},
    )
    knobs = replace(EXACT, name="uniform-progress")
    plan = decide(a_world(job, now_s=60, offers=NO_SPOT, settings=knobs))
    assert (waits(plan), plan.wake_at_us) == (Reason.WAITS_FOR_SPOT, 2 * HOUR)
    plan = decide(a_world(job, now_s=7_200, offers=NO_SPOT, settings=knobs))
    assert started(plan) == [("sure", Reason.CHEAPEST_NOW)]


def seconds(low: int, high: int) -> st.SearchStrategy[int]:
    """Draw a duration."""
    return st.integers(low, high)


FATES = st.builds(
    Fate,
    since=st.sampled_from(["lease", "train", "save"]),
    after_us=st.sampled_from([-1, 0, S, 400 * S, 3_000 * S, 6_000 * S]),
    notice_us=st.sampled_from([0, 30 * S, 120 * S]),
    lag_us=st.sampled_from([0, 0, 60 * S, 1_000 * S]),
    saves=st.booleans(),
)


def test_a_notice_during_a_slow_boot_costs_its_whole_length() -> None:
    """Saving continuously helps only who trains: 1,000 s late to boot, 30 s of notice, in time."""
    spot = a_flavor("spot-a", boot_s=0, notice_ms=120_000)
    job = a_job("a", work=7_200, deadline=7_600, checkpoint_interval=0)
    slow = Fate(after_us=400 * S, notice_us=30 * S, lag_us=1_000 * S)
    sure = a_flavor("sure", usd=4, boot_s=0)
    knobs = replace(EXACT, name="greedy")
    duel = Duel(job, (spot, sure), settings=knobs, toggles=[], fates=[Fate(after_us=-1), slow])
    assert duel.play() <= 7_600 * S + 2_000


@settings(max_examples=400)
@given(
    policy=st.sampled_from(sorted(POLICIES)),
    work=st.one_of(seconds(60, 7_200), st.just(7_200)),
    extra=st.one_of(seconds(0, 7_200), seconds(600, 2_500)),
    boots=st.tuples(seconds(0, 400), seconds(0, 400)),
    setup=seconds(0, 200),
    restore=seconds(0, 200),
    interval=st.sampled_from([0, 0, 60, 600, 3_600]),
    save=seconds(0, 30),
    knobs=st.builds(
        PolicySettings,
        margin_percent=st.sampled_from([0, 5]),
        margin_ms=st.sampled_from([0, 1_500]),
        drain_grace_ms=st.sampled_from([0, 30_000]),
    ),
    toggles=st.one_of(st.just([]), st.lists(seconds(0, 14_400), max_size=6)),
    fates=st.lists(FATES, min_size=1, max_size=6),
    shy=st.sampled_from([None, 0, 1, 60]),
)
def test_no_adversary_makes_an_admitted_job_miss_its_deadline(
    policy: str,
    work: int,
    extra: int,
    boots: tuple[int, int],
    setup: int,
    restore: int,
    interval: int,
    save: int,
    knobs: PolicySettings,
    toggles: list[int],
    fates: list[Fate],
    shy: int | None,
) -> None:
    """Whatever spot does, and whichever policy: what submit accepted is in time, to the tick."""
    spot = a_flavor("spot-a", boot_s=boots[0], notice_ms=120_000)
    sure = a_flavor("sure", usd=4, boot_s=boots[1])
    job = a_job(
        "a",
        work=work,
        deadline=work + extra,
        setup=setup,
        restore=restore,
        save=save,
        checkpoint_interval=interval,
    )
    offers = (an_offer(spot), an_offer(sure))
    try:
        check_admissible(job.spec, submitted_us=0, offers=offers, now_us=0, settings=knobs)
    except InfeasibleError:
        return
    duel = Duel(
        job,
        (spot, sure),
        settings=replace(knobs, name=policy),
        toggles=[at * S for at in toggles],
        fates=fates,
        shy_us=None if shy is None else shy * S + 1,
    )
    assert job.deadline_us is not None
    assert duel.play() <= job.deadline_us + 2_000

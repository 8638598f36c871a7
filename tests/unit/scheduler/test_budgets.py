"""Budgets in one decision and in the controller: caps, lowered limits, restarts, submits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster import notices as nt
from jobs.budget import Budget, BudgetChanges, Period
from jobs.errors import ConflictError, InfeasibleError
from jobs.reasons import Reason
from jobs.rows import BudgetRow
from jobs.states import AttemptState
from scheduler import commands as cmd
from scheduler.audit_store import audit_store
from scheduler.budget_view import BudgetView
from scheduler.decide import decide
from tests.unit.scheduler.test_controller import FLAVORS, World
from tests.unit.scheduler.worlds import (
    HOUR,
    USD,
    S,
    a_flavor,
    a_job,
    a_world,
    an_attempt,
    an_offer,
)

SPOT = a_flavor("spot-a", usd=1, list_usd_nanos_per_hour=4 * USD)
SURE = a_flavor("sure", usd=4)


def a_budget(**fields: Any) -> Budget:
    """Give a hard total of 10 $ for the default team."""
    known: dict[str, Any] = {
        "name": "all",
        "owner": (("team", "default"),),
        "limit_usd_nanos": 10 * USD,
        "period": Period.TOTAL,
    }
    return Budget(**{**known, **fields})


def a_view(budget: Budget, **money: int) -> BudgetView:
    """Give the view of a budget at the beginning of time, nothing spent unless told."""
    row = BudgetRow(
        name=budget.name,
        terms=budget,
        source="apply",
        since_us=0,
        changed_us=0,
        from_us=0,
        until_us=None,
    )
    return BudgetView(row=row, **{"spent_usd_nanos": 0, **money})


def test_a_start_reserves_its_worst_finish_at_the_list_price() -> None:
    """Boot, an hour of work, and 2 s for the loop and the agent, at 4 $ instead of 1 $ an hour."""
    snapshot = a_world(
        a_job("a", work="1h"), offers=(an_offer(SPOT),), budgets=(a_view(a_budget()),)
    )
    (place,) = decide(snapshot).places
    assert place.reservation is not None
    assert place.reservation.usd_nanos_per_hour == 4 * USD
    assert place.reservation.until_us == (60 + 3_600 + 2) * S


def test_a_reservation_ends_where_the_money_does() -> None:
    """2 $ are enough at the price of now, and reach half an hour at the cap."""
    view = a_view(a_budget(limit_usd_nanos=2 * USD))
    plan = decide(a_world(a_job("a", work="1h"), offers=(an_offer(SPOT),), budgets=(view,)))
    (place,) = plan.places
    assert place.reservation is not None
    assert 0 < HOUR // 2 - place.reservation.until_us < S


@pytest.mark.parametrize(("now_s", "leaves"), [(3_500, False), (3_598, True)])
def test_an_attempt_leaves_just_before_its_reservation_ends(now_s: int, leaves: bool) -> None:
    """2 s for the loop and the agent remain; the plan wakes for that instant."""
    money = {"reserved_usd_nanos_per_hour": 4 * USD, "reserved_until_us": HOUR}
    job = a_job("a", work="9h", row={"attempts": 1, "attempt_id": "a/1"})
    live = an_attempt(job, SURE, training_s=0, **money)
    reserved = 4 * USD * (3_600 - now_s) // 3_600
    view = a_view(a_budget(), spent_usd_nanos=10 * USD - reserved, reserved_usd_nanos=reserved)
    plan = decide(a_world(now_s=now_s, offers=(an_offer(SURE),), live=(live,), budgets=(view,)))
    assert [one.reason for one in plan.preempts] == ([Reason.BUDGET] if leaves else [])
    if not leaves:
        assert plan.wake_at_us == 3_598 * S


def test_a_price_above_the_cap_is_reserved_anew() -> None:
    """Reserved at 4 $, the price jumps to 8 $: what the money reaches now is much less."""
    money = {"reserved_usd_nanos_per_hour": 4 * USD, "reserved_until_us": 2 * HOUR}
    job = a_job("a", work="2h", row={"attempts": 1, "attempt_id": "a/1"})
    live = an_attempt(job, SPOT, training_s=0, **money)
    view = a_view(a_budget(), reserved_usd_nanos=8 * USD)
    offer = an_offer(SPOT, usd_nanos_per_hour=8 * USD)
    plan = decide(a_world(offers=(offer,), live=(live,), budgets=(view,)))
    ((attempt_id, made),) = plan.reservations
    assert (attempt_id, made.usd_nanos_per_hour) == ("a/1", 8 * USD)
    assert 0 < HOUR * 10 // 8 - made.until_us < S


def test_a_job_that_waits_keeps_its_claim_against_those_behind_it() -> None:
    """5 $ of 10 are left and 5 may come back: the first job needs 8 $, so the second one waits."""
    jobs = [a_job("big", work="2h", submitted_s=0), a_job("small", work="30m", submitted_s=1)]
    view = a_view(a_budget(), reserved_usd_nanos=5 * USD)
    plan = decide(a_world(*jobs, now_s=2, offers=(an_offer(SURE),), budgets=(view,)))
    assert plan.places == ()
    big, small = sorted(plan.defers, key=lambda defer: defer.job_id)
    assert {big.reason, small.reason} == {Reason.WAITS_FOR_BUDGET}
    assert "big waits before it" in small.sentence
    other = a_view(a_budget(limit_usd_nanos=7 * USD), reserved_usd_nanos=2 * USD)
    plan = decide(a_world(*jobs, now_s=2, offers=(an_offer(SURE),), budgets=(other,)))
    assert [place.job_id for place in plan.places] == [
        "small"
    ]  # nothing comes back for the big one


def started(world: World, **spec: object) -> str:
    """Submit a job and bring it to training."""
    job_id = world.submit(**spec)
    for node_id in list(world.controller.state.live_nodes):
        if world.controller.state.nodes[node_id].ready_us is None:
            world.notice(nt.NodeJoined, 0, node_id=node_id, address=node_id)
    world.notice(nt.TrainingBegan, 0, attempt_id=f"{job_id}/1", step=0, total_steps=100)
    return job_id


def apply(world: World, *budgets: Budget, **fields: Any) -> dict[str, Any]:
    """Apply budgets in the next tick."""
    dry_run = bool(fields.pop("dry_run", False))
    changes = BudgetChanges(budgets=budgets, **fields)
    told: dict[str, Any] = world.ask(cmd.ApplyBudgets(changes=changes, dry_run=dry_run))
    return told


def test_a_limit_below_what_is_reserved_pauses_the_youngest() -> None:
    """The dry run names it, nothing happens; then it saves and leaves, and the books stay clean."""
    world = World()
    first, second = started(world, work="4h"), started(world, work="4h")
    apply(world, a_budget(limit_usd_nanos=100 * USD))
    state = world.controller.state
    reserved = sum(
        (one.reserved_until_us or 0) * one.reserved_usd_nanos_per_hour // HOUR
        for one in state.attempts.values()
    )
    lower = a_budget(limit_usd_nanos=reserved * 3 // 4)
    tried = apply(world, lower, dry_run=True)
    assert [one["job"] for one in tried["paused"]] in ([], [second])
    assert "more than its limit" in tried["warnings"][0]
    assert state.attempts[f"{first}/1"].state is AttemptState.TRAINING
    nothing = apply(world, a_budget(limit_usd_nanos=USD // 1_000), dry_run=True)
    assert [one["job"] for one in nothing["paused"]] == [first, second]
    apply(world, a_budget(limit_usd_nanos=USD // 1_000))
    assert state.attempts[f"{second}/1"].state is AttemptState.DRAINING
    assert audit_store(world.store) == []


def test_what_was_spent_is_found_again_after_a_restart_and_by_a_new_budget() -> None:
    """The ledger is the truth: a budget made after the spending, and a new leader, both know it."""
    world = World()
    job_id = started(world, work="4h")
    world.clock.advance_to(1_800 * S)
    world.controller.tick()
    apply(world, a_budget(limit_usd_nanos=100 * USD))
    (view,) = world.controller.seen.budgets if world.controller.seen else ()
    flavor = FLAVORS[world.controller.state.attempts[f"{job_id}/1"].flavor]
    assert view.spent_usd_nanos == pytest.approx(flavor.usd_nanos_per_hour // 2, rel=0.05)
    later = World(world.store, holder="two", at_s=1_820)
    later.controller.tick()
    assert later.controller.seen is not None
    more = flavor.usd_nanos_per_hour * 20 // 3_600
    spent = later.controller.seen.budgets[0].spent_usd_nanos
    assert spent == pytest.approx(view.spent_usd_nanos + more, abs=2)


def test_a_budget_of_the_file_is_not_changed_at_run_time() -> None:
    """The next start would set it back; the refusal says where it stands."""
    world = World()
    catalog = world.controller._catalog
    world.controller._catalog = replace(catalog, budgets=(a_budget(),))
    world.controller.tick()
    assert world.controller.state.budgets["all"].source == "file"
    with pytest.raises(ConflictError, match=r"lowtide\.yaml"):
        apply(world, a_budget(limit_usd_nanos=USD))


def test_a_job_that_its_own_budget_can_never_pay_for_is_refused_with_the_numbers() -> None:
    """The cause says what it costs where it is cheapest; the deadline does not help."""
    world = World()
    with pytest.raises(InfeasibleError, match="cannot be finished within its budget of"):
        world.submit(work="400h", budget_usd=1, deadline="2000h")
    assert world.submit(budget_usd=1)  # its work is not known yet

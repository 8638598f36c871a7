"""Gangs on nodes: whole, best fit, one flavor, never beyond what is there."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from jobs.rows import JobRow
from jobs.states import AttemptState, NodeState
from scheduler.decide import decide
from scheduler.plan import Defer, Place, Plan
from scheduler.snapshot import Snapshot
from tests.unit.scheduler.worlds import a_flavor, a_job, a_node, a_world, an_attempt, an_offer

SPOT = a_flavor("spot-a", gpu_milli=4_000)
SURE = a_flavor("sure", usd=4, gpu_milli=4_000)


def test_best_fit_takes_the_tightest_node() -> None:
    """A small job goes where the least room is left over, not onto an empty node."""
    nodes = (a_node("n1", SPOT), a_node("n2", SPOT, free=2_000), a_node("n3", SPOT, free=3_000))
    plan = decide(a_world(a_job("a", gpus=2), offers=(an_offer(SPOT),), nodes=nodes))
    assert [place.nodes for place in plan.places] == [("n2",)]
    assert not plan.new_nodes


def test_fractions_share_a_new_node_within_one_plan() -> None:
    """Four halves need two GPUs, so one node is launched, not four."""
    small = a_flavor("spot-a", gpu_milli=2_000)
    jobs = [a_job(name, gpus="0.5") for name in "abcd"]
    plan = decide(a_world(*jobs, offers=(an_offer(small),)))
    assert len(plan.new_nodes) == 1
    assert {place.nodes for place in plan.places} == {("new-1",)}


def test_a_gang_stands_whole_on_different_nodes_or_not_at_all() -> None:
    """Three nodes are up or may come; four do not fit, three do, old nodes before new ones."""
    nodes = (a_node("n1", SPOT), a_node("n2", SPOT))
    offers = (an_offer(SPOT, room=1),)
    plan = decide(a_world(a_job("a", nodes=4), offers=offers, nodes=nodes))
    assert not plan.places
    assert not plan.new_nodes
    plan = decide(a_world(a_job("a", nodes=3), offers=offers, nodes=nodes))
    assert plan.places[0].nodes == ("n1", "n2", "new-1")


def test_a_gang_does_not_mix_flavors() -> None:
    """One free node in each of two zones is not two nodes for a gang."""
    other = a_flavor("spot-b", zone="east-2", gpu_milli=4_000)
    nodes = (a_node("n1", SPOT), a_node("n2", other))
    offers = (an_offer(SPOT, room=0), an_offer(other, room=0))
    assert not decide(a_world(a_job("a", nodes=2), offers=offers, nodes=nodes)).places


def test_room_that_is_being_made_is_kept_for_whom_it_is_made() -> None:
    """A smaller job does not slip in while the last attempt on the node still saves."""
    leaves = an_attempt(a_job("old", gpus=2), SPOT, training_s=0, state=AttemptState.DRAINING)
    jobs = (a_job("big", gpus=4, priority=5), a_job("small", gpus=1))
    world: dict[str, Any] = {
        "offers": (an_offer(SPOT, room=0),),
        "nodes": (a_node("n1", SPOT, free=2_000),),
    }
    assert not decide(a_world(*jobs, live=(leaves,), **world)).places
    plan = decide(a_world(*jobs, **world))  # nobody leaves, so nothing is kept
    assert [place.job_id for place in plan.places] == ["small"]


def test_nodes_that_come_up_take_jobs_and_those_that_go_do_not() -> None:
    """A booting node is as good as a ready one; drained, noticed or cordoned ones are not."""
    booting = a_node("n1", SPOT, state=NodeState.BOOTING, ready_us=None)
    gone = (
        a_node("n2", SPOT, state=NodeState.DRAINING),
        a_node("n3", SPOT, noticed=True),
        a_node("n4", SPOT, cordoned=True),
        a_node("n5", SPOT, state=NodeState.BOOTING, noticed=True),
    )
    offers = (an_offer(SPOT, room=0),)
    assert not decide(a_world(a_job("a", gpus=4), offers=offers, nodes=gone)).places
    plan = decide(a_world(a_job("a", gpus=4), offers=offers, nodes=(*gone, booting)))
    assert plan.places[0].nodes == ("n1",)


def test_priority_goes_first_then_age() -> None:
    """With room for one, the higher priority wins; among equals the one submitted first."""
    old, young = a_job("old"), a_job("young", submitted_s=5)
    vip = a_job("vip", submitted_s=9, priority=5)
    for queue, first in (((young, old), "old"), ((young, vip, old), "vip")):
        offers = (an_offer(a_flavor("spot-a"), room=1),)
        plan = decide(a_world(*queue, now_s=10, offers=offers))
        assert [place.job_id for place in plan.places] == [first]


def test_a_shared_node_beats_a_whole_one() -> None:
    """A job pays its share of a node that is up, but all of a node launched for it alone."""
    wide, narrow = a_flavor("spot-wide", usd=6, gpu_milli=8_000), a_flavor("spot-narrow", usd=1.2)
    offers = (an_offer(wide), an_offer(narrow))
    alone = decide(a_world(a_job("a", work="1h"), offers=offers))
    assert alone.places[0].flavor == "spot-narrow"
    shared = decide(
        a_world(a_job("a", work="1h"), offers=offers, nodes=(a_node("n1", wide, free=3_000),))
    )
    assert shared.places[0].flavor == "spot-wide"


GANGS = st.builds(
    lambda nodes, gpus, cpus, kind: (nodes, gpus, cpus, kind),
    st.integers(1, 4),
    st.sampled_from(["0.25", "0.5", "1", "2", "4"]),
    st.integers(1, 8),
    st.sampled_from(["plain", "relaxed", "tight", "held", "cancelled", "rich"]),
)


@st.composite
def worlds(draw: st.DrawFn) -> Snapshot:
    """Queues of gangs over two flavors with nodes in every state."""
    queue = [_job(f"j{i}", *draw(GANGS)) for i in range(draw(st.integers(0, 12)))]
    nodes = []
    for i in range(draw(st.integers(0, 6))):
        flavor = draw(st.sampled_from([SPOT, SURE]))
        state = draw(st.sampled_from(list(NodeState)[:4]))
        free = draw(st.sampled_from([0, 500, 1_000, 2_000, 4_000]))
        nodes.append(a_node(f"n{i}", flavor, free=free, state=state))
    offers = tuple(an_offer(flavor, room=draw(st.integers(0, 4))) for flavor in (SPOT, SURE))
    return a_world(*queue, now_s=60, offers=offers, nodes=tuple(nodes))


def _job(job_id: str, nodes: int, gpus: str, cpus: int, kind: str) -> JobRow:
    extra: dict[str, Any] = {
        "relaxed": {"work": "1h", "deadline": "9h"},
        "tight": {"work": "1h", "deadline": "62m"},
        "rich": {"budget_usd": "0.5", "work": "1h"},
    }.get(kind, {})
    row = {"held": kind == "held", "cancel_requested": kind == "cancelled"}
    return a_job(job_id, nodes=nodes, gpus=gpus, cpus=cpus, row=row, **extra)


def check_capacity(snapshot: Snapshot, plan: Plan) -> None:
    """Assert that a plan promises nothing that is not there, and only whole gangs."""
    flavors = {offer.flavor.name: offer.flavor for offer in snapshot.offers}
    free = {
        view.row.id: (view.row.flavor, view.free_milli, view.free_cpus) for view in snapshot.nodes
    }
    for new in plan.new_nodes:
        flavor = flavors[new.flavor]
        free[new.ref] = (new.flavor, flavor.gpu_milli, flavor.cpus)
    jobs = {job.id: job for job in snapshot.queued}
    used: Counter[str] = Counter()
    cores: Counter[str] = Counter()
    for place in plan.places:
        spec = jobs[place.job_id].spec
        assert len(set(place.nodes)) == spec.nodes
        assert {free[node][0] for node in place.nodes} == {place.flavor}
        used.update(dict.fromkeys(place.nodes, spec.gpu_milli))
        cores.update(dict.fromkeys(place.nodes, spec.cpus))
    assert all(used[node] <= free[node][1] and cores[node] <= free[node][2] for node in used)
    assert {new.ref for new in plan.new_nodes} <= set(used)
    launched = Counter(new.flavor for new in plan.new_nodes)
    assert all(launched[offer.flavor.name] <= offer.launchable for offer in snapshot.offers)


@given(worlds())
def test_no_plan_exceeds_capacity_or_splits_a_gang(snapshot: Snapshot) -> None:
    """Whatever the queue and the nodes, what is promised is there, once."""
    check_capacity(snapshot, decide(snapshot))


@given(worlds())
def test_every_waiting_job_leaves_with_a_place_or_a_reason(snapshot: Snapshot) -> None:
    """Exactly one of both, with a sentence; a job to be cancelled is left to the controller."""
    plan = decide(snapshot)
    decisions: list[Place | Defer] = [*plan.places, *plan.defers]
    answered = Counter(decision.job_id for decision in decisions)
    assert answered == Counter(job.id for job in snapshot.queued if not job.cancel_requested)
    assert all(decision.sentence.endswith(".") for decision in decisions)
    assert plan.wake_at_us is None or plan.wake_at_us > snapshot.now_us


@given(worlds())
def test_equal_snapshots_give_equal_plans(snapshot: Snapshot) -> None:
    """A decision reads nothing but its snapshot, and keeps nothing."""
    assert decide(snapshot) == decide(snapshot)

"""By when a job must REALLY be done: for its dependents, its array, and for who else needs room.

A safety net that looks at one job at a time lets two deadlines count on the same last on-demand
node, and lets the first job of a chain use up the slack of the last. So before a cycle decides,
each deadline is brought forward to what is still in time for all:

- a predecessor must leave its dependents their own latest start;
- an element of a capped array must leave the elements after it their turns;
- where more deadlines claim sure capacity at once than it has, they are laid out one after the
  other, the last deadline as late as it can be (``scheduler.sure_room``), and each job's deadline
  moves by as much as its latest start had to.

Policies and the safety net then work with the earlier instant as if it were the job's own;
``JobRow.ahead_us`` keeps what a sentence adds again. Nothing here outlives the cycle.

Starting LATE enough is half of it. The other half: who starts by choice, before it must, may not
stand in a place that another deadline was laid out for. So while some sure flavor cannot hold all
open jobs at once, the layout is kept for the cycle (``Market.layout``), and a start by choice has
to fit into it until its worst end; otherwise that choice is off, and the job waits
(``scheduler.kept_room``). Who has no deadline gives way in the grace of a drain, for which the
others ask so much earlier.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from graphlib import TopologicalSorter

from cluster.flavors import Flavor
from jobs.arrays import members
from jobs.durations import US_PER_MS
from jobs.rows import JobRow
from scheduler.layout import Layout
from scheduler.market import Market
from scheduler.needs import (
    guarded_ms,
    is_steady,
    is_sure,
    latest_start_us,
    leaving_ms,
    overhead_ms,
    work_if_lost_ms,
)
from scheduler.snapshot import LiveAttempt, Snapshot
from scheduler.sure_room import NODE_ROOM, Block, Claim, all_fit, profiles_of


def brought_forward(snapshot: Snapshot, *, market: Market) -> Snapshot:
    """Give the snapshot with every deadline at the instant that is in time for all."""
    jobs = open_jobs(snapshot)
    if not any(job.deadline_us is not None for job in jobs.values()):
        return snapshot
    due = due_us(snapshot, jobs, market=market)
    due |= _after_crowding(snapshot, jobs, due, market=market)
    moved = {
        job_id: _moved(jobs[job_id], at_us)
        for job_id, at_us in due.items()
        if at_us != jobs[job_id].deadline_us
    }
    if not moved:
        return snapshot
    return replace(
        snapshot,
        queued=tuple(moved.get(job.id, job) for job in snapshot.queued),
        live=tuple(replace(one, job=moved.get(one.job.id, one.job)) for one in snapshot.live),
    )


def due_us(snapshot: Snapshot, jobs: Mapping[str, JobRow], *, market: Market) -> dict[str, int]:
    """Give by when each open job must be done for its own, its dependents' and its array's sake."""
    own = {job.id: job.deadline_us for job in jobs.values() if job.deadline_us is not None}
    due = _after_chains(snapshot, jobs, own, market=market)
    # Before an array come all its turns, and what comes before it may be an array itself.
    while turns := _after_turns(jobs, due, market=market):
        due = _after_chains(snapshot, jobs, due | turns, market=market)
    return due


def _moved(job: JobRow, due_us: int) -> JobRow:
    own_us = due_us if job.deadline_us is None else job.deadline_us
    return replace(job, deadline_us=due_us, ahead_us=own_us - due_us)


def open_jobs(snapshot: Snapshot) -> dict[str, JobRow]:
    """Give the rows of all jobs that wait or hold capacity."""
    waiting = {job.id: job for job in snapshot.queued}
    return waiting | {one.job.id: one.job for one in snapshot.live}


def starts_by_us(job: JobRow, due_us: int, *, market: Market) -> int | None:
    """Give the latest start on sure capacity (any, without one) that is done by an instant.

    None when no flavor can hold the job.
    """
    flavors = _surest(job, market=market)
    if not flavors:
        return None
    return latest_start_us(
        replace(job, deadline_us=due_us),
        flavors,
        work_ms=job.remaining_ms(),
        restores=job.attempts > 0,
        settings=market.settings,
    )


def _surest(job: JobRow, *, market: Market) -> tuple[Flavor, ...]:
    sure = market.sure_flavors(job.spec)
    return sure or tuple(offer.flavor for offer in market.allowed(job.spec))


# -- chains and turns --------------------------------------------------------------------------


def _after_chains(
    snapshot: Snapshot, jobs: Mapping[str, JobRow], known: Mapping[str, int], *, market: Market
) -> dict[str, int]:
    """Give each job's due instant, from the ends of all chains to their beginnings."""
    due = dict(known)
    before = _predecessors(snapshot, jobs)
    if not before:
        return due
    for job_id in reversed(list(TopologicalSorter(before).static_order())):
        if job_id not in due or job_id not in before:
            continue
        start_us = starts_by_us(jobs[job_id], due[job_id], market=market)
        if start_us is not None:
            for name in before[job_id]:
                due[name] = min(due.get(name, start_us), start_us)
    return due


def _predecessors(snapshot: Snapshot, jobs: Mapping[str, JobRow]) -> dict[str, list[str]]:
    """Give the open predecessors of each waiting job that has any."""
    known = {**{job.id: job for job in snapshot.predecessors}, **jobs}
    found: dict[str, list[str]] = {}
    for job in snapshot.queued:
        names = [row.id for one in job.spec.after for row in members(known, one.job)]
        still = [name for name in dict.fromkeys(names) if name in jobs]
        if still:
            found[job.id] = still
    return found


def _after_turns(
    jobs: Mapping[str, JobRow], due: Mapping[str, int], *, market: Market
) -> dict[str, int]:
    """Give the due instants of elements of capped arrays: each leaves the later ones their turn."""
    moved: dict[str, int] = {}
    for ordered in _capped(jobs, due):
        moved |= _in_turns(ordered, due, market=market)
    return moved


def _capped(jobs: Mapping[str, JobRow], due: Mapping[str, int]) -> list[list[JobRow]]:
    """Give the open elements with a due instant of each capped array, in the order of turns."""
    arrays: dict[str, list[JobRow]] = {}
    for job in jobs.values():
        if job.array is not None and job.array.max_parallel is not None and job.id in due:
            arrays.setdefault(job.array.id, []).append(job)
    # Those that are up go first, then the queue in its order.
    return [sorted(found, key=lambda job: not job.attempt_id) for found in arrays.values()]


def _before(
    snapshot: Snapshot, jobs: Mapping[str, JobRow], due: Mapping[str, int]
) -> dict[str, list[str]]:
    """Give who must have ended before a job may start: its predecessors, and earlier turns."""
    before = _predecessors(snapshot, jobs)
    for ordered in _capped(jobs, due):
        place = ordered[0].array
        most = len(ordered) if place is None else place.max_parallel or len(ordered)
        for job, first in zip(ordered[most:], ordered, strict=False):
            before[job.id] = [*before.get(job.id, ()), first.id]
    return before


def _in_turns(ordered: list[JobRow], due: Mapping[str, int], *, market: Market) -> dict[str, int]:
    """Let each element be done in time for the one whose turn its end is."""
    place = ordered[0].array
    assert place is not None, f"not an element: {ordered[0].id}"
    most = place.max_parallel or len(ordered)
    moved: dict[str, int] = {}
    for job, later in zip(ordered[-most - 1 :: -1], ordered[::-1], strict=False):
        flavors = _surest(later, market=market)
        if flavors:
            latest_us = moved.get(later.id, due[later.id]) - _whole_us(later, flavors, market)
            if latest_us < due[job.id]:
                moved[job.id] = latest_us
    return moved


def _whole_us(job: JobRow, flavors: Iterable[Flavor], market: Market) -> int:
    slowest = max(flavors, key=lambda flavor: flavor.boot_ms)
    guarded = guarded_ms(job.spec, job.work_ms, settings=market.settings)
    return (overhead_ms(job, slowest, restores=False) + guarded) * US_PER_MS


# -- crowding ----------------------------------------------------------------------------------


def _after_crowding(
    snapshot: Snapshot, jobs: Mapping[str, JobRow], due: Mapping[str, int], *, market: Market
) -> dict[str, int]:
    """Give the due instants of jobs whose latest starts would crowd each other out."""
    blocks, claims = blocks_and_claims(snapshot, jobs, due, market=market)
    nodes = sure_nodes(market)
    late: dict[str, int] = {}
    fit = not claims or all_fit(claims, profiles_of(blocks, nodes=nodes))
    if not fit or (claims and _may_crowd(jobs.values(), nodes, market=market)):
        yielding = _yielding(snapshot, blocks, market=market)
        market.layout = Layout(claims, blocks, nodes=nodes, yielding=yielding, now_us=market.now_us)
        late = {} if fit else market.layout.delays_us()
    grace = _graces_us(snapshot, claims, blocks, market=market)
    return {
        claim.job_id: due[claim.job_id] - delay_us
        for claim in claims
        if (delay_us := late.get(claim.job_id, 0) + grace.get(claim.job_id, 0))
    }


def _yielding(snapshot: Snapshot, blocks: Iterable[Block], *, market: Market) -> dict[str, int]:
    """Give the room on sure capacity of those that give way to deadlines."""
    held, found = {block.job_id for block in blocks}, dict[str, int]()
    for one in snapshot.live:
        offer = market.offers.get(one.attempt.flavor)
        if offer is not None and is_sure(offer.flavor) and one.job.id not in held:
            name = offer.flavor.name
            found[name] = found.get(name, 0) + room(one.job, offer.flavor)
    return found


def _may_crowd(jobs: Iterable[JobRow], nodes: Mapping[str, int], *, market: Market) -> bool:
    """Whether some sure flavor could not hold all open jobs at once."""
    wanted = dict.fromkeys(nodes, 0)
    for job in jobs:
        for flavor in market.sure_flavors(job.spec):
            wanted[flavor.name] += room(job, flavor)
    return any(wanted[name] > count * NODE_ROOM for name, count in nodes.items())


def _graces_us(
    snapshot: Snapshot, claims: Iterable[Claim], blocks: Iterable[Block], *, market: Market
) -> dict[str, int]:
    """Give the time that others need to save and make way, where a claim counts on their nodes."""
    held = {block.job_id for block in blocks}
    crowded = {one.attempt.flavor for one in snapshot.live if one.job.id not in held}
    wanted: dict[str, int] = {}
    for name, _, wants in (need for claim in claims for need in claim.needs):
        wanted[name] = wanted.get(name, 0) + wants
    short = {
        name
        for name, wants in wanted.items()
        if name in crowded and wants > market.offers[name].launchable * NODE_ROOM
    }
    grace_us = market.settings.drain_grace_ms * US_PER_MS
    return {
        claim.job_id: grace_us
        for claim in claims
        if all(name in short for name, _, _ in claim.needs)
    }


def blocks_and_claims(
    snapshot: Snapshot, jobs: Mapping[str, JobRow], due: Mapping[str, int], *, market: Market
) -> tuple[list[Block], list[Claim]]:
    """Give what deadlines hold of sure capacity, and what the others may need of it."""
    blocks = [block for one in snapshot.live for block in _held(one, market=market)]
    held = {block.job_id for block in blocks}
    attempts = {one.job.id: one for one in snapshot.live}
    before = _before(snapshot, jobs, due)
    claims = [
        replace(claim, after=tuple(before.get(job_id, ())))
        for job_id, at_us in due.items()
        if job_id not in held
        for claim in _claim(jobs[job_id], attempts.get(job_id), due_us=at_us, market=market)
    ]
    return blocks, claims


def sure_nodes(market: Market) -> dict[str, int]:
    """Give how many nodes each sure flavor can have."""
    return {
        offer.flavor.name: offer.limit or offer.flavor.max_nodes
        for offer in market.offers.values()
        if is_sure(offer.flavor)
    }


def _claim(job: JobRow, one: LiveAttempt | None, *, due_us: int, market: Market) -> Iterator[Claim]:
    """Give the job's claim on sure capacity: none without an estimate, or where none is allowed.

    What is up on spot must find the room as soon as it begins to leave.
    """
    flavors = market.sure_flavors(job.spec)
    if not flavors or not job.work_ms:
        return
    if one is None:
        yield claim_of(job, flavors, due_us=due_us, market=market)
        return
    offer = market.offers.get(one.attempt.flavor)
    yield claim_of(
        job,
        flavors,
        due_us=due_us,
        market=market,
        spot=None if offer is None else offer.flavor,
        work_ms=work_if_lost_ms(job, one.attempt, now_us=market.now_us),
        steady=is_steady(job, one.attempt),
    )


def claim_of(
    job: JobRow,
    flavors: Iterable[Flavor],
    *,
    due_us: int,
    market: Market,
    spot: Flavor | None = None,
    work_ms: int | None = None,
    steady: bool = False,
) -> Claim:
    """Give the claim of a job that waits, or that is up on ``spot``."""
    settings = market.settings
    guarded = guarded_ms(
        job.spec, job.remaining_ms() if work_ms is None else work_ms, settings=settings
    )
    restores = spot is not None or job.attempts > 0
    if spot is not None:
        guarded += leaving_ms(spot, steady=steady, settings=settings)
    needs = tuple(
        (
            flavor.name,
            (overhead_ms(job, flavor, restores=restores) + guarded) * US_PER_MS,
            room(job, flavor),
        )
        for flavor in flavors
    )
    return Claim(job_id=job.id, due_us=due_us, submitted_us=job.submitted_us, needs=needs)


def _held(one: LiveAttempt, *, market: Market) -> Iterator[Block]:
    """Give what a live attempt with a deadline holds of sure capacity until its end.

    One without a deadline gives way (``scheduler.victims``), so it blocks nobody.
    """
    job, offer = one.job, market.offers.get(one.attempt.flavor)
    if offer is None or not is_sure(offer.flavor) or job.deadline_us is None or not job.work_ms:
        return
    left_us = guarded_ms(job.spec, job.remaining_ms(), settings=market.settings) * US_PER_MS
    until_us = max(market.now_us, _works_since_us(one, offer.flavor) + left_us)
    yield Block(
        job_id=job.id,
        flavor=offer.flavor.name,
        start_us=market.now_us,
        end_us=until_us,
        room=room(job, offer.flavor),
    )


def _works_since_us(one: LiveAttempt, flavor: Flavor) -> int:
    """Give since when an attempt works, or will, on what its job had left at its restore point.

    Capacity that is sure loses nothing, so its end stands still while the clock runs.
    """
    attempt, point = one.attempt, one.job.restore_point
    if attempt.training_us is None:
        restores = attempt.number > 1
        start_ms = overhead_ms(one.job, flavor, restores=restores)
        return attempt.created_us + start_ms * US_PER_MS
    mine = point is not None and point.epoch == attempt.number
    return point.snapshot_us if point is not None and mine else attempt.training_us


def room(job: JobRow, flavor: Flavor) -> int:
    """Give the room that a gang takes, a node being ``NODE_ROOM``.

    A share of a node is rounded up to a half, a quarter ...: such shares pack without gaps.
    """
    have, need = flavor.gpu_milli, job.spec.gpu_milli
    if not have:
        have, need = flavor.cpus, job.spec.cpus
    each = max(1, have // max(1, need))
    return job.spec.nodes * (NODE_ROOM >> (each.bit_length() - 1))

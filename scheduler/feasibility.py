"""Whether what is submitted can be done: alone, in its chain, and beside all other deadlines.

The last is the question of ``scheduler.claims`` asked without margins: are there enough sure nodes
for every deadline at once, each as late as it can be? A submit that would put any deadline out of
reach is refused whole, with the earliest finish.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from jobs.arrays import members
from jobs.durations import US_PER_MS, show_duration
from jobs.errors import InfeasibleError
from jobs.rows import JobRow
from scheduler import claims, sentences
from scheduler.admission import check_admissible
from scheduler.affordability import check_affordable
from scheduler.market import Market
from scheduler.needs import REACTION_US
from scheduler.snapshot import Snapshot
from scheduler.sure_room import Block, Claim, Profile, laid_out, profiles_of

_MINUTE_US = 60_000_000


def check_submit(rows: Sequence[JobRow], *, snapshot: Snapshot) -> None:
    """Check the jobs of a submit, given as the rows that they would get.

    Raises:
        InfeasibleError: nothing could ever hold one of them, or a deadline is out of reach, or
            its own budget cannot pay for it.
    """
    seen: dict[tuple[object, ...], None] = {}
    for row in rows:
        spec = row.spec
        shape = (spec.nodes, spec.gpus, spec.cpus, spec.deadline, spec.work, spec.array)
        place = row.array.id if row.array else row.id
        if (place, *shape) in seen:
            continue  # elements of an array differ by what the script is told
        seen[place, *shape] = None
        check_admissible(
            spec,
            submitted_us=snapshot.now_us,
            offers=snapshot.offers,
            now_us=snapshot.now_us,
            settings=snapshot.settings,
        )
    check_affordable(rows, snapshot=snapshot)
    _check_together(rows, snapshot=snapshot)


def _check_together(rows: Sequence[JobRow], *, snapshot: Snapshot) -> None:
    if all(row.deadline_us is None for row in rows):
        return  # it claims nothing
    exact = replace(snapshot.settings, margin_percent=0, margin_ms=0)
    before = replace(snapshot, settings=exact)
    after = _with(rows, before)
    _check_held(rows, after, before)
    late = _laid_out(after, late=True)
    known = {claim.job_id for claim, _ in _laid_out(before, late=True)} if late else set()
    fresh = [(claim, start_us) for claim, start_us in late if claim.job_id not in known]
    if fresh:
        raise _refusal(fresh, {row.id: row for row in rows}, after=after)


def _check_held(rows: Sequence[JobRow], after: Snapshot, before: Snapshot) -> None:
    """Check that predecessors that hold sure capacity end in time for the new jobs."""
    old = {block.job_id for block, _ in _overdue(before)}
    for block, due_us in _overdue(after):
        if block.job_id not in old:
            names = ", ".join(f"'{row.spec.label}'" for row in rows if row.spec.after)
            raise InfeasibleError(
                f"A deadline of {names} cannot be met: {block.job_id}, which must end before, by "
                f"{sentences.show_instant(due_us)}, ends at "
                f"{sentences.show_instant(block.end_us)}.",
                remedy="Give a later deadline, or less work.",
            )


def _overdue(snapshot: Snapshot) -> list[tuple[Block, int]]:
    market, jobs = Market(snapshot), claims.open_jobs(snapshot)
    due = claims.due_us(snapshot, jobs, market=market)
    blocks, _ = claims.blocks_and_claims(snapshot, jobs, due, market=market)
    overdue = ((block, due.get(block.job_id, block.end_us)) for block in blocks)
    return [pair for pair in overdue if pair[0].end_us > pair[1] + REACTION_US]


def _with(rows: Sequence[JobRow], snapshot: Snapshot) -> Snapshot:
    """Give the snapshot with new rows in the queue."""
    jobs = {**claims.open_jobs(snapshot), **{row.id: row for row in rows}}
    names = [one.job for row in rows for one in row.spec.after]
    named = [row for name in names for row in members(jobs, name)]
    return replace(
        snapshot,
        queued=(*snapshot.queued, *rows),
        predecessors=tuple({row.id: row for row in (*snapshot.predecessors, *named)}.values()),
    )


def _laid_out(snapshot: Snapshot, *, late: bool = False) -> list[tuple[Claim, int]]:
    """Give all claims and their starts in the best order, or those that come too late."""
    market = Market(snapshot)
    jobs = claims.open_jobs(snapshot)
    due = claims.due_us(snapshot, jobs, market=market)
    blocks, wanted = claims.blocks_and_claims(snapshot, jobs, due, market=market)
    profiles = profiles_of(blocks, nodes=claims.sure_nodes(market))
    return [
        (claim, start_us)
        for claim, start_us in laid_out(wanted, profiles)
        if not late or start_us + REACTION_US < snapshot.now_us
    ]


def _refusal(
    late: list[tuple[Claim, int]], rows: Mapping[str, JobRow], *, after: Snapshot
) -> InfeasibleError:
    """Say which of the new jobs asks for too much: the late one, else the first one due."""
    mine = [pair for pair in late if pair[0].job_id in rows]
    if not mine:
        asked = [pair for pair in _laid_out(after) if pair[0].job_id in rows]
        mine = [min(asked, key=lambda pair: (pair[0].due_us, pair[0].job_id))]
    claim, start_us = mine[0]
    job = rows[claim.job_id]
    if job.deadline_us is None:  # it is due for the sake of a dependent
        ago = show_duration((after.now_us - start_us) // US_PER_MS)
        return InfeasibleError(
            f"'{job.spec.label}' would have to start {ago} ago for the deadlines of the jobs that "
            "come after it.",
            remedy="Give the last job of the chain a later deadline.",
        )
    finish_us = _earliest_us(claim, after)
    when = "unknown" if finish_us is None else sentences.show_instant(finish_us)
    return InfeasibleError(
        f"The deadline {sentences.show_instant(job.deadline_us)} of '{job.spec.label}' cannot be "
        f"met beside the deadlines that were accepted before: the earliest finish is {when}.",
        remedy="Give a later deadline or less work, or raise the limit of an on-demand flavor.",
    )


def _earliest_us(claim: Claim, snapshot: Snapshot) -> int | None:
    """Give the earliest deadline, to the minute, that this check would have taken."""
    others = [one for one, _ in _laid_out(snapshot) if one.job_id != claim.job_id]
    low_us, high_us = claim.due_us, _after_all_us(claim, others, snapshot)
    while high_us is not None and high_us - low_us > _MINUTE_US:
        middle_us = (low_us + high_us) // 2
        if _fits(replace(claim, due_us=middle_us), others, snapshot):
            high_us = middle_us
        else:
            low_us = middle_us
    return None if high_us is None else -(-high_us // _MINUTE_US) * _MINUTE_US


def _fits(claim: Claim, others: Sequence[Claim], snapshot: Snapshot) -> bool:
    starts = dict(_starts((*others, claim), _profiles(snapshot)))
    alone = dict(_starts(others, _profiles(snapshot)))
    now_us = snapshot.now_us
    return all(
        start_us >= now_us or alone.get(job_id, now_us) < now_us
        for job_id, start_us in starts.items()
    )


def _starts(wanted: Iterable[Claim], profiles: Mapping[str, Profile]) -> Iterable[tuple[str, int]]:
    return ((claim.job_id, start_us) for claim, start_us in laid_out(wanted, profiles))


def _after_all_us(claim: Claim, others: Sequence[Claim], snapshot: Snapshot) -> int | None:
    """Give the finish in the room that is left when all others start as late as they can."""
    profiles = _profiles(snapshot)
    for _ in laid_out(others, profiles):
        pass  # each takes its room
    found = [
        start_us + wall_us
        for flavor, wall_us, room in claim.needs
        if (start_us := profiles[flavor].first_start(wall_us, room, from_us=snapshot.now_us))
        is not None
    ]
    return min(found, default=None)


def _profiles(snapshot: Snapshot) -> dict[str, Profile]:
    market, jobs = Market(snapshot), claims.open_jobs(snapshot)
    blocks, _ = claims.blocks_and_claims(snapshot, jobs, {}, market=market)
    return profiles_of(blocks, nodes=claims.sure_nodes(market))

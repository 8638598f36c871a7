"""Whether a job may count on stopping and going on later: only where nobody has to wait for room.

A running job holds sure capacity until its end; a stopped one has to find it again, beside all
others who count on it. Laying their latest starts out one after the other is not enough: each of
them may start earlier and stay. So stops are for flavors that have room for every open job with a
deadline at once. Where capacity is scarcer than that, a cheap hour is not worth a deadline.
"""

from __future__ import annotations

from jobs.rows import JobRow
from scheduler.claims import open_jobs, room, sure_nodes
from scheduler.market import Market
from scheduler.sure_room import NODE_ROOM


def has_room_for_all(job: JobRow, *, market: Market) -> bool:
    """Whether some sure flavor that the job may use holds all deadlines at once.

    A job that may use spot alone has no such flavor to lose.
    """
    mine = [flavor.name for flavor in market.sure_flavors(job.spec)]
    if not mine:
        return True
    if not market.room_wanted:
        market.room_wanted = _wanted(market)
    nodes = sure_nodes(market)
    return any(market.room_wanted.get(name, 0) <= nodes[name] * NODE_ROOM for name in mine)


def _wanted(market: Market) -> dict[str, int]:
    """Give the room that all open jobs with a deadline would take of each sure flavor."""
    wanted: dict[str, int] = {}
    for job in open_jobs(market.snapshot).values():
        if job.deadline_us is None:
            continue
        for flavor in market.sure_flavors(job.spec):
            wanted[flavor.name] = wanted.get(flavor.name, 0) + room(job, flavor)
    return wanted

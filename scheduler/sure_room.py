"""Sure capacity over time, and how late each deadline may count on it when all do.

``places`` lays claims out backwards: the last deadline first, each as late as the room allows.
The layout is a plan that keeps every deadline, so starting no later than it says is safe for all.
Where everybody fits at once, nothing moves.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush

NODE_ROOM = 1 << 20
"""The room of a whole node."""
_EVER_US = -(1 << 62)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A job that must be on sure capacity for a while before an instant.

    ``needs`` are (flavor, microseconds, room) of each flavor that would do. The jobs in ``after``
    must have ended before it starts.
    """

    job_id: str
    due_us: int
    submitted_us: int
    needs: tuple[tuple[str, int, int], ...]
    after: tuple[str, ...] = ()

    @property
    def start_us(self) -> int:
        """The latest start when nobody else is there: the slowest flavor counts."""
        return self.due_us - max(wall_us for _, wall_us, _ in self.needs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Room that is taken already."""

    job_id: str
    flavor: str
    start_us: int
    end_us: int
    room: int
    yields: bool = False  # it gives way to any claim


class Profile:
    """The room taken of one flavor, as steps over time."""

    def __init__(self, room: int) -> None:
        """Begin empty."""
        self.room = room
        self._times = [_EVER_US]
        self._taken = [0]

    def take(self, start_us: int, end_us: int, room: int) -> None:
        """Take room over an interval."""
        for index in range(self._cut(start_us), self._cut(end_us)):
            self._taken[index] += room

    def last_start(self, wall_us: int, room: int, *, before_us: int) -> int | None:
        """Give the latest start of a stretch that ends by an instant; None if it never fits."""
        if room > self.room:
            return None
        end_us = before_us
        for index in range(bisect_left(self._times, before_us) - 1, -1, -1):
            if self._taken[index] + room > self.room:
                end_us = self._times[index]
            elif end_us - self._times[index] >= wall_us:
                break
        return end_us - wall_us

    def first_start(self, wall_us: int, room: int, *, from_us: int) -> int | None:
        """Give the earliest start of a stretch from an instant on; None if it never fits."""
        if room > self.room:
            return None
        start_us = from_us
        for index in range(max(0, bisect_right(self._times, from_us) - 1), len(self._times)):
            if self._taken[index] + room > self.room:
                start_us = self._times[index + 1]  # the last step is empty
            elif index + 1 < len(self._times) and self._times[index + 1] - start_us >= wall_us:
                break
        return start_us

    def has(self, start_us: int, end_us: int, room: int) -> bool:
        """Whether so much room is free over the whole interval."""
        first = max(0, bisect_right(self._times, start_us) - 1)
        last = max(first + 1, bisect_left(self._times, end_us))
        return all(taken + room <= self.room for taken in self._taken[first:last])

    @property
    def fits(self) -> bool:
        """Whether no more is taken than there is, at any time."""
        return max(self._taken) <= self.room

    def _cut(self, at_us: int) -> int:
        """Give the index of the step that begins at an instant, made if need be."""
        index = bisect_left(self._times, at_us)
        if index == len(self._times) or self._times[index] != at_us:
            self._times.insert(index, at_us)
            self._taken.insert(index, self._taken[index - 1])
        return index


def laid_out(
    claims: Iterable[Claim], profiles: Mapping[str, Profile]
) -> Iterator[tuple[Claim, int]]:
    """Take room for each claim as late as possible, and give its start (may be in the past)."""
    return ((claim, block.start_us) for claim, block in places(claims, profiles))


def places(
    claims: Iterable[Claim], profiles: Mapping[str, Profile]
) -> Iterator[tuple[Claim, Block]]:
    """Take room for each claim as late as possible, and give which.

    Who must end before another starts is due when the place of that one begins.
    """
    ordered = sorted(claims, key=lambda one: (one.submitted_us, one.job_id), reverse=True)
    ranks = {claim.job_id: rank for rank, claim in enumerate(ordered)}
    waiting = dict(enumerate(ordered))
    last_first = [(-claim.due_us, rank) for rank, claim in waiting.items()]
    heapify(last_first)
    while last_first:
        minus_us, rank = heappop(last_first)
        claim = waiting.get(rank)
        if claim is None or claim.due_us != -minus_us:
            continue  # it became due earlier
        del waiting[rank]
        block = last_place(claim, profiles)
        if block is None:
            continue
        profiles[block.flavor].take(block.start_us, block.end_us, block.room)
        yield claim, block
        for rank in (ranks[name] for name in claim.after if name in ranks):
            before = waiting.get(rank)
            if before is not None and before.due_us > block.start_us:
                waiting[rank] = replace(before, due_us=block.start_us)
                heappush(last_first, (-block.start_us, rank))


def last_place(claim: Claim, profiles: Mapping[str, Profile]) -> Block | None:
    """Give the latest room that is free for a claim, None if none ever is."""
    best: tuple[int, str, int, int] | None = None
    for flavor, wall_us, room in claim.needs:
        start_us = profiles[flavor].last_start(wall_us, room, before_us=claim.due_us)
        if start_us is not None and (best is None or (start_us, flavor) > best[:2]):
            best = (start_us, flavor, wall_us, room)
    if best is None:
        return None
    start_us, flavor, wall_us, room = best
    return Block(
        job_id=claim.job_id,
        flavor=flavor,
        start_us=start_us,
        end_us=start_us + wall_us,
        room=room,
    )


def profiles_of(blocks: Iterable[Block], *, nodes: Mapping[str, int]) -> dict[str, Profile]:
    """Give each flavor's profile with what is taken already."""
    profiles = {name: Profile(count * NODE_ROOM) for name, count in nodes.items()}
    for block in blocks:
        profiles[block.flavor].take(block.start_us, block.end_us, block.room)
    return profiles


def all_fit(claims: Sequence[Claim], profiles: Mapping[str, Profile]) -> bool:
    """Whether every claim fits at its latest start, wherever all the others went."""
    due_us = {claim.job_id: claim.due_us for claim in claims}
    for claim in claims:
        if any(due_us.get(name, claim.start_us) > claim.start_us for name in claim.after):
            return False
    for claim in claims:
        for flavor, wall_us, room in claim.needs:
            profiles[flavor].take(claim.start_us, claim.start_us + wall_us, room)
    return all(profile.fits for profile in profiles.values())

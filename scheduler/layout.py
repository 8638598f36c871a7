"""The plan in which every deadline has its sure capacity, and what still fits beside it.

The layout of ``scheduler.sure_room`` keeps every deadline as long as nobody else stands in it. So
a start by choice has to fit: the others are laid out again around it, and none of them may become
late that was in time. First the cheap question is asked, whether it fits while the others stay
where they are; only then, and for a limited number of times in a cycle, the dear one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from scheduler.needs import REACTION_US
from scheduler.sure_room import Block, Claim, Profile, last_place, places, profiles_of

_MOST_CLAIMS = 4_000
"""So many claims are laid out again in a cycle; who asks after that is told that it does not fit,
which is safe."""


class Layout:
    """Blocks and claims on sure capacity in a cycle; it follows the starts that are decided."""

    def __init__(
        self,
        claims: Iterable[Claim],
        blocks: Iterable[Block],
        *,
        nodes: Mapping[str, int],
        yielding: Mapping[str, int],
        now_us: int,
    ) -> None:
        """Lay the claims out around the blocks.

        ``yielding`` is the room, by flavor, of those that are up and give way to any claim.
        """
        self._nodes, self._yielding, self._now_us = nodes, yielding, now_us
        self._claims = {claim.job_id: claim for claim in claims}
        self._blocks = {block.job_id: block for block in blocks}
        self._left = _MOST_CLAIMS
        self._profiles, self._places, self._due = self._laid_out(self._claims, self._blocks)

    def delays_us(self) -> dict[str, int]:
        """Give how much earlier than alone each claim must start."""
        return {
            job_id: max(0, self._claims[job_id].start_us - place.start_us)
            for job_id, place in self._places.items()
        }

    def takes(self, block: Block) -> bool:
        """Whether a job may take this room now and all others keep theirs; if so, it is noted."""
        if block.yields and not self.fits(block):
            return False
        own = self._places.get(block.job_id)
        profile = self._profiles[block.flavor]
        self._lift(own)
        fits = profile.has(block.start_us, block.end_us, block.room)
        if fits:
            profile.take(block.start_us, block.end_us, block.room)
            self._places.pop(block.job_id, None)
        else:
            self._lift(own, back=True)
        claims = {name: claim for name, claim in self._claims.items() if name != block.job_id}
        blocks = {**self._blocks, block.job_id: block}
        return self._noted(claims, blocks, known=fits)

    def keeps(self, claim: Claim) -> bool:
        """Whether a job may have this claim in place of what it has; if so, it is noted."""
        own = self._places.get(claim.job_id) or self._blocks.get(claim.job_id)
        self._lift(own)
        place = last_place(claim, self._profiles)
        fits = place is not None and place.start_us + REACTION_US >= self._now_us
        if fits and place is not None:
            self._profiles[place.flavor].take(place.start_us, place.end_us, place.room)
            self._places[claim.job_id] = place
        else:
            self._lift(own, back=True)
        blocks = {name: block for name, block in self._blocks.items() if name != claim.job_id}
        return self._noted({**self._claims, claim.job_id: claim}, blocks, known=fits)

    def due_us(self, job_id: str) -> int | None:
        """Give by when the claim of a job is due beside all others, None without one."""
        return self._due.get(job_id)

    def start_us(self, job_id: str) -> int | None:
        """Give when the room begins that is laid out for a job, None without any."""
        place = self._places.get(job_id)
        return None if place is None else place.start_us

    def fits(self, block: Block) -> bool:
        """Whether this room is free while all others stay where they are.

        To one that gives way, those who do so as well count: else each would be stopped for what
        the other one took.
        """
        own = self._places.get(block.job_id)
        wanted = block.room + (self._yielding.get(block.flavor, 0) if block.yields else 0)
        self._lift(own)
        fits = self._profiles[block.flavor].has(block.start_us, block.end_us, wanted)
        self._lift(own, back=True)
        return fits

    def has_place(self, claim: Claim) -> bool:
        """Whether a claim would be in time while all others stay where they are."""
        own = self._places.get(claim.job_id)
        self._lift(own)
        place = last_place(claim, self._profiles)
        self._lift(own, back=True)
        return place is not None and place.start_us + REACTION_US >= self._now_us

    def first_in(self, block: Block) -> Claim | None:
        """Give the first claim that has its place where a block would be."""
        found = [
            (place.start_us, job_id)
            for job_id, place in self._places.items()
            if place.flavor == block.flavor
            and job_id != block.job_id
            and place.start_us < block.end_us
            and place.end_us > block.start_us
        ]
        return self._claims[min(found)[1]] if found else None

    def _lift(self, place: Block | None, *, back: bool = False) -> None:
        if place is not None:
            room = place.room if back else -place.room
            self._profiles[place.flavor].take(place.start_us, place.end_us, room)

    def _noted(self, claims: dict[str, Claim], blocks: dict[str, Block], *, known: bool) -> bool:
        if not known:
            if self._left < len(claims):
                return False
            self._left -= len(claims)
            profiles, found, due = self._laid_out(claims, blocks)
            if any(self._is_later(job_id, found) for job_id in claims):
                return False
            self._profiles, self._places, self._due = profiles, found, due
        self._claims, self._blocks = claims, blocks
        return True

    def _is_later(self, job_id: str, found: Mapping[str, Block]) -> bool:
        """Whether a claim that was in time is not any more."""
        place, before = found.get(job_id), self._places.get(job_id)
        if place is None:
            return before is not None
        limit_us = self._now_us if before is None else min(self._now_us, before.start_us)
        return place.start_us + REACTION_US < limit_us

    def _laid_out(
        self, claims: Mapping[str, Claim], blocks: Mapping[str, Block]
    ) -> tuple[dict[str, Profile], dict[str, Block], dict[str, int]]:
        profiles = profiles_of(blocks.values(), nodes=self._nodes)
        found: dict[str, Block] = {}
        due: dict[str, int] = {}
        for claim, block in places(claims.values(), profiles):
            found[claim.job_id], due[claim.job_id] = block, claim.due_us
        return profiles, found, due

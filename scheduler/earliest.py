"""How early a job could have ended, by whoever knew all limits ahead and had the world alone."""

from __future__ import annotations

from jobs.durations import US_PER_MS
from jobs.spec import JobSpec
from scheduler.bound import Past, Places, choose_slot_us, open_end_us, places_of, slot_edges

_CELLS = 4_000_000  # slots x work x flavors: some milliseconds


def earliest_finish_us(spec: JobSpec, *, submitted_us: int, past: Past) -> int | None:
    """Give an instant before which nobody could have ended the job, None = never.

    Forwards over time slots: the most work that can be done by each slot's edge, while nothing
    runs or on each flavor. Work and changeovers are rounded down to slots, so it is a bound.
    """
    usable = [c for c in past.capacities if c.flavor.allows(spec)]
    end_us = open_end_us(spec, submitted_us, usable, past)
    span = (submitted_us - past.start_us, end_us - past.start_us)
    slot_us = choose_slot_us(spec, usable, start_us=past.start_us, span=span, cells=_CELLS)
    edges = slot_edges(past.start_us, submitted_us, end_us, slot_us)
    places = [places_of(c, spec, edges, slot_us, past, alone=True) for c in usable]
    slot = _first_slot(places, work=(spec.work or 0) * US_PER_MS // slot_us, slots=len(edges) - 1)
    return None if slot is None else max(submitted_us, int(edges[slot]))


_NOTHING = -1


def _first_slot(places: list[Places], *, work: int, slots: int) -> int | None:
    """Give the first edge by which so much work can be done."""
    idle = 0  # most work done so far
    lanes = [_Lane(place, slots) for place in places]
    for slot in range(slots + 1):
        idle = max(idle, *(lane.arrive(slot) for lane in lanes), 0)
        if idle >= work:
            return slot
        for lane in lanes:
            lane.leave(slot, idle)
    return None


class _Lane:
    """One flavor: what is being trained on it, and launches that are under way."""

    def __init__(self, place: Places, slots: int) -> None:
        self._place = place
        self._slots = slots
        self._done = _NOTHING  # most work of an attempt that trains here
        self._coming: dict[int, int] = {}  # by the slot in which it will train: work done before

    def arrive(self, slot: int) -> int:
        """Let the launches train that are ready; give the most work done here."""
        self._done = max(self._done, self._coming.pop(slot, _NOTHING))
        return self._done

    def leave(self, slot: int, idle: int) -> None:
        """Spend a slot: launch with the best that is known, train on, lose what has no room."""
        if slot >= self._slots:
            return
        place = self._place
        if place.start[slot]:
            for changeover, before in ((place.first, 0), (place.again, idle)):
                ready = slot + changeover
                if changeover == 0:
                    self._done = max(self._done, before)
                else:
                    self._coming[ready] = max(self._coming.get(ready, _NOTHING), before)
        if not place.run[slot]:
            self._done = _NOTHING
            self._coming.clear()
        elif self._done >= 0:
            self._done += 1

"""Which nodes: whole gangs by best fit on free room, then on new nodes.

A gang stands on as many different nodes of ONE flavor (so of one zone and cluster). Within a plan
a new node's unused part is free for the jobs that come later in it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field

from cluster.offers import Offer
from jobs.spec import JobSpec
from jobs.states import AttemptState, NodeState
from scheduler import budgets
from scheduler.budget_purses import Purses
from scheduler.kept_room import is_free, is_late, may_start, without_kept
from scheduler.market import Choice, Market
from scheduler.plan import NewNode, Place
from scheduler.snapshot import NodeView, Snapshot
from scheduler.wishes import Wait, Wish, leaves_at_us, place_of

_COMING = (NodeState.REQUESTED, NodeState.BOOTING)
_Room = tuple[
    int, int, int, str
]  # free GPU thousandths, 1 = not up yet, free cores, id: best first
_Shape = tuple[int, int, int, str]


class Pools:
    """The free room of a cycle by flavor; it only ever shrinks, which the cache relies on."""

    def __init__(self, snapshot: Snapshot) -> None:
        """Take the nodes on which something may be placed."""
        self._rooms: dict[str, list[_Room]] = {}
        self._launchable = {offer.flavor.name: offer.launchable for offer in snapshot.offers}
        self._full: dict[_Shape, None] = {}
        self._held: dict[str, None] = {}  # nodes that a gang waits for; nobody else gets them
        self._leaving = _leaving(snapshot)
        self.new_nodes: list[NewNode] = []
        for view in snapshot.nodes:
            if is_open(view) and (view.free_milli or not view.row.gpu_milli):
                coming = int(view.row.state in _COMING)
                room = (view.free_milli, coming, view.free_cpus, view.row.id)
                self._rooms.setdefault(view.row.flavor, []).append(room)
        for rooms in self._rooms.values():
            rooms.sort()

    def cost(self, choice: Choice, spec: JobSpec) -> int | None:
        """Give what a start there costs now, None without room for the whole gang.

        On nodes that are up the job pays its share; new nodes it pays whole, until others join.
        """
        offer = choice.offer
        shape = (spec.gpu_milli, spec.cpus, spec.nodes, offer.flavor.name)
        if shape in self._full:
            return None
        missing = spec.nodes - len(self._best_fit(spec, offer))
        if missing > self._launchable[offer.flavor.name]:
            self._full[shape] = None
            return None
        return choice.whole_nanos if missing else choice.cost_nanos

    def free(self, flavor: str) -> dict[str, tuple[int, int]]:
        """Give what is free on each node of a flavor: GPU thousandths and cores."""
        rooms = self._rooms.get(flavor, ())
        return {node: (milli, cpus) for milli, _, cpus, node in rooms}

    def hold(self, spec: JobSpec, flavor: str) -> bool:
        """Keep for a gang the nodes that have room for it as soon as those that leave have left.

        Else whoever made way at once takes the place again, while the others still save.
        """
        free, has = self.free(flavor), self._best_fit_of(spec, flavor)
        ready = {node for *_, node in has}
        fitting = [
            node
            for node, (name, milli, cpus) in self._leaving.items()
            if name == flavor
            and node not in self._held
            and node not in ready
            and free.get(node, (0, 0))[0] + milli >= spec.gpu_milli
            and free.get(node, (0, 0))[1] + cpus >= spec.cpus
        ]
        rest = spec.nodes - self._launchable.get(flavor, 0) - len(has)
        if not 0 < rest <= len(fitting):
            return False
        self._held |= dict.fromkeys(fitting[:rest])
        return True

    def launchable(self, flavor: str) -> int:
        """Give how many nodes of a flavor may still be launched in this cycle."""
        return self._launchable[flavor]

    def ready(self, choice: Choice, spec: JobSpec) -> bool:
        """Whether the whole gang fits on nodes that are up."""
        rooms = self._best_fit(spec, choice.offer)
        return len(rooms) == spec.nodes and not any(coming for _, coming, _, _ in rooms)

    def take(self, spec: JobSpec, offer: Offer) -> tuple[str, ...]:
        """Take room for a gang that fits; ids and refs of new nodes, those that are up first."""
        name = offer.flavor.name
        taken = self._best_fit(spec, offer)
        rooms = self._rooms.setdefault(name, [])
        for room in taken:
            rooms.remove(room)
        for _ in range(spec.nodes - len(taken)):
            taken.append(self._launch(offer))
        for free_milli, coming, free_cpus, node in taken:
            left = (free_milli - spec.gpu_milli, coming, free_cpus - spec.cpus, node)
            if left[2] > 0 and (left[0] > 0 or not offer.flavor.gpu_milli):
                insort(rooms, left)
        return tuple(room[3] for room in sorted(taken, key=lambda room: (room[1], room[3])))

    def _launch(self, offer: Offer) -> _Room:
        name = offer.flavor.name
        assert self._launchable[name] > 0, f"no room to launch {name}"
        self._launchable[name] -= 1
        ref = f"new-{len(self.new_nodes) + 1}"
        self.new_nodes.append(NewNode(ref=ref, flavor=name))
        return (offer.flavor.gpu_milli, 1, offer.flavor.cpus, ref)

    def _best_fit(self, spec: JobSpec, offer: Offer) -> list[_Room]:
        """Give up to a gang's number of rooms, the tightest first."""
        return self._best_fit_of(spec, offer.flavor.name)

    def _best_fit_of(self, spec: JobSpec, flavor: str) -> list[_Room]:
        rooms = self._rooms.get(flavor, [])
        found: list[_Room] = []
        for index in range(bisect_left(rooms, (spec.gpu_milli,)), len(rooms)):
            if rooms[index][2] >= spec.cpus and rooms[index][3] not in self._held:
                found.append(rooms[index])
                if len(found) == spec.nodes:
                    break
        return found


def _leaving(snapshot: Snapshot) -> dict[str, tuple[str, int, int]]:
    """Give what attempts that drain will leave on nodes that stay: flavor, milli, cores."""
    going = [one for one in snapshot.live if one.attempt.state is AttemptState.DRAINING]
    if not going:
        return {}
    stay = {view.row.id: view.row.flavor for view in snapshot.nodes if is_open(view)}
    found: dict[str, tuple[str, int, int]] = {}
    for one in going:
        for node in one.attempt.node_ids:
            if node in stay:
                _, milli, cpus = found.get(node, ("", 0, 0))
                held = (milli + one.attempt.gpu_milli, cpus + one.job.spec.cpus)
                found[node] = (stay[node], *held)
    return found


def is_open(view: NodeView) -> bool:
    """Whether an attempt may be placed on the node now, also one that is still coming up."""
    coming = view.row.state in _COMING and not view.row.cordoned and not view.row.noticed
    return coming or view.row.usable


@dataclass(slots=True)
class Placed:
    """What a cycle's placement came to."""

    places: list[Place] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    wakes_us: list[int] = field(default_factory=list)
    without_room: list[Wish] = field(default_factory=list)  # they wait, or do with spot on the net


def place_all(
    wishes: Iterable[Wish], *, pools: Pools, market: Market, purses: Purses | None = None
) -> Placed:
    """Place each wish on its cheapest choice that has room and money; the others wait."""
    placed = Placed()
    purses = purses or Purses(now_us=market.now_us)
    for given in sorted(wishes, key=lambda wish: wish.order):
        wish = budgets.within(given, purses=purses, market=market)
        if isinstance(wish, Wait):
            placed.waits.append(wish)
            continue
        choice, kept = _pick(wish, pools, market=market)
        if choice is None:
            for one in wish.choices:
                if pools.hold(wish.job.spec, one.flavor.name):
                    break
            wish = without_kept(wish, kept, market=market) if kept else wish
            placed.waits.append(wish.otherwise)
            placed.without_room.append(wish)
            continue
        nodes = pools.take(wish.job.spec, choice.offer)
        place = place_of(wish, choice, nodes=nodes, market=market)
        placed.places.append(budgets.reserved(place, wish, choice, purses=purses, market=market))
        if wish.on_net and not choice.sure:
            placed.without_room.append(wish)
        leaves_us = leaves_at_us(wish, choice, market=market)
        if leaves_us is not None:
            placed.wakes_us.append(leaves_us)
    return placed


def _pick(wish: Wish, pools: Pools, *, market: Market) -> tuple[Choice | None, list[Choice]]:
    """Give the choice that comes first: sure before spot on the net, else by cost.

    It must have room that is not kept for others (``scheduler.kept_room``); what is kept is given
    as well. Who has no slack left takes what there is.
    """
    found: list[tuple[tuple[int, int], Choice]] = []
    kept: list[Choice] = []
    for rank, choice in enumerate(wish.choices):
        cost = pools.cost(choice, wish.job.spec)
        if cost is not None:
            found.append(((0 if wish.in_order else cost, rank), choice))
        elif not is_free(wish, choice, market=market):
            kept.append(choice)
    due = wish.is_due(market.now_us)
    ordered = [choice for _, choice in sorted(found, key=lambda one: one[0])]
    if due and not is_late(wish.job, market):
        ordered = [choice for choice in ordered if choice.sure]
    for choice in ordered:
        if may_start(wish.job, choice, market=market):
            return choice, kept
    if due:
        return next(iter(ordered), None), []
    return None, [*ordered, *kept]

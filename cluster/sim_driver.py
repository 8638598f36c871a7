"""A whole world in virtual time behind the driver's Protocol: nodes, limits, evictions, faults.

The simulator's loop and the tests own the clock: they advance it to ``next_event_us``, call
``run_until`` and let the controller tick. The same intents at the same times give the same
notices; nothing is drawn by lot.

Rules of this world:

- a launch is accepted at once (billing starts) and joins after the flavor's boot time. Beyond the
  limit it is refused at once or, when only launching tells (``probe``), after the boot time;
- with ``probe`` a refusal and a loss say how many nodes there are now. That holds for a pause,
  which doubles with each refusal in a row; then the flavor's own limit is all that is known again;
- every node that exists counts against the limit until it is gone, one under notice too;
- when a limit falls below the nodes that are up, the YOUNGEST of them get the notice (they have
  the least to lose, and the choice is the same in every replay), and die at its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import assert_never

from cluster.flavors import Flavor
from cluster.inbox import Inbox
from cluster.intents import (
    DrainAttempt,
    EvictNode,
    Intent,
    LaunchNode,
    ReleaseNode,
    StartAttempt,
    StopAttempt,
)
from cluster.notices import (
    AttemptOver,
    CapacitySeen,
    EvictionNoticed,
    LaunchFailed,
    NodeBooted,
    NodeJoined,
    NodeLost,
    NodeReleased,
    Outcome,
)
from cluster.prices import StepSeries
from cluster.sim_training import TrainingFloor
from cluster.sim_world import Agenda, Outbox
from jobs.durations import US_PER_MS

_PAUSE_US, _DOUBLINGS = 300_000_000, 4
"""A refused launch tells for 5 minutes, the next one in a row for 10, and so on up to 80."""


@dataclass(slots=True)
class SimNode:
    """A node that exists. ``deadline_us`` is the end of its notice, once it has one."""

    id: str
    flavor: str
    joined: bool = False
    deadline_us: int | None = None


class SimDriver:
    """Carries out intents in virtual time; see the module docstring."""

    def __init__(
        self,
        flavors: Iterable[Flavor],
        *,
        limits: Mapping[str, StepSeries],
        inbox: Inbox,
        start_us: int,
        probe: bool = False,
    ) -> None:
        """Begin at ``start_us``; a flavor without a limit series has its ``max_nodes``."""
        self._flavors = {flavor.name: flavor for flavor in flavors}
        self._limits = dict(limits)
        self._agenda = Agenda()
        self._outbox = Outbox(inbox)
        self._floor = TrainingFloor(self._agenda, self._outbox)
        self._nodes: dict[str, SimNode] = {}
        self._taken: set[str] = set()
        self._now_us = start_us
        self._probe = probe
        self._failing_launches = 0
        self._liars: dict[str, None] = {}
        self._refusals: dict[str, int] = {}  # of each flavor, since it last gave a node
        self._told: dict[str, int] = {}  # when a launch or a loss last told of each
        for flavor in self._flavors.values():
            self._see_capacity(flavor.name, at_us=start_us)
            self._watch(flavor.name, after_us=start_us)

    # -- the driver's Protocol ------------------------------------------------------------

    def submit(self, intent: Intent) -> None:
        """Take an intent; what comes of it happens in ``run_until``, not before."""
        if intent.id in self._taken:
            return
        self._taken.add(intent.id)
        self._agenda.at(self._now_us, lambda at_us: self._carry_out(intent, at_us=at_us))

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    # -- time -----------------------------------------------------------------------------

    @property
    def next_event_us(self) -> int | None:
        """When something happens next, None when nothing ever does."""
        return self._agenda.next_us

    def run_until(self, at_us: int) -> None:
        """Let everything happen that is due up to ``at_us``."""
        self._now_us = max(self._now_us, at_us)
        self._agenda.run_until(self._now_us)

    # -- the link to the server -----------------------------------------------------------

    def acknowledge(self) -> None:
        """The tick that took the notices is committed: they need not be sent again."""
        self._outbox.acknowledge()

    def reconnect(self, inbox: Inbox) -> None:
        """A new server listens: send it all that the old one never acknowledged."""
        self._outbox.inbox = inbox
        self._outbox.resend()

    # -- faults ---------------------------------------------------------------------------

    @property
    def nodes(self) -> tuple[str, ...]:
        """Nodes that exist, oldest first."""
        return tuple(self._nodes)

    @property
    def attempts(self) -> tuple[str, ...]:
        """Attempts whose processes live, oldest first."""
        return self._floor.living

    def fail_launches(self, count: int) -> None:
        """Let the next ``count`` launches fail whatever the limit is."""
        self._failing_launches = count

    def lie(self, flavor: str) -> None:
        """Let a flavor show the room of its limit from now on and refuse every launch."""
        self._liars[flavor] = None

    def limit_to(self, flavor: str, limit: int) -> None:
        """Change a flavor's limit from now on, whatever its series says."""
        self._limits[flavor] = StepSeries((self._now_us,), (limit,))
        self._agenda.at(self._now_us, lambda at_us: self._limit_changed(flavor, at_us=at_us))

    def kill_node(self, node_id: str) -> None:
        """Let a node die without notice."""
        self._agenda.at(self._now_us, lambda at_us: self._die(node_id, noticed=False, at_us=at_us))

    def notice_node(self, node_id: str) -> None:
        """Let the cloud take a node with its flavor's notice."""
        node = self._nodes.get(node_id)
        if node is not None:
            notice_us = self._flavors[node.flavor].notice_ms * US_PER_MS
            self._agenda.at(
                self._now_us, lambda at_us: self._notice(node_id, notice_us, at_us=at_us)
            )

    def silence(self, attempt_id: str) -> None:
        """Let an attempt's processes die unseen: only the heartbeat is missed."""
        self._break(attempt_id, Outcome.HEARTBEAT_LOST)

    def fail_script(self, attempt_id: str) -> None:
        """Let the user's script fail."""
        self._break(attempt_id, Outcome.FAILED)

    def _break(self, attempt_id: str, outcome: Outcome) -> None:
        def now(at_us: int) -> None:
            if attempt_id in self._floor.living:
                self._floor.leave(attempt_id, outcome, at_us=at_us)

        self._agenda.at(self._now_us, now)

    # -- intents --------------------------------------------------------------------------

    def _carry_out(self, intent: Intent, *, at_us: int) -> None:
        match intent:
            case LaunchNode():
                self._launch(intent, at_us=at_us)
            case ReleaseNode():
                self._release(intent.node_id, at_us=at_us)
            case EvictNode():
                self._evict(intent, at_us=at_us)
            case StartAttempt():
                self._start(intent, at_us=at_us)
            case DrainAttempt():
                self._floor.drain(
                    intent.attempt_id, until_us=intent.deadline_us, by_cloud=False, at_us=at_us
                )
            case StopAttempt():
                self._floor.leave(intent.attempt_id, Outcome.STOPPED, at_us=at_us)
            case _:
                assert_never(intent)

    def _launch(self, intent: LaunchNode, *, at_us: int) -> None:
        flavor = self._flavors[intent.flavor]
        joins_us = at_us + flavor.boot_ms * US_PER_MS
        refusal = self._refusal(flavor)
        if refusal and not self._probe:
            self._say_failed(intent.node_id, refusal, at_us=at_us)
            return
        self._outbox.post(NodeBooted(id="", at_us=at_us, node_id=intent.node_id))
        if refusal:
            self._agenda.at(joins_us, lambda due_us: self._refused(intent, refusal, at_us=due_us))
            return
        self._nodes[intent.node_id] = SimNode(intent.node_id, flavor.name)
        self._agenda.at(joins_us, lambda due_us: self._join(intent.node_id, at_us=due_us))

    def _refused(self, intent: LaunchNode, detail: str, *, at_us: int) -> None:
        self._say_failed(intent.node_id, detail, at_us=at_us)
        self._tell(intent.flavor, at_us=at_us)

    def _tell(self, flavor: str, *, at_us: int) -> None:
        """Report what a launch or a loss taught; after a pause it may be otherwise again."""
        if self._told.get(flavor) == at_us:
            return  # a gang that is refused was told once
        refusals = self._refusals.get(flavor, 0)
        self._told[flavor], self._refusals[flavor] = at_us, refusals + 1
        staying = [node for node in self._nodes.values() if node.deadline_us is None]
        up = sum(node.flavor == flavor for node in staying)
        self._outbox.post(CapacitySeen(id="", at_us=at_us, flavor=flavor, limit=up))

        def forget(due_us: int) -> None:
            if self._told[flavor] == at_us:
                self._see_capacity(flavor, at_us=due_us)

        self._agenda.at(at_us + (_PAUSE_US << min(refusals, _DOUBLINGS)), forget)

    def _refusal(self, flavor: Flavor) -> str:
        if self._failing_launches > 0:
            self._failing_launches -= 1
            return "an injected fault"
        if flavor.name in self._liars:
            return "there is no capacity after all"
        limit = self._limit(flavor.name, at_us=self._now_us)
        up = sum(node.flavor == flavor.name for node in self._nodes.values())
        return f"the limit of {limit} nodes is reached" if up >= limit else ""

    def _say_failed(self, node_id: str, detail: str, *, at_us: int) -> None:
        self._outbox.post(LaunchFailed(id="", at_us=at_us, node_id=node_id, detail=detail))

    def _join(self, node_id: str, *, at_us: int) -> None:
        node = self._nodes.get(node_id)
        if node is not None:
            node.joined = True
            self._refusals.pop(node.flavor, None)
            self._outbox.post(
                NodeJoined(id="", at_us=at_us, node_id=node_id, address=f"sim-{node_id}")
            )

    def _release(self, node_id: str, *, at_us: int) -> None:
        self._end_attempts(node_id, at_us=at_us)
        self._nodes.pop(node_id, None)
        self._outbox.post(NodeReleased(id="", at_us=at_us, node_id=node_id))

    def _evict(self, intent: EvictNode, *, at_us: int) -> None:
        if intent.notice_ms:
            self._notice(intent.node_id, intent.notice_ms * US_PER_MS, at_us=at_us)
        else:
            self._die(intent.node_id, noticed=False, at_us=at_us)

    def _start(self, intent: StartAttempt, *, at_us: int) -> None:
        nodes = [self._nodes.get(node_id) for node_id in intent.node_ids]
        present = [node for node in nodes if node is not None and node.joined]
        if len(present) < len(nodes):
            self._outbox.post(
                AttemptOver(
                    id="", at_us=at_us, attempt_id=intent.attempt_id, outcome=Outcome.NODE_LOST
                )
            )
            return
        market = self._flavors[present[0].flavor].market
        self._floor.begin(intent, market=market, at_us=at_us)
        deadlines = [node.deadline_us for node in present if node.deadline_us is not None]
        if deadlines:
            self._floor.drain(
                intent.attempt_id, until_us=min(deadlines), by_cloud=True, at_us=at_us
            )

    # -- the cloud ------------------------------------------------------------------------

    def _limit(self, flavor: str, *, at_us: int) -> int:
        series = self._limits.get(flavor)
        return series.at(at_us) if series is not None else self._flavors[flavor].max_nodes

    def _watch(self, flavor: str, *, after_us: int) -> None:
        series = self._limits.get(flavor)
        change_us = series.next_change_us(after_us) if series is not None else None
        if change_us is not None:
            self._agenda.at(change_us, lambda at_us: self._limit_changed(flavor, at_us=at_us))

    def _limit_changed(self, flavor: str, *, at_us: int) -> None:
        if not self._probe:
            self._see_capacity(flavor, at_us=at_us)
        staying = [
            node.id
            for node in self._nodes.values()
            if node.flavor == flavor and node.deadline_us is None
        ]
        surplus = len(staying) - self._limit(flavor, at_us=at_us)
        notice_us = self._flavors[flavor].notice_ms * US_PER_MS
        for node_id in reversed(staying[len(staying) - max(0, surplus) :]):
            self._notice(node_id, notice_us, at_us=at_us)
        if self._probe and surplus > 0:
            self._tell(flavor, at_us=at_us)
        self._watch(flavor, after_us=at_us)

    def _see_capacity(self, flavor: str, *, at_us: int) -> None:
        limit = self._flavors[flavor].max_nodes if self._probe else self._limit(flavor, at_us=at_us)
        self._outbox.post(CapacitySeen(id="", at_us=at_us, flavor=flavor, limit=limit))

    def _notice(self, node_id: str, notice_us: int, *, at_us: int) -> None:
        node = self._nodes.get(node_id)
        if node is None or node.deadline_us is not None:
            return
        node.deadline_us = at_us + notice_us
        self._outbox.post(
            EvictionNoticed(id="", at_us=at_us, node_id=node_id, deadline_us=node.deadline_us)
        )
        for attempt_id in self._floor.on_node(node_id):
            self._floor.drain(attempt_id, until_us=node.deadline_us, by_cloud=True, at_us=at_us)
        self._agenda.at(
            node.deadline_us, lambda due_us: self._die(node_id, noticed=True, at_us=due_us)
        )

    def _die(self, node_id: str, *, noticed: bool, at_us: int) -> None:
        if node_id not in self._nodes:
            return
        self._end_attempts(node_id, at_us=at_us)
        del self._nodes[node_id]
        self._outbox.post(NodeLost(id="", at_us=at_us, node_id=node_id, noticed=noticed))

    def _end_attempts(self, node_id: str, *, at_us: int) -> None:
        for attempt_id in self._floor.on_node(node_id):
            self._floor.leave(attempt_id, Outcome.NODE_LOST, at_us=at_us)

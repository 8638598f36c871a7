"""Which intents are open, kept from row changes, so that a tick costs what changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from cluster.intents import Intent, RiskOf, attempt_intents, node_intents
from jobs.state import State


class OpenIntents:
    """Open intents by subject, and by cluster for the agents."""

    def __init__(self, risk_of: RiskOf) -> None:
        """Start with none; ``risk_of`` gives what an attempt is told of its evictions."""
        self._risk_of = risk_of
        self._by_subject: dict[tuple[str, str], tuple[Intent, ...]] = {}
        self.by_cluster: Mapping[str, tuple[Intent, ...]] = MappingProxyType({})

    def rebuild(self, state: State) -> list[Intent]:
        """Derive everything from the rows and give it all."""
        self._by_subject.clear()
        subjects = [("nodes", node_id) for node_id in state.live_nodes]
        subjects += [("attempts", attempt_id) for attempt_id in state.live_attempts]
        return self.update(state, subjects)

    def update(self, state: State, changes: Iterable[tuple[str, str]]) -> list[Intent]:
        """Follow row changes and give the intents that are new."""
        fresh: list[Intent] = []
        changed = False
        for subject in _touched(state, changes):
            before = self._by_subject.pop(subject, ())
            now = _derive(state, subject, self._risk_of)
            known = {intent.id for intent in before}
            fresh += [intent for intent in now if intent.id not in known]
            changed = changed or now != before
            if now:
                self._by_subject[subject] = now
        if changed:
            self._publish()
        return fresh

    def _publish(self) -> None:
        clusters: dict[str, list[Intent]] = {}
        for intents in self._by_subject.values():
            for intent in intents:
                clusters.setdefault(intent.cluster, []).append(intent)
        self.by_cluster = MappingProxyType(
            {cluster: tuple(intents) for cluster, intents in clusters.items()}
        )


def _touched(state: State, changes: Iterable[tuple[str, str]]) -> dict[tuple[str, str], None]:
    """Give changed nodes and attempts, and what hangs on them: nodes first."""
    nodes: dict[tuple[str, str], None] = {}
    attempts: dict[tuple[str, str], None] = {}
    for table, row_id in changes:
        if table == "nodes":
            nodes.setdefault((table, row_id))
            for lease_id in state.node_leases.get(row_id, ()):
                attempts.setdefault(("attempts", state.leases[lease_id].attempt_id))
        elif table == "attempts":
            attempts.setdefault((table, row_id))
            for node_id in state.attempts[row_id].node_ids:
                nodes.setdefault(("nodes", node_id))
    return nodes | attempts


def _derive(state: State, subject: tuple[str, str], risk_of: RiskOf) -> tuple[Intent, ...]:
    table, row_id = subject
    if table == "nodes":
        node = state.nodes[row_id]
        return tuple(node_intents(state, node)) if row_id in state.live_nodes else ()
    if row_id not in state.live_attempts:
        return ()
    return tuple(attempt_intents(state, state.attempts[row_id], risk_of=risk_of))

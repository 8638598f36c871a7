"""What is known of a live attempt's evictions and price: what its saves are paced by.

The belief is that of the flavor (``cluster.hazard``), for the whole gang: any node that goes ends
the attempt. Where a spot market's ups and downs were observed, the age of the present spell says
more than the mean of all (``scheduler.survival``): its hazard A / (age + a0) is the same belief,
"A evictions in age + a0", so that the child's own life goes on to calm it.
"""

from __future__ import annotations

from collections.abc import Sequence

from checkpointing.hazard_posterior import Risk
from cluster.flavors import Flavor
from cluster.hazard import MILLION, noticed_ppm, posterior
from jobs.rows import AttemptRow, FlavorRow
from jobs.spec import Market
from jobs.state import State
from scheduler.catalog import Catalog
from scheduler.market import MS_PER_HOUR, shared
from scheduler.survival import HAZARD, YOUNG_H, present

_CHANGES = 2  # levels that must have been observed: one alone tells of no coming or going


def risk_of(
    state: State,
    catalog: Catalog,
    attempt: AttemptRow,
    *,
    now_us: int | None = None,
    exposure_ms: int | None = None,
) -> Risk | None:
    """Give it as of ``now_us``; None where a fixed interval decides, or the flavor is not known.

    Args:
        state: the rows.
        catalog: flavors and prices.
        attempt: whose.
        now_us: the instant; default: when it was leased, so that the rows alone decide.
        exposure_ms: what all live nodes of the flavor have lived; default: its own nodes alone.
    """
    flavor, spec = catalog.flavors.get(attempt.flavor), state.jobs[attempt.job_id].spec
    if flavor is None or spec.checkpoint_interval is not None:
        return None
    row, nodes = state.flavors[flavor.name], len(attempt.node_ids)
    at_us = attempt.created_us if now_us is None else now_us
    lived_ms = _lived_ms(state, attempt.node_ids, at_us) if exposure_ms is None else exposure_ms
    belief = _of_spell(row, flavor, nodes=nodes, now_us=at_us)
    if belief is None:
        evictions_ppm, node_ms = posterior(
            flavor.market, evictions=row.evictions, exposure_ms=row.exposure_ms + lived_ms
        )
        belief = evictions_ppm, node_ms // nodes
    promises = flavor.notice_ms > 0
    return Risk(
        evictions_ppm=belief[0],
        exposure_ms=belief[1],
        notice_ms=flavor.notice_ms,
        noticed_ppm=noticed_ppm(evictions=row.evictions, noticed=row.noticed) if promises else 0,
        usd_nanos_per_hour=shared(row.usd_nanos_per_hour * nodes, spec=spec, flavor=flavor),
    )


def risks_of(state: State, catalog: Catalog, *, now_us: int) -> dict[str, dict[str, Risk]]:
    """Give the present risk of every live attempt, by cluster and attempt."""
    ready = [n for n in map(state.nodes.__getitem__, state.live_nodes) if n.ready_us is not None]
    lived_ms = {
        name: _lived_ms(state, [n.id for n in ready if n.flavor == name], now_us)
        for name in dict.fromkeys(node.flavor for node in ready)
    }
    found: dict[str, dict[str, Risk]] = {}
    for attempt_id in state.live_attempts:
        attempt = state.attempts[attempt_id]
        exposure_ms = lived_ms.get(attempt.flavor, 0)
        risk = risk_of(state, catalog, attempt, now_us=now_us, exposure_ms=exposure_ms)
        if risk is not None:
            found.setdefault(attempt.cluster, {})[attempt_id] = risk
    return found


def _of_spell(row: FlavorRow, flavor: Flavor, *, nodes: int, now_us: int) -> tuple[int, int] | None:
    if flavor.market is not Market.SPOT or len(row.levels) < _CHANGES:
        return None
    spell = present([row.levels], nodes=nodes, now_us=now_us, up=True)
    age_h = spell.age_h if spell.up else 0.0  # it goes already: as nervous as a newcomer
    return round(HAZARD * spell.up_factor * MILLION), round((YOUNG_H + age_h) * MS_PER_HOUR)


def _lived_ms(state: State, node_ids: Sequence[str], now_us: int) -> int:
    nodes = [state.nodes[node_id] for node_id in node_ids]
    return sum(
        max(0, now_us - node.ready_us) // 1_000 for node in nodes if node.ready_us is not None
    )

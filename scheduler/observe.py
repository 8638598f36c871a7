"""Make the snapshot of a cycle, and the events that keep flavors in step with the catalog."""

from __future__ import annotations

from collections.abc import Iterator

from cluster.flavors import Flavor
from cluster.hazard import hazard_per_million_hours
from cluster.offers import Offer
from jobs import events as ev
from jobs.rows import FlavorRow, JobRow, NodeRow
from jobs.state import State
from jobs.states import NodeState
from scheduler.budget_view import BudgetView
from scheduler.catalog import Catalog
from scheduler.egress import homes
from scheduler.snapshot import LiveAttempt, NodeView, PolicySettings, Snapshot
from scheduler.turns import predecessors

_AHEAD_US = 7 * 24 * 3_600_000_000  # how far a plan looks into known prices


def price_events(state: State, catalog: Catalog, *, now_us: int) -> Iterator[ev.Event]:
    """Give price changes up to now, at the very instants at which they took effect.

    Flavors without live nodes skip the steps in between: nobody pays for those.
    """
    busy = {state.nodes[node_id].flavor for node_id in state.live_nodes}
    for flavor in catalog.flavors.values():
        row = state.flavors.get(flavor.name)
        if row is None:
            yield _priced(catalog, flavor.name, now_us)
            yield ev.FlavorLimited(
                at_us=now_us, flavor=flavor.name, limit=flavor.max_nodes, observed=False
            )
            continue
        if flavor.name in busy:
            yield from _edges(state, catalog, row, now_us)
        if _differs(catalog, state.flavors[flavor.name], now_us):
            yield _priced(catalog, flavor.name, now_us)


def _edges(state: State, catalog: Catalog, row: FlavorRow, now_us: int) -> Iterator[ev.Event]:
    at_us = catalog.prices.next_change_us(row.name, row.priced_us)
    while at_us is not None and at_us <= now_us:
        if _differs(catalog, state.flavors[row.name], at_us):
            yield _priced(catalog, row.name, at_us)
        at_us = catalog.prices.next_change_us(row.name, at_us)


def _differs(catalog: Catalog, row: FlavorRow, at_us: int) -> bool:
    price = catalog.prices.at(row.name, at_us)
    return (row.usd_nanos_per_hour, row.list_usd_nanos_per_hour) != (
        price.usd_nanos_per_hour,
        price.list_usd_nanos_per_hour,
    )


def _priced(catalog: Catalog, flavor: str, at_us: int) -> ev.FlavorPriced:
    price = catalog.prices.at(flavor, at_us)
    return ev.FlavorPriced(
        at_us=at_us,
        flavor=flavor,
        usd_nanos_per_hour=price.usd_nanos_per_hour,
        list_usd_nanos_per_hour=price.list_usd_nanos_per_hour,
        price_source=price.source,
    )


def repriced(catalog: Catalog, *, now_us: int) -> Iterator[ev.FlavorPriced]:
    """Give each flavor's price of now: what other windows say holds from here on, not before."""
    return (_priced(catalog, name, now_us) for name in catalog.flavors)


def next_price_us(state: State, catalog: Catalog, *, now_us: int) -> int | None:
    """Give the next price change that matters: of a flavor with live nodes."""
    busy = dict.fromkeys(state.nodes[node_id].flavor for node_id in state.live_nodes)
    changes = (
        catalog.prices.next_change_us(name, now_us) for name in busy if name in catalog.flavors
    )
    return min((at_us for at_us in changes if at_us is not None), default=None)


def observe(
    state: State,
    catalog: Catalog,
    *,
    now_us: int,
    settings: PolicySettings,
    budgets: tuple[BudgetView, ...] = (),
) -> Snapshot:
    """Freeze what a cycle may know."""
    nodes = [state.nodes[node_id] for node_id in state.live_nodes]
    return Snapshot(
        now_us=now_us,
        queued=tuple(state.jobs[job_id] for job_id in state.queued),
        live=tuple(_live(state, attempt_id) for attempt_id in state.live_attempts),
        nodes=tuple(_view(state, node) for node in nodes),
        offers=_offers(state, catalog, nodes, now_us=now_us),
        windows=catalog.prices.in_use,
        budgets=budgets,
        predecessors=predecessors(state.jobs, state.queued),
        egress_nanos_per_gb=catalog.egress_nanos_per_gb,
        homes=homes(state, catalog, _open_jobs(state)),
        settings=settings,
    )


def _open_jobs(state: State) -> Iterator[JobRow]:
    yield from (state.jobs[job_id] for job_id in state.queued)
    yield from (state.jobs[state.attempts[one].job_id] for one in state.live_attempts)


def _live(state: State, attempt_id: str) -> LiveAttempt:
    attempt = state.attempts[attempt_id]
    return LiveAttempt(job=state.jobs[attempt.job_id], attempt=attempt)


def _view(state: State, node: NodeRow) -> NodeView:
    return NodeView(
        row=node,
        free_milli=node.gpu_milli - state.held_milli(node.id),
        free_cpus=node.cpus - state.held_cpus(node.id),
    )


def _offers(
    state: State, catalog: Catalog, nodes: list[NodeRow], *, now_us: int
) -> tuple[Offer, ...]:
    up: dict[str, int] = {}
    exposure_us: dict[str, int] = {}
    for node in nodes:
        up[node.flavor] = up.get(node.flavor, 0) + 1
        if node.state is not NodeState.REQUESTED and node.ready_us is not None:
            lived_us = max(0, now_us - node.ready_us)
            exposure_us[node.flavor] = exposure_us.get(node.flavor, 0) + lived_us
    return tuple(
        _offer(
            state.flavors[flavor.name],
            flavor,
            catalog,
            up=up.get(flavor.name, 0),
            exposure_ms=exposure_us.get(flavor.name, 0) // 1_000,
            now_us=now_us,
        )
        for flavor in catalog.flavors.values()
    )


def _offer(
    row: FlavorRow, flavor: Flavor, catalog: Catalog, *, up: int, exposure_ms: int, now_us: int
) -> Offer:
    backing_off = now_us < row.backoff_until_us
    price = catalog.prices.at(flavor.name, now_us)
    return Offer(
        flavor=flavor,
        usd_nanos_per_hour=row.usd_nanos_per_hour,
        list_usd_nanos_per_hour=row.list_usd_nanos_per_hour,
        launchable=max(0, row.limit - up) if flavor.launches and not backing_off else 0,
        limit=row.limit,
        backoff_until_us=row.backoff_until_us,
        hazard_per_million_hours=hazard_per_million_hours(
            flavor.market, evictions=row.evictions, exposure_ms=row.exposure_ms + exposure_ms
        ),
        next_prices=catalog.prices.ahead(flavor.name, now_us, now_us + _AHEAD_US),
        levels=row.levels,
        price_rests_on=catalog.prices.rests_on(flavor.name, at_us=now_us),
        price_heard_us=price.heard_us if price.age_us(now_us) else None,
        price_doubt_permille=price.doubt_permille(now_us),
    )

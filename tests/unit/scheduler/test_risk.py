"""What an attempt is told of its evictions and price follows from the rows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.flavors import Flavor
from cluster.hazard import noticed_ppm
from cluster.prices import FlatPrices
from jobs import events as ev
from jobs.reasons import Reason
from jobs.spec import Market
from scheduler.catalog import Catalog
from scheduler.price_book import PriceBook
from scheduler.risk import risk_of, risks_of
from scheduler.survival import HAZARD, YOUNG_H
from tests.builders import START_US, History, a_job, a_kind

HOUR_US = 3_600 * 1_000_000
HOUR_MS = 3_600_000
SPOT = a_kind(
    "a100-spot-eu",
    cluster="main",
    accelerator="a100",
    region="eu",
    zone="eu-1",
    gpu_milli=8_000,
    cpus=64,
    notice_ms=120_000,
    max_nodes=10,
)


def a_catalog(flavor: Flavor = SPOT) -> Catalog:
    """One flavor."""
    prices = PriceBook(FlatPrices([flavor]), [flavor])
    return Catalog(flavors={flavor.name: flavor}, prices=prices)


def a_gang(*nodes: str, gpus: int = 8) -> History:
    """A job in training on these nodes, all of them its own."""
    history = History()
    for node_id in nodes:
        history.ready(node_id)
    history.submit(a_job().gpus(gpus, nodes=len(nodes)))
    return history.train("job-1", *nodes)


def test_a_flavor_never_seen_has_its_markets_prior() -> None:
    """One eviction in 24 node-hours; nine of ten notices are kept; a dollar per hour and node."""
    history = a_gang("n")
    attempt = replace(history.state.attempts["job-1/1"], created_us=START_US)
    risk = risk_of(history.state, a_catalog(), attempt)
    assert risk is not None
    assert (risk.evictions_ppm, risk.exposure_ms) == (1_000_000, 24 * HOUR_MS)
    assert (risk.notice_ms, risk.noticed_ppm) == (120_000, 900_000)
    assert risk.usd_nanos_per_hour == 10**9


def test_a_gang_dies_with_any_of_its_nodes() -> None:
    """Two nodes see the same evictions in half the time, and cost twice as much."""
    one, two = (
        risk_of(
            history.state,
            a_catalog(),
            history.state.attempts["job-1/1"],
            now_us=START_US,
            exposure_ms=0,
        )
        for history in (a_gang("n"), a_gang("n", "m"))
    )
    assert one is not None
    assert two is not None
    assert two.exposure_ms * 2 == one.exposure_ms
    assert two.usd_nanos_per_hour == 2 * one.usd_nanos_per_hour


def test_a_share_of_a_node_is_a_share_of_its_price() -> None:
    """Two GPUs of eight."""
    history = a_gang("n", gpus=2)
    risk = risk_of(history.state, a_catalog(), history.state.attempts["job-1/1"])
    assert risk is not None
    assert risk.usd_nanos_per_hour == 10**9 // 4


def test_living_nodes_count_and_so_do_the_gone() -> None:
    """Four hours of this node and ten of another that was taken without a word."""
    history = History().ready("gone")
    history.now_us += 10 * HOUR_US
    history.gone("gone", reason=Reason.NODE_LOST)
    history.ready("n").submit("job-1").train("job-1", "n")
    ready_us = history.state.nodes["n"].ready_us or 0
    found = risks_of(history.state, a_catalog(), now_us=ready_us + 4 * HOUR_US)
    risk = found["main"]["job-1/1"]
    assert risk.evictions_ppm == 2_000_000
    assert risk.exposure_ms == pytest.approx((24 + 10 + 4) * HOUR_MS, rel=1e-4)
    assert risk.noticed_ppm == noticed_ppm(evictions=1, noticed=0) == 9_000_000 // 11


def test_a_kept_notice_is_remembered() -> None:
    """An eviction that was announced raises the share, one that was not lowers it."""
    shares = []
    for reason in (Reason.EVICTED, Reason.NODE_LOST):
        row = History().ready("n").gone("n", reason=reason).state.flavors[SPOT.name]
        shares.append(noticed_ppm(evictions=row.evictions, noticed=row.noticed))
    assert shares[0] > 900_000 > shares[1]


def test_where_no_notice_is_promised_none_counts() -> None:
    """Whatever was seen before."""
    history = a_gang("n")
    catalog = a_catalog(replace(SPOT, notice_ms=0))
    risk = risk_of(history.state, catalog, history.state.attempts["job-1/1"])
    assert risk is not None
    assert (risk.notice_ms, risk.noticed_ppm) == (0, 0)


def test_an_observed_spell_tells_by_its_age() -> None:
    """Back for an hour: A evictions in 1 + a0 hours, not one in a day; going again: in a0."""
    history = a_gang("n")
    since_us = 0
    for level in (0, 10):
        history.now_us += HOUR_US
        history.add(
            SPOT.name, ev.FlavorLimited(at_us=history.now_us, flavor=SPOT.name, limit=level)
        )
        since_us = history.now_us - 1_000_000
    attempt = history.state.attempts["job-1/1"]
    risk = risk_of(history.state, a_catalog(), attempt, now_us=since_us + HOUR_US)
    assert risk is not None
    assert risk.exposure_ms == pytest.approx((1 + YOUNG_H) * HOUR_MS, rel=1e-3)
    assert risk.evictions_ppm == pytest.approx(HAZARD * 1_000_000, rel=0.5)
    history.add(SPOT.name, ev.FlavorLimited(at_us=history.now_us, flavor=SPOT.name, limit=0))
    going = risk_of(history.state, a_catalog(), attempt, now_us=since_us + HOUR_US)
    assert going is not None
    assert going.exposure_ms == YOUNG_H * HOUR_MS
    bought = a_catalog(replace(SPOT, market=Market.ON_DEMAND))
    calm = risk_of(history.state, bought, attempt, now_us=since_us + HOUR_US)
    assert calm is not None
    assert calm.exposure_ms > 1_000 * HOUR_MS


def test_a_fixed_interval_needs_no_advice() -> None:
    """The user decided."""
    history = History().ready("n").submit(a_job().asking(checkpoint_interval="10m"))
    history.train("job-1", "n")
    assert risk_of(history.state, a_catalog(), history.state.attempts["job-1/1"]) is None


def test_a_flavor_that_is_configured_no_more_tells_nothing() -> None:
    """Its attempts run on by what they know."""
    history = a_gang("n")
    catalog = a_catalog(replace(SPOT, name="other"))
    assert risk_of(history.state, catalog, history.state.attempts["job-1/1"]) is None
    assert risks_of(history.state, catalog, now_us=history.now_us) == {}

"""Metering: what a node costs is charged to the second and class in which it was used."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster import notices as nt
from jobs.ledger.accounts import CostClass
from jobs.ledger.statement import overview, statement
from jobs.states import JobState
from scheduler.metering import Meter
from scheduler.recorder import Recorder
from tests.unit.scheduler.bench import HOUR, Bench, S

MS_PER_S = 1_000
CENT_PER_S = 1_000_000  # the bench's default price: one milli-dollar a second, in nanos


def seconds(bench: Bench, job_id: str = "a") -> dict[str, float]:
    """Give a job's held GPU-seconds by class, without empty ones."""
    mine = [
        entry
        for entry in bench.entries
        if any(a.startswith(f"{job_id}/") for a in entry.attempt_ids)
    ]
    classes = statement(job_id, mine).classes
    return {name: amount.gpu_ms / MS_PER_S for name, amount in classes.items() if amount.gpu_ms}


def test_a_quiet_training_is_startup_then_useful() -> None:
    """Boot and set-up are startup, every kept step is useful, and the money follows the time."""
    bench = Bench()
    attempt = bench.trains(0, ready_s=10, train_s=15)
    bench.over(115, attempt, nt.Outcome.SUCCEEDED)
    assert seconds(bench) == {"startup": 15, "useful": 100}
    total = overview(bench.entries)
    assert total.bill.usd_nanos == 115 * CENT_PER_S
    assert total.difference_usd_nanos == 0
    saved = total.jobs["a"].net_spot_saving_usd_nanos
    assert saved == 115 * CENT_PER_S, "list is twice the price, so saving equals the cost"


def test_work_after_the_restore_point_is_lost_at_a_sudden_death() -> None:
    """Only the steps after the last snapshot move from useful to lost."""
    bench = Bench()
    attempt = bench.trains(0, ready_s=0, train_s=0)
    bench.committed(62, attempt, step=60, snap_s=60, stall_s=0.5)
    bench.notice(100, nt.NodeLost, node_id="n1", noticed=False)
    assert seconds(bench) == {"useful": 60, "checkpoint": 0.5, "lost": 39.5}
    assert bench.state.jobs["a"].state is JobState.QUEUED
    assert bench.state.jobs["a"].restore_point is not None


def test_a_notice_with_a_save_loses_nothing() -> None:
    """Training up to the drain's snapshot is useful; waiting for the save is checkpoint time."""
    bench = Bench()
    attempt = bench.trains(0, ready_s=0, train_s=0)
    bench.notice(50, nt.EvictionNoticed, node_id="n1", deadline_us=60 * S)
    bench.committed(53, attempt, step=52, snap_s=52)
    bench.over(54, attempt, nt.Outcome.DRAINED, exit_code=75)
    assert seconds(bench) == {"useful": 52, "checkpoint": 2}


def test_a_notice_without_a_save_is_drain_and_lost() -> None:
    """A notice that did not yield a checkpoint is drain; the steps before it are lost."""
    bench = Bench()
    bench.trains(0, ready_s=0, train_s=0)
    bench.notice(50, nt.EvictionNoticed, node_id="n1", deadline_us=60 * S)
    bench.notice(60, nt.NodeLost, node_id="n1", noticed=True)
    assert seconds(bench) == {"lost": 50, "drain": 10}


def test_a_later_attempt_pays_repeat_startup_and_restore() -> None:
    """The second boot is restart overhead, the first is not."""
    bench = Bench()
    bench.trains(0, ready_s=5, train_s=5)
    bench.notice(20, nt.NodeLost, node_id="n1", noticed=False)
    bench.node(20, "n2")
    attempt = bench.lease(20, nodes=("n2",))
    bench.notice(27, nt.NodeJoined, node_id="n2", address="y")
    bench.notice(28, nt.WorkersUp, attempt_id=attempt)
    bench.notice(30, nt.RestoreBegan, attempt_id=attempt, step=0)
    bench.notice(34, nt.TrainingBegan, attempt_id=attempt, step=0, total_steps=100)
    bench.over(44, attempt, nt.Outcome.SUCCEEDED)
    expected = {"startup": 5, "lost": 15, "repeat-startup": 10, "restore": 4, "useful": 10}
    assert seconds(bench) == expected


def test_halves_share_a_node_and_the_rest_is_idle() -> None:
    """Two half-GPU jobs pay half each while both run; what nobody holds is idle."""
    bench = Bench()
    bench.job(0, "a", gpus="0.5")
    bench.job(0, "b", gpus="0.5")
    bench.node(0)
    bench.notice(0, nt.NodeJoined, node_id="n1", address="x")
    first = bench.lease(10, "a")
    second = bench.lease(20, "b")
    for attempt in (first, second):
        bench.notice(20, nt.TrainingBegan, attempt_id=attempt, step=0, total_steps=9)
    bench.over(30, first, nt.Outcome.SUCCEEDED)
    bench.over(50, second, nt.Outcome.SUCCEEDED)
    total = overview(bench.entries)
    assert total.jobs["a"].total.usd_nanos == 10 * CENT_PER_S
    assert total.jobs["b"].total.usd_nanos == 15 * CENT_PER_S
    assert total.idle.usd_nanos == 25 * CENT_PER_S
    assert total.bill.usd_nanos == 50 * CENT_PER_S


def test_a_price_change_cuts_the_interval() -> None:
    """Each part of an interval is charged at the price that held in it."""
    bench = Bench()
    attempt = bench.trains(0, ready_s=0, train_s=0)
    bench.price(10, 7_200_000_000)
    bench.over(20, attempt, nt.Outcome.SUCCEEDED)
    assert overview(bench.entries).bill.usd_nanos == 10 * CENT_PER_S + 10 * 2 * CENT_PER_S


def test_overhead_is_what_nobody_could_hold() -> None:
    """A node that boots or drains for nobody is overhead, not idle."""
    bench = Bench()
    bench.node(0)
    bench.notice(7, nt.NodeJoined, node_id="n1", address="x")
    bench.notice(10, nt.EvictionNoticed, node_id="n1", deadline_us=14 * S)
    bench.notice(14, nt.NodeLost, node_id="n1", noticed=True)
    total = overview(bench.entries)
    assert total.overhead.gpu_ms == (7 + 4) * MS_PER_S
    assert total.idle.gpu_ms == 3 * MS_PER_S


def test_a_late_notice_cannot_charge_time_twice() -> None:
    """A skewed clock moves a boundary, never the sum."""
    bench = Bench()
    attempt = bench.trains(0, ready_s=10, train_s=15)
    bench.over(40, attempt, nt.Outcome.SUCCEEDED, exit_code=0)
    bench.notice(50, nt.EvictionNoticed, at_s=30, node_id="n1", deadline_us=60 * S)
    bench.notice(60, nt.NodeLost, at_s=20, node_id="n1", noticed=True)
    total = overview(bench.entries)
    node = bench.state.nodes["n1"]
    assert node.gone_us is not None
    assert node.booting_us is not None
    assert total.bill.usd_nanos == (node.gone_us - node.booting_us) // S * CENT_PER_S
    assert total.difference_usd_nanos == 0


STEPS = st.lists(st.floats(min_value=0.001, max_value=500), min_size=6, max_size=6)


def _story(bench: Bench, gaps: list[float], *, rebuild_after: int) -> None:
    """Tell one eventful life; after action ``rebuild_after`` a new meter reads the ledger."""
    at = [sum(gaps[: i + 1]) for i in range(len(gaps))]
    attempt = bench.trains(0, ready_s=at[0], train_s=at[0])
    actions = [
        lambda: bench.committed(
            at[1], attempt, step=10, snap_s=at[1] - gaps[1] / 2, stall_s=gaps[1] / 4
        ),
        lambda: bench.price(at[2], 5_123_456_789),
        lambda: bench.notice(at[3], nt.EvictionNoticed, node_id="n1", deadline_us=1 << 50),
        lambda: bench.committed(at[4], attempt, step=20, snap_s=at[4] - gaps[4] / 3),
        lambda: bench.notice(at[5], nt.NodeLost, node_id="n1", noticed=True),
    ]
    for index, action in enumerate(actions):
        action()
        if index == rebuild_after:
            bench.meter = Meter(bench.state)
            billed = {"n1": max(entry.end_us for entry in bench.entries if "|gpu-" in entry.id)}
            mine = [entry for entry in bench.entries if attempt in entry.attempt_ids]
            live = bench.state.live_nodes
            bench.meter.restore(billed_until=billed if "n1" in live else {}, entries=mine)
            bench.recorder = Recorder(bench.state, meter=bench.meter)


@given(gaps=STEPS, rebuild_after=st.integers(0, 4))
def test_a_rebuilt_meter_posts_what_the_old_one_would(
    gaps: list[float], rebuild_after: int
) -> None:
    """A crash between any two ticks changes no entry."""
    unbroken, broken = Bench(), Bench()
    _story(unbroken, gaps, rebuild_after=-1)
    _story(broken, gaps, rebuild_after=rebuild_after)
    assert broken.entries == unbroken.entries


@given(gaps=STEPS, price=st.integers(1, 50_000_000_000))
def test_shares_idle_and_overhead_are_the_bill(gaps: list[float], price: int) -> None:
    """To the nano, at any price and any cut; and held + idle = capacity x time."""
    bench = Bench(price=price)
    _story(bench, gaps, rebuild_after=-1)
    total = overview(bench.entries)
    node = bench.state.nodes["n1"]
    assert node.gone_us is not None
    assert node.booting_us is not None
    assert total.difference_usd_nanos == 0
    changed_us = next(
        record.event.at_us for record in bench.records[3:] if record.event.kind == "flavor-priced"
    )
    first = price * (changed_us - node.booting_us) // HOUR
    second = 5_123_456_789 * (node.gone_us - changed_us) // HOUR
    assert total.bill.usd_nanos == first + second
    assert total.bill.gpu_ms == (node.gone_us - node.booting_us) // 1_000


def test_every_class_has_a_home() -> None:
    """The statement lists every class, also empty ones, so that columns never move."""
    classes = statement("a", []).classes
    assert list(classes) == [str(one) for one in CostClass]


def test_the_first_startup_is_not_restart_though_a_launch_failed_before() -> None:
    """An attempt whose node never launched held nothing."""
    bench = Bench()
    bench.job(0)
    bench.node(0, "n0")
    bench.lease(0, nodes=("n0",))
    bench.notice(0, nt.LaunchFailed, node_id="n0", detail="no capacity")
    bench.node(5)
    attempt = bench.lease(5)
    bench.notice(9, nt.NodeJoined, node_id="n1", address="x")
    bench.notice(10, nt.TrainingBegan, attempt_id=attempt, step=0, total_steps=9)
    bench.over(20, attempt, nt.Outcome.SUCCEEDED)
    assert seconds(bench) == {"startup": 5, "useful": 10}


def test_the_meter_knows_what_an_open_job_has_cost() -> None:
    """Budgets are held against it; an ended job is forgotten."""
    bench = Bench()
    attempt = bench.trains(0, ready_s=0, train_s=0)
    bench.notice(30, nt.NodeLost, node_id="n1", noticed=False)
    assert bench.meter.spent_usd_nanos == {"a": 30 * CENT_PER_S}
    bench.node(30, "n2")
    attempt = bench.lease(30, nodes=("n2",))
    bench.notice(30, nt.NodeJoined, node_id="n2", address="x")
    bench.notice(31, nt.WorkersUp, attempt_id=attempt)
    bench.over(40, attempt, nt.Outcome.SUCCEEDED)
    assert bench.meter.spent_usd_nanos == {}

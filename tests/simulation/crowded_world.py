"""Worlds in which several deadlines share one or two nodes that stay, with and without tariffs."""

from __future__ import annotations

from random import Random

from jobs.spec import JobSpec
from scheduler.scenario import Capacity, Scenario
from scheduler.windows import PriceWindow
from tests.simulation.hostile_world import a_flavor, a_world, up

TARIFFS = (
    PriceWindow(name="early", start_s=3_600, end_s=9_000, price_percent=30),
    PriceWindow(
        name="sure", start_s=14_400, end_s=43_200, markets=("on-demand",), price_percent=10
    ),
    PriceWindow(name="dear", start_s=7_200, end_s=25_200, markets=("spot",), price_percent=400),
    PriceWindow(name="night", start_s=72_000, end_s=3_600, tariff_usd_nanos_per_hour=0),
)


def crowded(seed: int, *, tariffs: bool) -> Scenario:
    """Up to six jobs on one or two sure nodes; spot comes and goes, or does not exist."""
    random = Random(f"{seed} {tariffs}")
    nodes = random.choice((1, 1, 2))
    boot_s = random.choice((0, 60, 600))
    specs = [_spec(random, index, nodes=nodes) for index in range(random.randrange(3, 7))]
    return a_world(
        [*_spot(random), _sure(random, nodes=nodes, boot_s=boot_s, tariffs=tariffs)],
        specs,
        at_s=[random.choice((0, random.randrange(30_000))) for _ in specs],
        probe=False,
        windows=tuple(one for one in TARIFFS if random.random() < 0.5) if tariffs else (),
    )


def _spot(random: Random) -> list[Capacity]:
    if random.random() < 0.3:
        return []
    flavor = a_flavor(
        "spot-a", usd=1, boot_s=random.choice((0, 120)), notice_s=random.choice((0, 30, 120))
    )
    limits = [random.choice((0, 0, 1, 3)) for _ in range(random.randrange(1, 40))]
    return [up(flavor, *limits, step_s=random.choice((900, 3_600)))]


def _sure(random: Random, *, nodes: int, boot_s: int, tariffs: bool) -> Capacity:
    flavor = a_flavor("on-demand", usd=3, boot_s=boot_s)
    count = random.choice((0, 20)) if tariffs else 0
    return up(flavor, nodes, usd=[random.uniform(0.3, 6) for _ in range(count)])


def _spec(random: Random, index: int, *, nodes: int) -> JobSpec:
    """Give a job whose deadline is tight or far away, or that has none."""
    work_s = random.choice((600, 3_600, 10_000, 30_000))
    factor = random.choice((None, 1.05, 1.5, 2, 4, 8))
    return JobSpec(
        name=f"job-{index}",
        nodes=random.choice((1, 1, 1, nodes)),
        work=work_s,
        deadline=None if factor is None else int(work_s * factor) + 2_000,
        setup=random.choice((0, 30)),
        restore=random.choice((0, 300)),
        save=random.choice((0, 0, 20)),
        checkpoint_interval=random.choice((0, 600, None)),
        priority=random.choice((0, 0, 5)),
    )

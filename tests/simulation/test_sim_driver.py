"""The simulated world keeps its promises: what a launch, a notice, a save and an end are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from checkpointing.hazard_posterior import Risk
from cluster.flavors import Flavor
from cluster.inbox import Inbox
from cluster.intents import (
    DrainAttempt,
    EvictNode,
    LaunchNode,
    ReleaseNode,
    StartAttempt,
    StopAttempt,
)
from cluster.prices import StepSeries
from cluster.sim_driver import SimDriver
from jobs.spec import JobSpec, Market

S = 1_000_000
HOURLY = Risk(exposure_ms=3_600_000)
pytestmark = pytest.mark.simulation


def spot(**changes: Any) -> Flavor:
    """A flavor that boots in 60 s and gives 30 s of notice."""
    known = {"boot_ms": 60_000, "notice_ms": 30_000, "max_nodes": 2} | changes
    return Flavor(
        name="spot",
        cluster="sim",
        market=Market.SPOT,
        accelerator="V100",
        region="",
        zone="",
        gpu_milli=1_000,
        cpus=8,
        **known,
    )


class World:
    """A driver, its inbox and a pencil for intents."""

    def __init__(
        self, *limits: int, step_s: int = 1_000, probe: bool = False, **flavor: Any
    ) -> None:
        self.inbox = Inbox()
        series = StepSeries.regular(limits or (2,), start_us=0, step_us=step_s * S)
        self.driver = SimDriver(
            [spot(**flavor)], limits={"spot": series}, inbox=self.inbox, start_us=0, probe=probe
        )

    def until(self, second: float) -> list[str]:
        """Run on and tell what was told: kind, second, and what it is about."""
        self.driver.run_until(int(second * S))
        return [self._told(notice) for notice in self.inbox.drain()]

    @staticmethod
    def _told(notice: Any) -> str:
        about = [getattr(notice, name, None) for name in ("outcome", "step", "limit", "noticed")]
        extra = " ".join(str(value) for value in about if value is not None)
        return f"{notice.at_us / S:g} {notice.kind} {extra}".strip()

    def launch(self, node_id: str) -> None:
        """Ask for a node."""
        self.driver.submit(
            LaunchNode(id=f"launch|{node_id}", cluster="sim", node_id=node_id, flavor="spot")
        )

    def start(
        self,
        *nodes: str,
        epoch: int = 1,
        step: int = 0,
        risk: Risk | None = None,
        **spec: Any,
    ) -> None:
        """Start attempt j/<epoch> of a job of 100 s."""
        self.driver.submit(
            StartAttempt(
                id=f"start|{epoch}",
                cluster="sim",
                attempt_id=f"j/{epoch}",
                job_id="j",
                epoch=epoch,
                spec=JobSpec(**{"work": 100, "checkpoint_interval": 0} | spec),
                node_ids=nodes,
                addresses=nodes,
                token="t",
                step=step,
                total_steps=0,
                risk=risk,
            )
        )

    def drain(self, until: int) -> None:
        """Ask the attempt to leave."""
        self.driver.submit(
            DrainAttempt(id="drain", cluster="sim", attempt_id="j/1", deadline_us=until * S)
        )

    @classmethod
    def with_a_node(cls, *limits: int, **flavor: Any) -> World:
        """A world at second 0 with a ready node n."""
        world = cls(*limits, **{"boot_ms": 0} | flavor)
        world.launch("n")
        world.until(0)
        return world


def test_a_launch_is_billed_at_once_and_joins_after_the_boot() -> None:
    """Accepted now, up after 60 s; the same intent again is nothing new."""
    world = World()
    world.launch("n")
    world.launch("n")
    assert world.until(59) == ["0 capacity-seen 2", "0 node-booted"]
    assert world.until(60) == ["60 node-joined"]


def test_beyond_the_limit_a_launch_is_refused_at_once() -> None:
    """Where capacity is visible nobody pays for a refusal."""
    world = World(1)
    world.launch("n")
    world.launch("m")
    assert world.until(0)[1:] == ["0 node-booted", "0 launch-failed"]


def test_a_probe_costs_its_boot_time() -> None:
    """Where only launching tells, the limit is not shown and a refusal comes after the boot."""
    world = World(0, 2, probe=True)
    world.launch("n")
    assert world.until(60) == [
        "0 capacity-seen 2",
        "0 node-booted",
        "60 launch-failed",
        "60 capacity-seen 0",
    ]


def test_what_a_probe_told_holds_for_a_pause_that_doubles() -> None:
    """5 minutes, then 10: what the limit does meanwhile is not shown, and losses tell as well."""
    world = World(0, 2, probe=True)
    world.launch("n")
    world.until(60)
    assert world.until(360) == ["360 capacity-seen 2"]
    world.launch("m")
    assert world.until(420)[-1] == "420 capacity-seen 0"
    assert world.until(2_000) == ["1020 capacity-seen 2"]
    world.launch("o")
    assert world.until(2_060) == ["2000 node-booted", "2060 node-joined"]
    world = World(2, 1, probe=True, boot_ms=0)
    world.launch("a")
    world.launch("b")
    world.until(999)
    assert world.until(1_000) == ["1000 eviction-noticed", "1000 capacity-seen 1"]


def test_a_liar_shows_room_and_refuses_every_launch() -> None:
    """What can be seen stays as it was; only launching tells the truth."""
    world = World(2)
    world.driver.lie("spot")
    assert world.until(0) == ["0 capacity-seen 2"]
    world.launch("a")
    assert [told.split()[1] for told in world.until(100)] == ["launch-failed"]


def test_a_limit_can_be_changed_at_once() -> None:
    """As if the series had said so: it is told, and whoever is too many gets the notice."""
    world = World.with_a_node(2)
    world.until(5)
    world.driver.limit_to("spot", 0)
    told = world.until(100)
    assert told[0] == "5 capacity-seen 0"
    assert [line.split()[:2] for line in told[1:]] == [
        ["5", "eviction-noticed"],
        ["35", "node-lost"],
    ]


def test_a_falling_limit_takes_the_youngest_with_notice() -> None:
    """Two of three go, youngest first, at the end of their notice; capacity is reported."""
    world = World(3, 1, max_nodes=3, boot_ms=0)
    for node_id in ("a", "b", "c"):
        world.launch(node_id)
        world.until(0)
    assert world.until(1_029) == [
        "1000 capacity-seen 1",
        "1000 eviction-noticed",
        "1000 eviction-noticed",
    ]
    assert world.until(1_030) == ["1030 node-lost True", "1030 node-lost True"]
    assert world.driver.nodes == ("a",)


def test_a_first_attempt_sets_up_and_trains_to_its_end() -> None:
    """One step is a millisecond of useful work."""
    world = World.with_a_node()
    world.start("n", setup=20, restore=40)
    assert world.until(120) == [
        "0 workers-up",
        "20 training-began 0",
        "120 attempt-over succeeded",
    ]


def test_a_later_attempt_restores_first() -> None:
    """From the second attempt on, and it trains what is left."""
    world = World.with_a_node()
    world.start("n", epoch=2, step=70_000, setup=20, restore=40)
    assert world.until(90) == [
        "0 workers-up",
        "20 restore-began 70000",
        "60 training-began 70000",
        "90 attempt-over succeeded",
    ]


def test_saves_block_training() -> None:
    """Every 40 s of useful work costs 5 s, and the end needs no save."""
    world = World.with_a_node()
    world.start("n", save=5, checkpoint_interval=40)
    assert world.until(110)[2:] == [
        "45 committed 40000",
        "90 committed 80000",
        "110 attempt-over succeeded",
    ]


def test_without_an_interval_the_hazard_decides() -> None:
    """Young: sqrt(2 x 10 s x 3 h) is 465 s on spot; a save that costs nothing is continuous."""
    world = World.with_a_node()
    world.start("n", work=1_000, save=10, checkpoint_interval=None)
    told = world.until(700)
    assert told[2].startswith("474.7")
    free = World.with_a_node()
    free.start("n", checkpoint_interval=None)
    free.drain(80)
    assert "0 attempt-over drained" in free.until(50)


def test_what_the_scheduler_knows_sets_the_interval() -> None:
    """One eviction an hour: sqrt(2 x 10 s x 1 h) is 268 s, and longer the longer it has lived."""
    world = World.with_a_node()
    world.start("n", work=3_000, save=10, checkpoint_interval=None, risk=HOURLY)
    commits = [line for line in world.until(1_500) if "committed" in line]
    first_s, second_s = (float(line.split()[0]) for line in commits[:2])
    assert first_s == pytest.approx(268.3 + 10, abs=0.1)
    assert second_s - first_s > first_s + 5


def test_a_notice_that_fits_a_save_is_relied_upon() -> None:
    """Nine of ten evictions can be met by a save in time: it saves 3.2 times less often."""
    world = World.with_a_node()
    risk = replace(HOURLY, notice_ms=30_000, noticed_ppm=900_000)
    world.start("n", work=9_000, save=1, checkpoint_interval=None, risk=risk)
    told = world.until(400)
    assert float(told[2].split()[0]) == pytest.approx(268.3 + 1, abs=0.1)
    slow = World.with_a_node()
    slow.start("n", work=9_000, save=31, checkpoint_interval=None, risk=risk)
    assert float(slow.until(600)[2].split()[0]) == pytest.approx(472.4 + 31, abs=0.1)


def test_no_save_shortly_before_the_end() -> None:
    """With 30 s to go after a whole interval, the end itself is the save."""
    world = World.with_a_node()
    world.start("n", work=298, save=10, checkpoint_interval=None, risk=HOURLY)
    assert world.until(300)[2:] == ["298 attempt-over succeeded"]


def test_a_continuous_saver_uses_its_notice_up() -> None:
    """The papers' model: an eviction costs the changeover only."""
    world = World.with_a_node(1, 0, boot_ms=0)
    world.until(950)
    world.start("n", work=100)
    assert world.until(1_030)[2:] == [
        "1000 capacity-seen 0",
        "1000 eviction-noticed",
        "1030 committed 80000",
        "1030 attempt-over drained",
        "1030 node-lost True",
    ]


def test_a_save_that_fits_the_notice_is_made_at_once() -> None:
    """It leaves as soon as it has saved."""
    world = World.with_a_node(1, 0)
    world.until(950)
    world.start("n", save=20, checkpoint_interval=500)
    assert world.until(1_030)[4:] == [
        "1020 committed 50000",
        "1020 attempt-over drained",
        "1030 node-lost True",
    ]


def test_a_save_that_does_not_fit_the_notice_is_lost_with_the_node() -> None:
    """30 s of notice are too short for 40 s; the end comes before the node's."""
    world = World.with_a_node(1, 0)
    world.until(950)
    world.start("n", save=40, checkpoint_interval=500)
    assert world.until(1_030)[4:] == ["1030 attempt-over node-lost", "1030 node-lost True"]


def test_work_that_fits_the_notice_is_finished() -> None:
    """10 s were left of it."""
    world = World.with_a_node(1, 0)
    world.until(910)
    world.start("n", save=20, checkpoint_interval=500)
    assert "1010 attempt-over succeeded" in world.until(1_030)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({}, ["50 committed 50000", "50 attempt-over drained"]),
        (
            {"save": 10, "checkpoint_interval": 70},
            ["60 committed 50000", "60 attempt-over drained"],
        ),
        ({"save": 40, "checkpoint_interval": 70}, ["50 attempt-over drained"]),
        ({"setup": 60}, ["50 attempt-over drained"]),
        (
            {"save": 10, "checkpoint_interval": 45},
            ["55 committed 45000", "55 attempt-over drained"],
        ),
    ],
)
def test_a_drain_saves_if_it_fits_and_leaves(spec: dict[str, Any], told: list[str]) -> None:
    """Free saves, saves that fit, saves that do not, none to make, and one in flight."""
    world = World.with_a_node()
    world.start("n", **spec)
    before = world.until(50)
    world.drain(80)
    assert world.until(90) == told
    assert before[0] == "0 workers-up"


def test_a_stop_saves_nothing() -> None:
    """And a stop of what never ran is answered too."""
    world = World.with_a_node()
    world.start("n")
    world.until(50)
    world.driver.submit(StopAttempt(id="stop", cluster="sim", attempt_id="j/1"))
    assert world.until(50) == ["50 attempt-over stopped"]
    world.driver.submit(StopAttempt(id="stop2", cluster="sim", attempt_id="k/1"))
    assert world.until(51) == ["50 attempt-over stopped"]


def test_an_attempt_on_a_node_that_is_gone_is_over_at_once() -> None:
    """A start that crossed the node's end."""
    world = World.with_a_node()
    world.driver.submit(ReleaseNode(id="release", cluster="sim", node_id="n"))
    world.start("n")
    assert world.until(1) == ["0 node-released", "0 attempt-over node-lost"]


@pytest.mark.parametrize(("notice_ms", "noticed", "second"), [(0, False, 50), (9_000, True, 59)])
def test_a_game_day_is_a_real_eviction(notice_ms: int, noticed: bool, second: int) -> None:
    """With its notice, or without one."""
    world = World.with_a_node()
    world.start("n", save=20, checkpoint_interval=500)
    world.until(50)
    world.driver.submit(EvictNode(id="e", cluster="sim", node_id="n", notice_ms=notice_ms))
    assert world.until(70)[-2:] == [
        f"{second} attempt-over node-lost",
        f"{second} node-lost {noticed}",
    ]


def test_news_are_sent_again_until_they_are_acknowledged() -> None:
    """A server that died before it committed finds them in its new inbox, with the same ids."""
    world = World()
    world.driver.run_until(0)
    first = world.inbox.drain()
    fresh = Inbox()
    world.driver.reconnect(fresh)
    assert fresh.drain() == first
    world.driver.acknowledge()
    world.driver.reconnect(fresh)
    assert fresh.drain() == []

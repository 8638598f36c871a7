"""The production controller against a cloud that strikes when it hurts most.

The adversary sees the rows after each tick and takes nodes of spot attempts at chosen moments; it
never touches sure capacity, which boots in the time that it promises. Everything else is the
simulation that users get.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal

from cluster.flavors import Flavor
from cluster.inbox import Inbox
from cluster.prices import StepSeries
from jobs.durations import US_PER_MS, US_PER_S
from jobs.rows import AttemptRow
from jobs.spec import JobSpec, Market
from jobs.states import AttemptState
from scheduler.commands import Mailbox
from scheduler.needs import ASSUMED_INTERVAL_MS
from scheduler.scenario import Arrival, Capacity, Scenario
from scheduler.simulation import Simulation
from scheduler.snapshot import PolicySettings
from scheduler.windows import PriceWindow

START_US = 1_676_419_200 * US_PER_S
HOUR_S = 3_600
Moment = Literal["lease", "boot", "train", "save", "wake"]
MOMENTS: tuple[Moment, ...] = ("lease", "boot", "train", "save", "wake")


@dataclass(frozen=True, slots=True)
class Strike:
    """When a spot attempt loses its first node.

    After its lease, its boot, its first step, just before its first save would be taken, or just
    before the controller would look again; so much later, with its flavor's notice or without.
    """

    moment: Moment
    after_us: int = 0
    noticed: bool = False


class HostileSimulation(Simulation):
    """The n-th spot attempt meets the n-th strike; those after the last are left in peace."""

    def __init__(
        self,
        scenario: Scenario,
        *,
        strikes: Sequence[Strike] = (),
        liars: Sequence[str] = (),
        policy: str = "lowtide",
        dies_after: Sequence[int] = (),
        shy_us: int | None = None,
        lag_s: int = 0,
    ) -> None:
        """Prepare the world.

        ``liars`` are flavors that show room and refuse every launch. The server dies after so
        many ticks of its own, and after so many more. With ``shy_us``, spot has no room until
        so long before a waiting job would look again, and none any more after a strike. Spot
        boots ``lag_s`` longer than it promises.
        """
        super().__init__(scenario, settings=PolicySettings(name=policy, margin_percent=0))
        self._fates: dict[str, Strike] = {}
        self._waiting = list(strikes)
        self._due: dict[str, int] = {}  # by attempt
        for flavor in scenario.flavors.values():
            if flavor.market is Market.SPOT:
                slow = replace(flavor, boot_ms=flavor.boot_ms + lag_s * 1_000)
                self.driver._flavors[flavor.name] = slow
        self._lives = list(dies_after)
        self._shy_us = shy_us
        self._appears_us: int | None = None
        if shy_us is not None:
            self._show_spot(room=False)
        self.struck = 0
        for liar in liars:
            self.driver.lie(liar)

    def step(self, at_us: int) -> None:
        """Strike what is due, then go on as always."""
        self.driver.run_until(at_us)
        for attempt_id, due_us in list(self._due.items()):
            if due_us <= at_us:
                del self._due[attempt_id]
                self._strike(attempt_id)
        if self._appears_us is not None and self._appears_us <= at_us:
            self._show_spot(room=True)
        super().step(at_us)
        self._lurk()
        if self._lives:
            self._lives[0] -= 1
            if self._lives[0] <= 0:
                self._lives.pop(0)
                self.restart()
        for attempt_id in self.controller.state.live_attempts:
            self._plan(self.controller.state.attempts[attempt_id])

    def restart(self) -> None:
        """The server dies between two ticks; a new one goes on with what the store holds."""
        self.inbox = Inbox()
        self.mailbox = Mailbox(self.inbox)
        self.driver.reconnect(self.inbox)
        self.controller = self._boot()
        assert self.controller.start()

    def _next_us(self) -> int | None:
        usual_us = super()._next_us()
        if usual_us is None:
            return None
        due_us = [usual_us, *self._due.values()]
        due_us += [] if self._appears_us is None else [self._appears_us]
        return max(self.clock.now_us(), min(due_us))

    def _lurk(self) -> None:
        """Find the last moment at which spot can still tempt a job that waits."""
        self._appears_us = None
        if self._shy_us is not None and self._wake_us is not None and not self._lives:
            wakes_us = self._wake_us - self._shy_us
            idle = not self.controller.state.live_attempts and self.controller.state.queued
            if idle and wakes_us > self.clock.now_us():
                self._appears_us = wakes_us

    def _show_spot(self, *, room: bool) -> None:
        """Give every spot flavor its full limit, or none."""
        self._appears_us = None
        for flavor in self.scenario.flavors.values():
            if flavor.market is Market.SPOT:
                limit = flavor.max_nodes if room else 0
                self.driver.limit_to(flavor.name, limit)

    def _plan(self, attempt: AttemptRow) -> None:
        """Give a new attempt its fate, and settle when that comes as soon as it can be told."""
        flavor = self.scenario.flavors[attempt.flavor]
        if flavor.market is not Market.SPOT:
            return
        if attempt.id not in self._fates and self._waiting:
            self._fates[attempt.id] = self._waiting.pop(0)
        strike = self._fates.get(attempt.id)
        at_us = None if strike is None else self._moment_us(attempt, strike)
        if strike is not None and at_us is not None:
            del self._fates[attempt.id]
            self._fates[f"{attempt.id} met"] = strike
            self._due[attempt.id] = max(self.clock.now_us(), at_us + strike.after_us)

    def _moment_us(self, attempt: AttemptRow, strike: Strike) -> int | None:
        now_us = self.clock.now_us()
        match strike.moment:
            case "lease":
                return now_us
            case "boot":
                return now_us if attempt.state is not AttemptState.LEASED else None
            case "train":
                return attempt.training_us
            case "save":
                spec = self.controller.state.jobs[attempt.job_id].spec
                interval_ms = spec.checkpoint_interval or ASSUMED_INTERVAL_MS
                trained = attempt.training_us
                return None if trained is None else trained + interval_ms * US_PER_MS - 1
            case "wake":
                return None if self._wake_us is None else self._wake_us - 1

    def _strike(self, attempt_id: str) -> None:
        attempt = self.controller.state.attempts[attempt_id]
        strike = self._fates[f"{attempt_id} met"]
        if attempt.ended:
            return
        self.struck += 1
        take = self.driver.notice_node if strike.noticed else self.driver.kill_node
        take(attempt.node_ids[0])
        if self._shy_us is not None:
            self.driver.run_until(self.clock.now_us())
            self._show_spot(room=False)


def a_flavor(
    name: str, *, usd: float, boot_s: int, notice_s: int = 0, region: str = "here", gpus: int = 1
) -> Flavor:
    """Give a kind of node; its name begins with its market."""
    market = next(one for one in Market if name.startswith(one.value))
    return Flavor(
        name=name,
        cluster=region,
        market=market,
        accelerator="V100",
        region=region,
        zone=name,
        gpu_milli=gpus * 1_000,
        cpus=64,
        usd_nanos_per_hour=round(usd * 10**9),
        list_usd_nanos_per_hour=3_000_000_000,
        max_nodes=0,
        boot_ms=boot_s * 1_000,
        notice_ms=notice_s * 1_000,
        idle_release_ms=min(boot_s, 60) * 1_000,
    )


def up(flavor: Flavor, *limits: int, step_s: int = 900, usd: Sequence[float] = ()) -> Capacity:
    """Give its limit, and perhaps its price, step by step."""
    series = StepSeries.regular(limits, start_us=START_US, step_us=step_s * US_PER_S)
    nanos = [round(price * 10**9) for price in usd]
    prices = (
        StepSeries.regular(nanos, start_us=START_US, step_us=1_100 * US_PER_S) if nanos else None
    )
    return Capacity(flavor=replace(flavor, max_nodes=max(limits)), limits=series, prices=prices)


def a_world(
    capacities: Sequence[Capacity],
    specs: Sequence[JobSpec],
    *,
    at_s: Sequence[int] = (),
    **facts: Any,
) -> Scenario:
    """Give a world of ten days; jobs come at once unless told otherwise."""
    times = [*at_s, *[0] * (len(specs) - len(at_s))]
    arrivals = [
        Arrival(at_us=START_US + at * US_PER_S, spec=spec)
        for at, spec in sorted(zip(times, specs, strict=True), key=lambda pair: pair[0])
    ]
    return Scenario(
        start_us=START_US,
        end_us=START_US + 240 * HOUR_S * US_PER_S,
        capacities=tuple(capacities),
        arrivals=tuple(arrivals),
        **facts,
    )


WINDOWS = (
    PriceWindow(name="early", start_s=3_600, end_s=9_000, price_percent=30),
    PriceWindow(
        name="sure", start_s=14_400, end_s=43_200, markets=("on-demand",), price_percent=10
    ),
    PriceWindow(name="dear", start_s=7_200, end_s=25_200, markets=("spot",), price_percent=400),
    PriceWindow(name="night", start_s=72_000, end_s=3_600, tariff_usd_nanos_per_hour=0),
)


def a_random_world(seed: int, *, jobs: int) -> Scenario:
    """Spot in three places that comes and goes at prices that jump; sure capacity for all jobs."""
    random = Random(seed)
    specs = [a_random_spec(random, index) for index in range(jobs)]
    sure_boot_s = random.choice((0, 60, 900))
    capacities = [
        up(
            a_flavor(
                f"spot-{zone}",
                usd=1,
                boot_s=random.choice((0, 120, 600)),
                notice_s=random.choice((0, 30, 120)),
                region=random.choice(("here", "there")),
            ),
            *[random.choice((0, 0, 1, 2, 4)) for _ in range(random.randrange(1, 60))],
            step_s=random.choice((120, 900, 3_600)),
            usd=[random.uniform(0.1, 6) for _ in range(random.choice((1, 30)))],
        )
        for zone in "abc"[: random.randrange(1, 4)]
    ]
    capacities.append(
        up(a_flavor("on-demand", usd=3, boot_s=sure_boot_s), sum(spec.nodes for spec in specs))
    )
    return a_world(
        capacities,
        specs,
        at_s=[random.randrange(0, 20_000) for _ in specs],
        probe=random.random() < 0.3,
        windows=tuple(window for window in WINDOWS if random.random() < 0.3),
        egress_nanos_per_gb={("here", "there"): 10**7},
    )


def a_random_spec(random: Random, index: int) -> JobSpec:
    """Give a job whose deadline is anything from barely possible to far away, or none."""
    work_s = random.choice((300, 3_600, 20_000, 60_000))
    setup_s, save_s = random.choice((0, 30)), random.choice((0, 0, 20))
    factor = random.choice((None, 1.02, 1.2, 2, 4))
    interval_s = random.choice((0, 0, 600, None))
    return JobSpec(
        name=f"job-{index}",
        nodes=random.choice((1, 1, 2)),
        gpus=random.choice(("0.5", "1", "1")),
        work=work_s,
        deadline=None if factor is None else int(work_s * factor) + 2_000,
        setup=setup_s,
        restore=random.choice((0, 300)),
        save=save_s,
        checkpoint_interval=interval_s,
        checkpoint_gb=10,
        priority=random.choice((0, 0, 5)),
    )

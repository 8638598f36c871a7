"""A real controller in a simulated world that can be broken on purpose.

Only what production gives to the controller is replaced by the shipped simulation parts; the
wrappers here add crashes, notices that come twice, late or in another order, and price jumps.
"""

from __future__ import annotations

from random import Random
from typing import Any

from cluster.flavors import Flavor
from cluster.inbox import Inbox
from cluster.intents import Intent
from cluster.notices import Notice
from cluster.prices import Price, StepSeries
from cluster.sim_driver import SimDriver
from jobs.durations import US_PER_S
from jobs.memory_store import MemoryStore
from jobs.spec import JobSpec, Market
from jobs.store import Batch
from scheduler import commands as cmd
from scheduler.audit import Finding
from scheduler.audit_store import Watcher
from scheduler.catalog import Catalog
from scheduler.clock import ManualClock
from scheduler.controller import Controller
from scheduler.ids import CountedIds
from scheduler.price_book import PriceBook
from scheduler.snapshot import PolicySettings

START_US = 1_676_419_200 * US_PER_S
HOUR_US = 3_600 * US_PER_S
PATIENCE = 3_000  # ticks that a quiet world may need to finish everything


class CrashError(Exception):
    """The server died here."""


class CrashingStore(MemoryStore):
    """A store next to which the server can be made to die, before or after a commit."""

    def __init__(self) -> None:
        super().__init__()
        self.crash_before = False
        self.crash_after = False

    def commit(self, batch: Batch, *, epoch: int) -> None:
        """Write, or die."""
        if self.crash_before:
            self.crash_before = False
            raise CrashError
        super().commit(batch, epoch=epoch)
        if self.crash_after:
            self.crash_after = False
            raise CrashError


class CrashingDriver:
    """Hands intents on to the world until the server dies in between."""

    def __init__(self, world: SimDriver) -> None:
        self._world = world
        self.crash_after: int | None = None  # intents that still get through

    def submit(self, intent: Intent) -> None:
        """Hand on, or die."""
        if self.crash_after is not None:
            self.crash_after -= 1
            if self.crash_after < 0:
                self.crash_after = None
                raise CrashError
        self._world.submit(intent)

    def close(self) -> None:
        """Do nothing."""


class JumpingPrices:
    """Prices that nobody saw coming: each jump is known only once it has happened."""

    def __init__(self, flavors: dict[str, Flavor]) -> None:
        self._list = {name: flavor.list_usd_nanos_per_hour for name, flavor in flavors.items()}
        self._series = {
            name: StepSeries((START_US,), (flavor.usd_nanos_per_hour,))
            for name, flavor in flavors.items()
        }

    def jump(self, flavor: str, *, at_us: int, usd_nanos: int) -> None:
        """Change a price from then on."""
        series = self._series[flavor]
        if at_us > series.from_us[-1]:
            self._series[flavor] = StepSeries((*series.from_us, at_us), (*series.values, usd_nanos))

    def base(self, flavor: str, at_us: int) -> Price:
        """Give the price of the last jump until then."""
        return Price(
            usd_nanos_per_hour=self._series[flavor].at(at_us),
            list_usd_nanos_per_hour=self._list[flavor],
            source="jumps",
        )

    def next_change_us(self, flavor: str, after_us: int) -> int | None:
        """Give the next jump that has happened already."""
        return self._series[flavor].next_change_us(after_us)


class Spool(Inbox):
    """An inbox that remembers what came in, and can hold news back for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Notice] = []
        self.late: list[Notice] = []

    def post(self, notice: Notice) -> None:
        """Let a notice in."""
        self.seen.append(notice)
        super().post(notice)

    def shuffle(self, random: Random) -> None:
        """Change the order of what waits, and keep a part of it for later."""
        waiting = self.drain()
        random.shuffle(waiting)
        keep = random.randrange(len(waiting) + 1)
        self.late += waiting[:keep]
        for notice in waiting[keep:]:
            super().post(notice)

    def deliver_late(self) -> None:
        """Let in what was held back."""
        late, self.late = self.late, []
        for notice in late:
            super().post(notice)


def flavor(name: str, market: Market, *, usd: float, nodes: int, gpus: int = 2) -> Flavor:
    """A small kind of node that boots in a minute."""
    return Flavor(
        name=name,
        cluster="sim",
        market=market,
        accelerator="V100",
        region="here",
        zone=name,
        gpu_milli=gpus * 1_000,
        cpus=8,
        usd_nanos_per_hour=round(usd * 10**9),
        list_usd_nanos_per_hour=3_060_000_000,
        max_nodes=nodes,
        boot_ms=60_000,
        notice_ms=120_000 if market is Market.SPOT else 0,
        idle_release_ms=30_000,
    )


def a_trace(*limits: int, step_s: int = 900) -> StepSeries:
    """A limit that changes every quarter of an hour."""
    return StepSeries.regular(limits, start_us=START_US, step_us=step_s * US_PER_S)


class ChaosWorld:
    """Everything around one controller. ``tick`` audits what it leaves behind."""

    def __init__(self) -> None:
        listed = (
            flavor("spot-a", Market.SPOT, usd=0.973, nodes=3),
            flavor("spot-b", Market.SPOT, usd=1.101, nodes=2, gpus=1),
            flavor("on-demand", Market.ON_DEMAND, usd=3.06, nodes=4),
        )
        self.flavors = {one.name: one for one in listed}
        self.limits = {
            "spot-a": a_trace(3, 1, 0, 2, 3, 3, 0, 1, 3, 2, 1, 3),
            "spot-b": a_trace(0, 2, 2, 1, 0, 2, 1, 2),
            "on-demand": a_trace(4),
        }
        self.clock = ManualClock(START_US)
        self.store = CrashingStore()
        self.watcher = Watcher(self.store)
        self.prices = JumpingPrices(self.flavors)
        self.spool = Spool()
        self.world = SimDriver(listed, limits=self.limits, inbox=self.spool, start_us=START_US)
        self.driver = CrashingDriver(self.world)
        self.ids = CountedIds()
        self.servers = 0
        self.wake_us: int | None = None
        self.boot()

    def boot(self) -> None:
        """Start a server from what the store holds. The old one's inbox dies with it."""
        self.servers += 1
        old, self.spool = self.spool, Spool()
        self.spool.seen = old.seen
        self.world.reconnect(self.spool)
        self.mailbox = cmd.Mailbox(self.spool)
        self.controller = Controller(
            store=self.store,
            driver=self.driver,
            inbox=self.spool,
            mailbox=self.mailbox,
            clock=self.clock,
            ids=self.ids,
            catalog=Catalog(
                flavors=self.flavors, prices=PriceBook(self.prices, self.flavors.values())
            ),
            settings=PolicySettings(),
            holder=f"server-{self.servers}",
        )
        self.clock.advance_to(self.clock.now_us() + 11 * US_PER_S)  # the old lease runs out
        assert self.controller.start()

    def tick(self) -> None:
        """Let the world catch up with the clock, then one cycle; a crash boots a new server."""
        self.world.run_until(self.clock.now_us())
        try:
            self.wake_us = self.controller.tick().wake_at_us
            if not self.spool.late:
                self.world.acknowledge()
        except CrashError:
            self.boot_again()
        faults = self.look()
        assert not faults, faults

    def boot_again(self) -> None:
        """Boot, and once more if the new server dies while it issues what is open."""
        try:
            self.boot()
        except CrashError:
            self.boot()
        self.wake_us = self.clock.now_us()

    def look(self) -> list[Finding]:
        """Audit everything that is committed."""
        return self.watcher.look()

    def advance(self, seconds: int) -> None:
        """Let time pass, ticking at every event of the world and every wake-up of the plan."""
        until_us = self.clock.now_us() + seconds * US_PER_S
        for _ in range(PATIENCE):
            at_us = self.next_us()
            if at_us is None or at_us > until_us:
                break
            self.clock.advance_to(at_us)
            self.tick()
        self.clock.advance_to(until_us)
        self.tick()

    def leap(self, seconds: int) -> None:
        """Let time pass while nobody looks: one tick finds it all."""
        self.clock.advance_to(self.clock.now_us() + seconds * US_PER_S)
        self.tick()

    def next_us(self) -> int | None:
        """When something is due next."""
        due = (self.world.next_event_us, self.wake_us)
        return min((at_us for at_us in due if at_us is not None), default=None)

    def call(self, command: cmd.Command) -> Any:
        """Ask the controller for something and tick; a crash leaves no answer."""
        future = self.mailbox.call(command)
        self.tick()
        return future.exception(timeout=0) if future.done() else None

    def jump(self, name: str, percent: int) -> None:
        """Change a price from now on."""
        usd_nanos = self.flavors[name].usd_nanos_per_hour * percent // 100
        self.prices.jump(name, at_us=self.clock.now_us(), usd_nanos=usd_nanos)

    def settle(self) -> None:
        """Make the world quiet and let everything finish.

        Raises:
            AssertionError: some job never ends: it was lost.
        """
        self.spool.deliver_late()
        self.driver.crash_after = None
        self.store.crash_before = self.store.crash_after = False
        for job in list(self.controller.state.jobs.values()):
            if job.held and not job.ended:
                self.call(cmd.Resume(job_id=job.id))
        for node_id in list(self.controller.state.live_nodes):
            self.call(cmd.Cordon(node_id=node_id, cordoned=False))
        for _ in range(PATIENCE):
            state = self.controller.state
            if not (state.queued or state.live_attempts or state.live_nodes):
                break
            at_us = self.next_us()
            assert at_us is not None, f"nothing will ever happen again: {self.story()}"
            self.clock.advance_to(at_us)
            self.tick()
        assert all(job.ended for job in self.controller.state.jobs.values()), self.story()

    def story(self) -> str:
        """What is not over."""
        state = self.controller.state
        jobs = [state.jobs[job_id] for job_id in state.queued]
        lives = [state.attempts[attempt_id] for attempt_id in state.live_attempts]
        nodes = [state.nodes[node_id] for node_id in state.live_nodes]
        return f"queued {jobs}, live {lives}, nodes {nodes}"


def a_spec(random: Random) -> JobSpec:
    """Some job of up to an hour, that fits the world."""
    work_s = random.choice((60, 600, 3_600))
    slack = random.choice((None, 4, 20))
    return JobSpec(
        name="job",
        nodes=random.choice((1, 1, 2)),
        gpus=random.choice(("0.5", "1", "2")),
        work=work_s,
        deadline=None if slack is None else work_s * slack,
        setup=random.choice((0, 20)),
        restore=random.choice((0, 30)),
        save=random.choice((0, 10, 300)),
        checkpoint_interval=random.choice((0, 120, None)),
        max_failures=random.choice((0, 2)),
        max_runtime=random.choice((None, None, 7_200)),
    )

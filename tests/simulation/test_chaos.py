"""The real controller under everything at once, audited after every tick."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from scheduler import commands as cmd
from tests.simulation.chaos_world import ChaosWorld, a_spec

SEEDS = st.integers(min_value=0, max_value=1 << 16)
PICKS = st.integers(min_value=0, max_value=1 << 16)


class Chaos(RuleBasedStateMachine):
    """Submissions, owners, faults, crashes and time, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.chaos = ChaosWorld()

    # -- people

    @rule(seed=SEEDS, count=st.integers(min_value=1, max_value=3))
    def submit(self, seed: int, count: int) -> None:
        """Jobs come, some of them infeasible."""
        random = Random(seed)
        for _ in range(count):
            self.chaos.call(cmd.Submit(spec=a_spec(random)))

    @precondition(lambda self: self.chaos.controller.state.jobs)
    @rule(pick=PICKS, kind=st.sampled_from([cmd.Cancel, cmd.Pause, cmd.Resume]))
    def owner(self, pick: int, kind: type[cmd.Cancel | cmd.Pause | cmd.Resume]) -> None:
        """An owner changes their mind, perhaps about a job that is over."""
        jobs = list(self.chaos.controller.state.jobs)
        self.chaos.call(kind(job_id=jobs[pick % len(jobs)]))

    @precondition(lambda self: self.chaos.controller.state.live_nodes)
    @rule(pick=PICKS, notice_ms=st.sampled_from([0, 5_000, 120_000]))
    def game_day(self, pick: int, notice_ms: int) -> None:
        """An operator has a node evicted."""
        nodes = list(self.chaos.controller.state.live_nodes)
        self.chaos.call(cmd.Evict(node_id=nodes[pick % len(nodes)], notice_ms=notice_ms))

    @precondition(lambda self: self.chaos.controller.state.live_nodes)
    @rule(pick=PICKS, cordoned=st.booleans())
    def cordon(self, pick: int, cordoned: bool) -> None:
        """An operator takes a node out of use, or gives it back."""
        nodes = list(self.chaos.controller.state.live_nodes)
        self.chaos.call(cmd.Cordon(node_id=nodes[pick % len(nodes)], cordoned=cordoned))

    # -- the world

    @rule(seconds=st.sampled_from([1, 30, 90, 600, 2_700]))
    def time_passes(self, seconds: int) -> None:
        """The loop keeps up."""
        self.chaos.advance(seconds)

    @rule(seconds=st.sampled_from([45, 200, 2_000, 20_000]))
    def clock_jumps(self, seconds: int) -> None:
        """Nobody looks for a while; everything is found at once."""
        self.chaos.leap(seconds)

    @rule(
        name=st.sampled_from(["spot-a", "spot-b", "on-demand"]), percent=st.sampled_from([20, 350])
    )
    def price_jumps(self, name: str, percent: int) -> None:
        """A price changes without warning."""
        self.chaos.jump(name, percent)

    @precondition(lambda self: self.chaos.world.nodes)
    @rule(pick=PICKS, noticed=st.booleans())
    def node_goes(self, pick: int, noticed: bool) -> None:
        """The cloud takes a node, with or without notice."""
        node_id = self.chaos.world.nodes[pick % len(self.chaos.world.nodes)]
        if noticed:
            self.chaos.world.notice_node(node_id)
        else:
            self.chaos.world.kill_node(node_id)
        self.chaos.tick()

    @precondition(lambda self: self.chaos.world.attempts)
    @rule(pick=PICKS, script=st.booleans())
    def attempt_breaks(self, pick: int, script: bool) -> None:
        """A worker falls silent, or the user's script fails."""
        attempt_id = self.chaos.world.attempts[pick % len(self.chaos.world.attempts)]
        if script:
            self.chaos.world.fail_script(attempt_id)
        else:
            self.chaos.world.silence(attempt_id)
        self.chaos.tick()

    @rule(count=st.integers(min_value=1, max_value=3))
    def launches_fail(self, count: int) -> None:
        """The provider refuses the next launches."""
        self.chaos.world.fail_launches(count)

    # -- the link and the server

    @precondition(lambda self: self.chaos.spool.seen)
    @rule(pick=PICKS, count=st.integers(min_value=1, max_value=20))
    def notices_repeat(self, pick: int, count: int) -> None:
        """An agent sends again what was taken long ago."""
        seen = list(self.chaos.spool.seen)
        start = pick % max(1, len(seen))
        for notice in seen[start : start + count]:
            self.chaos.spool.post(notice)
        self.chaos.tick()

    @rule(seed=SEEDS, seconds=st.sampled_from([1, 70, 700]))
    def notices_come_late(self, seed: int, seconds: int) -> None:
        """News change their order, and some come ticks later."""
        chaos = self.chaos
        chaos.clock.advance_to(chaos.clock.now_us() + seconds * 1_000_000)
        chaos.world.run_until(chaos.clock.now_us())
        chaos.spool.shuffle(Random(seed))
        chaos.tick()
        chaos.spool.deliver_late()
        chaos.tick()

    @rule(intents=st.integers(min_value=0, max_value=3))
    def crash_while_acting(self, intents: int) -> None:
        """The server will die between its commit and its next intents."""
        self.chaos.driver.crash_after = intents

    @rule(before=st.booleans())
    def crash_at_the_next_commit(self, before: bool) -> None:
        """The server will die just before or just after its next commit."""
        self.chaos.store.crash_before = before
        self.chaos.store.crash_after = not before

    @rule()
    def crash_now(self) -> None:
        """The server dies between two ticks."""
        self.chaos.boot_again()
        self.chaos.tick()

    def teardown(self) -> None:
        """Whatever happened, in a quiet world every job ends and the books are clean."""
        self.chaos.settle()
        assert self.chaos.look() == []


TestChaos = pytest.mark.simulation(Chaos.TestCase)
TestChaos.settings = settings(
    max_examples=20,
    stateful_step_count=25,
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
)

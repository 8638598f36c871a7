"""How an attempt ends: rules over what is known of its workers. Pure.

A rank that fails often fails because a node of the gang died a moment ago, and that must never be
charged to the user: so a failure waits a short grace for the news of a lost node.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from checkpointing.control import DRAINED_EXIT_CODE
from checkpointing.hazard_posterior import Risk
from cluster.intents import StartAttempt
from cluster.notices import Outcome

LAUNCH_US = 90_000_000  # for all workers to come up
RETURN_US = 10_000_000  # for workers to come back to a new agent
SILENCE_US = 2_000_000  # without a word of a worker
GRACE_US = 3_000_000  # between a failure and its verdict, in a gang of several nodes
SIGNAL_GRACE_US = 1_000_000  # the same on one node, when a signal ended the process
_DETAIL = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How one rank ended."""

    rank: int
    code: int
    tail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How the attempt ends; ``exit_code`` and ``detail`` are for people."""

    outcome: Outcome
    exit_code: int | None = None
    detail: str = ""


@dataclass(slots=True, kw_only=True)
class Facts:
    """What must survive the agent's death."""

    went: bool = False  # the children were told to start
    exits: list[Exit] = field(default_factory=list)  # in the order in which they were heard
    unable: str = ""  # a worker could not start its children
    launch_error: str = ""  # the workers could not be started
    lost_nodes: list[str] = field(default_factory=list)
    drain_deadline_us: int = 0
    stop: bool = False
    verdict: Verdict | None = None

    @property
    def ended(self) -> set[int]:
        """The ranks that are gone."""
        return {one.rank for one in self.exits}


@dataclass(slots=True, kw_only=True)
class Gang:
    """One live attempt. Instants are monotonic microseconds of this agent's life."""

    attempt: StartAttempt
    facts: Facts
    patience_us: int  # until when all workers must have said hello
    heard_us: dict[int, int] = field(default_factory=dict)  # by worker index, once it said hello
    failed_us: int = 0  # when a rank first failed
    signed: bool = False  # the first sign of its death was told
    ending_us: int = 0  # when the verdict was found
    risk: Risk | None = None  # what its workers were told last of evictions and price

    @property
    def nodes(self) -> int:
        """Workers of the gang."""
        return len(self.attempt.node_ids)

    @property
    def complete(self) -> bool:
        """Whether every worker said hello."""
        return len(self.heard_us) == self.nodes

    def ranks_of(self, index: int) -> range:
        """Give the global ranks of one worker."""
        per_node = self.attempt.spec.processes
        return range(index * per_node, (index + 1) * per_node)

    def left(self) -> list[int]:
        """Give the workers whose processes may still run: node alive, not all ranks ended."""
        return [
            index
            for index, node_id in enumerate(self.attempt.node_ids)
            if node_id not in self.facts.lost_nodes
            and not self.facts.ended.issuperset(self.ranks_of(index))
        ]

    def silent(self, now_us: int) -> list[int]:
        """Give the workers that said hello once and fell silent."""
        busy = self.left()
        return [
            i for i, heard in self.heard_us.items() if i in busy and now_us - heard > SILENCE_US
        ]


def judge(gang: Gang, *, now_us: int) -> Verdict | None:
    """Give the verdict as soon as there is one; ``now_us`` is monotonic."""
    facts = gang.facts
    if _all_exited(gang) and all(e.code == 0 for e in facts.exits):
        return Verdict(outcome=Outcome.SUCCEEDED, exit_code=0)
    if facts.stop:
        return Verdict(outcome=Outcome.STOPPED)
    if facts.lost_nodes:
        return Verdict(outcome=Outcome.NODE_LOST, detail=f"lost {', '.join(facts.lost_nodes)}")
    if facts.drain_deadline_us and (_all_exited(gang) or not facts.went):
        return _drained(gang)
    if _all_exited(gang) and not any(is_bad(e.code) for e in facts.exits):
        return _drained(gang)  # somebody else told a rank to go, the others may have finished
    return _trouble(gang, now_us)


def _trouble(gang: Gang, now_us: int) -> Verdict | None:
    facts = gang.facts
    if facts.unable:
        return Verdict(outcome=Outcome.FAILED, detail=facts.unable)
    if not facts.drain_deadline_us and _failure_is_final(gang, now_us):
        return failure(gang)
    if gang.silent(now_us):
        names = ", ".join(gang.attempt.node_ids[i] for i in sorted(gang.silent(now_us)))
        return Verdict(outcome=Outcome.HEARTBEAT_LOST, detail=f"the worker on {names} fell silent")
    if facts.launch_error:
        return Verdict(outcome=Outcome.HEARTBEAT_LOST, detail=facts.launch_error)
    if not gang.complete and now_us > gang.patience_us:
        return Verdict(outcome=Outcome.HEARTBEAT_LOST, detail="not all workers came up in time")
    return None


def failure(gang: Gang) -> Verdict:
    """Give the verdict for the rank whose failure was heard first."""
    bad = [e for e in gang.facts.exits if is_bad(e.code)]
    first = bad[0]
    return Verdict(
        outcome=Outcome.FAILED,
        exit_code=first.code,
        detail=f"rank {first.rank}: {first.tail}"[-_DETAIL:] if gang.nodes > 1 else first.tail,
    )


def is_bad(code: int) -> bool:
    """Whether an exit code is a failure."""
    return code not in {0, DRAINED_EXIT_CODE}


def _failure_is_final(gang: Gang, now_us: int) -> bool:
    bad = [e.code for e in gang.facts.exits if is_bad(e.code)]
    if not bad:
        return False
    if gang.nodes > 1:
        return now_us - gang.failed_us >= GRACE_US
    killed = any(code < 0 for code in bad)
    return not killed or now_us - gang.failed_us >= SIGNAL_GRACE_US


def _drained(gang: Gang) -> Verdict:
    codes = sorted(e.code for e in gang.facts.exits)
    return Verdict(outcome=Outcome.DRAINED, exit_code=codes[-1] if codes else None)


def _all_exited(gang: Gang) -> bool:
    ranks = gang.nodes * gang.attempt.spec.processes
    return len(gang.facts.exits) == ranks

"""What jobs, attempts and nodes can be, and which moves are legal.

Each machine is one table of edges with the moment at which the edge happens. ``check_move``
refuses everything else: an illegal move is our bug, never a user's.
"""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """What has become of a user's request; ``paused`` is a held ``queued``."""

    QUEUED = "queued"
    ADMITTED = "admitted"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class AttemptState(StrEnum):
    """One try at a job on one lease."""

    LEASED = "leased"
    STARTING = "starting"
    RESTORING = "restoring"
    TRAINING = "training"
    DRAINING = "draining"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EVICTED = "evicted"
    PREEMPTED = "preempted"
    LOST = "lost"


class NodeState(StrEnum):
    """A machine that we pay for, from the request to its end."""

    REQUESTED = "requested"
    BOOTING = "booting"
    READY = "ready"
    DRAINING = "draining"
    GONE = "gone"


JOB_ENDS = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
ATTEMPT_ENDS = frozenset(
    {
        AttemptState.SUCCEEDED,
        AttemptState.FAILED,
        AttemptState.EVICTED,
        AttemptState.PREEMPTED,
        AttemptState.LOST,
    }
)

_J, _A, _N = JobState, AttemptState, NodeState

JOB_EDGES: frozenset[tuple[JobState, JobState]] = frozenset(
    {
        (_J.QUEUED, _J.ADMITTED),  # a plan placed it: attempt and lease exist
        (_J.QUEUED, _J.CANCELLED),  # its owner gave up before it started
        (_J.ADMITTED, _J.RUNNING),  # the attempt worker is up on every node of the gang
        (_J.ADMITTED, _J.QUEUED),  # a node failed to launch or died before the worker was up
        (_J.ADMITTED, _J.FAILED),  # the script could not even be started (user's error)
        (_J.ADMITTED, _J.SUCCEEDED),  # drained before we heard of its start, and it finished
        (_J.ADMITTED, _J.CANCELLED),  # cancelled while its nodes were booting
        (_J.RUNNING, _J.QUEUED),  # eviction, preemption, pause, or a failure that may be retried
        (_J.RUNNING, _J.SUCCEEDED),  # every rank left with exit code 0
        (_J.RUNNING, _J.FAILED),  # failed once more than max_failures
        (_J.RUNNING, _J.CANCELLED),  # cancelled while training
    }
)

_LIVE = (_A.LEASED, _A.STARTING, _A.RESTORING, _A.TRAINING, _A.DRAINING)

ATTEMPT_EDGES: frozenset[tuple[AttemptState, AttemptState]] = frozenset(
    {
        (_A.LEASED, _A.STARTING),  # the attempt worker is up
        (_A.STARTING, _A.RESTORING),  # the child began to load its restore point
        (_A.STARTING, _A.TRAINING),  # no restore point: the first step begins
        (_A.RESTORING, _A.TRAINING),  # restored: the first step begins
        (_A.LEASED, _A.DRAINING),  # notice, preemption or cancel before the worker was up
        (_A.STARTING, _A.DRAINING),  # the same during start
        (_A.RESTORING, _A.DRAINING),  # the same during restore
        (_A.TRAINING, _A.DRAINING),  # the same during training: it saves and stops
        (_A.STARTING, _A.SUCCEEDED),  # a script without a Session that just ended
        (_A.RESTORING, _A.SUCCEEDED),  # everything was done already
        (_A.TRAINING, _A.SUCCEEDED),  # exit code 0 on every rank
        (_A.DRAINING, _A.SUCCEEDED),  # it finished inside the grace period
        *((live, _A.FAILED) for live in _LIVE),  # the user's script failed
        *((live, _A.EVICTED) for live in _LIVE),  # the cloud took a node, with notice
        *((live, _A.PREEMPTED) for live in _LIVE),  # we took the capacity (also cancel and pause)
        *((live, _A.LOST) for live in _LIVE),  # a node or worker vanished without notice
    }
)

NODE_EDGES: frozenset[tuple[NodeState, NodeState]] = frozenset(
    {
        (_N.REQUESTED, _N.BOOTING),  # the provider accepted the launch: billing starts
        (_N.REQUESTED, _N.READY),  # it joined before we heard of the boot
        (_N.REQUESTED, _N.GONE),  # the provider refused the launch
        (_N.BOOTING, _N.READY),  # it joined its cluster
        (_N.BOOTING, _N.DRAINING),  # noticed or released while booting
        (_N.BOOTING, _N.GONE),  # it died or failed while booting
        (_N.READY, _N.DRAINING),  # eviction notice, or we release it
        (_N.READY, _N.GONE),  # it died without notice
        (_N.DRAINING, _N.GONE),  # the end of its billing
    }
)


def check_move(old: StrEnum, new: StrEnum, *, story: object) -> None:
    """Assert that ``old -> new`` is legal.

    Args:
        old: the present state.
        new: the state that is wanted, of the same machine.
        story: the subject's row, put into the message.

    Raises:
        AssertionError: the move is not in the table (a bug of ours).
    """
    edges: dict[type, frozenset[tuple[StrEnum, StrEnum]]] = {
        JobState: JOB_EDGES,
        AttemptState: ATTEMPT_EDGES,
        NodeState: NODE_EDGES,
    }
    legal = (old, new) in edges[type(old)]
    assert legal, f"illegal move {old} -> {new}: {story!r}"

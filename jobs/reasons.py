"""Why something is as it is. Status says WHAT (``jobs.states``), a Reason says WHY.

Every member carries one sentence of help; the README table and ``lowtide explain`` are made
from it, and a test holds the README to it.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """The named reasons of deferrals, moves, ends and node changes."""

    # a job is waiting
    NEW = "new"
    WAITS_FOR_CAPACITY = "waits-for-capacity"
    WAITS_FOR_SPOT = "waits-for-spot"
    WAITS_FOR_WINDOW = "waits-for-window"
    WAITS_FOR_TURN = "waits-for-turn"
    WAITS_FOR_DEADLINES = "waits-for-deadlines"
    WAITS_FOR_BUDGET = "waits-for-budget"
    WAITS_FOR_BOOT = "waits-for-boot"
    WAITS_FOR_JOB = "waits-for-job"
    WAITS_FOR_ARRAY = "waits-for-array"
    PAUSED = "paused"
    NO_FLAVOR = "no-flavor"
    RETRY_AFTER_FAILURE = "retry-after-failure"
    # a job was placed
    CHEAPEST_NOW = "cheapest-now"
    IN_WINDOW = "in-window"
    SAFETY_NET = "safety-net"
    # an attempt ended, or is made to
    FINISHED = "finished"
    EVICTED = "evicted"
    NODE_LOST = "node-lost"
    HEARTBEAT_LOST = "heartbeat-lost"
    LAUNCH_FAILED = "launch-failed"
    PREEMPTED = "preempted"
    SUSPENDED = "suspended"
    BUDGET = "budget"
    USER_ERROR = "user-error"
    USER_CANCELLED = "user-cancelled"
    USER_PAUSED = "user-paused"
    MAX_FAILURES = "max-failures"
    MAX_EVICTIONS = "max-evictions"
    MAX_LOST = "max-lost"
    MAX_LAUNCH_FAILURES = "max-launch-failures"
    MAX_RUNTIME = "max-runtime"
    DEPENDENCY_FAILED = "dependency-failed"
    # a node came or went
    FOR_ATTEMPT = "for-attempt"
    IDLE = "idle"
    JOINED = "joined"
    OPERATOR = "operator"


HELP: dict[Reason, str] = {
    Reason.NEW: "just submitted, not looked at yet",
    Reason.WAITS_FOR_CAPACITY: "every allowed flavor is at its limit",
    Reason.WAITS_FOR_SPOT: "spot is not available now, and the slack allows waiting for it",
    Reason.WAITS_FOR_WINDOW: "a cheaper window starts inside the slack",
    Reason.WAITS_FOR_TURN: "the plan of the whole queue expects cheaper capacity in the slack",
    Reason.WAITS_FOR_DEADLINES: "the room that there is is kept for deadlines that need it",
    Reason.WAITS_FOR_BUDGET: "a budget that pays for it has too little left, or no hours now",
    Reason.WAITS_FOR_BOOT: "its nodes are booting",
    Reason.WAITS_FOR_JOB: "a job that it comes after has not ended as it must",
    Reason.WAITS_FOR_ARRAY: "max_parallel elements of its array are up already",
    Reason.PAUSED: "held by its owner until `lowtide resume`",
    Reason.NO_FLAVOR: "no flavor that is configured now fits the spec",
    Reason.RETRY_AFTER_FAILURE: "the script failed; it is tried again within max_failures",
    Reason.CHEAPEST_NOW: "started on the cheapest capacity that fits",
    Reason.IN_WINDOW: "started because its cheap window is open",
    Reason.SAFETY_NET: "the slack is used up: it goes to the surest capacity and stays there",
    Reason.FINISHED: "the training ended by itself with exit code 0",
    Reason.EVICTED: "the cloud took the node back, with notice",
    Reason.NODE_LOST: "the node died without notice",
    Reason.HEARTBEAT_LOST: "the attempt worker fell silent",
    Reason.LAUNCH_FAILED: "the provider could not start the node",
    Reason.PREEMPTED: "we took the capacity back for work that is worth more",
    Reason.SUSPENDED: "stopped at a checkpoint before dear hours; goes on in a cheaper stretch",
    Reason.BUDGET: "its budget covers no more: it saved and waits for money",
    Reason.USER_ERROR: "the training script failed",
    Reason.USER_CANCELLED: "cancelled by its owner",
    Reason.USER_PAUSED: "paused by its owner; it saved first",
    Reason.MAX_FAILURES: "the script failed more often than max_failures allows",
    Reason.MAX_EVICTIONS: "it was evicted more often than max_evictions allows",
    Reason.MAX_LOST: "its worker fell silent more often than max_lost allows",
    Reason.MAX_LAUNCH_FAILURES: "its nodes failed to start more often than max_launch_failures",
    Reason.MAX_RUNTIME: "it was longer on capacity than max_runtime allows, over all attempts",
    Reason.DEPENDENCY_FAILED: "a job that it comes after did not succeed",
    Reason.FOR_ATTEMPT: "launched for a job",
    Reason.IDLE: "released after its idle time",
    Reason.JOINED: "joined by itself (somebody else runs it)",
    Reason.OPERATOR: "an operator asked for it",
}

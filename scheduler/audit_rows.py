"""The auditor's rows at their beginning, and what they derive: a part of ``scheduler.audit_fold``.

Like the fold it shares no code with ``jobs``: the same rules, written down a second time.
"""

from __future__ import annotations

import re
from typing import Any

Row = dict[str, Any]

_UNIT_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}


def duration_ms(text: str | None) -> int:
    """Read ``1h30m`` as milliseconds; None is 0."""
    parts = re.findall(r"(\d+)(ms|[dhms])", text or "")
    return sum(int(number) * _UNIT_MS[unit] for number, unit in parts)


def new_job(e: Row) -> Row:
    """Give the row of a job that was just submitted."""
    return {
        "id": e["job_id"],
        "spec": e["spec"],
        "owner": e["owner"],
        "state": "queued",
        "reason": "new",
        "sentence": "Just submitted.",
        "submitted_us": e["at_us"],
        "queued_us": e["at_us"],
        "changed_us": e["at_us"],
        "deadline_us": e["deadline_us"],
        "work_ms": duration_ms(e["spec"]["work"]),
        "held": False,
        "cancel_requested": False,
        "on_safety_net": False,
        "attempt_id": "",
        "ended_us": None,
        "restore_point": None,
        "last_error": "",
        "array": e["array"],
        "group": e["group"],
    } | dict.fromkeys(
        (
            "attempts",
            "failures",
            "evictions",
            "preemptions",
            "lost",
            "launch_failures",
            "runtime_ms",
            "ahead_us",
            "step",
            "total_steps",
            "waited_ms",
        ),
        0,
    )


def new_attempt(e: Row) -> Row:
    """Give the row of an attempt that was just leased."""
    unset = (
        "started_us",
        "training_us",
        "draining_us",
        "drain_deadline_us",
        "ended_us",
        "exit_code",
        "last_snapshot_us",
        "process_us",
        "opened_us",
        "silent_us",
        "caught_up_us",
    )
    row: Row = dict.fromkeys(unset)
    row |= dict.fromkeys(("first_step", "step", "stall_us", "saves"), 0)
    names = ("job_id", "number", "reason", "cluster", "flavor", "node_ids", "gpu_milli", "lease_id")
    row |= {name: e[name] for name in names}
    return row | {
        "id": e["attempt_id"],
        "state": "leased",
        "created_us": e["at_us"],
        "detail": "",
        "standby": False,
        "reserved_usd_nanos_per_hour": 0,
        "reserved_until_us": None,
    }


def catch_up(attempt: Row, at_us: int) -> None:
    """Note when an attempt is where the one before it had been."""
    if attempt["caught_up_us"] is None and attempt["step"] >= attempt["reached"]:
        attempt["caught_up_us"] = at_us

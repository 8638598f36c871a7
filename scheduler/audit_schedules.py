"""The auditor's view of schedules: what the journal says of them.

A part of ``scheduler.audit_fold``; like all of it, it shares no code with what it audits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from scheduler.audit_rows import Row

Rows = Mapping[str, dict[str, Row]]
Told = Iterator[str]


def _made(rows: Rows, e: Row) -> Told:
    if e["schedule_id"] in rows["schedules"]:
        yield f"schedule {e['schedule_id']} was made twice"
    rows["schedules"][e["schedule_id"]] = {
        "id": e["schedule_id"],
        "spec": e["spec"],
        "owner": e["owner"],
        "made_us": e["at_us"],
        "changed_us": e["at_us"],
        "next_us": e["next_us"],
        "held": False,
        "removed_us": None,
        "last_us": None,
        "last_outcome": None,
        "sentence": "",
        "job_ids": [],
        "submitted": 0,
        "skipped": 0,
        "missed": 0,
    }


def _held(rows: Rows, e: Row) -> Told:
    change = {"held": e["held"], "next_us": e["next_us"], "changed_us": e["at_us"]}
    rows["schedules"][e["schedule_id"]] |= change
    yield from ()


def _removed(rows: Rows, e: Row) -> Told:
    change = {"removed_us": e["at_us"], "next_us": None, "changed_us": e["at_us"]}
    rows["schedules"][e["schedule_id"]] |= change
    yield from ()


def _due(rows: Rows, e: Row) -> Told:
    row = rows["schedules"][e["schedule_id"]]
    if row["removed_us"] is not None or row["held"]:
        yield f"schedule {row['id']} occurred though it was held or removed"
    if row["last_us"] is not None and e["due_us"] <= row["last_us"]:
        yield f"schedule {row['id']} occurred twice at {e['due_us']}"
    row |= {"last_us": e["due_us"], "last_outcome": e["outcome"], "sentence": e["sentence"]}
    row |= {"next_us": e["next_us"], "changed_us": e["at_us"]}
    row["missed"] += e["missed"] + (e["outcome"] == "missed")
    row["skipped"] += e["outcome"] in {"skipped", "refused"}
    if e["outcome"] == "submitted":
        row["submitted"] += 1
        row["job_ids"] = e["job_ids"]
        missing = [job_id for job_id in e["job_ids"] if job_id not in rows["jobs"]]
        if missing:
            yield f"schedule {row['id']} names {missing[0]}, which does not exist"


_HANDLERS: dict[str, Callable[[Rows, Row], Told]] = {
    "schedule-made": _made,
    "schedule-held": _held,
    "schedule-removed": _removed,
    "occurrence-due": _due,
}


def handler(kind: str) -> Callable[[Any, Row], Told] | None:
    """Give the handler of a schedule's event for a fold (anything with ``rows``)."""
    tell = _HANDLERS.get(kind)
    return None if tell is None else lambda fold, e: tell(fold.rows, e)

"""Make the demo's two mishaps happen at the right moment, and see when everything is over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jobs.client import Client
from jobs.errors import LowtideError
from scheduler.demo.cast import KILL_ROLE, NOTICE_ROLE

_ENDED = {"succeeded", "failed", "cancelled"}
_NOTICE = "6s"


@dataclass(slots=True)
class Director:
    """Looks at the jobs and takes the nodes of two of them away, once each."""

    client: Client
    roles: dict[str, str]  # job id -> what it shows
    events: list[str] = field(default_factory=list)
    _done: set[str] = field(default_factory=set)

    def look(self) -> list[dict[str, Any]]:
        """Give the details of every job, oldest first, and strike where it is time."""
        details = [self.client.detail(job_id) for job_id in self.roles]
        for detail in details:
            self._strike(detail)
        return details

    def over(self, details: list[dict[str, Any]]) -> bool:
        """Whether every job has ended."""
        return all(detail["job"]["state"] in _ENDED for detail in details)

    def _strike(self, detail: dict[str, Any]) -> None:
        job = detail["job"]
        role = self.roles[job["id"]]
        if role not in {NOTICE_ROLE, KILL_ROLE} or role in self._done or not _ripe(detail):
            return
        node_id = detail["attempts"][-1]["node_ids"][0]
        notice = _NOTICE if role == NOTICE_ROLE else "0s"
        try:
            self.client.evict(node_id, notice=notice)
        except LowtideError as refusal:
            self.events.append(f"could not evict {node_id}: {refusal}")
            return
        self._done.add(role)
        how = f"with {_NOTICE} notice" if role == NOTICE_ROLE else "without notice"
        self.events.append(f"evicted {node_id} {how}, under {job['id']} at step {job['step']}")


def _ripe(detail: dict[str, Any]) -> bool:
    """In training, with a restore point and a good part of the way done."""
    job = detail["job"]
    attempts = detail["attempts"]
    return bool(
        attempts
        and attempts[-1]["state"] == "training"
        and job["restore_point"]
        and job["total_steps"]
        and job["step"] * 3 > job["total_steps"]
    )

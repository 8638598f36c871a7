"""An agent that speaks the sync protocol over HTTP and only plays nodes and training.

It keeps what a real one would keep (what it carried out, what it has not got accepted), so that
the server under test is driven over the very protocol that production uses.
"""

from __future__ import annotations

import base64
import itertools
import time
from collections.abc import Callable
from typing import Any

import httpx

from cluster.intents import (
    DrainAttempt,
    EvictNode,
    Intent,
    LaunchNode,
    ReleaseNode,
    StartAttempt,
    StopAttempt,
)
from cluster.notices import (
    AttemptOver,
    Committed,
    EvictionNoticed,
    NodeBooted,
    NodeJoined,
    NodeLost,
    NodeReleased,
    Notice,
    Outcome,
    TrainingBegan,
    WorkersUp,
)
from jobs.codec import from_data, to_data

LIMIT_S = 20.0


class ScriptedAgent:
    """One agent of one cluster; ``step`` syncs once and plays what the intents ask for."""

    def __init__(self, http: httpx.Client, *, cluster: str = "lab", name: str = "agent-1") -> None:
        """Speak through a client that carries the token."""
        self.http = http
        self.path = f"/v1/agents/{cluster}"
        self.name = name
        self.nodes: set[str] = set()
        self.training: dict[str, StartAttempt] = {}
        self.waiting: list[Notice] = []  # not accepted yet
        self._done: set[str] = set()
        self._numbers = itertools.count()

    def sync(self, *, wait_ms: int = 0, notices: list[Notice] | None = None) -> dict[str, Any]:
        """Send everything and give the server's answer."""
        sent = self.waiting if notices is None else notices
        body = {
            "agent": self.name,
            "notices": [to_data(notice) for notice in sent],
            "attempts": [
                {"attempt_id": one.attempt_id, "token": one.token} for one in self.training.values()
            ],
            "nodes": sorted(self.nodes),
            "wait_ms": wait_ms,
        }
        response = self.http.post(f"{self.path}/sync", json=body)
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        accepted = set(answer["accepted"])
        self.waiting = [notice for notice in self.waiting if notice.id not in accepted]
        return answer

    def step(self, *, wait_ms: int = 200) -> list[Intent]:
        """Sync and play; give the intents that were carried out now."""
        answer = self.sync(wait_ms=0 if self.waiting else wait_ms)
        intents = [from_data(data, into=Intent) for data in answer["intents"]]
        fresh = [intent for intent in intents if intent.id not in self._done]
        for intent in fresh:
            self._done.add(intent.id)
            self._play(intent)
        return fresh

    def until(self, condition: Callable[[], object]) -> None:
        """Step until a condition holds.

        Raises:
            AssertionError: it does not within the limit.
        """
        limit = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < limit, "the condition did not come true"
            self.step()

    def tell(self, kind: Callable[..., Notice], **fields: object) -> None:
        """Queue a notice of now."""
        number = next(self._numbers)
        at_us = time.time_ns() // 1_000
        self.waiting.append(kind(id=f"{self.name}-{number}", at_us=at_us, **fields))

    def finish(self, attempt_id: str, *, outcome: Outcome = Outcome.SUCCEEDED) -> None:
        """End a training."""
        self.training.pop(attempt_id)
        self.tell(AttemptOver, attempt_id=attempt_id, outcome=outcome, exit_code=0)

    def log(self, attempt_id: str, *, offset: int, data: bytes) -> int:
        """Send output of rank 0 and give the stream's length."""
        body = {
            "attempt_id": attempt_id,
            "rank": 0,
            "offset": offset,
            "data": base64.b64encode(data).decode(),
        }
        response = self.http.post(f"{self.path}/logs", json=body)
        response.raise_for_status()
        return int(response.json()["length"])

    def _play(self, intent: Intent) -> None:
        match intent:
            case LaunchNode():
                self.nodes.add(intent.node_id)
                self.tell(NodeBooted, node_id=intent.node_id)
                self.tell(NodeJoined, node_id=intent.node_id, address=f"ray-{intent.node_id}")
            case ReleaseNode():
                self.nodes.discard(intent.node_id)
                self.tell(NodeReleased, node_id=intent.node_id)
            case EvictNode():
                self._evict(intent)
            case StartAttempt():
                self.training[intent.attempt_id] = intent
                self.tell(WorkersUp, attempt_id=intent.attempt_id)
                self.tell(
                    TrainingBegan, attempt_id=intent.attempt_id, step=intent.step, total_steps=100
                )
            case DrainAttempt():
                self.finish(intent.attempt_id, outcome=Outcome.DRAINED)
            case StopAttempt():
                if intent.attempt_id in self.training:
                    self.finish(intent.attempt_id, outcome=Outcome.STOPPED)

    def _evict(self, intent: EvictNode) -> None:
        at_us = time.time_ns() // 1_000
        deadline_us = at_us + intent.notice_ms * 1_000
        self.tell(EvictionNoticed, node_id=intent.node_id, deadline_us=deadline_us)
        for attempt_id, start in list(self.training.items()):
            if intent.node_id in start.node_ids:
                self.commit(attempt_id, step=40)
                self.finish(attempt_id, outcome=Outcome.DRAINED)
        self.nodes.discard(intent.node_id)
        self.tell(NodeLost, node_id=intent.node_id, noticed=True)

    def commit(self, attempt_id: str, *, step: int) -> None:
        """Report a checkpoint."""
        self.tell(
            Committed,
            attempt_id=attempt_id,
            step=step,
            snapshot_us=time.time_ns() // 1_000,
            stall_us=0,
            size_bytes=10,
            new_bytes=10,
            manifest="m",
        )

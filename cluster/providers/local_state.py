"""What the local provider must remember to find its raylets again after its own death."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cluster import lifecycle
from cluster.notices import Notice
from jobs.codec import decode, encode

Stage = Literal["booting", "up", "released", "lost", "failed"]
_KEPT_GONE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalNode:
    """One node: a raylet with all that it started. Instants are microseconds UTC."""

    id: str
    number: int  # counts launches; part of its loopback address
    flavor: str
    stage: Stage
    launched_us: int
    boot_ms: int = 0
    ip: str = ""
    session: int = 0  # of its processes: the pid of their starter
    session_since: float = 0.0  # when the starter was created
    started_us: int = 0  # when its raylet was started; launched nodes wait their turn
    ray_id: str = ""
    raylet_pid: int = 0
    raylet_created: float = 0.0  # tells the raylet from a later process with its pid
    joined_us: int = 0
    noticed_us: int = 0  # an eviction notice was given, 0 = none
    deadline_us: int = 0  # when it is killed
    gone_us: int = 0
    detail: str = ""

    @property
    def gone(self) -> bool:
        """Whether its processes are all ended."""
        return self.stage in {"released", "lost", "failed"}

    def story(self) -> list[Notice]:
        """Give every notice about it so far, in order."""
        told: list[Notice] = []
        if self.stage != "failed":
            told.append(lifecycle.booted(self.id, at_us=self.launched_us))
        if self.joined_us:
            told.append(lifecycle.joined(self.id, at_us=self.joined_us, address=self.ray_id))
        if self.noticed_us:
            told.append(
                lifecycle.noticed(self.id, at_us=self.noticed_us, deadline_us=self.deadline_us)
            )
        return [*told, *([self.end()] if self.gone else [])]

    def end(self) -> Notice:
        """Give the notice of its end."""
        assert self.gone, self
        if self.stage == "failed":
            return lifecycle.launch_failed(self.id, at_us=self.gone_us, detail=self.detail)
        if self.stage == "released":
            return lifecycle.released(self.id, at_us=self.gone_us)
        noticed = bool(self.noticed_us)
        return lifecycle.lost(self.id, at_us=self.gone_us, was_noticed=noticed, detail=self.detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalState:
    """The whole provider: its head and its nodes, dead ones last for a while."""

    instance: str  # unique on this machine, so that two clusters never kill each other's nodes
    token: str  # Ray's cluster token
    temp_dir: str = ""
    address: str = ""  # host:port of the control store
    launched: int = 0
    nodes: dict[str, LocalNode] = field(default_factory=dict)

    def mark(self, node_id: str) -> str:
        """Give the mark in the environment of all of a node's processes."""
        return f"{self.instance}:{node_id}"


def load_state(path: Path) -> LocalState | None:
    """Read the state, None when there is none yet."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    state: LocalState = decode(data, into=LocalState)
    return state


def save_state(state: LocalState, *, path: Path) -> None:
    """Write the state so that a crash leaves the old or the new one, readable to its owner only."""
    forget_oldest(state)
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as stream:  # noqa: PTH123 - the mode was given to os.open
        stream.write(encode(state))
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def forget_oldest(state: LocalState) -> None:
    """Drop the oldest dead nodes beyond a limit; the server has long heard of them."""
    gone = sorted((n for n in state.nodes.values() if n.gone), key=lambda node: node.gone_us)
    for node in gone[: max(0, len(gone) - _KEPT_GONE)]:
        del state.nodes[node.id]

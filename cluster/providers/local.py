"""Nodes that are real raylets on this machine, so that an eviction is a real node death.

A node's processes carry a mark in their environment (see ``cluster.processes``) and run in a
session of their own: they outlive the agent, whose successor finds them by ``local.json``.
Lifecycle notices have ids made of the node's id and are given again after a restart.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import psutil

from cluster import lifecycle
from cluster.agent_clock import now_us
from cluster.flavors import Flavor
from cluster.notices import Notice
from cluster.processes import created_at, is_running, kill_marked, marked
from cluster.providers.local_head import HEAD, end_head, head_lives, new_state, start_head
from cluster.providers.local_ray import last_output, node_command, node_ip, ray_environment, spawn
from cluster.providers.local_state import LocalNode, LocalState, Stage, load_state, save_state
from cluster.ray_nodes import NODE_LABEL, GcsView, SeenNode, label

_JOIN_US = 90_000_000
_AT_ONCE = 2  # raylets that start together: each takes 4 CPU-seconds, and Ray gives up after 30 s


class LocalProvider:
    """Starts and kills raylets; see ``cluster.provider.NodeProvider`` for the promises."""

    def __init__(self, home: Path) -> None:
        """Find the cluster that ``home`` remembers, or start one (waits for Ray's head).

        Raises:
            UnreachableError: Ray did not come up.
        """
        home.mkdir(parents=True, exist_ok=True)
        self._home = home
        self._file = home / "local.json"
        self._news: list[Notice] = []
        self._starters: dict[str, subprocess.Popen[bytes]] = {}
        self._flavors: dict[str, Flavor] = {}  # of nodes launched by this agent
        self._state = self._adopt(load_state(self._file) or new_state())
        self._view = GcsView(self._state.address)

    @property
    def address(self) -> str:
        """``host:port`` of the cluster's control store, for ``ray.init``."""
        return self._state.address

    @property
    def driver_ip(self) -> str:
        """The head's address: a driver that names it attaches to the head's raylet."""
        return node_ip(0)

    def launch(self, node_id: str, *, flavor: Flavor) -> None:
        """Start a raylet; it joins after ``flavor.boot_ms`` at the earliest."""
        if node_id in self._state.nodes:
            return
        number = self._state.launched + 1
        node = LocalNode(
            id=node_id,
            number=number,
            flavor=flavor.name,
            stage="booting",
            launched_us=now_us(),
            boot_ms=flavor.boot_ms,
            ip=node_ip(number),
        )
        if self._count(flavor.name) >= flavor.max_nodes:
            text = f"all {flavor.max_nodes} nodes of {flavor.name} are in use"
            self._end(node, stage="failed", detail=text)
            return
        self._state = replace(self._state, launched=number)
        self._flavors[node_id] = flavor
        self._keep(node)  # before the start: what is started is never forgotten
        self._news.append(lifecycle.booted(node_id, at_us=node.launched_us))
        self._start_waiting()

    def release(self, node_id: str) -> None:
        """Kill the node at once; nothing runs on it any more."""
        node = self._state.nodes.get(node_id)
        if node is None or node.gone:
            at_us = node.gone_us if node else now_us()
            self._news.append(lifecycle.released(node_id, at_us=at_us))
            return
        self._end(node, stage="released")

    def evict(self, node_id: str, *, notice_ms: int) -> None:
        """Give notice, let the grace pass, kill; a second eviction of a node changes nothing."""
        node = self._state.nodes.get(node_id)
        if node is None or node.gone or node.noticed_us:
            return
        if notice_ms <= 0:
            self._end(node, stage="lost", detail="evicted without notice")
            return
        at_us = now_us()
        told = replace(node, noticed_us=at_us, deadline_us=at_us + notice_ms * 1_000)
        self._keep(told)
        self._news.append(lifecycle.noticed(node_id, at_us=at_us, deadline_us=told.deadline_us))
        self._drain(told)

    def poll(self) -> list[Notice]:
        """Look at every living node and give what happened since the last call."""
        self._start_waiting()
        living = [node for node in self._state.nodes.values() if not node.gone]
        booting = any(node.stage == "booting" for node in living)
        seen = _by_label(self._view.nodes()) if booting else {}
        for node in living:
            self._look_at(node, seen.get(label(node.id)))
        news, self._news = self._news, []
        return news

    def close(self) -> None:
        """Nothing is held: the nodes live on and are found again."""

    def destroy(self) -> None:
        """Kill every node and the head, by their marks, and remove their folders."""
        destroy_cluster(self._home)

    def node_ids(self) -> list[str]:
        """Give the nodes that are up or coming."""
        return [node.id for node in self._state.nodes.values() if not node.gone]

    def _start_waiting(self) -> None:
        """Start raylets in the order of their launch, a few at a time."""
        booting = [node for node in self._state.nodes.values() if node.stage == "booting"]
        free = _AT_ONCE - sum(bool(node.session) for node in booting)
        for node in [node for node in booting if not node.session][: max(0, free)]:
            self._start(node)

    def _start(self, node: LocalNode) -> None:
        flavor = self._flavors.get(node.id)
        if flavor is None:  # launched by an agent that died before it could start the raylet
            self._end(node, stage="failed", detail="the agent died before it was started")
            return
        starter = spawn(
            node_command(
                flavor,
                node_id=node.id,
                ip=node.ip,
                address=self.address,
                temp_dir=self._temp_dir(node),
            ),
            mark=self._state.mark(node.id),
            folder=self._folder(node.id),
            extra=ray_environment(self._state.token),
        )
        self._starters[node.id] = starter
        since = created_at(starter.pid) or 0.0
        self._keep(replace(node, session=starter.pid, session_since=since, started_us=now_us()))

    def _adopt(self, state: LocalState) -> LocalState:
        """Go on with a living cluster; without its head all its nodes are lost."""
        if not head_lives(state):
            state = self._start_over(state)
        for node in state.nodes.values():
            self._news.extend(node.story())
        return state

    def _start_over(self, state: LocalState) -> LocalState:
        end_head(state)
        for node in [node for node in state.nodes.values() if not node.gone]:
            kill_node(state, node)
            ended = replace(node, stage="lost", gone_us=now_us(), detail="Ray's head died")
            state.nodes[node.id] = ended
        save_state(state, path=self._file)  # its mark first: what is started is never forgotten
        started = start_head(state, folder=self._home / HEAD)
        save_state(started, path=self._file)
        return started

    def _look_at(self, node: LocalNode, seen: SeenNode | None) -> None:
        at_us = now_us()
        if node.deadline_us and at_us >= node.deadline_us:
            self._end(node, stage="lost", detail="evicted after its notice")
        elif node.stage == "up":
            if not is_running(node.raylet_pid, created=node.raylet_created):
                # Ray ends a drained node as soon as nothing runs on it.
                why = "drained and left after its notice" if node.noticed_us else "its raylet died"
                self._end(node, stage="lost", detail=why)
        elif seen is not None and seen.alive:
            if at_us >= node.launched_us + node.boot_ms * 1_000:
                self._join(node, seen)
        elif node.session and self._is_overdue(node, at_us=at_us):
            text = f"its raylet did not start: {last_output(self._folder(node.id))}"
            self._end(node, stage="failed", detail=text)

    def _is_overdue(self, node: LocalNode, *, at_us: int) -> bool:
        starter = self._starters.get(node.id)
        failed = starter is not None and starter.poll() not in {None, 0}
        return failed or at_us > node.started_us + _JOIN_US

    def _join(self, node: LocalNode, seen: SeenNode) -> None:
        raylet = next((p for p in marked(self._state.mark(node.id)) if _is_raylet(p)), None)
        created = created_at(raylet.pid) if raylet else None
        if raylet is None or created is None:
            return  # it died just now: the next look will see
        up = replace(
            node,
            stage="up",
            ray_id=seen.ray_id,
            raylet_pid=raylet.pid,
            raylet_created=created,
            joined_us=now_us(),
        )
        self._keep(up)
        self._news.append(lifecycle.joined(up.id, at_us=up.joined_us, address=up.ray_id))
        self._drain(up)

    def _drain(self, node: LocalNode) -> None:
        if node.deadline_us and node.ray_id:
            self._view.drain(node.ray_id, deadline_us=node.deadline_us)

    def _end(self, node: LocalNode, *, stage: Stage, detail: str = "") -> None:
        kill_node(self._state, node)
        starter = self._starters.pop(node.id, None)
        if starter is not None:
            starter.wait()
        ended = replace(node, stage=stage, gone_us=now_us(), detail=detail)
        self._keep(ended)
        self._news.append(ended.end())
        shutil.rmtree(self._folder(node.id), ignore_errors=True)
        shutil.rmtree(self._temp_dir(node), ignore_errors=True)

    def _keep(self, node: LocalNode) -> None:
        self._state.nodes[node.id] = node
        save_state(self._state, path=self._file)

    def _count(self, flavor: str) -> int:
        return sum(n.flavor == flavor and not n.gone for n in self._state.nodes.values())

    def _temp_dir(self, node: LocalNode) -> str:
        return f"{self._state.temp_dir}/n{node.number}"

    def _folder(self, node_id: str) -> Path:
        return self._home / "nodes" / node_id


def destroy_cluster(home: Path) -> None:
    """Kill the nodes and the head that ``home`` remembers, without starting anything."""
    state = load_state(home / "local.json")
    if state is None:
        return
    for node in [node for node in state.nodes.values() if not node.gone]:
        kill_node(state, node)
        shutil.rmtree(home / "nodes" / node.id, ignore_errors=True)
    end_head(state)
    (home / "local.json").unlink(missing_ok=True)


def kill_node(state: LocalState, node: LocalNode) -> None:
    """SIGKILL all that the node ever started."""
    kill_marked(state.mark(node.id), session=node.session, since=node.session_since)


def _by_label(seen: list[SeenNode]) -> dict[str, SeenNode]:
    return {node.labels[NODE_LABEL]: node for node in seen if NODE_LABEL in node.labels}


def _is_raylet(process: psutil.Process) -> bool:
    try:
        return process.name() == "raylet"
    except psutil.NoSuchProcess:
        return False

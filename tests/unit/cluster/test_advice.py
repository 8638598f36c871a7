"""What the server knows of evictions reaches the children: once, when it is news, and in time."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from checkpointing import control
from checkpointing.control_client import ControlClient
from checkpointing.hazard_posterior import Risk
from cluster.agent_clock import monotonic_us
from cluster.agent_state import AgentStore
from cluster.attempt_worker_control import ControlServer
from cluster.intents import StartAttempt
from cluster.launchers import ProcessLauncher
from cluster.ray_driver_gangs import Gangs
from cluster.worker_link import Heard
from cluster.worker_wire import Advise, FromAgent, Hello, Hurry, WorkerOrder
from jobs.spec import JobSpec

RISK = Risk(evictions_ppm=500_000, exposure_ms=7_200_000, usd_nanos_per_hour=3)
LIMIT_US = 10_000_000


class Desk:
    """A talker that keeps what was said; no worker is really there."""

    port = 1

    def __init__(self) -> None:
        """Nothing was said."""
        self.said: list[tuple[str, FromAgent]] = []

    def send(self, attempt_id: str, index: int, *, message: FromAgent) -> None:
        """Keep it."""
        self.said.append((attempt_id, message))

    def connected(self, attempt_id: str) -> list[int]:
        """Give every worker."""
        return [0]

    def told(self, kind: type[FromAgent]) -> list[tuple[str, FromAgent]]:
        """Give what was said of a kind."""
        return [(attempt_id, message) for attempt_id, message in self.said if type(message) is kind]


class NoWorkers(ProcessLauncher):
    """Starts nothing: what workers say is put in by the test."""

    def __init__(self) -> None:
        """No environment."""
        super().__init__({})

    def start(self, orders: Sequence[WorkerOrder], *, addresses: Sequence[str]) -> None:
        """Start nothing."""


def an_attempt(
    name: str, *, node: str, flavor: str = "spot", risk: Risk | None = None
) -> StartAttempt:
    """A gang of one node."""
    return StartAttempt(
        id=f"start|{name}",
        cluster="c",
        attempt_id=name,
        job_id="j",
        epoch=1,
        spec=JobSpec(script="t.py"),
        node_ids=(node,),
        addresses=("a",),
        token="t",
        step=0,
        total_steps=0,
        flavor=flavor,
        risk=risk,
    )


@pytest.fixture
def desk() -> Desk:
    """What is said to workers."""
    return Desk()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AgentStore]:
    """What survives the agent."""
    made = AgentStore(tmp_path / "agent.sqlite")
    yield made
    made.close()


@pytest.fixture
def gangs(desk: Desk, store: AgentStore) -> Gangs:
    """No gang yet."""
    return fresh_gangs(desk, store)


def fresh_gangs(desk: Desk, store: AgentStore) -> Gangs:
    """The gangs of an agent that begins to live."""
    return Gangs(store=store, talker=desk, launcher=NoWorkers(), storage="", agent_host="h")


def hello(gangs: Gangs, name: str) -> None:
    """The worker connects."""
    said = Hello(attempt_id=name, index=0, token="t", host="h", master_port=1)
    gangs.heard(Heard(attempt_id=name, index=0, message=said))


def test_a_worker_is_told_at_its_hello_and_then_only_news(gangs: Gangs, desk: Desk) -> None:
    """What was known at the lease goes out first; a tenth more exposure is not worth a word."""
    gangs.start(an_attempt("a", node="n", risk=RISK))
    hello(gangs, "a")
    assert desk.told(Advise) == [("a", Advise(risk=RISK))]
    gangs.advise({"a": replace(RISK, exposure_ms=RISK.exposure_ms * 11 // 10)})
    assert len(desk.told(Advise)) == 1
    worse = replace(RISK, evictions_ppm=2_000_000)
    gangs.advise({"a": worse, "unknown": worse})
    assert desk.told(Advise)[1:] == [("a", Advise(risk=worse))]
    hello(gangs, "a")  # back after a broken connection: it may have missed the last word
    assert desk.told(Advise)[2:] == [("a", Advise(risk=worse))]


def test_a_new_agent_does_not_tell_old_news(gangs: Gangs, desk: Desk, store: AgentStore) -> None:
    """Its predecessor may have told newer; the server's next word is told in any case."""
    gangs.start(an_attempt("a", node="n", risk=RISK))
    hello(gangs, "a")
    again = fresh_gangs(desk, store)
    again.resume()
    desk.said.clear()
    hello(again, "a")
    assert desk.told(Advise) == []
    again.advise({"a": RISK})
    assert desk.told(Advise) == [("a", Advise(risk=RISK))]


def test_neighbours_of_a_node_that_goes_save_early(gangs: Gangs, desk: Desk) -> None:
    """Those on its flavor; not the gang that is on it, which drains, nor those that drain too."""
    gangs.start(an_attempt("on-it", node="n"))
    gangs.start(an_attempt("beside", node="m"))
    gangs.start(an_attempt("leaving", node="l"))
    gangs.start(an_attempt("elsewhere", node="o", flavor="bought"))
    gangs.drain("leaving", deadline_us=1)
    gangs.hurry_beside("n", flavor="")
    assert desk.told(Hurry) == [("beside", Hurry())]
    gangs.hurry_beside("idle", flavor="bought")
    assert desk.told(Hurry)[1:] == [("elsewhere", Hurry())]


def test_children_hear_it_also_when_they_come_late(tmp_path: Path) -> None:
    """The last word of a kind stands; a child that connects after it hears that one alone."""
    server = ControlServer(tmp_path / "c", heard=lambda _rank, _message: None)
    first = ControlClient(str(tmp_path / "c"), hello=control.Hello(rank=0, pid=1))
    try:
        for evictions in (1, 2):
            server.tell(replace(RISK, evictions_ppm=evictions))
        server.tell(control.Hurry(at_us=1))
        wait_for(lambda: first.hurries == 1 and first.risk == replace(RISK, evictions_ppm=2))
        with socket.socket(socket.AF_UNIX) as late:
            late.settimeout(LIMIT_US / 1e6)
            late.connect(str(tmp_path / "c"))
            late.sendall(control.encode(control.Hello(rank=1, pid=2)))
            lines = late.makefile("rb")
            heard = [control.decode(lines.readline()) for _ in range(2)]
            lines.close()
        assert heard == [replace(RISK, evictions_ppm=2), control.Hurry(at_us=1)]
    finally:
        first.close(flush_s=0)
        server.close()


def wait_for(wanted: Callable[[], bool]) -> None:
    """Wait until it is so, or fail."""
    until_us = monotonic_us() + LIMIT_US
    while not wanted():
        assert monotonic_us() < until_us, "it never came"
        Event().wait(0.01)

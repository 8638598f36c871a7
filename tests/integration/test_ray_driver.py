"""The driver's rules for gangs, with worker processes but without Ray: every ending, quickly."""

from __future__ import annotations

import os
import queue
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.agent_clock import monotonic_us, now_us
from cluster.agent_logs import LogBook
from cluster.agent_state import AgentStore
from cluster.intents import DrainAttempt, EvictNode, LaunchNode, StartAttempt, StopAttempt
from cluster.launchers import ProcessLauncher
from cluster.notices import (
    AttemptOver,
    Committed,
    NodeJoined,
    Notice,
    Outcome,
    Progressed,
    WorkersUp,
)
from cluster.processes import marked
from cluster.providers.memory import FakeProvider
from cluster.ray_driver import DriverEvent, RayDriver
from cluster.ray_driver_gangs import Gangs
from cluster.worker_link import WorkerServer
from cluster.worker_wire import Hello, to_line
from jobs.spec import JobSpec
from tests.builders import a_kind

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

LIMIT_US = 60_000_000
FLAVOR = a_kind(max_nodes=3)


class World:
    """A driver over nodes in memory and workers as processes; may die and come back."""

    def __init__(self, home: Path) -> None:
        """Start with two nodes that are up."""
        self.home = home
        self.mark = f"test-{os.getpid()}-{home.name}"
        self.provider = FakeProvider(now_us)
        self.launcher = ProcessLauncher(
            {
                **os.environ,
                "LOWTIDE_NODE_DIR": str(home / "disk"),
                "LOWTIDE_TEST": self.mark,
                "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
            }
        )
        self.port = 0
        self.logs = LogBook(home / "logs")
        self.open()
        for node_id in ("n1", "n2"):
            self.submit(LaunchNode, f"launch|{node_id}", node_id=node_id, flavor="spot")
        self.wait(lambda: len(self.of(NodeJoined)) == 2)

    def open(self) -> None:
        """Start a driver on what is on disk."""
        self.store = AgentStore(self.home / "agent.sqlite")
        events: queue.Queue[DriverEvent] = queue.Queue()
        self.workers = WorkerServer(
            host="127.0.0.1",
            port=self.port,
            token_of=self.store.token_of,
            heard=events.put,
            logs=self.logs,
        )
        self.port = self.workers.port
        gangs = Gangs(
            store=self.store,
            talker=self.workers,
            launcher=self.launcher,
            storage=str(self.home / "storage"),
            agent_host="127.0.0.1",
        )
        self.driver = RayDriver(
            provider=self.provider,
            gangs=gangs,
            store=self.store,
            flavors={"spot": FLAVOR},
            events=events,
        )
        self.driver.start()

    def close(self) -> None:
        """End the driver; workers live on."""
        self.driver.close()
        self.workers.close()
        self.store.close()

    def submit(self, kind: Callable[..., Any], intent_id: str, **fields: Any) -> None:
        """Submit an intent."""
        self.driver.submit(kind(id=intent_id, cluster="here", **fields))

    def start(self, attempt_id: str, script: str, *, nodes: int = 1, processes: int = 1) -> None:
        """Start an attempt of a script on the first nodes."""
        path = self.home / f"{attempt_id.replace('/', '-')}.py"
        path.write_text(script)
        self.submit(
            StartAttempt,
            f"start|{attempt_id}",
            attempt_id=attempt_id,
            job_id=attempt_id.partition("/")[0],
            epoch=1,
            spec=JobSpec(script=str(path), nodes=nodes, processes=processes),
            node_ids=("n1", "n2")[:nodes],
            addresses=("n1", "n2")[:nodes],
            token=f"secret-{attempt_id}",
            step=0,
            total_steps=0,
        )

    def of(self, kind: type, **fields: object) -> list[Any]:
        """Give the notices of a kind with these fields."""
        return [
            n
            for n in self.store.pending()
            if isinstance(n, kind) and all(getattr(n, k) == v for k, v in fields.items())
        ]

    def wait(self, condition: Callable[[], Any], *, limit_us: int = LIMIT_US) -> Any:
        """Wait until something is true; the driver must live meanwhile."""
        until_us = monotonic_us() + limit_us
        while monotonic_us() < until_us:
            assert self.driver.failure is None, self.driver.failure
            if found := condition():
                return found
            threading.Event().wait(0.02)
        raise AssertionError(self.store.pending())

    def over(self, attempt_id: str) -> AttemptOver:
        """Wait for the end of an attempt; there is one."""
        self.wait(lambda: self.of(AttemptOver, attempt_id=attempt_id))
        found: list[AttemptOver] = self.of(AttemptOver, attempt_id=attempt_id)
        assert len(found) == 1
        return found[0]

    def log(self, attempt_id: str, rank: int = 0) -> str:
        """Give what a rank wrote, as far as the agent has it."""
        name = attempt_id.replace("/", "%2F")
        path = self.home / "logs" / f"{name}.{rank}.log"
        return path.read_text() if path.exists() else ""

    def children(self, attempt_id: str) -> list[psutil.Process]:
        """Give the living training processes of an attempt."""
        return marked(attempt_id, name="LOWTIDE_ATTEMPT_ID")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A world whose processes are all ended afterwards."""
    made = World(tmp_path)
    try:
        yield made
    finally:
        made.close()
        made.launcher.sweep([])


FOREVER = "import threading\nprint('up', flush=True)\nthreading.Event().wait()\n"
DRAINABLE = """
import json, os, socket
link = socket.socket(socket.AF_UNIX)
link.connect(os.environ["LOWTIDE_CONTROL"])
rank = int(os.environ["RANK"])
def say(kind, **fields):
    link.sendall(json.dumps({"kind": kind, **fields}).encode() + b"\\n")
say("hello", rank=rank, pid=os.getpid())
say("training", step=0, total_steps=9, at_us=1)
say("step", step=4, total_steps=9, at_us=2)
print("up", flush=True)
told = json.loads(link.makefile().readline())
assert told["kind"] == "drain", told
say("committed", step=5, snapshot_us=3, committed_us=4, stall_us=1, bytes=8, new_bytes=8,
    manifest="m")
raise SystemExit(75)
"""


def test_all_ranks_of_a_gang_get_their_place(world: World) -> None:
    """Two nodes with two processes each: every rank knows itself, its peers and the master."""
    script = (
        "import os\n"
        "e = os.environ\n"
        "print(*(e[k] for k in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'LOCAL_WORLD_SIZE',"
        " 'LOWTIDE_EPOCH', 'LOWTIDE_JOB_ID', 'MASTER_ADDR', 'MASTER_PORT')))\n"
    )
    world.start("four/1", script, nodes=2, processes=2)
    assert world.over("four/1").outcome is Outcome.SUCCEEDED
    lines = world.wait(
        lambda: (
            (found := [world.log("four/1", rank).split() for rank in range(4)])
            and all(found)
            and found
        )
    )
    assert [line[:4] for line in lines] == [
        ["0", "4", "0", "2"],
        ["1", "4", "1", "2"],
        ["2", "4", "0", "2"],
        ["3", "4", "1", "2"],
    ]
    assert len({tuple(line[4:]) for line in lines}) == 1


def test_a_failed_rank_ends_the_gang_with_its_exit_code(world: World) -> None:
    """The survivors are killed, and the detail names the rank and its last words."""
    script = (
        "import os, threading\n"
        "if os.environ['RANK'] == '1':\n"
        "    raise SystemExit('out of data')\n"
        "threading.Event().wait()\n"
    )
    world.start("half/1", script, nodes=2)
    over = world.over("half/1")
    assert (over.outcome, over.exit_code) == (Outcome.FAILED, 1)
    assert "rank 1: out of data" in over.detail
    assert not world.children("half/1")


def test_a_rank_that_fails_beside_a_dying_node_is_not_the_users_fault(world: World) -> None:
    """A failure waits for the news of the node: node lost wins."""
    script = (
        "import os, pathlib, threading\n"
        "print('up', flush=True)\n"
        "while os.environ['RANK'] == '0' and not pathlib.Path(__file__ + '.fail').exists():\n"
        "    threading.Event().wait(0.02)\n"
        "if os.environ['RANK'] == '0':\n"
        "    raise SystemExit('connection reset by peer')\n"
        "threading.Event().wait()\n"
    )
    world.start("torn/1", script, nodes=2)
    world.wait(lambda: world.log("torn/1", 0) and world.log("torn/1", 1))
    (world.home / "torn-1.py.fail").touch()
    world.wait(lambda: len(world.children("torn/1")) == 1)
    world.provider.crash("n2")
    over = world.over("torn/1")
    assert (over.outcome, over.exit_code) == (Outcome.NODE_LOST, None)
    assert not world.children("torn/1")


def test_an_eviction_notice_drains_every_rank_of_the_gang(world: World) -> None:
    """One node is warned, both save and leave, without a word of the server."""
    world.start("warned/1", DRAINABLE, nodes=2)
    world.wait(lambda: world.log("warned/1", 0) and world.log("warned/1", 1))
    world.submit(EvictNode, "evict|n2", node_id="n2", notice_ms=30_000)
    over = world.over("warned/1")
    assert (over.outcome, over.exit_code) == (Outcome.DRAINED, 75)
    kinds = [n.kind for n in world.store.pending() if getattr(n, "attempt_id", "") == "warned/1"]
    assert kinds == ["workers-up", "training-began", "progressed", "committed", "attempt-over"]


def test_a_script_that_does_not_listen_is_killed_at_the_deadline(world: World) -> None:
    """A drain ends in time whatever the script does, and is no failure."""
    world.start("deaf/1", FOREVER)
    world.wait(lambda: world.log("deaf/1"))
    deadline_us = now_us() + 700_000
    world.submit(DrainAttempt, "drain|deaf/1", attempt_id="deaf/1", deadline_us=deadline_us)
    over = world.over("deaf/1")
    assert over.outcome is Outcome.DRAINED
    assert over.at_us >= deadline_us


def test_a_stop_kills_and_says_so(world: World) -> None:
    """Nothing is left of a stopped attempt."""
    world.start("stop/1", FOREVER)
    world.wait(lambda: world.log("stop/1"))
    world.submit(StopAttempt, "stop|stop/1", attempt_id="stop/1")
    assert world.over("stop/1").outcome is Outcome.STOPPED
    assert not world.children("stop/1")


def test_stopping_what_nobody_knows_is_answered(world: World) -> None:
    """The server can get rid of an attempt that this agent never heard of."""
    world.submit(StopAttempt, "stop|ghost/1", attempt_id="ghost/1")
    assert world.over("ghost/1").outcome is Outcome.STOPPED


def test_children_die_with_their_worker_and_silence_is_told(world: World) -> None:
    """A killed worker takes its training along; the attempt counts as lost within seconds."""
    world.start("orphan/1", FOREVER)
    world.wait(lambda: world.log("orphan/1"))
    children = world.children("orphan/1")
    assert children
    world.launcher.processes["orphan/1"][0].send_signal(signal.SIGKILL)
    assert world.over("orphan/1").outcome is Outcome.HEARTBEAT_LOST
    assert not world.children("orphan/1")


def test_a_frozen_worker_is_given_up(world: World) -> None:
    """Open connection, no word: silence of two seconds ends the attempt."""
    world.start("frozen/1", FOREVER)
    world.wait(lambda: world.log("frozen/1"))
    world.launcher.processes["frozen/1"][0].send_signal(signal.SIGSTOP)
    assert world.over("frozen/1").outcome is Outcome.HEARTBEAT_LOST
    assert not world.children("frozen/1")


def test_a_new_driver_takes_up_what_runs(world: World) -> None:
    """After the agent's death workers come back, news wait, and nothing starts twice."""
    world.start("long/1", DRAINABLE)
    world.wait(lambda: world.of(Progressed, attempt_id="long/1"))
    children = [child.pid for child in world.children("long/1")]
    world.close()
    world.open()
    world.start("long/1", DRAINABLE)  # the server repeats what it thinks is open
    deadline_us = now_us() + 30_000_000
    world.submit(DrainAttempt, "drain|long/1", attempt_id="long/1", deadline_us=deadline_us)
    assert world.over("long/1").outcome is Outcome.DRAINED
    assert len(children) == 1
    assert len(world.of(WorkersUp, attempt_id="long/1")) == 1
    assert world.log("long/1").count("up") == 1


def test_an_end_is_told_once_even_when_asked_again(world: World) -> None:
    """A stale intent for an attempt that is over starts nothing."""
    world.start("done/1", "print('ran')\n")
    over = world.over("done/1")
    world.store.accept([over.id])
    world.close()
    world.open()
    world.start("done/1", "print('ran')\n")
    assert world.over("done/1") == over  # said again: the server seems not to know
    assert "done/1" not in world.launcher.processes
    assert world.log("done/1").count("ran") == 1


def test_a_stranger_gets_no_ear(world: World) -> None:
    """Without the attempt's token a connection is closed and nothing is believed."""
    world.start("guarded/1", FOREVER)
    world.wait(lambda: world.log("guarded/1"))
    hello = Hello(attempt_id="guarded/1", index=0, token="wrong", host="h", master_port=1)
    with socket.create_connection(("127.0.0.1", world.port), timeout=5) as link:
        link.sendall(to_line(hello))
        assert link.recv(1) == b""
    assert world.workers.connected("guarded/1") == [0]


def test_a_missing_script_is_the_users_failure(world: World) -> None:
    """No archive, no such file: told with cause and remedy."""
    world.submit(
        StartAttempt,
        "start|gone/1",
        attempt_id="gone/1",
        job_id="gone",
        epoch=1,
        spec=JobSpec(script="missing.py"),
        node_ids=("n1",),
        addresses=("n1",),
        token="t",
        step=0,
        total_steps=0,
    )
    over = world.over("gone/1")
    assert over.outcome is Outcome.FAILED
    assert "no file 'missing.py'" in over.detail


def test_notice_order_is_kept(world: World) -> None:
    """Notices leave in the order in which things happened, with ids that never repeat."""
    world.start("order/1", "print('x')\n")
    world.over("order/1")
    pending: list[Notice] = world.store.pending()
    kinds = [n.kind for n in pending if getattr(n, "attempt_id", "") == "order/1"]
    assert kinds == ["workers-up", "attempt-over"]
    assert len({n.id for n in pending}) == len(pending)


UPLOADING = '''
import os, subprocess, sys
program = """
import json, os, socket, sys, threading
link = socket.socket(socket.AF_UNIX)
link.connect(os.environ["LOWTIDE_CONTROL"])
def say(kind, **fields):
    link.sendall(json.dumps({"kind": kind, **fields}).encode() + bytes([10]))
say("beside", rank=0, pid=os.getpid())
print("there", flush=True)
threading.Event().wait(float(sys.argv[1]))
say("committed", step=5, snapshot_us=3, committed_us=4, stall_us=0, bytes=8, new_bytes=8,
    manifest="m")
"""
command = [sys.executable, "-c", program, "{seconds}"]
beside = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
beside.stdout.readline()
os._exit(9)
'''


def test_a_dead_childs_last_save_is_waited_for(world: World) -> None:
    """The end is told after the commit that its uploader still made."""
    world.start("up/1", UPLOADING.replace("{seconds}", "1.5"))
    assert world.over("up/1").exit_code == 9
    (commit,) = world.of(Committed, attempt_id="up/1")
    order = [n.kind for n in world.store.pending() if getattr(n, "attempt_id", "") == "up/1"]
    assert commit.step == 5
    assert order.index("committed") < order.index("attempt-over")


def test_a_save_that_takes_too_long_is_not_waited_for(world: World) -> None:
    """The job goes on elsewhere; the uploader's epoch fences it out."""
    world.start("slow/1", UPLOADING.replace("{seconds}", "60"))
    assert world.over("slow/1").exit_code == 9
    assert not world.of(Committed, attempt_id="slow/1")
    for process in world.children("slow/1"):
        process.kill()

"""Agent, workers and Ray together: real raylets, real training, real deaths."""

from __future__ import annotations

import signal
import textwrap
from typing import TYPE_CHECKING

import psutil
import pytest

from checkpointing.control import DRAINED_EXIT_CODE
from cluster.notices import (
    AttemptOver,
    NodeLost,
    NodeReleased,
    Outcome,
    Progressed,
    RestoreBegan,
    TrainingBegan,
    WorkersUp,
)
from cluster.processes import marked
from cluster.providers.local_state import load_state

if TYPE_CHECKING:
    from tests.integration.conftest import AgentProcess, TinyServer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

TRAIN = """
import sys, threading
import torch
import torch.distributed as dist
from checkpointing import Session

total, pause = int(sys.argv[1]), float(sys.argv[2])
torch.manual_seed(7)
model = torch.nn.Linear(4, 2)
if {gang}:
    dist.init_process_group("gloo")
    model = torch.nn.parallel.DistributedDataParallel(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with Session(model=model, optimizer=optimizer) as session:
    for step in session.steps(total):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
        threading.Event().wait(pause)
        print("step", step, flush=True)
print("weights", float(sum(p.double().sum() for p in model.parameters())))
"""


def training(*, gang: bool = False) -> str:
    """The text of the training script."""
    return textwrap.dedent(TRAIN).replace("{gang}", str(gang))


def weights(log: str) -> str:
    """The last line that a training that came to its end writes."""
    return log.strip().splitlines()[-1]


def test_a_script_runs_on_a_node_and_its_output_comes_back(
    server: TinyServer, agent: AgentProcess
) -> None:
    """The happy path: launch, start, exit code 0, all output at the server."""
    nodes = server.joined("n1")
    spec = server.spec("import os\nprint('hello from', os.environ['RANK'])\n", gpus=1)
    server.start("hello/1", spec=spec, nodes=nodes)
    over = server.over("hello/1")
    assert (over.outcome, over.exit_code) == (Outcome.SUCCEEDED, 0)
    assert len(server.of(WorkersUp, attempt_id="hello/1")) == 1
    server.wait_for(lambda: "hello from 0\n" in server.log("hello/1"), limit_s=10)


def test_a_failing_script_is_told_with_its_last_words(
    server: TinyServer, agent: AgentProcess
) -> None:
    """Exit code and traceback reach the server."""
    nodes = server.joined("n1")
    server.start("bad/1", spec=server.spec("raise SystemExit('no data')\n", gpus=1), nodes=nodes)
    over = server.over("bad/1")
    assert (over.outcome, over.exit_code, over.detail) == (Outcome.FAILED, 1, "no data")


def test_the_users_own_packages_win_in_training(server: TinyServer, agent: AgentProcess) -> None:
    """A repository with its own scheduler.py, jobs/ and cluster/ trains unharmed."""
    said = "print('own', scheduler.OWN, jobs.OWN, cluster.OWN, flush=True)"
    probe = f"import cluster, jobs, scheduler\n{said}"
    files = {
        "src/train.py": probe + training(),
        "scheduler.py": "OWN = 1\n",
        "jobs/__init__.py": "OWN = 2\n",
        "cluster/__init__.py": "OWN = 3\n",
    }
    spec = server.spec("", gpus=1, args=("3", "0")).model_copy(
        update={"code": server.code(files), "script": "src/train.py"}
    )
    server.start("own/1", spec=spec, nodes=server.joined("n1"))
    assert server.over("own/1").outcome is Outcome.SUCCEEDED, server.log("own/1")
    server.wait_for(lambda: "own 1 2 3\n" in server.log("own/1"), limit_s=10)
    assert server.commits("own/1")[-1].step == 3


def test_a_gang_of_two_nodes_trains_together(server: TinyServer, agent: AgentProcess) -> None:
    """Ranks on two nodes meet by gloo, take the same steps and end with equal weights."""
    nodes = server.joined("n1", "n2")
    spec = server.spec(training(gang=True), gpus=1, nodes=2, args=("5", "0"))
    server.start("gang/1", spec=spec, nodes=nodes)
    over = server.over("gang/1")
    assert over.outcome is Outcome.SUCCEEDED, (server.log("gang/1"), server.log("gang/1", 1))
    server.wait_for(lambda: all("weights" in server.log("gang/1", r) for r in (0, 1)), limit_s=10)
    assert weights(server.log("gang/1", 0)) == weights(server.log("gang/1", 1))


def test_training_goes_on_without_server_and_agent(server: TinyServer, agent: AgentProcess) -> None:
    """Kill -9 of the agent while the server is away: the attempt ends once, nothing is lost."""
    spec = server.spec(training(), gpus=1, args=("60", "0.1"))
    server.start("long/1", spec=spec, nodes=server.joined("n1"))
    server.wait_for(lambda: server.of(TrainingBegan, attempt_id="long/1"))
    server.pause()
    agent.kill()
    server.resume()
    agent.restart()
    over = server.over("long/1")
    assert over.outcome is Outcome.SUCCEEDED
    assert len(server.of(AttemptOver, attempt_id="long/1")) == 1
    assert server.of(Progressed, attempt_id="long/1")[-1].step == 60
    server.wait_for(lambda: "weights" in server.log("long/1"), limit_s=10)
    steps = [line for line in server.log("long/1").splitlines() if line.startswith("step")]
    assert len(steps) == 60


def test_an_eviction_with_notice_loses_no_step(server: TinyServer, agent: AgentProcess) -> None:
    """The drain needs no word of the server; the next attempt goes on at the saved step."""
    spec = server.spec(training(), gpus=1, args=("100", "0.1"))
    server.start("moved/1", spec=spec, nodes=server.joined("n1"))
    server.wait_for(lambda: server.of(Progressed, attempt_id="moved/1"))
    server.evict("n1", notice_ms=20_000)
    over = server.over("moved/1")
    assert (over.outcome, over.exit_code) == (Outcome.DRAINED, DRAINED_EXIT_CODE)
    lost = server.wait_for(lambda: server.of(NodeLost, node_id="n1"))[0]
    assert lost.noticed
    assert over.at_us <= lost.at_us
    saved = server.commits("moved/1")[-1].step
    server.wait_for(lambda: f"step {saved - 1}\n" in server.log("moved/1"), limit_s=10)
    assert f"step {saved}\n" not in server.log("moved/1")

    server.start("moved/2", spec=spec, nodes=server.joined("n3"))
    began = server.wait_for(lambda: server.of(TrainingBegan, attempt_id="moved/2"))[0]
    assert server.of(RestoreBegan, attempt_id="moved/2")[0].step == saved
    assert began.step == saved
    server.stop("moved/2")
    assert server.over("moved/2").outcome is Outcome.STOPPED


def test_a_raylet_killed_from_outside_takes_the_whole_node(
    server: TinyServer, agent: AgentProcess
) -> None:
    """Noticed within two seconds; a gang's survivors are killed; no orphan trains on."""
    nodes = server.joined("n2", "n3")
    spec = server.spec(training(gang=True), gpus=1, nodes=2, args=("1000", "0.1"))
    server.start("killed/1", spec=spec, nodes=nodes)
    server.wait_for(lambda: server.of(Progressed, attempt_id="killed/1"))
    state = load_state(agent.home / "cluster" / "local.json")
    assert state is not None
    record = state.nodes["n3"]
    children = [p for p in marked(state.mark("n3")) if "LOWTIDE_ATTEMPT_ID" in p.environ()]
    assert children
    psutil.Process(record.raylet_pid).send_signal(signal.SIGKILL)
    lost = server.wait_for(lambda: server.of(NodeLost, node_id="n3"), limit_s=10)[0]
    assert not lost.noticed
    over = server.over("killed/1", limit_s=20)
    assert over.outcome is Outcome.NODE_LOST
    assert over.at_us - lost.at_us < 8_000_000
    assert not marked(state.mark("n3"))
    for node in state.nodes.values():
        left = [p for p in marked(state.mark(node.id)) if "LOWTIDE_ATTEMPT_ID" in p.environ()]
        assert not left


def test_a_released_node_is_gone(server: TinyServer, agent: AgentProcess) -> None:
    """Release ends every process of a node."""
    server.joined("n2")
    server.release("n2")
    server.wait_for(lambda: server.of(NodeReleased, node_id="n2"))
    state = load_state(agent.home / "cluster" / "local.json")
    assert state is not None
    assert not marked(state.mark("n2"))

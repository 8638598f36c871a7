"""A process that stands ready becomes just what a cold start would be, or a cold start happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.attempt_worker_child import Child, Trainee, general_environment
from cluster.attempt_worker_standby import take_standby
from cluster.processes import kill_trees
from cluster.standby_keeper import FOLDER, StandbyKeeper
from jobs.spec import JobSpec

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(180),
    pytest.mark.skipif(sys.platform != "linux", reason="pidfd and /proc"),
]

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 90
TRAIN = """
    import hashlib, json, os, sys, torch
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(700, 700), torch.nn.Tanh(), torch.nn.Linear(700, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(300, 700)).square().mean().backward()
        optimizer.step()
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    here = sys.modules["__main__"]
    print(json.dumps({
        "digest": digest.hexdigest(),
        "threads": torch.get_num_threads(),
        "parallel": torch.__config__.parallel_info(),
        "argv": sys.argv,
        "path": sys.path,
        "cwd": os.getcwd(),
        "file": __file__,
        "main": [__name__, here.__file__, str(here.__spec__), sorted(vars(here))[:8]],
        "session": os.getsid(0) == os.getpid(),
        "variables": {k: v for k, v in os.environ.items() if k != "LOWTIDE_ADOPTED_US"},
        "unbuffered": sys.stdout.write_through,
    }, sort_keys=True))
"""


class Node:
    """A node's scratch folder with its keeper, and trainings that are started on it."""

    def __init__(self, folder: Path, *, calm_s: float = 0.05) -> None:
        """Nothing stands ready yet."""
        self.scratch = folder / "scratch"
        self.code = folder / "code"
        self.code.mkdir()
        self.keeper = StandbyKeeper(self.scratch, calm_s=calm_s)
        self.started: list[Trainee] = []

    def spec(self, **fields: Any) -> JobSpec:
        """Give a job of this node's script."""
        return JobSpec.model_validate({"script": "train.py", **fields})

    def want(self, spec: JobSpec) -> None:
        """Have a process stand ready for such a job."""
        inherited = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.keeper.want(general_environment(spec, inherited=inherited))
        self.until(self.offers, "a process stands ready")

    def offers(self) -> list[Path]:
        """Give the sockets of processes that stand ready."""
        return list((self.scratch / FOLDER).glob("*.socket"))

    def environment(self, spec: JobSpec) -> dict[str, str]:
        """Give a child's environment."""
        inherited = {**os.environ, "PYTHONPATH": str(ROOT)}
        found = general_environment(spec, inherited=inherited)
        found["PYTHONPATH"] = f"{self.code}{os.pathsep}{found['PYTHONPATH']}"
        return {**found, "RANK": "0", "LOWTIDE_JOB_ID": "some-job"}

    def start(self, spec: JobSpec, *, ready: bool) -> Trainee | None:
        """Start a training in the ready process, None if it is refused, or cold."""
        name = f"{len(self.started)}.log"
        how: dict[str, Any] = {
            "rank": 0,
            "folder": self.code,
            "environment": self.environment(spec),
            "spool": self.scratch / name,
        }
        command = [sys.executable, spec.script, *spec.args]
        made = (
            take_standby(command, scratch=self.scratch, **how) if ready else Child(command, **how)
        )
        if made is not None:
            self.started.append(made)
        return made

    def outcome(self, spec: JobSpec, *, ready: bool) -> tuple[int, str]:
        """Run a training to its end; give its code and its output."""
        child = self.start(spec, ready=ready)
        assert child is not None
        return self.ended(child), child.spool.read_text()

    def ended(self, child: Trainee) -> int:
        """Wait for a training's end and give its code."""
        self.until(lambda: child.poll() is not None, "it has ended")
        return child.poll() or 0

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait for a condition; the failure shows what the standby wrote."""
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            log = self.scratch / FOLDER / "standby.log"
            said = log.read_text() if log.exists() else ""
            assert time.monotonic() < deadline, f"waited until {what}: {said}"
            threading.Event().wait(0.02)

    def close(self) -> None:
        """End all of it."""
        for child in self.started:
            child.kill()
            self.ended(child)
        self.keeper.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node; what was started on it is ended."""
    made = Node(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("cpus", [1, 2])
def test_it_trains_to_the_same_bytes_and_sees_the_same_world(node: Node, cpus: int) -> None:
    """Weights, threads, arguments, import path, variables, session: all as after a cold start."""
    (node.code / "train.py").write_text(textwrap.dedent(TRAIN))
    spec = node.spec(cpus=cpus, args=["--steps", "3"], env={"MINE": "1"})
    node.want(spec)
    ready, cold = node.outcome(spec, ready=True), node.outcome(spec, ready=False)
    assert ready[0] == cold[0] == 0, (ready, cold)
    assert ready[1] == cold[1]
    assert f'"threads": {cpus}' in ready[1]


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("raise SystemExit(75)", 75),
        ("import sys\nsys.exit('no data')", 1),
        ("def f():\n    raise ValueError('no data')\nf()", 1),
        ("def broken(:", 1),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV),
    ],
)
def test_it_ends_as_a_cold_start_ends(node: Node, script: str, code: int) -> None:
    """Exit code and last words, the traceback's lines among them, are the same."""
    (node.code / "train.py").write_text(script)
    node.want(node.spec())
    ready = node.outcome(node.spec(), ready=True)
    cold = node.outcome(node.spec(), ready=False)
    assert ready == cold
    assert ready[0] == code


def test_a_script_that_would_import_something_else_starts_cold(node: Node) -> None:
    """Names of its own, variables that it sets or that the spec sets: each is refused."""
    train = node.code / "train.py"
    train.write_text("print('hello')\n")
    node.want(node.spec())
    own = node.code / "checkpointing"
    own.mkdir()
    assert node.start(node.spec(), ready=True) is None
    own.rmdir()
    (node.code / "sitecustomize.py").write_text("")
    assert node.start(node.spec(), ready=True) is None
    (node.code / "sitecustomize.py").unlink()
    assert node.start(node.spec(env={"OMP_NUM_THREADS": "7"}), ready=True) is None
    assert node.start(node.spec(env={"MINE": "2"}), ready=True) is None
    (node.code / "more.py").write_text("import os\nos.environ['OMP_NUM_THREADS'] = '1'\n")
    assert node.start(node.spec(), ready=True) is None
    (node.code / "more.py").write_text("import os\nrank = os.environ['RANK'] == '0'\n")
    (node.code / "scheduler.py").write_text("OWN = 1\n")
    train.write_text("import scheduler\nprint('own', scheduler.OWN)\n")
    assert node.outcome(node.spec(), ready=True) == (0, "own 1\n")


def test_another_one_stands_ready_after_one_was_taken(node: Node) -> None:
    """The second attempt on a node does not start cold either."""
    (node.code / "train.py").write_text("import os\nprint(os.getpid())\n")
    node.want(node.spec())
    first = node.outcome(node.spec(), ready=True)
    node.until(node.offers, "another process stands ready")
    second = node.outcome(node.spec(), ready=True)
    assert first[0] == second[0] == 0
    assert first[1] != second[1]
    node.until(lambda: node.keeper.taken == 2, "both are counted")


def test_it_is_shown_as_the_training_that_it_is(node: Node) -> None:
    """Whoever looks for a job's processes by arguments and variables finds it."""
    (node.code / "train.py").write_text("import threading\nthreading.Event().wait(60)\n")
    node.want(node.spec())
    child = node.start(node.spec(args=["--pace", "1"]), ready=True)
    assert child is not None
    process = psutil.Process(child.pid)
    node.until(lambda: "LOWTIDE_JOB_ID" in process.environ(), "it is relabelled")
    assert [part for part in process.cmdline() if part][1:] == ["train.py", "--pace", "1"]
    assert process.environ()["LOWTIDE_JOB_ID"] == "some-job"
    assert process.nice() == 5


def test_it_dies_with_its_worker_and_with_its_host(node: Node) -> None:
    """No path leaves a training behind: worker gone, host killed, or killed by name."""
    (node.code / "train.py").write_text("import threading\nthreading.Event().wait(60)\n")
    node.want(node.spec())
    spool = node.scratch / "worker.log"
    script = f"""
        import sys, threading
        from pathlib import Path
        sys.path.insert(0, {str(ROOT)!r})
        from cluster.attempt_worker_standby import take_standby
        child = take_standby(
            [sys.executable, "train.py"], rank=0, folder=Path({str(node.code)!r}),
            environment={node.environment(node.spec())!r}, spool=Path({str(spool)!r}),
            scratch=Path({str(node.scratch)!r}),
        )
        print(child.pid, flush=True)
        threading.Event().wait(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        orphan = psutil.Process(int(worker.stdout.readline()))
        worker.kill()
    node.until(lambda: not orphan.is_running(), "it died with its worker")
    node.until(node.offers, "another process stands ready")
    child = node.start(node.spec(), ready=True)
    assert child is not None
    host = psutil.Process(child.pid).parent()
    assert host is not None
    host.kill()
    assert node.ended(child) == -signal.SIGKILL
    node.until(node.offers, "another process stands ready")
    child = node.start(node.spec(), ready=True)
    assert child is not None
    child.kill()
    assert node.ended(child) == -signal.SIGKILL


def test_an_idle_one_ends_with_its_keeper(tmp_path: Path) -> None:
    """And nothing of it is left: no process, no socket."""
    place = Node(tmp_path)
    try:
        place.want(place.spec())
        (offer,) = place.offers()
        host = psutil.Process(int(offer.stem))
        (child,) = host.children()
    finally:
        place.close()
    place.until(lambda: not host.is_running() and not child.is_running(), "both are gone")
    assert not place.offers()


def test_a_socket_of_a_killed_host_is_passed_over(node: Node) -> None:
    """A node whose standby was killed starts cold, and at once."""
    node.want(node.spec())
    (offer,) = node.offers()
    kill_trees([psutil.Process(int(offer.stem))])
    (node.code / "train.py").write_text("print('hello')\n")
    assert node.start(node.spec(), ready=True) is None
    assert not offer.exists()

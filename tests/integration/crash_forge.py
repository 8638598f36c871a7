"""Starts small trainings quickly: torch is imported once, and each training is a fork of that.

Run as a script. It reads one JSON order per line: `start` with the options of `train_as_told`, or
`wait` with a process id; it answers with the process id, or with the exit code.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
EVERY_STEP_S: Final = 1e-6
ENDED_BY_ERROR: Final = 3


def train_as_told(order: Mapping[str, Any]) -> int:
    """Train `steps` steps from the restore point, or all of `total`; say in `says` what happens."""
    from checkpointing import CheckpointError
    from tests.unit.checkpointing.training import Trainee

    os.environ.update(order["env"])
    trainee = Trainee()
    with Path(order["says"]).open("a", buffering=1, encoding="ascii") as says:
        say = lambda **told: says.write(json.dumps(told) + "\n")  # noqa: E731
        session = trainee.session(save_every_s=EVERY_STEP_S, **order.get("options", {}))
        try:
            with session:
                say(restored=session.restored_step, digest=session.final_digest())
                _steps(trainee, session, order, say)
        except CheckpointError as error:
            say(error=error.code, cause=error.cause)
            return ENDED_BY_ERROR
        say(saves=session.stats.saves, failures=session.stats.failures)
        say(ended=session.final_digest())
    return 0


def _steps(trainee: Any, session: Any, order: Mapping[str, Any], say: Callable[..., Any]) -> None:
    for step in session.steps(order["total"]):
        if step - session.restored_step == order.get("steps", order["total"]):
            return
        trainee.step()
        say(step=step + 1)
        threading.Event().wait(order.get("step_s", 0))


def train_as_a_rank(order: Mapping[str, Any]) -> int:
    """Be rank `rank` of a gang that meets at `meeting`; `folder` is for what it says."""
    from tests.unit.checkpointing.gang_training import run_rank

    os.environ.update(order["env"])
    run_rank(order["rank"], order["folder"], order["meeting"], order["options"])
    return 0


@cache
def digests(total: int) -> tuple[str, ...]:
    """The digest of the weights after each number of steps of an uninterrupted training."""
    from tests.unit.checkpointing.training import Trainee

    trainee = Trainee()
    found = [trainee.session().final_digest()]
    for _ in range(total):
        trainee.step()
        found.append(trainee.session().final_digest())
    return tuple(found)


def main() -> None:
    """Serve the orders on standard input."""
    import tests.unit.checkpointing.gang_training  # noqa: F401 - what a fork would import
    from tests.unit.checkpointing.training import Trainee

    Trainee()  # the first optimizer imports more than torch itself
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            _, status = os.waitpid(order["wait"], 0)
            print(order["number"], os.waitstatus_to_exitcode(status), flush=True)
            continue
        child = os.fork()
        if child == 0:
            os._exit(_guarded(order))
        print(order["number"], child, flush=True)


def _guarded(order: Mapping[str, Any]) -> int:
    sys.stdin.close()
    try:
        return train_as_a_rank(order) if "rank" in order else train_as_told(order)
    except SystemExit as left:
        return int(left.code or 0)


# ------------------------------------------------------------------ the test's end


@dataclass(slots=True)
class Attempt:
    """A training that was started."""

    pid: int
    says: Path
    _forge: Forge
    code: int | None = None
    """How it ended, once somebody has waited."""

    def told(self, name: str) -> list[Any]:
        """All that it said under this name so far, oldest first."""
        if not self.says.exists():
            return []
        lines = self.says.read_text(encoding="ascii").splitlines()
        found = [json.loads(line) for line in lines if line.endswith("}")]
        return [item[name] for item in found if name in item]

    def last(self, name: str) -> Any:
        """The newest of them; None for none."""
        return (self.told(name) or [None])[-1]

    def wait(self) -> int:
        """Wait for its end; return its exit code, negative for a signal."""
        return self._forge.wait(self.pid)


class Forge:
    """The running script."""

    def __init__(self, folder: Path) -> None:
        """Start it; what it and its trainings print as errors is in `folder`."""
        self._folder = folder
        self._count = self._asked = 0
        self._running: set[int] = set()
        with (folder / "forge.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.crash_forge"],
                cwd=ROOT,
                env={**_without_ours(), "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    @property
    def log(self) -> str:
        """What was printed as errors."""
        return (self._folder / "forge.log").read_text(encoding="utf-8", errors="replace")

    def start(self, *, env: Mapping[str, str], **order: Any) -> Attempt:
        """Start a training; see `train_as_told` and `train_as_a_rank`."""
        self._count += 1
        says = self._folder / f"says-{self._count}"
        pid = self.ask({**order, "env": dict(env), "says": str(says)})
        self._running.add(pid)
        return Attempt(pid, says, self)

    def wait(self, pid: int) -> int:
        """Wait for the end of a training."""
        self._running.discard(pid)
        return self.ask({"wait": pid})

    def ask(self, order: Mapping[str, Any]) -> int:
        """Give an order; return the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._asked += 1
        self._process.stdin.write(json.dumps({**order, "number": self._asked}) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            number, answer = map(int, line.split())
            if number == self._asked:  # else a test that ran out of time did not wait for it
                return answer
        raise AssertionError(self.log)

    def close(self) -> None:
        """End it, and what a failed test left running."""
        for pid in self._running:
            os.kill(pid, signal.SIGKILL)  # still ours: nobody has waited for it
        self._process.communicate(timeout=20)


@contextmanager
def forge_in(folder: Path) -> Iterator[Forge]:
    """Run a forge for the length of a `with` block."""
    folder.mkdir(parents=True, exist_ok=True)
    forge = Forge(folder)
    try:
        yield forge
    finally:
        forge.close()


def _without_ours() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("LOWTIDE_", "AWS_"))}


if __name__ == "__main__":
    main()

"""One node's part of an attempt: starts the training children and reports what they do.

It runs outside the user's folder and import path, and imports no torch, so that it is there in a
moment. It needs its agent only to begin and to end: while the agent is away, training goes on and
the news wait. Its own end takes the children with it.

``python -m cluster.attempt_worker`` reads a ``WorkerOrder`` as JSON from standard input.
"""

from __future__ import annotations

import os
import queue
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from checkpointing import control
from checkpointing.errors import CheckpointError
from cluster.agent_clock import monotonic_us, now_us
from cluster.attempt_worker_child import Child, Trainee, child_environment, python_command
from cluster.attempt_worker_code import unpack_code
from cluster.attempt_worker_control import ControlServer
from cluster.attempt_worker_link import AgentLink
from cluster.attempt_worker_news import Reporter
from cluster.attempt_worker_prefetch import begin_prefetch
from cluster.attempt_worker_standby import take_standby
from cluster.worker_wire import (
    Advise,
    Bye,
    Drain,
    FromAgent,
    Go,
    Hello,
    Hurry,
    Stop,
    WorkerOrder,
)
from jobs.codec import decode
from jobs.errors import LowtideError

_TICK_S = 0.05
_LAST_WORDS_S = 1.0  # for what a dead child said to be heard
_UPLOAD_US = 10_000_000  # for the uploader of a dead child to finish its last snapshot
_FLUSH_US = 5_000_000  # for the output to reach the agent after the end
_SOCKET_PATH = 90


class AttemptWorker:
    """Runs one order from the first connection to the agent's ``Bye``."""

    def __init__(self, order: WorkerOrder, *, scratch: Path) -> None:
        """Connect to the agent; ``scratch`` is a folder of this node's own disk."""
        self._order = order
        # With the index: several nodes may share one machine, and then its disk.
        name = f"{order.attempt_id.replace('/', '-')}-{order.index}"
        self._folder = scratch / "attempts" / name
        self._scratch = scratch
        self._cache = scratch / "code"
        self._inbox: queue.Queue[FromAgent] = queue.Queue()
        self._children: dict[int, Trainee] = {}
        self._deadline_us = 0
        self._over = self._stopped = False
        self._dead_us: dict[int, int] = {}  # when a rank's child was found dead
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._prefetch = begin_prefetch(order, scratch=scratch)
        self._rendezvous, hello = _meeting_place(order)
        address = (order.agent_host, order.agent_port)
        self._link = AgentLink(address, hello=hello, heard=self._inbox.put)
        self._reporter = Reporter(self._link.tell)
        self._sockets = Path(tempfile.mkdtemp(prefix="lt-")) if _too_long(self._folder) else None
        path = (self._sockets or self._folder) / "control"
        self._control = ControlServer(path, heard=self._reporter.heard)

    def run(self) -> None:
        """Do the whole part; returns when the agent said ``Bye``."""
        try:
            folder = self._prepare()
            while not self._over:
                with suppress(queue.Empty):
                    self._take(self._inbox.get(timeout=_TICK_S), folder)
                self._reap()
                self._reporter.tick()
            self._flush()
        finally:
            self._kill()
            if self._prefetch is not None:
                self._prefetch.close()
            self._control.close()
            self._link.close()
            for used in (self._folder, self._sockets):
                if used is not None:
                    shutil.rmtree(used, ignore_errors=True)

    def _prepare(self) -> Path | None:
        into = self._folder / "code"
        try:
            return unpack_code(
                self._order.spec, storage=self._order.storage, cache=self._cache, into=into
            )
        except (LowtideError, CheckpointError) as error:
            self._reporter.unable(str(error))
            return None

    def _take(self, message: FromAgent, folder: Path | None) -> None:
        match message:
            case Go() if folder is not None and not self._children:
                self._start(message, folder)
            case Drain(deadline_us=deadline_us):
                first = not self._deadline_us
                self._deadline_us = deadline_us
                if first:
                    self._control.tell(control.Drain(deadline_us))
            case Advise(risk=risk):
                self._control.tell(risk)
            case Hurry():
                self._control.tell(control.Hurry(now_us()))
            case Stop():
                self._stopped = True
                self._kill()
            case Bye():
                self._over = True
            case _:
                pass

    def _start(self, go: Go, folder: Path) -> None:
        self._rendezvous.close()  # rank 0 of the training listens there now
        for rank in self._order.ranks:
            environment = child_environment(
                self._order,
                rank=rank,
                go=go,
                control=self._control.path,
                folder=folder,
                inherited=os.environ,
            )
            if self._prefetch is not None:
                environment["LOWTIDE_PREFETCHED"] = str(self._prefetch.folder_of(rank))
            spool = self._folder / f"{rank}.log"
            self._children[rank] = self._child(rank, folder, environment, spool)
            self._link.follow(rank, spool=spool)
            self._reporter.follow(rank, spool=spool)

    def _child(self, rank: int, folder: Path, environment: dict[str, str], spool: Path) -> Trainee:
        spec = self._order.spec
        command = python_command(spec.script, args=spec.args)
        ready = None
        if spec.processes == 1:  # there is one per node, and the other ranks would wait for it
            ready = take_standby(
                command,
                rank=rank,
                folder=folder,
                environment=environment,
                spool=spool,
                scratch=self._scratch,
            )
        return ready or Child(
            command, rank=rank, folder=folder, environment=environment, spool=spool
        )

    def _reap(self) -> None:
        if self._deadline_us and now_us() >= self._deadline_us:
            self._kill()
        for child in list(self._children.values()):
            if child.rank in self._reporter.ended:
                continue
            code = child.poll()
            if code is not None and not self._waits_for_upload(child.rank):
                self._control.finish(child.rank, timeout_s=_LAST_WORDS_S)
                self._reporter.exited(child.rank, code=code, tail=child.tail())

    def _waits_for_upload(self, rank: int) -> bool:
        """Whether a dead child's last snapshot is still on its way, and there is time for it."""
        until_us = self._dead_us.setdefault(rank, monotonic_us()) + _UPLOAD_US
        drained = bool(self._deadline_us) and now_us() >= self._deadline_us
        in_time = monotonic_us() < until_us and not drained and not self._stopped
        return in_time and self._control.uploads(rank)

    def _kill(self) -> None:
        for child in self._children.values():
            if child.rank not in self._reporter.ended:
                child.kill()

    def _flush(self) -> None:
        until_us = monotonic_us() + _FLUSH_US
        pause = threading.Event()
        while not self._link.flushed() and monotonic_us() < until_us:
            pause.wait(_TICK_S)


def scratch_folder() -> Path:
    """Give this node's own disk: what its provider named, else a folder of this user's."""
    named = os.environ.get("LOWTIDE_NODE_DIR")
    return Path(named) if named else Path(tempfile.gettempdir()) / f"lowtide-{os.getuid()}"


def run_in_thread(order: WorkerOrder, *, done: Callable[[], None]) -> threading.Thread:
    """Run an order in a thread that lives as long as its children; ``done`` follows its end."""

    def run() -> None:
        try:
            AttemptWorker(order, scratch=scratch_folder()).run()
        finally:
            done()

    thread = threading.Thread(target=run, name="attempt-worker")
    thread.start()
    return thread


def _meeting_place(order: WorkerOrder) -> tuple[socket.socket, Hello]:
    # The port stays bound until the children start, so that nobody else takes it.
    place = socket.socket()
    place.bind((order.host, 0))
    hello = Hello(
        attempt_id=order.attempt_id,
        index=order.index,
        token=order.token,
        host=order.host,
        master_port=place.getsockname()[1],
    )
    return place, hello


def _too_long(folder: Path) -> bool:
    return len(str(folder)) > _SOCKET_PATH


if __name__ == "__main__":
    AttemptWorker(decode(sys.stdin.read(), into=WorkerOrder), scratch=scratch_folder()).run()

"""The parent of a process that stands ready: offers it on a socket, and tells how it ended.

Started as ``python -I -S standby_host.py KEEPER_FD CHILD_SCRIPT`` in the folder of the socket, with
the environment that the child is to import under. It detaches from whoever started it: an idle
standby ends with its keeper (the other end of KEEPER_FD), a taken one with the attempt worker that
took it. Linux only, standard library only: it lives as long as the training.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import sys
from typing import Any

SOCKET_SUFFIX = ".socket"
_NICE = 5  # as a training that was started cold
_LENGTH = struct.Struct(">I")
_PEER = struct.Struct("3i")
_ANSWER_S = 5.0
_ROOM = " " * 4_096  # for the arguments that it is shown with later
_ROOM_VARIABLE = "LOWTIDE_ROOM"


class Gone(Exception):  # noqa: N818 - it is no error
    """Nobody needs the standby any more."""


class Host:
    """One standby: importing, offered, taken."""

    def __init__(self, keeper: socket.socket, *, script: str) -> None:
        """Start the importing process."""
        self._keeper = keeper
        self._child, theirs = socket.socketpair()
        self._child.settimeout(_ANSWER_S)
        os.set_inheritable(theirs.fileno(), True)  # noqa: FBT003 - its only argument
        arguments = [sys.executable, script, str(os.getpid()), str(theirs.fileno()), _ROOM]
        nothing = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
        self._pid = os.posix_spawn(
            sys.executable,
            arguments,
            {**os.environ, _ROOM_VARIABLE: _ROOM * 4},
            file_actions=[nothing],
            setsid=True,
        )
        theirs.close()
        self._end = os.pidfd_open(self._pid)

    def serve(self) -> None:
        """Wait for the imports, offer, and stay with whoever takes it until its end."""
        try:
            self._await(self._child.fileno())
            self._tell(self._child.recv(64).decode().strip())  # "ready"
            worker = self._offer()
            self._tell("taken")
            self._keeper.close()
            self._stay(worker)
        except Gone:
            self._kill()

    def _offer(self) -> socket.socket:
        path = f"{os.getpid()}{SOCKET_SUFFIX}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(path)
            listener.listen()
            try:
                while True:
                    self._await(listener.fileno())
                    worker, _ = listener.accept()
                    if self._is_taken(worker):
                        return worker
                    worker.close()
            finally:
                os.unlink(path)  # noqa: PTH108 - pathlib is not worth its import here

    def _is_taken(self, worker: socket.socket) -> bool:
        """Hand a request to the child and its answer back."""
        worker.settimeout(_ANSWER_S)
        peer = worker.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        if _PEER.unpack(peer)[1] != os.getuid():
            return False
        try:
            request, output = _request(worker)
        except (OSError, EOFError):
            return False
        try:
            socket.send_fds(self._child, [request[: _LENGTH.size]], [output])
            self._child.sendall(request[_LENGTH.size :])
            answer = json.loads(self._child.makefile("rb").readline() or b"{}")
        finally:
            os.close(output)
        taken = bool(answer.get("refused") == "")
        with contextlib.suppress(OSError):  # gone meanwhile: seen by whoever stays with it
            _send(worker, {"pid": self._pid} if taken else answer)
        return taken

    def _stay(self, worker: socket.socket) -> None:
        """Tell the child's exit code; kill it when its worker is gone."""
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        poll.register(worker, select.POLLIN)
        if self._end not in dict(poll.poll()):
            raise Gone  # the worker never speaks: it hung up
        _, status = os.waitpid(self._pid, 0)
        with contextlib.suppress(OSError):
            _send(worker, {"code": os.waitstatus_to_exitcode(status)})

    def _await(self, descriptor: int) -> None:
        """Wait until something can be read; raise when keeper or child is gone."""
        poll = select.poll()
        for one in (descriptor, self._keeper.fileno(), self._end):
            poll.register(one, select.POLLIN)
        if descriptor not in dict(poll.poll()):
            raise Gone

    def _tell(self, word: str) -> None:
        with contextlib.suppress(OSError):
            self._keeper.sendall(f"{word}\n".encode())

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


def _request(worker: socket.socket) -> tuple[bytes, int]:
    head, descriptors, _, _ = socket.recv_fds(worker, _LENGTH.size, 1)
    if len(head) < _LENGTH.size or not descriptors:
        raise EOFError
    body = b""
    while len(body) < _LENGTH.unpack(head)[0]:
        data = worker.recv(65_536)
        if not data:
            raise EOFError
        body += data
    return head + body, descriptors[0]


def _send(worker: socket.socket, message: dict[str, Any]) -> None:
    worker.sendall((json.dumps(message) + "\n").encode())


def main(arguments: list[str]) -> None:
    """Detach, and serve."""
    if os.fork():
        os._exit(0)  # whoever started us waits for no more
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    Host(socket.socket(fileno=int(arguments[0])), script=arguments[1]).serve()


if __name__ == "__main__":
    main(sys.argv[1:])

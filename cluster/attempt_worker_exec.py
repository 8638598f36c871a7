"""Runs a command that dies with the process that started it (Linux).

Started as ``python -I -S attempt_worker_exec.py PARENT_PID COMMAND...``, so that the death signal
is asked for between fork and exec without running Python code in a forked, threaded process.
Imports nothing beyond the standard library, and little of that: it delays every start.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Ask for SIGKILL at the parent's death, then become the command."""
    parent, command = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)  # it died before we could ask
    os.execv(command[0], command)  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main(sys.argv[1:])

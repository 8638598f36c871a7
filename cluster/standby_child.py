"""A process that stands ready with torch imported, and becomes the training child asked for.

Started by ``standby_host`` as a script. It imports nothing of ours but ``checkpointing``, and it
takes a script only if a cold start would have imported the very same: the same environment, as far
as an import can see it, and no module of the user's that has the name of one that is loaded.
What is given up is only the time: refused, the attempt worker starts the script cold.
"""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import importlib
import importlib.machinery
import io
import json
import os
import re
import signal
import socket
import struct
import sys
import traceback
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

_IMPORTED = (
    "torch",
    "torch._dynamo",  # every optimizer imports it when it is made: 1.5 s of a core
    "checkpointing.object_storage",
    "checkpointing.session",
)
_LENGTH = struct.Struct(">I")
_PR_SET_PDEATHSIG = 1
_AREA_FIELD = 45  # arguments' start among the fields of /proc/self/stat behind the name
# Nothing looks at these while it is imported: ranks and addresses are read when a gang is joined,
# credentials when a client is made, the visible GPUs when the first one is touched.
_LATE = frozenset(
    {
        "CUDA_VISIBLE_DEVICES",
        "GLOO_SOCKET_IFNAME",
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
        "OLDPWD",
        "PWD",
        "PYTHONPATH",  # its folders are looked through for names instead
        "RANK",
        "WORLD_SIZE",
    }
)
_LATE_PREFIXES = ("AWS_", "LOWTIDE_")
_AT_STARTUP = frozenset({"sitecustomize", "usercustomize"})
# Code that sets variables (`os.environ["OMP_NUM_THREADS"] = ...`) means the imports that follow.
_SETS_VARIABLES = re.compile(
    rb"environ\s*(?:\[[^\]]*\]\s*(?:=[^=]|\+=)|\|=|\.(?:setdefault|update|pop|clear)\b)|\bputenv\b"
)
_MOST_FILES = 500  # of a user's code are read; with more, a cold start is the safe answer


def main() -> None:
    """Import, tell the host, and wait to be given a script."""
    parent, link = int(sys.argv[1]), socket.socket(fileno=int(sys.argv[2]))
    del sys.path[0]  # our own folder: its names are not for the user's code to find
    _die_with(parent)
    before = dict(os.environ)
    for name in _IMPORTED:
        importlib.import_module(name)
    link.sendall(b"ready\n")
    while True:
        request, output = _receive(link)
        why = refusal(request, before=before)
        link.sendall((json.dumps({"refused": why}) + "\n").encode())
        if not why:
            break
        os.close(output)
    link.close()
    _take_over(request, output=output, before=before)
    _run(request["command"][1])


def refusal(request: Mapping[str, Any], *, before: Mapping[str, str]) -> str:
    """Say why a cold start would not have imported the same; "" when it would."""
    command, environment = request["command"], request["environment"]
    if command[0] != sys.executable:
        return "another interpreter"
    unlike = sorted(_early(environment).items() ^ _early(before).items())
    if unlike:
        return f"other variables: {', '.join(sorted({name for name, _ in unlike}))}"
    script = Path(request["cwd"], command[1])
    ahead = {Path(path) for path in _paths(environment) if path not in _paths(before)}
    taken = _AT_STARTUP | {name.partition(".")[0] for name in sys.modules}
    for folder in {script.parent, *ahead}:
        clash = sorted(taken.intersection(_names_in(folder)))
        if clash:
            return f"modules of the same name: {', '.join(clash)}"
    return _variables_set(script, folders={Path(request["cwd"]), *ahead})


def _early(environment: Mapping[str, str]) -> dict[str, str]:
    """Give the variables that an import may look at."""
    return {
        name: text
        for name, text in environment.items()
        if name not in _LATE and not name.startswith(_LATE_PREFIXES)
    }


def _paths(environment: Mapping[str, str]) -> list[str]:
    return [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]


def _names_in(folder: Path) -> Iterator[str]:
    """Give what ``import`` would find in a folder."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            stem, _, suffix = entry.name.partition(".")
            if suffix in {"", "py"} or suffix.endswith("so"):
                yield stem


def _variables_set(script: Path, *, folders: Iterable[Path]) -> str:
    files = {script, *script.parent.glob("*.py")}
    for folder in folders:
        for path in folder.rglob("*.py"):
            files.add(path)
            if len(files) > _MOST_FILES:
                return "more code than can be looked through"
    for path in sorted(files):
        with contextlib.suppress(OSError):
            if _SETS_VARIABLES.search(path.read_bytes()):
                return f"{path.name} sets environment variables"
    return ""


def _die_with(parent: int) -> None:
    """Ask for SIGKILL at the host's death."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)  # it died before we could ask


def _receive(link: socket.socket) -> tuple[dict[str, Any], int]:
    """Wait for a request and the descriptor of its output; end when the host is gone."""
    head, descriptors, _, _ = socket.recv_fds(link, _LENGTH.size, 1)
    if len(head) < _LENGTH.size:
        sys.exit(0)
    (left,), body = _LENGTH.unpack(head), b""
    while len(body) < left:
        body += link.recv(left - len(body))
    found: dict[str, Any] = json.loads(body)
    return found, descriptors[0]


def _take_over(request: Mapping[str, Any], *, output: int, before: Mapping[str, str]) -> None:
    """Become what a cold start would be: output, folder, variables, arguments, import path."""
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    os.chdir(request["cwd"])
    command, environment = request["command"], request["environment"]
    os.environ.clear()
    os.environ.update(environment)
    _relabel(command, environment)
    sys.argv[:] = command[1:]
    old = _paths(before)
    kept = [path for path in sys.path if path not in old]
    sys.path[:] = [str(Path(command[1]).resolve().parent), *_paths(environment), *kept]


def _relabel(command: list[str], environment: Mapping[str, str]) -> None:
    """Let ``ps``, and whoever looks for a job's processes, see the training and not a standby.

    The kernel shows the memory in which arguments and variables came (proc(5)). Nobody reads them
    there any more: ``os.environ`` was set anew, and that makes copies.
    """
    stat = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    areas = [int(number) for number in stat[_AREA_FIELD : _AREA_FIELD + 4]]
    ours = sorted(environment.items(), key=lambda item: not item[0].startswith("LOWTIDE_"))
    texts = (command, [f"{name}={text}" for name, text in ours])
    for (start, end), items in zip((areas[:2], areas[2:]), texts, strict=True):
        data = b"".join(os.fsencode(item) + b"\0" for item in items)[: end - start - 1]
        ctypes.memset(start, 0, end - start)
        ctypes.memmove(start, data, len(data))


def _run(script: str) -> None:
    """Run the script as ``python script`` does."""
    path = str(Path(script).absolute())
    module = types.ModuleType("__main__")
    loader = importlib.machinery.SourceFileLoader("__main__", path)
    module.__dict__.update(__file__=path, __builtins__=builtins, __cached__=None, __loader__=loader)
    module.__annotations__ = {}
    sys.modules["__main__"] = module
    try:
        with io.open_code(path) as stream:
            code = compile(stream.read(), path, "exec", dont_inherit=True)
        exec(code, module.__dict__)  # noqa: S102 - the user's script is what we are here for
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001 - the interpreter's part: say it and leave with 1
        frames = error.__traceback__
        own = frames.tb_next if frames is not None else None  # without our own frame
        try:
            sys.excepthook(type(error), error.with_traceback(own), own)
        except BaseException:  # noqa: BLE001 - as the interpreter does with a broken hook
            traceback.print_exc()
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()

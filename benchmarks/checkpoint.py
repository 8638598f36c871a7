"""The bars of the checkpoint engine: ours and the named peers, in one run, on the same bytes.

``python -m benchmarks.checkpoint --json`` measures every row in a process of its own; ``--only
ROW`` (again for more) narrows it, ``--gb`` sets the size of the state, ``--write-docs`` renders
docs/benchmarks/checkpoint.md. What is measured how stands in the rows' own files.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from benchmarks.checkpoint_state import DEFAULT_GB
from benchmarks.checkpoint_table import render

DOCS: Final = Path("docs/benchmarks/checkpoint.md")
_LIMIT_S: Final = 600.0
_SMALLER: Final = 3  # rows that send bytes to a store again and again take a third


@dataclass(frozen=True, slots=True)
class _Size:
    gb: float
    repeats: int
    disk: Path
    memory: Path
    """A folder on a tmpfs."""


def _stall(size: _Size) -> Any:  # noqa: ANN401 - a Row; the rows import torch, this file does not
    from benchmarks.checkpoint_stall import stall

    return stall(gb=size.gb, repeats=size.repeats, folder=size.memory)


def _stall_gpu(size: _Size) -> Any:  # noqa: ANN401
    from benchmarks.checkpoint_stall import stall_on_gpu

    return stall_on_gpu(gb=size.gb, repeats=size.repeats, folder=size.memory)


def _put(size: _Size) -> Any:  # noqa: ANN401
    from benchmarks.checkpoint_store import put

    return put(gb=size.gb / _SMALLER, repeats=size.repeats)


def _get(size: _Size) -> Any:  # noqa: ANN401
    from benchmarks.checkpoint_store import get

    return get(gb=size.gb / _SMALLER, repeats=size.repeats)


def _save(size: _Size) -> Any:  # noqa: ANN401
    from benchmarks.checkpoint_save import save

    return save(gb=size.gb / _SMALLER, repeats=size.repeats, folder=size.disk)


def _load(size: _Size) -> Any:  # noqa: ANN401
    from benchmarks.checkpoint_save import load

    return load(gb=size.gb, repeats=size.repeats, folder=size.disk)


def _interference(size: _Size) -> Any:  # noqa: ANN401
    from benchmarks.checkpoint_interference import interference

    return interference(gb=size.gb / _SMALLER, repeats=size.repeats, threads=1)


def _memory(size: _Size) -> Any:  # noqa: ANN401
    from benchmarks.checkpoint_memory import memory

    return memory(gb=size.gb, folder=size.disk)


def _frozen(size: _Size) -> Any:  # noqa: ANN401
    from benchmarks.checkpoint_frozen import frozen

    return frozen(gb=size.gb)


ROWS: Final[dict[str, Callable[[_Size], Any]]] = {
    "stall": _stall,
    "stall-gpu": _stall_gpu,
    "put": _put,
    "get": _get,
    "save": _save,
    "load": _load,
    "interference": _interference,
    "memory": _memory,
    "frozen": _frozen,
}


def measure(*, rows: list[str], gb: float, repeats: int) -> dict[str, Any]:
    """Measure `rows`, each in a process of its own; a row that breaks comes with its error."""
    began = perf_counter()
    found = [_in_child(name, gb=gb, repeats=repeats) for name in rows]
    return {
        "command": _command(rows, gb=gb, repeats=repeats),
        "date": datetime.now(tz=UTC).date().isoformat(),
        "machine": _machine(),
        "gb": gb,
        "repeats": repeats,
        "took_s": round(perf_counter() - began, 1),
        "rows": found,
    }


def _command(rows: list[str], *, gb: float, repeats: int) -> str:
    only = "" if rows == list(ROWS) else "".join(f" --only {name}" for name in rows)
    sized = "" if gb == DEFAULT_GB else f" --gb {gb:g}"
    return f"python -m benchmarks.checkpoint --json{only}{sized} --repeats {repeats}"


def _in_child(name: str, *, gb: float, repeats: int) -> dict[str, Any]:
    print(f"{name}:", file=sys.stderr, flush=True)
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.checkpoint", "--row", name]
    command += ["--gb", str(gb), "--repeats", str(repeats)]
    root = Path(__file__).absolute().parents[1]
    try:
        done = subprocess.run(
            command, cwd=root, stdout=subprocess.PIPE, text=True, check=True, timeout=_LIMIT_S
        )
    except (subprocess.SubprocessError, OSError) as error:
        return {"row": name, "error": f"{type(error).__name__}: {error}"}
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def _one(name: str, *, gb: float, repeats: int) -> dict[str, Any]:
    """Measure one row here; a row that this machine cannot have says so."""
    shared = Path("/dev/shm")  # noqa: S108 - the system's own tmpfs
    with (
        tempfile.TemporaryDirectory() as disk,
        tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as memory,
    ):
        row = ROWS[name](_Size(gb, repeats, Path(disk), Path(memory)))
    if row is None:
        return {"row": name, "error": "not run: this machine has no GPU"}
    told: dict[str, Any] = row.to_json()
    return told


def _machine() -> dict[str, Any]:
    import torch

    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cores": os.cpu_count(),
        "memory_gb": round(pages / 1e9),
        "torch": torch.__version__,
        "gpu": torch.cuda.is_available(),
        "load_at_start": round(os.getloadavg()[0], 2),
    }


def main() -> None:
    """Measure and print, as JSON with `--json`; render the docs with `--write-docs`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--only", action="append", choices=list(ROWS), help="measure this row")
    parser.add_argument("--gb", type=float, default=DEFAULT_GB, help="decimal GB of the state")
    parser.add_argument("--repeats", type=int, default=5, help="rounds after the warm-up")
    parser.add_argument("--write-docs", action="store_true", help=f"write {DOCS}")
    parser.add_argument("--row", choices=list(ROWS), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.row:
        print(json.dumps(_one(asked.row, gb=asked.gb, repeats=asked.repeats)))
        return
    figures = measure(rows=asked.only or list(ROWS), gb=asked.gb, repeats=asked.repeats)
    if asked.write_docs:
        DOCS.parent.mkdir(parents=True, exist_ok=True)
        DOCS.write_text(render(figures), encoding="utf-8")
    print(json.dumps(figures, indent=2) if asked.json else render(figures))


if __name__ == "__main__":
    main()

"""Training-seconds lost for each GB that is uploaded meanwhile: a real training loop, on the CPU.

The loop (a small perceptron and its Adam, forward, backward, step) is timed without uploads, then
while one way of uploading is at work, then without again. If n steps took T seconds meanwhile and b
each without uploads, T - n x b seconds were lost. Every contender has a process of its own; the
null server takes the bytes, in another. Ours and DCP pay their stall within the time measured.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median
from time import perf_counter
from typing import Any, Final

import torch

from benchmarks.checkpoint_measure import (
    Bar,
    Row,
    attempt,
    load_meter,
    process_cpu_s,
    rounded,
    with_cause,
)
from benchmarks.checkpoint_ours import alter, ours, with_environment
from benchmarks.checkpoint_state import gpt2_training
from benchmarks.checkpoint_store import s3fs_files
from benchmarks.null_s3 import NullS3, null_s3
from benchmarks.raw_s3 import IN_FLIGHT

BAR = Bar("at most", 0.25, "a thread in the training process 1.09-1.52, a process of its own 0.22")
_BASELINE_S: Final = 2.0
_CHUNK_BYTES: Final = 16 * 2**20
_WIDTH: Final = 512
_BATCH: Final = 64
_LIMIT_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Uploads:
    """One way of uploading `length` bytes, again and again."""

    length: int
    start: Callable[[], Callable[[], bool]]
    """Start an upload of everything; what it returns says whether that has ended."""
    prepare: Callable[[], None] = lambda: None
    """Make the bytes new; not timed."""


def interference(*, gb: float, repeats: int, threads: int) -> Row:
    """Measure every contender `repeats` times by turns; the loop computes with `threads`."""
    names = tuple(_CONTENDERS)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    errors: dict[str, str] = {}
    with null_s3() as server:
        for number in range(repeats):
            for name in names if number % 2 else reversed(names):
                run = partial(_in_child, name, server, gb=gb, threads=threads)
                measured, error = attempt(run)
                if measured is None:
                    errors[name] = error
                else:
                    found[name].append(measured)
                print(f"  {name}: {error or measured}", file=sys.stderr, flush=True)
    return _row(found, errors, threads=threads)


def _row(found: dict[str, list[dict[str, float]]], errors: dict[str, str], *, threads: int) -> Row:
    lost = {
        name: median(one["lost_s_per_gb"] for one in measured) if measured else None
        for name, measured in found.items()
    }
    details = {
        name: {
            "how": _HOW[name],
            **{key: rounded(median(one[key] for one in measured)) for key in _KEYS if measured},
            **({"error": errors[name]} if name in errors else {}),
        }
        for name, measured in found.items()
    }
    row = Row(
        name="interference",
        what="training-seconds lost per GB uploaded",
        bar=BAR,
        ours=lost.pop("ours"),
        peers=lost,
        details=details,
        notes=[f"the loop computes with {threads} thread(s)"],
    )
    return row if row.passed else with_cause(row, _cause(details["ours"]))


_KEYS: Final = (
    "lost_s_per_gb",
    "stall_s_per_gb",
    "upload_s_per_gb",
    "other_cores",
    "trainer_cores",
    "helper_cores",
)


def _cause(mine: dict[str, Any]) -> str:
    if "lost_s_per_gb" not in mine:
        return str(mine.get("error", "nothing was measured"))
    return (
        f"of {mine['lost_s_per_gb']} s lost per GB, {mine['stall_s_per_gb']} s are the stall and "
        f"the rest is shared cores: in the {mine['upload_s_per_gb']} s that a GB took, this "
        f"process used {mine['trainer_cores']} cores, its uploader {mine['helper_cores']}, and "
        f"all others (the server among them) {mine['other_cores']}"
    )


def _in_child(name: str, server: NullS3, *, gb: float, threads: int) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.checkpoint_interference", name]
    command += ["--port", str(server.port), "--gb", str(gb), "--threads", str(threads)]
    root = Path(__file__).absolute().parents[1]
    done = subprocess.run(
        command, cwd=root, capture_output=True, text=True, check=False, timeout=_LIMIT_S
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-400:])
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


# ---------------------------------------------------------------------- inside the child


@dataclass(frozen=True, slots=True)
class _Bench:
    server: NullS3
    gb: float
    stack: ExitStack


class _Loop:
    """The training whose seconds count."""

    def __init__(self) -> None:
        layers = [torch.nn.Linear(_WIDTH, _WIDTH), torch.nn.ReLU()] * 3
        self._model = torch.nn.Sequential(*layers)
        self._optimizer = torch.optim.Adam(self._model.parameters())
        self._batch = torch.randn(_BATCH, _WIDTH)

    def step(self) -> None:
        """Train one step."""
        self._optimizer.zero_grad()
        self._model(self._batch).square().mean().backward()
        self._optimizer.step()

    def pace_s(self) -> float:
        """Train for a while; return the seconds that a step takes."""
        steps, began = 0, perf_counter()
        while perf_counter() - began < _BASELINE_S:
            self.step()
            steps += 1
        return (perf_counter() - began) / steps


def _measure(uploads: Uploads) -> dict[str, float]:
    loop = _Loop()
    loop.pace_s()
    _drain(loop, uploads.start())  # warm-up: connections, memory, the uploader's start
    before_s = loop.pace_s()
    uploads.prepare()
    cpu = process_cpu_s()
    with load_meter() as load:
        began = perf_counter()
        ended = uploads.start()
        stall_s = perf_counter() - began
        steps = _drain(loop, ended)
        took_s = perf_counter() - began
    spent = {name: seconds - cpu.get(name, 0.0) for name, seconds in process_cpu_s().items()}
    mine = spent.pop("this process")
    helpers = sum(spent.values())
    pace_s = fmean([before_s, loop.pace_s()])
    gb = uploads.length / 1e9
    return {
        "lost_s_per_gb": (took_s - steps * pace_s) / gb,
        "stall_s_per_gb": stall_s / gb,
        "upload_s_per_gb": took_s / gb,
        "trainer_cores": mine / took_s,
        "helper_cores": helpers / took_s,
        "other_cores": max(0.0, load.other_cores - helpers / took_s),
    }


def _drain(loop: _Loop, ended: Callable[[], bool]) -> int:
    steps = 0
    while not ended():
        loop.step()
        steps += 1
    return steps


def _ours(bench: _Bench) -> Uploads:
    training = gpt2_training(bench.gb)
    mine = bench.stack.enter_context(ours(training, "s3://null/ours", environment={}))

    def upload() -> Callable[[], bool]:
        saved = mine.session.stats.saves
        mine.start()
        return lambda: mine.look() > saved

    return Uploads(training.length, upload, lambda: alter(training))


def _our_client_in_a_thread(bench: _Bench) -> Uploads:
    from checkpointing.hashing import blake3_hex, crc32c
    from checkpointing.storage import open_storage

    storage = open_storage("s3://null/thread")
    chunks = _chunks(bench.gb)
    pool = bench.stack.enter_context(ThreadPoolExecutor(IN_FLIGHT))

    def put(chunk: memoryview) -> None:
        storage.put(f"chunks/{blake3_hex(chunk)}", chunk, crc32c=crc32c(chunk))

    def upload() -> Callable[[], bool]:
        waiting = [pool.submit(put, chunk) for chunk in chunks]
        return lambda: all(one.done() for one in waiting)

    return Uploads(sum(chunk.nbytes for chunk in chunks), upload)


def _s3fs_in_a_thread(bench: _Bench) -> Uploads:
    files = s3fs_files(bench.server.endpoint_url)
    objects = {
        f"null/s3fs/{number}": bytes(chunk) for number, chunk in enumerate(_chunks(bench.gb))
    }

    def upload() -> Callable[[], bool]:
        thread = threading.Thread(target=files.pipe, args=(objects,), kwargs={"batch_size": 4})
        thread.start()
        return lambda: not thread.is_alive()

    return Uploads(sum(map(len, objects.values())), upload)


def _dcp_async(bench: _Bench, *, kind: str) -> Uploads:
    from benchmarks import checkpoint_dcp as dcp

    training = gpt2_training(bench.gb)
    make = {"fsspec": dcp.fsspec_writer, "connector": dcp.connector_writer}[kind]

    def start() -> Callable[[], bool]:
        _, future = dcp.start_save(training, make(f"s3://null/dcp-{kind}"))
        return lambda: bool(future.done())

    return Uploads(training.length, start)


def _chunks(gb: float) -> list[memoryview]:
    length = int(gb * 1e9)
    whole = memoryview(bytearray(b"\1" * length))
    return [whole[start : start + _CHUNK_BYTES] for start in range(0, length, _CHUNK_BYTES)]


_CONTENDERS: Final[dict[str, Callable[[_Bench], Uploads]]] = {
    "ours": _ours,
    "our client in a thread": _our_client_in_a_thread,
    "s3fs in a thread": _s3fs_in_a_thread,
    "DCP async, fsspec": partial(_dcp_async, kind="fsspec"),
    "DCP async, s3torchconnector": partial(_dcp_async, kind="connector"),
}
_HOW: Final = {
    "ours": "Session: stall included; an uploader process with 4 requests in flight",
    "our client in a thread": "Storage.put by 4 threads, BLAKE3 and CRC32C; no stall",
    "s3fs in a thread": "pipe, 4 at once; no stall",
    "DCP async, fsspec": "async_save, FsspecWriter, 4 threads; stall included",
    "DCP async, s3torchconnector": "async_save, S3StorageWriter, 4 threads; stall included",
}


def main() -> None:
    """Measure one contender and print its figures; `interference` calls this."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contender", choices=list(_CONTENDERS))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--gb", type=float, required=True)
    parser.add_argument("--threads", type=int, required=True)
    asked = parser.parse_args()
    server = NullS3(asked.port)
    torch.set_num_threads(asked.threads)
    with with_environment(server.environment()), ExitStack() as stack:
        uploads = _CONTENDERS[asked.contender](_Bench(server, asked.gb, stack))
        print(json.dumps(_measure(uploads)))


if __name__ == "__main__":
    main()

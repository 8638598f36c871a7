"""Peak memory of a save and of a restore, as multiples of the state's bytes.

Each contender has a process of its own, whose family is watched from outside: the sum of the
proportional set sizes (PSS, proc(5)) of the process and of every descendant, every 20 ms. PSS
counts a page that several processes map, such as a memfd, once in all. What was there before the
state was made (Python, torch, the peer's imports) is taken off; the state itself counts, so a save
without any buffer is 1.0. A peak between two looks is caught by the kernel's own high-water mark
(VmHWM) of the training process, if that is higher. The store is the null server, in a process
that is not counted; nothing is written to a tmpfs.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

import psutil

from benchmarks.checkpoint_measure import Bar, Row, attempt, rounded, with_cause
from benchmarks.checkpoint_ours import ours, session_of, with_environment
from benchmarks.checkpoint_state import Training, gpt2_training
from benchmarks.null_s3 import NullS3, null_s3

BAR = Bar("at most", 2.1, "Lightning 4.2")
_LOOK_S: Final = 0.02
_LIMIT_S: Final = 180.0
_MB: Final = 1e6


@dataclass(slots=True)
class _Peak:
    """What was seen of a family of processes, in bytes."""

    base: int = 0
    highest: int = 0
    by_process: dict[str, int] = field(default_factory=dict)
    """At the highest point: the PSS of each process, by its place in the family."""
    high_water: int = 0
    """The training process's own VmHWM."""

    def over_base(self) -> int:
        """Return the peak without what was there before the state."""
        return max(self.highest, self.high_water) - self.base


def memory(*, gb: float, folder: Path) -> Row:
    """Measure every contender's save, then its restore; the row's figure is the worse of the two.

    Bytes are kept by the server, so a restore is real; `folder` is on a disk.
    """
    figures: dict[str, float | None] = {}
    details: dict[str, Any] = {}
    with null_s3(keep=True) as server:
        for name in _CONTENDERS:
            found, error = attempt(partial(_both, name, server, gb=gb, folder=folder))
            figures[name] = max(found["save"], found["restore"]) if found else None
            details[name] = found or {"how": _HOW[name], "error": error}
            print(f"  {name}: {details[name]}", file=sys.stderr, flush=True)
    row = Row(
        name="memory",
        what="peak memory / state",
        bar=BAR,
        ours=figures.pop("ours"),
        peers=figures,
        details=details,
        notes=["the worse of save and restore; the state itself counts as 1.0"],
    )
    return row if row.passed else with_cause(row, f"at the peak: {details['ours']}")


def _both(name: str, server: NullS3, *, gb: float, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"how": _HOW[name]}
    for what in ("save", "restore"):
        length, peak = _watched(name, what, server, gb=gb, folder=folder)
        found[what] = rounded(peak.over_base() / length)
        found[f"{what}_mb"] = {key: round(value / _MB) for key, value in peak.by_process.items()}
        found[f"{what}_base_mb"] = round(peak.base / _MB)
        found[f"{what}_state_mb"] = round(length / _MB)
    return found


def _watched(name: str, what: str, server: NullS3, *, gb: float, folder: Path) -> tuple[int, _Peak]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.checkpoint_memory", name, what]
    command += ["--port", str(server.port), "--gb", str(gb), "--folder", str(folder)]
    root = Path(__file__).absolute().parents[1]
    with subprocess.Popen(
        command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            _expect(process.stdout.readline(), "ready")
            peak = _Peak(base=sum(_family(process.pid, {}).values()))
            _go(process.stdin)
            _expect(process.stdout.readline(), "built")
            done = threading.Event()
            watcher = threading.Thread(target=_watch, args=(process.pid, peak, done))
            watcher.start()
            _go(process.stdin)
            told = process.stdout.readline().split()
            done.set()
            watcher.join()
            _expect(told[0] if told else "", "done")
        finally:
            process.stdin.close()
            process.wait(_LIMIT_S)
    peak.high_water = int(told[2])
    return int(told[1]), peak


def _go(stream: IO[str]) -> None:
    stream.write("go\n")
    stream.flush()


def _expect(said: str, wanted: str) -> None:
    if said.strip() != wanted:
        raise RuntimeError(f"the measured process said {said!r}: see its message above")


def _watch(pid: int, peak: _Peak, done: threading.Event) -> None:
    known: dict[int, psutil.Process] = {}
    while not done.wait(_LOOK_S):
        seen = _family(pid, known)
        if sum(seen.values()) > peak.highest:
            peak.highest, peak.by_process = sum(seen.values()), seen


def _family(pid: int, known: dict[int, psutil.Process]) -> dict[str, int]:
    """Return the PSS of the process and of all that descend from it, orphans seen before too."""
    root = psutil.Process(pid)
    known |= {child.pid: child for child in root.children(recursive=True)}
    found = {"training process": _pss(root.pid)}
    for number, child in enumerate(sorted(known)):
        found[f"helper {number + 1}"] = _pss(child)
    return found


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
    except OSError:
        return 0  # it ended
    found = [line for line in lines if line.startswith("Pss:")]
    return int(found[0].split()[1]) * 1024 if found else 0


def _high_water() -> int:
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


# ------------------------------------------------------------------- inside the process


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a contender saves to and restores from."""

    name: str
    folder: Path

    @property
    def uri(self) -> str:
        """On the null server."""
        return f"s3://null/{self.name}"


def _ours_save(training: Training, place: _Place) -> None:
    with ours(training, place.uri, environment={}) as mine:
        for _ in range(2):  # the second meets an arena and an uploader that are there
            mine.save()


def _ours_restore(training: Training, place: _Place) -> None:
    with session_of(training, place.uri) as session:
        assert session.restored_step, "nothing was restored"


def _dcp_save(training: Training, place: _Place) -> None:
    from benchmarks import checkpoint_dcp as dcp

    _, future = dcp.start_save(training, dcp.fsspec_writer(place.uri))
    future.result()


def _dcp_restore(training: Training, place: _Place) -> None:
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    from benchmarks import checkpoint_dcp as dcp

    get_optimizer_state_dict(training.model, training.optimizer)  # DCP's way to make the moments
    dcp.load(training, dcp.fsspec_reader(place.uri))


def _torch_save(training: Training, place: _Place) -> None:
    import torch

    torch.save(training.state_dict(), place.folder / "memory.pt")


def _torch_restore(training: Training, place: _Place) -> None:
    import torch

    state = torch.load(place.folder / "memory.pt", weights_only=True)
    training.model.load_state_dict(state["model"])
    training.optimizer.load_state_dict(state["optimizer"])


def _lightning_save(training: Training, place: _Place) -> None:
    from benchmarks.checkpoint_lightning import trainer_of

    trainer_of(training).save_checkpoint(f"{place.uri}.ckpt")


def _lightning_restore(training: Training, place: _Place) -> None:
    from benchmarks.checkpoint_lightning import trainer_of

    trainer_of(training, resume_from=f"{place.uri}.ckpt")


_Do = Callable[[Training, _Place], None]
_CONTENDERS: Final[dict[str, tuple[_Do, _Do]]] = {
    "ours": (_ours_save, _ours_restore),
    "Lightning": (_lightning_save, _lightning_restore),
    "DCP async, fsspec": (_dcp_save, _dcp_restore),
    "torch.save": (_torch_save, _torch_restore),
}
_HOW: Final = {
    "ours": "Session; the uploader process counts",
    "Lightning": "save_checkpoint to s3://, fit(ckpt_path=s3://)",
    "DCP async, fsspec": "async_save, dcp.load in place",
    "torch.save": "to and from a file on the disk; no upload, no download",
}


def _warm_up(name: str) -> None:
    """Import what the contender needs and train a little, so that the base holds all that."""
    import boto3  # noqa: F401

    small = gpt2_training(0.01)
    if name == "Lightning":
        import s3fs

        from benchmarks.checkpoint_lightning import trainer_of

        trainer_of(small)
        trainer_of.cache_clear()
    if name.startswith("DCP"):
        import s3fs  # noqa: F401

        import benchmarks.checkpoint_dcp  # noqa: F401


def main() -> None:
    """Do one contender's work when told so on standard input; `memory` calls this."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contender", choices=list(_CONTENDERS))
    parser.add_argument("what", choices=("save", "restore"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--gb", type=float, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    asked = parser.parse_args()
    saving = asked.what == "save"
    do = _CONTENDERS[asked.contender][0 if saving else 1]
    _warm_up(asked.contender)
    gc.collect()
    print("ready", flush=True)
    sys.stdin.readline()
    with with_environment(NullS3(asked.port).environment()):
        training = gpt2_training(asked.gb, filled=saving)
        _forget_the_past()
        print("built", flush=True)
        sys.stdin.readline()
        do(training, _Place(asked.contender.split()[0], asked.folder))
    print("done", _full_length(training), _high_water(), flush=True)
    sys.stdin.read()


def _forget_the_past() -> None:
    """Give back what making the state has left over, and begin the high-water mark anew."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5): resets VmHWM


def _full_length(training: Training) -> int:
    """Return the bytes of the full state, moments included whether or not they are there."""
    return 3 * sum(parameter.nbytes for parameter in training.model.parameters())


if __name__ == "__main__":
    main()

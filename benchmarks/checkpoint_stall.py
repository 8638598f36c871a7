"""How long training stands still for a save, beside one contiguous memcpy of the same bytes.

Every contender saves to the same tmpfs, and its stall alone is timed: the upload in the background
has ended before the next one begins. The table shows the steady state; `first_save_s` in the
details is the first save of a training, which allocates.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from benchmarks.checkpoint_measure import Bar, Contender, Row, rounded, row_of, timed
from benchmarks.checkpoint_ours import ours
from benchmarks.checkpoint_state import Training, gpt2_training

BAR = Bar("at most", 1.1, "DCP 3.5, DCP with a reused stager 1.3")
_WHAT = "stall / one contiguous memcpy of the same bytes"


@dataclass(frozen=True, slots=True)
class _Bench:
    """What the contenders of a row share."""

    training: Training
    folder: Path  # on a tmpfs
    stack: ExitStack


def stall(*, gb: float, repeats: int, folder: Path) -> Row:
    """Measure the row; `folder` lies on a tmpfs with room for three states."""
    with ExitStack() as stack:
        bench = _Bench(gpt2_training(gb), folder, stack)
        first: dict[str, float | None] = {}
        contenders = [
            _memcpy(bench),
            *(
                _noting_the_first(make(bench), first)
                for make in (_ours, _dcp_default, _dcp_reused, _torch_save, _lightning, _ray_train)
            ),
        ]
        row = row_of(name="stall", what=_WHAT, bar=BAR, contenders=contenders, repeats=repeats)
        for name, seconds in first.items():
            row.details[name]["first_save_s"] = rounded(seconds)
        return row


def _noting_the_first(one: Contender, first: dict[str, float | None]) -> Contender:
    def once() -> float:
        seconds = one.once()
        first.setdefault(one.name, seconds)
        return seconds

    return Contender(one.name, once, one.how)


def _memcpy(bench: _Bench) -> Contender:
    source = torch.empty(bench.training.length, dtype=torch.uint8).fill_(1)
    target = torch.empty_like(source).fill_(2)  # both touched: no page faults in the copy

    def once() -> float:
        began = perf_counter()
        target.copy_(source)
        return perf_counter() - began

    return Contender("memcpy", once, "one contiguous copy between touched buffers")


def _ours(bench: _Bench) -> Contender:
    uri = str(bench.folder / "ours")
    mine = bench.stack.enter_context(ours(bench.training, uri, environment={}))
    how = "Session.completed at a step boundary: capture, flatten, copy, hand over"
    return Contender("ours", lambda: mine.save(changed=False)[0], how)


def _dcp_default(bench: _Bench) -> Contender:
    how = "async_save, defaults; training may go on when it returns"
    return Contender("DCP async", lambda: _dcp_async(bench, stager=None), how)


def _dcp_reused(bench: _Bench) -> Contender:
    from benchmarks.checkpoint_dcp import reused_stager

    stager = reused_stager(pinned=torch.cuda.is_available())
    bench.stack.callback(stager.close)
    how = "async_save with one DefaultStager for all saves, in shared memory"
    return Contender("DCP async, reused stager", lambda: _dcp_async(bench, stager=stager), how)


def _dcp_async(bench: _Bench, *, stager: Any) -> float:  # noqa: ANN401 - its Protocol is deprecated
    from benchmarks.checkpoint_dcp import folder_writer, start_save

    target = bench.folder / "dcp"
    shutil.rmtree(target, ignore_errors=True)
    stall_s, future = start_save(bench.training, folder_writer(target), stager=stager)
    future.result()
    return stall_s


def _torch_save(bench: _Bench) -> Contender:
    target = bench.folder / "torch.pt"
    return Contender(
        "torch.save",
        lambda: timed(lambda: torch.save(bench.training.state_dict(), target)),
        "to the tmpfs; blocking",
    )


def _lightning(bench: _Bench) -> Contender:
    target = bench.folder / "lightning.ckpt"

    def once() -> float:
        from benchmarks.checkpoint_lightning import trainer_of

        trainer = trainer_of(bench.training)
        return timed(lambda: trainer.save_checkpoint(target))

    return Contender("Lightning", once, "Trainer.save_checkpoint to the tmpfs; blocking")


def _ray_train(bench: _Bench) -> Contender:
    found: list[float] = []

    def once() -> float:
        from benchmarks.checkpoint_ray import report_stalls

        if not found:  # a cluster's start is long: one training measures for every round
            found.extend(report_stalls(bench.folder / "ray", gb=bench.training.length / 1e9))
        found.append(found.pop(0))
        return found[-1]

    how = "torch.save to a folder and ray.train.report of it, in one training of its own; blocking"
    return Contender("Ray Train", once, how)


def stall_on_gpu(*, gb: float, repeats: int, folder: Path) -> Row | None:
    """Measure the row with the state on a GPU and a pinned buffer; None where there is no GPU.

    The base is one copy of a contiguous device buffer into pinned memory on a stream of its own.
    """
    if not torch.cuda.is_available():
        return None
    with ExitStack() as stack:
        training = gpt2_training(gb)
        training.model.cuda()
        for state in training.optimizer.state.values():
            state.update({name: value.cuda() for name, value in state.items()})
        bench = _Bench(training, folder, stack)
        return row_of(
            name="stall-gpu",
            what=f"{_WHAT}, from a GPU",
            bar=BAR,
            contenders=[_pinned_copy(bench), _synchronized(_ours(bench)), _dcp_reused(bench)],
            repeats=repeats,
        )


def _pinned_copy(bench: _Bench) -> Contender:
    source = torch.ones(bench.training.length, dtype=torch.uint8, device="cuda")
    target = torch.empty(bench.training.length, dtype=torch.uint8, pin_memory=True)
    stream = torch.cuda.Stream()

    def once() -> float:
        torch.cuda.synchronize()
        began = perf_counter()
        with torch.cuda.stream(stream):
            target.copy_(source, non_blocking=True)
        stream.synchronize()
        return perf_counter() - began

    return Contender("memcpy", once, "one copy from the device to pinned memory")


def _synchronized(one: Contender) -> Contender:
    def once() -> float:
        torch.cuda.synchronize()
        return one.once()

    return Contender(one.name, once, one.how)

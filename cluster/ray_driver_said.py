"""What a training child said, as notices. Pure."""

from __future__ import annotations

from checkpointing import control
from cluster.notices import (
    ChildOpened,
    Committed,
    Notice,
    Progressed,
    RestoreBegan,
    TrainingBegan,
)
from cluster.worker_wire import Said
from jobs.codec import encode


def notice_of(said: Said, *, attempt_id: str, index: int) -> Notice | None:
    """Give the notice for a child's message, None where there is none for it.

    The id is made of the worker's own numbering, which survives the agent: heard twice, told once.
    """
    notice_id = f"{attempt_id}|{index}|{said.seq}"
    match control.decode(encode(said.message)):
        case control.Opened(at_us=at_us, process_us=process_us, standby=standby):
            return ChildOpened(
                id=notice_id,
                at_us=at_us,
                attempt_id=attempt_id,
                process_us=process_us,
                standby=bool(standby),
            )
        case control.Restoring(step=step, at_us=at_us):
            return RestoreBegan(id=notice_id, at_us=at_us, attempt_id=attempt_id, step=step)
        case control.Training(step=step, total_steps=total, at_us=at_us):
            return TrainingBegan(
                id=notice_id, at_us=at_us, attempt_id=attempt_id, step=step, total_steps=total
            )
        case control.Step(step=step, total_steps=total, at_us=at_us):
            return Progressed(
                id=notice_id, at_us=at_us, attempt_id=attempt_id, step=step, total_steps=total
            )
        case control.Committed() as commit:
            return Committed(
                id=notice_id,
                at_us=commit.committed_us,
                attempt_id=attempt_id,
                step=commit.step,
                snapshot_us=commit.snapshot_us,
                stall_us=commit.stall_us,
                size_bytes=commit.bytes,
                new_bytes=commit.new_bytes,
                manifest=commit.manifest,
            )
        case _:
            return None

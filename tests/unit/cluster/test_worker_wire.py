"""The wire between agent and workers gives back what was put in, and refuses the rest."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from checkpointing.hazard_posterior import Risk
from cluster.lines import LineReader
from cluster.ray_driver_said import notice_of
from cluster.worker_wire import (
    Ack,
    Advise,
    Beat,
    Bye,
    Drain,
    Exited,
    FromAgent,
    FromWorker,
    Go,
    Hello,
    Hurry,
    Kept,
    Output,
    Said,
    Stop,
    Unable,
    from_agent,
    from_worker,
    to_line,
)

WORKER: list[FromWorker] = [
    Hello(attempt_id="j/1", index=1, token="t", host="h", master_port=2),
    Beat(),
    Said(seq=1, at_us=2, rank=0, message={"kind": "finished", "step": 1, "at_us": 2}),
    Exited(seq=2, at_us=3, rank=1, code=-9, tail="a\nb"),
    Unable(seq=3, at_us=4, detail="why"),
    Output(rank=0, offset=7, data="aGk="),
]
AGENT: list[FromAgent] = [
    Go(host="h", port=1),
    Drain(deadline_us=2),
    Advise(risk=Risk(evictions_ppm=1, exposure_ms=2, notice_ms=3, noticed_ppm=4)),
    Hurry(),
    Stop(),
    Ack(seq=3),
    Kept(rank=1, length=9),
    Bye(),
]


def test_messages_survive_the_way() -> None:
    """Each is one line and comes out equal."""
    lines = LineReader().feed(b"".join(to_line(message) for message in (*WORKER, *AGENT)))
    assert [from_worker(line) for line in lines[: len(WORKER)]] == WORKER
    assert [from_agent(line) for line in lines[len(WORKER) :]] == AGENT


@pytest.mark.parametrize("line", [b"", b"{}", b"[]", b'{"kind":"go"}', b"\xff", b'{"kind":"no"}'])
def test_anything_else_is_refused(line: bytes) -> None:
    """With the one error that the link expects."""
    with pytest.raises(ValidationError):
        from_agent(line)


def test_lines_are_cut_wherever_the_bytes_were_torn() -> None:
    """And one that never ends is an error, not a full memory."""
    reader = LineReader(limit=10)
    assert reader.feed(b"ab") == []
    assert reader.feed(b"c\nde\nf") == [b"abc", b"de"]
    with pytest.raises(ValueError, match="more than 10 bytes"):
        reader.feed(b"x" * 11)


def test_what_a_child_says_becomes_a_notice_with_a_lasting_id() -> None:
    """The id is the worker's numbering; what has no notice gives none."""
    message = {"kind": "step", "step": 3, "total_steps": 9, "at_us": 77}
    said = Said(seq=5, at_us=80, rank=0, message=message)
    notice = notice_of(said, attempt_id="j/1", index=0)
    assert notice is not None
    assert (notice.kind, notice.id, notice.at_us) == ("progressed", "j/1|0|5", 77)
    assert notice_of(WORKER[2], attempt_id="j/1", index=0) is None  # type: ignore[arg-type]

"""What a worker writes into a job's output, for people."""

from __future__ import annotations

from pathlib import Path

from checkpointing.control import Drained
from cluster.attempt_worker_news import Reporter
from cluster.worker_wire import News


def test_a_drain_says_which_steps_it_lost(tmp_path: Path) -> None:
    """Only where there are any; the server learns of commits, not of this."""
    told: list[News] = []
    reporter, spool = Reporter(told.append), tmp_path / "0.log"
    reporter.follow(0, spool=spool)
    reporter.heard(0, Drained(step=7, reached=7, at_us=0))
    assert not spool.exists()
    reporter.heard(0, Drained(step=7, reached=9, at_us=0))
    assert "steps 8 to 9 are not saved" in spool.read_text()
    assert told == []

"""How attempts end, as pure rules."""

from __future__ import annotations

import pytest

from cluster.gang import (
    GRACE_US,
    SIGNAL_GRACE_US,
    SILENCE_US,
    Exit,
    Facts,
    Gang,
    Verdict,
    judge,
)
from cluster.intents import StartAttempt
from cluster.notices import Outcome
from jobs.spec import JobSpec

NOW_US = 50_000_000


def a_gang(*codes: int, nodes: int = 2, processes: int = 1, went: bool = True) -> Gang:
    """A gang whose first ranks exited with these codes; all workers were heard just now."""
    attempt = StartAttempt(
        id="start|j/1",
        cluster="c",
        attempt_id="j/1",
        job_id="j",
        epoch=1,
        spec=JobSpec(script="t.py", nodes=nodes, processes=processes),
        node_ids=tuple(f"n{i}" for i in range(nodes)),
        addresses=tuple(f"a{i}" for i in range(nodes)),
        token="t",
        step=0,
        total_steps=0,
    )
    exits = [Exit(rank=rank, code=code, tail=f"tail {rank}") for rank, code in enumerate(codes)]
    heard = dict.fromkeys(range(nodes), NOW_US)
    return Gang(
        attempt=attempt, facts=Facts(went=went, exits=exits), patience_us=NOW_US, heard_us=heard
    )


def outcome(gang: Gang, *, now_us: int = NOW_US) -> Outcome | None:
    """The outcome alone."""
    verdict = judge(gang, now_us=now_us)
    return verdict.outcome if verdict else None


def test_a_gang_at_work_gets_no_verdict() -> None:
    """Nothing happened: nothing ends."""
    assert outcome(a_gang()) is None
    assert outcome(a_gang(0)) is None  # the other rank still trains


def test_success_needs_every_rank() -> None:
    """All ranks with 0, however many processes there are."""
    assert outcome(a_gang(0, 0, 0, 0, processes=2)) is Outcome.SUCCEEDED
    assert outcome(a_gang(0, 0, 0, processes=2)) is None


def test_success_wins_over_a_late_stop_drain_or_loss() -> None:
    """What is finished is finished."""
    gang = a_gang(0, 0)
    gang.facts.stop, gang.facts.drain_deadline_us = True, 1
    gang.facts.lost_nodes.append("n1")
    assert outcome(gang) is Outcome.SUCCEEDED


@pytest.mark.parametrize("code", [1, -9])
def test_a_failure_in_a_gang_waits_for_the_news_of_a_lost_node(code: int) -> None:
    """Within the grace a lost node takes the blame; after it the script does."""
    gang = a_gang(code)
    gang.failed_us = NOW_US
    gang.heard_us = dict.fromkeys((0, 1), NOW_US + GRACE_US)
    assert outcome(gang, now_us=NOW_US + GRACE_US - 1) is None
    assert judge(gang, now_us=NOW_US + GRACE_US) == Verdict(
        outcome=Outcome.FAILED, exit_code=code, detail="rank 0: tail 0"
    )
    gang.facts.lost_nodes.append("n1")
    assert outcome(gang, now_us=NOW_US + GRACE_US) is Outcome.NODE_LOST


def test_a_failure_on_one_node_is_told_at_once_unless_a_signal_ended_it() -> None:
    """A signal may be the first sign of the node's own death."""
    gang = a_gang(1, nodes=1)
    gang.failed_us = NOW_US
    assert judge(gang, now_us=NOW_US) == Verdict(
        outcome=Outcome.FAILED, exit_code=1, detail="tail 0"
    )
    killed = a_gang(-9, nodes=1)
    killed.failed_us = NOW_US
    assert outcome(killed) is None
    assert outcome(killed, now_us=NOW_US + SIGNAL_GRACE_US) is Outcome.FAILED


def test_a_drain_ends_drained_whatever_the_exit_codes() -> None:
    """Who was told to go is never charged with a failure."""
    for codes in ((75, 75), (0, 75), (75, 1), (-9, -9)):
        gang = a_gang(*codes)
        gang.facts.drain_deadline_us = 1
        assert outcome(gang) is Outcome.DRAINED
    half = a_gang(75)
    half.facts.drain_deadline_us = 1
    assert outcome(half) is None  # the other still saves


def test_a_drain_before_the_start_ends_at_once() -> None:
    """Nothing trains yet, so nothing is to be saved."""
    gang = a_gang(went=False)
    gang.facts.drain_deadline_us = 1
    assert outcome(gang) is Outcome.DRAINED


def test_a_lost_node_ends_the_gang_at_once_even_while_it_drains() -> None:
    """The survivors cannot finish alone."""
    gang = a_gang(75)
    gang.facts.drain_deadline_us = 1
    gang.facts.lost_nodes.append("n1")
    assert outcome(gang) is Outcome.NODE_LOST


def test_silence_counts_only_for_workers_that_still_have_something_to_do() -> None:
    """A worker whose ranks are all gone may be quiet."""
    gang = a_gang(0)
    gang.heard_us[0] = NOW_US - SILENCE_US - 1
    assert outcome(gang) is None
    gang.heard_us[1] = NOW_US - SILENCE_US - 1
    verdict = judge(gang, now_us=NOW_US)
    assert verdict is not None
    assert (verdict.outcome, "n1" in verdict.detail) == (Outcome.HEARTBEAT_LOST, True)


def test_workers_that_never_come_up_are_not_the_users_fault() -> None:
    """Patience has an end, and so has a launch that fails."""
    gang = a_gang(went=False)
    del gang.heard_us[1]
    assert outcome(gang) is None
    assert outcome(gang, now_us=NOW_US + 1) is Outcome.HEARTBEAT_LOST
    gang.facts.launch_error = "Ray said no"
    assert judge(gang, now_us=NOW_US) == Verdict(
        outcome=Outcome.HEARTBEAT_LOST, detail="Ray said no"
    )


def test_code_that_cannot_be_started_fails_the_attempt() -> None:
    """The detail is the cause and the remedy."""
    gang = a_gang()
    gang.facts.unable = "no such file"
    assert judge(gang, now_us=NOW_US) == Verdict(outcome=Outcome.FAILED, detail="no such file")


def test_what_is_left_excludes_lost_nodes_and_ended_ranks() -> None:
    """An end waits only for processes that may still run."""
    gang = a_gang(0, 0, 0, nodes=3, processes=2)
    assert gang.left() == [1, 2]
    gang.facts.lost_nodes.append("n2")
    assert gang.left() == [1]


def test_a_gang_told_to_go_by_somebody_else_ends_though_a_rank_had_finished() -> None:
    """Ranks that left as drained beside ranks that were done: over, and nobody's failure."""
    assert outcome(a_gang(0, 75)) is Outcome.DRAINED
    assert outcome(a_gang(75, 75)) is Outcome.DRAINED
    assert outcome(a_gang(75)) is None  # the other rank still trains

"""An agent's memory survives its death and says everything once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.agent_state import AgentStore
from cluster.gang import Exit, Facts, Verdict
from cluster.intents import StartAttempt
from cluster.lifecycle import booted, joined
from cluster.notices import AttemptOver, Outcome
from jobs.spec import JobSpec

ATTEMPT = StartAttempt(
    id="start|j/1",
    cluster="c",
    attempt_id="j/1",
    job_id="j",
    epoch=1,
    spec=JobSpec(script="t.py"),
    node_ids=("n1",),
    addresses=("a1",),
    token="secret",
    step=0,
    total_steps=0,
)
OVER = AttemptOver(id="over|j/1", at_us=5, attempt_id="j/1", outcome=Outcome.SUCCEEDED)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AgentStore]:
    """A new memory."""
    made = AgentStore(tmp_path / "agent.sqlite")
    yield made
    made.close()


def test_notices_wait_in_order_until_they_are_accepted(store: AgentStore) -> None:
    """Nothing is dropped for a server that is away, nothing is sent after it was taken."""
    first, second = booted("n1", at_us=1), joined("n1", at_us=2, address="a")
    store.post(first)
    store.post(second)
    assert store.pending() == [first, second]
    store.accept([first.id])
    assert store.pending() == [second]


def test_a_notice_is_told_once_however_often_it_is_posted(store: AgentStore) -> None:
    """A provider that tells its story again after a restart says nothing new."""
    store.post(booted("n1", at_us=1))
    store.accept(["booted|n1"])
    store.post(booted("n1", at_us=1))
    assert store.pending() == []
    store.resend("booted|n1")
    assert len(store.pending()) == 1


def test_live_attempts_and_what_is_known_of_them_are_found_again(tmp_path: Path) -> None:
    """A successor judges with the same facts."""
    facts = Facts(
        went=True,
        exits=[Exit(rank=0, code=1, tail="why")],
        lost_nodes=["n1"],
        drain_deadline_us=9,
        verdict=Verdict(outcome=Outcome.NODE_LOST),
    )
    first = AgentStore(tmp_path / "agent.sqlite")
    first.keep(ATTEMPT, facts=Facts())
    first.keep(ATTEMPT, facts=facts)
    identity = first.identity()
    first.close()
    second = AgentStore(tmp_path / "agent.sqlite")
    assert second.live() == [(ATTEMPT, facts)]
    assert second.token_of("j/1") == "secret"
    assert second.identity() == identity
    second.close()


def test_an_end_closes_the_attempt_and_is_posted_together(store: AgentStore) -> None:
    """After it the token opens nothing any more."""
    store.keep(ATTEMPT, facts=Facts())
    assert not store.is_over("j/1")
    store.finish("j/1", OVER)
    assert (store.live(), store.pending(), store.is_over("j/1")) == ([], [OVER], True)
    assert store.token_of("j/1") is None


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    """It holds the attempts' tokens."""
    AgentStore(tmp_path / "agent.sqlite").close()
    assert (tmp_path / "agent.sqlite").stat().st_mode & 0o077 == 0

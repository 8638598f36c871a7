"""What a saver learns from its own saves and steps, and what it then finds due or fitting."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from checkpointing import saver as saver_module
from checkpointing.cadence import OBJECT_STORE, Cadence
from checkpointing.clock import monotonic_us, now_us
from checkpointing.errors import CheckpointError
from checkpointing.hazard_posterior import Risk
from checkpointing.publish import Published
from checkpointing.saver import Saver
from checkpointing.snapshot import Snapshot
from checkpointing.uploader import Outcome

STATE = {"w": torch.zeros(1_000)}
NERVOUS = Risk(evictions_ppm=10**9, exposure_ms=1)
S = 1_000_000


class Held:
    """An uploader whose saves end when the test says so."""

    def __init__(self) -> None:
        """Nothing is in flight."""
        self.step: int | None = None
        self.outcome: Outcome | None = None

    @property
    def busy(self) -> bool:
        """Whether a save was submitted and not collected."""
        return self.step is not None

    def submit(self, snapshot: Snapshot, *, descriptor: int | None) -> None:
        """Hold it."""
        self.step = snapshot.step

    def collect(self, timeout_s: float) -> Outcome | None:
        """Give what the test decided."""
        outcome, self.outcome = self.outcome, None
        if outcome is not None:
            self.step = None
        return outcome

    def commits(self, *, after_us: int) -> None:
        """Let it be committed, so long after now."""
        published = Published(self.step or 0, now_us() + after_us, 4_000, 4_000, "m")
        self.outcome = Outcome(self.step or 0, published=published)

    def fails(self) -> None:
        """Let it fail."""
        error = CheckpointError("storage-failed", cause="c", remedy="r")
        self.outcome = Outcome(self.step or 0, error=error)

    def adopt(self, manifest: str, *, chunks: frozenset[str]) -> None:
        """Nothing is known."""

    def settle(self, step: int) -> None:
        """Nothing is settled."""

    def close(self) -> None:
        """Nothing is held."""


@pytest.fixture
def held() -> Held:
    """No save yet."""
    return Held()


@pytest.fixture
def saver(held: Held) -> Iterator[Saver]:
    """One that saves by the rule."""
    made = Saver(held, cadence=Cadence(), tariff=OBJECT_STORE)
    yield made
    made.close()


def after_a_second(monkeypatch: pytest.MonkeyPatch, seconds: int = 2) -> None:
    """Let time pass for the saver."""
    monkeypatch.setattr(saver_module, "monotonic_us", lambda: monotonic_us() + seconds * S)


def test_by_the_rule_nothing_is_due_while_an_upload_is_in_flight(
    saver: Saver, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training would have to wait for it; by a fixed interval that is what was asked for."""
    saver.heed(NERVOUS)
    assert saver.save(STATE, step=1) is None
    after_a_second(monkeypatch)
    assert not saver.is_due()
    held.commits(after_us=0)
    assert saver.collect() is not None
    assert saver.is_due()
    saver.set_interval(1)
    saver.save(STATE, step=2)
    after_a_second(monkeypatch)
    assert saver.is_due()


def test_a_measured_save_says_what_fits(saver: Saver, held: Held) -> None:
    """Ten seconds to a commit: five are too few, twenty are enough; before it, one tries."""
    assert saver.fits(S)
    saver.save(STATE, step=1)
    held.commits(after_us=10 * S)
    saver.collect()
    assert not saver.fits(5 * S)
    assert saver.fits(20 * S)


def test_after_a_failure_the_work_is_at_risk_again(
    saver: Saver, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Due again, but not at every step: the store is given some seconds."""
    saver.heed(NERVOUS)
    saver.save(STATE, step=1)
    held.fails()
    saver.collect()
    after_a_second(monkeypatch)
    assert not saver.is_due()
    after_a_second(monkeypatch, 6)
    assert saver.is_due()


def test_steps_with_and_without_an_upload_are_told_apart(
    saver: Saver, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of a second that take two while uploading: half of the upload is what it costs."""
    for uploading in (False, True):
        if uploading:
            saver.save(STATE, step=1)
        for _ in range(6):
            saver.step_began()
            with monkeypatch.context() as later:
                after_a_second(later, 20 if uploading else 10)
                saver.step_ended()
    saver.step_began()
    held.commits(after_us=100 * S)
    saver.collect()  # in the middle of a step, which is neither
    with monkeypatch.context() as later:
        after_a_second(later, 1_000)
        saver.step_ended()
    assert len(saver._pacer._quiet) == len(saver._pacer._busy) == 6
    cost_us = saver._pacer.cadence(0).cost_us
    assert cost_us == pytest.approx(50 * S, rel=0.01)

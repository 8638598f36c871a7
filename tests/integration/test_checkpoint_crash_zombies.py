"""An attempt that was taken for dead and lives on: nothing that it does later counts.

It is stopped, or its last request is held up somewhere in the network, while its successor claims
the job and commits; then it goes on.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from typing import Final

import pytest

from tests.faults import After, Before, Hold
from tests.integration.crash_forge import ENDED_BY_ERROR, Attempt
from tests.integration.crash_job import (
    LIMIT_S,
    Address,
    Job,
    await_ends,
    check_restored,
    job_on,
    send,
    uploaders_of,
)
from tests.s3_server import S3Server, s3_server

__all__ = ["s3_server"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

# What a save asks, counted from the start of an attempt that has restored nothing or something.
CHUNK: Final = Address("PUT", "chunks")
MANIFEST: Final = Address("PUT", "manifests")
RECORD: Final = Address("PUT", "commits", skip=1)


@pytest.fixture
def freezer() -> Iterator[Freezer]:
    """Stops an attempt and its uploader; whatever the test does, they go on in the end."""
    found = Freezer()
    yield found
    found.thaw()


@pytest.fixture(scope="module")
def job(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    """The job of this module, with a commit to go on from."""
    with job_on(s3_server, tmp_path_factory.mktemp("zombies")) as found:
        assert found.run(steps=1).code == 0
        yield found


class Freezer:
    """Stops an attempt and its uploader at a request, or kills the one and stops the other."""

    def __init__(self) -> None:
        """Aim at nobody yet."""
        self.kills_training = False
        self._started = threading.Event()
        self._pid = 0
        self.frozen = threading.Event()
        self.uploaders: list[int] = []

    def aim(self, pid: int) -> None:
        """Name the training."""
        self._pid = pid
        self._started.set()

    def strike(self) -> None:
        """Stop both."""
        assert self._started.wait(LIMIT_S)
        self.uploaders = uploaders_of(self._pid)
        send(signal.SIGSTOP, self.uploaders)
        send(signal.SIGKILL if self.kills_training else signal.SIGSTOP, [self._pid])
        self.frozen.set()

    def thaw(self) -> None:
        """Let them go on."""
        send(signal.SIGCONT, [*self.uploaders, self._pid] if self._pid else [])


def freeze(job: Job, at: Address, freezer: Freezer, *, after: bool = False) -> Attempt:
    """Start an attempt and freeze it at a request."""
    job.proxy.script(at.rule((After if after else Before)(freezer.strike)))
    attempt = job.start()
    freezer.aim(attempt.pid)
    assert freezer.frozen.wait(LIMIT_S)
    return attempt


@pytest.mark.parametrize("at", [CHUNK, MANIFEST, RECORD], ids=str)
def test_a_stopped_attempt_is_fenced_out(job: Job, freezer: Freezer, at: Address) -> None:
    """Wherever it was stopped, it commits nothing after its successor's claim, and says why."""
    before = job.standing()
    zombie = freeze(job, at, freezer)
    assert job.run(steps=2).code == 0
    freezer.thaw()
    assert zombie.wait() == ENDED_BY_ERROR
    assert zombie.last("error") == "fenced-out"
    assert f"attempt-{job.epoch}" in zombie.last("cause")
    await_ends(freezer.uploaders)
    check_restored(zombie, job.forge)
    assert job.standing() == before + 2


@pytest.mark.parametrize("at", [CHUNK, RECORD], ids=str)
def test_a_dead_trainings_uploader_is_fenced_out(job: Job, freezer: Freezer, at: Address) -> None:
    """It ends by itself, and its save does not count."""
    before = job.standing()
    freezer.kills_training = True
    zombie = freeze(job, at, freezer)
    assert zombie.wait() == -signal.SIGKILL
    assert job.run(steps=2).code == 0
    freezer.thaw()
    await_ends(freezer.uploaders)
    assert job.standing() == before + 2


def test_what_was_committed_before_the_claim_counts(job: Job, freezer: Freezer) -> None:
    """Stopped right after its commit: the successor builds on it, and the zombie is fenced out."""
    before = job.standing()
    zombie = freeze(job, RECORD, freezer, after=True)
    successor = job.run(steps=2)
    assert successor.last("restored") == before + 1
    freezer.thaw()
    assert zombie.wait() == ENDED_BY_ERROR
    assert zombie.last("error") == "fenced-out"
    assert job.standing() == before + 3


def test_a_commit_that_was_held_up_in_the_network_does_not_count(job: Job) -> None:
    """A record that arrives after the successor's claim finds its number taken."""
    before = job.standing()
    release = threading.Event()
    job.proxy.script(RECORD.rule(Hold(release)))
    zombie = job.start()
    job.proxy.wait_for(lambda: any(one.fault for one in job.proxy.requests), limit_s=LIMIT_S)
    successor = job.start(steps=2)
    assert successor.wait() == 0
    assert successor.last("restored") == before
    release.set()
    assert zombie.wait() == ENDED_BY_ERROR
    assert zombie.last("error") == "fenced-out"
    assert job.standing() == before + 2

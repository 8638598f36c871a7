"""Real processes, a real S3 server: the training, its uploader, or both are killed at each request.

A chain: every attempt of one job goes on from where its predecessor was killed, compares what it
restored with the uninterrupted training, and is killed at the next request. The requests come from
a recording, so that a request that is added to a save is a case more.

To die after one request is to die before the next one, as the store sees it; so the instant after
is a case of its own only for the commit, the last one. `-m "integration and slow"` has the rest.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from typing import Final

import pytest

from tests.faults import After, Before
from tests.integration.crash_forge import Attempt
from tests.integration.crash_job import (
    LIMIT_S,
    OPENING,
    Address,
    Job,
    Requests,
    await_ends,
    check_restored,
    job_on,
    like,
    send,
    uploaders_of,
)
from tests.s3_server import S3Server, s3_server

__all__ = ["s3_server"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

PARTS: Final = 3
"""Each chain is cut into so many tests."""
SOME: Final = [0, *(pytest.param(part, marks=pytest.mark.slow) for part in range(1, PARTS))]
"""The whole node is lost at every request; of the rest, CI takes every third."""


@pytest.fixture(scope="module")
def job(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    """The job of this module."""
    with job_on(s3_server, tmp_path_factory.mktemp("kills")) as found:
        yield found


@pytest.fixture(scope="module")
def requests(job: Job) -> Requests:
    """What an attempt asks."""
    found = job.record()
    assert {one.kind for one in found.start} >= {"probes", "commits", "manifests", "chunks"}
    assert {one.kind for one in found.save} >= {"chunks", "manifests", "commits", "sweeps"}
    return found


class Killer:
    """Kills the training of an attempt, its uploader, or both."""

    def __init__(self, *victims: str) -> None:
        """`victims`: `training`, `uploader`."""
        self._victims = victims
        self._started = threading.Event()
        self._pid = 0
        self.uploaders: list[int] = []
        self.struck = False

    def aim(self, pid: int) -> None:
        """Name the training."""
        self._pid = pid
        self._started.set()

    def strike(self) -> None:
        """Kill now."""
        assert self._started.wait(LIMIT_S)
        self.uploaders = uploaders_of(self._pid)
        if "uploader" in self._victims:
            send(signal.SIGKILL, self.uploaders)
        if "training" in self._victims:
            send(signal.SIGKILL, [self._pid])
        self.struck = True


def killed(job: Job, at: Address, *victims: str, after: bool = False) -> Attempt:
    """Run an attempt whose `victims` die at a request, until nothing of it is left."""
    killer = Killer(*victims)
    job.proxy.script(at.rule((After if after else Before)(killer.strike)))
    attempt = job.start(steps=2)
    killer.aim(attempt.pid)
    attempt.code = attempt.wait()
    await_ends(killer.uploaders)
    assert killer.struck, (str(at), [like(one) for one in job.proxy.requests])
    check_restored(attempt, job.forge)
    return attempt


@pytest.mark.parametrize("part", SOME)
def test_a_kill_before_training_costs_nothing(job: Job, requests: Requests, part: int) -> None:
    """Whichever request of its start an attempt dies at, the next one is as well off."""
    before = job.standing()
    for at in requests.start[part::PARTS]:
        assert killed(job, at, "training").code == -signal.SIGKILL
    assert job.standing() == before


@pytest.mark.parametrize("part", range(PARTS))
def test_training_and_uploader_die_at_any_request(job: Job, requests: Requests, part: int) -> None:
    """The node is gone: what was not committed never counts."""
    before = job.standing()
    for at in (OPENING, *requests.save)[part::PARTS]:
        attempt = killed(job, at, "training", "uploader")
        assert attempt.last("restored") in {before, None}, str(at)
    assert job.standing() == before


def test_a_commit_whose_answer_nobody_heard_counts(job: Job, requests: Requests) -> None:
    """Both die after the store took the commit record: that step is safe."""
    before = job.standing()
    killed(job, requests.save[-1], "training", "uploader", after=True)
    assert job.standing() == before + 1


@pytest.mark.parametrize("part", SOME)
def test_the_uploader_finishes_what_a_dead_training_handed_over(
    job: Job, requests: Requests, part: int
) -> None:
    """A snapshot is safe from the moment at which training goes on."""
    before = job.standing()
    chosen = requests.handed_over[part::PARTS][:2]  # the instant decides little here
    for at in chosen:
        attempt = killed(job, at, "training")
        assert attempt.code == -signal.SIGKILL
    assert job.standing() == before + len(chosen)


@pytest.mark.parametrize("part", SOME)
def test_training_outlives_its_uploader(job: Job, requests: Requests, part: int) -> None:
    """The save in flight is lost and told as lost; the next one has a new uploader."""
    before = job.standing()
    for at in (OPENING, *requests.save)[part::PARTS]:
        attempt = killed(job, at, "uploader", after=at == requests.save[-1])
        assert attempt.code == 0, attempt.told("cause")
        assert (attempt.last("restored"), attempt.last("failures")) == (before, 1), str(at)
        before += 2
    assert job.standing() == before

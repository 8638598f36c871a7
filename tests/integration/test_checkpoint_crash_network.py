"""Slow, throttling and lying networks before a real S3 server: no save is lost to what passes.

Of each save one request goes wrong, in each save another one, until each has; of a start, each
request goes wrong the first time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

import pytest

from tests.faults import (
    After,
    Before,
    Delay,
    Duplicate,
    Fault,
    Flip,
    HalfRequest,
    HalfResponse,
    Refuse,
    Request,
    Rule,
)
from tests.integration.crash_job import Address, Job, job_on, like
from tests.s3_server import S3Server, s3_server

__all__ = ["s3_server"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

READS: Final = frozenset({"GET"})
FAULTS: Final[tuple[Fault, ...]] = (
    Before(),
    After(),
    Refuse(503, "SlowDown"),
    HalfRequest(),
    HalfResponse(),
    Flip(),
    Duplicate(heard=2),
)
# These differ from their neighbours by little: CI is spared them.
MORE_FAULTS: Final[tuple[Fault, ...]] = (
    Before(reset=True),
    After(reset=True),
    Refuse(500, "InternalError"),
    Duplicate(heard=1),
    Delay(0.1),
)


CHOSEN: Final = [*FAULTS, *(pytest.param(one, marks=pytest.mark.slow) for one in MORE_FAULTS)]


@pytest.fixture(scope="module")
def job(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    """The job of this module."""
    with job_on(s3_server, tmp_path_factory.mktemp("network")) as found:
        yield found


@pytest.fixture(scope="module")
def save(job: Job) -> tuple[Address, ...]:
    """The requests of a save."""
    return job.record_saves()


def can_meet(fault: Fault, request: Request) -> bool:
    """A bit that flips in a listing may change a name, which only a checksum could tell."""
    return not isinstance(fault, Flip) or request.method in READS


class OncePerSave:
    """Spoils one request of each save."""

    def __init__(self, fault: Fault, addresses: tuple[Address, ...]) -> None:
        """Spoil each of `addresses`, counted within a save, in some save."""
        self.fault = fault
        self.left = list(addresses)
        self._seen: Counter[tuple[str, str]] = Counter()
        self._previous: Request | None = None
        self._spoilt = False

    def takes(self, request: Request) -> bool:
        """Whether it is time, and the request one that was not spoilt yet."""
        if self._previous is not None and _ends_save(self._previous):
            self._seen.clear()
            self._spoilt = False
        self._previous = request
        at = Address(*like(request), skip=self._seen[like(request)])
        self._seen[like(request)] += 1
        if self._spoilt or at not in self.left or not can_meet(self.fault, request):
            return False
        self.left.remove(at)
        self._spoilt = True
        return True


def _ends_save(request: Request) -> bool:
    return like(request) == ("PUT", "commits") and request.status in {200, 412}


class FirstTries:
    """Spoils each request the first time that it is made."""

    def __init__(self, fault: Fault) -> None:
        """Spoil by `fault`."""
        self.fault = fault
        self.count = 0
        self._made: set[tuple[str, str]] = set()

    def takes(self, request: Request) -> bool:
        """Whether it is new."""
        made = (request.method, request.key)
        if made in self._made or not can_meet(self.fault, request):
            return False
        self._made.add(made)
        self.count += 1
        return True


@pytest.mark.parametrize("fault", CHOSEN, ids=repr)
def test_no_save_fails_of_a_fault_that_passes(
    job: Job, save: tuple[Address, ...], fault: Fault
) -> None:
    """Every save is committed, and the training goes on from the last of them, byte for byte."""
    before = job.standing()
    wanted = tuple(at for at in save if can_meet(fault, Request(0, at.method, at.kind)))
    script = OncePerSave(fault, wanted)
    steps = len(wanted) + 1
    attempt = job.run(script, steps=steps)
    assert script.left == []
    assert attempt.code == 0, attempt.told("cause")
    assert (attempt.last("saves"), attempt.last("failures")) == (steps, 0)
    assert job.standing() == before + steps


@pytest.mark.parametrize("fault", CHOSEN, ids=repr)
def test_a_start_meets_every_fault_once(job: Job, fault: Fault) -> None:
    """Whatever passes costs a start no commit: it restores the newest one."""
    before = job.run(steps=1).last("restored") + 1
    script = FirstTries(fault)
    attempt = job.run(script, steps=0)
    assert attempt.code == 0, attempt.told("cause")
    assert script.count >= 5
    assert attempt.last("restored") == before


@pytest.mark.slow
def test_an_outage_costs_a_save_and_no_training(job: Job) -> None:
    """The store refuses a save for long: it fails and is told, and the next one is good."""
    before = job.standing()
    outage = Rule(Refuse(), method="PUT", key="manifests", times=8)
    attempt = job.run(outage, steps=2)
    assert attempt.code == 0, attempt.told("cause")
    assert (attempt.last("saves"), attempt.last("failures")) == (1, 1)
    assert job.standing() == before + 2

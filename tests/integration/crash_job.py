"""One job on a real S3 server behind the fault proxy, attempt after attempt."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

import psutil

from tests.fault_proxy import FaultProxy, faulty
from tests.faults import Fault, Request, Rule, Script
from tests.integration.crash_forge import Attempt, Forge, digests, forge_in
from tests.s3_server import S3Server

TOTAL: Final = 200
KINDS: Final = re.compile("chunks|commits|manifests|parts|intents|pins|probes|sweeps")
LIMIT_S: Final = 30.0
_NUMBERS: Final = count()


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """A request that every attempt makes, however it is numbered."""

    method: str
    kind: str
    skip: int = 0
    """How many like it come before it."""

    def rule(self, fault: Fault) -> Rule:
        """Spoil exactly this request."""
        return Rule(fault, method=self.method, key=self.kind, skip=self.skip)

    def __str__(self) -> str:
        """For messages."""
        return f"{self.method} {self.kind} {self.skip}"


def like(request: Request) -> tuple[str, str]:
    """What a request has in common with those of its kind."""
    found = KINDS.search(request.key)
    return request.method, found.group() if found else "$"


def addresses(requests: Iterable[Request]) -> tuple[Address, ...]:
    """Address each request; of the log's records, which grow in number, the first and no more."""
    seen: Counter[tuple[str, str]] = Counter()
    found = []
    for request in requests:
        kind = like(request)
        if kind != ("GET", "commits") or not seen[kind]:
            found.append(Address(*kind, skip=seen[kind]))
        seen[kind] += 1
    return tuple(found)


OPENING: Final = Address("LIST", "$", skip=1)
"""The uploader's first request, some time while the training starts."""


@dataclass(frozen=True, slots=True)
class Requests:
    """What an attempt asks of its store, in order."""

    start: tuple[Address, ...]
    """By the training: probe, claim, log, restore."""
    save: tuple[Address, ...]
    """By the uploader: a pin on the restore point, then the first save up to its commit."""

    @property
    def handed_over(self) -> tuple[Address, ...]:
        """Those of `save` from the first chunk on: by then there surely is a snapshot."""
        first = next(n for n, one in enumerate(self.save) if one.kind == "chunks")
        return self.save[first:]


@dataclass(slots=True)
class Job:
    """The attempts of one job; each goes on from where the last one got to."""

    forge: Forge
    proxy: FaultProxy
    environment: dict[str, str]
    uri: str
    epoch: int = 0
    _stood: tuple[int, int] = (0, 0)
    """Of which attempt `standing` knows, and what it said."""
    folder: str = field(default_factory=lambda: f"job-{next(_NUMBERS)}")

    def start(self, *, steps: int = TOTAL, **order: Any) -> Attempt:
        """Start the next attempt; it trains `steps` steps from its restore point."""
        self.epoch += 1
        variables = {
            "LOWTIDE_JOB_ID": "job",
            "LOWTIDE_ATTEMPT_ID": f"attempt-{self.epoch}",
            "LOWTIDE_EPOCH": str(self.epoch),
            "LOWTIDE_CHECKPOINT_URI": f"{self.uri}/{self.folder}",
        }
        env = {**self.environment, **variables}
        return self.forge.start(env=env, total=TOTAL, steps=steps, **order)

    def run(self, *rules: Script, steps: int) -> Attempt:
        """Run an attempt under a script, to its end; raise if what it restored is not exact."""
        self.proxy.script(*rules)
        attempt = self.start(steps=steps)
        attempt.code = attempt.wait()
        check_restored(attempt, self.forge)
        return attempt

    def record(self) -> Requests:
        """Let an attempt resume and save once, and sort what it asked."""
        assert self.run(steps=2).code == 0
        assert self.run(steps=1).code == 0
        asked = self.proxy.requests
        read = max(one.number for one in asked if like(one) == ("GET", "chunks"))
        every = addresses(asked)
        last = max(n for n, one in enumerate(every) if (one.method, one.kind) == ("PUT", "commits"))
        first = len(addresses(asked[: read + 1]))
        start = tuple(one for one in every[:first] if one != OPENING)
        return Requests(start, every[first : last + 1])

    def record_saves(self) -> tuple[Address, ...]:
        """Address the requests of one save amid others, by their places within it."""
        assert self.run(steps=3).code == 0
        asked = self.proxy.requests
        ends = [one.number for one in asked if like(one) == ("PUT", "commits")]
        return tuple(dict.fromkeys(addresses(asked[ends[-2] + 1 : ends[-1] + 1])))

    def standing(self) -> int:
        """Where the job goes on from, by an attempt that trains nothing."""
        if self._stood[0] != self.epoch:
            found = self.run(steps=0)
            assert found.code == 0, (found.told("cause"), self.forge.log)
            self._stood = self.epoch, int(found.last("restored"))
        return self._stood[1]


def check_restored(attempt: Attempt, forge: Forge) -> None:
    """What an attempt restored is, byte for byte, what an uninterrupted training has there."""
    for step, digest in zip(attempt.told("restored"), attempt.told("digest"), strict=True):
        assert digest == digests(TOTAL)[step], (step, forge.log)


def uploaders_of(pid: int) -> list[int]:
    """The processes that a training has started."""
    with suppress(psutil.NoSuchProcess):
        return [child.pid for child in psutil.Process(pid).children()]
    return []


def send(number: signal.Signals, pids: Iterable[int]) -> None:
    """Signal those that are still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def await_ends(pids: Iterable[int], *, limit_s: float = LIMIT_S) -> None:
    """Wait until none of these processes runs any more."""
    alive = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    _, left = psutil.wait_procs(alive, timeout=limit_s)
    assert not left, left


@contextmanager
def job_on(server: S3Server, folder: Path) -> Iterator[Job]:
    """A job of its own, with its proxy and its forge."""
    with forge_in(folder) as forge, faulty(server) as (proxy, environment):
        yield Job(forge, proxy, environment, f"s3://{server.bucket}")

"""Two real ranks over gloo on a real S3 server: one dies at each of its requests of a save.

Each rank reaches the store through a proxy of its own, so a request says who made it.
"""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from checkpointing.commit_log import CommitLog
from checkpointing.storage import open_storage
from tests.fault_proxy import FaultProxy, faulty
from tests.faults import Before
from tests.integration.crash_forge import Attempt, Forge, forge_in
from tests.integration.crash_job import LIMIT_S, Address, addresses, like, send, uploaders_of
from tests.s3_server import S3Server, s3_server

__all__ = ["s3_server"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

WORLD: Final = 2
STEPS: Final = 10
PARTS: Final = 2
LAST_OF_SAVE: Final = {0: ("PUT", "commits"), 1: ("PUT", "parts")}


@dataclass(slots=True)
class Gang:
    """The attempts of one job of two ranks."""

    forge: Forge
    proxies: Sequence[FaultProxy]
    environments: Sequence[dict[str, str]]
    folder: Path
    uri: str
    epoch: int = 0

    def start(self, *, steps: int) -> list[Attempt]:
        """Start both ranks of the next attempt."""
        self.epoch += 1
        variables = {
            "LOWTIDE_JOB_ID": "gang",
            "LOWTIDE_EPOCH": str(self.epoch),
            "LOWTIDE_CHECKPOINT_URI": self.uri,
        }
        for rank in range(WORLD):
            self._file(rank).unlink(missing_ok=True)
        return [
            self.forge.start(
                env={**environment, **variables},
                rank=rank,
                folder=str(self.folder),
                meeting=str(self.folder / f"meeting-{self.epoch}"),
                options={"steps": steps},
            )
            for rank, environment in enumerate(self.environments)
        ]

    def run(self, *, steps: int) -> list[str]:
        """Run an attempt to its good end; return what the ranks said."""
        for proxy in self.proxies:
            proxy.script()
        codes = [rank.wait() for rank in self.start(steps=steps)]
        assert codes == [0, 0], (self.said(), self.forge.log)
        return self.said()

    def said(self) -> list[str]:
        """What each rank said at its end."""
        files = [self._file(rank) for rank in range(WORLD)]
        return [path.read_text() if path.exists() else "" for path in files]

    def committed(self) -> list[int]:
        """The steps that count, newest first."""
        log = CommitLog(open_storage(self.uri), job_id="gang")
        return [record.step for record in log.history().commits]

    def save_of(self, rank: int) -> tuple[Address, ...]:
        """What a rank asked in the first save of the attempt that ran last."""
        asked = self.proxies[rank].requests
        read = max(one.number for one in asked if like(one) == ("GET", "chunks"))
        last = next(one.number for one in asked[read:] if like(one) == LAST_OF_SAVE[rank])
        found = addresses(asked[: last + 1])[len(addresses(asked[: read + 1])) :]
        # How often rank 0 looks for the parts is chance.
        return tuple(one for one in found if one.kind not in {"$", "parts"} or one.skip == 0)

    def _file(self, rank: int) -> Path:
        return self.folder / f"rank-{rank}.txt"


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    """One forge for all."""
    with forge_in(tmp_path_factory.mktemp("forge")) as found:
        yield found


@pytest.fixture(scope="module")
def gang(
    s3_server: S3Server, forge: Forge, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gang]:
    """A job with commits."""
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in s3_server.environment().items():
            patch.setenv(name, value)
        found = [stack.enter_context(faulty(s3_server)) for _ in range(WORLD)]
        proxies, environments = [one for one, _ in found], [env for _, env in found]
        folder, uri = tmp_path_factory.mktemp("gang"), f"s3://{s3_server.bucket}/gang"
        job = Gang(forge, proxies, environments, folder, uri)
        job.run(steps=2)
        yield job


@pytest.fixture(scope="module")
def saves(gang: Gang) -> dict[int, tuple[Address, ...]]:
    """What each rank asks in a save."""
    gang.run(steps=4)
    found = {rank: gang.save_of(rank) for rank in range(WORLD)}
    assert {one.kind for one in found[0]} >= {"chunks", "parts", "manifests", "commits"}
    assert {one.kind for one in found[1]} >= {"chunks", "parts"}
    return found


@pytest.fixture(scope="module")
def whole(forge: Forge, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The digests of an uninterrupted training of both ranks."""
    folder = tmp_path_factory.mktemp("whole")
    return digests_of(Gang(forge, (), ({}, {}), folder, str(folder / "store")).run(steps=STEPS))


def digests_of(said: Sequence[str]) -> list[str]:
    """The final weights of each rank."""
    return [line.split()[1] for line in said]


class NodeLoss:
    """Kills a rank and its uploader at a request of it."""

    def __init__(self, rank: int, *, ends_other: bool) -> None:
        """Of the gang's `rank`; `ends_other`: as a worker does, also the other rank's training."""
        self._rank = rank
        self._ends_other = ends_other
        self._started = threading.Event()
        self._ranks: list[Attempt] = []
        self.survivors: list[int] = []

    def aim(self, ranks: list[Attempt]) -> None:
        """Name the attempt."""
        self._ranks = ranks
        self._started.set()

    def strike(self) -> None:
        """Kill; remember the other rank's uploader."""
        assert self._started.wait(LIMIT_S)
        lost, other = self._ranks[self._rank], self._ranks[1 - self._rank]
        self.survivors = uploaders_of(other.pid)
        send(signal.SIGKILL, [*uploaders_of(lost.pid), lost.pid])
        if self._ends_other:
            send(signal.SIGKILL, [other.pid])


def lose_a_node(gang: Gang, rank: int, at: Address, *, ends_other: bool = True) -> list[int]:
    """Run an attempt of which a rank dies at a request; return how both ended."""
    loss = NodeLoss(rank, ends_other=ends_other)
    gang.proxies[1 - rank].script()
    gang.proxies[rank].script(at.rule(Before(loss.strike)))
    ranks = gang.start(steps=STEPS)
    loss.aim(ranks)
    codes = [one.wait() for one in ranks]
    assert loss.survivors, (str(at), gang.said(), gang.forge.log)
    send(signal.SIGKILL, loss.survivors)  # rank 0's would wait for the part until its deadline
    return codes


@pytest.mark.parametrize("part", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("rank", range(WORLD))
def test_a_rank_that_dies_in_a_save_leaves_no_commit(
    gang: Gang, saves: dict[int, tuple[Address, ...]], rank: int, part: int
) -> None:
    """At each of its requests: nothing of the save counts, though one half of it may be stored."""
    before = gang.committed()
    for at in saves[rank][part::PARTS]:
        assert lose_a_node(gang, rank, at) == [-signal.SIGKILL, -signal.SIGKILL]
        assert gang.committed() == before, str(at)


def test_the_other_rank_does_not_hang(gang: Gang, saves: dict[int, tuple[Address, ...]]) -> None:
    """Rank 0 is lost before it commits: rank 1, which nobody ends, ends by itself with an error."""
    codes = lose_a_node(gang, 0, saves[0][-1], ends_other=False)
    assert codes == [-signal.SIGKILL, 1]


@pytest.mark.slow
def test_the_first_rank_gives_up_at_its_deadline(
    gang: Gang, saves: dict[int, tuple[Address, ...]]
) -> None:
    """Rank 1 is lost before it leaves its part: rank 0 waits for it for two minutes, no longer."""
    before = gang.committed()
    assert lose_a_node(gang, 1, saves[1][-1], ends_other=False) == [1, -signal.SIGKILL]
    assert gang.committed() == before


def test_after_all_that_both_ranks_end_byte_equal(gang: Gang, whole: list[str]) -> None:
    """The next attempt goes on from the newest commit and ends like one that nobody disturbed."""
    newest = gang.committed()[0]
    said = gang.run(steps=STEPS)
    assert digests_of(said) == whole
    restored = [int(found[1]) for line in said if (found := re.search(r"from (\d+)", line))]
    assert restored == [newest, newest]

"""A submitted job, as its owner holds it: something like a ``Future``."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

from pydantic import ValidationError

from jobs.codec import from_data
from jobs.errors import LowtideError, UnknownSubjectError
from jobs.quotes import Quoted
from jobs.rows import AttemptRow, JobRow
from jobs.states import JOB_ENDS, JobState

if TYPE_CHECKING:
    from jobs.client import Client

POLL_S = 0.5
OUTAGE_S = 600.0  # how long following a job outlives its server's absence


class JobFailedError(LowtideError):
    """The job ended without success, so there is no result."""

    code = "job-failed"


class VersionSkewError(LowtideError):
    """The server's answer has a shape that this version of the client does not know."""

    code = "version-skew"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChunk:
    """Some output of one rank of one attempt."""

    attempt: int
    data: str


class Job:
    """A job on the server. What changes is asked for anew: ``state``, ``cost``, ``explain()``."""

    def __init__(self, client: Client, data: dict[str, Any]) -> None:
        """Keep the row as the server gave it; ``Client`` makes these."""
        self._client = client
        self.data = data

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.data['state']}>"

    @property
    def id(self) -> str:
        """The job's id."""
        return str(self.data["id"])

    @property
    def row(self) -> JobRow:
        """The job as last heard of.

        Raises:
            VersionSkewError: the server is of another version.
        """
        row: JobRow = decoded(self.data, into=JobRow)
        return row

    @property
    def state(self) -> JobState:
        """The job's state now."""
        return JobState(self.refresh().data["state"])

    @property
    def ended(self) -> bool:
        """Whether the job was over when last heard of."""
        return self.data["state"] in JOB_ENDS

    @property
    def quote(self) -> Quoted | None:
        """What it was quoted at its submission; None without a quote (yet)."""
        data = self._client.about(self.id, "quote")["quoted"]
        return None if data is None else decoded(data, into=Quoted)

    def explain(self) -> dict[str, Any]:
        """Why the job is as it is: reason, sentence, place in the queue, what else there is for it.

        ``releases`` names what would let a waiting job start, with the money that each costs.
        """
        return self._client.about(self.id, "explain")

    @property
    def cost(self) -> dict[str, Any]:
        """The statement: money and GPU time by class, so far."""
        return self._client.cost(self.id)

    @property
    def attempts(self) -> list[AttemptRow]:
        """The attempts made so far, oldest first."""
        rows = self._client.detail(self.id)["attempts"]
        return [decoded(row, into=AttemptRow) for row in rows]

    def refresh(self, *, patience_s: float | None = None) -> Job:
        """Ask the server anew (unless the job is over), and give this job."""
        if not self.ended:
            path = f"/v1/jobs/{self.id}"
            answer = self._client.transport.json("GET", path, patience_s=patience_s)
            self.data = answer["job"]
        return self

    def wait(self, timeout: float | None = None) -> JobState:
        """Wait for the end, also over restarts of the server, and give the final state.

        Raises:
            TimeoutError: it has not ended after ``timeout`` seconds.
        """
        limit = None if timeout is None else _now_s() + timeout
        while not self.refresh(patience_s=_patience(limit)).ended:
            if limit is not None and _now_s() >= limit:
                raise TimeoutError(f"job {self.id} has not ended after {timeout} s")
            pause_s = POLL_S if limit is None else min(POLL_S, max(0.0, limit - _now_s()))
            threading.Event().wait(pause_s)
        return JobState(self.data["state"])

    def result(self, timeout: float | None = None) -> JobRow:
        """Wait for success and give the final row.

        Raises:
            JobFailedError: the job failed or was cancelled.
            TimeoutError: it has not ended after ``timeout`` seconds.
        """
        state = self.wait(timeout)
        if state is not JobState.SUCCEEDED:
            raise JobFailedError(
                f"Job {self.id} {state}: {self.data['sentence'] or self.data['reason']}.",
                remedy=f"Read its output: `lowtide logs {self.id}`.",
            )
        return self.row

    def cancel(self) -> None:
        """Ask for the job's end; a live attempt is told to stop."""
        self._client.act(self.id, "cancel")

    def pause(self) -> None:
        """Hold the job; a live attempt saves first."""
        self._client.act(self.id, "pause")

    def resume(self) -> None:
        """Let a paused job go on."""
        self._client.act(self.id, "resume")

    @overload
    def logs(self, *, follow: Literal[False] = False, rank: int = 0) -> str: ...

    @overload
    def logs(self, *, follow: Literal[True], rank: int = 0) -> Iterator[str]: ...

    def logs(self, *, follow: bool = False, rank: int = 0) -> str | Iterator[str]:
        """Give the output of one rank over all attempts: text, or live pieces of it."""
        pieces = (chunk.data for chunk in self.log_chunks(follow=follow, rank=rank))
        return pieces if follow else "".join(pieces)

    def log_chunks(
        self, *, follow: bool = False, rank: int = 0, attempt: int | None = None
    ) -> Iterator[LogChunk]:
        """Give output with its attempt's number; following ends when the job (attempt) does.

        Raises:
            UnknownSubjectError: there is no such attempt.
        """
        number = attempt or 1
        while self._has(number, follow=follow, wanted=attempt):
            yield from self._attempt_chunks(number, rank=rank, follow=follow)
            if attempt is not None:
                return
            number += 1

    def _has(self, number: int, *, follow: bool, wanted: int | None) -> bool:
        """Wait for an attempt to exist, if anybody wants to wait."""
        while True:
            made = int(self.refresh(patience_s=OUTAGE_S if follow else None).data["attempts"])
            if number <= made:
                return True
            if self.ended or not follow:
                break
            threading.Event().wait(POLL_S)
        if wanted is not None:
            raise UnknownSubjectError(
                f"Job {self.id} has no attempt {wanted}; it has made {made}.",
                remedy=f"List them with `lowtide show {self.id}`.",
            )
        return False

    def _attempt_chunks(self, number: int, *, rank: int, follow: bool) -> Iterator[LogChunk]:
        offset = 0
        while True:
            page = self._client.transport.json(
                "GET",
                f"/v1/jobs/{self.id}/logs",
                params={"rank": rank, "attempt": number, "offset": offset},
                patience_s=OUTAGE_S if follow else None,
            )
            moved, offset = page["next"] != offset, page["next"]
            if page["data"]:
                yield LogChunk(attempt=number, data=page["data"])
            if page["done"] or not (moved or follow):
                return
            if not moved:
                threading.Event().wait(POLL_S)


def decoded(data: object, *, into: Any) -> Any:  # noqa: ANN401 - any row
    """Read a row as the server gave it.

    Raises:
        VersionSkewError: it has a shape that this version does not know.
    """
    try:
        return from_data(data, into=into)
    except ValidationError as error:
        raise VersionSkewError(
            f"The server's answer has an unknown shape ({error.error_count()} fields).",
            remedy="Install the server's version of lowtide: `lowtide version` shows both.",
        ) from error


def _now_s() -> float:
    return time.monotonic()  # noqa: TID251 - the SDK has no scheduler's clock


def _patience(limit: float | None) -> float:
    return OUTAGE_S if limit is None else max(0.0, min(OUTAGE_S, limit - _now_s()))

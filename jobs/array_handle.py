"""A submitted array, as its owner holds it: its jobs, and what is done to all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from jobs.states import JobState

if TYPE_CHECKING:
    from jobs.client import Client
    from jobs.handle import Job


class Array:
    """The jobs of one array, in order of the index."""

    def __init__(self, client: Client, jobs: Sequence[Job]) -> None:
        """Keep the elements as the server gave them; ``Client`` makes these."""
        self._client = client
        self.jobs = list(jobs)

    def __repr__(self) -> str:
        return f"<Array {self.id} of {len(self)}>"

    def __len__(self) -> int:
        return len(self.jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(self.jobs)

    def __getitem__(self, index: int) -> Job:
        return self.jobs[index]

    @property
    def id(self) -> str:
        """The array's id; ``after=[array.id]`` means all of its elements."""
        return str(self.jobs[0].data["array"]["id"])

    @property
    def counts(self) -> dict[str, int]:
        """How many elements are in which state now."""
        self.jobs = self._client.array(self.id).jobs
        return dict(Counter(job.data["state"] for job in self.jobs))

    def wait(self) -> dict[str, int]:
        """Wait for the end of every element, and give the counts by state."""
        return dict(Counter(job.wait() for job in self.jobs))

    @property
    def succeeded(self) -> bool:
        """Whether every element has succeeded, as last heard of."""
        return all(job.data["state"] == JobState.SUCCEEDED for job in self.jobs)

    def cancel(self) -> None:
        """End every element that is not over."""
        self._client.act_all(self.id, "cancel")

    def pause(self) -> None:
        """Hold every element; live attempts save first."""
        self._client.act_all(self.id, "pause")

    def resume(self) -> None:
        """Let held elements go on."""
        self._client.act_all(self.id, "resume")

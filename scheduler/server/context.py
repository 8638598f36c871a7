"""What the routers share: settings, store, storage, who leads, and the way to the loop."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request, Response

from checkpointing.storage import Storage
from jobs.codec import encode
from jobs.errors import UnknownSubjectError, UnreachableError
from jobs.rows import JobRow
from jobs.store import JobStore
from scheduler.agent_link import AgentLinkDriver
from scheduler.commands import Command
from scheduler.server.leadership import Leadership, Term
from scheduler.settings import Settings

COMMAND_LIMIT_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The parts of a running server."""

    settings: Settings
    store: JobStore
    storage: Storage
    storage_uri: str  # as agents and trainings open it
    link: AgentLinkDriver
    leadership: Leadership
    stopping: threading.Event = field(default_factory=threading.Event)

    async def call(self, command: Command) -> Any:  # noqa: ANN401 - a row, by the command's kind
        """Carry out a command in the next tick of the loop, and wait for its commit.

        Raises:
            NotLeaderError: another server leads.
            UnreachableError: the loop did not answer in time; the command may still happen.
            LowtideError: what refused it.
        """
        return await settled(self.leadership.term(), command)

    def job(self, job_id: str) -> JobRow:
        """Give a job.

        Raises:
            UnknownSubjectError: there is none.
        """
        row = self.store.job(job_id)
        if row is None:
            raise UnknownSubjectError(
                f"There is no job '{job_id}'.", remedy="`lowtide ls` lists the jobs."
            )
        return row


async def settled(term: Term, command: Command) -> Any:  # noqa: ANN401 - as Context.call
    """Give a command to the loop of a term and wait until it is committed or refused."""
    # Shielded: a client that hangs up must not cancel what the loop may be committing.
    answer = asyncio.shield(asyncio.wrap_future(term.mailbox.call(command)))
    try:
        return await asyncio.wait_for(answer, COMMAND_LIMIT_S)
    except TimeoutError as error:
        raise UnreachableError(
            f"The scheduler did not answer within {COMMAND_LIMIT_S:.0f} s.",
            remedy="Try again with the same Idempotency-Key; look into the server's log.",
        ) from error


def _of_request(request: Request) -> Context:
    context = request.app.state.context
    assert isinstance(context, Context)
    return context


InContext = Annotated[Context, Depends(_of_request)]
"""A router parameter: the running server's parts."""


def answer(value: object, *, status: int = 200) -> Response:
    """Answer with our own codec, so that every surface writes a row alike."""
    return Response(encode(value), status_code=status, media_type="application/json")

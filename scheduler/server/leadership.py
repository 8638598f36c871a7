"""One server leads, the others follow: they answer reads and keep trying for the lease.

The leader runs the controller in one thread. A controller that loses its lease makes this server
a follower again; one that crashes ends the process, so that a supervisor starts it afresh.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from cluster.inbox import Inbox
from jobs.errors import FencedError
from scheduler.commands import Mailbox
from scheduler.controller import Controller
from scheduler.server.errors import NotLeaderError

RETRY_S = 1.0
_log = structlog.get_logger("lowtide.leadership")


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One stay in office: the controller, and the ways into its loop."""

    controller: Controller
    inbox: Inbox
    mailbox: Mailbox


class Leadership:
    """Runs the controller whenever this server leads."""

    def __init__(
        self,
        *,
        leader: Callable[[], str],
        new_term: Callable[[], Term],
        on_lead: Callable[[], None],
        on_crash: Callable[[], None],
    ) -> None:
        """Nothing starts yet.

        Args:
            leader: names who leads, for people; "" when unknown.
            new_term: makes a controller with its inbox and mailbox.
            on_lead: called when a term begins.
            on_crash: called once when the controller has crashed; see ``crash``.
        """
        self._leader = leader
        self._new_term = new_term
        self._on_lead = on_lead
        self._on_crash = on_crash
        self._stop = threading.Event()
        self._term: Term | None = None
        self._thread = threading.Thread(target=self._serve, name="controller")
        self.crash: Exception | None = None

    @property
    def leads(self) -> bool:
        """Whether this server leads now."""
        return self._term is not None

    def term(self) -> Term:
        """Give the term in office.

        Raises:
            NotLeaderError: another server leads, or nobody yet.
        """
        term = self._term
        if term is None:
            leader = self._leader()
            raise NotLeaderError(
                f"This server does not lead; {leader} does."
                if leader
                else "This server does not lead now.",
                remedy="Send it to the leader, or try again in a few seconds.",
            )
        return term

    def start(self) -> None:
        """Begin to try for the lease."""
        self._thread.start()

    def stop(self) -> None:
        """End the loop after its present tick and wait for that."""
        self._stop.set()
        term = self._term
        if term is not None:
            term.inbox.wake()
        if self._thread.is_alive():
            self._thread.join()

    def _serve(self) -> None:
        try:
            while not self._stop.is_set():
                self._try_to_lead()
                self._stop.wait(RETRY_S)
        except Exception as error:  # noqa: BLE001 - the thread's boundary
            # The cause is kept, and the whole process ends with it.
            self.crash = error
            _log.critical("the controller crashed", exc_info=True)
            self._on_crash()

    def _try_to_lead(self) -> None:
        term = self._new_term()
        if not term.controller.start():
            return
        self._term = term
        self._on_lead()
        _log.info("this server leads")
        try:
            term.controller.run(self._stop)
        except FencedError as error:
            _log.warning("this server leads no more", cause=error.cause)
        finally:
            self._term = None
            _refuse_rest(term)


def _refuse_rest(term: Term) -> None:
    """Answer the commands that came too late for the loop."""
    for _, future in term.mailbox.drain():
        future.set_exception(
            NotLeaderError(
                "This server stopped leading before it came to this.",
                remedy="Send it again; with the same Idempotency-Key nothing is done twice.",
            )
        )

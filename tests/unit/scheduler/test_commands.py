"""The mailbox and the inbox: nothing that comes in is slept through."""

from __future__ import annotations

import time

from cluster.inbox import Inbox
from scheduler.commands import Barrier, Mailbox


def test_what_comes_in_during_a_tick_wakes_the_next_one() -> None:
    """A command between the two drains of a tick does not wait for the next renewal."""
    inbox = Inbox()
    mailbox = Mailbox(inbox)
    inbox.wake()
    inbox.wait(5)
    assert mailbox.drain() == []
    mailbox.call(Barrier())
    assert inbox.drain() == []
    began = time.monotonic()
    inbox.wait(5)
    assert time.monotonic() - began < 1
    assert len(mailbox.drain()) == 1

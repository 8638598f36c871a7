"""Where amounts land: account names and the time classes of an attempt.

Accounts are text, so that they stay legible in every export:

- ``provider:<node id>``: what the provider charges for a node (credited);
- ``attempt:<attempt id>:<class>``: what an attempt is charged, by time class (debited);
- ``idle:<flavor>``: ready and held by nobody; ``overhead:<flavor>``: paid but not usable
  (booting for nobody, draining).
"""

from __future__ import annotations

from enum import StrEnum


class CostClass(StrEnum):
    """What an attempt's held time was used for (LEDGER: accounts and time classes)."""

    STARTUP = "startup"  # first boot and set-up
    USEFUL = "useful"  # a step's last computation, the one that was kept
    CHECKPOINT = "checkpoint"  # the blocking part of saves
    RESTORE = "restore"  # loading a restore point
    LOST = "lost"  # steps after the restore point that had to be computed again
    REPEAT_STARTUP = "repeat-startup"  # boot and set-up of a later attempt
    DRAIN = "drain"  # a notice that did not yield a checkpoint
    STALL = "stall"  # held, but nothing was done


RESTART_CLASSES = frozenset(
    {CostClass.LOST, CostClass.RESTORE, CostClass.REPEAT_STARTUP, CostClass.DRAIN}
)
"""Restart overhead. The first startup is not restart; checkpoints are the insurance premium."""


def provider_account(node_id: str) -> str:
    """Name the origin account of a node."""
    return f"provider:{node_id}"


def attempt_account(attempt_id: str, cost_class: CostClass) -> str:
    """Name the account of one attempt and time class."""
    return f"attempt:{attempt_id}:{cost_class}"


def idle_account(flavor: str) -> str:
    """Name the account of ready time that nobody held."""
    return f"idle:{flavor}"


def overhead_account(flavor: str) -> str:
    """Name the account of paid time that nobody could hold."""
    return f"overhead:{flavor}"


def split_attempt_account(account: str) -> tuple[str, CostClass] | None:
    """Give (attempt id, class) of an attempt's account, None for any other."""
    kind, _, rest = account.partition(":")
    if kind != "attempt":
        return None
    attempt_id, _, name = rest.rpartition(":")
    return attempt_id, CostClass(name)

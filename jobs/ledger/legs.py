"""An attempt's charged time as a line that can be recast: useful becomes lost, and so on.

A ``Leg`` is what one attempt was charged for one stretch of one node, in one class. ``recast``
moves the part inside a time window to another class and gives the balanced entries that do it.
Amounts of a part are differences of floors over the leg, so parts add up to the leg exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from jobs.ledger.accounts import CostClass, attempt_account, split_attempt_account
from jobs.ledger.entries import Entry, EntryKind, Posting


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """What an attempt was charged for [start_us, end_us) of a node, in one class."""

    attempt_id: str
    cost_class: CostClass
    start_us: int
    end_us: int
    usd_nanos: int
    gpu_ms: int
    list_usd_nanos: int
    entry: Entry  # the usage entry that it came from: node, flavor, price

    def cut(self, at_us: int) -> tuple[Leg, Leg]:
        """Cut in two at an instant strictly inside."""
        assert self.start_us < at_us < self.end_us, f"{at_us} is not inside {self!r}"

        def before(amount: int) -> int:
            return amount * (at_us - self.start_us) // (self.end_us - self.start_us)

        left = replace(
            self,
            end_us=at_us,
            usd_nanos=before(self.usd_nanos),
            gpu_ms=before(self.gpu_ms),
            list_usd_nanos=before(self.list_usd_nanos),
        )
        right = replace(
            self,
            start_us=at_us,
            usd_nanos=self.usd_nanos - left.usd_nanos,
            gpu_ms=self.gpu_ms - left.gpu_ms,
            list_usd_nanos=self.list_usd_nanos - left.list_usd_nanos,
        )
        return left, right


def legs_of(entry: Entry) -> Iterator[Leg]:
    """Give the attempt legs of a usage entry."""
    for posting in entry.postings:
        owner = split_attempt_account(posting.account)
        if owner is None:
            continue
        yield Leg(
            attempt_id=owner[0],
            cost_class=owner[1],
            start_us=entry.start_us,
            end_us=entry.end_us,
            usd_nanos=posting.usd_nanos,
            gpu_ms=posting.gpu_ms,
            list_usd_nanos=posting.list_usd_nanos,
            entry=entry,
        )


def recast(
    legs: Iterable[Leg],
    *,
    window: tuple[int, int],
    from_classes: frozenset[CostClass],
    to_class: CostClass,
    posted_us: int,
) -> tuple[list[Leg], list[Entry]]:
    """Move what lies inside ``window`` and in ``from_classes`` to another class.

    Returns:
        All legs after the move (cut where the window cuts them), and the entries to post.
    """
    start_us, end_us = window
    kept: list[Leg] = []
    entries: list[Entry] = []
    for leg in legs:
        for piece in _pieces(leg, start_us, end_us):
            inside = start_us <= piece.start_us and piece.end_us <= end_us
            if inside and piece.cost_class in from_classes and piece.cost_class != to_class:
                entries.append(_reclass_entry(piece, to_class=to_class, posted_us=posted_us))
                kept.append(replace(piece, cost_class=to_class))
            else:
                kept.append(piece)
    return kept, entries


def _pieces(leg: Leg, *cuts_us: int) -> list[Leg]:
    pieces = [leg]
    for at_us in cuts_us:
        last = pieces[-1]
        if last.start_us < at_us < last.end_us:
            pieces[-1:] = last.cut(at_us)
    return pieces


def _reclass_entry(leg: Leg, *, to_class: CostClass, posted_us: int) -> Entry:
    source = attempt_account(leg.attempt_id, leg.cost_class)
    target = attempt_account(leg.attempt_id, to_class)
    span = f"{leg.start_us}-{leg.end_us}"
    return replace(
        leg.entry,
        id=f"{leg.entry.node_id}|{source}->{to_class}|{span}",
        kind=EntryKind.RECLASS,
        posted_us=posted_us,
        start_us=leg.start_us,
        end_us=leg.end_us,
        attempt_ids=(leg.attempt_id,),
        postings=(
            Posting(
                account=source,
                usd_nanos=-leg.usd_nanos,
                gpu_ms=-leg.gpu_ms,
                list_usd_nanos=-leg.list_usd_nanos,
            ),
            Posting(
                account=target,
                usd_nanos=leg.usd_nanos,
                gpu_ms=leg.gpu_ms,
                list_usd_nanos=leg.list_usd_nanos,
            ),
        ),
    )

"""The auditor's view of budgets: what the journal says of them, and whether they held.

A part of ``scheduler.audit``; like all of it, it shares no code with the books and works on plain
JSON data. What is spent is summed from the ledger's entries, what is reserved is read from the
attempts; every hard budget must cover both at every instant at which either can grow.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import accumulate
from typing import Any

from scheduler.audit_rows import Row

_US_PER_HOUR = 3_600_000_000
_NEVER_US = 1 << 62
Rows = Mapping[str, dict[str, Row]]
Told = Iterator[str]

# -- what the journal says -----------------------------------------------------------------


def _reserved(rows: Rows, e: Row) -> Told:
    attempt = rows["attempts"][e["attempt_id"]]
    if attempt["ended_us"] is not None:
        yield f"money was reserved for {e['attempt_id']} after its end"
    attempt["reserved_usd_nanos_per_hour"] = e["usd_nanos_per_hour"]
    attempt["reserved_until_us"] = e["until_us"]


def _set(rows: Rows, e: Row) -> Told:
    old = rows["budgets"].get(e["budget"])
    known = old if old is not None and old["removed_us"] is None else None
    names = ("terms", "source", "from_us", "until_us", "carried_usd_nanos")
    rows["budgets"][e["budget"]] = {name: e[name] for name in names} | {
        "name": e["budget"],
        "since_us": e["at_us"] if known is None else known["since_us"],
        "changed_us": e["at_us"],
        "last_spent_usd_nanos": 0 if known is None else known["last_spent_usd_nanos"],
        "crossed_percent": 0,
        "removed_us": None,
    }
    yield from ()


def _removed(rows: Rows, e: Row) -> Told:
    rows["budgets"][e["budget"]] |= {"removed_us": e["at_us"], "changed_us": e["at_us"]}
    yield from ()


def _rolled(rows: Rows, e: Row) -> Told:
    row = rows["budgets"][e["budget"]]
    if e["at_us"] != row["until_us"]:
        yield f"{e['budget']} was to roll over at {row['until_us']}, not at {e['at_us']}"
    row |= {"from_us": e["at_us"], "until_us": e["until_us"], "crossed_percent": 0}
    row |= {"carried_usd_nanos": e["carried_usd_nanos"], "changed_us": e["at_us"]}
    row["last_spent_usd_nanos"] = e["spent_usd_nanos"]


def _crossed(rows: Rows, e: Row) -> Told:
    rows["budgets"][e["budget"]] |= {"crossed_percent": e["percent"], "changed_us": e["at_us"]}
    yield from ()


HANDLERS: dict[str, Callable[[Rows, Row], Told]] = {
    "money-reserved": _reserved,
    "budget-set": _set,
    "budget-removed": _removed,
    "budget-rolled": _rolled,
    "budget-crossed": _crossed,
}
"""How each event of a budget changes the rows, and what is wrong with it."""


def handler(kind: str) -> Callable[[Any, Row], Told] | None:
    """Give the handler of a budget's event for a fold (anything with ``rows``)."""
    tell = HANDLERS.get(kind)
    return None if tell is None else lambda fold, e: tell(fold.rows, e)


WATCHED = frozenset(HANDLERS) | {"job-submitted", "attempt-leased", "attempt-ended"}
"""The kinds of events that ``overspent`` needs to be told, in order."""

# -- whether they held ---------------------------------------------------------------------


class _Spent:
    """What some jobs cost before any instant; the part of an entry goes by its time."""

    def __init__(self, pieces: Iterable[tuple[int, int, int]]) -> None:
        self._pieces = sorted(pieces)  # (start, end, nano-dollars)
        self._starts = [start for start, _, _ in self._pieces]
        self._sums = [0, *accumulate(nanos for _, _, nanos in self._pieces)]
        self._last_end = list(accumulate((end for _, end, _ in self._pieces), max))

    def before(self, at_us: int) -> int:
        """Give what was spent before an instant."""
        index = bisect_left(self._starts, at_us)
        total = self._sums[index]
        while index and self._last_end[index - 1] > at_us:
            index -= 1
            start, end, nanos = self._pieces[index]
            if end > at_us:
                total -= nanos * (end - at_us) // (end - start)
        return total


@dataclass(slots=True)
class _Watch:
    """A budget in its present period."""

    name: str
    job_ids: frozenset[str]
    spent: _Spent
    limit: int
    next_limit: int
    from_us: int
    until_us: int
    hard: bool = True
    most: int = 0  # that was ever committed of one period
    ceiling: int = 0  # above the limit only after it was lowered below what was committed
    set_us: int = -1
    before: frozenset[str] = frozenset()  # attempts that held capacity when it was set

    def inherited(self, live: Mapping[str, Row], at_us: int) -> int:
        """Give what is spent and reserved for attempts that were there when it was set."""
        found = {name: one for name, one in live.items() if name in self.before}
        return self.committed(found, at_us)[0]

    def committed(self, live: Mapping[str, Row], at_us: int) -> tuple[int, int]:
        """Give what is spent and reserved in this period, and reserved in the next."""
        spent = self.spent.before(at_us) - self.spent.before(self.from_us)
        now = later = 0
        for one in live.values():
            if one["job_id"] in self.job_ids:
                now += _cost(one, at_us, self.until_us)
                later += _cost(one, max(at_us, self.until_us), _NEVER_US)
        return spent + now, later


def _cost(one: Row, start_us: int, end_us: int) -> int:
    length = min(one["until_us"], end_us) - start_us
    return int(one["rate"]) * length // _US_PER_HOUR if length > 0 else 0


@dataclass(slots=True)
class _Books:
    """The journal's way through time, watching every hard budget."""

    jobs: Mapping[str, Row]
    spent: Mapping[str, list[tuple[int, int, int]]]  # by job
    watches: dict[str, _Watch] = field(default_factory=dict)
    live: dict[str, Row] = field(default_factory=dict)  # reservations by attempt
    leased: dict[str, None] = field(default_factory=dict)  # attempts that hold capacity

    def tell(self, e: Row) -> Iterator[tuple[str, str]]:
        """Take an event in; give (budget, what is wrong)."""
        match e["kind"]:
            case "job-submitted":
                self._own(e)
            case "attempt-leased":
                self.leased[e["attempt_id"]] = None
            case "attempt-ended":
                self.live.pop(e["attempt_id"], None)
                self.leased.pop(e["attempt_id"], None)
            case "money-reserved":
                job_id = e["attempt_id"].rpartition("/")[0]
                rate, until_us = e["usd_nanos_per_hour"], e["until_us"]
                self.live[e["attempt_id"]] = {"job_id": job_id, "rate": rate, "until_us": until_us}
                yield from self.check(e["at_us"], job_id)
            case "budget-set":
                self._set(e)
            case "budget-removed":
                self.watches.pop(e["budget"], None)
            case "budget-rolled":
                yield from self._roll(e)
            case _:
                pass

    def check(self, at_us: int, job_id: str | None = None) -> Iterator[tuple[str, str]]:
        """Check the budgets that pay for a job, or all of them, as of an instant."""
        for watch in self.watches.values():
            if job_id is not None and job_id not in watch.job_ids:
                continue
            committed, later = watch.committed(self.live, at_us)
            watch.most = max(watch.most, committed)
            if not watch.hard:
                continue
            if at_us == watch.set_us:
                watch.ceiling = max(watch.limit, watch.inherited(self.live, at_us))
            elif committed <= watch.limit:
                watch.ceiling = watch.limit
            if committed > watch.ceiling:
                what = f"spent and reserved {committed} of {watch.limit} at {at_us}"
                yield watch.name, what
            if later > watch.next_limit:
                what = f"reserved {later} of {watch.next_limit} of the next period at {at_us}"
                yield watch.name, what

    def _own(self, e: Row) -> None:
        given = e["spec"].get("budget_usd")
        if given is not None:
            limit = int(Decimal(str(given)) * 1_000_000_000)
            name = f"budget_usd of {e['job_id']}"
            self._watch(name, {"job": e["job_id"]}, limit, limit=limit, span=(0, _NEVER_US))

    def _set(self, e: Row) -> None:
        old, terms = self.watches.get(e["budget"]), e["terms"]
        span = (e["from_us"], _NEVER_US if e["until_us"] is None else e["until_us"])
        repeats = terms["period"] not in {"once", "total"}
        whole: int = terms["limit_usd_nanos"]
        limit = whole + e["carried_usd_nanos"]
        watch = self._watch(
            e["budget"], dict(terms["owner"]), whole if repeats else 0, limit=limit, span=span
        )
        watch.most = old.most if old is not None else 0
        watch.hard, watch.set_us = terms["hard"], e["at_us"]
        watch.before = frozenset(self.leased)
        watch.ceiling = max(limit, watch.inherited(self.live, e["at_us"]))

    def _watch(
        self, name: str, owner: Mapping[str, str], later: int, *, limit: int, span: tuple[int, int]
    ) -> _Watch:
        ids = frozenset(job["id"] for job in self.jobs.values() if _pays_for(owner, job))
        spent = _Spent(piece for job_id in sorted(ids) for piece in self.spent.get(job_id, ()))
        self.watches[name] = watch = _Watch(
            name=name,
            job_ids=ids,
            spent=spent,
            limit=limit,
            next_limit=later,
            from_us=span[0],
            until_us=span[1],
            ceiling=limit,
        )
        return watch

    def _roll(self, e: Row) -> Iterator[tuple[str, str]]:
        watch = self.watches.get(e["budget"])
        if watch is None:
            return
        yield from self.check(e["at_us"])
        spent = watch.spent.before(e["at_us"]) - watch.spent.before(watch.from_us)
        if abs(spent - e["spent_usd_nanos"]) > 1 and watch.from_us >= watch.set_us:
            yield watch.name, f"rolled with {e['spent_usd_nanos']} spent; the entries say {spent}"
        watch.from_us = e["at_us"]
        watch.until_us = _NEVER_US if e["until_us"] is None else e["until_us"]
        watch.limit = watch.next_limit + e["carried_usd_nanos"]
        watch.ceiling = max(watch.ceiling, watch.limit)


def _pays_for(owner: Mapping[str, str], job: Row) -> bool:
    spec = job["spec"]
    known = {**spec["tags"], "team": spec["team"], "job": job["id"]}
    return all(known.get(name) == value for name, value in owner.items())


def overspent(
    events: Iterable[Row], *, jobs: Mapping[str, Row], entries: Iterable[Row]
) -> Iterator[tuple[str, str]]:
    """Give (budget, what is wrong) wherever a hard budget did not hold.

    Args:
        events: those of the kinds in ``WATCHED``, in the order of the journal.
        jobs: rows by id.
        entries: the whole ledger.
    """
    yield from _read(events, _Books(jobs, _spent_by_job(entries)))


def most_committed(
    events: Iterable[Row], *, jobs: Mapping[str, Row], entries: Iterable[Row]
) -> dict[str, int]:
    """Give the most that was spent and reserved of one period, by budget; as ``overspent``."""
    books = _Books(jobs, _spent_by_job(entries))
    for _ in _read(events, books):
        pass
    return {name: watch.most for name, watch in books.watches.items()}


def _read(events: Iterable[Row], books: _Books) -> Iterator[tuple[str, str]]:
    listed = list(events)
    if not any(e["kind"] in HANDLERS or e.get("spec", {}).get("budget_usd") for e in listed):
        return
    for event in listed:
        yield from books.tell(event)
    yield from books.check(_NEVER_US - 1)


def _spent_by_job(entries: Iterable[Row]) -> dict[str, list[tuple[int, int, int]]]:
    found: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for entry in entries:
        if entry["kind"] != "usage":
            continue
        for leg in entry["postings"]:
            kind, _, rest = leg["account"].partition(":")
            if kind == "attempt":
                job_id = rest.rpartition(":")[0].rpartition("/")[0]
                piece: Any = (entry["start_us"], entry["end_us"], leg["usd_nanos"])
                found[job_id].append(piece)
    return found

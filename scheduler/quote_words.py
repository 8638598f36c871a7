"""A quote in sentences. Light: the command line uses it without the server's libraries."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from jobs.durations import US_PER_MS, show_duration
from jobs.quotes import Quote, Quoted
from jobs.reasons import HELP, Reason
from jobs.spec import JobSpec
from scheduler.sentences import show_instant, show_usd

NEVER = "not within what was looked at"


def notes(spec: JobSpec, quoted: Quoted, *, stuck: Reason) -> Iterator[str]:
    """Say what is missing, or in the way.

    Args:
        spec: as it was asked about.
        quoted: what its futures came to.
        stuck: the last reason in a future, for those that came to no end.
    """
    if not spec.work:
        yield "No work estimate: this is for one hour of work. Give --work for the whole job."
        if spec.deadline is not None:
            yield "Without --work the risk to its deadline is not known, and it starts at once."
    if spec.array is not None:
        yield "This is for one element of the array."
    if spec.after:
        yield "Times count from when the jobs that it comes after have ended."
    if quoted.finish_p50_us is None:
        yield f"In most futures it comes to no end: {stuck} ({HELP[stuck]})."
    yield from _budget(spec, quoted)


def _budget(spec: JobSpec, quoted: Quoted) -> Iterator[str]:
    budget, p50, p95 = spec.budget_nanos, quoted.cost_p50_usd_nanos, quoted.cost_p95_usd_nanos
    if budget is None or p50 is None:
        return
    if p50 > budget:
        yield (
            f"Its budget of {show_usd(budget)} is too small: half of the futures cost more than "
            f"{show_usd(p50)}."
        )
    elif p95 is None or p95 > budget:
        likely = "" if p95 is None else f": one in twenty costs more than {show_usd(p95)}"
        yield f"Its budget of {show_usd(budget)} may not be enough{likely}."


def summary(quote: Quote) -> Iterator[str]:
    """Give the quote in a line or two."""
    told = quote.quoted
    unit = " for an hour of work" if told.per_hour else ""
    cost = between(told.cost_p50_usd_nanos, told.cost_p95_usd_nanos, show_usd)
    ends = between(told.finish_p50_us, told.finish_p95_us, show_instant)
    risk = ""
    if quote.deadline_us is not None and not told.per_hour:
        risk = f", {told.miss_permille / 10:g} % risk of missing {show_instant(quote.deadline_us)}"
    yield f"quote{unit}: {cost}; done {ends}{risk}"
    now = next((way.quoted for way in quote.ways if way.name == "start now"), None)
    if now is not None and now.cost_p50_usd_nanos is not None:
        price = between(now.cost_p50_usd_nanos, now.cost_p95_usd_nanos, show_usd)
        yield f"  starting now: {price}; done {between(now.finish_p50_us, now.finish_p95_us)}"
    yield from (f"  {note}" for note in quote.notes)


def between(p50: int | None, p95: int | None, show: Callable[[int], str] = show_instant) -> str:
    """Write the two percentiles: ``$8.10 (P50) to $12.40 (P95)``, or the one if they are alike."""
    first = NEVER if p50 is None else show(p50)
    second = NEVER if p95 is None else show(p95)
    return first if first == second else f"{first} (P50) to {second} (P95)"


def against(quoted: Quoted, *, cost_nanos: int, start_us: int | None, end_us: int) -> Iterator[str]:
    """Compare a quote with what came, once the job has ended."""
    p50, p95 = quoted.cost_p50_usd_nanos, quoted.cost_p95_usd_nanos
    if p50 is not None and not quoted.per_hour:
        told = f"{between(p50, p95, show_usd)}{_in(cost_nanos, p95)}"
        yield f"cost {show_usd(cost_nanos)}, quoted {told}"
    if quoted.finish_p50_us is not None and not quoted.per_hour:
        ends = between(quoted.finish_p50_us, quoted.finish_p95_us)
        late = (end_us - quoted.finish_p50_us) // US_PER_MS
        than = "later" if late >= 0 else "earlier"
        yield (
            f"ended {show_instant(end_us)}, quoted {ends}{_in(end_us, quoted.finish_p95_us)}, "
            f"{show_duration(abs(late))} {than} than P50"
        )
    if quoted.start_p50_us is not None and start_us is not None:
        told = f"{between(quoted.start_p50_us, quoted.start_p95_us)}"
        yield f"started {show_instant(start_us)}, quoted {told}{_in(start_us, quoted.start_p95_us)}"


def _in(actual: int, p95: int | None) -> str:
    return "" if p95 is None or actual <= p95 else " (above P95)"

"""What will happen to a job next, as far as the present plan knows."""

from __future__ import annotations

from jobs.durations import US_PER_MS, show_duration
from jobs.rows import AttemptRow, JobRow
from jobs.states import AttemptState, JobState
from scheduler.market import Market
from scheduler.needs import is_steady, is_sure, leave_spot_us, work_if_lost_ms
from scheduler.sentences import show_instant
from scheduler.spot_policy import POLICIES, nominate
from scheduler.wishes import Running, Wait


def next_move(row: JobRow, attempts: tuple[AttemptRow, ...], *, market: Market) -> str:
    """Say what comes next, "" when nothing will."""
    if row.ended:
        return _ended(row, attempts)
    if row.state is JobState.QUEUED:
        return _waiting(row, market=market)
    live = next((one for one in attempts if one.id == row.attempt_id), None)
    return "" if live is None else _live(row, live, market=market)


def _ended(row: JobRow, attempts: tuple[AttemptRow, ...]) -> str:
    tries = f"It made {len(attempts)} attempt{'' if len(attempts) == 1 else 's'}"
    tries += f", with {row.evictions} evicted and {row.preemptions} taken back"
    if row.deadline_us is None or row.ended_us is None:
        return f"{tries}."
    spare_ms = (row.deadline_us - row.ended_us) // US_PER_MS
    length = show_duration(abs(spare_ms))
    met = f"met with {length} to spare" if spare_ms >= 0 else f"missed by {length}"
    return f"{tries}; its deadline was {met}."


def _waiting(row: JobRow, *, market: Market) -> str:
    if row.held:
        return "It stays paused until its owner resumes it."
    if not market.allowed(row.spec):
        return "It waits until a flavor that fits is configured."
    (answer,) = nominate([row], market=market)
    wakes = answer.wakes_us if isinstance(answer, Wait) else answer.otherwise.wakes_us
    later = [at_us for at_us in wakes if at_us > market.now_us]
    again = f" and at {show_instant(min(later))} at the latest" if later else ""
    return f"It is looked at again whenever capacity or prices change{again}."


def _live(row: JobRow, attempt: AttemptRow, *, market: Market) -> str:
    where = f"on {attempt.flavor} ({', '.join(attempt.node_ids)})"
    offer, sure = market.offers.get(attempt.flavor), market.sure_flavors(row.spec)
    if attempt.state is AttemptState.DRAINING:
        return f"It saves {where} and goes on elsewhere."
    if row.deadline_us is None or not row.work_ms or offer is None:
        return f"It stays {where} until it ends or is evicted."
    if is_sure(offer.flavor):
        return _on_sure(row, attempt, where=where, market=market)
    if not sure:
        return f"It stays {where}: no sure capacity is allowed."
    at_us = leave_spot_us(
        row,
        offer.flavor,
        sure,
        work_ms=work_if_lost_ms(row, attempt, now_us=market.now_us),
        settings=market.settings,
        steady=is_steady(row, attempt),
    )
    return (
        f"It stays {where}; unless more is saved by then, it leaves for sure capacity at "
        f"{show_instant(max(at_us, market.now_us))}."
    )


def _on_sure(row: JobRow, attempt: AttemptRow, *, where: str, market: Market) -> str:
    if row.on_safety_net:
        return f"It stays {where} to its end: its slack is used up."
    flavor = market.offers[attempt.flavor].flavor
    running = Running(job=row, attempt=attempt, flavor=flavor, market=market)
    at_us = POLICIES[market.settings.name].leaves(running)
    if at_us is None:
        return f"It stays {where} while spot has no room that would pay for the move."
    if at_us <= market.now_us:
        return f"It gives back its place {where} as soon as spot has room for it."
    return f"It stays {where}; if spot stays up, it goes back there at {show_instant(at_us)}."

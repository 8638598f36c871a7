"""What a user is told, in money and time.

Instants are absolute and amounts do not follow the clock, so that a sentence stays the same for
as long as the facts do.
"""

from __future__ import annotations

from jobs.durations import US_PER_MS, from_us, show_duration
from jobs.spec import NANOS_PER_USD, JobSpec

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_CENT = NANOS_PER_USD // 100


def show_instant(at_us: int) -> str:
    """Write an instant to the minute: ``23 Nov 22:00 UTC``."""
    at = from_us(at_us)
    return f"{at.day} {_MONTHS[at.month - 1]} {at:%H:%M} UTC"


def show_usd(usd_nanos: int) -> str:
    """Write an amount: ``$38.20``; below ten cents with four decimals, ``$0.0042``."""
    digits = 2 if abs(usd_nanos) >= 10 * _CENT or not usd_nanos else 4
    return f"${usd_nanos / NANOS_PER_USD:,.{digits}f}"


def show_size(spec: JobSpec) -> str:
    """Write what a gang holds: ``2 nodes with 4 GPUs each``."""
    each = f"{spec.gpus.normalize():f} GPU" + ("" if spec.gpus == 1 else "s")
    if not spec.gpus:
        each = f"{spec.cpus} CPU core" + ("" if spec.cpus == 1 else "s")
    return f"{spec.nodes} nodes with {each} each" if spec.nodes > 1 else f"one node with {each}"


def starts(flavor: str, *, usd_nanos_per_hour: int, nodes: int) -> str:
    """A job starts on the cheapest capacity that fits."""
    return f"Starts on {flavor}, the cheapest that fits: {_rate(usd_nanos_per_hour, nodes)}."


def starts_in_window(flavor: str, *, usd_nanos_per_hour: int, nodes: int, until_us: int) -> str:
    """A job starts while a cheap window is open."""
    rate = _rate(usd_nanos_per_hour, nodes)
    return f"Starts on {flavor} in its cheap window until {show_instant(until_us)}: {rate}."


def starts_on_net(
    flavor: str, *, deadline_us: int, latest_us: int, usd_nanos_per_hour: int, nodes: int
) -> str:
    """A job moves to the surest capacity."""
    return (
        f"Starts on {flavor} and stays there ({_rate(usd_nanos_per_hour, nodes)}): to meet its "
        f"deadline {show_instant(deadline_us)} it had to be on sure capacity by "
        f"{show_instant(latest_us)}."
    )


def waits_for_window(
    opens_us: int, *, percent: int, slack_us: int, more_nanos: int, rests_on: str
) -> str:
    """A cheaper time begins inside the slack."""
    cheaper = f"{percent} % cheaper, " if percent > 0 else ""
    slack = show_duration(slack_us // US_PER_MS)
    more = f"; starting now costs up to {show_usd(more_nanos)} more" if more_nanos > 0 else ""
    why = f" ({rests_on})" if rests_on else ""
    return (
        f"Waits for {show_instant(opens_us)}{why}: {cheaper}{slack} of slack left after it{more}."
    )


def stops_for_price(
    at_us: int, *, resumes_us: int, saved_nanos: int, slack_us: int, rests_on: str
) -> str:
    """A running job stops at a checkpoint before dear hours."""
    why = f" ({rests_on})" if rests_on else ""
    slack = show_duration(slack_us // US_PER_MS)
    return (
        f"Stops at {show_instant(at_us)} at a checkpoint, goes on at {show_instant(resumes_us)}"
        f"{why}: saves {show_usd(saved_nanos)}, {slack} of slack left after it."
    )


def waits_for_spot(*, until_us: int | None, more_nanos: int, per_hour: bool) -> str:
    """Spot has no room; the slack allows to wait for it."""
    unit = "/h" if per_hour else ""
    more = f": on-demand costs {show_usd(more_nanos)}{unit} more" if more_nanos > 0 else ""
    if until_us is None:
        return f"Waits for spot capacity{more}; without a deadline it waits as long as it takes."
    return (
        f"Waits for spot capacity{more}; goes on-demand by {show_instant(until_us)} if none comes."
    )


def waits_for_turn(flavor: str, *, usd_nanos_per_hour: int, until_us: int | None) -> str:
    """The plan of the whole queue has something cheaper for it than what has room now."""
    until = "" if until_us is None else f" before {show_instant(until_us)}"
    return (
        f"Waits for cheaper capacity, which the plan of the whole queue expects{until}: "
        f"{flavor} costs {show_usd(usd_nanos_per_hour)}/h now or is worth more to another job."
    )


def waits_for_deadlines(flavor: str, *, job_id: str | None, due_us: int | None) -> str:
    """What has room is kept for deadlines that count on it."""
    if job_id is None or due_us is None:
        return f"Waits: {flavor} is kept for jobs whose deadlines could be missed otherwise."
    return (
        f"Waits: {flavor} is kept for {job_id}, which needs it to be done by "
        f"{show_instant(due_us)}; it would not be free again in time."
    )


def yields_to(job_id: str) -> str:
    """A job that has time leaves cheap capacity to one that has less."""
    return f"Makes room for {job_id}, to which this node is worth more; it has time to wait."


def waits_for_capacity(spec: JobSpec, *, late_deadline_us: int | None) -> str:
    """Nothing that is allowed has room."""
    text = f"Waits for capacity: {show_size(spec)}, and every allowed flavor is at its limit"
    if late_deadline_us is None:
        return f"{text}."
    return f"{text}; its deadline {show_instant(late_deadline_us)} is at risk."


def waits_for_budget(*, cost_nanos: int, left_nanos: int) -> str:
    """The money left does not cover the cheapest way to the end."""
    return (
        f"Waits for budget: the rest costs about {show_usd(cost_nanos)}, and "
        f"{show_usd(max(0, left_nanos))} is left."
    )


def waits_to_retry(at_us: int, *, error: str = "") -> str:
    """What ended too soon is tried again after a pause; ``error`` is what the script said."""
    what = f"failed ({error})" if error else "failed or fell silent"
    return f"Its last attempt {what}; tried again at {from_us(at_us):%H:%M:%S} UTC."


def no_flavor(spec: JobSpec) -> str:
    """The configuration of today cannot hold it."""
    return f"No flavor that is configured now can hold {show_size(spec)} under the job's rules."


PAUSED = "Paused by its owner until `lowtide resume`."


def leaves_spot(*, deadline_us: int) -> str:
    """A job on spot must go to sure capacity."""
    return (
        f"Leaves spot: one more eviction could miss its deadline {show_instant(deadline_us)}; "
        "it goes on on capacity that stays."
    )


def moves_to(flavor: str) -> str:
    """A better place came up, and its nodes are ready."""
    return f"Moves to {flavor}: the rest is expected to cost less there, the move included."


def back_to_spot() -> str:
    """A job ahead of its plan gives back dear capacity."""
    return "Gives the on-demand node back: the rest is expected to cost less on spot."


def _rate(usd_nanos_per_hour: int, nodes: int) -> str:
    each = " per node" if nodes > 1 else ""
    return f"{show_usd(usd_nanos_per_hour)}/h{each}"

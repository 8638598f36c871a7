"""Who may be considered at all: at submit, whether a job is possible; in a cycle, who is held."""

from __future__ import annotations

from collections.abc import Iterable

from cluster.flavors import Flavor
from cluster.offers import Offer
from jobs.durations import US_PER_MS
from jobs.errors import InfeasibleError
from jobs.reasons import Reason
from jobs.rows import JobRow
from jobs.spec import JobSpec
from scheduler import sentences
from scheduler.market import MS_PER_HOUR, Market, could_hold, shared
from scheduler.needs import REACTION_US, is_sure, with_stalls_ms
from scheduler.snapshot import PolicySettings
from scheduler.turns import Turns
from scheduler.wishes import Wait


def screen(
    jobs: Iterable[JobRow], *, market: Market, turns: Turns
) -> tuple[list[JobRow], list[Wait]]:
    """Part the queue into those that may start and those that are held.

    A job with a cancel request is in neither: the controller ends it.
    """
    free: list[JobRow] = []
    held: list[Wait] = []
    for job in jobs:
        if job.cancel_requested:
            continue
        wait = _held(job, market=market) or turns.wait(job)
        if wait is None:
            free.append(job)
        else:
            held.append(wait)
    return free, held


def _held(job: JobRow, *, market: Market) -> Wait | None:
    if job.held:
        return Wait(job=job, reason=Reason.PAUSED, sentence=sentences.PAUSED)
    retry_us = job.queued_us + _pause_ms(job, market.settings) * US_PER_MS
    if job.reason in _RETRIED and retry_us > market.now_us:
        error = job.last_error if job.reason is Reason.RETRY_AFTER_FAILURE else ""
        text = sentences.waits_to_retry(retry_us, error=error)
        return Wait(job=job, reason=job.reason, sentence=text, wakes_us=(retry_us,))
    if not market.allowed(job.spec):
        return Wait(job=job, reason=Reason.NO_FLAVOR, sentence=sentences.no_flavor(job.spec))
    return None


_RETRIED = frozenset({Reason.RETRY_AFTER_FAILURE, Reason.HEARTBEAT_LOST, Reason.OPERATOR})
"""Ends that may come again at once, for a cause that placement knows nothing of."""

_MOST_DOUBLINGS = 6


def _pause_ms(job: JobRow, settings: PolicySettings) -> int:
    """Pause before another try: it doubles with each end of that cause so far."""
    counts = {Reason.HEARTBEAT_LOST: job.lost, Reason.OPERATOR: job.preemptions}
    ends = counts.get(job.reason, job.failures)
    first_ms = job.spec.retry_delay or settings.retry_delay_ms
    return first_ms << min(max(0, ends - 1), _MOST_DOUBLINGS)


def check_admissible(
    spec: JobSpec,
    *,
    submitted_us: int,
    offers: Iterable[Offer],
    now_us: int,
    settings: PolicySettings,
) -> None:
    """Refuse a job that no cluster could ever hold, or whose deadline cannot be met.

    The deadline is checked against the fastest start on sure capacity (on any, where the rules
    allow spot only), with the loop's own reaction time but without the margin for an error in
    ``work``: what is barely possible is tried.

    Raises:
        InfeasibleError: says which resource is too big and the nearest flavor, or the earliest
            finish and its price.
    """
    listed = list(offers)
    holding = [offer for offer in listed if could_hold(offer, spec)]
    if not holding:
        raise _too_big(spec, listed)
    deadline_us = spec.deadline_us(submitted_us=submitted_us)
    if deadline_us is None:
        return
    sure = [offer for offer in holding if is_sure(offer.flavor)] or holding
    fastest = min(sure, key=lambda offer: (offer.flavor.boot_ms, offer.usd_nanos_per_hour))
    needed_ms = _whole_ms(spec, fastest.flavor) + settings.margin_ms
    finish_us = now_us + needed_ms * US_PER_MS
    if finish_us > deadline_us + REACTION_US:
        raise _too_late(spec, fastest, finish_us=finish_us, deadline_us=deadline_us)


def _whole_ms(spec: JobSpec, flavor: Flavor) -> int:
    return flavor.boot_ms + spec.setup + with_stalls_ms(spec, spec.work or 0)


def _too_late(spec: JobSpec, offer: Offer, *, finish_us: int, deadline_us: int) -> InfeasibleError:
    node = offer.usd_nanos_per_hour * _whole_ms(spec, offer.flavor) // MS_PER_HOUR
    cost = shared(node * spec.nodes, spec=spec, flavor=offer.flavor)
    return InfeasibleError(
        f"The deadline {sentences.show_instant(deadline_us)} cannot be met: the earliest finish "
        f"is {sentences.show_instant(finish_us)}, on {offer.flavor.name}, for about "
        f"{sentences.show_usd(cost)}.",
        remedy="Give a later deadline, or less work.",
    )


def _too_big(spec: JobSpec, offers: list[Offer]) -> InfeasibleError:
    """Say what stands in the way on the flavor that comes nearest."""
    if not offers:
        return InfeasibleError(
            "No flavor is configured, so nothing can hold the job.",
            remedy="Configure flavors, or start an agent.",
        )
    obstacles = [(_sizes(spec, offer), _rules(spec, offer.flavor), offer) for offer in offers]
    sizes, rules, offer = min(
        obstacles, key=lambda found: (len(found[0]), len(found[1]), found[2].flavor.name)
    )
    return InfeasibleError(
        f"No flavor can hold {sentences.show_size(spec)}: {offer.flavor.name} comes nearest, but "
        f"{' and '.join((*sizes, *rules))}.",
        remedy=f"Ask for what {offer.flavor.name} has, or add a flavor that is bigger.",
    )


def obstacles(spec: JobSpec, offer: Offer) -> list[str]:
    """Say what keeps a job off a flavor: size, limit, its own rules; nothing if it may go there."""
    return [*_sizes(spec, offer), *_rules(spec, offer.flavor)]


def _sizes(spec: JobSpec, offer: Offer) -> list[str]:
    """Name what is too big for the flavor."""
    flavor = offer.flavor
    most = max(flavor.max_nodes, offer.limit)
    gpus, cpu_only = flavor.gpu_milli / 1_000, not flavor.gpu_milli
    checks = (
        (bool(spec.gpu_milli) and cpu_only, "it has no GPU"),
        (not spec.gpu_milli and not cpu_only, "it is a GPU node and the job wants none"),
        (spec.gpu_milli > flavor.gpu_milli > 0, f"gpus={spec.gpus:f} is more than its {gpus:g}"),
        (spec.cpus > flavor.cpus, f"cpus={spec.cpus} is more than its {flavor.cpus}"),
        (
            bool(flavor.memory_gb) and spec.memory_gb > flavor.memory_gb,
            f"memory_gb={spec.memory_gb:f} is more than its {flavor.memory_gb}",
        ),
        (spec.nodes > most, f"nodes={spec.nodes} is more than its limit of {most}"),
    )
    return [text for broken, text in checks if broken]


def _rules(spec: JobSpec, flavor: Flavor) -> list[str]:
    """Name the job's rules that exclude the flavor."""
    rules = (
        ("markets", spec.markets, flavor.market),
        ("accelerators", spec.accelerators, flavor.accelerator),
        ("regions", spec.regions, flavor.region),
    )
    return [
        f"{name} excludes its '{value}'"
        for name, allowed, value in rules
        if allowed and value not in allowed
    ]

"""What a cycle works with between the queue and the plan: cases, wishes and waits."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.flavors import Flavor
from jobs.reasons import Reason
from jobs.rows import AttemptRow, JobRow
from scheduler import sentences
from scheduler.market import Choice, Market
from scheduler.needs import REACTION_US, leave_spot_us
from scheduler.plan import Defer, Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """A job is to wait; ``wakes_us`` are instants at which that could change by itself."""

    job: JobRow
    reason: Reason
    sentence: str
    wakes_us: tuple[int, ...] = ()

    def defer(self) -> Defer:
        """Give the decision."""
        return Defer(job_id=self.job.id, reason=self.reason, sentence=self.sentence)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A job may start on one of these choices, best first; without room, it waits."""

    job: JobRow
    choices: tuple[Choice, ...]
    otherwise: Wait
    on_net: bool = False  # sure capacity here means: the safety net, for good
    in_order: bool = False  # the first choice with room counts, not the cheapest
    latest_us: int | None = None  # latest start on sure capacity, when there is a deadline
    behind: bool = False  # its budget puts it after all others
    worth_nanos: int = 0  # of a GPU-hour to it, roughly, in the plan of the whole queue

    def is_due(self, now_us: int) -> bool:
        """Whether the slack is used up: it takes what it needs, whoever else counts on it."""
        return self.on_net and self.latest_us is not None and self.latest_us <= now_us + REACTION_US

    @property
    def order(self) -> tuple[int, int, int, int, int, int, int, str]:
        """Who goes first: without slack by latest start; then by priority, worth, slack, age."""
        urgent = self.on_net and self.latest_us is not None
        latest_us = (self.latest_us or 0) if urgent else 0
        job = self.job
        planned_us = (self.latest_us or 0) if self.worth_nanos else 0
        rank = (-job.spec.priority, -self.worth_nanos, planned_us, job.submitted_us, job.id)
        return (not urgent, latest_us, self.behind, *rank)


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """A start at a later instant whose price is known, and what the job's rest costs from then."""

    start_us: int
    choice: Choice
    cost_nanos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A waiting job as a policy sees it. A policy never sees a job that has no slack left.

    ``spots`` are the choices from which even the worst death leaves the deadline in reach, or
    all of spot when no sure flavor is allowed; ``all_spots`` has the others too. All are sorted
    cheapest first.
    """

    job: JobRow
    market: Market
    spots: tuple[Choice, ...]
    all_spots: tuple[Choice, ...]
    sures: tuple[Choice, ...]
    latest_us: int | None  # latest start on sure capacity; None without a deadline
    spot_latest_us: tuple[tuple[str, int], ...] = ()  # by flavor name, latest start on spot

    @property
    def now_us(self) -> int:
        """The instant of the cycle."""
        return self.market.now_us

    def last_us(self, choice: Choice) -> int | None:
        """Give the latest start on one choice, None without a deadline."""
        return dict(self.spot_latest_us).get(choice.flavor.name, self.latest_us)

    def last_spot_us(self) -> int | None:
        """Give the instant after which no spot start is sensible any more."""
        if not self.sures:
            return None
        names = {choice.flavor.name for choice in self.spots}
        return max((at for name, at in self.spot_latest_us if name in names), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A live attempt on sure capacity, not on the safety net, as a policy sees it."""

    job: JobRow
    attempt: AttemptRow
    flavor: Flavor
    market: Market


def place_of(wish: Wish, choice: Choice, *, nodes: tuple[str, ...], market: Market) -> Place:
    """Give the decision to start, with its reason and sentence."""
    reason, sentence = _why(wish, choice, market=market)
    return Place(
        job_id=wish.job.id,
        flavor=choice.flavor.name,
        nodes=nodes,
        reason=reason,
        sentence=sentence,
    )


def _why(wish: Wish, choice: Choice, *, market: Market) -> tuple[Reason, str]:
    name, price, nodes = choice.flavor.name, choice.offer.usd_nanos_per_hour, wish.job.spec.nodes
    if wish.on_net and choice.sure and wish.job.deadline_us is not None:
        text = sentences.starts_on_net(
            name,
            deadline_us=wish.job.deadline_us + wish.job.ahead_us,
            latest_us=wish.latest_us or market.now_us,
            usd_nanos_per_hour=price,
            nodes=nodes,
        )
        return Reason.SAFETY_NET, text
    dearer = [at_us for at_us, later in choice.offer.next_prices if later > price]
    if dearer:
        text = sentences.starts_in_window(
            name, usd_nanos_per_hour=price, nodes=nodes, until_us=dearer[0]
        )
        return Reason.IN_WINDOW, text
    return Reason.CHEAPEST_NOW, sentences.starts(name, usd_nanos_per_hour=price, nodes=nodes)


def leaves_at_us(wish: Wish, choice: Choice, *, market: Market) -> int | None:
    """Give when a start that is made now would have to leave spot again if nothing were saved."""
    job = wish.job
    sure = market.sure_flavors(job.spec)
    if job.deadline_us is None or choice.sure or not sure:
        return None
    return leave_spot_us(
        job, choice.flavor, sure, work_ms=job.remaining_ms(), settings=market.settings
    )

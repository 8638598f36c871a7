"""Budgets as people write them: in ``lowtide.yaml``, in ``budgets apply -f``, in scenarios.

budgets:
- name: ads-monthly
team: ads                    # and / or tags: {product: search}, or job: JOB
limit_usd: 3000
period: month                # day | week | month | total; or from: and until:
time_zone: Europe/Berlin
hard: true
burn: even                   # the month is not gone on day one
thresholds: [{at_percent: 80, action: warn}]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from difflib import get_close_matches
from typing import Annotated, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from jobs.budget import Action, Budget, Burn, Hours, Owner, Period, Threshold
from jobs.durations import to_us
from jobs.errors import FileFormatError
from jobs.spec import NANOS_PER_USD, Label, Name
from scheduler.window_settings import Day, TimeOfDay, TimeZone
from scheduler.yaml_lines import Document, parse_yaml

_DAY_S = 86_400
_WARN_PERCENT = 80

Percent = Annotated[int, Field(ge=0, le=1_000)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True)


class ThresholdSettings(_Strict):
    """A share of the limit, and what happens when so much is spent."""

    at_percent: Annotated[int, Field(ge=1, le=1_000)]
    action: Action


class HoursSettings(_Strict):
    """Local hours in which money may be spent."""

    days: tuple[Day, ...] = Field(default=(0, 1, 2, 3, 4, 5, 6), min_length=1)
    start: TimeOfDay = 0
    end: TimeOfDay = _DAY_S

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if self.start % _DAY_S == self.end % _DAY_S and self.end - self.start != _DAY_S:
            msg = "empty hours: they end when they start; a whole day is 00:00 to 24:00"
            raise ValueError(msg)
        return self

    def hours(self) -> Hours:
        """Give the scheduler's value; an end at 24:00 is the next midnight."""
        days = tuple(sorted(set(self.days)))
        return Hours(days=days, start_s=self.start, end_s=self.end % _DAY_S)


class BudgetSettings(_Strict):
    """A budget. Whose money it is: the jobs that have ALL of ``team``, ``tags`` and ``job``."""

    name: Name | None = Field(default=None, description="default: from the owner and the period")
    team: Label | None = None
    tags: Mapping[Label, Label] = Field(default_factory=dict)
    job: Name | None = None
    limit_usd: Annotated[Decimal, Field(gt=0, le=1_000_000_000, decimal_places=9)]
    period: Period | None = Field(default=None, description="default: month, or once with `from`")
    from_: AwareDatetime | None = Field(default=None, alias="from")
    until: AwareDatetime | None = None
    time_zone: TimeZone = "UTC"
    hours: tuple[HoursSettings, ...] = ()
    hard: bool = True
    thresholds: tuple[ThresholdSettings, ...] | None = Field(
        default=None, description="default: warn at 80 %; a soft one deprioritises at 100 %"
    )
    burn: Burn = Burn.FREE
    allowance_percent: Annotated[int, Field(ge=0, le=100)] = 10
    carry_over_percent: Percent = 0

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        for broken, msg in self._mistakes():
            if broken:
                raise ValueError(msg)
        return self

    def _mistakes(self) -> Iterable[tuple[bool, str]]:
        begins, ends, repeats = self.from_, self.until, self._period not in _ONE_TIME
        once = self._period is Period.ONCE
        levels = [one.at_percent for one in self.thresholds or ()]
        return (
            (once and (begins is None or ends is None), "a window needs both `from` and `until`"),
            (not once and bool(begins or ends), f"`from` and `until` make no {self._period}"),
            (
                begins is not None and ends is not None and ends <= begins,
                "an empty window: `until` is not after `from`",
            ),
            (
                self.burn is Burn.EVEN and self._period is Period.TOTAL,
                "`total` has no end to burn to",
            ),
            (
                bool(self.carry_over_percent) and not repeats,
                f"nothing is carried over where no period follows ({self._period})",
            ),
            (len(set(levels)) < len(levels), "two thresholds are at the same percent"),
        )

    @property
    def _period(self) -> Period:
        if self.period is not None:
            return self.period
        return Period.ONCE if self.from_ or self.until else Period.MONTH

    @property
    def _owner(self) -> Owner:
        given = dict(self.tags)
        given |= {"team": self.team} if self.team is not None else {}
        given |= {"job": self.job} if self.job is not None else {}
        return tuple(sorted(given.items()))

    def budget(self) -> Budget:
        """Give the scheduler's value."""
        owner = self._owner
        whose = "-".join(value for _, value in owner) or "everybody"
        return Budget(
            name=self.name or f"{whose}-{self._period}",
            owner=owner,
            limit_usd_nanos=int(self.limit_usd * NANOS_PER_USD),
            period=self._period,
            time_zone=self.time_zone,
            from_us=None if self.from_ is None else to_us(self.from_),
            until_us=None if self.until is None else to_us(self.until),
            hours=tuple(one.hours() for one in self.hours),
            hard=self.hard,
            thresholds=self._levels(),
            burn=self.burn,
            allowance_percent=self.allowance_percent,
            carry_over_percent=self.carry_over_percent,
        )

    def _levels(self) -> tuple[Threshold, ...]:
        if self.thresholds is None:
            listed = [Threshold(percent=_WARN_PERCENT, action=Action.WARN)]
            if not self.hard:
                listed.append(Threshold(percent=100, action=Action.DEPRIORITISE))
            return tuple(listed)
        found = [Threshold(percent=one.at_percent, action=one.action) for one in self.thresholds]
        return tuple(sorted(found, key=lambda one: one.percent))


_ONE_TIME = frozenset({Period.ONCE, Period.TOTAL})


class BudgetsFile(_Strict):
    """What ``lowtide budgets apply -f`` reads; it may be a whole ``lowtide.yaml`` section."""

    budgets: tuple[BudgetSettings, ...]


def twice(budgets: Iterable[BudgetSettings]) -> tuple[int, str] | None:
    """Give the index and name of the first budget whose name was given before, None = no such."""
    seen: set[str] = set()
    for index, budget in enumerate(one.budget() for one in budgets):
        if budget.name in seen:
            return index, budget.name
        seen.add(budget.name)
    return None


def parse_budgets(text: str, *, source: str) -> tuple[Budget, ...]:
    """Read a YAML file of budgets; ``source`` names it in errors.

    Raises:
        FileFormatError: something in it is wrong; names line and field.
    """
    document = parse_yaml(text, source=source)
    try:
        model = BudgetsFile.model_validate(document.data)
    except ValidationError as error:
        raise _explained(error, document) from error
    double = twice(model.budgets)
    if double is not None:
        raise document.error(
            ("budgets", double[0]),
            f"there are two budgets called '{double[1]}'",
            remedy="Rename one; without a name, the owner and the period make it.",
        )
    return tuple(one.budget() for one in model.budgets)


def _explained(error: ValidationError, document: Document) -> FileFormatError:
    first = error.errors(include_url=False)[0]
    text = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        known = [field.alias or name for name, field in BudgetSettings.model_fields.items()]
        near = get_close_matches(str(first["loc"][-1]), known, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"Known fields: {', '.join(known)}."
        return document.error(first["loc"], "unknown field", remedy=hint)
    if first["type"] == "missing":
        return document.error(first["loc"], "it is missing", remedy=f"Add '{first['loc'][-1]}'.")
    return document.error(first["loc"], text, remedy="Correct it; docs/budgets.md has the format.")

"""What a single field of a scenario cannot know: names that are given twice or that nobody has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches

from scheduler.budget_settings import twice
from scheduler.scenario_models import JobIn, ScenarioIn
from scheduler.window_settings import problems

_YEARS = range(1971, 2201)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """What is wrong, at which field, and what to do."""

    loc: tuple[int | str, ...]
    cause: str
    remedy: str


def mistakes(model: ScenarioIn) -> Iterator[Mistake]:
    """Find what is wrong with a scenario whose fields are right, one by one."""
    if model.start.year not in _YEARS:
        cause = f"{model.start.year} is not a year of this scheduler"
        remedy = f"Start between {_YEARS[0]} and {_YEARS[-1]}."
        yield Mistake(loc=("start",), cause=cause, remedy=remedy)
    yield from _flavor_twice(model)
    flavors = [flavor.flavor(max_nodes=0, usd_nanos=0) for flavor in model.flavors]
    for found in problems(model.price_windows, flavors=flavors, holidays=model.holidays):
        loc = ("price_windows", found.index, found.field)
        yield Mistake(loc=loc, cause=found.cause, remedy=found.remedy)
    double = twice(model.budgets)
    if double is not None:
        cause = f"there are two budgets called '{double[1]}'"
        remedy = "Give one of them another `name`."
        yield Mistake(loc=("budgets", double[0]), cause=cause, remedy=remedy)
    yield from _egress_nowhere(model)
    for index, job in enumerate(model.jobs if isinstance(model.jobs, tuple) else ()):
        for odd in odd_places(job, model):
            yield Mistake(loc=("jobs", index, *odd.loc), cause=odd.cause, remedy=odd.remedy)


def odd_places(job: JobIn, model: ScenarioIn) -> Iterator[Mistake]:
    """Find regions and accelerators in a job's rules that no flavor has."""
    known = {
        "regions": [flavor.region for flavor in model.flavors],
        "accelerators": [flavor.accelerator for flavor in model.flavors],
    }
    for field, names in known.items():
        for name in getattr(job, field):
            if name not in names:
                cause = f"no flavor has the {field.removesuffix('s')} '{name}'"
                yield Mistake(loc=(field,), cause=cause, remedy=_nearest(name, names))


def _flavor_twice(model: ScenarioIn) -> Iterator[Mistake]:
    seen: set[str] = set()
    for index, flavor in enumerate(model.flavors):
        if flavor.name in seen:
            cause = f"there are two flavors called '{flavor.name}'"
            yield Mistake(loc=("flavors", index, "name"), cause=cause, remedy="Rename one of them.")
        seen.add(flavor.name)


def _egress_nowhere(model: ScenarioIn) -> Iterator[Mistake]:
    """A table may have more regions than the flavors, but not none of theirs."""
    regions = [flavor.region for flavor in model.flavors]
    pairs = [(source, to) for source, tos in model.egress_usd_per_gb.items() for to in tos]
    if pairs and not any(source in regions or to in regions for source, to in pairs):
        source = pairs[0][0]
        cause = f"none of the prices is of a region that a flavor has; '{source}' is none"
        yield Mistake(
            loc=("egress_usd_per_gb", source), cause=cause, remedy=_nearest(source, regions)
        )


def _nearest(name: str, known: Iterable[str]) -> str:
    names = list(dict.fromkeys(one for one in known if one))
    near = get_close_matches(name, names, n=1)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    return f"{hint}The flavors have: {', '.join(names) or 'none'}."

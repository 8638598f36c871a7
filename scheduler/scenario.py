"""Scenarios: what ``lowtide simulate`` runs, read from YAML or JSON and checked.

``load_scenario`` gives frozen values in our units; the format is a contract (POLICY.md, section
"Scenario format"). Beyond it, a few optional fields are understood: a flavor's
``list_price_usd_per_hour`` and ``idle_release_s``, a job's ``markets``, ``accelerators`` and
``regions``, and ``from_s``, how far into its file a series starts. Every mistake is a
``FileFormatError`` that names file, line and field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path

from pydantic import BaseModel, ValidationError

from cluster.flavors import Flavor
from cluster.prices import StepSeries
from jobs.budget import Budget
from jobs.durations import US_PER_S, to_us
from jobs.errors import FileFormatError
from jobs.spec import JobSpec, Market
from scheduler.budget_settings import BudgetSettings
from scheduler.scenario_checks import mistakes, odd_places
from scheduler.scenario_files import parse_json, read_table, read_text
from scheduler.scenario_models import (
    FlavorIn,
    JobIn,
    ScenarioIn,
    SeriesIn,
    WindowIn,
    nanos,
    us,
)
from scheduler.windows import PriceWindow
from scheduler.yaml_lines import Document, parse_yaml

_FOREVER_US = 366 * 86_400 * US_PER_S
_SHOWN = 60  # characters of a wrong value
Loc = tuple[int | str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """A flavor, how many of its nodes can be up when, and its price series if it has one."""

    flavor: Flavor
    limits: StepSeries
    prices: StepSeries | None = None  # nano-dollars per node-hour
    known_ahead_us: int | None = None  # how far ahead the price series is published


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A job and when it is submitted."""

    at_us: int
    spec: JobSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A world and its work. ``arrivals`` are in order of submission."""

    start_us: int
    end_us: int  # the simulation stops here at the latest
    seed: int = 0
    probe: bool = False  # only launching tells what can be had
    capacities: tuple[Capacity, ...]
    arrivals: tuple[Arrival, ...]
    windows: tuple[PriceWindow, ...] = ()
    budgets: tuple[Budget, ...] = ()
    egress_nanos_per_gb: Mapping[tuple[str, str], int] = field(default_factory=dict)

    @property
    def flavors(self) -> dict[str, Flavor]:
        """The flavors by name, in the file's order."""
        return {capacity.flavor.name: capacity.flavor for capacity in self.capacities}

    @property
    def limits(self) -> dict[str, StepSeries]:
        """The limit of each flavor over time."""
        return {capacity.flavor.name: capacity.limits for capacity in self.capacities}

    @property
    def price_series(self) -> dict[str, StepSeries]:
        """The price series of the flavors that have one."""
        return {c.flavor.name: c.prices for c in self.capacities if c.prices is not None}

    @property
    def known_ahead_us(self) -> dict[str, int]:
        """How far ahead the price series of flavors are published, for those that are."""
        known = {c.flavor.name: c.known_ahead_us for c in self.capacities}
        return {name: ahead_us for name, ahead_us in known.items() if ahead_us is not None}


def load_scenario(path: Path) -> Scenario:
    """Read a scenario and the files that it names, relative to it.

    Raises:
        FileFormatError: anything in it is wrong; names file, line and field.
    """
    text = read_text(path)
    if path.suffix == ".json":
        data = parse_json(text, source=str(path))
    else:
        data = parse_yaml(text, source=str(path)).data
    try:
        model = ScenarioIn.model_validate(data)
    except ValidationError as error:
        raise _field_error(error, data=data, text=text, source=str(path)) from error
    wrong = next(mistakes(model), None)
    if wrong is not None:
        document = _document(text, source=str(path))
        raise document.error(wrong.loc, wrong.cause, remedy=wrong.remedy)
    return _build(model, folder=path.parent)


def _build(model: ScenarioIn, *, folder: Path) -> Scenario:
    start_us = to_us(model.start)
    jobs = (
        model.jobs if isinstance(model.jobs, tuple) else _jobs_of(folder / model.jobs.file, model)
    )
    arrivals = [
        Arrival(at_us=start_us + us(job.submit_s), spec=job.spec(default_name=f"job-{i + 1}"))
        for i, job in enumerate(jobs)
    ]
    arrivals.sort(key=lambda arrival: arrival.at_us)  # stable: the file's order breaks ties
    last_us = arrivals[-1].at_us if arrivals else start_us
    horizon_us = None if model.horizon_s is None else us(model.horizon_s)
    capacities = [_capacity(f, folder=folder, start_us=start_us) for f in model.flavors]
    return Scenario(
        start_us=start_us,
        end_us=last_us + _FOREVER_US if horizon_us is None else start_us + horizon_us,
        seed=model.seed,
        probe=model.observation == "probe",
        capacities=tuple(_with_list_price(one, among=capacities) for one in capacities),
        arrivals=tuple(arrivals),
        windows=tuple(
            window for given in model.price_windows for window in given.windows(model.holidays)
        ),
        budgets=tuple(budget.budget() for budget in model.budgets),
        egress_nanos_per_gb={
            (source, target): nanos(usd)
            for source, targets in model.egress_usd_per_gb.items()
            for target, usd in targets.items()
        },
    )


def _capacity(given: FlavorIn, *, folder: Path, start_us: int) -> Capacity:
    limits, prices = (
        _series(value, folder=folder, start_us=start_us, scale=scale)
        for value, scale in ((given.nodes, 1), (given.price_usd_per_hour, nanos(1)))
    )
    if isinstance(given.nodes, int):
        limits = StepSeries((start_us,), (given.nodes,))
    assert limits is not None, f"flavor {given.name} has neither a limit nor a trace"
    if isinstance(given.price_usd_per_hour, SeriesIn):
        assert prices is not None, f"flavor {given.name} lost its price series"
        usd_nanos, ahead_s = prices.values[0], given.price_usd_per_hour.known_ahead_s
    else:
        usd_nanos, ahead_s = nanos(given.price_usd_per_hour), None
    flavor = given.flavor(max_nodes=max(limits.values), usd_nanos=usd_nanos)
    return Capacity(
        flavor=flavor,
        limits=limits,
        prices=prices,
        known_ahead_us=None if ahead_s is None else us(ahead_s),
    )


def _series(value: object, *, folder: Path, start_us: int, scale: int) -> StepSeries | None:
    if not isinstance(value, SeriesIn):
        return None
    numbers, step_s = value.read(folder)
    scaled = [int(number * scale) for number in numbers]
    return StepSeries.regular(scaled, start_us=start_us, step_us=us(step_s))


def _with_list_price(capacity: Capacity, *, among: Iterable[Capacity]) -> Capacity:
    """Fill in a list price that was not given: the cheapest like node on demand, else its own."""
    mine = capacity.flavor
    if mine.list_usd_nanos_per_hour:
        return capacity
    alike = [
        (other.region != mine.region, other.usd_nanos_per_hour)
        for other in (one.flavor for one in among)
        if other.market is Market.ON_DEMAND
        and (other.accelerator, other.gpu_milli) == (mine.accelerator, mine.gpu_milli)
    ]
    listed = min(alike)[1] if alike else mine.usd_nanos_per_hour
    return replace(capacity, flavor=replace(mine, list_usd_nanos_per_hour=listed))


def _jobs_of(path: Path, model: ScenarioIn) -> tuple[JobIn, ...]:
    jobs = []
    for index, row in enumerate(read_table(read_text(path), source=str(path))):
        given = {name: value for name, value in row.items() if value.strip()}
        where = f"{path}, line {index + 2}, field"
        try:
            jobs.append(JobIn.model_validate(given))
        except ValidationError as error:
            loc, cause, remedy = _explain(error, data=given, inside=JobIn)
            named = ".".join(map(str, loc))
            raise FileFormatError(f"{where} '{named}': {cause}.", remedy=remedy) from error
        for odd in odd_places(jobs[-1], model):
            raise FileFormatError(f"{where} '{odd.loc[0]}': {odd.cause}.", remedy=odd.remedy)
    return tuple(jobs)


# -- errors -----------------------------------------------------------------------------------


def _field_error(
    error: ValidationError, *, data: object, text: str, source: str
) -> FileFormatError:
    loc, cause, remedy = _explain(error, data=data)
    return _document(text, source=source).error(loc, cause, remedy=remedy)


def _document(text: str, *, source: str) -> Document:
    """Parse again, now with lines; JSON is YAML as far as lines go."""
    try:
        return parse_yaml(text, source=source)
    except FileFormatError:
        return Document(None, source, None)


def _explain(
    error: ValidationError, *, data: object, inside: type[BaseModel] = ScenarioIn
) -> tuple[Loc, str, str]:
    found = error.errors(include_url=False)
    # A field that is misspelt is also one that is missing: say the former.
    first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
    loc = _real_loc(first["loc"], data=data)
    cause = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        return loc, "it is missing", f"Add '{loc[-1]}'."
    if first["type"] == "extra_forbidden":
        known = _known_fields(loc, inside=inside)
        near = get_close_matches(str(loc[-1]), known, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"Known fields: {', '.join(known)}."
        return loc, "unknown field", hint
    shown = repr(first["input"])
    shown = shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 3]}..."
    return loc, cause, f"Correct it (got {shown})."


def _real_loc(loc: Loc, *, data: object) -> Loc:
    """Leave out what only names a branch of our models: keep keys and indexes of the data."""
    kept: list[int | str] = []
    for index, part in enumerate(loc):
        inside = isinstance(data, list) or (isinstance(data, dict) and part in data)
        if inside and (isinstance(data, dict) or isinstance(part, int)):
            data = data[part]  # type: ignore[index]
        elif index < len(loc) - 1 or str(part).startswith("~") or not isinstance(data, dict):
            continue
        kept.append(part)
    return tuple(kept)


def _known_fields(loc: Loc, *, inside: type[BaseModel]) -> list[str]:
    models: dict[str, type[BaseModel]] = {
        "flavors": FlavorIn,
        "jobs": JobIn,
        "price_windows": WindowIn,
        "budgets": BudgetSettings,
        "nodes": SeriesIn,
        "price_usd_per_hour": SeriesIn,
    }
    parents = [models[str(part)] for part in loc[:-1] if str(part) in models]
    fields = (parents[-1] if parents else inside).model_fields
    return [field.alias or name for name, field in fields.items()]

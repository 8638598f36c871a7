"""The fields of a scenario file, as pydantic models: names and types are a contract (POLICY.md)."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from cluster.flavors import Flavor
from jobs.durations import MAX_MS
from jobs.errors import FileFormatError
from jobs.spec import NANOS_PER_USD, JobSpec, Label, Market, Name
from jobs.wants import MAX_ELEMENTS, After, ArraySpec, OnFailure
from scheduler.budget_settings import BudgetSettings
from scheduler.scenario_files import as_prices, own_step_s, read_series
from scheduler.window_settings import Holidays, WindowSettings

_CPUS = 1_000_000  # a scenario does not count cores
_IDLE_RELEASE_S = 60

_MOST_S = MAX_MS // 1_000
Seconds = Annotated[Decimal, Field(ge=0, le=_MOST_S)]
Usd = Annotated[Decimal, Field(ge=0, le=10**6)]


def us(seconds: Decimal) -> int:
    """Give seconds as whole microseconds."""
    return int(seconds * 1_000_000)


def nanos(usd: Decimal | int) -> int:
    """Give dollars as whole nano-dollars."""
    return int(usd * NANOS_PER_USD)


def _ms(seconds: Decimal) -> int:
    return int(seconds * 1_000)


def _names(value: object) -> object:
    """Let a CSV cell hold several names: ``spot;reserved``."""
    return tuple(value.split(";")) if isinstance(value, str) else value


def _pairs(value: object) -> object:
    """Let a CSV cell hold tags: ``product=search;model=ranker``."""
    if not isinstance(value, str):
        return value
    return dict(pair.partition("=")[::2] for pair in value.split(";") if pair)


def _file_or_value(value: object) -> str:
    return "~file" if isinstance(value, Mapping | BaseModel) else "~value"  # no field's name


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileIn(_Strict):
    """A table in a file of its own."""

    file: str


class SeriesIn(_Strict):
    """One value per step, in a file. ``step_s`` may be left out if the file states it."""

    file: str
    column: str | None = None
    key: str | None = None
    step_s: Annotated[Decimal, Field(ge=Decimal("0.001"), le=_MOST_S)] | None = None
    from_s: Seconds = Decimal(0)
    known_ahead_s: Annotated[
        Seconds | None, Field(description="a price that is published so far ahead (a tariff)")
    ] = None
    mean_usd_per_hour: Annotated[
        Usd | None, Field(description="the file is a shape only: negatives count as 0, this mean")
    ] = None

    def read(self, folder: Path) -> tuple[list[Decimal], Decimal]:
        """Give the values and the seconds between them.

        Raises:
            FileFormatError: the file is wrong, or nobody states the step.
        """
        path = folder / self.file
        shape_usd = self.mean_usd_per_hour
        signed = shape_usd is not None
        values = read_series(path, column=self.column, key=self.key, signed=signed)
        if shape_usd is not None:
            values = as_prices(values, mean_usd=shape_usd)
        step_s = self.step_s or own_step_s(path)
        if step_s is None:
            raise FileFormatError(
                f"{path}: field 'step_s': nobody says how long a step is.",
                remedy="Add `step_s`, in seconds, beside `file`.",
            )
        skipped = int(self.from_s // step_s)
        return values[skipped:] or values[-1:], step_s


Limit = Annotated[
    Annotated[int, Field(ge=0, le=100_000), Tag("~value")] | Annotated[SeriesIn, Tag("~file")],
    Discriminator(_file_or_value),
]
PriceIn = Annotated[
    Annotated[Usd, Tag("~value")] | Annotated[SeriesIn, Tag("~file")], Discriminator(_file_or_value)
]


class FlavorIn(_Strict):
    """A kind of node. A zone's spot capacity is one, its on-demand capacity another."""

    name: Name
    market: Market
    accelerator: str = ""
    gpus_per_node: Annotated[Decimal, Field(ge=0, le=1_024, decimal_places=3)] = Decimal(1)
    region: str = ""
    zone: str = ""
    price_usd_per_hour: PriceIn
    list_price_usd_per_hour: Usd | None = None
    nodes: Limit
    boot_s: Seconds = Decimal(0)
    notice_s: Seconds = Decimal(0)
    idle_release_s: Seconds | None = None

    def flavor(self, *, max_nodes: int, usd_nanos: int) -> Flavor:
        """Give the scheduler's value. An idle node is kept no longer than a new one boots."""
        idle_s = self.idle_release_s
        if idle_s is None:
            idle_s = min(self.boot_s, Decimal(_IDLE_RELEASE_S))
        return Flavor(
            name=self.name,
            cluster=self.region or "simulated",
            market=self.market,
            accelerator=self.accelerator,
            region=self.region,
            zone=self.zone,
            gpu_milli=int(self.gpus_per_node * 1_000),
            cpus=_CPUS,
            usd_nanos_per_hour=usd_nanos,
            list_usd_nanos_per_hour=nanos(self.list_price_usd_per_hour or 0),
            max_nodes=max_nodes,
            boot_ms=_ms(self.boot_s),
            notice_ms=_ms(self.notice_s),
            idle_release_ms=_ms(idle_s),
        )


class JobIn(_Strict):
    """A job; the same names are the columns of a jobs file, where an empty cell is absent."""

    name: Label = ""
    submit_s: Seconds = Decimal(0)
    nodes: Annotated[int, Field(ge=1, le=10_000)] = 1
    gpus_per_node: Annotated[Decimal, Field(ge=0, le=1_024, decimal_places=3)] = Decimal(1)
    work_s: Annotated[Decimal, Field(gt=0, le=_MOST_S)]
    deadline_s: Annotated[Decimal, Field(gt=0, le=_MOST_S)] | None = None
    team: Label = "default"
    priority: Annotated[int, Field(ge=-1_000, le=1_000)] = 0
    setup_s: Seconds = Decimal(0)
    restore_s: Seconds = Decimal(0)
    save_s: Seconds = Decimal(0)
    checkpoint_interval_s: Seconds | None = None
    checkpoint_gb: Annotated[Decimal, Field(ge=0)] = Decimal(0)
    markets: Annotated[tuple[Market, ...], BeforeValidator(_names)] = ()
    accelerators: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    regions: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    budget_usd: Annotated[Decimal, Field(gt=0, le=10**9)] | None = None
    tags: Annotated[Mapping[Label, Label], BeforeValidator(_pairs)] = Field(default_factory=dict)
    after: Annotated[tuple[After, ...], BeforeValidator(_names)] = ()  # by name; NAME:ended
    on_failure: OnFailure = OnFailure.CANCEL
    array: Annotated[int, Field(ge=1, le=MAX_ELEMENTS)] | None = None
    max_parallel: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _fraction(self) -> Self:
        if self.gpus_per_node > 1 and self.gpus_per_node % 1:
            msg = "more than one GPU must be a whole number"
            raise ValueError(msg)
        if self.max_parallel is not None and self.array is None:
            msg = "max_parallel is for arrays; give array too"
            raise ValueError(msg)
        return self

    def spec(self, *, default_name: str) -> JobSpec:
        """Give the specification that a user would have submitted."""
        interval = self.checkpoint_interval_s
        return JobSpec(
            name=self.name or default_name,
            nodes=self.nodes,
            gpus=self.gpus_per_node,
            markets=self.markets,
            accelerators=self.accelerators,
            regions=self.regions,
            deadline=None if self.deadline_s is None else float(self.deadline_s),
            work=float(self.work_s),
            setup=float(self.setup_s),
            restore=float(self.restore_s),
            save=float(self.save_s),
            checkpoint_interval=None if interval is None else float(interval),
            checkpoint_gb=self.checkpoint_gb,
            team=self.team,
            priority=self.priority,
            budget_usd=self.budget_usd,
            tags=self.tags,
            after=self.after,
            on_failure=self.on_failure,
            array=None if self.array is None else ArraySpec(count=self.array),
            max_parallel=self.max_parallel,
        )


WindowIn = WindowSettings
"""A price window as in ``lowtide.yaml``."""


Jobs = Annotated[
    Annotated[tuple[JobIn, ...], Tag("~value")] | Annotated[FileIn, Tag("~file")],
    Discriminator(_file_or_value),
]


class ScenarioIn(_Strict):
    """The whole file."""

    version: Literal[1] = 1
    start: AwareDatetime
    seed: int = 0
    horizon_s: Annotated[Decimal, Field(gt=0, le=_MOST_S)] | None = None
    observation: Literal["free", "probe"] = "free"
    flavors: Annotated[tuple[FlavorIn, ...], Field(min_length=1)]
    egress_usd_per_gb: Mapping[str, Mapping[str, Usd]] = Field(default_factory=dict)
    jobs: Jobs
    price_windows: tuple[WindowIn, ...] = ()
    holidays: Holidays = Field(default_factory=dict)
    budgets: tuple[BudgetSettings, ...] = ()

"""The server's configuration: what is in ``lowtide.yaml``, checked and turned into our values.

Field names are the same in the file, in the API and in scenarios; durations are written ``"90s"``
or in seconds, prices in dollars per node and hour. Every problem is a ``FileFormatError`` that
names file, line and field, with a remedy. This module is the one home of ``os.environ``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields, replace
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from cluster.flavors import Flavor
from jobs.durations import DurationMs
from jobs.errors import FileFormatError
from jobs.spec import NANOS_PER_USD, Market, Name
from scheduler.budget_settings import BudgetSettings, twice
from scheduler.snapshot import PolicySettings
from scheduler.window_settings import FeedSettings, Holidays, Price, WindowSettings, problems
from scheduler.windows import PriceWindow
from scheduler.yaml_lines import Document, parse_yaml

CONFIG_NAME = "lowtide.yaml"
DEFAULT_PORT = 8470


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FlavorSettings(_Strict):
    """One kind of node of a cluster."""

    name: Name
    market: Market
    accelerator: str = ""
    region: Name = "local"
    zone: str = Field(default="", description="defaults to the region")
    gpus: Decimal = Field(default=Decimal(1), ge=0, le=1_024, decimal_places=3)
    cpus: int = Field(default=1, ge=1)
    memory_gb: int = Field(default=0, ge=0, description="0 = not counted")
    price_usd_per_hour: Price
    on_demand_price_usd_per_hour: Price | None = Field(
        default=None, description="of the same node; a spot flavor needs it, to count savings"
    )
    max_nodes: int = Field(ge=0, le=100_000)
    boot: DurationMs = 0
    notice: DurationMs = 0
    idle_release: DurationMs = 60_000

    @model_validator(mode="after")
    def _spot_needs_a_list_price(self) -> Self:
        if self.market is Market.SPOT and self.on_demand_price_usd_per_hour is None:
            msg = "a spot flavor needs on_demand_price_usd_per_hour, against which savings count"
            raise ValueError(msg)
        return self

    def flavor(self, cluster: str) -> Flavor:
        """Give the scheduler's value of it."""
        listed = self.on_demand_price_usd_per_hour
        return Flavor(
            name=self.name,
            cluster=cluster,
            market=self.market,
            accelerator=self.accelerator,
            region=self.region,
            zone=self.zone or self.region,
            gpu_milli=int(self.gpus * 1_000),
            cpus=self.cpus,
            memory_gb=self.memory_gb,
            usd_nanos_per_hour=int(self.price_usd_per_hour * NANOS_PER_USD),
            list_usd_nanos_per_hour=int(
                (self.price_usd_per_hour if listed is None else listed) * NANOS_PER_USD
            ),
            max_nodes=self.max_nodes,
            boot_ms=self.boot,
            notice_ms=self.notice,
            idle_release_ms=self.idle_release,
        )


class ClusterSettings(_Strict):
    """One Ray cluster: who starts its nodes, and which kinds it has."""

    name: Name
    provider: Literal["local", "static"]
    provider_options: Mapping[str, Any] = Field(default_factory=dict)
    flavors: tuple[FlavorSettings, ...] = Field(min_length=1)


class Settings(_Strict):
    """All of ``lowtide.yaml``. Empty ``storage`` and ``database`` lie in the home folder."""

    clusters: tuple[ClusterSettings, ...] = Field(min_length=1)
    price_windows: tuple[WindowSettings, ...] = ()
    budgets: tuple[BudgetSettings, ...] = ()
    holidays: Holidays = Field(default_factory=dict)
    price_feed: FeedSettings | None = None
    egress_usd_per_gb: Mapping[Name, Mapping[Name, Price]] = Field(
        default_factory=dict, description="price of reading a checkpoint: from region, to region"
    )
    storage: str = ""
    database: str = ""
    policy: PolicySettings = Field(default_factory=PolicySettings)
    host: str = "127.0.0.1"
    port: int = Field(default=DEFAULT_PORT, ge=0, le=65_535, description="0 = any free port")
    code_limit_mb: int = Field(default=256, ge=1, le=4_096, description="largest code archive")

    @property
    def flavors(self) -> dict[str, Flavor]:
        """Every flavor of every cluster by name, in the file's order."""
        return {
            flavor.name: replace(flavor.flavor(cluster.name), launches=cluster.provider != "static")
            for cluster in self.clusters
            for flavor in cluster.flavors
        }

    @property
    def windows(self) -> tuple[PriceWindow, ...]:
        """The price windows in the file's order."""
        listed = (window.windows(self.holidays) for window in self.price_windows)
        return tuple(window for windows in listed for window in windows)

    @property
    def egress_nanos_per_gb(self) -> dict[tuple[str, str], int]:
        """Prices of egress by (from region, to region)."""
        return {
            (source, target): int(usd * NANOS_PER_USD)
            for source, targets in self.egress_usd_per_gb.items()
            for target, usd in targets.items()
        }

    def cluster(self, name: str) -> ClusterSettings | None:
        """Give the cluster of that name, None when there is none."""
        return next((cluster for cluster in self.clusters if cluster.name == name), None)


def load_settings(path: Path) -> Settings:
    """Read a configuration file; a storage folder in it is relative to the file.

    Raises:
        FileFormatError: it cannot be read, or something in it is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(
            f"The configuration {path} cannot be read: {error}.",
            remedy="Name an existing file with --config, or leave it out for the built-in one.",
        ) from error
    settings = parse_settings(text, source=str(path))
    if settings.storage and "://" not in settings.storage:
        folder = (path.parent / Path(settings.storage).expanduser()).resolve()
        settings = settings.model_copy(update={"storage": str(folder)})
    return settings


def parse_settings(text: str, *, source: str) -> Settings:
    """Read a configuration from YAML; ``source`` names it in errors.

    Raises:
        FileFormatError: something in it is wrong; names line and field.
    """
    document = parse_yaml(text, source=source)
    try:
        settings = Settings.model_validate(document.data)
    except ValidationError as error:
        raise _field_error(error, document=document) from error
    _check_policy(settings.policy, document=document)
    _check_names(settings, document=document)
    return settings


def home_folder() -> Path:
    """Give the folder of this installation: ``LOWTIDE_HOME``, else ``~/.lowtide``."""
    return Path(os.environ.get("LOWTIDE_HOME") or Path.home() / ".lowtide")


def default_settings() -> Settings:
    """Give what ``lowtide up`` runs on a laptop without a configuration file.

    One local cluster: a spot and an on-demand flavor of the same logical GPU.
    """
    return parse_settings(_DEFAULT, source="the built-in configuration")


_DEFAULT = """\
clusters:
  - name: local
    provider: local
    flavors:
      - name: local-spot
        market: spot
        accelerator: L4
        gpus: 1
        cpus: 1
        price_usd_per_hour: 0.28
        on_demand_price_usd_per_hour: 0.71
        max_nodes: 4
        boot: 5s
        notice: 10s
      - name: local-on-demand
        market: on-demand
        accelerator: L4
        gpus: 1
        cpus: 1
        price_usd_per_hour: 0.71
        max_nodes: 2
        boot: 5s
"""


def _field_error(error: ValidationError, *, document: Document) -> FileFormatError:
    first = error.errors(include_url=False)[0]
    loc = tuple(part for part in first["loc"] if not str(part).startswith("function-"))
    text = first["msg"].removeprefix("Value error, ")
    known = _known_fields(loc)
    if first["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
        near = get_close_matches(str(loc[-1]), known, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"Known fields: {', '.join(known)}."
        return document.error(loc, "unknown field", remedy=hint)
    if first["type"] == "missing":
        return document.error(loc, "it is missing", remedy=f"Add '{loc[-1]}'.")
    return document.error(loc, text, remedy=f"Correct it (got {_short(first['input'])}).")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:77]}..."  # noqa: PLR2004 - one line


def _known_fields(loc: tuple[int | str, ...]) -> list[str]:
    names = [str(part) for part in loc[:-1] if isinstance(part, str)]
    if names[:1] == ["policy"]:
        return [field.name for field in fields(PolicySettings)]
    models: dict[tuple[str, ...], type[BaseModel]] = {
        (): Settings,
        ("clusters",): ClusterSettings,
        ("clusters", "flavors"): FlavorSettings,
        ("price_windows",): WindowSettings,
        ("price_feed",): FeedSettings,
        ("budgets",): BudgetSettings,
    }
    return list(models.get(tuple(names), Settings).model_fields)


def _check_policy(policy: PolicySettings, *, document: Document) -> None:
    for field in fields(policy):
        value = getattr(policy, field.name)
        if isinstance(value, int) and value < 0:
            raise document.error(
                ("policy", field.name),
                "it cannot be negative",
                remedy=f"Give 0 or more (got {value}).",
            )


def _check_names(settings: Settings, *, document: Document) -> None:
    seen: set[tuple[str, str]] = set()
    for c, cluster in enumerate(settings.clusters):
        _once(seen, "cluster", cluster.name, at=("clusters", c, "name"), document=document)
        for f, flavor in enumerate(cluster.flavors):
            at = ("clusters", c, "flavors", f, "name")
            _once(seen, "flavor", flavor.name, at=at, document=document)
    for found in problems(
        settings.price_windows, flavors=settings.flavors.values(), holidays=settings.holidays
    ):
        where = ("price_windows", found.index, found.field)
        raise document.error(where, found.cause, remedy=found.remedy)
    double = twice(settings.budgets)
    if double is not None:
        raise document.error(
            ("budgets", double[0]),
            f"there are two budgets called '{double[1]}'",
            remedy="Give one of them another `name`.",
        )


def _once(
    seen: set[tuple[str, str]],
    kind: str,
    name: str,
    *,
    at: tuple[str | int, ...],
    document: Document,
) -> None:
    if (kind, name) in seen:
        raise document.error(
            at,
            f"there are two {kind}s called '{name}'",
            remedy=f"Rename one; {kind} names are unique over the whole file.",
        )
    seen.add((kind, name))

"""What a user asks for: one frozen, versioned specification.

The field names are the same in Python, YAML and REST. Durations are written ``"6h30m"`` (or
seconds) and kept as integer milliseconds under ``*_ms`` properties; a deadline is a duration
after submission or an instant with its offset.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from jobs.durations import Deadline, DurationMs, to_us
from jobs.errors import SpecError
from jobs.wants import MAX_PREDECESSORS, After, ArraySpec, OnFailure

NANOS_PER_USD = 1_000_000_000

Label = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""Text on one line, for tables, tags and exports."""

Argument = Annotated[str, Field(max_length=100_000, pattern=r"^[^\x00]*$")]
"""Text that a process can be given."""

ExitCode = Annotated[int, Field(ge=-255, le=255)]
"""As the operating system tells it; a signal is negative."""


class Market(StrEnum):
    """How capacity is bought."""

    SPOT = "spot"
    ON_DEMAND = "on-demand"
    RESERVED = "reserved"


class JobSpec(BaseModel):
    """A retrain job. All amounts are per gang unless they say otherwise.

    Durations (``work``, ``setup``, ``restore``, ``save``, ``checkpoint_interval``, ``max_runtime``,
    ``retry_delay``) take ``"6h30m"`` or seconds and are kept as integer milliseconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    version: Literal[1] = 1
    script: Label = Field(default="", description="path of the training script inside the archive")
    name: Label = Field(default="", description="defaults to the script's stem")
    args: tuple[Argument, ...] = ()
    env: Mapping[Label, Argument] = Field(default_factory=dict)
    code: str = Field(default="", description="SHA-256 of the code archive; the client fills it in")

    nodes: int = Field(default=1, ge=1, le=10_000, description="nodes of the gang")
    gpus: Decimal = Field(
        default=Decimal(1), ge=0, le=1_024, description="GPUs on each node; a fraction if below 1"
    )
    processes: int = Field(default=1, ge=1, le=64, description="ranks started on each node")
    cpus: int = Field(default=1, ge=1, le=4_096, description="CPU cores on each node")
    memory_gb: Decimal = Field(default=Decimal(0), ge=0)

    markets: tuple[Market, ...] = Field(default=(), description="allowed markets; empty = any")
    accelerators: tuple[str, ...] = Field(default=(), description="allowed types; empty = any")
    regions: tuple[str, ...] = Field(default=(), description="allowed regions; empty = any")

    deadline: Deadline | None = Field(
        default=None, description="an instant with offset, or a duration after submission"
    )
    work: DurationMs | None = Field(
        default=None,
        description="expected useful training time of the whole gang; absent = measured from "
        "the first steps, and the job never waits for a cheaper hour before that",
    )
    setup: DurationMs = 0
    restore: DurationMs = 0
    save: DurationMs = 0
    checkpoint_interval: DurationMs | None = Field(
        default=None, description="absent = the scheduler's own cadence; 0 = continuously"
    )
    checkpoint_gb: Decimal = Field(default=Decimal(0), ge=0)

    budget_usd: Decimal | None = Field(default=None, gt=0, le=1_000_000_000)
    team: Label = "default"
    tags: Mapping[Label, Label] = Field(default_factory=dict)
    priority: int = Field(default=0, ge=-1_000, le=1_000)

    max_failures: int = Field(default=0, ge=0, le=100, description="retries of the user's errors")
    retry_on: tuple[ExitCode, ...] = Field(
        default=(), description="exit codes worth a retry; empty = any"
    )
    retry_delay: DurationMs = Field(
        default=0, description="pause before the first retry, doubled with each; 0 = the server's"
    )
    max_evictions: int | None = Field(default=None, ge=0, le=100_000, description="absent = any")
    max_lost: int | None = Field(
        default=None, ge=0, le=100_000, description="lost heartbeats; absent = any number"
    )
    max_launch_failures: int | None = Field(
        default=None, ge=0, le=100_000, description="nodes that did not start; absent = any number"
    )
    max_runtime: DurationMs | None = Field(
        default=None,
        gt=0,
        description="longest time on capacity over all attempts; waiting does not count",
    )

    after: tuple[After, ...] = Field(
        default=(), max_length=MAX_PREDECESSORS, description="jobs that must have ended before"
    )
    on_failure: OnFailure = Field(
        default=OnFailure.CANCEL, description="what becomes of it when one of them did not succeed"
    )
    array: ArraySpec | None = Field(
        default=None, description="makes one job for each index or row of parameters"
    )
    max_parallel: int | None = Field(
        default=None, ge=1, description="elements of the array that may be up at once"
    )

    @field_validator("gpus")
    @classmethod
    def _whole_or_fraction(cls, value: Decimal) -> Decimal:
        if value > 1 and value != value.to_integral_value():
            msg = "more than one GPU must be a whole number"
            raise ValueError(msg)
        if (value * 1_000) % 1:
            msg = "a fraction of a GPU has at most three decimals"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _parallel_needs_array(self) -> Self:
        if self.max_parallel is not None and self.array is None:
            msg = "max_parallel is for arrays; give array too"
            raise ValueError(msg)
        return self

    @property
    def label(self) -> str:
        """The name shown to people: ``name``, else the script's stem."""
        return self.name or self.script.rsplit("/", 1)[-1].removesuffix(".py") or "job"

    @property
    def gpu_milli(self) -> int:
        """Thousandths of a GPU held on each node."""
        return int(self.gpus * 1_000)

    @property
    def budget_nanos(self) -> int | None:
        """The job's own budget in nano-dollars."""
        return None if self.budget_usd is None else int(self.budget_usd * NANOS_PER_USD)

    def deadline_us(self, *, submitted_us: int) -> int | None:
        """Give the deadline as an instant in microseconds, None without one."""
        if self.deadline is None:
            return None
        if isinstance(self.deadline, datetime):
            return to_us(self.deadline)
        return submitted_us + self.deadline * 1_000


def parse_spec(data: Mapping[str, Any]) -> JobSpec:
    """Build a spec from YAML, JSON or REST data.

    Raises:
        SpecError: names the first wrong field, its cause and a remedy.
    """
    try:
        return JobSpec.model_validate(dict(data))
    except ValidationError as error:
        raise spec_error(error) from error


def spec_error(error: ValidationError) -> SpecError:
    """Turn pydantic's report into one cause and one remedy."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "spec"
    if first["type"] == "extra_forbidden":
        return SpecError(f"Unknown field '{field}'.", remedy=_nearest(field))
    text = first["msg"].removeprefix("Value error, ")
    return SpecError(
        f"Field '{field}': {text}.",
        remedy=f"Correct '{field}' (got {first['input']!r})."
        if field != "spec"
        else "Correct the specification.",
    )


def _nearest(field: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only on the error path

    near = get_close_matches(field, list(JobSpec.model_fields), n=1)
    if near:
        return f"Did you mean '{near[0]}'?"
    return f"Known fields: {', '.join(JobSpec.model_fields)}."


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""A name that is safe in paths, labels and URLs."""

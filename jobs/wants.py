"""Parts of a specification beyond one try of one job: arrays and dependencies.

All of it is plain data with limits; ``jobs.arrays`` makes an array's elements.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import prod
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

MAX_ELEMENTS = 1_000
"""Jobs of one submit: what one tick journals in well under a second."""
MAX_PREDECESSORS = 100


def _not_ours(name: str) -> str:
    if name.startswith("LOWTIDE_"):
        msg = "names that begin with LOWTIDE_ are Lowtide's own"
        raise ValueError(msg)
    return name


ParameterName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=100),
    AfterValidator(_not_ours),
]
"""Also the name of an environment variable."""
ParameterValue = (
    bool | int | float | Annotated[str, Field(max_length=10_000, pattern=r"^[^\x00]*$")]
)


class When(StrEnum):
    """What must have become of a predecessor before its dependent may start."""

    SUCCEEDED = "succeeded"
    ENDED = "ended"


class OnFailure(StrEnum):
    """What becomes of a job whose predecessor did not succeed."""

    CANCEL = "cancel"
    RUN = "run"
    WAIT = "wait"


class After(BaseModel):
    """A predecessor: a job's id, or (in one submit of several) a job's name.

    Text is read as ``JOB`` or ``JOB:ended``. The id of an array means all of its elements.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    job: str = Field(pattern=r"^[^\x00-\x1f\x7f:]+$", max_length=200)
    when: When = When.SUCCEEDED

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        job, colon, when = value.partition(":")
        return {"job": job, "when": when} if colon else {"job": job}


class ArraySpec(BaseModel):
    """Jobs that differ by an index and, if wanted, by parameters.

    Exactly one of ``count``, ``rows`` (one mapping for each element) and ``matrix`` (every
    combination; the last name varies fastest) is given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int | None = Field(default=None, ge=1, le=MAX_ELEMENTS)
    rows: tuple[Mapping[ParameterName, ParameterValue], ...] | None = Field(
        default=None, min_length=1, max_length=MAX_ELEMENTS
    )
    matrix: (
        Mapping[ParameterName, Annotated[tuple[ParameterValue, ...], Field(min_length=1)]] | None
    ) = Field(default=None, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _from_count(cls, value: object) -> object:
        return {"count": value} if isinstance(value, int | str) else value

    @field_validator("rows")
    @classmethod
    def _same_names(
        cls, rows: tuple[Mapping[str, ParameterValue], ...] | None
    ) -> tuple[Mapping[str, ParameterValue], ...] | None:
        for index, row in enumerate(rows or ()):
            if rows and row.keys() != rows[0].keys():
                msg = f"element {index} has other names than element 0"
                raise ValueError(msg)
        return rows

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if sum(way is not None for way in (self.count, self.rows, self.matrix)) != 1:
            msg = "give one of count, rows and matrix"
            raise ValueError(msg)
        if self.size > MAX_ELEMENTS:
            msg = f"the matrix has {self.size} elements; an array has at most {MAX_ELEMENTS}"
            raise ValueError(msg)
        return self

    @property
    def size(self) -> int:
        """How many jobs it makes."""
        if self.rows is not None:
            return len(self.rows)
        return self.count or prod(len(values) for values in (self.matrix or {}).values())


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayPlace:
    """Which element of which array a job is."""

    id: str
    index: int
    size: int
    max_parallel: int | None = None  # elements that may hold capacity at once; None = any number

"""From one specification with an array to the specifications of its elements."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

from jobs.rows import JobRow
from jobs.spec import JobSpec, parse_spec
from jobs.wants import ArrayPlace, ArraySpec, ParameterValue

TAG = "lowtide-array"
"""The tag under which the ledger adds an array's elements up."""


def element_id(array_id: str, index: int) -> str:
    """Give the id of an element; no other job's id holds a dot."""
    return f"{array_id}.{index}"


def members(jobs: Mapping[str, JobRow], name: str) -> list[JobRow]:
    """Give the job of that id, or all known elements of the array of that id; else nothing."""
    if name in jobs:
        return [jobs[name]]
    first = jobs.get(element_id(name, 0))
    if first is None or first.array is None:
        return []
    names = (element_id(name, index) for index in range(first.array.size))
    return [jobs[one] for one in names if one in jobs]


def elements(spec: JobSpec, *, array_id: str) -> list[tuple[ArrayPlace, JobSpec]]:
    """Give each element's place and its own specification.

    An element has its index, the array's size and id, and its parameters in the environment;
    ``{index}`` and ``{name}`` of a parameter are filled into ``args``.

    Raises:
        SpecError: an element would not be a valid job; the cause names its field.
    """
    assert spec.array is not None, f"no array: {spec.label}"
    rows = parameters(spec.array)
    return [
        (
            ArrayPlace(id=array_id, index=index, size=len(rows), max_parallel=spec.max_parallel),
            _element(spec, row, index=index, size=len(rows), array_id=array_id),
        )
        for index, row in enumerate(rows)
    ]


def parameters(array: ArraySpec) -> list[Mapping[str, ParameterValue]]:
    """Give the parameters of each element, in order of the index."""
    if array.rows is not None:
        return list(array.rows)
    if array.matrix is None:
        return [{} for _ in range(array.size)]
    names = list(array.matrix)
    return [dict(zip(names, row, strict=True)) for row in product(*array.matrix.values())]


def _element(
    spec: JobSpec, row: Mapping[str, ParameterValue], *, index: int, size: int, array_id: str
) -> JobSpec:
    texts = {name: _text(value) for name, value in row.items()}
    places = {"LOWTIDE_ARRAY_INDEX": index, "LOWTIDE_ARRAY_SIZE": size}
    changes = {
        "array": None,
        "max_parallel": None,
        "name": f"{spec.label}-{index}",
        "args": tuple(_filled(arg, {"index": str(index), **texts}) for arg in spec.args),
        "env": {
            **spec.env,
            **texts,
            **{name: str(value) for name, value in places.items()},
            "LOWTIDE_ARRAY_ID": array_id,
        },
        "tags": {**spec.tags, TAG: array_id},
    }
    return parse_spec({**spec.model_dump(mode="json", exclude_defaults=True), **changes})


def _text(value: ParameterValue) -> str:
    """Write a value as a script expects it: booleans as ``true`` and ``false``."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _filled(text: str, values: Mapping[str, str]) -> str:
    """Fill in ``{name}`` of known names; every other brace stays as it is."""
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text

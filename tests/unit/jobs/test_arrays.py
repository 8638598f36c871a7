"""Arrays: what each element gets, and which arrays are refused whole."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.arrays import TAG, element_id, elements
from jobs.errors import SpecError
from jobs.spec import JobSpec, parse_spec
from jobs.wants import MAX_ELEMENTS, ArrayPlace


def of(**fields: Any) -> JobSpec:
    """Give a spec with these fields."""
    return parse_spec({"script": "train.py", **fields})


def test_each_element_knows_its_place() -> None:
    """Index, size and id are in the environment, the array in the tags; nothing else differs."""
    made = elements(of(array=3, max_parallel=2, tags={"model": "a"}, env={"LR": "1"}), array_id="s")
    assert [place for place, _ in made] == [
        ArrayPlace(id="s", index=index, size=3, max_parallel=2) for index in range(3)
    ]
    _, last = made[-1]
    assert last.name == "train-2"
    assert last.tags == {"model": "a", TAG: "s"}
    ours = {"LOWTIDE_ARRAY_INDEX": "2", "LOWTIDE_ARRAY_SIZE": "3", "LOWTIDE_ARRAY_ID": "s"}
    assert last.env == {"LR": "1", **ours}
    assert (last.array, last.max_parallel) == (None, None)
    assert element_id("s", 2) == "s.2"


def test_a_matrix_gives_every_combination_and_fills_the_arguments() -> None:
    """The last name varies fastest; braces that name nothing of the array stay."""
    spec = of(
        array={"matrix": {"LR": [0.1, 0.2], "FLIP": [True, False]}},
        args=["--lr={LR}", "--flip={FLIP}", "{index}", '{"a": {other}}'],
    )
    made = [element for _, element in elements(spec, array_id="s")]
    assert [one.args[:3] for one in made] == [
        ("--lr=0.1", "--flip=true", "0"),
        ("--lr=0.1", "--flip=false", "1"),
        ("--lr=0.2", "--flip=true", "2"),
        ("--lr=0.2", "--flip=false", "3"),
    ]
    assert {one.args[3] for one in made} == {'{"a": {other}}'}
    assert made[1].env["FLIP"] == "false"


def test_rows_give_an_element_each() -> None:
    """In the order in which they were written."""
    spec = of(array={"rows": [{"SEED": 7}, {"SEED": 9}]})
    assert [one.env["SEED"] for _, one in elements(spec, array_id="s")] == ["7", "9"]


@pytest.mark.parametrize(
    ("array", "names"),
    [
        (0, "count"),
        (MAX_ELEMENTS + 1, "count"),
        ({}, "one of count, rows and matrix"),
        ({"count": 2, "rows": [{}]}, "one of count, rows and matrix"),
        ({"matrix": {"A": list(range(40)), "B": list(range(40))}}, "1600 elements"),
        ({"matrix": {"A": []}}, "matrix.A"),
        ({"rows": [{"A": 1}] * 7 + [{"B": 1}]}, "element 7 has other names"),
        ({"rows": [{"A": 1}] * 7 + [{"A": "nul\0"}]}, "array.rows.7"),
        ({"rows": [{"LOWTIDE_URL": 1}]}, "LOWTIDE_"),
        ({"rows": [{"not a name": 1}]}, "array.rows.0"),
        ({"counts": 2}, "counts"),
    ],
)
def test_a_wrong_array_is_refused_whole(array: Any, names: str) -> None:
    """The cause names the element or the limit."""
    with pytest.raises(SpecError) as refused:
        of(array=array)
    assert names in refused.value.cause


def test_a_cap_without_an_array_is_refused() -> None:
    """It would mean nothing."""
    with pytest.raises(SpecError, match="max_parallel is for arrays"):
        of(max_parallel=2)


def test_dependencies_are_read_from_text_or_fields() -> None:
    """``JOB``, ``JOB:ended`` and the long form are the same to everybody."""
    spec = of(after=["a", "b:ended", {"job": "c", "when": "ended"}])
    assert [(one.job, one.when) for one in spec.after] == [
        ("a", "succeeded"),
        ("b", "ended"),
        ("c", "ended"),
    ]
    with pytest.raises(SpecError, match="after"):
        of(after=["a:sometimes"])

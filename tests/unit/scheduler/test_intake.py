"""A submit of several jobs: names, arrays, dependencies, and what is refused whole."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from jobs.arrays import TAG
from jobs.errors import ConflictError, DependencyError, LowtideError, SpecError
from jobs.rows import JobRow
from jobs.spec import parse_spec
from jobs.states import JobState
from scheduler.commands import SubmitAll
from scheduler.ids import CountedIds
from scheduler.intake import read, rows_of, submissions, submitted_with
from tests.unit.scheduler.worlds import a_job


def rows(*specs: dict[str, Any], known: tuple[JobRow, ...] = (), key: str = "") -> list[JobRow]:
    """Give the rows that a submit at 0 would make."""
    command = SubmitAll(
        specs=tuple(parse_spec({"script": "t.py", **spec}) for spec in specs), idempotency_key=key
    )
    asked = read(command, jobs={row.id: row for row in known}, ids=CountedIds())
    return rows_of(submissions(asked, command, now_us=0))


def test_names_become_ids_and_every_job_knows_its_predecessors() -> None:
    """Also those of an array, by the array's id, and those that were known before."""
    old = a_job("old", row={"state": JobState.SUCCEEDED, "ended_us": 1})
    made = rows(
        {"name": "data", "array": 2},
        {"name": "fit", "after": ["data", "old"]},
        {"name": "test", "after": ["fit:ended"]},
        known=(old,),
    )
    assert [row.id for row in made] == [
        "data-000001.0",
        "data-000001.1",
        "fit-000002",
        "test-000003",
    ]
    assert [one.job for one in made[2].spec.after] == ["data-000001", "old"]
    assert [(one.job, one.when) for one in made[3].spec.after] == [("fit-000002", "ended")]
    assert made[0].spec.tags == {TAG: "data-000001"}
    assert submitted_with(made[0], {row.id: row for row in made}) == [row.id for row in made]


@pytest.mark.parametrize(
    ("specs", "error", "says"),
    [
        ([{"after": ["nobody"]}], LowtideError, "'t' comes after 'nobody', which is no job"),
        (
            [{"name": "a", "after": ["b"]}, {"name": "b", "after": ["a"]}],
            DependencyError,
            "circle: ",
        ),
        ([{"name": "a", "after": ["a"]}], DependencyError, "a -> a"),
        ([{"name": "a"}, {"name": "a"}, {"after": ["a"]}], SpecError, "two jobs are called that"),
        ([{"array": 600}, {"array": 600}], SpecError, "1200 jobs"),
        ([], SpecError, "0 jobs"),
        ([{"name": "z", "after": ["failed"]}], ConflictError, "failed, which is failed"),
    ],
)
def test_a_wrong_submit_makes_nothing(
    specs: list[dict[str, Any]], error: type[LowtideError], says: str
) -> None:
    """The cause names the jobs; a circle is told in its order."""
    failed = a_job("failed", row={"state": JobState.FAILED, "ended_us": 1})
    with pytest.raises(error) as refused:
        rows(*specs, known=(failed,))
    assert says in refused.value.cause
    assert refused.value.remedy


def test_a_circle_is_told_in_its_order() -> None:
    """Each arrow means "comes after"."""
    with pytest.raises(DependencyError) as refused:
        rows(
            {"name": "a", "after": ["b"]},
            {"name": "b", "after": ["c"]},
            {"name": "c", "after": ["a"]},
        )
    circle = refused.value.cause.split(": ")[1].rstrip(".").split(" -> ")
    assert circle[0] == circle[-1]
    for job, before in pairwise(circle):
        assert {"a": "b", "b": "c", "c": "a"}[job] == before


def test_a_failed_predecessor_is_no_matter_where_the_rule_says_so() -> None:
    """It is accepted with ``:ended``, or with a rule other than cancel."""
    failed = a_job("failed", row={"state": JobState.FAILED, "ended_us": 1})
    assert rows(
        {"after": ["failed:ended"]}, {"after": ["failed"], "on_failure": "run"}, known=(failed,)
    )

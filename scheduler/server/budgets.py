"""Budgets: what is spent and left of each, and changes with what they would do."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Response
from pydantic import BaseModel, ConfigDict, Field

from jobs.budget import Budget, BudgetChanges
from jobs.errors import SpecError
from scheduler.budget_settings import BudgetSettings, parse_budgets, twice
from scheduler.budget_status import status
from scheduler.commands import ApplyBudgets
from scheduler.server.context import InContext, answer
from scheduler.server.quotes import seen
from scheduler.server.strict import StrictRoute

router = APIRouter(route_class=StrictRoute, prefix="/v1", tags=["budgets"])


class BudgetsBody(BaseModel):
    """Budgets to be set, as data or as a YAML file (``source`` names it in errors), and removed.

    With ``all`` every budget that was applied before and is not named here is removed.
    """

    model_config = ConfigDict(extra="forbid")
    budgets: tuple[BudgetSettings, ...] = Field(default=(), max_length=10_000)
    text: str = Field(default="", max_length=1_000_000)
    source: str = Field(default="the request", max_length=1_000)
    remove: tuple[str, ...] = Field(default=(), max_length=10_000)
    all: bool = False
    why: str = Field(default="", max_length=1_000)


@router.get("/budgets")
def budgets(context: InContext) -> Response:
    """List the budgets by name: limit, spent, reserved, left, burn rate, forecast, state."""
    snapshot = seen(context)
    return answer({"now_us": snapshot.now_us, "budgets": status(snapshot)})


@router.post("/budgets")
async def apply(
    body: BudgetsBody,
    context: InContext,
    *,
    dry_run: bool = False,
    lowtide_owner: Annotated[str, Header(max_length=200)] = "",
) -> Response:
    """Set and remove budgets, all or none, and say which jobs that holds, pauses and releases.

    Doing it twice changes nothing. With ``dry_run`` nothing is changed at all.
    """
    asked = BudgetChanges(
        budgets=_budgets(body),
        remove=body.remove,
        all_of_them=body.all,
        by=lowtide_owner,
        why=body.why,
    )
    return answer(await context.call(ApplyBudgets(changes=asked, dry_run=dry_run)))


def _budgets(body: BudgetsBody) -> tuple[Budget, ...]:
    double = twice(body.budgets)
    if double is not None:
        raise SpecError(
            f"Field 'budgets.{double[0]}.name': there are two budgets called '{double[1]}'.",
            remedy="Rename one; without a name, the owner and the period make it.",
        )
    listed = tuple(budget.budget() for budget in body.budgets)
    if not body.text:
        return listed
    return (*listed, *parse_budgets(body.text, source=body.source))

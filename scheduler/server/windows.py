"""Price windows: what they do now, and what others would change."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from pydantic import BaseModel, ConfigDict, Field

from jobs.events import FlavorLimited
from jobs.spec import Market
from scheduler.commands import ApplyWindows
from scheduler.learned_windows import Learned, learn
from scheduler.learned_windows import windows as usually_up
from scheduler.price_book import PriceBook
from scheduler.server.context import Context, InContext, answer
from scheduler.server.quotes import seen
from scheduler.server.strict import StrictRoute
from scheduler.snapshot import Snapshot
from scheduler.window_files import parse_windows
from scheduler.window_report import changes, repriced, stale, starts, warnings, windows_now
from scheduler.windows import PriceWindow

router = APIRouter(route_class=StrictRoute, prefix="/v1", tags=["windows"])


class WindowsBody(BaseModel):
    """A YAML file with ``price_windows`` and ``holidays``; ``source`` names it in errors."""

    model_config = ConfigDict(extra="forbid")
    text: str = Field(max_length=1_000_000)
    source: str = Field(default="the request", max_length=1_000)


@router.get("/windows")
def windows(context: InContext) -> Response:
    """List the price windows: open or not, the next edge, prices inside, who waits for them.

    ``learned`` says of each spot flavor, for one node and for the gangs that wait, when it is
    usually up, and whether such a forecast has been any good.
    """
    snapshot = seen(context)
    listed = _listed(context, snapshot.windows, snapshot)
    return answer({**listed, "learned": _learned(context, snapshot)})


@router.post("/windows")
async def apply(
    body: WindowsBody,
    context: InContext,
    *,
    lowtide_owner: Annotated[str, Header(max_length=200)] = "",
) -> Response:
    """Let these windows hold from now on, instead of all present ones; a restart keeps them."""
    flavors = context.settings.flavors.values()
    asked = parse_windows(body.text, source=body.source, flavors=flavors).windows
    command = ApplyWindows(windows=asked, text=body.text, by=lowtide_owner)
    return answer(await context.call(command))


@router.post("/windows/trial")
def trial(body: WindowsBody, context: InContext) -> Response:
    """Say what these windows would change; nothing is changed.

    Lists the windows as they would be, and each waiting job that would start at another time or
    cost another amount.
    """
    flavors = context.settings.flavors.values()
    asked = parse_windows(body.text, source=body.source, flavors=flavors).windows
    snapshot = seen(context)
    after = repriced(snapshot, _prices(context).with_windows(asked))
    moved = changes(starts(snapshot), starts(after))
    saves = sum(one.saves_nanos for one in moved)
    return answer({**_listed(context, asked, after), "changes": moved, "saves_usd_nanos": saves})


def _listed(
    context: Context, listed: tuple[PriceWindow, ...], snapshot: Snapshot
) -> dict[str, Any]:
    flavors, now_us, prices = context.settings.flavors, snapshot.now_us, _prices(context)
    found = windows_now(
        listed,
        flavors=flavors.values(),
        base={name: prices.base(name, now_us).usd_nanos_per_hour for name in flavors},
        waiting=starts(snapshot).values(),
        now_us=now_us,
    )
    said = warnings(listed, flavors=flavors.values(), now_us=now_us)
    old = stale(snapshot.offers, now_us=now_us)
    return {
        "now_us": now_us,
        "windows": found,
        "warnings": [*said, *old],
        "stale_prices": old,
    }


def _learned(context: Context, snapshot: Snapshot) -> list[dict[str, Any]]:
    found = []
    sizes = sorted({1, *(job.spec.nodes for job in snapshot.queued)})
    for flavor in context.settings.flavors.values():
        if flavor.market is not Market.SPOT:
            continue
        levels = _levels(context, flavor.name)
        for nodes in sizes:
            known = learn(levels, nodes=nodes, now_us=snapshot.now_us)
            if known is not None:
                found.append(_hours(known, flavor=flavor.name, nodes=nodes))
    return found


def _levels(context: Context, flavor: str) -> list[tuple[int, int]]:
    """Give every level of a flavor that was observed, from its part of the journal."""
    events = (record.event for record in context.store.records(subject=flavor))
    return [
        (event.at_us, event.limit)
        for event in events
        if isinstance(event, FlavorLimited) and event.observed
    ]


def _hours(known: Learned, *, flavor: str, nodes: int) -> dict[str, Any]:
    return {
        "flavor": flavor,
        "nodes": nodes,
        "base": known.base,
        "skill": known.skill,
        "trusted": known.trusted,
        "rests_on": known.label,
        "windows": usually_up(known, flavor=flavor),
    }


def _prices(context: Context) -> PriceBook:
    return context.leadership.term().controller.prices

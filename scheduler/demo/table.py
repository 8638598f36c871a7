"""The demo's closing table: one row per job from its statement, and the totals that tie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.table import Table

from jobs.ledger.split import split
from scheduler.cli.formats import GPU_MS_PER_HOUR, dollars, span

_NONE: dict[str, int] = {"usd_nanos": 0, "gpu_ms": 0, "list_usd_nanos": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One job's outcome; GPU time in milliseconds, money in nano-dollars."""

    job: str
    name: str
    shows: str
    flavors: tuple[str, ...]  # of its attempts, in order
    state: str
    attempts: int
    evictions: int
    wait_ms: int
    held_gpu_ms: int
    useful_gpu_ms: int
    restart_gpu_ms: int
    lost_gpu_ms: int
    start_gpu_ms: int  # first start-up and saves
    usd_nanos: int
    usd_nanos_per_useful_gpu_hour: int | None
    saved_usd_nanos: int


def make_row(detail: dict[str, Any], statement: dict[str, Any], *, shows: str) -> Row:
    """Put a job and its statement into a row."""
    job = detail["job"]
    classes = statement["classes"]
    lost = classes["lost"]["gpu_ms"]
    return Row(
        job=job["id"],
        name=job["spec"]["name"],
        shows=shows,
        flavors=tuple(attempt["flavor"] for attempt in detail["attempts"]),
        state=job["state"],
        attempts=job["attempts"],
        evictions=job["evictions"],
        wait_ms=job["waited_ms"],
        held_gpu_ms=statement["total"]["gpu_ms"],
        useful_gpu_ms=statement["useful_gpu_ms"],
        restart_gpu_ms=statement["restart_gpu_ms"] - lost,
        lost_gpu_ms=lost,
        start_gpu_ms=classes["startup"]["gpu_ms"] + classes["checkpoint"]["gpu_ms"],
        usd_nanos=statement["total"]["usd_nanos"],
        usd_nanos_per_useful_gpu_hour=statement["effective_usd_nanos_per_useful_gpu_hour"],
        saved_usd_nanos=statement["net_spot_saving_usd_nanos"],
    )


def closing_table(rows: list[Row], overview: dict[str, Any]) -> Table:
    """Draw the rows, then idle, overhead and the bill."""
    table = Table(
        title="What each retrain cost, and why",
        title_justify="left",
        caption="GPU time: % useful / restart / lost / start and save / idle. "
        "Net saved: on-demand price of the useful work and one start, less all that was paid.",
        caption_justify="left",
    )
    for name in ("job", "state"):
        table.add_column(name, no_wrap=True)
    for name in _NUMBERS:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row))
    table.add_section()
    for name in ("idle", "overhead", "bill"):
        amount = overview.get(name, _NONE)
        held = _hours(amount["gpu_ms"])
        shares = "0/0/0/0/100" if name == "idle" else ""
        table.add_row(name, "", "", "", "", held, shares, _money(amount["usd_nanos"]), "", "")
    return table


_NUMBERS = (
    "tries",
    "evicted",
    "wait",
    "GPU-h",
    "GPU time, %",
    "cost",
    "$/useful GPU-h",
    "net saved",
)


def _cells(row: Row) -> list[str]:
    rate = row.usd_nanos_per_useful_gpu_hour
    return [
        row.name,
        row.state,
        str(row.attempts),
        str(row.evictions),
        span(row.wait_ms),
        _hours(row.held_gpu_ms),
        _shares(row),
        _money(row.usd_nanos),
        "-" if rate is None else dollars(rate),
        _money(row.saved_usd_nanos),
    ]


def _hours(gpu_ms: int) -> str:
    return f"{gpu_ms / GPU_MS_PER_HOUR:.4f}"


def _money(usd_nanos: int) -> str:
    """Write demo money, which is little, to the hundredth of a cent."""
    hundredths = (abs(usd_nanos) + 50_000) // 100_000
    sign = "-" if usd_nanos < 0 and hundredths else ""
    return f"{sign}${hundredths // 10_000}.{hundredths % 10_000:04d}"


def _shares(row: Row) -> str:
    """Write useful / restart / lost / start and save / idle in whole per cent that add up."""
    parts = [row.useful_gpu_ms, row.restart_gpu_ms, row.lost_gpu_ms, row.start_gpu_ms, 0]
    return "/".join(str(share) for share in split(100, weights=parts)) if sum(parts) else "-"

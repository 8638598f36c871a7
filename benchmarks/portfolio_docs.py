"""The page and the pictures of the portfolio benchmark, made from its figures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import portfolio_worlds as pw
from benchmarks.plots import cost_curves

Row = dict[str, Any]

HORIZON_MS = 900_000
"""Between two plans, where ours plans ahead."""

_RATIO, _BELOW = 1.10, 10
_CURVE = """\
A queue of 100 jobs, for which spot is hardly ever scarce: there slack is worth next to nothing.
"""

_HEAD = f"""# Portfolio: the whole queue planned ahead

Made by the command at its end; do not edit.

**World.** {len(pw.ZONES)} V100 zones of 2023 (`spot/v100-2023`): each has {pw.POOL} spot nodes of
one GPU while its availability trace says 1 and none while it says 0, at the real spot price of
that moment. The traces say whether spot is there, not how much; {pw.POOL} a zone make spot scarce
for {pw.Sample().jobs} jobs, which is what a plan for a whole queue is about, and hold the largest
gang twice. On-demand costs ${pw.SURE_USD} (limit {pw.SURE_NODES} nodes, never reached), at night
(20:00-08:00 New York, a chargeback tariff) half of that. Boot {pw.BOOT_S} s, set-up {pw.SETUP_S} s,
restore {pw.RESTORE_S} s, notice {pw.NOTICE_S} s, saved continuously. The zones are watched for
{pw.LOOKED_S // pw.HOUR_S} h before the first job. All policies know prices of now and the tariff's
schedule, none sees the traces.

**Jobs.** Philly jobs of {pw.SHORTEST_S // pw.HOUR_S}-{pw.LONGEST_S // pw.HOUR_S} h on at most
{pw.MOST_GPUS} GPUs (a node each), drawn by the seed from the first days (Monday on) of one busy
week of the trace, at their own times of submission. Deadline = {pw.GRACE_S // pw.HOUR_S} h + work x
a factor between {pw.TIGHTEST} and {pw.LOOSEST}, drawn evenly by its logarithm. No budgets.

**Columns.** `ratio` is cost / the bound in hindsight (a linear program that knows every trace,
uses parts of nodes and gangs, and pays no boot and no restore). `alone` is our own policy without
the plan ahead (the default): each job decided for itself; it is measured on some samples only,
for it takes minutes on a large queue. `lowtide` plans ahead (`horizon_ms: {HORIZON_MS}`). Every
baseline goes through the same controller.

**How this came about.** Constants of the plan were chosen on week 1, and so was a part of the
world: while looking at week 1, the arrivals were condensed to {pw.Sample().days} days and the gangs
cut to {pw.MOST_GPUS} GPUs. So this says what the plan is worth where a queue is dense and spot is
scarce, not elsewhere. Week 4 was seen before the last change of the plan: it is held out from the
choice of constants, not from that change.
"""


def write_docs(found: Row, folder: Path) -> None:
    """Write ``portfolio.md``, and its picture when the curve was measured."""
    lines = [_HEAD, *_tables(found)]
    if "curve" in found:
        lines += ["## Cost against slack\n", _CURVE, "![Cost against deadline](portfolio.svg)\n"]
        _draw(found["curve"], folder / "portfolio")
    lines.append(f"`{found['command']}`; all of it took {found['played_s']} s, two at a time.")
    (folder / "portfolio.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _tables(found: Row) -> Iterator[str]:
    for name, sample in found["samples"].items():
        yield f"## {name[0].upper()}{name[1:]}\n"
        yield (
            f"Bound ${sample['bound_usd']:,.2f}; ours is {sample['saved_percent']} % below the "
            f"best baseline (`{sample['best_baseline']}`). The bar (ratio at most {_RATIO:.2f} and "
            f"{_BELOW} % below) is {'met' if _meets(sample) else 'not met'}.\n"
        )
        yield "| policy | cost | ratio | misses | evictions | stops |\n|---|---|---|---|---|---|"
        for policy, row in sample["policies"].items():
            yield (
                f"| {policy} | ${row['cost_usd']:,.2f} | {row['ratio']:.3f} | {row['misses']} "
                f"| {row['evictions']} | {row['stops']} |"
            )
        ours = sample["policies"]["lowtide"]
        if "plans" in ours:
            yield (
                f"\n{ours['plans']} plans of at most {ours['plan_variables']:,} variables, "
                f"{ours['plan_mean_ms']} ms each ({ours['plan_most_ms']} ms at most).\n"
            )


def _meets(sample: Row) -> bool:
    ours = sample["policies"]["lowtide"]
    good = ours["ratio"] <= _RATIO and sample["saved_percent"] >= _BELOW
    return bool(good and not ours["misses"])


def _draw(curve: Row, path: Path) -> None:
    first = next(iter(curve.values()))
    series = {
        policy: [(float(x), one["policies"][policy]["cost_usd"]) for x, one in curve.items()]
        for policy in first["policies"]
        if policy not in {"on-demand", "lowest-window"}
    }
    series["bound"] = [(float(x), one["bound_usd"]) for x, one in curve.items()]
    cost_curves(
        path,
        title="A portfolio on six V100 zones: cost against slack",
        x_label="deadline / work (plus one hour)",
        y_label="cost of all jobs, $",
        series=series,
    )

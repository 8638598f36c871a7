"""What a simulation paid to learn where capacity is."""

from __future__ import annotations

from jobs.reasons import Reason
from jobs.spec import NANOS_PER_USD
from scheduler.simulation import Result


def probes(result: Result) -> dict[str, float | int]:
    """Count the launches that were refused, and what they and nodes without an attempt cost.

    Where only launching tells, a refused launch is billed for its boot time. ``probe_usd`` is part
    of ``cost_usd``: those boots, and the time of nodes that came up before an attempt held them.
    """
    nodes = result.store.load().nodes
    refused = {f"provider:{one.id}" for one in nodes.values() if one.reason is Reason.LAUNCH_FAILED}
    nanos = 0
    for entry in result.store.entries():
        for leg in entry.postings:
            if leg.account.startswith("overhead:"):
                nanos += leg.usd_nanos
            elif _provider_node(leg.account) in refused:
                nanos -= leg.usd_nanos
    return {"launches_refused": len(refused), "probe_usd": round(nanos / NANOS_PER_USD, 9)}


def _provider_node(account: str) -> str:
    return f"provider:{account.rpartition(':')[2]}" if account.startswith("provider:") else ""

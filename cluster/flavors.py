"""Kinds of capacity: instance type x market x zone, at a configured price and limit."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.spec import JobSpec, Market


@dataclass(frozen=True, slots=True, kw_only=True)
class Flavor:
    """One kind of node that a cluster can have.

    ``usd_nanos_per_hour`` is the configured base price of a node; windows and price series
    change what is paid at an instant. ``list_usd_nanos_per_hour`` is the on-demand price of the
    same node, against which savings are counted.
    """

    name: str
    cluster: str
    market: Market
    accelerator: str
    region: str
    zone: str
    gpu_milli: int  # thousandths of a GPU on a node; 0 = a CPU node
    cpus: int
    memory_gb: int = 0
    usd_nanos_per_hour: int = 0
    list_usd_nanos_per_hour: int = 0
    max_nodes: int = 0
    boot_ms: int = 0
    notice_ms: int = 0
    idle_release_ms: int = 60_000  # an idle node is released after this time
    launches: bool = True  # False = somebody else runs the nodes; we only use those that join

    def allows(self, spec: JobSpec) -> bool:
        """Whether one node of this flavor could hold one rank-set of the job by rule and size."""
        by_rule = (
            (not spec.markets or self.market in spec.markets)
            and (not spec.accelerators or self.accelerator in spec.accelerators)
            and (not spec.regions or self.region in spec.regions)
        )
        by_size = (
            spec.gpu_milli <= self.gpu_milli
            and spec.cpus <= self.cpus
            and (not self.memory_gb or spec.memory_gb <= self.memory_gb)
        )
        same_kind = (spec.gpu_milli == 0) == (self.gpu_milli == 0)
        return by_rule and by_size and same_kind

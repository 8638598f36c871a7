"""Attempt workers as detached Ray actors, one per node of the gang: the only home of ``ray.init``.

A gang's placement group names its nodes by ``ray.io/node-id`` selectors, all or none. Actors and
group are detached and named by the attempt, so that they survive the agent and are found again.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from cluster.attempt_worker import run_in_thread, scratch_folder
from cluster.attempt_worker_child import general_environment
from cluster.launchers import Failed
from cluster.standby_keeper import StandbyKeeper
from cluster.worker_wire import WorkerOrder
from jobs.codec import decode, encode
from jobs.spec import JobSpec

NAMESPACE = "lowtide"
_PREFIX = "attempt:"
_THREADS = 8


class WorkerActor:
    """The actor around an ``AttemptWorker``; all the talking goes over the worker's own link."""

    def __init__(self, order: bytes) -> None:
        """Start the worker in its thread."""
        ray: Any = importlib.import_module("ray")  # Ray's worker has it already
        mine: WorkerOrder = decode(order, into=WorkerOrder)
        host = ray.util.get_node_ip_address()
        self._thread = run_in_thread(replace(mine, host=host), done=lambda: None)


class StandbyActor:
    """Keeps a process ready on its node; it ends with the agent, what was taken lives on."""

    def __init__(self) -> None:
        """Nothing stands ready before it is known for what."""
        self._keeper = StandbyKeeper(scratch_folder())

    def want(self, spec: bytes) -> None:
        """Keep one for jobs like this one."""
        wanted: JobSpec = decode(spec, into=JobSpec)
        self._keeper.want(general_environment(wanted, inherited=os.environ))


class RayLauncher:
    """Starts gangs in the Ray cluster at ``address``."""

    def __init__(self, address: str, *, driver_ip: str, failed: Failed) -> None:
        """Join the cluster as a driver (about 2 s, in the background)."""
        self._address = address
        self._driver_ip = driver_ip
        self._failed = failed
        self._ended: set[str] = set()
        self._wanted: bytes | None = None  # the spec that ran last: the next one may be like it
        self._standbys: dict[str, Any] = {}
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="ray")
        self._joined = self._pool.submit(self._join)

    def start(self, orders: Sequence[WorkerOrder], *, addresses: Sequence[str]) -> None:
        """Create the group and its actors in the background."""
        self._pool.submit(self._start, list(orders), list(addresses))

    def stand_by(self, address: str) -> None:
        """Start what keeps a process ready on the node, in the background."""
        self._pool.submit(self._stand_by, address)

    def end(self, attempt_id: str) -> None:
        """Kill actors and group in the background."""
        self._ended.add(attempt_id)
        self._pool.submit(self._end, attempt_id)

    def sweep(self, keep: Sequence[str]) -> None:
        """End attempts that nobody knows, in the background."""
        self._pool.submit(self._sweep, frozenset(keep))

    def close(self) -> None:
        """Leave the cluster; actors live on."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._joined.done() and not self._joined.cancelled():
            self._joined.result().shutdown()

    def _join(self) -> Any:  # noqa: ANN401 - Ray's module
        ray = importlib.import_module("ray")
        ray.init(
            address=self._address,
            namespace=NAMESPACE,
            log_to_driver=False,
            logging_level="ERROR",
            _node_ip_address=self._driver_ip,
        )
        return ray

    def _start(self, orders: list[WorkerOrder], addresses: list[str]) -> None:
        attempt_id = orders[0].attempt_id
        try:
            ray = self._joined.result()
            # Nobody waits for the group: its actors do, and the gang's patience bounds it all.
            group = self._group(ray, orders, addresses)
            for order in orders:
                _actor(ray, order, group)
            self._want(orders[0].spec)
            if attempt_id in self._ended:
                self._end(attempt_id)  # it was ended while we were starting it
        except Exception as error:  # noqa: BLE001 - Ray's boundary: whatever it is, say it
            self._failed(attempt_id, f"Ray could not start the workers: {error}")

    def _stand_by(self, address: str) -> None:
        if address not in self._standbys:
            ray = self._joined.result()
            strategies = importlib.import_module("ray.util.scheduling_strategies")
            there = strategies.NodeAffinitySchedulingStrategy(node_id=address, soft=False)
            actor = ray.remote(StandbyActor).options(num_cpus=0, scheduling_strategy=there)
            # One of the processes that Ray starts with a node; another one is for the attempt. A
            # task would spoil that one: Ray gives no process that ran a task to an actor.
            self._standbys[address] = actor.remote()
        if self._wanted is not None:
            self._standbys[address].want.remote(self._wanted)

    def _want(self, spec: JobSpec) -> None:
        wanted = encode(spec)
        if wanted != self._wanted:
            self._wanted = wanted
            for standby in list(self._standbys.values()):
                standby.want.remote(wanted)

    def _group(self, ray: Any, orders: list[WorkerOrder], addresses: list[str]) -> Any:  # noqa: ANN401
        name = f"{_PREFIX}{orders[0].attempt_id}"
        try:
            return ray.util.get_placement_group(name)
        except ValueError:
            pass  # there is none of that name yet
        return ray.util.placement_group(
            [_resources(order) for order in orders],
            strategy="STRICT_SPREAD" if len(orders) > 1 else "PACK",
            name=name,
            lifetime="detached",
            bundle_label_selector=[{"ray.io/node-id": address} for address in addresses],
        )

    def _end(self, attempt_id: str) -> None:
        ray = self._joined.result()
        mine = f"{_PREFIX}{attempt_id}:"
        for found in ray.util.list_named_actors(all_namespaces=True):
            if found["namespace"] == NAMESPACE and found["name"].startswith(mine):
                _kill(ray, found["name"])
        try:
            group = ray.util.get_placement_group(f"{_PREFIX}{attempt_id}")
        except ValueError:
            return  # never made, or removed already
        ray.util.remove_placement_group(group)

    def _sweep(self, keep: frozenset[str]) -> None:
        ray = self._joined.result()
        names = {
            found["name"].removeprefix(_PREFIX).rpartition(":")[0]
            for found in ray.util.list_named_actors(all_namespaces=True)
            if found["namespace"] == NAMESPACE and found["name"].startswith(_PREFIX)
        }
        for attempt_id in sorted(names - keep):
            self._end(attempt_id)


def _resources(order: WorkerOrder) -> dict[str, float]:
    amounts = {"CPU": float(order.spec.cpus), "GPU": float(order.spec.gpus)}
    return {name: amount for name, amount in amounts.items() if amount}


def _actor(ray: Any, order: WorkerOrder, group: Any) -> None:  # noqa: ANN401
    strategies = importlib.import_module("ray.util.scheduling_strategies")
    ray.remote(WorkerActor).options(
        name=f"{_PREFIX}{order.attempt_id}:{order.index}",
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=0,
        num_cpus=order.spec.cpus,
        num_gpus=float(order.spec.gpus),
        scheduling_strategy=strategies.PlacementGroupSchedulingStrategy(
            placement_group=group, placement_group_bundle_index=order.index
        ),
    ).remote(encode(order))


def _kill(ray: Any, name: str) -> None:  # noqa: ANN401
    try:
        ray.kill(ray.get_actor(name, namespace=NAMESPACE))
    except ValueError:
        return  # gone meanwhile

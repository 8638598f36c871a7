"""Puts an agent's parts together as its server configured them."""

from __future__ import annotations

import queue
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cluster.agent_link import AgentConfig
from cluster.agent_logs import LogBook
from cluster.agent_state import AgentStore
from cluster.flavors import Flavor
from cluster.launchers import WorkerLauncher
from cluster.provider import NodeProvider
from cluster.providers.local import LocalProvider
from cluster.providers.static import StaticProvider, parse_options
from cluster.ray_driver import DriverEvent, LaunchTrouble, RayDriver
from cluster.ray_driver_gangs import Gangs
from cluster.ray_launcher import RayLauncher
from cluster.worker_link import WorkerServer
from jobs.errors import LowtideError, UnreachableError

_PORT = "worker-port"


class Nodes(NodeProvider, Protocol):
    """A provider as the agent needs it: with the Ray cluster that its nodes are in."""

    @property
    def address(self) -> str:
        """``host:port`` of the control store."""

    @property
    def driver_ip(self) -> str:
        """Of the node whose raylet this agent attaches to."""


@dataclass(slots=True, kw_only=True)
class Parts:
    """A running driver with all that belongs to it."""

    driver: RayDriver
    provider: Nodes
    launcher: WorkerLauncher
    workers: WorkerServer
    flavors: dict[str, Flavor]

    def update(self, config: AgentConfig) -> None:
        """Take over flavors and the news of attempts; everything else needs a new agent."""
        self.flavors.update({flavor.name: flavor for flavor in config.flavors})
        self.driver.advise(config.risks)

    def close(self) -> None:
        """Let go; nodes and attempts live on."""
        self.driver.close()
        self.workers.close()
        self.launcher.close()


def build_parts(
    config: AgentConfig, *, cluster: str, home: Path, store: AgentStore, logs: LogBook
) -> Parts:
    """Start (or find again) the cluster and a driver for it.

    Raises:
        LowtideError: an unknown provider, or one that cannot start.
    """
    flavors = {flavor.name: flavor for flavor in config.flavors}
    provider = make_provider(config, cluster=cluster, home=home, flavors=flavors)
    events: queue.Queue[DriverEvent] = queue.Queue()
    host = "127.0.0.1" if config.provider == "local" else provider.driver_ip
    workers = make_worker_server(host, store=store, logs=logs, events=events)
    launcher = RayLauncher(
        provider.address,
        driver_ip=provider.driver_ip,
        failed=lambda attempt_id, why: events.put(LaunchTrouble(attempt_id=attempt_id, why=why)),
    )
    gangs = Gangs(
        store=store, talker=workers, launcher=launcher, storage=config.storage, agent_host=host
    )
    driver = RayDriver(provider=provider, gangs=gangs, store=store, flavors=flavors, events=events)
    driver.start()
    return Parts(
        driver=driver, provider=provider, launcher=launcher, workers=workers, flavors=flavors
    )


def make_worker_server(
    host: str, *, store: AgentStore, logs: LogBook, events: queue.Queue[DriverEvent]
) -> WorkerServer:
    """Listen for workers where the last life listened: they come back there.

    Raises:
        UnreachableError: somebody else has the port now.
    """
    port = int(store.get(_PORT, "0"))
    try:
        server = WorkerServer(
            host=host, port=port, token_of=store.token_of, heard=events.put, logs=logs
        )
    except OSError as error:
        raise UnreachableError(
            f"The agent's port {port} is in use: {error.strerror}.",
            remedy="End the process that has it, or wait until running attempts are over.",
        ) from error
    store.put(_PORT, str(server.port))
    return server


def make_provider(
    config: AgentConfig, *, cluster: str, home: Path, flavors: dict[str, Flavor]
) -> Nodes:
    """Build the provider that the server names.

    Raises:
        LowtideError: there is none of that name, or it cannot start.
    """
    match config.provider:
        case "local":
            return LocalProvider(home / "cluster")
        case "static":
            return StaticProvider(
                cluster, flavors=flavors, options=parse_options(config.provider_options)
            )
        case other:
            raise LowtideError(
                f"There is no node provider '{other}'.",
                remedy="Use 'local' (raylets on this machine) or 'static' (a Ray cluster).",
            )

"""Who plays in the demo: the cluster's configuration and the seven retrain jobs."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parent / "project" / "train_digits.py"
WINDOW_AFTER_S = 45  # the cheap window opens this long after the start
WINDOW_LENGTH_S = 900
PACE_S = "0.05"

NOTICE_ROLE = "evicted with notice"
KILL_ROLE = "node killed without notice"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One job of the demo and what it is there to show."""

    name: str
    shows: str
    options: dict[str, Any] = field(default_factory=dict)
    args: tuple[str, ...] = ()

    def spec(self) -> dict[str, Any]:
        """Give the job's specification."""
        return {
            "script": str(SCRIPT),
            "name": self.name,
            "args": list(self.args),
            "team": "digits",
            "checkpoint_interval": "3s",
            "tags": {"product": "demo", "model": self.name},
            **self.options,
        }


def training(*, network: str, steps: int, seed: int) -> tuple[str, ...]:
    """Give the script's arguments without its pace, so that a plain run can repeat them."""
    return ("--network", network, "--steps", str(steps), "--seed", str(seed))


def _paced(*, network: str, steps: int, seed: int) -> tuple[str, ...]:
    return (*training(network=network, steps=steps, seed=seed), "--pace", PACE_S)


def parts() -> list[Part]:
    """Give the jobs in the order in which they are submitted."""
    spot = {"markets": ["spot"]}
    return [
        Part(
            name="urgent",
            shows="a deadline so tight that only on-demand is sure",
            options={"deadline": "80s", "work": "45s"},
            args=_paced(network="mlp", steps=300, seed=4),
        ),
        Part(
            name="noticed",
            shows=NOTICE_ROLE,
            options=spot,
            args=_paced(network="mlp", steps=400, seed=1),
        ),
        Part(
            name="killed",
            shows=KILL_ROLE,
            options=spot,
            args=_paced(network="cnn", steps=400, seed=2),
        ),
        Part(
            name="gang",
            shows="two nodes at once, torch.distributed over gloo",
            options={"nodes": 2, **spot},
            args=_paced(network="mlp", steps=200, seed=3),
        ),
        Part(
            name="half-a",
            shows="half a GPU, sharing a node",
            options={"gpus": "0.5", **spot},
            args=_paced(network="mlp", steps=200, seed=5),
        ),
        Part(
            name="half-b",
            shows="the other half",
            options={"gpus": "0.5", **spot},
            args=_paced(network="cnn", steps=200, seed=6),
        ),
        Part(
            name="nightly",
            shows="waits for the cheap window inside its slack",
            options={"deadline": "12h", "work": "20s"},
            args=_paced(network="mlp", steps=150, seed=7),
        ),
    ]


def configuration(home: Path, *, storage: str, now: datetime) -> dict[str, Any]:
    """Give the server's configuration: two spot zones and on-demand, one cheap window."""
    opens = now.astimezone(UTC) + timedelta(seconds=WINDOW_AFTER_S)
    closes = opens + timedelta(seconds=WINDOW_LENGTH_S)
    return {
        "clusters": [
            {
                "name": "here",
                "provider": "local",
                "flavors": [
                    _flavor("a100-spot-east-1a", market="spot", zone="east-1a", nodes=2),
                    _flavor("a100-spot-east-1b", market="spot", zone="east-1b", nodes=2),
                    _flavor("a100-on-demand", market="on-demand", zone="east-1a", nodes=1),
                ],
            }
        ],
        "price_windows": [
            {
                "name": "reserved-idle",
                "start": f"{opens:%H:%M:%S}",
                "end": f"{closes:%H:%M:%S}",
                "time_zone": "UTC",
                "markets": ["spot"],
                "price_percent": 60,
                "rests_on": "reserved-idle",
            }
        ],
        "storage": storage,
        "database": f"sqlite:///{home / 'lowtide.db'}",
        "policy": {"cooldown_ms": 5_000},
        "port": 0,
    }


def _flavor(name: str, *, market: str, zone: str, nodes: int) -> dict[str, Any]:
    spot = market == "spot"
    return {
        "name": name,
        "market": market,
        "accelerator": "A100",
        "region": "east-1",
        "zone": zone,
        "gpus": 1,
        "cpus": 4,
        "price_usd_per_hour": "1.1907" if spot else "3.6730",
        "on_demand_price_usd_per_hour": "3.6730",
        "max_nodes": nodes,
        "boot": "4s",
        "notice": "6s",
        "idle_release": "8s",
    }

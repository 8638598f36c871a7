"""The commands that start a Ray head and raylets on this machine, loopback only."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from cluster.flavors import Flavor
from cluster.processes import NODE_MARK
from cluster.ray_nodes import (
    ACCELERATOR_LABEL,
    FLAVOR_LABEL,
    MARKET_LABEL,
    NODE_LABEL,
    ZONE_LABEL,
    label,
)

NODE_DIR = "LOWTIDE_NODE_DIR"
_OBJECT_STORE_BYTES = 80_000_000  # Ray's least; training data does not travel through it
_MILLI = 1_000
# `ray start` as if Ray had been installed without its dashboard: its per-node agents then load
# nothing heavy, and a node joins in half the time.
_RAY = (
    "import sys; sys.modules['ray.dashboard.optional_deps'] = None; "
    "from ray.scripts.scripts import main; main()"
)
_PER_BLOCK = 250


def node_ip(number: int) -> str:
    """Give a loopback address of its own per node (0 = the head).

    Ray replaces 127.0.0.1 by a public address, other loopback addresses it keeps; distinct ones
    make sure that a driver never attaches to a raylet that will be evicted.
    """
    block, rest = divmod(number, _PER_BLOCK)
    return f"127.0.{1 + block % _PER_BLOCK}.{2 + rest}"


def head_command(*, port: int, temp_dir: str) -> list[str]:
    """Give the command of a head that takes no work."""
    return [
        *_ray_start(node_ip(0)),
        "--head",
        f"--port={port}",
        "--num-cpus=0",
        "--num-gpus=0",
        "--include-dashboard=false",
        f"--temp-dir={temp_dir}",
    ]


def node_command(
    flavor: Flavor, *, node_id: str, ip: str, address: str, temp_dir: str
) -> list[str]:
    """Give the command of a node: logical CPUs and GPUs, and labels that say what it is.

    ``temp_dir`` is the node's own: in a common one, raylets that start together pick the same
    socket name (Ray looks whether the file exists and makes it later), and one of them dies.
    """
    labels = {
        NODE_LABEL: node_id,
        FLAVOR_LABEL: flavor.name,
        MARKET_LABEL: flavor.market.value,
        ACCELERATOR_LABEL: flavor.accelerator,
        ZONE_LABEL: flavor.zone,
    }
    written = ",".join(f"{key}={label(text)}" for key, text in labels.items() if label(text))
    return [
        *_ray_start(ip),
        f"--address={address}",
        f"--num-cpus={flavor.cpus}",
        f"--num-gpus={-(-flavor.gpu_milli // _MILLI)}",
        f"--labels={written}",
        f"--temp-dir={temp_dir}",
    ]


def spawn(
    command: list[str], *, mark: str, folder: Path, extra: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a marked command in a session of its own; its output goes to ``ray-start.log``."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **extra, NODE_MARK: mark, NODE_DIR: str(folder)}
    with (folder / "ray-start.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    threading.Thread(target=process.wait, daemon=True).start()  # it leaves no zombie
    return process


def last_output(folder: Path) -> str:
    """Give the last lines that the start of a node wrote, for people."""
    try:
        lines = (folder / "ray-start.log").read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return "it wrote nothing"
    return " | ".join(line.strip() for line in lines[-5:] if line.strip())


def ray_environment(token: str) -> dict[str, str]:
    """Give what every process of the cluster needs: the cluster's token, and no usage reports."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # Ray's default of 15 would starve the attempt workers, and their heartbeats, on a full
        # machine; training is made nicer instead (see attempt_worker_child).
        "RAY_worker_niceness": "0",
    }


def _ray_start(ip: str) -> list[str]:
    return [
        sys.executable,
        "-c",
        _RAY,
        "start",
        f"--node-ip-address={ip}",
        "--disable-usage-stats",
        "--include-log-monitor=false",
        f"--object-store-memory={_OBJECT_STORE_BYTES}",
        # Its default is one fixed port: the second raylet here would retry it for 3.5 s.
        "--dashboard-agent-listen-port=0",
    ]

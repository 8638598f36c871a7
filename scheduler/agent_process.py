"""An agent as ``lowtide up`` starts it: server and token come from the installation's home.

So no token stands in a command line or in an environment, which training would inherit.
"""

from __future__ import annotations

import sys
from pathlib import Path

from jobs.errors import LowtideError
from scheduler.home import Home

_USER_ERROR = 2


def home_of(home: Home, cluster: str) -> Path:
    """Give the folder that outlives the agent of a cluster."""
    return home.folder / "agents" / cluster


def main(cluster: str, url: str, folder: str) -> int:
    """Run the agent of a cluster until SIGTERM; give the exit code."""
    from cluster.agent import run_agent  # noqa: PLC0415 - what starts us needs no Ray

    home = Home(Path(folder))
    token = (home.folder / "token").read_text(encoding="ascii").strip()
    try:
        run_agent(cluster=cluster, server=url, token=token, home=home_of(home, cluster))
    except LowtideError as error:
        sys.stderr.write(f"cause: {error.cause}\nremedy: {error.remedy}\n")
        return _USER_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

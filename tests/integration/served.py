"""A real server for tests: in a thread (``Served``) or as a process that may be killed."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from scheduler.app import Server
from scheduler.home import Home
from scheduler.settings import Settings, parse_settings

LIMIT_S = 20.0
CONFIG = """\
clusters:
  - name: lab
    provider: local
    provider_options: {key: value}
    flavors:
      - name: spot
        market: spot
        accelerator: L4
        cpus: 8
        price_usd_per_hour: 0.30
        on_demand_price_usd_per_hour: 0.90
        max_nodes: 4
        idle_release: 1h
      - name: od
        market: on-demand
        accelerator: L4
        cpus: 8
        price_usd_per_hour: 0.90
        max_nodes: 4
port: 0
code_limit_mb: 1
"""
_CHILD = """
import sys
from pathlib import Path
from scheduler.app import serve
from scheduler.home import Home
from scheduler.settings import load_settings
folder = Path(sys.argv[1])
serve(load_settings(folder / "lowtide.yaml"), home=Home(folder))
"""


def settings(**changes: object) -> Settings:
    """Give the tests' configuration, with changes."""
    return parse_settings(CONFIG, source="test").model_copy(update=changes)


def client_of(home: Home, url: str) -> httpx.Client:
    """Give an HTTP client that carries the home's token."""
    token = (home.folder / "token").read_text(encoding="ascii").strip()
    return httpx.Client(
        base_url=url,
        headers={"Authorization": f"Bearer {token}"},
        timeout=20,
        trust_env=False,
    )


class Served:
    """A server in a thread of this process, and a client of it."""

    def __init__(self, folder: Path, **changes: object) -> None:
        """Start it; it listens when this returns."""
        self.home = Home(folder)
        self.server = Server(settings(**changes), home=self.home)
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self.http = client_of(self.home, self.server.url)

    def lead(self) -> Served:
        """Wait until it leads."""
        wait_until(lambda: self.http.get("/v1/health").json()["role"] == "leader")
        return self

    def stop(self) -> None:
        """End it and wait for that."""
        self.http.close()
        self.server.stop()
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive()

    def join(self) -> None:
        """Wait for its end by itself."""
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive()
        self.http.close()

    def _run(self) -> None:
        try:
            self.server.run()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.error = error


class Process:
    """``serve`` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        """Start it and wait until it leads."""
        folder.mkdir(exist_ok=True)
        self.home = Home(folder)
        (folder / "lowtide.yaml").write_text(CONFIG, encoding="utf-8")
        self._log = (folder / "server.log").open("ab")
        self.child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(folder)], stdout=self._log, stderr=self._log
        )
        wait_until(lambda: (self.home.read_server() or {}).get("pid") == self.child.pid)
        self.http = client_of(self.home, str((self.home.read_server() or {})["url"]))
        wait_until(lambda: self.http.get("/v1/health").json()["role"] == "leader")

    def end(self, number: int) -> int:
        """Send a signal and give the exit code."""
        self.http.close()
        self.child.send_signal(number)
        code = self.child.wait(LIMIT_S)
        self._log.close()
        return code


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for a condition.

    Raises:
        AssertionError: it does not come true within the limit.
    """
    limit = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < limit, "the condition did not come true"
        time.sleep(0.02)

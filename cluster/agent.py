"""The process beside a Ray cluster: reports nodes and notices, carries out intents.

It connects outward only. While the server is away, attempts train on and notices wait on disk;
after its own death it finds its nodes and attempts again.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from cluster.agent_home import single_agent
from cluster.agent_link import AgentConfig, HttpLink, LiveAttempt, ServerLink, SyncRequest
from cluster.agent_logs import LogBook
from cluster.agent_parts import Parts, build_parts
from cluster.agent_state import NOTICES_AT_ONCE, AgentStore
from cluster.notices import NodeLost, NodeReleased
from jobs.codec import decode, encode
from jobs.errors import LowtideError

_WAIT_MS = 250  # longest silence of the server while there may be news from here
_RETRY_S = 0.5
_BREATH_S = 0.2
_LOG_WAIT_S = 1.0
_CONFIG = "config"
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """What an agent is told on its command line."""

    cluster: str
    home: Path


class Agent:
    """Runs until ``stop``; see the module."""

    def __init__(self, settings: AgentSettings, *, link: ServerLink) -> None:
        """Open the home; nothing is started yet."""
        self._settings = settings
        self._link = link
        settings.home.mkdir(parents=True, exist_ok=True)
        self._store = AgentStore(settings.home / "agent.sqlite")
        self._logs = LogBook(settings.home / "logs")
        self._submitted: set[str] = set()
        # A new one in each life: what an earlier one was shown, this one has not seen.
        self._life = f"{self._store.identity()}.{os.getpid()}"
        self._stopping = threading.Event()

    def run(self) -> None:
        """Serve until ``stop`` is called.

        Raises:
            LowtideError: the server refuses us, or the cluster cannot be started.
        """
        self._listen_to_signals()
        config = self._first_config()
        if config is None:
            return
        parts = build_parts(
            config,
            cluster=self._settings.cluster,
            home=self._settings.home,
            store=self._store,
            logs=self._logs,
        )
        forwarder = threading.Thread(target=self._forward_logs, name="logs", daemon=True)
        forwarder.start()
        try:
            while not self._stopping.is_set():
                self._listen_to_signals()
                self._sync(parts)
                assert parts.driver.failure is None, parts.driver.failure
        finally:
            self._stopping.set()
            parts.close()
            forwarder.join(5)
            self._link.close()
            self._store.close()

    def stop(self) -> None:
        """End soon; nodes and attempts are left alone. Any thread, also a signal's."""
        self._stopping.set()

    def _listen_to_signals(self) -> None:
        # Again and again: Ray installs its own handlers when it joins, and those only die.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: self.stop())

    def _first_config(self) -> AgentConfig | None:
        """Ask the server; while it is away, what it said to an earlier life is good enough."""
        kept = self._store.get(_CONFIG)
        while not self._stopping.is_set():
            # Without notices and with no intent taken: this only asks what we are.
            reply = self._link.sync(SyncRequest(agent=self._life, wait_ms=0))
            if reply is not None:
                self._store.put(_CONFIG, encode(reply.config).decode())
                return reply.config
            if kept:
                found: AgentConfig = decode(kept, into=AgentConfig)
                return found
            self._stopping.wait(_RETRY_S)
        return None

    def _sync(self, parts: Parts) -> None:
        reply = self._link.sync(self._request(parts))
        if reply is None:
            self._stopping.wait(_RETRY_S)
            return
        self._store.accept(list(reply.accepted))
        parts.update(reply.config)
        self._store.put(_CONFIG, encode(reply.config).decode())
        fresh = [intent for intent in reply.intents if intent.id not in self._submitted]
        for intent in fresh:
            self._submitted.add(intent.id)
            parts.driver.submit(intent)
        if reply.intents and not fresh:
            # The server repeats what is open, at once: breathe, but hear of news from here.
            self._store.wait(_BREATH_S)

    def _request(self, parts: Parts) -> SyncRequest:
        # In this order: whatever we report as living, the server has heard of, and nothing whose
        # end is in these very notices is reported as living.
        nodes = parts.driver.node_ids()
        notices = self._store.pending()
        gone = {n.node_id for n in notices if isinstance(n, NodeLost | NodeReleased)}
        live = self._store.live()
        # While older notices wait for a later sync, the server may not know these nodes yet, and
        # would have them released.
        told = len(notices) < NOTICES_AT_ONCE
        return SyncRequest(
            agent=self._life,
            notices=notices,
            attempts=[LiveAttempt(attempt_id=a.attempt_id, token=a.token) for a, _ in live],
            nodes=[node_id for node_id in nodes if told and node_id not in gone],
            wait_ms=0 if notices else _WAIT_MS,
        )

    def _forward_logs(self) -> None:
        while not self._stopping.is_set():
            self._logs.wait(_LOG_WAIT_S)
            with suppress(LowtideError):  # the main thread meets the same refusal and says so
                self._logs.forward(self._link, is_over=self._store.is_over)


def run_agent(*, cluster: str, server: str, token: str, home: Path) -> None:
    """Run an agent until SIGTERM or SIGINT.

    Raises:
        LowtideError: with cause and remedy, for people.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    link = HttpLink(server, token=token, cluster=cluster)
    with single_agent(home):
        agent = Agent(AgentSettings(cluster=cluster, home=home), link=link)
        _log.info("agent started", cluster=cluster, server=server)
        agent.run()


def main() -> None:
    """Run from the command line: ``python -m cluster.agent``. Exit code 2 = a user's mistake."""
    parser = argparse.ArgumentParser(prog="python -m cluster.agent", description=__doc__)
    parser.add_argument("--cluster", required=True)
    parser.add_argument("--server", required=True, help="base URL of the server")
    parser.add_argument("--token", default=os.environ.get("LOWTIDE_TOKEN", ""))
    parser.add_argument("--home", required=True, type=Path, help="folder that outlives the agent")
    given = parser.parse_args()
    try:
        run_agent(cluster=given.cluster, server=given.server, token=given.token, home=given.home)
    except LowtideError as error:
        sys.stderr.write(f"cause: {error.cause}\nremedy: {error.remedy}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()

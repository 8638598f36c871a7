"""A small server that speaks the agents' sync protocol, and agents as real processes."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cluster.flavors import Flavor
from cluster.intents import (
    DrainAttempt,
    EvictNode,
    Intent,
    LaunchNode,
    ReleaseNode,
    StartAttempt,
    StopAttempt,
)
from cluster.notices import AttemptOver, Committed, NodeJoined, Notice, WorkersUp
from cluster.providers.local import destroy_cluster
from jobs.codec import from_data, to_data
from jobs.spec import JobSpec, Market

CLUSTER = "here"
TOKEN = "agent-token"
FLAVOR = Flavor(
    name="spot-t4",
    cluster=CLUSTER,
    market=Market.SPOT,
    accelerator="t4",
    region="local",
    zone="local-a",
    gpu_milli=1_000,
    cpus=2,
    max_nodes=2,
)


class TinyServer:
    """Keeps all notices and gives intents until something says that they are done."""

    def __init__(self, storage: Path) -> None:
        """Listen on a free port of this machine."""
        self.storage = storage
        self.notices: list[Notice] = []
        self.ids: list[str] = []
        self.intents: dict[str, Intent] = {}
        self.logs: dict[tuple[str, int], bytes] = {}
        self.changed = threading.Condition()
        self._http = self._listen(0)
        self.port: int = self._http.server_address[1]

    def _listen(self, port: int) -> ThreadingHTTPServer:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                allowed = self.headers["Authorization"] == f"Bearer {TOKEN}"
                answer = outer.answer(self.path, body) if allowed else {}
                data = json.dumps(answer).encode()
                self.send_response(200 if allowed else 401)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: object) -> None:
                pass

        http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        http.daemon_threads = True
        threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True).start()
        return http

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Answer a request of an agent."""
        with self.changed:
            if path.endswith("/logs"):
                return self._keep_log(body)
            for data in body["notices"]:
                self._keep_notice(from_data(data, into=Notice))
            if not body["notices"] and not self.intents:
                self.changed.wait(body["wait_ms"] / 1_000)
            config = {
                "flavors": [to_data(FLAVOR)],
                "storage": str(self.storage),
                "provider": "local",
                "provider_options": {},
            }
            accepted = [data["id"] for data in body["notices"]]
            return {
                "config": config,
                "intents": [to_data(i) for i in self.intents.values()],
                "accepted": accepted,
            }

    def _keep_log(self, body: dict[str, Any]) -> dict[str, Any]:
        key = (body["attempt_id"], body["rank"])
        have = self.logs.get(key, b"")
        if body["offset"] <= len(have):
            data = base64.b64decode(body["data"])
            self.logs[key] = have + data[len(have) - body["offset"] :]
        self.changed.notify_all()
        return {"length": len(self.logs.get(key, b""))}

    def _keep_notice(self, notice: Notice) -> None:
        self.ids.append(notice.id)
        if self.ids.count(notice.id) == 1:
            self.notices.append(notice)
            node_id = getattr(notice, "node_id", None)
            attempt_id = getattr(notice, "attempt_id", None)
            done = {f"launch|{node_id}", f"evict|{node_id}", f"release|{node_id}"}
            if isinstance(notice, WorkersUp | AttemptOver):
                done.add(f"start|{attempt_id}")
            if isinstance(notice, AttemptOver):
                done |= {f"stop|{attempt_id}", f"drain|{attempt_id}"}
            for intent_id in done:
                self.intents.pop(intent_id, None)
        self.changed.notify_all()

    def want(self, intent: Intent) -> None:
        """Open an intent."""
        with self.changed:
            self.intents[intent.id] = intent
            self.changed.notify_all()

    def wait_for(self, condition: Callable[[], Any], *, limit_s: float = 120) -> Any:
        """Give the first true value of a condition on what the server knows."""
        with self.changed:
            found = self.changed.wait_for(condition, timeout=limit_s)
            assert found, [n for n in self.notices if n.kind != "progressed"]
            return found

    def of(self, kind: type, **fields: object) -> list[Any]:
        """Give the notices of a kind with these fields."""
        return [
            n
            for n in self.notices
            if isinstance(n, kind) and all(getattr(n, k) == v for k, v in fields.items())
        ]

    def pause(self) -> None:
        """Go away; the port stays ours."""
        self._http.shutdown()
        self._http.server_close()

    def resume(self) -> None:
        """Come back on the same port."""
        self._http = self._listen(self.port)

    def joined(self, *node_ids: str) -> list[NodeJoined]:
        """Launch nodes and wait until they are up."""
        for node_id in node_ids:
            intent = LaunchNode(
                id=f"launch|{node_id}", cluster=CLUSTER, node_id=node_id, flavor=FLAVOR.name
            )
            self.want(intent)
        wanted = set(node_ids)
        self.wait_for(lambda: wanted <= {n.node_id for n in self.of(NodeJoined)})
        return [self.of(NodeJoined, node_id=node_id)[0] for node_id in node_ids]

    def start(self, attempt_id: str, *, spec: JobSpec, nodes: list[NodeJoined]) -> StartAttempt:
        """Start an attempt of the job ``<job>/<epoch>`` on nodes."""
        job_id, _, epoch = attempt_id.partition("/")
        intent = StartAttempt(
            id=f"start|{attempt_id}",
            cluster=CLUSTER,
            attempt_id=attempt_id,
            job_id=job_id,
            epoch=int(epoch),
            spec=spec,
            node_ids=tuple(node.node_id for node in nodes),
            addresses=tuple(node.address for node in nodes),
            token=f"token-{attempt_id}",
            step=0,
            total_steps=0,
        )
        self.want(intent)
        return intent

    def stop(self, attempt_id: str) -> None:
        """Stop an attempt."""
        self.want(StopAttempt(id=f"stop|{attempt_id}", cluster=CLUSTER, attempt_id=attempt_id))

    def drain(self, attempt_id: str, *, deadline_us: int) -> None:
        """Drain an attempt."""
        self.want(
            DrainAttempt(
                id=f"drain|{attempt_id}",
                cluster=CLUSTER,
                attempt_id=attempt_id,
                deadline_us=deadline_us,
            )
        )

    def evict(self, node_id: str, *, notice_ms: int) -> None:
        """Evict a node."""
        self.want(
            EvictNode(id=f"evict|{node_id}", cluster=CLUSTER, node_id=node_id, notice_ms=notice_ms)
        )

    def release(self, node_id: str) -> None:
        """Release a node."""
        self.want(ReleaseNode(id=f"release|{node_id}", cluster=CLUSTER, node_id=node_id))

    def over(self, attempt_id: str, *, limit_s: float = 120) -> AttemptOver:
        """Wait for the end of an attempt."""
        return self.wait_for(lambda: self.of(AttemptOver, attempt_id=attempt_id), limit_s=limit_s)[
            0
        ]

    def commits(self, attempt_id: str) -> list[Committed]:
        """Give the commits of an attempt so far."""
        return self.of(Committed, attempt_id=attempt_id)

    def log(self, attempt_id: str, rank: int = 0) -> str:
        """Give what a rank wrote so far."""
        return self.logs.get((attempt_id, rank), b"").decode()

    def code(self, files: dict[str, str]) -> str:
        """Put a code archive into the store; give its digest."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for name, text in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(text.encode())
                tar.addfile(member, io.BytesIO(text.encode()))
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        target = self.storage / "code" / f"{digest}.tar.gz"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(buffer.getvalue())
        return digest

    def spec(self, script: str, **fields: Any) -> JobSpec:
        """Give a job of one script of that text."""
        return JobSpec(script="train.py", code=self.code({"train.py": script}), **fields)

    def close(self) -> None:
        """End it."""
        self._http.shutdown()
        self._http.server_close()


class AgentProcess:
    """An agent that can be killed and started again on the same home."""

    def __init__(self, server: TinyServer, *, home: Path) -> None:
        """Start it."""
        self.server, self.home = server, home
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "cluster.agent", "--cluster", CLUSTER]
        command += ["--server", self.server.url, "--token", TOKEN, "--home", str(self.home)]
        with (self.home.parent / "agent.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def kill(self) -> None:
        """SIGKILL it, and only it."""
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """Start it again."""
        self.process = self._start()

    def end(self) -> None:
        """End it and everything that it started."""
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.kill()
        destroy_cluster(self.home / "cluster")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyServer]:
    """The server of a module."""
    tiny = TinyServer(tmp_path_factory.mktemp("store"))
    yield tiny
    tiny.close()


@pytest.fixture(scope="module")
def agent(server: TinyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """The agent of a module, with a Ray cluster of its own."""
    process = AgentProcess(server, home=tmp_path_factory.mktemp("agent") / "home")
    yield process
    process.end()

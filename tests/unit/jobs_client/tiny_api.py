"""A small real HTTP server that answers like Lowtide's API and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

TOKEN = "a-token"


@dataclass
class Request:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def data(self) -> Any:
        """The JSON body."""
        return json.loads(self.body)


Answer = tuple[int, object]
Route = Callable[[Request], Answer]


@dataclass
class TinyApi:
    """Routes by (method, path); what has no route is answered with 404."""

    routes: dict[tuple[str, str], Route] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def on(self, method: str, path: str, answer: object, *, status: int = 200) -> None:
        """Always answer alike."""
        self.routes[method, path] = lambda _: (status, answer)

    def on_each(self, method: str, path: str, *answers: object) -> None:
        """Answer with each in turn (a tuple is a status and a body), then with the last."""
        left = list(answers)

        def route(_: Request) -> Answer:
            answer = left.pop(0) if len(left) > 1 else left[0]
            return answer if isinstance(answer, tuple) else (200, answer)

        self.routes[method, path] = route

    def asked(self, method: str, path: str) -> list[Request]:
        """Give the requests for a path."""
        return [r for r in self.requests if (r.method, r.path) == (method, path)]

    def hang_up(self, method: str, path: str) -> None:
        """Take the request and close the connection without an answer."""

        def route(_: Request) -> Answer:
            raise ConnectionAbortedError

        self.routes[method, path] = route

    def submits(self) -> list[Request]:
        """Give the submits that were meant."""
        return [r for r in self.asked("POST", "/v1/jobs") if "dry_run" not in r.query]

    def answer(self, request: Request) -> Answer:
        """Remember and answer."""
        self.requests.append(request)
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return 401, problem("auth", "The token is not this server's.", "Set LOWTIDE_TOKEN.")
        route = self.routes.get((request.method, request.path))
        if route is None:
            return 404, problem("not-found", f"No {request.path}.", "Look it up.")
        return route(request)

    @contextmanager
    def serving(self, *, port: int = 0) -> Iterator[str]:
        """Listen on the loopback interface and give the URL."""
        server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def problem(code: str, cause: str, remedy: str) -> dict[str, str]:
    """Build the body of ``application/problem+json``."""
    return {"code": code, "cause": cause, "remedy": remedy}


def job_row(**changes: object) -> dict[str, Any]:
    """Build a job as the server writes it."""
    row = {
        "id": "job-1",
        "spec": {"script": "train.py", "name": "digits", "team": "ads"},
        "state": "queued",
        "reason": "waits-for-capacity",
        "sentence": "every spot node is taken",
        "submitted_us": 1_000_000,
        "deadline_us": None,
        "changed_us": 1_000_000,
        "queued_us": 1_000_000,
        "attempts": 0,
        "evictions": 0,
        "attempt_id": "",
    }
    return {**row, **changes}


def _handler(api: TinyApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            url = urlsplit(self.path)
            size = int(self.headers.get("Content-Length", 0))
            request = Request(
                method=self.command,
                path=url.path,
                query=dict(parse_qsl(url.query)),
                headers={key.lower(): value for key, value in self.headers.items()},
                body=self.rfile.read(size),
            )
            try:
                status, data = api.answer(request)
            except ConnectionAbortedError:
                self.close_connection = True
                return
            body = data if isinstance(data, bytes) else json.dumps(data).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = handle_any  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None:
            """Be quiet."""

    return Handler

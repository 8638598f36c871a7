"""An HTTP server that answers S3 requests as a test's script says, however badly."""

from __future__ import annotations

import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

_TIMEOUT_S = 20.0
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset


@dataclass(frozen=True, slots=True)
class Say:
    """One answer, and what is wrong with it."""

    status: int = 200
    code: str = ""
    """Makes an error document."""
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    claims_bytes: int | None = None
    """Content-Length, if it is not the body's: more is a half body."""
    silent: bool = False
    """The request is taken, and its connection reset: the answer is lost."""
    deaf: bool = False
    """Answers without reading the body, and hangs up."""
    stalls: bool = False
    """After the head nothing comes until the client has gone away."""
    drips: bool = False
    """After the head a byte comes now and then until the client has gone away."""
    action: Callable[[], object] | None = None
    """Done before the answer."""

    @property
    def text(self) -> bytes:
        """The body that is sent."""
        if not self.code:
            return self.body
        return f"<Error><Code>{self.code}</Code><Message>As scripted.</Message></Error>".encode()


@dataclass(frozen=True, slots=True)
class Asked:
    """One recorded request."""

    connection: int
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class ScriptedS3:
    """Holds the script and the record."""

    def __init__(self, server: socketserver.ThreadingTCPServer, *, scheme: str) -> None:
        """Speak through `server`."""
        self.asked: list[Asked] = []
        self.scheme = scheme
        self._script: list[Say] = []
        self._lock = threading.Lock()
        self._server = server
        self._connections = 0

    @property
    def endpoint_url(self) -> str:
        """Where it listens."""
        return f"{self.scheme}://127.0.0.1:{self._server.server_address[1]}"

    def will(self, *answers: Say) -> None:
        """Add to the script; when it is over, the answer is an empty 200."""
        self._script.extend(answers)

    def next_answer(self, asked: Asked) -> Say:
        """Record a request and choose its answer."""
        with self._lock:
            self.asked.append(asked)
            return self._script.pop(0) if self._script else Say()

    def new_connection(self) -> int:
        """Number a connection."""
        with self._lock:
            self._connections += 1
            return self._connections


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 32
    context: ssl.SSLContext | None = None
    scripted: ScriptedS3

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is part of every script."""

    def shutdown_request(self, request: Any) -> None:
        """Close without a polite end before it, which would hide a reset."""
        self.close_request(request)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        """Number the connection; wrap it in TLS where that is wanted."""
        self.request.settimeout(_TIMEOUT_S)
        if self.server.context is not None:
            self.request = self.server.context.wrap_socket(self.request, server_side=True)
        super().setup()
        self.number = self.server.scripted.new_connection()

    def finish(self) -> None:
        """Say good-bye to TLS; a plain connection is closed by the server."""
        super().finish()
        if isinstance(self.request, ssl.SSLSocket):
            self.request.close()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Stay quiet."""

    def _answer(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        length = int(headers.get("content-length", 0))
        deaf = any(say.deaf for say in self.server.scripted._script[:1])
        body = b"" if deaf else self.rfile.read(length)
        asked = Asked(self.number, self.command, self.path, headers, body)
        self._say(self.server.scripted.next_answer(asked))

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _answer  # noqa: N815 - the base's names

    def _say(self, say: Say) -> None:
        if say.action is not None:
            say.action()
        if say.silent:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.close_connection = True
            return
        claims = len(say.text) if say.claims_bytes is None else say.claims_bytes
        self.send_response(say.status)
        for name, value in {**say.headers, "Content-Length": str(claims)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else say.text)
        self.close_connection = say.deaf or claims > len(say.text)
        if say.stalls or say.drips:
            self._linger(drips=say.drips)

    def _linger(self, *, drips: bool) -> None:
        self.connection.settimeout(0.05)
        while True:
            with suppress(TimeoutError):
                if not self.connection.recv(1):
                    return
            if drips:
                self.wfile.write(b".")


@contextmanager
def scripted_s3(context: ssl.SSLContext | None = None) -> Iterator[ScriptedS3]:
    """Run a server, with TLS if a `context` is given, for the length of a `with` block."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.context = context
        server.scripted = ScriptedS3(server, scheme="https" if context else "http")
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.scripted
        finally:
            server.shutdown()
            thread.join()

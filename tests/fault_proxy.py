"""A proxy in front of a real S3 server that makes chosen requests go wrong.

It records every request, so that a dry recording says which requests there are, and a script of
`Rule`s then lets each of them fail in one way: lost before the server saw it, lost after the server
answered, cut in the middle, sent twice, refused, held up. Bodies are streamed.

Requests travel as they are, their `Host` header included: a client signs the proxy's address, and
the server verifies the header that it sees. Only `Expect` (which nobody signs) is answered here.
"""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedIOBase
from typing import Final
from urllib.parse import urlsplit

from tests.faults import (
    After,
    Before,
    Delay,
    Duplicate,
    Flip,
    HalfRequest,
    HalfResponse,
    Hold,
    Refuse,
    Request,
    Script,
)
from tests.http_stream import (
    Head,
    LostError,
    blocks_of,
    body_of,
    consume,
    flipped,
    half_of,
    read_answer_head,
    read_head,
)
from tests.s3_server import S3Server

HOST: Final = "127.0.0.1"
_TIMEOUT_S: Final = 30.0
_POLL_S: Final = 0.02
_CLOSE_AT_ONCE: Final = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset


class FaultProxy:
    """Listens on a free port of this machine until `stop`."""

    def __init__(self, upstream_url: str) -> None:
        """Forward to `upstream_url` (http, host and port)."""
        parts = urlsplit(upstream_url)
        assert parts.hostname is not None, upstream_url
        assert parts.port is not None, upstream_url
        self.upstream: Final = (parts.hostname, parts.port)
        self._changed = threading.Condition()
        self._requests: list[Request] = []
        self._rules: list[Script] = []
        self._open: set[socket.socket] = set()
        self._server = _Server((HOST, 0), _Handler)
        self._server.proxy = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_POLL_S,))
        self._thread.start()

    @property
    def endpoint_url(self) -> str:
        """Where clients find it."""
        return f"http://{HOST}:{self._server.server_address[1]}"

    @property
    def requests(self) -> tuple[Request, ...]:
        """What arrived since the script began, in order of arrival."""
        with self._changed:
            return tuple(self._requests)

    def script(self, *rules: Script) -> None:
        """Begin a script: forget the recorded requests; of the rules, the first that fits wins."""
        with self._changed:
            self._requests, self._rules = [], list(rules)

    def wait_for(self, condition: Callable[[], object], *, limit_s: float = 20) -> None:
        """Wait until `condition`, looked at whenever a request begins or ends, is true."""
        with self._changed:
            assert self._changed.wait_for(condition, timeout=limit_s), self._requests

    def stop(self) -> None:
        """Close every connection, end every thread."""
        self._server.shutdown()
        self._thread.join()
        with self._changed:
            for connection in self._open:
                with suppress(OSError):  # its thread was quicker
                    connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()  # joins the handlers

    def begin(self, head: Head) -> Request:
        """Record a request and choose its fault."""
        method, key = head.operation()
        with self._changed:
            request = Request(len(self._requests), method, key)
            self._requests.append(request)
            chosen = next((rule for rule in self._rules if rule.takes(request)), None)
            request.fault = None if chosen is None else chosen.fault
            self._changed.notify_all()
        return request

    def answered(self, request: Request, status: int) -> None:
        """Record what the server said."""
        with self._changed:
            request.status = status
            self._changed.notify_all()

    @contextmanager
    def connection(self, found: socket.socket) -> Iterator[socket.socket]:
        """Hold a connection that `stop` may cut."""
        found.settimeout(_TIMEOUT_S)
        with self._changed:
            self._open.add(found)
        try:
            yield found
        finally:
            with self._changed:
                self._open.discard(found)


@contextmanager
def faulty(server: S3Server) -> Iterator[tuple[FaultProxy, dict[str, str]]]:
    """Put a proxy before `server`; give it and the variables that lead boto3 through it."""
    proxy = FaultProxy(server.endpoint_url)
    try:
        yield proxy, {**server.environment(), "AWS_ENDPOINT_URL": proxy.endpoint_url}
    finally:
        proxy.stop()


# ------------------------------------------------------------------ one connection


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = False
    block_on_close = True
    allow_reuse_address = True
    request_queue_size = 64
    proxy: FaultProxy

    def shutdown_request(self, request: object) -> None:
        """Close without a polite end before it, which would hide a reset."""
        assert isinstance(request, socket.socket)
        self.close_request(request)


class _Handler(socketserver.StreamRequestHandler):
    """Serves one client's connection, request after request."""

    server: _Server
    disable_nagle_algorithm = True

    def handle(self) -> None:
        """Go on until a fault or an end."""
        with self.server.proxy.connection(self.connection), suppress(OSError, LostError):
            while (head := read_head(self.rfile)) is not None and self._serve(head):
                pass

    def _serve(self, head: Head) -> bool:
        """Serve one request; say whether the connection goes on."""
        proxy = self.server.proxy
        request = proxy.begin(head)
        match request.fault:
            case Before(action, reset):
                return self._cut(action, reset=reset)
            case Refuse() as refusal:
                return self._refuse(head, refusal)
            case Duplicate(heard):
                return self._twice(head, request, heard)
            case Delay(wait_s):
                threading.Event().wait(wait_s)
            case Hold(until):
                assert until.wait(_TIMEOUT_S), "nobody let the request go"
            case _:
                pass  # what goes wrong, goes wrong later
        return self._forward(head, request)

    def _forward(self, head: Head, request: Request) -> bool:
        body = self._request_body(head)
        with self._upstream() as (upstream, answers):
            upstream.sendall(head.without("expect"))
            if isinstance(request.fault, HalfRequest):
                for block in half_of(body, head=head):
                    upstream.sendall(block)
                return self._cut(request.fault.action, reset=True)
            for block in body:
                upstream.sendall(block)
            return self._answer(head, request, answers)

    @contextmanager
    def _upstream(self) -> Iterator[tuple[socket.socket, BufferedIOBase]]:
        proxy = self.server.proxy
        with (
            socket.create_connection(proxy.upstream, _TIMEOUT_S) as upstream,
            proxy.connection(upstream),
            upstream.makefile("rb") as answers,
        ):
            yield upstream, answers

    def _answer(self, asked: Head, request: Request, answers: BufferedIOBase) -> bool:
        head = read_answer_head(answers)
        body = body_of(answers, head, asked=asked)
        goes_on = head.header("connection").lower() != "close"
        match request.fault:
            case After(action, reset):
                consume(body)
                self.server.proxy.answered(request, head.status)
                return self._cut(action, reset=reset)
            case HalfResponse():
                body, goes_on = half_of(body, head=head), False
            case Flip():
                body = flipped(body)
            case _:
                pass
        self.server.proxy.answered(request, head.status)
        self._tell(head, body)
        return goes_on

    def _tell(self, head: Head, body: Iterator[bytes]) -> None:
        self.wfile.write(head.raw)
        for block in body:
            self.wfile.write(block)
        self.wfile.flush()

    def _twice(self, head: Head, request: Request, heard: int) -> bool:
        """Send the whole request twice, one after the other; tell one of the answers."""
        whole = head.without("expect") + b"".join(self._request_body(head))
        said: list[tuple[Head, bytes]] = []
        for _ in range(2):
            with self._upstream() as (upstream, answers):
                upstream.sendall(whole)
                found = read_answer_head(answers)
                said.append((found, b"".join(body_of(answers, found, asked=head))))
        told, data = said[heard - 1]
        self.server.proxy.answered(request, told.status)
        self._tell(told, iter((data,)))
        return True

    def _request_body(self, head: Head) -> Iterator[bytes]:
        if head.header("expect").lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return blocks_of(self.rfile, head)

    def _refuse(self, head: Head, refusal: Refuse) -> bool:
        consume(self._request_body(head))
        text = f"<Error><Code>{refusal.code}</Code><Message>As scripted.</Message></Error>".encode()
        if head.method == "HEAD":
            text = b""
        start = f"HTTP/1.1 {refusal.status} {refusal.code}\r\nContent-Length: {len(text)}\r\n\r\n"
        self.wfile.write(start.encode() + text)
        return True

    def _cut(self, action: Callable[[], object] | None, *, reset: bool) -> bool:
        if action is not None:
            action()
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _CLOSE_AT_ONCE)
        return False

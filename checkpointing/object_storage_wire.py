"""The bodies' way to and from S3: plain HTTP/1.1 on our own sockets, without a copy.

boto3 spends 1.4 ms of Python on a request and hashes or copies the body on some of its ways; here
it is 0.55 ms, `sendall` takes slices of the caller's memory, `recv_into` fills it. botocore still
makes and signs the URL (see `object_storage_access`), so every kind of endpoint works. The deadline
of a request is its own: a server that drips bytes does not outlast it.
"""

from __future__ import annotations

import re
import select
import socket
import ssl
import weakref
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from typing import Final, TypeAlias
from urllib.parse import SplitResult, urlsplit

from botocore.httpsession import ProxyConfiguration, get_cert_path
from botocore.utils import get_environ_proxies

from checkpointing.object_storage_patience import Timer
from checkpointing.object_storage_trouble import Refused

_SLICE_BYTES: Final = 4 * 2**20  # one `sendall`: few enough calls, and progress is seen in between
_IDLE: Final = 16  # connections kept: 4 uploads and 8 readers are in flight at the most
_ERROR_BYTES: Final = 2**16
_LAST_WORDS_S: Final = 1.0
_OK: Final = 200
_NOT_OK: Final = 300

# Two fields of a small document in a fixed order: no reason to trust an XML parser with it.
_FIELD: Final = re.compile(rb"<(Code|Message)>([^<]*)</")


class Wire:
    """Keeps connections and sends requests over them; any number of threads may."""

    def __init__(self, *, ca_bundle: str | None, connect_s: float) -> None:
        """Trust the authorities in `ca_bundle` (None: those that botocore trusts)."""
        self._ca_bundle = ca_bundle
        self._connect_s = connect_s
        self._context: ssl.SSLContext | None = None
        self._idle: _Idle = defaultdict(deque)
        weakref.finalize(self, _close_all, self._idle)

    def put(self, url: str, body: memoryview, *, headers: Mapping[str, str], timer: Timer) -> None:
        """Send `body`, bytes. Raise `Refused`, `OSError` or `HTTPException`."""
        length = {"Content-Length": str(body.nbytes)}
        with self._answer("PUT", url, headers={**headers, **length}, body=body, timer=timer) as got:
            got.response.read()

    def get(self, url: str, *, headers: Mapping[str, str], timer: Timer) -> bytes:
        """Return the body. Raise as `put` does."""
        with self._answer("GET", url, headers=headers, timer=timer) as got:
            if got.response.length is None:  # a gateway's chunks: small things only
                return got.response.read()
            found = bytearray(got.response.length)
            got.fill(memoryview(found), timer)
            return bytes(found)

    def get_into(self, url: str, target: memoryview, *, start: int, timer: Timer) -> int:
        """Fill `target`, bytes, from byte `start` of the object; return how much there was."""
        wanted = {"Range": f"bytes={start}-{start + target.nbytes - 1}"}
        with self._answer("GET", url, headers=wanted, timer=timer) as got:
            length = got.response.length
            if length is None or (got.response.status == _OK and start > 0):
                raise HTTPException("the store does not answer a ranged GET with a range")
            count = min(length, target.nbytes)
            got.fill(target[:count], timer)
            got.reusable = count == length
            return count

    def forget(self) -> None:
        """Close what is idle: after a failure the next request gets a fresh connection."""
        _close_all(self._idle)

    @contextmanager
    def _answer(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        timer: Timer,
        body: memoryview | None = None,
    ) -> Iterator[_Answer]:
        parts = urlsplit(url)
        idle = self._idle[parts.scheme, parts.netloc]
        line = _living(idle) or self._opened(parts, timer)
        try:
            line.send_head(method, parts, headers=headers, timer=timer)
            got = _Answer(_response(line, body, timer), line.socket)
            _accept(got.response)
            yield got
        except BaseException:
            line.http.close()
            raise
        reusable = got.reusable and not got.response.will_close and len(idle) < _IDLE
        got.response.close()
        if reusable:
            idle.append(line)
        else:
            line.http.close()

    def _opened(self, parts: SplitResult, timer: Timer) -> _Line:
        url = parts.geturl()
        proxies = ProxyConfiguration(get_environ_proxies(url))
        proxy = proxies.proxy_url_for(url)
        hop = urlsplit(proxy) if proxy else parts
        passport = proxies.proxy_headers_for(proxy) if proxy else {}
        limit_s = min(self._connect_s, timer.left_s())
        assert hop.hostname is not None, url
        if parts.scheme == "http":
            plain = HTTPConnection(hop.hostname, hop.port, timeout=limit_s)
            return _connected(plain, absolute=bool(proxy), passport=passport)
        secure = HTTPSConnection(
            hop.hostname, hop.port, timeout=limit_s, context=self._trusted_context()
        )
        if proxy:
            secure.set_tunnel(str(parts.hostname), parts.port, passport)
        return _connected(secure, absolute=False, passport={})

    def _trusted_context(self) -> ssl.SSLContext:
        if self._context is None:
            trusted = self._ca_bundle or get_cert_path(True)  # noqa: FBT003 - botocore's own
            self._context = ssl.create_default_context(cafile=trusted)
        return self._context


@dataclass(frozen=True, slots=True)
class _Line:
    """A connection to the store, or to the proxy before it."""

    http: HTTPConnection
    socket: socket.socket
    absolute: bool
    """Whether requests name the whole URL, as proxies want it."""
    passport: Mapping[str, str]
    """What the proxy wants to see with every request."""

    def send_head(
        self, method: str, parts: SplitResult, *, headers: Mapping[str, str], timer: Timer
    ) -> None:
        self.socket.settimeout(timer.left_s())
        target = parts.geturl() if self.absolute else f"{parts.path or '/'}?{parts.query}"
        self.http.putrequest(method, target)
        for name, value in (*headers.items(), *self.passport.items()):
            self.http.putheader(name, value)
        self.http.endheaders()

    def send(self, body: memoryview, timer: Timer) -> None:
        for at in range(0, body.nbytes, _SLICE_BYTES):
            self.socket.settimeout(timer.left_s())
            self.http.send(body[at : at + _SLICE_BYTES])


@dataclass(slots=True)
class _Answer:
    """The head of an answer that is no error, and the way to its body."""

    response: HTTPResponse
    socket: socket.socket
    reusable: bool = True
    """Whether the body is read to its end, so that the connection can carry another request."""

    def fill(self, target: memoryview, timer: Timer) -> None:
        done = 0
        while done < target.nbytes:
            self.socket.settimeout(timer.left_s())
            count = self.response.fp.readinto1(target[done:])
            if not count:
                raise IncompleteRead(b"", target.nbytes - done)
            done += count


def _connected(http: HTTPConnection, *, absolute: bool, passport: Mapping[str, str]) -> _Line:
    http.connect()
    http.auto_open = 0  # a dead connection is an error, never a second request behind our back
    return _Line(http, http.sock, absolute, passport)


def _living(idle: deque[_Line]) -> _Line | None:
    """Take a connection that the other side has not closed while it was idle."""
    while True:
        try:
            line = idle.pop()
        except IndexError:
            return None
        poll = select.poll()
        poll.register(line.socket, select.POLLIN)
        if not poll.poll(0):
            return line
        line.http.close()


def _response(line: _Line, body: memoryview | None, timer: Timer) -> HTTPResponse:
    try:
        if body is not None:
            line.send(body, timer)
    except ConnectionError:
        # The store may refuse half-way and hang up; what it said is worth more than the reset.
        line.socket.settimeout(_LAST_WORDS_S)
        with suppress(OSError, HTTPException):
            return line.http.getresponse()
        raise
    line.socket.settimeout(timer.left_s())
    return line.http.getresponse()


def _accept(response: HTTPResponse) -> None:
    """Raise `Refused` with what S3's error document says, as far as there is one."""
    if response.status < _NOT_OK:
        return
    data = response.read(_ERROR_BYTES)
    fields = {
        name.decode(): value.decode("utf-8", "replace") for name, value in _FIELD.findall(data)
    }
    code = fields.get("Code") or str(response.status)
    raise Refused(response.status, code=code, message=fields.get("Message", response.reason))


def _close_all(lines: _Idle) -> None:
    for idle in list(lines.values()):
        while idle:
            with suppress(IndexError):  # another thread was quicker
                idle.pop().http.close()


_Idle: TypeAlias = defaultdict[tuple[str, str], deque[_Line]]

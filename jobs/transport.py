"""How the SDK reaches a server: where it is, who we are, and trying again while it is away."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydantic_settings import BaseSettings, SettingsConfigDict

from jobs.errors import (
    AuthError,
    ConflictError,
    FencedError,
    FileFormatError,
    InfeasibleError,
    LowtideError,
    NewerDatabaseError,
    SpecError,
    UnknownSubjectError,
    UnreachableError,
)

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
RETRIED_STATUS = frozenset({502, 503, 504})


class ConnectionSettings(BaseSettings):
    """``LOWTIDE_SERVER``, ``LOWTIDE_TOKEN`` and ``LOWTIDE_HOME`` (default ``~/.lowtide``)."""

    model_config = SettingsConfigDict(env_prefix="LOWTIDE_", env_ignore_empty=True)

    server: str = ""
    token: str = ""
    home: Path = Path("~/.lowtide")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a server listens, and the token that it takes."""

    url: str
    token: str


class RefusedError(LowtideError):
    """The server refused the request for a reason that this version has no name for."""

    code = "refused"


class NoServerError(UnreachableError):
    """Nothing says where a server is."""

    code = "no-server"


_BY_CODE: dict[str, type[LowtideError]] = {
    kind.code: kind
    for kind in (
        AuthError,
        ConflictError,
        FencedError,
        FileFormatError,
        InfeasibleError,
        NewerDatabaseError,
        SpecError,
        UnknownSubjectError,
        UnreachableError,
    )
}
_BY_STATUS: dict[int, type[LowtideError]] = {
    401: AuthError,
    403: AuthError,
    404: UnknownSubjectError,
    409: ConflictError,
    422: SpecError,
}


def find_server(*, server: str | None = None, token: str | None = None) -> Address:
    """Find the server: arguments, then the environment, then ``server.json`` of the home.

    The token of the home is given only to the server of the home, never to another address.

    Raises:
        NoServerError: no server is known.
        AuthError: a server is known, its token is not.
    """
    settings = ConnectionSettings()
    home = settings.home.expanduser()
    local = _local_url(home)
    url = (server or settings.server or local).rstrip("/")
    if not url:
        raise NoServerError(
            f"No server is known: LOWTIDE_SERVER is not set and '{home}' holds no server.json.",
            remedy="Start one with `lowtide up`, or set LOWTIDE_SERVER and LOWTIDE_TOKEN.",
        )
    _check_url(url)
    token = token or settings.token or (_local_token(home) if url == local else "")
    if not token or not token.isascii() or not token.isprintable():
        raise AuthError(
            f"There is no usable token for {url}.",
            remedy="Set LOWTIDE_TOKEN to the token that the server's owner gave you.",
        )
    return Address(url=url, token=token)


def _local_url(home: Path) -> str:
    try:
        return str(json.loads((home / "server.json").read_text(encoding="utf-8"))["url"]).rstrip(
            "/"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return ""  # absent, or being written right now


def _local_token(home: Path) -> str:
    try:
        return (home / "token").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _check_url(url: str) -> None:
    try:
        parsed = urlsplit(url)
        usable = parsed.scheme in {"http", "https"} and parsed.hostname and parsed.port != 0
    except ValueError as error:  # an open bracket, a port that is no number
        raise _bad_url(url) from error
    if not usable:
        raise _bad_url(url)


def _bad_url(url: str) -> SpecError:
    return SpecError(
        f"The server address '{url}' is not a URL.",
        remedy="Write it like http://127.0.0.1:8080 (LOWTIDE_SERVER, or server= in Python).",
    )


class Transport:
    """Sends requests, and repeats what may safely be repeated while the server is away."""

    def __init__(self, *, server: str | None, token: str | None, patience_s: float) -> None:
        """Keep the wishes; the server is looked up with each try, since a restart may move it."""
        self._server = server
        self._token = token
        self.patience_s = patience_s
        self._http: tuple[Address, httpx.Client] | None = None

    def json(self, method: str, path: str, **options: Any) -> Any:  # noqa: ANN401 - JSON data
        """Send a request (options as for ``send``) and give its JSON answer.

        Raises:
            LowtideError: as ``send``.
        """
        response = self.send(method, path, **options)
        try:
            return response.json()
        except ValueError as error:
            raise UnreachableError(
                f"{response.url} did not answer with JSON, so it is no Lowtide server.",
                remedy="Check LOWTIDE_SERVER.",
            ) from error

    def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: object = None,
        content: Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = True,
        patience_s: float | None = None,
    ) -> httpx.Response:
        """Send a request and give the answer, if it is a good one.

        Args:
            method: the HTTP verb.
            path: from the server's root.
            params: the query; None values are left out.
            body: JSON data.
            content: raw bytes instead of JSON; must be iterable more than once.
            headers: beside the token.
            repeatable: whether a request that may have arrived may be sent again.
            patience_s: how long to go on trying, by default the client's own patience.

        Raises:
            UnreachableError: nobody answered in time.
            LowtideError: what the server said, in its own words.
        """
        patience_s = self.patience_s if patience_s is None else patience_s
        give_up = time.monotonic() + patience_s  # noqa: TID251 - the SDK has no scheduler's clock
        pause_s = FIRST_PAUSE_S
        query = {key: value for key, value in (params or {}).items() if value is not None}
        options = {"params": query, "json": body, "content": content, "headers": headers}
        while True:
            outcome = self._try(method, path, options=options, repeatable=repeatable)
            if isinstance(outcome, httpx.Response):
                return outcome
            if time.monotonic() + pause_s > give_up:  # noqa: TID251
                raise outcome
            threading.Event().wait(pause_s)
            pause_s = min(LONGEST_PAUSE_S, pause_s * 2)

    def _try(
        self, method: str, path: str, *, options: Mapping[str, Any], repeatable: bool
    ) -> httpx.Response | LowtideError:
        """Send once: a good answer, or an error after which it may be tried again."""
        try:
            response = self._client().request(method, path, **options)
        except NoServerError as error:
            if self._http is None:
                raise
            return error  # we have talked before, so it is being started again
        except httpx.TransportError as error:
            failure = _unreachable(error)
            if repeatable or isinstance(error, httpx.ConnectError):
                return failure
            raise failure from error
        if response.is_success:
            return response
        problem = _problem(response)
        if repeatable and response.status_code in RETRIED_STATUS:
            return problem
        raise problem

    def close(self) -> None:
        """Let go of the connection."""
        if self._http is not None:
            self._http[1].close()
            self._http = None

    def _address(self) -> Address:
        return find_server(server=self._server, token=self._token)

    def _client(self) -> httpx.Client:
        address = self._address()
        if self._http is None or self._http[0] != address:
            self.close()
            self._http = (address, _open(address))
        return self._http[1]


def _open(address: Address) -> httpx.Client:
    return httpx.Client(
        base_url=address.url,
        headers={"Authorization": f"Bearer {address.token}"},
        timeout=httpx.Timeout(30, connect=5),
        # A company's proxy cannot reach this machine's own loopback.
        trust_env=httpx.URL(address.url).host not in LOOPBACK,
    )


def _unreachable(error: httpx.TransportError) -> UnreachableError:
    url = error.request.url
    what = "did not answer in time" if isinstance(error, httpx.TimeoutException) else str(error)
    return UnreachableError(
        f"The server at {url.copy_with(path='/', query=None)} cannot be reached: "
        f"{what or type(error).__name__}.",
        remedy="Start it with `lowtide up` (or `lowtide serve`), or correct LOWTIDE_SERVER.",
    )


def _problem(response: httpx.Response) -> LowtideError:
    """Turn ``application/problem+json`` back into the error that the server raised."""
    try:
        body = response.json()
    except ValueError:
        body = {}
    if not isinstance(body, dict):
        body = {}
    status = response.status_code
    default = UnreachableError if status >= httpx.codes.INTERNAL_SERVER_ERROR else RefusedError
    kind = _BY_CODE.get(str(body.get("code")), _BY_STATUS.get(status, default))
    cause = body.get("cause") or body.get("detail") or body.get("title")
    return kind(
        str(cause or f"The server answered {status} to {response.request.url.path}."),
        remedy=str(body.get("remedy") or _REMEDY.get(status, "Look into the server's log.")),
    )


_REMEDY = {
    401: "Set LOWTIDE_TOKEN to the server's token.",
    404: "Check the name, and that client and server are of the same version.",
}

"""The door: a bearer token for everything but health and the API's description, and a body limit.

It stands before routing, so that nobody without the token gets a body read or a path confirmed.
"""

from __future__ import annotations

import hmac

from fastapi.security import HTTPBearer
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobs.errors import AuthError
from scheduler.server.errors import TooLargeError, refusal

OPEN_PATHS = frozenset({"/v1/health", "/v1/openapi.json"})
BODY_LIMIT = 16 << 20  # bytes of a JSON body; archives have their own limit
_SCHEME = "bearer "

described = HTTPBearer(auto_error=False, description="The token of the server's home folder.")
"""Names the scheme in the API's description; ``Door`` enforces it."""


class Door:
    """Refuses requests without the token, and bodies without end."""

    def __init__(self, app: ASGIApp, *, token: str) -> None:
        """Guard ``app``."""
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if scope["path"] not in OPEN_PATHS and not self._knows(headers.get("authorization", "")):
            await refusal(_unknown(headers))(scope, receive, send)
        elif not scope["path"].startswith("/v1/code/"):
            await self._app(scope, _Limited(receive), send)
        else:
            await self._app(scope, receive, send)

    def _knows(self, authorization: str) -> bool:
        if not authorization.lower().startswith(_SCHEME):
            return False
        # Constant time: the answer's delay must not tell how much of a guess was right.
        return hmac.compare_digest(authorization[len(_SCHEME) :].strip().encode(), self._token)


class _Limited:
    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._left = BODY_LIMIT

    async def __call__(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise HTTPException(TooLargeError.http_status, "The body is larger than 16 MiB")
        return message


def _unknown(headers: Headers) -> AuthError:
    shown = "authorization" in headers
    return AuthError(
        "The token is not this server's." if shown else "The request carries no token.",
        remedy="Set LOWTIDE_TOKEN to the content of the file 'token' in the server's home folder.",
    )

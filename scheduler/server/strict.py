"""JSON as the standard has it: no lone surrogates, no NaN, no numbers beyond 64 bits.

Python's own parser takes all of these, and our codec refuses to write the first two: a job with
such a name would stop the loop at its commit instead of being refused at the door.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute


class StrictRequest(Request):
    """A request whose body is read by the codec's own parser."""

    async def json(self) -> Any:  # noqa: ANN401 - JSON data
        """Give the body's data.

        Raises:
            json.JSONDecodeError: it is not JSON.
        """
        return orjson.loads(await self.body())


class StrictRoute(APIRoute):
    """A route that reads bodies strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the request before FastAPI reads it."""
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(StrictRequest(request.scope, request.receive))

        return strictly

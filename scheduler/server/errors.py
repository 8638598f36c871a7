"""Every error as ``application/problem+json``: type, title, status, code, cause, remedy."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from checkpointing.errors import CheckpointError
from jobs.errors import LowtideError, SpecError
from jobs.spec import parse_spec


class NotLeaderError(LowtideError):
    """Another server leads; this one answers reads only."""

    code = "not-leader"
    http_status = 503


class RequestError(LowtideError):
    """The request itself is malformed; the cause names the part."""

    code = "request-invalid"
    http_status = 422


class TooLargeError(LowtideError):
    """The body is larger than the server takes."""

    code = "too-large"
    http_status = 413


def problem(
    status: int, *, code: str, cause: str, remedy: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    """Build the answer."""
    content = {
        "type": f"urn:lowtide:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "cause": cause,
        "remedy": remedy,
    }
    return JSONResponse(
        content, status_code=status, media_type="application/problem+json", headers=headers
    )


def refusal(error: LowtideError) -> JSONResponse:
    """Answer with an error that its reader can mend."""
    headers = {"WWW-Authenticate": "Bearer"} if error.http_status == HTTPStatus.UNAUTHORIZED else {}
    return problem(
        error.http_status,
        code=error.code,
        cause=error.cause,
        remedy=error.remedy,
        headers=headers,
    )


def install(app: FastAPI) -> None:
    """Let the app answer every error as a problem."""
    app.add_exception_handler(LowtideError, _on_refusal)
    app.add_exception_handler(CheckpointError, _on_storage)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_bug)


async def _on_refusal(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, LowtideError)
    return refusal(error)


async def _on_storage(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, CheckpointError)
    return problem(503, code=error.code, cause=error.cause, remedy=error.remedy)


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    if request.url.path == "/v1/jobs" and isinstance(error.body, dict):
        try:
            parse_spec(error.body)  # says it in the spec's own words
        except SpecError as wrong:
            return refusal(wrong)
    return refusal(_request_error(error.errors()[0]))


def _request_error(first: dict[str, Any]) -> RequestError:
    if first["type"] == "json_invalid":
        return RequestError("The body is not JSON.", remedy="Send a JSON object.")
    place, *rest = [str(part) for part in first["loc"]]
    field = ".".join(rest) or place
    text = first["msg"].removeprefix("Value error, ")
    return RequestError(
        f"'{field}' ({place}): {text}.", remedy="Correct it; the API is at /v1/openapi.json."
    )


async def _on_http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    too_large = status == TooLargeError.http_status
    return problem(
        status,
        code=TooLargeError.code if too_large else status.phrase.lower().replace(" ", "-"),
        cause=f"{error.detail}.",
        remedy="The paths and methods are listed at /v1/openapi.json.",
        headers=dict(error.headers or {}),
    )


async def _on_bug(_: Request, error: Exception) -> JSONResponse:
    return problem(
        500,
        code="internal",
        cause=f"The server failed with {type(error).__name__}.",
        remedy="Its log has the details; please report it as a bug.",
    )

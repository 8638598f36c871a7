"""Code archives: content-addressed, verified on the way in, kept in object storage."""

from __future__ import annotations

import hashlib
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi.concurrency import run_in_threadpool

from scheduler.server.context import InContext, answer
from scheduler.server.errors import RequestError, TooLargeError

router = APIRouter(prefix="/v1/code", tags=["code"])

Digest = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the archive")]
_MIB = 1 << 20


def key_of(digest: str) -> str:
    """Name an archive in the storage."""
    return f"code/{digest}.tar.gz"


@router.head("/{digest}")
def has(digest: Digest, context: InContext) -> Response:
    """Say whether an archive is there: 200 or 404."""
    return Response(status_code=200 if context.storage.exists(key_of(digest)) else 404)


@router.put("/{digest}", status_code=201)
async def put(digest: Digest, request: Request, context: InContext) -> Response:
    """Keep an archive (201), or say that it was there already (200)."""
    limit = context.settings.code_limit_mb * _MIB
    data = await _body(request, limit=limit)
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise RequestError(
            f"The archive's SHA-256 is {found}, not {digest}.",
            remedy="It changed or was cut on the way: send it again under its own digest.",
        )
    new = await run_in_threadpool(context.storage.put_if_absent, key_of(digest), data)
    return answer({"sha256": digest, "bytes": len(data), "new": new}, status=201 if new else 200)


async def _body(request: Request, *, limit: int) -> bytes:
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > limit:
            raise _too_large(limit)
    return bytes(data)


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(
        f"The code archive is larger than {limit // _MIB} MiB.",
        remedy="Leave data out with .gitignore, or raise code_limit_mb in lowtide.yaml.",
    )

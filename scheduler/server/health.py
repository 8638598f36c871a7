"""Is it alive, who leads, which version."""

from __future__ import annotations

import importlib.metadata

from fastapi import APIRouter, Response

from scheduler.server.context import InContext, answer

router = APIRouter(prefix="/v1", tags=["health"])


@router.get("/health")
def health(context: InContext) -> Response:
    """Say that the server answers, and whether it leads. Needs no token, tells no secret."""
    version = importlib.metadata.version("lowtide")
    role = "leader" if context.leadership.leads else "follower"
    return answer({"status": "ok", "role": role, "version": version})

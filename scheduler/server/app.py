"""The FastAPI app out of its routers. A dashboard would be one more router."""

from __future__ import annotations

import importlib.metadata

from fastapi import Depends, FastAPI

from scheduler.server import (
    agents,
    budgets,
    code,
    errors,
    health,
    jobs,
    ledger,
    logs,
    nodes,
    quotes,
    schedules,
    windows,
)
from scheduler.server.auth import Door, described
from scheduler.server.context import Context


def create_app(context: Context, *, token: str) -> FastAPI:
    """Build the app for a running server's parts; every path but health needs ``token``."""
    app = FastAPI(
        title="Lowtide",
        version=importlib.metadata.version("lowtide"),
        openapi_url="/v1/openapi.json",
        docs_url=None,  # both pages load scripts from a CDN
        redoc_url=None,
    )
    app.state.context = context
    guarded = [Depends(described)]
    for part in (ledger, logs, quotes, jobs, nodes, agents, code, windows, budgets, schedules):
        app.include_router(part.router, dependencies=guarded)
    app.include_router(health.router)
    errors.install(app)
    app.add_middleware(Door, token=token)
    return app

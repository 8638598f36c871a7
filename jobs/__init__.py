"""What a job is, where it is kept, and what it cost.

``from jobs import Client, JobSpec`` is the SDK. The names are loaded when they are first used,
so that importing a part of this package costs that part alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.client import Client as Client
    from jobs.errors import LowtideError as LowtideError
    from jobs.handle import Job as Job
    from jobs.handle import JobFailedError as JobFailedError
    from jobs.spec import JobSpec as JobSpec
    from jobs.spec import Market as Market

_HOMES = {
    "Client": "jobs.client",
    "Job": "jobs.handle",
    "JobFailedError": "jobs.handle",
    "JobSpec": "jobs.spec",
    "LowtideError": "jobs.errors",
    "Market": "jobs.spec",
}

__all__ = ["Client", "Job", "JobFailedError", "JobSpec", "LowtideError", "Market"]


def __getattr__(name: str) -> object:
    """Load an exported name from the module that defines it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'jobs' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the exported names too."""
    return sorted({*globals(), *__all__})

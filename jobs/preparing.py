"""What is sent to a server, made ready on the user's machine: specs, archives, ids."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.archive import Archive, pack
from jobs.errors import SpecError, UnknownSubjectError
from jobs.spec import JobSpec, parse_spec


def prepare(
    spec: JobSpec | Mapping[str, Any], *, code_dir: str | Path | None = None
) -> tuple[JobSpec, Archive | None]:
    """Check a spec, pack its code, and give it as the server wants it, with the archive.

    Raises:
        SpecError: the spec is wrong, the script is missing, or the code cannot be packed.
    """
    spec = as_spec(spec)
    if spec.code:
        return spec, None
    script = Path(os.path.abspath(spec.script))  # noqa: PTH100 - links stay links
    if not spec.script or not script.is_file():
        raise SpecError(
            f"There is no script '{spec.script}'." if spec.script else "No script was named.",
            remedy=f"Name the path of a training script (looked in '{Path.cwd()}').",
        )
    folder = Path(os.path.abspath(code_dir or script.parent))  # noqa: PTH100
    if not script.is_relative_to(folder):
        raise SpecError(
            f"The script '{spec.script}' is not inside the code folder '{folder}'.",
            remedy="Name a --code-dir (code_dir= in Python) that holds the script.",
        )
    archive = pack(folder)
    inside = script.relative_to(folder).as_posix()
    return spec.model_copy(update={"script": inside, "code": archive.sha256}), archive


def as_spec(spec: JobSpec | Mapping[str, Any]) -> JobSpec:
    """Give data as a spec.

    Raises:
        SpecError: names the first wrong field.
    """
    return spec if isinstance(spec, JobSpec) else parse_spec(spec)


def body_of(spec: JobSpec) -> dict[str, Any]:
    """Only what the user set, so that an older server is not asked about newer fields."""
    return {"version": spec.version, **spec.model_dump(mode="json", exclude_defaults=True)}


def segment(name: str) -> str:
    """Refuse what cannot be an id before it becomes a part of an address."""
    if not name or not all(letter.isalnum() or letter in "-_." for letter in name):
        raise UnknownSubjectError(
            f"'{name}' is not an id.", remedy="Look it up with `lowtide ls` or `lowtide nodes`."
        )
    return name

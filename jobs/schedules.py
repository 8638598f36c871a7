"""Schedules from Python: make, look at, pause, resume, remove. A part of the SDK."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from jobs.preparing import body_of, prepare, segment
from jobs.recurrence import ScheduleSpec
from jobs.spec import spec_error

if TYPE_CHECKING:
    from jobs.client import Client

View = dict[str, Any]
"""``{"schedule": the row, "next": the next instants in microseconds}``."""


class Schedules:
    """The schedules of a server.

    Every method may raise what ``Client``'s do, and ``UnknownSubjectError`` for a wrong id.
    """

    def __init__(self, client: Client) -> None:
        """Use a client's connection."""
        self._client = client

    def make(
        self,
        spec: ScheduleSpec | Mapping[str, Any],
        *,
        code_dir: str | Path | None = None,
        dry_run: bool = False,
    ) -> View:
        """Pack and upload the job's code, and submit the job at each occurrence from now on.

        Raises:
            SpecError: the schedule or its job is wrong, or it never occurs.
            ConflictError: a schedule of that name exists.
        """
        ready = parse_schedule(spec)
        job, archive = prepare(ready.job, code_dir=code_dir)
        fields = ready.model_dump(mode="json", exclude_defaults=True)
        body = {**fields, "job": body_of(job)}
        if archive is not None and not dry_run and not self._client.has_code(archive.sha256):
            self._post("/v1/schedules", body, dry_run=True)  # what is refused is not uploaded
            self._client.upload(archive)
        return self._post("/v1/schedules", body, dry_run=dry_run)

    def all(self) -> list[View]:
        """List them."""
        views: list[View] = self._client.transport.json("GET", "/v1/schedules")["schedules"]
        return views

    def show(self, schedule_id: str, *, ahead: int = 5) -> View:
        """Give one with its next occurrences."""
        path = f"/v1/schedules/{segment(schedule_id)}"
        view: View = self._client.transport.json("GET", path, params={"ahead": ahead})
        return view

    def pause(self, schedule_id: str) -> View:
        """Let it occur no more until it is resumed."""
        return self._act("POST", f"/v1/schedules/{segment(schedule_id)}/pause")

    def resume(self, schedule_id: str) -> View:
        """Let it occur again; what came in between is not caught up."""
        return self._act("POST", f"/v1/schedules/{segment(schedule_id)}/resume")

    def remove(self, schedule_id: str) -> View:
        """End it; jobs of earlier occurrences go on."""
        return self._act("DELETE", f"/v1/schedules/{segment(schedule_id)}")

    def _act(self, method: str, path: str) -> View:
        view: View = self._client.transport.json(method, path, repeatable=False)
        return view

    def _post(self, path: str, body: Mapping[str, Any], *, dry_run: bool) -> View:
        params = {"dry_run": "true"} if dry_run else {}
        view: View = self._client.transport.json(
            "POST", path, params=params, body=body, repeatable=False
        )
        return view


def parse_schedule(spec: ScheduleSpec | Mapping[str, Any]) -> ScheduleSpec:
    """Build a schedule from YAML, JSON or keyword data.

    Raises:
        SpecError: names the first wrong field.
    """
    if isinstance(spec, ScheduleSpec):
        return spec
    try:
        return ScheduleSpec.model_validate(dict(spec))
    except ValidationError as error:
        raise spec_error(error) from error

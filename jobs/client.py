"""The SDK: submit jobs and look after them from Python. The CLI is made from it.

Four lines are enough::

    from jobs import Client, JobSpec

    job = Client().submit(JobSpec(script="train.py", gpus=4, deadline="6h", work="2h"))
    job.wait()
    print(job.logs(), job.cost)
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from jobs.archive import Archive
from jobs.array_handle import Array
from jobs.errors import UnknownSubjectError
from jobs.handle import Job, decoded
from jobs.preparing import as_spec, body_of, prepare, segment
from jobs.quotes import Quote
from jobs.spec import JobSpec, parse_spec
from jobs.transport import Transport

PATIENCE_S = 5.0
PAGE = 200
CHUNK_BYTES = 1 << 18

Progress = Callable[[int, int], None]
"""Called with (bytes sent, bytes in all)."""


class Client:
    """A connection to a Lowtide server.

    Args:
        server: its URL; default ``LOWTIDE_SERVER``, else the server that ``lowtide up`` started.
        token: default ``LOWTIDE_TOKEN``, else the local server's token.
        patience_s: how long a request is tried again while the server does not answer.

    Every method may raise ``UnreachableError`` (nobody answers), ``AuthError`` (the token is
    refused) and, where it names something, ``UnknownSubjectError``.
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        token: str | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Remember where to go; nothing is sent yet."""
        self.transport = Transport(server=server, token=token, patience_s=patience_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection; the client may be used again."""
        self.transport.close()

    # ------------------------------------------------------------------ jobs

    def submit(
        self,
        spec: JobSpec | Mapping[str, Any],
        *,
        code_dir: str | Path | None = None,
        idempotency_key: str | None = None,
        on_upload: Progress | None = None,
    ) -> Job:
        """Pack the script's folder, upload it unless the server has it, and queue the job.

        Args:
            spec: the job; ``script`` is a path on this machine (or, with ``code`` already set,
                a path inside that archive).
            code_dir: the folder to pack; default: the script's own.
            idempotency_key: the same key gives the same job, however often it is sent.
            on_upload: told about the upload's progress.

        Raises:
            SpecError: the spec is wrong or the script is missing; nothing was sent.
            InfeasibleError: no cluster could ever hold it, or the deadline is out of reach.
        """
        ready, archive = prepare(spec, code_dir=code_dir)
        if archive is not None and not self.has_code(archive.sha256):
            self.check(ready)  # what is refused anyway is not worth an upload
            self.upload(archive, on_upload=on_upload)
        return self.enqueue(ready, idempotency_key=idempotency_key)

    def submit_array(
        self,
        spec: JobSpec | Mapping[str, Any],
        *,
        array: int | Mapping[str, Any] | None = None,
        max_parallel: int | None = None,
        code_dir: str | Path | None = None,
        idempotency_key: str | None = None,
    ) -> Array:
        """Submit jobs that differ by an index or by parameters, all or none.

        Args:
            spec: what they have in common; it may hold ``array`` and ``max_parallel`` itself.
            array: their number, or ``{"rows": [...]}``, or ``{"matrix": {name: [...]}}``.
            max_parallel: how many may be up at once.
            code_dir: as in ``submit``.
            idempotency_key: the same key gives the same array, however often it is sent.

        Raises:
            SpecError, InfeasibleError: as ``submit``; one wrong element refuses all.
        """
        ready = as_spec(spec)
        data = ready.model_dump(mode="json", exclude_defaults=True)
        data |= {} if array is None else {"array": array}
        data |= {} if max_parallel is None else {"max_parallel": max_parallel}
        jobs = self.submit_all(
            [parse_spec(data)], code_dir=code_dir, idempotency_key=idempotency_key
        )
        return Array(self, jobs)

    def submit_all(
        self,
        specs: Iterable[JobSpec | Mapping[str, Any]],
        *,
        code_dir: str | Path | None = None,
        idempotency_key: str | None = None,
    ) -> list[Job]:
        """Submit several jobs, all or none; they may come ``after`` each other by name.

        Raises:
            SpecError, InfeasibleError: as ``submit``; one wrong job refuses all.
            DependencyError: they wait for each other in a circle.
        """
        prepared = [prepare(spec, code_dir=code_dir) for spec in specs]
        ready = [spec for spec, _ in prepared]
        archives = {one.sha256: one for _, one in prepared if one is not None}
        missing = [one for one in archives.values() if not self.has_code(one.sha256)]
        if missing:
            self.check_all(ready)  # what is refused anyway is not worth an upload
        for archive in missing:
            self.upload(archive)
        return self.enqueue_all(ready, idempotency_key=idempotency_key)

    def check_all(self, specs: Iterable[JobSpec]) -> list[dict[str, Any]]:
        """Ask what would become of several jobs; nothing is stored."""
        body = {"jobs": [body_of(spec) for spec in specs]}
        answer = self.transport.json(
            "POST", "/v1/jobs/group", params={"dry_run": "true"}, body=body
        )
        rows: list[dict[str, Any]] = answer["jobs"]
        return rows

    def enqueue_all(
        self, specs: Iterable[JobSpec], *, idempotency_key: str | None = None
    ) -> list[Job]:
        """Queue specs whose code is uploaded already, all or none."""
        key = idempotency_key or secrets.token_hex(16)  # noqa: TID251 - made on a user's machine
        answer = self.transport.json(
            "POST",
            "/v1/jobs/group",
            body={"jobs": [body_of(spec) for spec in specs]},
            headers={"Idempotency-Key": key},
        )
        return [Job(self, row) for row in answer["jobs"]]

    def array(self, array_id: str) -> Array:
        """Find an array by its id."""
        page = self.transport.json("GET", "/v1/jobs", params={"array": segment(array_id)})
        return Array(self, [Job(self, row) for row in page["jobs"]])

    def check(self, spec: JobSpec | Mapping[str, Any]) -> dict[str, Any]:
        """Ask what would become of a spec; nothing is stored.

        Raises:
            SpecError, InfeasibleError: what ``submit`` would raise.
        """
        answer: dict[str, Any] = self.transport.json(
            "POST", "/v1/jobs", params={"dry_run": "true"}, body=body_of(as_spec(spec))
        )
        return answer

    def quote(self, spec: JobSpec | Mapping[str, Any], *, curve: bool = True) -> Quote:
        """Ask what a spec would cost, when it would end and how sure that is; nothing is stored.

        With ``curve``, for other deadlines and for a start at once as well.

        Raises:
            SpecError, InfeasibleError: what ``submit`` would raise.
        """
        params = {"curve": "true" if curve else "false"}
        body = body_of(as_spec(spec))
        told = self.transport.json("POST", "/v1/quotes", params=params, body=body)
        return decoded(told, into=Quote)  # type: ignore[no-any-return]

    def enqueue(self, spec: JobSpec, *, idempotency_key: str | None = None) -> Job:
        """Queue a spec whose code is uploaded already."""
        key = idempotency_key or secrets.token_hex(16)  # noqa: TID251 - made on a user's machine
        answer = self.transport.json(
            "POST", "/v1/jobs", body=body_of(spec), headers={"Idempotency-Key": key}
        )
        return Job(self, answer.get("job", answer))

    def has_code(self, sha256: str) -> bool:
        """Ask whether the server holds an archive."""
        try:
            self.transport.send("HEAD", f"/v1/code/{sha256}")
        except UnknownSubjectError:
            return False
        return True

    def upload(self, archive: Archive, *, on_upload: Progress | None = None) -> None:
        """Upload an archive; doing it twice is harmless."""
        content = _Chunks(archive.data, on_upload or _ignore)
        headers = {"Content-Length": str(archive.size), "Content-Type": "application/gzip"}
        path = f"/v1/code/{archive.sha256}"
        self.transport.send("PUT", path, content=content, headers=headers)

    def jobs(
        self, *, state: str | None = None, team: str | None = None, limit: int | None = None
    ) -> list[Job]:
        """List jobs, newest first; ``limit`` None gives all of them."""
        return self.listed(state=state, team=team, limit=limit)[0]

    def listed(
        self,
        *,
        state: str | None = None,
        team: str | None = None,
        limit: int | None = None,
        folded: bool = False,
    ) -> tuple[list[Job], dict[str, dict[str, int]]]:
        """List jobs and, ``folded``, each array as its first element with counts by state."""
        found: list[Job] = []
        arrays: dict[str, dict[str, int]] = {}
        cursor: str | None = None
        while limit is None or len(found) < limit:
            wanted = PAGE if limit is None else min(PAGE, limit - len(found))
            page = self.transport.json(
                "GET",
                "/v1/jobs",
                params={
                    "state": state,
                    "team": team,
                    "cursor": cursor,
                    "limit": wanted,
                    "folded": "true" if folded else None,
                },
            )
            arrays |= page.get("arrays", {})
            found += [Job(self, row) for row in page["jobs"]]
            cursor = page.get("next")
            if cursor is None:
                break
        return found, arrays

    def job(self, job_id: str) -> Job:
        """Find a job by its id."""
        return Job(self, self.detail(job_id)["job"])

    def detail(self, job_id: str) -> dict[str, Any]:
        """Give a job with its attempts: ``{"job": ..., "attempts": [...]}``."""
        return self._object(f"/v1/jobs/{segment(job_id)}")

    def act(self, job_id: str, verb: str) -> Job:
        """Ask for ``cancel``, ``pause`` or ``resume``, and give the job as it is after it.

        Raises:
            ConflictError: the job is in a state in which that makes no sense.
        """
        return self.act_all(job_id, verb)[0]

    def act_all(self, job_id: str, verb: str) -> list[Job]:
        """Do the same to a job or to every element of an array that is not over."""
        path = f"/v1/jobs/{segment(job_id)}/{verb}"
        answer = self.transport.json("POST", path, repeatable=False)
        return [Job(self, row) for row in answer.get("jobs", [answer["job"]])]

    def events(self, job_id: str) -> dict[str, Any]:
        """Give a job's part of the journal."""
        return self._object(f"/v1/jobs/{segment(job_id)}/events")

    def about(self, job_id: str, part: str) -> dict[str, Any]:
        """Give the ``quote`` of a job's submission beside what came, or ``explain`` it."""
        return self._object(f"/v1/jobs/{segment(job_id)}/{part}")

    # ------------------------------------------------------- money and capacity

    def cost(self, job_id: str | None = None) -> dict[str, Any]:
        """Give one job's statement, or the summary of all jobs, idle time and overhead."""
        return self._object(f"/v1/jobs/{segment(job_id)}/cost" if job_id else "/v1/cost")

    def nodes(self) -> list[dict[str, Any]]:
        """List the nodes that are up."""
        return self._list("/v1/nodes", key="nodes")

    def flavors(self) -> list[dict[str, Any]]:
        """List the kinds of capacity with their prices of now."""
        return self._list("/v1/flavors", key="flavors")

    def evict(self, node_id: str, *, notice: str = "30s") -> dict[str, Any]:
        """Start a game day: a real eviction after ``notice`` ("0s" = none at all)."""
        path = f"/v1/nodes/{segment(node_id)}/evict"
        return self._post(path, {"notice": notice})

    def cordon(self, node_id: str, *, cordoned: bool = True) -> dict[str, Any]:
        """Let a node take no new attempts, or again."""
        path = f"/v1/nodes/{segment(node_id)}/cordon"
        return self._post(path, {"cordoned": cordoned})

    def budgets(self) -> dict[str, Any]:
        """Give the budgets: ``{"now_us": ..., "budgets": [...]}``, amounts in nano-dollars."""
        return self._object("/v1/budgets")

    def apply_budgets(self, changes: Mapping[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """Set and remove budgets, and give what that does; repeating it changes nothing.

        Args:
            changes: ``{"budgets": [...], "remove": [...], "why": "..."}``; docs/budgets.md.
            dry_run: only say what would change.
        """
        answer: dict[str, Any] = self.transport.json(
            "POST", "/v1/budgets", params={"dry_run": dry_run}, body=changes
        )
        return answer

    def audit(self) -> dict[str, Any]:
        """Let the server check its own books."""
        return self._object("/v1/audit")

    def health(self) -> dict[str, Any]:
        """Ask whether the server is well."""
        return self._object("/v1/health")

    # ------------------------------------------------------------------ inside

    def _object(self, path: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.transport.json("GET", path)
        return answer

    def _list(self, path: str, *, key: str) -> list[dict[str, Any]]:
        answer = self.transport.json("GET", path)
        rows: list[dict[str, Any]] = answer[key] if isinstance(answer, dict) else answer
        return rows

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self.transport.json("POST", path, body=body, repeatable=False)
        return answer


class _Chunks:
    """Bytes in pieces, from the start again for each try, as a retried upload needs."""

    def __init__(self, data: bytes, on_upload: Progress) -> None:
        self._data = data
        self._on_upload = on_upload

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self._data), CHUNK_BYTES):
            yield self._data[start : start + CHUNK_BYTES]
            self._on_upload(min(start + CHUNK_BYTES, len(self._data)), len(self._data))


def _ignore(_sent: int, _total: int) -> None:
    """Nobody wants to know."""

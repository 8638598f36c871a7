"""``submit``: check, pack, upload, queue, and say where the job goes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from scheduler.cli import options as o
from scheduler.cli.formats import counted
from scheduler.cli.output import FAILED, OK, Json, client, console, print_json

if TYPE_CHECKING:
    from pathlib import Path

    from jobs.archive import Archive
    from jobs.client import Client
    from jobs.handle import Job
    from jobs.spec import JobSpec

DECISION_TRIES = 20
DECISION_PAUSE_S = 0.1
WAIT_PAUSE_S = 0.5
BAR_BYTES = 4 << 20  # uploads above this get a progress bar
NOT_FIELDS = ("code_dir", "from_file", "wait", "dry_run", "as_json")


def submit(
    script: o.Script = None,
    args: o.Args = None,
    nodes: o.Nodes = None,
    gpus: o.Gpus = None,
    processes: o.Processes = None,
    cpus: o.Cpus = None,
    memory_gb: o.MemoryGb = None,
    market: o.MarketList = None,
    accelerator: o.AcceleratorList = None,
    region: o.RegionList = None,
    deadline: o.Deadline = None,
    work: o.Work = None,
    budget: o.Budget = None,
    max_runtime: o.MaxRuntime = None,
    checkpoint_interval: o.CheckpointInterval = None,
    name: o.Name = None,
    team: o.Team = None,
    tag: o.TagList = None,
    env: o.EnvList = None,
    priority: o.Priority = None,
    max_failures: o.MaxFailures = None,
    max_evictions: o.MaxEvictions = None,
    retry_on: o.RetryOnList = None,
    array: o.ArrayCount = None,
    max_parallel: o.MaxParallel = None,
    after: o.AfterList = None,
    on_failure: o.OnFailure = None,
    code_dir: o.CodeDir = None,
    from_file: o.FromFile = None,
    wait: o.Wait = False,
    dry_run: o.DryRun = False,
    as_json: Json = False,
) -> int:
    """Submit a training job: pack the code, upload it, queue it.

    lowtide submit train.py --gpus 1 --work 2h --deadline 6h -- --epochs 10

    lowtide submit train.py --array 20 --max-parallel 4 -- --seed {index}
    """
    given = {key: value for key, value in locals().items() if key not in NOT_FIELDS}
    from scheduler.cli.wishes import specs_from

    specs = specs_from(given, file=from_file)
    return _submit(specs, code_dir=code_dir, wait=wait, dry_run=dry_run, as_json=as_json)


def _submit(
    specs: list[JobSpec], *, code_dir: Path | None, wait: bool, dry_run: bool, as_json: bool
) -> int:
    if len(specs) > 1 or specs[0].array is not None:
        from scheduler.cli.submitting_many import submit_many

        return submit_many(specs, code_dir=code_dir, wait=wait, dry_run=dry_run, as_json=as_json)
    from jobs.preparing import prepare

    spec, archive = prepare(specs[0], code_dir=code_dir)
    with client() as server:
        if dry_run:
            return _checked(server, spec, archive=archive, as_json=as_json)
        return _sent(server, spec, archive=archive, wait=wait, as_json=as_json)


def _sent(
    server: Client, spec: JobSpec, *, archive: Archive | None, wait: bool, as_json: bool
) -> int:
    quote = _quoted(server, spec, as_json=as_json)
    upload = _upload(server, spec, archive=archive, as_json=as_json)
    job = server.enqueue(spec)
    if not as_json:
        print(f"job {job.id} ({spec.label}) is in the queue", flush=True)
    last = _follow(job, as_json=as_json) if wait else _decision(job)
    if as_json:
        print_json({"job": job.data, "upload": upload, "quote": quote})
    elif not wait:
        print(f"  {last}\n  follow it: lowtide logs -f {job.id}")
    return FAILED if wait and job.data["state"] != "succeeded" else OK


def _quoted(server: Client, spec: JobSpec, *, as_json: bool) -> Any:  # noqa: ANN401 - JSON data
    """Say what it will cost before anything is spent, and give it as data."""
    from jobs.codec import to_data
    from scheduler.cli.quoting import before_submit

    found = before_submit(server, spec)
    if found is None:
        return None
    if not as_json:
        from scheduler.quote_words import summary

        print("\n".join(summary(found)), flush=True)
    return to_data(found)


def _checked(server: Client, spec: JobSpec, *, archive: Archive | None, as_json: bool) -> int:
    answer = server.check(spec)
    if as_json:
        print_json({**answer, "upload": _figures(archive, uploaded=False)})
        return OK
    print(f"{spec.label} would be accepted; nothing was sent")
    if archive is not None:
        print(f"  code: {_size(archive)}")
    sentence = answer.get("job", answer).get("sentence")
    if sentence:
        print(f"  {sentence}")
    return OK


def _upload(
    server: Client, spec: JobSpec, *, archive: Archive | None, as_json: bool
) -> dict[str, Any] | None:
    if archive is None:
        return None
    known = server.has_code(archive.sha256)
    if not known:
        server.check(spec)  # what is refused anyway is not worth an upload
        if as_json or archive.size < BAR_BYTES:
            server.upload(archive)
        else:
            _upload_with_bar(server, archive)
    if not as_json:
        done = "the server has it already" if known else "uploaded"
        print(f"code: {_size(archive)}, {done}", flush=True)
    return _figures(archive, uploaded=not known)


def _upload_with_bar(server: Client, archive: Archive) -> None:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("uploading"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("upload", total=archive.size)
        server.upload(archive, on_upload=lambda sent, _: bar.update(task, completed=sent))


def _size(archive: Archive) -> str:
    from jobs.archive import show_bytes

    return f"{counted(archive.files, 'file')}, {show_bytes(archive.size)} packed"


def _figures(archive: Archive | None, *, uploaded: bool) -> dict[str, Any] | None:
    if archive is None:
        return None
    return {
        "sha256": archive.sha256,
        "bytes": archive.size,
        "files": archive.files,
        "unpacked_bytes": archive.unpacked_bytes,
        "uploaded": uploaded,
    }


def _decision(job: Job) -> str:
    """Give the scheduler a moment to decide, and say what it decided."""
    for _ in range(DECISION_TRIES):
        if job.refresh().data["reason"] != "new":
            return _sentence(job.data)
        threading.Event().wait(DECISION_PAUSE_S)
    return f"it has not been looked at yet: lowtide explain {job.id}"


def _follow(job: Job, *, as_json: bool) -> str:
    """Stay until the end, over restarts of the server; say each change once."""
    from jobs.handle import OUTAGE_S

    last = ""
    while True:
        ended = job.refresh(patience_s=OUTAGE_S).ended
        sentence = _sentence(job.data)
        if sentence != last and not as_json:
            print(f"  {sentence}", flush=True)
        last = sentence
        if ended:
            return last
        threading.Event().wait(WAIT_PAUSE_S)


def _sentence(data: dict[str, Any]) -> str:
    why = f"{data['reason']}: {data['sentence']}" if data["sentence"] else data["reason"]
    return f"{data['state']}, {why}"

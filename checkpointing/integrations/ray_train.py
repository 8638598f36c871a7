"""Ray Train: a session in `train_loop_per_worker` that finds its store in the run's own storage.

    def train_loop_per_worker(config):
        ...
        with ray_session(model=model, optimizer=optimizer, loader=loader) as session:
            for step in session.steps(total):
                ...

    TorchTrainer(train_loop_per_worker, run_config=RunConfig(
        storage_path="s3://bucket/runs", name="nightly",
        failure_config=FailureConfig(max_failures=3))).fit()

A worker that dies is started again by Ray Train and goes on from the newest verified commit, with
the same bytes; so does a new run of the same name. Nothing is handed to `ray.train.report`, whose
checkpoints nobody verifies; call it for metrics alone.
"""

from __future__ import annotations

from typing import Any

from ray import train

from checkpointing.errors import CheckpointError
from checkpointing.session import Session


def ray_session(
    *,
    save_to: str | None = None,
    **given: Any,  # noqa: ANN401 - whatever Session takes
) -> Session:
    """Return a `Session` that saves below the run's storage, or to `save_to`.

    Every worker must call it, after `TorchTrainer` has set up torch.distributed (it has when the
    loop begins). Inside Lowtide the job's own place wins. Raises `CheckpointError` for a storage
    that has no address of ours.
    """
    return Session(save_to=run_store() if save_to is None else save_to, **given)


def run_store() -> str:
    """Return where the checkpoints of the current Ray Train run live."""
    storage = train.get_context().get_storage()
    return address(storage.storage_filesystem.type_name, path=storage.experiment_fs_path)


def address(kind: str, *, path: str) -> str:
    """Return our address for a folder of a run on a file system that pyarrow calls `kind`."""
    if kind == "local":
        return f"{path}/lowtide"
    if kind == "s3":
        return f"s3://{path}/lowtide"
    raise CheckpointError(
        "trainer-unsupported",
        cause=f"The run's storage at {path} is a {kind} file system, which has no address of ours.",
        remedy="Pass save_to= with s3://BUCKET/PREFIX or a folder that every worker reaches.",
    )

"""What a training child finds in its environment."""

from __future__ import annotations

from pathlib import Path

from cluster.attempt_worker_child import child_environment
from cluster.worker_wire import Go, WorkerOrder
from jobs.spec import JobSpec

INHERITED = {
    "PATH": "/bin",
    "PYTHONPATH": "/inherited",
    "RAY_AUTH_TOKEN": "secret",
    "LOWTIDE_NODE": "mark",
    "LOWTIDE_NODE_DIR": "/disk",
    "OMP_NUM_THREADS": "64",
    "AWS_ENDPOINT_URL": "http://s3",
}


def environment(rank: int = 3, host: str = "127.0.1.5", **fields: object) -> dict[str, str]:
    """The environment of a rank of two nodes with two processes each."""
    spec = JobSpec.model_validate({"script": "t.py", "nodes": 2, "processes": 2, **fields})
    order = WorkerOrder(
        attempt_id="j/4",
        job_id="j",
        epoch=4,
        index=1,
        nodes=2,
        spec=spec,
        storage="s3://bucket/root",
        agent_host="h",
        agent_port=1,
        token="secret",
    )
    return child_environment(
        order,
        rank=rank,
        go=Go(host=host, port=29_500),
        control=Path("/tmp/control"),
        folder=Path("/code"),
        inherited=INHERITED,
    )


def test_ours_win_over_the_users_and_the_users_over_the_machines() -> None:
    """Nobody can talk a child into another rank or epoch."""
    found = environment(env={"RANK": "9", "LOWTIDE_EPOCH": "99", "PATH": "/mine"})
    assert (found["RANK"], found["LOCAL_RANK"], found["WORLD_SIZE"]) == ("3", "1", "4")
    assert (found["LOWTIDE_EPOCH"], found["LOWTIDE_ATTEMPT_ID"]) == ("4", "j/4")
    assert found["PATH"] == "/mine"
    assert found["AWS_ENDPOINT_URL"] == "http://s3"


def test_rays_secret_stays_with_ray_and_the_nodes_mark_goes_along() -> None:
    """The mark lets a node's end find the child; the token would let it command the cluster."""
    found = environment()
    assert "RAY_AUTH_TOKEN" not in found
    assert found["LOWTIDE_NODE"] == "mark"


def test_the_code_leads_the_import_path() -> None:
    """The user's own modules shadow whatever is installed."""
    found = environment(env={"PYTHONPATH": "/user"})
    assert found["PYTHONPATH"] == "/code:/user:/inherited"


def test_threads_follow_the_cpus_that_were_asked_for() -> None:
    """Two ranks on eight cores take four each, unless the user says otherwise."""
    assert environment(cpus=8)["OMP_NUM_THREADS"] == "4"
    assert environment(env={"OMP_NUM_THREADS": "7"})["OMP_NUM_THREADS"] == "7"


def test_gloo_uses_loopback_only_when_the_gang_meets_there() -> None:
    """Real nodes keep torch's own choice of interface."""
    assert environment()["GLOO_SOCKET_IFNAME"] in {"lo", "lo0"}
    assert "GLOO_SOCKET_IFNAME" not in environment(host="10.0.0.7")


def test_the_save_interval_is_passed_on_and_zero_means_continuously() -> None:
    """On the wire 0 would mean the automatic cadence."""
    assert "LOWTIDE_CHECKPOINT_INTERVAL_MS" not in environment()
    assert environment(checkpoint_interval="2m")["LOWTIDE_CHECKPOINT_INTERVAL_MS"] == "120000"
    assert environment(checkpoint_interval=0)["LOWTIDE_CHECKPOINT_INTERVAL_MS"] == "1"

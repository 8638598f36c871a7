"""Survival: kill -9 the server, the agent or a training child; nothing is lost or doubled.

One real installation serves the module. The tests build on its being healthy again after each
kill, which is part of what they prove.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.installation import Installation

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

STEPS = 200
PACE_S = 0.05


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Run a server, an agent and a local cluster; end them whatever happens."""
    installation = Installation(Path(tmp_path_factory.mktemp("lt")))
    try:
        installation.start("serve")
        installation.start("agent")
        yield installation
    finally:
        installation.close()


def test_training_goes_on_while_the_server_is_away(place: Installation) -> None:
    """The server is killed in the middle; the same process trains on, in the same attempt."""
    job_id = place.submit(steps=STEPS, pace=PACE_S)
    place.until_step(job_id, 30)
    (before,) = place.children(job_id)
    place.kill("serve")
    assert before.is_running()
    place.start("serve")
    detail = place.until_ended(job_id)
    assert detail["job"]["state"] == "succeeded"
    assert [attempt["state"] for attempt in detail["attempts"]] == ["succeeded"]
    assert place.digest(job_id) == place.plain_digest(STEPS)


def test_a_killed_agent_finds_its_training_again(place: Installation) -> None:
    """The agent is killed and started again; nothing restarts and the end is reported."""
    job_id = place.submit(steps=STEPS, pace=PACE_S)
    place.until_step(job_id, 30)
    (before,) = place.children(job_id)
    place.kill("agent")
    assert before.is_running()
    place.start("agent")
    detail = place.until_ended(job_id)
    assert [attempt["state"] for attempt in detail["attempts"]] == ["succeeded"]
    assert place.digest(job_id) == place.plain_digest(STEPS)


def test_a_killed_child_is_tried_again_from_its_restore_point(place: Installation) -> None:
    """The user's process dies: that is a failure, and the second attempt does not start over."""
    job_id = place.submit(steps=STEPS, pace=PACE_S, max_failures=1)
    place.until_step(job_id, 60)
    (child,) = place.children(job_id)
    child.kill()
    detail = place.until_ended(job_id)
    assert detail["job"]["failures"] == 1
    assert [attempt["state"] for attempt in detail["attempts"]] == ["failed", "succeeded"]
    assert detail["attempts"][1]["first_step"] > 0
    assert place.digest(job_id) == place.plain_digest(STEPS)


def test_everything_dies_at_once(place: Installation) -> None:
    """Server and agent are killed together; started again, the job still ends once."""
    job_id = place.submit(steps=STEPS, pace=PACE_S)
    place.until_step(job_id, 30)
    place.kill("serve")
    place.kill("agent")
    place.start("serve")
    place.start("agent")
    detail = place.until_ended(job_id)
    assert detail["job"]["state"] == "succeeded"
    assert len(detail["attempts"]) == 1
    ends = [one for one in place.client.events(job_id)["events"] if "job-ended" in str(one)]
    assert len(ends) == 1


def test_an_evicted_job_ends_with_the_same_bytes(place: Installation) -> None:
    """With notice it saves and loses nothing; without notice it goes on from its restore point."""
    for notice in ("5s", "0s"):
        job_id = place.submit(steps=STEPS, pace=PACE_S)
        place.until_step(job_id, 60)
        place.client.evict(place.detail(job_id)["attempts"][0]["node_ids"][0], notice=notice)
        detail = place.until_ended(job_id)
        states = [attempt["state"] for attempt in detail["attempts"]]
        assert states == (["evicted"] if notice == "5s" else ["lost"]) + ["succeeded"]
        assert detail["job"]["failures"] == 0
        lost = place.client.cost(job_id)["classes"]["lost"]["gpu_ms"]
        assert (lost == 0) == (notice == "5s")
        assert place.digest(job_id) == place.plain_digest(STEPS)


def test_the_books_are_clean_after_all_of_it(place: Installation) -> None:
    """Journal, rows and ledger agree, and jobs + idle + overhead = the bill."""
    assert place.client.audit()["findings"] == []
    assert place.client.cost()["difference_usd_nanos"] == 0

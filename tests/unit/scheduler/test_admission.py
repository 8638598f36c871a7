"""What is refused at submit, and who is held in a cycle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from jobs.errors import InfeasibleError
from jobs.reasons import Reason
from scheduler.admission import check_admissible
from scheduler.decide import decide
from tests.unit.scheduler.worlds import EXACT, S, a_flavor, a_job, a_world, an_offer

SPOT = a_flavor("spot-a")
SURE = a_flavor("sure", usd=4, memory_gb=64)
OFFERS = (an_offer(SPOT), an_offer(SURE))


def refusal(offers: tuple = OFFERS, **spec: Any) -> InfeasibleError:
    """Submit what must be refused."""
    with pytest.raises(InfeasibleError) as caught:
        check(offers, **spec)
    return caught.value


def check(offers: tuple = OFFERS, *, margin_ms: int = 0, **spec: Any) -> None:
    """Submit at 0."""
    settings = replace(EXACT, margin_ms=margin_ms)
    asked = a_job("a", **spec).spec
    check_admissible(asked, submitted_us=0, offers=offers, now_us=0, settings=settings)


@pytest.mark.parametrize(
    ("spec", "cause"),
    [
        ({"gpus": 8}, "gpus=8 is more than its 1"),
        ({"cpus": 99}, "cpus=99 is more than its 8"),
        ({"nodes": 5}, "nodes=5 is more than its limit of 4"),
        ({"gpus": 0}, "it is a GPU node and the job wants none"),
        ({"accelerators": ["H100"]}, "accelerators excludes its 'V100'"),
        ({"regions": ["west"]}, "regions excludes its 'east'"),
        ({"markets": ["reserved"]}, "markets excludes its 'spot'"),
    ],
)
def test_what_nothing_could_ever_hold_is_refused(spec: dict, cause: str) -> None:
    """The cause names the resource and the flavor that comes nearest."""
    error = refusal(**spec)
    assert error.cause.endswith(f"spot-a comes nearest, but {cause}.")
    assert error.remedy


def test_the_nearest_flavor_is_one_that_is_big_enough() -> None:
    """A rule can be changed, so a big node that a rule excludes comes nearer than a small one."""
    big = a_flavor("sure-big", gpu_milli=8_000, region="west")
    error = refusal((*OFFERS, an_offer(big)), gpus=8, regions=["east"], markets=["on-demand"])
    assert "sure-big comes nearest, but regions excludes its 'west'." in error.cause
    error = refusal((*OFFERS, an_offer(big)), gpus=8, regions=["east"], cpus=9)
    assert "cpus=9 is more than its 8 and regions excludes its 'west'." in error.cause


def test_no_flavor_at_all_is_said_so() -> None:
    """An empty configuration has its own remedy."""
    assert "No flavor is configured" in refusal(()).cause


def test_an_impossible_deadline_is_refused_with_the_earliest_finish_and_its_price() -> None:
    """Two hours, a minute of boot and two of set-up end at 02:03 for 4 $/h."""
    error = refusal(work="2h", deadline="2h", setup="2m")
    assert "earliest finish is 1 Jan 02:03 UTC, on sure, for about $8.20." in error.cause
    check(work="2h", deadline="2h3m", setup="2m")
    assert "02:03" in refusal(work="2h", deadline="2h3m", setup="2m", margin_ms=1_000).cause


def test_saves_count_and_spot_alone_must_do_where_only_spot_is_allowed() -> None:
    """Each save of 60 s stops the training; spot's own boot is what a spot-only job has."""
    spec: dict[str, Any] = {
        "work": "2h",
        "save": "60s",
        "checkpoint_interval": "1h",
        "markets": ["spot"],
    }
    check(**spec, deadline="2h3m")
    assert "on spot-a" in refusal(**spec, deadline="2h2m").cause


def test_a_paused_job_waits_for_its_owner() -> None:
    """And nothing but the owner can change that."""
    plan = decide(a_world(a_job("a", row={"held": True}), offers=OFFERS))
    assert [one.reason for one in plan.defers] == [Reason.PAUSED]
    assert plan.wake_at_us is None


def test_a_failed_script_is_tried_again_after_a_pause() -> None:
    """The pause runs from its return into the queue."""
    job = a_job("a", row={"reason": Reason.RETRY_AFTER_FAILURE, "queued_us": 5 * S})
    plan = decide(a_world(job, now_s=5, offers=OFFERS))
    assert [one.reason for one in plan.defers] == [Reason.RETRY_AFTER_FAILURE]
    assert plan.wake_at_us == 6 * S
    assert decide(a_world(job, now_s=6, offers=OFFERS)).places


def test_a_job_that_lost_its_flavor_says_so() -> None:
    """The configuration changed after it was accepted."""
    plan = decide(a_world(a_job("a", gpus=8), offers=OFFERS))
    assert [one.reason for one in plan.defers] == [Reason.NO_FLAVOR]

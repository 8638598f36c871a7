"""The arithmetic of the calibration: shares inside, bias and pinball loss."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.quote_calibration import Check, Part, figures, report, write_docs

ZONE = Part(setting="s", tuned=True, late=False)


def a_check(p50: float, p95: float | None, end: float, *, part: Part = ZONE) -> Check:
    """A job of two hours of work that was to end then, and ended then; hours."""
    return Check(
        part=part,
        work_h=2,
        wait_h=(0, 0, 0),
        finish_h=(p50, p95, end),
        usd=(1, 2, 1.5),
        naive_h=2,
        naive_usd=1,
        risk=0,
        missed=False,
        cpu_s=0.1,
    )


def test_shares_are_of_the_finishes() -> None:
    """One of three is above P95, one of three inside P50; an open P95 holds for anything."""
    found = figures([a_check(4, 5, 3), a_check(4, 5, 6), a_check(4, None, 99)])
    assert found["finish_inside_p95"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["finish_above_p95"] == pytest.approx(1 / 3, abs=1e-4)
    assert found["finish_inside_p50"] == pytest.approx(1 / 3, abs=1e-4)
    assert (found["cost_inside_p95"], found["cost_inside_p50"]) == (1, 0)


def test_pinball_losses_are_in_units_of_the_work() -> None:
    """An hour late of two hours' work costs 0.95 halves, an hour early 0.05 of one."""
    assert figures([a_check(4, 5, 6)])["pinball_p95"] == pytest.approx(0.475)
    assert figures([a_check(4, 5, 4)])["pinball_p95"] == pytest.approx(0.025)
    assert figures([a_check(4, 5, 6)])["finish_bias_p50"] == pytest.approx(1)


def test_the_tuned_half_is_apart(tmp_path: Path) -> None:
    """What was tuned on is never in the held-out row, and both are written."""
    late = Part(setting="s", tuned=True, late=True)
    parts = report([a_check(4, 5, 3), a_check(4, 5, 6, part=late)])
    assert (parts["tuned"]["jobs"], parts["held out"]["jobs"]) == (1, 1)
    path = tmp_path / "docs.md"
    write_docs({"settings": "a test", "figures": parts}, path=path)
    text = path.read_text(encoding="utf-8")
    assert "| held out | 1 | 0.000 |" in text
    assert "| tuned | 1 | 1.000 |" in text

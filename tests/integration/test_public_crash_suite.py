r"""The public crash suite, ckpt-chaos, against our plain loop and our trainers.

It kills a real training at its file operations, starts it again and judges: did it resume, with
equal weights? Its hooks see the process that it starts and no other, so the upload is done in a
thread of that process here; `test_file_crashes` and `test_checkpoint_crashes` harm the uploader's
own operations. Its modes: `before` (killed there), `term` (told to leave there, as by a drain) and
`unsynced` (killed, and all that was not synced is lost).

Here are a few crash points of each training; all of them, for KIND plain, hugging_face, lightning:

    LOWTIDE_UPLOADER=thread PYTHONPATH=. ckpt-chaos run --modes before,term,unsynced \
        --max-points 300 --result-file '{out}/digest.txt' --step-regex 'restored (\d+)' \
        -- python tests/integration/chaos_target.py KIND '{out}'
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path

import pytest
from ckpt_chaos.byo import run_byo

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(__file__).with_name("chaos_target.py")


@pytest.fixture(autouse=True)
def _in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the suite see our writes."""
    monkeypatch.setenv("LOWTIDE_UPLOADER", "thread")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.integration
@pytest.mark.timeout(400)  # a training starts six to ten times
@pytest.mark.parametrize(
    ("kind", "modes", "points"),
    [
        ("plain", ("before", "term"), 4),
        ("hugging_face", ("before",), 3),
        ("lightning", ("before",), 2),
    ],
)
def test_every_crash_ends_with_equal_weights(
    tmp_path: Path, kind: str, modes: tuple[str, ...], points: int
) -> None:
    """Each verdict is PASS: it resumed, from the newest commit, to the uninterrupted weights."""
    rows = run_byo(
        [sys.executable, str(TARGET), kind, "{out}"],
        None,
        tmp_path / "work",
        jobs=2,
        timeout=180,
        max_points=points,
        modes=modes,
        result_file="{out}/digest.txt",
        step_regex=r"restored (\d+)",
    )
    assert Counter(row.verdict for row in rows) == {"PASS": points + 1}
    # Told to leave in its last save, a training ends well; killed, never.
    assert all(row.crashed for row in rows if row.label.endswith("[before]"))
    second_attempts = [said(tmp_path / f"work/pt_{n:03}") for n in range(1, points + 1)]
    assert all(found == restored for found, restored in second_attempts)
    assert max(found for found, _ in second_attempts) > 0


def said(folder: Path) -> tuple[int, int]:
    """The newest commit that the second attempt found, and the step that it went on from."""
    printed = json.loads((folder / "result.json").read_text())["resume_tail"]
    found = re.search(r"found (\d+)", printed)
    restored = re.search(r"restored (\d+)", printed)
    assert found is not None, printed
    assert restored is not None, printed
    return int(found[1]), int(restored[1])

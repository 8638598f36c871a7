"""A training pays for the trainer that it uses, and for no other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
TRAINERS = ("accelerate", "lightning", "ray", "transformers")


def test_a_session_imports_no_trainer() -> None:
    """A plain loop's process holds none of the trainers, though all are installed here."""
    code = (
        "import sys, checkpointing, checkpointing.session;"
        f"print([name for name in {TRAINERS!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"

"""The examples of the guide, as programs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def examples() -> dict[str, list[str]]:
    """The code blocks of docs/checkpoints.md by the heading that they stand under."""
    text = (ROOT / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    found = {}
    for section in text.split("\n## ")[1:]:
        blocks = re.findall(r"^```python\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
        if blocks:
            found[section.partition("\n")[0]] = blocks
    return found


def run_example(code: str, *, folder: Path) -> str:
    """Run a program in `folder` and return what it printed."""
    script = folder / "example.py"
    script.write_text(code, encoding="utf-8")
    variables = {k: v for k, v in os.environ.items() if not k.startswith("LOWTIDE_")}
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=folder,
        env={**variables, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout

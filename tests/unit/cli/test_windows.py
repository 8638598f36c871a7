"""`lowtide windows` without a server: what it refuses and how it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.conftest import Lowtide


@pytest.mark.parametrize("words", [("windows",), ("windows", "apply")])
def test_windows_documents_its_ends_and_has_json(lowtide: Lowtide, words: tuple[str, ...]) -> None:
    """Both ways of calling it say how they may end."""
    told = lowtide(*words, "--help").out
    assert "--json" in told
    assert "3  the server cannot be reached" in told


def test_a_file_that_cannot_be_read_is_named(lowtide: Lowtide, tmp_path: Path) -> None:
    """Bad input ends with 2 before any server is asked."""
    ended = lowtide("windows", "apply", "-f", str(tmp_path / "no.yaml"), "--dry-run")
    assert ended.code == 2
    assert "no.yaml' cannot be read" in ended.err

"""What stays out of a code archive: git's rules, and what is never code."""

from __future__ import annotations

from pathlib import Path

from pathspec import GitIgnoreSpec

NEVER = frozenset(
    {".git", ".hg", ".svn", ".venv", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache"}
)
"""Names that are left out wherever they stand."""


class Ignored:
    """Git's verdict on paths, from every ``.gitignore`` between the repository and a path.

    Call ``enter`` on a folder before asking ``covers`` about what it holds.
    """

    def __init__(self, folder: Path) -> None:
        """Read the ``.gitignore`` files above ``folder``, up to the repository's root."""
        self._specs: dict[Path, GitIgnoreSpec] = {}
        for parent in _up_to_repository(folder):
            self.enter(parent)

    def enter(self, folder: Path) -> None:
        """Read a folder's own ``.gitignore``, if it has one."""
        rules = folder / ".gitignore"
        if rules.is_file():
            lines = rules.read_text(encoding="utf-8", errors="replace").splitlines()
            self._specs[folder] = GitIgnoreSpec.from_lines(lines)

    def covers(self, path: Path, *, is_dir: bool) -> bool:
        """Tell whether a path stays out; the nearest ``.gitignore`` that has a say decides."""
        if path.name in NEVER or (is_dir and (path / "pyvenv.cfg").is_file()):
            return True
        for folder in path.parents:
            if folder in self._specs:
                name = path.relative_to(folder).as_posix() + ("/" if is_dir else "")
                verdict = self._specs[folder].check_file(name).include
                if verdict is not None:
                    return verdict
        return False


def _up_to_repository(folder: Path) -> list[Path]:
    """Give the folders above ``folder`` whose rules apply: none outside a repository."""
    if (folder / ".git").exists():
        return []
    above: list[Path] = []
    for parent in folder.parents:
        above.append(parent)
        if (parent / ".git").exists():
            return above
    return []

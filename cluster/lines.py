"""Cuts a stream of bytes into lines, with a limit on how long one may be."""

from __future__ import annotations

LIMIT = 4 << 20


class LineReader:
    """Feed it what arrives; it gives complete lines."""

    def __init__(self, *, limit: int = LIMIT) -> None:
        """Start with nothing; a line longer than ``limit`` bytes is an error."""
        self._limit = limit
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Give the lines that ``data`` completes.

        Raises:
            ValueError: a line grew beyond the limit: the other side is none of ours.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > self._limit:
            raise ValueError(f"a line of more than {self._limit} bytes")
        return lines

"""HTTP/1.1 as far as a proxy needs it: heads byte for byte, bodies block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

_BLOCK_BYTES: Final = 2**18
_NO_BODY: Final = frozenset({204, 304})


class LostError(Exception):
    """A connection ended where it should not."""


@dataclass(frozen=True, slots=True)
class Head:
    """Start line and headers, byte for byte."""

    lines: tuple[bytes, ...]

    @property
    def status(self) -> int:
        """An answer's."""
        return int(self.lines[0].split()[1])

    @property
    def method(self) -> str:
        """A request's."""
        return self.lines[0].split()[0].decode()

    @property
    def raw(self) -> bytes:
        """All of it, the empty line included."""
        return b"".join(self.lines) + b"\r\n"

    def header(self, name: str) -> str:
        """Return a header's value, "" if it is not there; `name` in small letters."""
        for line in self.lines[1:]:
            found, _, value = line.decode("latin-1").partition(":")
            if found.lower() == name:
                return value.strip()
        return ""

    def without(self, name: str) -> bytes:
        """Return all of it but one header."""
        kept = [line for line in self.lines if not line.lower().startswith(name.encode() + b":")]
        return b"".join(kept) + b"\r\n"

    def operation(self) -> tuple[str, str]:
        """Return what a request asks of S3 and of which key: (`LIST`, prefix) for a listing."""
        parts = urlsplit(self.lines[0].split()[1].decode())
        query = parse_qs(parts.query, keep_blank_values=True)
        if "list-type" in query:
            return "LIST", query.get("prefix", [""])[0]
        return self.method, unquote(parts.path).lstrip("/").partition("/")[2]


def read_head(stream: BufferedIOBase) -> Head | None:
    """Read up to the empty line; None where the connection ended before it began."""
    lines: list[bytes] = []
    while (line := stream.readline()) not in {b"\r\n", b""}:
        lines.append(line)
    return Head(tuple(lines)) if lines else None


def blocks_of(stream: BufferedIOBase, head: Head) -> Iterator[bytes]:
    """Yield the body as it comes, chunked framing included."""
    if head.header("transfer-encoding").lower() == "chunked":
        yield from _chunked(stream)
        return
    length = head.header("content-length")
    left = int(length) if length else 0
    while left:
        found = stream.read(min(left, _BLOCK_BYTES))
        if not found:
            raise LostError
        left -= len(found)
        yield found


def body_of(answers: BufferedIOBase, head: Head, *, asked: Head) -> Iterator[bytes]:
    """Yield the body of the answer to `asked`, which may be of a kind that has none."""
    if asked.method == "HEAD" or head.status in _NO_BODY:
        return iter(())
    return blocks_of(answers, head)


def consume(blocks: Iterator[bytes]) -> None:
    """Read to the end for the reading's sake."""
    for _ in blocks:
        pass


def _chunked(stream: BufferedIOBase) -> Iterator[bytes]:
    while True:
        size = stream.readline()
        if not size:
            raise LostError
        yield size
        if int(size.split(b";")[0], 16) == 0:
            break
        yield stream.read(int(size.split(b";")[0], 16) + 2)
    while (trailer := stream.readline()) not in {b"\r\n", b""}:
        yield trailer
    yield b"\r\n"


def half_of(blocks: Iterator[bytes], *, head: Head) -> Iterator[bytes]:
    """Yield the first half of a body of known length (of an unknown one, the first block)."""
    left = int(head.header("content-length") or 0) // 2
    for block in blocks:
        yield block[: left or len(block)]
        left -= len(block)
        if left <= 0:
            return


def flipped(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the blocks with one bit in the middle of the first turned over."""
    for number, block in enumerate(blocks):
        spoilt = bytearray(block)
        if number == 0:
            spoilt[len(block) // 2] ^= 1
        yield bytes(spoilt)


def read_answer_head(answers: BufferedIOBase) -> Head:
    """Read the server's final head; what it says before it (1xx) is left out."""
    while (head := read_head(answers)) is not None:
        if head.status >= 200:
            return head
    raise LostError

"""Logs are kept at the agent first and reach the server once, whatever is repeated or away."""

from __future__ import annotations

from pathlib import Path

from cluster.agent_logs import LogBook


class Sink:
    """A server's side: refuses while away, never takes a byte twice."""

    def __init__(self) -> None:
        """Start empty and reachable."""
        self.data: dict[tuple[str, int], bytes] = {}
        self.away = False

    def send_log(self, attempt_id: str, *, rank: int, offset: int, data: bytes) -> int | None:
        """Take a piece that continues what is here."""
        if self.away:
            return None
        have = self.data.get((attempt_id, rank), b"")
        if offset == len(have):
            self.data[attempt_id, rank] = have + data
        return len(self.data.get((attempt_id, rank), b""))


def test_pieces_are_kept_once_and_in_order(tmp_path: Path) -> None:
    """A worker that repeats itself after a reconnection adds nothing twice, a gap is not filled."""
    book = LogBook(tmp_path)
    assert book.append("j/1", rank=0, offset=0, data=b"hello ") == 6
    assert book.append("j/1", rank=0, offset=3, data=b"lo world") == 11
    assert book.append("j/1", rank=0, offset=40, data=b"later") == 11
    assert next(tmp_path.glob("*.log")).read_bytes() == b"hello world"


def test_everything_arrives_after_the_server_was_away(tmp_path: Path) -> None:
    """And the file goes once the attempt is over and all of it is there."""
    book, sink = LogBook(tmp_path), Sink()
    book.append("j/1", rank=0, offset=0, data=b"one")
    sink.away = True
    book.forward(sink, is_over=lambda _: True)
    assert list(tmp_path.glob("*.log"))
    sink.away = False
    book.forward(sink, is_over=lambda _: False)
    assert (sink.data["j/1", 0], len(list(tmp_path.glob("*.log")))) == (b"one", 1)
    book.forward(sink, is_over=lambda _: True)
    assert not list(tmp_path.glob("*.log"))


def test_a_new_agent_goes_on_where_the_server_is(tmp_path: Path) -> None:
    """It asks for the length first, so nothing is sent twice."""
    book, sink = LogBook(tmp_path), Sink()
    book.append("j/1", rank=1, offset=0, data=b"abc")
    book.forward(sink, is_over=lambda _: False)
    later = LogBook(tmp_path)
    later.append("j/1", rank=1, offset=3, data=b"def")
    later.forward(sink, is_over=lambda _: False)
    assert sink.data["j/1", 1] == b"abcdef"

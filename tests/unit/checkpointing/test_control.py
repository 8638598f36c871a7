"""The wire to the worker: every message survives, nothing blocks, a drain is obeyed in time."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpointing import Session
from checkpointing.clock import now_us
from checkpointing.control import (
    DRAINED_EXIT_CODE,
    Beside,
    Committed,
    ControlError,
    Drain,
    Drained,
    Finished,
    Hello,
    Hurry,
    Message,
    Opened,
    Restored,
    Restoring,
    SaveFailed,
    Saving,
    SetCadence,
    Step,
    Training,
    decode,
    encode,
)
from checkpointing.control_client import ControlClient
from checkpointing.hazard_posterior import Risk
from tests.unit.checkpointing.training import Interrupted, Trainee, train

S = 1_000_000
Kind = TypeVar("Kind", bound=Message)
NUMBERS = st.integers(0, 2**62)
TEXTS = st.text(max_size=20)


def messages() -> st.SearchStrategy[Message]:
    """Any message with any content."""
    return st.one_of(
        st.builds(Hello, NUMBERS, NUMBERS),
        st.builds(Beside, NUMBERS, NUMBERS),
        st.builds(Opened, NUMBERS, NUMBERS, NUMBERS),
        st.builds(Restoring, NUMBERS, NUMBERS),
        st.builds(Restored, NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.lists(TEXTS).map(tuple)),
        st.builds(Training, NUMBERS, NUMBERS, NUMBERS),
        st.builds(Step, NUMBERS, NUMBERS, NUMBERS),
        st.builds(Saving, NUMBERS, NUMBERS),
        st.builds(Committed, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, TEXTS),
        st.builds(SaveFailed, NUMBERS, TEXTS, TEXTS),
        st.builds(Drained, NUMBERS, NUMBERS, NUMBERS),
        st.builds(Finished, NUMBERS, NUMBERS),
        st.builds(Drain, NUMBERS),
        st.builds(SetCadence, NUMBERS),
        st.builds(
            Risk,
            evictions_ppm=NUMBERS,
            exposure_ms=NUMBERS,
            notice_ms=NUMBERS,
            noticed_ppm=NUMBERS,
            usd_nanos_per_hour=NUMBERS,
        ),
        st.builds(Hurry, NUMBERS),
    )


class Worker:
    """The other end: a real unix socket that collects what children say."""

    def __init__(self, path: Path) -> None:
        """Listen."""
        self.said: list[Message] = []
        self.links: list[socket.socket] = []
        self._changed = threading.Condition()
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def tell(self, message: Message) -> None:
        """Send to every child that is still there."""
        for link in self.links:
            with suppress(BrokenPipeError):
                link.sendall(encode(message))

    def wait_for(self, wanted: Callable[[Message], bool], limit_s: float = 20) -> Message:
        """Return the first message that fits, waiting for it."""
        with self._changed:
            found = self._changed.wait_for(lambda: any(map(wanted, self.said)), limit_s)
        assert found, f"not said within {limit_s} s; said: {self.said}"
        return next(filter(wanted, self.said))

    def heard(self, kind: type[Kind]) -> Kind:
        """Return the first message of a kind, waiting for it."""
        found = self.wait_for(lambda message: isinstance(message, kind))
        assert isinstance(found, kind)
        return found

    def close(self) -> None:
        """Hang up on everybody."""
        self._server.close()
        for link in self.links:
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
            link.close()
        self.links = []

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self._server.accept()
            except OSError:
                return
            self.links.append(link)
            threading.Thread(target=self._read, args=(link,), daemon=True).start()

    def _read(self, link: socket.socket) -> None:
        try:
            for line in link.makefile("rb"):
                with self._changed:
                    self.said.append(decode(line))
                    self._changed.notify_all()
        except OSError:
            return


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A short path for the socket."""
    return tmp_path / "c"


@pytest.fixture
def worker(place: Path) -> Iterator[Worker]:
    """A worker that listens."""
    found = Worker(place)
    yield found
    found.close()


@given(messages())
def test_every_message_survives(message: Message) -> None:
    """One line each, and the same again on the other side."""
    line = encode(message)
    assert line.count(b"\n") == 1
    assert decode(line) == message


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"hello",
        b"[]",
        b"{}",
        b'{"kind":"dance"}',
        b'{"kind":"drain"}',
        b'{"kind":"drain","deadline_us":"soon"}',
        b'{"kind":"drain","deadline_us":true}',
        b'{"kind":["drain"]}',
    ],
)
def test_nonsense_is_refused(line: bytes) -> None:
    """Whatever comes down the wire, only `ControlError` is raised."""
    with pytest.raises(ControlError):
        decode(line)


def test_unknown_fields_are_ignored() -> None:
    """A newer peer may say more."""
    assert decode(b'{"kind":"drain","deadline_us":5,"why":"spot"}') == Drain(5)


def test_nothing_breaks_without_a_worker(place: Path) -> None:
    """Sending into the void returns at once and closing does not hang."""
    client = ControlClient(str(place), hello=Hello(0, 1))
    before_us = now_us()
    for step in range(2000):
        client.send(Step(step, 2000, 0))
        client.send(Saving(step, 0))
    assert now_us() - before_us < S
    client.close(flush_s=0.1)


def test_what_matters_waits_for_the_worker(place: Path) -> None:
    """Messages queued before anybody listened, and after a hang-up, arrive; progress may not."""
    client = ControlClient(str(place), hello=Hello(3, 77))
    client.send(Step(1, 9, 0))
    client.send(Saving(1, 0))
    first = Worker(place)
    first.wait_for(lambda message: message == Saving(1, 0))
    assert first.said[0] == Hello(3, 77)
    assert Step(1, 9, 0) not in first.said
    first.close()
    place.unlink()
    second = Worker(place)
    second.wait_for(lambda message: message == Hello(3, 77))
    client.send(Drained(4, 4, 0))
    client.close(flush_s=5)
    second.wait_for(lambda message: message == Drained(4, 4, 0))
    second.close()


def test_a_training_tells_its_story(
    worker: Worker, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hello, restored, training, steps, saving, committed, finished; the last step is told."""
    under(monkeypatch, place, tmp_path)
    train(steps=12)
    end = worker.heard(Finished)
    assert end.step == 12
    kinds = [message.kind for message in worker.said]
    order = ["hello", "restored", "training", "step", "saving", "committed", "finished"]
    assert [kind for kind in order if kind in kinds] == order
    assert [kinds.index(kind) for kind in order] == sorted(kinds.index(kind) for kind in order)
    assert worker.said[0] == Hello(0, os.getpid())
    assert [m.step for m in worker.said if isinstance(m, Step)][-1] == 12
    done = next(message for message in worker.said if isinstance(message, Committed))
    assert (done.step, done.bytes > 0, done.new_bytes) == (12, True, done.bytes)
    assert done.snapshot_us <= done.committed_us

    with pytest.raises(SystemExit):  # a second attempt, drained at once, restores first
        train(steps=9999, each=lambda _: worker.tell(Drain(now_us() + 20 * S)))
    restored = [message for message in worker.said if isinstance(message, Restored)]
    assert [message.step for message in restored] == [0, 12]
    assert Restoring in [type(message) for message in worker.said]


def test_a_drain_saves_reports_and_leaves(
    worker: Worker, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked to leave, the child commits the step it is at and exits with 75: no step is lost."""
    under(monkeypatch, place, tmp_path)
    last = -1

    def each(step: int) -> None:
        nonlocal last
        last = step
        if step == 6:
            worker.heard(Training)
            worker.tell(Drain(now_us() + 30 * S))

    with pytest.raises(SystemExit) as left:
        train(steps=10**6, each=each)
    assert left.value.code == DRAINED_EXIT_CODE
    drained = worker.heard(Drained)
    assert drained.step == last + 1
    commits = [message.step for message in worker.said if isinstance(message, Committed)]
    assert commits[-1] == last + 1


def test_a_drain_without_time_leaves_without_a_save(
    worker: Worker, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deadline that has passed is no reason to hang on: the newest commit is reported."""
    under(monkeypatch, place, tmp_path)
    with pytest.raises(SystemExit):
        train(steps=10**6, each=lambda step: drain_now(worker) if step == 3 else None)
    drained = worker.heard(Drained)
    assert drained.step == 0
    assert drained.reached >= 4, "what is lost is said"


def drain_now(worker: Worker) -> None:
    """Ask for the impossible."""
    worker.heard(Training)
    worker.tell(Drain(now_us() - S))


def test_the_worker_sets_the_cadence(
    worker: Worker, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a cadence message saves come at that interval."""
    under(monkeypatch, place, tmp_path)
    pause = threading.Event()

    def each(step: int) -> None:
        pause.wait(0.01)
        if step == 2:
            worker.heard(Training)
            worker.tell(SetCadence(1))

    _, session = train(steps=60, each=each)
    assert session.stats.saves >= 3


@pytest.mark.parametrize(
    "warning",
    [Hurry(0), Risk(evictions_ppm=10**9, exposure_ms=1)],
    ids=["hurry", "risk"],
)
def test_a_warning_of_the_worker_makes_a_save_due(
    warning: Message,
    worker: Worker,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the default hazard the first save is a minute away: it comes at once."""
    under(monkeypatch, place, tmp_path)

    def each(step: int) -> None:
        threading.Event().wait(0.01)
        if step == 2:
            worker.heard(Training)
            worker.tell(warning)
        if any(isinstance(message, Committed) for message in worker.said):
            raise Interrupted

    with pytest.raises(Interrupted):
        train(steps=10**6, each=each)
    assert worker.heard(Saving).step > 2


def test_a_long_phase_can_ask_whether_to_go_on(
    worker: Worker, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a step nothing is saved; what was trained is, at the step's end."""
    under(monkeypatch, place, tmp_path)
    trainee = Trainee()

    def evaluate(session: Session) -> None:
        assert not session.poll()
        worker.heard(Training)
        worker.tell(Drain(now_us() + 30 * S))
        while not session.poll():  # batch by batch
            threading.Event().wait(0.01)
        assert not any(isinstance(message, Saving) for message in worker.said)

    def trained() -> None:
        with trainee.session() as session:
            for step in session.steps(100):
                trainee.step()
                if step == 4:
                    evaluate(session)

    with pytest.raises(SystemExit):
        trained()
    drained = worker.heard(Drained)
    assert (drained.step, drained.reached) == (5, 5)


def test_a_failing_save_is_reported_and_training_goes_on(
    worker: Worker, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store breaks in the middle: the worker hears why; the store is mended: all ends well."""
    under(monkeypatch, place, tmp_path)
    monkeypatch.setenv("LOWTIDE_CHECKPOINT_INTERVAL_MS", "1")
    chunks, aside = tmp_path / "store" / "chunks", tmp_path / "aside"

    def each(step: int) -> None:
        if step == 2:
            worker.heard(Committed)
            chunks.rename(aside)
            chunks.write_bytes(b"a file where a folder should be")
        if step == 30:
            worker.heard(SaveFailed)
            chunks.unlink()
            aside.rename(chunks)
        threading.Event().wait(0.01)

    _, session = train(steps=60, each=each)
    assert session.stats.failures >= 1
    failed = next(message for message in worker.said if isinstance(message, SaveFailed))
    assert failed.code == "storage-failed"
    worker.heard(Finished)


def under(monkeypatch: pytest.MonkeyPatch, place: Path, folder: Path) -> None:
    """Set what the worker would set."""
    monkeypatch.setenv("LOWTIDE_JOB_ID", "job-1")
    monkeypatch.setenv("LOWTIDE_ATTEMPT_ID", "attempt-1")
    monkeypatch.setenv("LOWTIDE_EPOCH", "1")
    monkeypatch.setenv("LOWTIDE_CHECKPOINT_URI", (folder / "store").as_uri())
    monkeypatch.setenv("LOWTIDE_CONTROL", str(place))


def test_a_training_with_many_descriptors_is_heard(worker: Worker, place: Path) -> None:
    """Data loaders and caches open thousands: the socket's number may be any."""
    with ExitStack() as held:
        for _ in range(1_100):
            held.callback(os.close, os.dup(0))
        client = ControlClient(str(place), hello=Hello(rank=0, pid=1))
        client.send(Finished(step=3, at_us=4))
        assert worker.heard(Finished).step == 3
        worker.tell(Drain(deadline_us=9))
        until_us = now_us() + 20 * S
        while client.drain_deadline_us is None and now_us() < until_us:
            threading.Event().wait(0.01)
        assert client.drain_deadline_us == 9
        client.close(flush_s=1)

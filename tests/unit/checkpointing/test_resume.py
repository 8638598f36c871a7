"""Resume is bit-exact, verified, and survives crashes, damage and zombies."""

from __future__ import annotations

import copy
import os
import re
import signal
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkpointing import CheckpointError, FencedOut, ResumableLoader, Session
from checkpointing.archive import next_epoch, open_archive
from checkpointing.commit import CLAIM, CommitRecord
from checkpointing.commit_log import CommitLog
from checkpointing.file_storage import FileStorage
from checkpointing.identity import Identity
from checkpointing.retention import Retention
from checkpointing.retirement import Retirement
from tests.unit.checkpointing.training import Interrupted, Trainee, train

EVERY_STEP = 0.000001
STEPS = 16
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def uninterrupted() -> str:
    """The digest of the steps without any interruption or session."""
    trainee = Trainee()
    for _ in range(STEPS):
        trainee.step()
    return trainee.session().final_digest()


@pytest.mark.parametrize("crash_at", [0, 1, 8, 15])
def test_a_crash_changes_no_bit(tmp_path: Path, uninterrupted: str, crash_at: int) -> None:
    """Crash inside any step, start again: the final weights are byte-equal."""
    with pytest.raises(Interrupted):
        train(tmp_path, steps=STEPS, crash_at=crash_at, save_every_s=EVERY_STEP)
    digest, session = train(tmp_path, steps=STEPS, save_every_s=EVERY_STEP)
    assert session.restored_step >= max(0, crash_at - 1)
    assert digest == uninterrupted


def test_many_crashes_change_no_bit(tmp_path: Path, uninterrupted: str) -> None:
    """A training that dies again and again still ends with the same bytes."""
    for crash_at in (3, 7, 8, 12):
        with pytest.raises(Interrupted):
            train(tmp_path, steps=STEPS, crash_at=crash_at, save_every_s=EVERY_STEP)
    assert train(tmp_path, steps=STEPS)[0] == uninterrupted


def test_draws_before_the_first_step_change_no_bit(tmp_path: Path) -> None:
    """Random numbers drawn between entering and training do not shift the resumed stream."""

    def run(crash_at: int | None) -> str:
        trainee = Trainee()
        with trainee.session(tmp_path / str(crash_at is None), save_every_s=EVERY_STEP) as session:
            torch.rand(7)
            for step in session.steps(20):
                trainee.step()
                if step == crash_at:
                    raise Interrupted
        return session.final_digest()

    whole = run(None)
    with pytest.raises(Interrupted):
        run(9)
    (tmp_path / "True").rename(tmp_path / "done")
    (tmp_path / "False").rename(tmp_path / "True")
    assert run(None) == whole


def test_a_finished_training_is_not_run_again(tmp_path: Path, uninterrupted: str) -> None:
    """Starting a finished job yields no step and has the final weights."""
    train(tmp_path, steps=STEPS)
    digest, session = train(tmp_path, steps=STEPS, each=lambda _: pytest.fail("ran a step"))
    assert session.restored_step == STEPS
    assert digest == uninterrupted


def test_outside_lowtide_it_only_counts(tmp_path: Path, uninterrupted: str) -> None:
    """Without a folder nothing is saved and nothing changes."""
    digest, session = train(steps=STEPS)
    assert digest == uninterrupted
    assert session.stats.saves == 0
    assert session.restored_step == 0
    assert list(tmp_path.iterdir()) == []


def test_importing_is_quick() -> None:
    """The package and the wire import neither torch, numpy nor boto3."""
    code = (
        "import sys, checkpointing, checkpointing.control, checkpointing.environment;"
        "print([name for name in ('torch', 'numpy', 'boto3') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# ------------------------------------------------------------------ damage


def stored(folder: Path) -> list[Path]:
    """Every object of a store."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and ".tmp" not in path.parts)


def two_commits(folder: Path) -> tuple[dict[Path, bytes], dict[Path, bytes]]:
    """Save at steps 20 and 30; return the objects of the first, and those the second added."""
    train(folder, steps=20)
    first = {path: path.read_bytes() for path in stored(folder)}
    train(folder, steps=30)
    added = {path: path.read_bytes() for path in stored(folder) if path not in first}
    return first, added


def test_any_damaged_object_is_found_and_passed_over(tmp_path: Path) -> None:
    """Flip or cut each object that only the newest commit has: the previous one is used."""
    _, added = two_commits(tmp_path)
    newest = {path: data for path, data in added.items() if is_of_a_commit(path, data)}
    assert len(newest) >= 4  # chunks, the manifest, the record
    for path, data in newest.items():
        for harm in (flipped(data), data[:-1], data[: len(data) // 2], b""):
            path.write_bytes(harm)
            assert restored_step(tmp_path) == 20, (path, len(harm))
        path.unlink()
        assert restored_step(tmp_path) == 20, path
        path.write_bytes(data)
    assert restored_step(tmp_path) == 30


def is_of_a_commit(path: Path, data: bytes) -> bool:
    """Whether the object belongs to a commit rather than being a claim."""
    return path.parent.name != "commits" or b'"kind":"commit"' in data


def flipped(data: bytes) -> bytes:
    """One bit in the middle is different."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def restored_step(folder: Path) -> int:
    """The step that a session starts from; its own claim is taken back."""
    before = set(stored(folder))
    with Trainee().session(folder) as session:
        step = session.restored_step
    for path in set(stored(folder)) - before:
        path.unlink()
    return step


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(choice=st.integers(0), place=st.integers(0), bit=st.integers(0, 7))
def test_no_flipped_bit_is_ever_loaded(
    tmp_path_factory: pytest.TempPathFactory, choice: int, place: int, bit: int
) -> None:
    """Wherever a bit flips, what is restored is byte-equal to what was saved at that step."""
    folder = FLIPS.get("folder") or tmp_path_factory.mktemp("flips")
    if "folder" not in FLIPS:
        two_commits(folder)
        FLIPS["folder"] = folder
    objects = stored(folder)
    path = objects[choice % len(objects)]
    data = path.read_bytes()
    harmed = bytearray(data)
    harmed[place % len(data)] ^= 1 << bit
    path.write_bytes(harmed)
    before = set(objects)
    try:
        with Trainee().session(folder) as session:
            assert session.final_digest() == expected(session.restored_step)
    finally:
        path.write_bytes(data)
        for new in set(stored(folder)) - before:
            new.unlink()


FLIPS: dict[str, Path] = {}


@cache
def expected(step: int) -> str:
    """The digest after `step` steps."""
    trainee = Trainee()
    for _ in range(step):
        trainee.step()
    return trainee.session().final_digest()


def test_if_nothing_verifies_it_starts_over(tmp_path: Path) -> None:
    """With every manifest gone the training starts from nothing, and ends well."""
    train(tmp_path, steps=20)
    for path in stored(tmp_path):
        if path.parent.name == "manifests":
            path.unlink()
    assert restored_step(tmp_path) == 0


# ------------------------------------------------------------------ zombies


def test_a_zombie_is_fenced_out(tmp_path: Path) -> None:
    """An attempt whose successor has started cannot commit, and ends with a clear error."""

    def successor_starts(step: int) -> None:
        if step == 5:
            storage = FileStorage(tmp_path)
            epoch = next_epoch(storage, job_id="local")
            record = CommitRecord(CLAIM, epoch, "successor", 1, at_us=0)
            CommitLog(storage, job_id="local").append(record)

    with pytest.raises(FencedOut, match="successor"):
        train(tmp_path, steps=10_000, each=successor_starts, save_every_s=EVERY_STEP)
    assert restored_step(tmp_path) <= 6


def test_an_older_attempt_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A late starter with an old epoch is turned away before it restores anything."""
    as_attempt(monkeypatch, tmp_path, epoch=7)
    train(steps=3)
    as_attempt(monkeypatch, tmp_path, epoch=6)
    with pytest.raises(FencedOut, match="epoch 7"):
        train(steps=5)
    as_attempt(monkeypatch, tmp_path, epoch=8)
    assert train(steps=5)[1].restored_step == 3


def as_attempt(monkeypatch: pytest.MonkeyPatch, folder: Path, *, epoch: int) -> None:
    """Set what the worker would set."""
    monkeypatch.setenv("LOWTIDE_JOB_ID", "job/1")
    monkeypatch.setenv("LOWTIDE_ATTEMPT_ID", f"attempt-{epoch}")
    monkeypatch.setenv("LOWTIDE_EPOCH", str(epoch))
    monkeypatch.setenv("LOWTIDE_CHECKPOINT_URI", str(folder))


# ------------------------------------------------------------------ real processes


def start(folder: Path, *, steps: int, step_s: float = 0.0) -> subprocess.Popen[str]:
    """Run the training as a script."""
    script = Path(__file__).with_name("training.py")
    variables = {k: v for k, v in os.environ.items() if not k.startswith("LOWTIDE_")}
    return subprocess.Popen(
        [sys.executable, str(script), str(folder), str(steps), str(step_s)],
        cwd=ROOT,
        env={**variables, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def await_objects(folder: Path, process: subprocess.Popen[str], count: int) -> None:
    """Wait until the store holds `count` commit records."""
    for _ in range(600):
        if len(list(folder.glob("jobs/*/commits/*"))) >= count:
            return
        assert process.poll() is None, "the training ended before it was to be killed"
        threading.Event().wait(0.05)
    pytest.fail("no commit within 30 s")


def test_a_killed_process_changes_no_bit(tmp_path: Path, uninterrupted: str) -> None:
    """SIGKILL a real process that saves all the time: the next one ends with equal bytes."""
    process = start(tmp_path, steps=STEPS, step_s=0.1)
    try:
        await_objects(tmp_path, process, 4)
    finally:
        process.kill()
        process.communicate(timeout=20)
    process = start(tmp_path, steps=STEPS)
    found = re.search(r"restored (\d+) digest (\w+)", process.communicate(timeout=50)[0])
    assert found is not None
    assert int(found[1]) > 0
    assert found[2] == uninterrupted


def test_sigterm_saves_and_leaves_with_75(tmp_path: Path) -> None:
    """A polite signal is a drain: the newest step is committed and the code says so."""
    process = start(tmp_path, steps=10_000, step_s=0.05)
    try:
        await_objects(tmp_path, process, 3)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 75


# ------------------------------------------------------------------ refusals


def test_another_model_is_refused_whole(tmp_path: Path) -> None:
    """A changed shape is named, and nothing of the checkpoint is applied."""
    train(tmp_path, steps=5)
    trainee = Trainee()
    trainee.model[3] = torch.nn.Linear(16, 4)  # its weight is compared before anything is applied
    before = trainee.session().final_digest()
    with pytest.raises(CheckpointError, match=r"model.3.bias.*\(3,\).*\(4,\)"):
        trainee.session(tmp_path).__enter__()
    assert trainee.session().final_digest() == before


def test_other_objects_are_refused(tmp_path: Path) -> None:
    """A session that lost or gained an object says which."""
    train(tmp_path, steps=5)
    with pytest.raises(CheckpointError, match="optimizer"):
        Session(model=Trainee().model, save_to=str(tmp_path)).__enter__()


def test_a_plain_loader_is_refused_with_a_remedy() -> None:
    """A list has no position to save."""
    with pytest.raises(CheckpointError, match="ResumableLoader"):
        Session(loader=[1, 2], save_to="unused").__enter__()


def test_another_order_of_data_is_refused() -> None:
    """A position means nothing under another batch size or seed."""
    loader = ResumableLoader([1, 2, 3], batch_size=2)
    other = ResumableLoader([1, 2, 3], batch_size=3)
    with pytest.raises(CheckpointError, match="batch_size"):
        other.load_state_dict(loader.state_dict())


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 60), st.booleans())
def test_a_loader_goes_on_exactly(samples: int, size: int, cut: int, shuffle: bool) -> None:
    """Stop after any batch; a fresh loader with the state yields exactly what would have come."""
    make = lambda: ResumableLoader(  # noqa: E731
        list(range(samples)), batch_size=size, seed=3, shuffle=shuffle
    )
    first = make()
    for _ in range(cut):
        next(first)
    second = make()
    second.load_state_dict(first.state_dict())
    assert [next(second).tolist() for _ in range(9)] == [next(first).tolist() for _ in range(9)]


def test_ranks_share_an_epoch_without_overlap() -> None:
    """Each sample goes to one rank, and every rank has equally many batches."""
    seen: list[int] = []
    for rank in range(3):
        loader = ResumableLoader(list(range(31)), batch_size=4, rank=rank, world_size=3)
        seen += [int(x) for _ in range(loader.batches_per_epoch) for x in next(loader)]
    assert len(seen) == len(set(seen)) == 30


# ------------------------------------------------------------------ thrift


def test_unchanged_state_is_not_sent_again(tmp_path: Path) -> None:
    """With frozen weights the second checkpoint sends only what moved."""
    frozen = torch.nn.Linear(1000, 1000)
    head = torch.nn.Linear(2, 2)
    with Session(model=head, frozen=frozen, save_to=str(tmp_path), save_every_s=EVERY_STEP) as s:
        sent = []
        for _ in s.steps(6):
            head.weight.data += 1
            sent.append(s.stats.new_bytes)
    full = frozen.weight.nbytes
    assert full < s.stats.new_bytes < full * 1.1
    assert s.stats.saves >= 2


def test_adapters_between_frozen_layers_are_sent_alone(tmp_path: Path) -> None:
    """Small trained tensors share no chunk with their frozen neighbours, wherever they stand."""
    layers: list[torch.nn.Module] = []
    adapters: list[torch.Tensor] = []
    for _ in range(10):
        frozen, adapter = torch.nn.Linear(200, 200), torch.nn.Linear(200, 1, bias=False)
        layers += [frozen.requires_grad_(requires_grad=False), adapter]
        adapters.append(adapter.weight)
    model = torch.nn.Sequential(*layers)
    sent = []
    with Session(model=model, save_to=str(tmp_path), save_every_s=EVERY_STEP) as s:
        for _ in s.steps(6):
            for weight in adapters:
                weight.data += 1
            sent.append(s.stats.new_bytes)
    whole = sum(parameter.nbytes for parameter in model.parameters())
    moving = sum(weight.nbytes for weight in adapters)
    assert s.stats.saves >= 2
    assert whole < s.stats.new_bytes < whole + 8 * 1.3 * moving
    fresh = torch.nn.Sequential(*copy.deepcopy(layers))
    for parameter in fresh.parameters():
        parameter.data.zero_()
    with Session(model=fresh, save_to=str(tmp_path), save_every_s=EVERY_STEP) as s:
        assert s.restored_step == 6
    pairs = zip(model.parameters(), fresh.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_retention_deletes_exactly_the_rest(tmp_path: Path) -> None:
    """After a sweep the newest commits still load, and nothing that they do not need is left."""
    for steps in (5, 10, 15, 20, 25):
        train(tmp_path, steps=steps)
    storage = FileStorage(tmp_path)
    archive = open_archive(storage, Identity("local", "", 99, 1))
    before = set(stored(tmp_path))
    doomed = Retirement(archive, policy=Retention(last=2), grace_us=-1).sweep()
    gone = before - set(stored(tmp_path))
    assert gone == {tmp_path / item.key for item in doomed.deleted}
    assert gone
    assert len(list(tmp_path.glob("jobs/local/manifests/*"))) == 2
    assert restored_step(tmp_path) == 25
    again = Retirement(archive, policy=Retention(last=2), grace_us=-1).sweep()
    assert again.deleted == ()


def test_a_young_chunk_is_never_swept(tmp_path: Path) -> None:
    """Inside the grace period nothing goes: a save in flight may have just stored it."""
    for steps in (5, 10, 15):
        train(tmp_path, steps=steps)
    archive = open_archive(FileStorage(tmp_path), Identity("local", "", 99, 1))
    before = sorted(tmp_path.glob("chunks/*/*"))
    report = Retirement(archive, policy=Retention(last=1)).sweep()
    assert sorted(tmp_path.glob("chunks/*/*")) == before
    assert report.waiting

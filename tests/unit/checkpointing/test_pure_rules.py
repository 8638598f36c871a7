"""The pure rules: when to save, what to keep, what a manifest and a commit record look like."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpointing.commit import (
    CLAIM,
    COMMIT,
    CommitRecord,
    decode_record,
    encode_record,
    valid_history,
)
from checkpointing.environment import read_environment
from checkpointing.errors import CheckpointError, CorruptCheckpoint
from checkpointing.keys import StoredObject, commit_key, commit_seq, job_prefix
from checkpointing.manifest import ChunkRef, Manifest, Part, RankPart, TensorEntry, decode, encode
from checkpointing.retention import Retention, garbage, kept_commits

S = 1_000_000


def commit(
    seq: int, *, epoch: int = 1, step: int | None = None, kind: str = COMMIT
) -> CommitRecord:
    """A record of the log."""
    at = seq if step is None else step
    return CommitRecord(
        kind, epoch, f"a{epoch}", 7, at_us=seq * S, step=at, manifest=f"m{seq}", seq=seq
    )


def manifest(**changed: object) -> Manifest:
    """A small manifest."""
    base = Manifest(
        job_id="j",
        epoch=2,
        step=30,
        rank=0,
        world_size=2,
        tree={"dict": [["w", {"tensor": 0}]]},
        tensors=(TensorEntry("torch.float32", (2, 2), (Part(0, 0, 16),)),),
        chunks=(ChunkRef("ab" * 32, 16, 1234),),
        parts=(RankPart(1, "part", "cd" * 32),),
    )
    return replace(base, **changed)  # type: ignore[arg-type]


# ------------------------------------------------------------------ manifest and records


def test_a_manifest_survives_and_is_canonical() -> None:
    """Decoding gives what was encoded; equal manifests have equal bytes."""
    data = encode(manifest())
    assert decode(data, key="k") == manifest()
    assert encode(decode(data, key="k")) == data
    assert b"pickle" not in data


@pytest.mark.parametrize("cut", [0, 1, 50, -1])
def test_a_cut_manifest_is_corrupt(cut: int) -> None:
    """Half a manifest is named as such."""
    with pytest.raises(CorruptCheckpoint, match="the-key"):
        decode(encode(manifest())[:cut], key="the-key")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("step", -1),
        ("step", True),
        ("tensors", [{"dtype": "x"}]),
        ("chunks", [["ab", 1, 2]]),
        ("parts", [[1]]),
        ("job", 5),
        ("format", "zip"),
    ],
)
def test_a_manifest_of_wrong_types_is_corrupt(field: str, value: object) -> None:
    """Every field is checked before it is used."""
    found = json.loads(encode(manifest()))
    found[field] = value
    with pytest.raises(CorruptCheckpoint):
        decode(json.dumps(found).encode(), key="k")


def test_a_newer_format_is_named() -> None:
    """A checkpoint from the future says which version to install, and is not called corrupt."""
    found = json.loads(encode(manifest()))
    found["version"] = 2
    with pytest.raises(CheckpointError, match="version 2") as caught:
        decode(json.dumps(found).encode(), key="k")
    assert caught.value.code == "checkpoint-newer"


@given(st.integers(0), st.integers(0, 7))
def test_any_flipped_bit_of_a_record_is_noticed(place: int, bit: int) -> None:
    """A record carries its own hash."""
    data = bytearray(encode_record(commit(3)))
    data[place % len(data)] ^= 1 << bit
    with pytest.raises(CorruptCheckpoint):
        decode_record(bytes(data), key="k")


def test_a_record_survives() -> None:
    """Decoding gives what was encoded."""
    record = replace(commit(3), session=2**59, manifest_blake3="ab" * 32, length=10**13)
    assert decode_record(encode_record(record), key="k") == record


# ------------------------------------------------------------------ history


def test_the_newest_is_the_highest_epoch_then_number() -> None:
    """Within an epoch the log's order counts, not the step: a fallback may go back."""
    records = [
        commit(1),
        commit(2, step=90),
        commit(3, epoch=2, step=10),
        commit(4, epoch=2, step=5),
    ]
    assert [record.seq for record in valid_history(records).commits] == [4, 3, 2, 1]


def test_a_zombie_never_supersedes_its_successor() -> None:
    """What an older epoch adds after a newer one is left out and named."""
    records = [commit(1, step=50), commit(2, epoch=2, kind=CLAIM), commit(3, step=60)]
    history = valid_history(records)
    assert [record.step for record in history.commits] == [50]
    assert history.epoch == 2
    assert "epoch 1" in history.skipped[0]


@given(st.permutations([commit(n, epoch=e) for n, e in [(1, 1), (2, 2), (3, 1), (4, 2), (5, 3)]]))
def test_history_does_not_depend_on_listing_order(records: list[CommitRecord]) -> None:
    """Any order of listing gives the same history."""
    assert [record.seq for record in valid_history(records).commits] == [5, 4, 2, 1]


# ------------------------------------------------------------------ retention


def test_the_newest_and_milestones_are_kept() -> None:
    """Three newest, every tenth step, and the protected one."""
    commits = [commit(n) for n in range(25, 0, -1)]
    policy = Retention(last=3, milestone_steps=10)
    kept = kept_commits(commits, policy=policy, now_us=0, protected=frozenset({"m7"}))
    assert [record.step for record in kept] == [25, 24, 23, 20, 10, 7]


def test_age_never_takes_the_newest() -> None:
    """However old, one restore point stays."""
    commits = [commit(3), commit(2), commit(1)]
    policy = Retention(last=3, max_age_us=S)
    assert [r.seq for r in kept_commits(commits, policy=policy, now_us=100 * S)] == [3]
    assert [r.seq for r in kept_commits(commits, policy=policy, now_us=3 * S)] == [3, 2]


def test_only_old_strangers_are_garbage() -> None:
    """What a save in flight may have just stored stays."""
    loose = [StoredObject("b", 1, 0), StoredObject("c", 1, 90)]
    (found,) = garbage(loose, now_us=100, grace_us=50)
    assert found.key == "b"


# ------------------------------------------------------------------ names and environment


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_job_id_is_one_folder(job_id: str) -> None:
    """Slashes, dots and spaces in an id cannot leave the job's folder."""
    prefix = job_prefix(job_id)
    assert prefix.count("/") == 2
    assert ".." not in prefix


def test_a_commit_number_is_read_from_its_name() -> None:
    """Both modes' names; a stranger's file has none."""
    assert commit_seq(commit_key("j", 12)) == 12
    assert commit_seq(commit_key("j", 12, epoch=3)) == 12
    assert commit_seq("jobs/j/commits/README.json") is None


def test_the_environment_is_the_contract() -> None:
    """Names as the worker sets them; nothing set means outside Lowtide."""
    found = read_environment(
        {
            "LOWTIDE_JOB_ID": "j",
            "LOWTIDE_ATTEMPT_ID": "a",
            "LOWTIDE_EPOCH": "3",
            "LOWTIDE_CHECKPOINT_URI": "s3://b/p",
            "LOWTIDE_CONTROL": "/run/x",
            "LOWTIDE_CHECKPOINT_INTERVAL_MS": "500",
            "RANK": "1",
            "WORLD_SIZE": "2",
        }
    )
    assert (found.job_id, found.epoch, found.rank, found.world_size) == ("j", 3, 1, 2)
    assert (found.checkpoint_uri, found.control_path, found.interval_ms) == (
        "s3://b/p",
        "/run/x",
        500,
    )
    assert not read_environment({}).managed


def test_a_bad_variable_is_named() -> None:
    """The message says which variable and what to do."""
    with pytest.raises(CheckpointError, match="LOWTIDE_EPOCH"):
        read_environment({"LOWTIDE_EPOCH": "one"})

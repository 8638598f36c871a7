"""The wire between a training child and the attempt worker that started it. Pure.

A unix stream socket, its path in `LOWTIDE_CONTROL`; one JSON object per line, each with a `kind`.
Instants (`*_us`) are wall-clock microseconds UTC, except where the name says a duration.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import ClassVar, Final, TypeAlias, cast

from checkpointing.hazard_posterior import Risk

DRAINED_EXIT_CODE: Final = 75
"""How a child leaves after a drain (EX_TEMPFAIL: try again later)."""


class ControlError(ValueError):
    """A line on the control socket that is not one of the messages below."""


@dataclass(frozen=True, slots=True)
class Hello:
    """First line of every connection."""

    kind: ClassVar[str] = "hello"
    rank: int
    pid: int


@dataclass(frozen=True, slots=True)
class Beside:
    """First line of a rank's uploader: open as long as that works; a commit may follow."""

    kind: ClassVar[str] = "beside"
    rank: int
    pid: int


@dataclass(frozen=True, slots=True)
class Opened:
    """A session begins: whatever the script imports and builds before it is done."""

    kind: ClassVar[str] = "opened"
    at_us: int
    process_us: int
    """Instant at which the process was started, or a ready one was given the script."""
    standby: int
    """1 = the process stood ready with its imports done, 0 = it started cold."""


@dataclass(frozen=True, slots=True)
class Restoring:
    """A restore point was found and is being loaded."""

    kind: ClassVar[str] = "restoring"
    step: int
    at_us: int


@dataclass(frozen=True, slots=True)
class Restored:
    """Loading ended; `step` 0 means a start from nothing."""

    kind: ClassVar[str] = "restored"
    step: int
    at_us: int
    bytes: int
    restore_us: int
    """Duration."""
    skipped: tuple[str, ...] = ()
    """Why newer commits were passed over, one sentence each."""


@dataclass(frozen=True, slots=True)
class Training:
    """The first step is about to run."""

    kind: ClassVar[str] = "training"
    step: int
    total_steps: int
    at_us: int


@dataclass(frozen=True, slots=True)
class Step:
    """`step` steps are complete; at most one per 0.2 s, and always the last."""

    kind: ClassVar[str] = "step"
    step: int
    total_steps: int
    at_us: int


@dataclass(frozen=True, slots=True)
class Saving:
    """A snapshot is about to be taken."""

    kind: ClassVar[str] = "saving"
    step: int
    at_us: int


@dataclass(frozen=True, slots=True)
class Committed:
    """A checkpoint counts from now on: this much work can no longer be lost."""

    kind: ClassVar[str] = "committed"
    step: int
    snapshot_us: int
    """Instant of the snapshot: work until then is safe."""
    committed_us: int
    stall_us: int
    """Duration for which training stood still."""
    bytes: int
    new_bytes: int
    manifest: str


@dataclass(frozen=True, slots=True)
class SaveFailed:
    """A save was given up; training goes on."""

    kind: ClassVar[str] = "save-failed"
    step: int
    code: str
    cause: str


@dataclass(frozen=True, slots=True)
class Drained:
    """A drain is over; `step` is the newest committed one. The child leaves with code 75.

    Steps after it, up to `reached`, are lost: no save of them fitted the notice.
    """

    kind: ClassVar[str] = "drained"
    step: int
    reached: int
    at_us: int


@dataclass(frozen=True, slots=True)
class Finished:
    """All steps are complete and the final checkpoint is committed."""

    kind: ClassVar[str] = "finished"
    step: int
    at_us: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Worker to child: save and leave by `deadline_us`."""

    kind: ClassVar[str] = "drain"
    deadline_us: int


@dataclass(frozen=True, slots=True)
class SetCadence:
    """Worker to child: save at this fixed interval; 0 returns to the automatic cadence."""

    kind: ClassVar[str] = "cadence"
    interval_ms: int


@dataclass(frozen=True, slots=True)
class Hurry:
    """Worker to child: an eviction is near (a neighbour got its notice): save at once."""

    kind: ClassVar[str] = "hurry"
    at_us: int


ChildMessage: TypeAlias = (
    Hello
    | Beside
    | Opened
    | Restoring
    | Restored
    | Training
    | Step
    | Saving
    | Committed
    | SaveFailed
    | Drained
    | Finished
)
WorkerMessage: TypeAlias = Drain | SetCadence | Risk | Hurry
Message: TypeAlias = ChildMessage | WorkerMessage

_KINDS: Final[Mapping[str, type[Message]]] = {
    message.kind: message
    for message in (
        Hello,
        Beside,
        Opened,
        Restoring,
        Restored,
        Training,
        Step,
        Saving,
        Committed,
        SaveFailed,
        Drained,
        Finished,
        Drain,
        SetCadence,
        Risk,
        Hurry,
    )
}


def encode(message: Message) -> bytes:
    """Return the message as one line, its newline included."""
    body = json.dumps({"kind": message.kind, **asdict(message)}, separators=(",", ":"))
    return body.encode("ascii") + b"\n"


def decode(line: bytes) -> Message:
    """Parse one line; raise `ControlError`. Unknown fields are ignored, missing ones are not."""
    try:
        found = json.loads(line)
    except ValueError as error:
        raise ControlError(f"not JSON: {line[:80]!r}") from error
    kind = found.get("kind") if isinstance(found, dict) else None
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ControlError(f"no message of kind {kind!r}")
    wanted = _KINDS[kind]
    try:
        values = {name: _checked(found, name, form) for name, form in _wanted(wanted)}
    except (KeyError, TypeError) as error:
        raise ControlError(f"{kind}: field missing or of the wrong type: {error}") from error
    return cast("Callable[..., Message]", wanted)(**values)


_INT64 = 1 << 63  # what the worker's and the agent's stores can hold


def _wanted(message: type[Message]) -> list[tuple[str, str]]:
    return [(field.name, str(field.type)) for field in fields(message)]


def _checked(found: Mapping[str, object], name: str, form: str) -> object:
    value = found[name]
    if form == "int" and type(value) is int and -_INT64 <= value < _INT64:
        return value
    if form == "str" and type(value) is str:
        return value
    if form == "tuple[str, ...]" and isinstance(value, list):
        return tuple(str(item) for item in cast("list[object]", value))
    raise TypeError(f"{name}={value!r}")

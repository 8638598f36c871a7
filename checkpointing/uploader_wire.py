"""The wire between a training process and its uploader: JSON frames and one descriptor.

A frame is a length (4 bytes, big-endian) and a JSON object with a `kind`. The arena's descriptor
travels beside the frame that announces it (`SCM_RIGHTS`). Both ends are of one version.
"""

from __future__ import annotations

import json
import select
import socket
import struct
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final, cast

from checkpointing import errors
from checkpointing.depot import DepotOrder
from checkpointing.errors import CheckpointError
from checkpointing.identity import Identity
from checkpointing.manifest import tensor_from_json, tensor_json
from checkpointing.publish import Published
from checkpointing.retention import Retention
from checkpointing.snapshot import Snapshot
from checkpointing.uploader import Outcome

_LENGTH: Final = struct.Struct(">I")
_MS: Final = 1000

Message = Mapping[str, Any]


class Channel:
    """One end of the wire."""

    def __init__(self, link: socket.socket) -> None:
        """Use a connected unix stream socket."""
        self._link = link

    def send(self, message: Message, *, descriptor: int | None = None) -> None:
        """Send a frame; raise `OSError` if the other end is gone."""
        body = json.dumps(message, separators=(",", ":")).encode("ascii")
        head = _LENGTH.pack(len(body))
        if descriptor is None:
            self._link.sendall(head)
        else:
            socket.send_fds(self._link, [head], [descriptor])
        self._link.sendall(body)

    def ready(self, timeout_s: float) -> bool:
        """Say whether `receive` would find something, waiting up to `timeout_s`."""
        poll = select.poll()  # unlike select(), not limited to descriptors below 1024
        poll.register(self._link, select.POLLIN)
        return bool(poll.poll(max(0, int(timeout_s * _MS))))

    def receive(self) -> tuple[Message, int | None] | None:
        """Wait for a frame and the descriptor beside it; None when the other end is gone."""
        try:
            head, descriptors, _, _ = socket.recv_fds(self._link, _LENGTH.size, 1)
            body = self._exactly(*_LENGTH.unpack(head + self._exactly(_LENGTH.size - len(head))))
        except (ConnectionError, EOFError):
            return None
        return json.loads(body), (descriptors[0] if descriptors else None)

    def close(self) -> None:
        """Hang up."""
        self._link.close()

    def _exactly(self, length: int) -> bytes:
        found = bytearray()
        while len(found) < length:
            data = self._link.recv(length - len(found))
            if not data:
                raise EOFError
            found += data
        return bytes(found)


def order_json(order: DepotOrder) -> Message:
    """Return the frame that opens a depot."""
    return {"kind": "open", **asdict(order)}


def order_from(message: Message) -> DepotOrder:
    """Read a frame of `order_json`."""
    return DepotOrder(
        uri=message["uri"],
        identity=Identity(**message["identity"]),
        conditional=message["conditional"],
        retention=Retention(**message["retention"]),
        provenance=message["provenance"],
    )


def snapshot_json(snapshot: Snapshot) -> Message:
    """Return the frame that starts a save; the bytes stay in the arena."""
    return {
        "kind": "save",
        "step": snapshot.step,
        "at_us": snapshot.at_us,
        "tree": snapshot.tree,
        "tensors": [tensor_json(entry) for entry in snapshot.tensors],
        "ranges": snapshot.ranges,
    }


def snapshot_from(message: Message, memory: memoryview) -> Snapshot:
    """Read a frame of `snapshot_json`, over the mapped arena."""
    return Snapshot(
        step=message["step"],
        at_us=message["at_us"],
        tree=message["tree"],
        tensors=tuple(tensor_from_json(item) for item in message["tensors"]),
        ranges=tuple((start, end) for start, end in message["ranges"]),
        memory=memory,
    )


def outcome_json(outcome: Outcome) -> Message:
    """Return the frame that reports how a save ended."""
    if outcome.published is not None:
        return {"kind": "published", **asdict(outcome.published)}
    error = outcome.error
    assert error is not None, outcome
    return {
        "kind": "failed",
        "step": outcome.step,
        "type": type(error).__name__,
        "code": error.code,
        "cause": error.cause,
        "remedy": error.remedy,
    }


def outcome_from(message: Message) -> Outcome:
    """Read a frame of `outcome_json`."""
    fields = dict(message)
    if fields.pop("kind") == "published":
        published = Published(**fields)
        return Outcome(published.step, published=published)
    kind = cast("type[CheckpointError]", getattr(errors, fields["type"], CheckpointError))
    error = kind(fields["code"], cause=fields["cause"], remedy=fields["remedy"])
    return Outcome(fields["step"], error=error)

"""What an uploader tells the attempt worker: that it is there, and what it saved for the dead.

While its training lives, that tells all. The open connection says that the uploader is at work;
when the training has died, the worker waits for it to close before it reports the end.
"""

from __future__ import annotations

import socket
from contextlib import suppress

from checkpointing.control import Beside, Committed, encode
from checkpointing.environment import process_id, read_environment
from checkpointing.publish import Published


class WorkerReport:
    """The connection; without a worker, or after its death, it does nothing."""

    def __init__(self) -> None:
        """Connect to the control socket that the environment names."""
        environment = read_environment()
        self._link: socket.socket | None = None
        if environment.control_path is not None:
            link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._link = link
            with suppress(OSError):
                link.connect(environment.control_path)
                link.sendall(encode(Beside(rank=environment.rank, pid=process_id())))

    def committed(self, published: Published, *, snapshot_us: int) -> None:
        """Say what counts now; saying again what the training has said is harmless."""
        said = Committed(
            step=published.step,
            snapshot_us=snapshot_us,
            committed_us=published.at_us,
            stall_us=0,  # the training's own account of it died with it
            bytes=published.length,
            new_bytes=published.new_bytes,
            manifest=published.manifest,
        )
        if self._link is not None:
            with suppress(OSError):
                self._link.sendall(encode(said))

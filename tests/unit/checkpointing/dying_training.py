"""A training that dies right after it handed a snapshot over; a script: `dying_training.py FOLDER`.

It stops its uploader first, so that the save cannot be over before the death, and prints the
uploader's process id.
"""

from __future__ import annotations

import os
import signal
import sys

from checkpointing.uploader_process import ProcessUploader
from tests.unit.checkpointing.training import Trainee


def main() -> None:
    """Train three steps, save the second, die in the third."""
    trainee = Trainee()
    with trainee.session(sys.argv[1], save_every_s=1e-6) as session:
        session.begin(10)
        trainee.step()
        engine = session._engine
        assert engine is not None
        assert engine.saver is not None
        uploader = engine.saver._uploader
        assert isinstance(uploader, ProcessUploader)
        assert uploader.pid is not None
        os.kill(uploader.pid, signal.SIGSTOP)
        session.completed(1)
        trainee.step()
        print(uploader.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
